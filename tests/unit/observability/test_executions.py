"""Watching executions: as SQLAlchemy's own events tell of them, without what those cost."""

import gc
import importlib.util
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from sentry_sdk.utils import exc_info_from_error, exceptions_from_error_tuple
from sqlalchemy import (
    Column,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    create_engine,
    event,
    insert,
    select,
    text,
    update,
)
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool, StaticPool

from app.observability import executions
from app.observability.database import DatabaseInsightSettings, instrument_database
from app.observability.executions import watch_executions
from app.observability.tracing import trace_engine

THINGS = Table("things", MetaData(), Column("id", Integer, primary_key=True), Column("name", Text))
NAMES = [{"name": name} for name in "abc"]


def make_engine() -> Engine:
    return create_engine(
        "sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False}
    )


def noting(told: list[tuple[Any, ...]], when: str) -> Callable[..., None]:
    def note(*arguments: Any) -> None:
        told.append((when, *arguments))

    return note


def use(engine: Engine) -> None:
    """Execute statements in all the ways that there are."""
    with engine.begin() as connection:
        THINGS.metadata.create_all(connection)
        connection.execute(insert(THINGS), [{"id": 10, "name": "x"}, {"id": 11, "name": "y"}])
        connection.execute(insert(THINGS).returning(THINGS.c.id), NAMES).all()
        connection.execute(
            update(THINGS).where(THINGS.c.id == bindparam("which")),
            [{"which": 10, "name": "z"}, {"which": 11, "name": "z"}],
        )
        connection.execute(select(THINGS).where(THINGS.c.id == 10)).all()
        connection.exec_driver_sql("SELECT 1").all()
        connection.execution_options(no_parameters=True).execute(text("SELECT 2")).all()
    with engine.connect() as connection:
        connection.execution_options(isolation_level="AUTOCOMMIT").execute(text("SELECT 3"))


def test_they_are_told_what_sqlalchemys_events_tell() -> None:
    engine, told, expected = make_engine(), list[tuple[Any, ...]](), list[tuple[Any, ...]]()
    watch_executions(engine, before=noting(told, "before"), after=noting(told, "after"))
    event.listen(engine, "before_cursor_execute", noting(expected, "before"))
    event.listen(engine, "after_cursor_execute", noting(expected, "after"))

    use(engine)

    assert told == expected
    statements = [statement for when, _, _, statement, *_ in told if when == "before"]
    assert len(statements) > 8
    assert any(arguments[-1] for arguments in told)  # one was for many sets of parameters
    assert not any("sqlite_version" in statement for statement in statements)


def test_several_watch_one_engine_and_none_another() -> None:
    engine, told = make_engine(), list[tuple[Any, ...]]()
    watch_executions(engine, before=noting(told, "first"))
    watch_executions(engine, before=noting(told, "second"), after=noting(told, "third"))

    for one in (engine, make_engine()):
        with one.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1

    assert [when for when, *_ in told] == ["first", "second", "third"]


def test_an_engine_that_shares_a_dialect_is_another() -> None:
    engine, told = make_engine(), list[tuple[Any, ...]]()
    other = Engine(
        NullPool(engine.pool._creator, dialect=engine.dialect), engine.dialect, engine.url
    )
    watch_executions(engine, before=noting(told, "one"), after=noting(told, "one"))
    watch_executions(other, before=noting(told, "other"))

    for one in (engine, other, engine.execution_options(logging_token="same")):
        with one.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1

    assert [when for when, *_ in told] == ["one", "one", "other", "one", "one"]


def test_an_engine_with_options_is_watched_with_the_one_that_it_is_made_of() -> None:
    engine, told, expected = make_engine(), list[str](), list[str]()
    with_options = engine.execution_options(logging_token="options")
    further = with_options.execution_options(logging_token="further")
    for name, one in (("engine", engine), ("with options", with_options)):
        watch_executions(one, before=lambda *_, name=name: told.append(name))
        event.listen(one, "before_cursor_execute", lambda *_, name=name: expected.append(name))

    for one in (engine, with_options, further):
        with one.connect() as connection:
            assert connection.scalar(text("SELECT 1")) == 1

    assert told == expected == ["engine", *["with options", "engine"] * 2]


def test_two_copies_of_this_file_do_not_ask_each_other_for_ever() -> None:
    spec = importlib.util.spec_from_file_location("copied_executions", executions.__file__)
    assert spec is not None
    assert spec.loader is not None
    copied = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copied)
    engine, told = make_engine(), list[tuple[Any, ...]]()
    watch_executions(engine, before=noting(told, "ours"))
    copied.watch_executions(engine, before=noting(told, "copied"))

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 1

    assert [when for when, *_ in told] == ["copied", "ours"]


def test_a_listener_of_all_engines_is_asked_once() -> None:
    seen: list[str] = []

    def look_on(_cursor: Any, statement: str, _parameters: Any, _context: Any) -> None:
        seen.append(statement)

    event.listen(Engine, "do_execute", look_on)
    try:
        engine = make_engine()
        watch_executions(engine, before=noting([], "before"))
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))
    finally:
        event.remove(Engine, "do_execute", look_on)

    assert seen == ["SELECT 1"]


def test_who_executes_statements_in_another_way_still_does() -> None:
    engine, told = make_engine(), list[tuple[Any, ...]]()
    executed: list[str] = []

    def execute(cursor: Any, statement: str, parameters: Any, _context: Any) -> bool:
        executed.append(statement)
        cursor.execute(statement.replace("1", "2"), parameters)
        return True

    def look_on(_cursor: Any, statement: str, _parameters: Any, _context: Any) -> None:
        executed.append(f"seen: {statement}")

    event.listen(engine, "do_execute", look_on)
    event.listen(engine, "do_execute", execute)
    watch_executions(engine, before=noting(told, "before"), after=noting(told, "after"))

    with engine.connect() as connection:
        assert connection.scalar(text("SELECT 1")) == 2

    assert executed == ["seen: SELECT 1", "SELECT 1"]
    assert [when for when, *_ in told] == ["before", "after"]


def test_what_fails_has_no_after() -> None:
    engine, told, failed = make_engine(), list[tuple[Any, ...]](), list[Any]()
    watch_executions(engine, before=noting(told, "before"), after=noting(told, "after"))
    event.listen(engine, "handle_error", failed.append)

    with engine.connect() as connection, pytest.raises(OperationalError):
        connection.execute(text("SELECT nothing"))

    assert [when for when, *_ in told] == ["before"]
    (error,) = failed
    assert error.statement == "SELECT nothing"
    (stack,) = exceptions_from_error_tuple(exc_info_from_error(error.original_exception))
    frames = [frame["module"] for frame in stack["stacktrace"]["frames"]]
    assert frames[-1].startswith("sqlalchemy.")
    assert executions.__name__ not in frames  # nobody's issue is about who looks on


def test_the_signals_listen_to_nothing_that_costs_every_use_of_a_connection() -> None:
    engine = create_async_engine("sqlite+aiosqlite://")
    instrument_database(engine, DatabaseInsightSettings())
    trace_engine(engine)

    assert not engine.sync_engine._has_events
    event.listen(engine.sync_engine, "before_cursor_execute", noting([], "before"))
    assert engine.sync_engine._has_events  # so this is how one sees it


def test_an_engine_that_is_watched_can_be_forgotten() -> None:
    dialect = make_engine().dialect

    def watched() -> "weakref.ref[Engine]":
        like = make_engine()
        engine = Engine(like.pool, dialect, like.url)
        watch_executions(engine, before=lambda *_: engine)
        return weakref.ref(engine)

    forgotten = watched()
    gc.collect()

    assert forgotten() is None
