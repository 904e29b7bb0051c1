"""Who watches the statements of an engine is called before and after each execution, at little cost.

SQLAlchemy has events for that, `before_cursor_execute` and `after_cursor_execute`. But with the first
listener to any event of an engine, each use of a connection looks for the listeners of seven events anew,
which costs more than most listeners do. The events of its dialect, `do_execute` and its like, are looked for
once. They stand for the execution itself: whoever listens may execute the statement in another way. So the
one listener here calls the watchers, then those who also listen, and executes as SQLAlchemy would if none of
them has.
"""

from collections.abc import Callable
from typing import Any, Final, Literal

from sqlalchemy import Engine, event

Watcher = Callable[[Any, Any, str, Any, Any, bool], object]
"""Is given the connection, the DBAPI's cursor, the statement, its parameters, the ExecutionContext, and
whether many sets of parameters were given. What it returns does not matter."""

_EVENTS: Final = ("do_execute", "do_executemany", "do_execute_no_params")


def watch_executions(
    engine: Engine, *, before: Watcher | None = None, after: Watcher | None = None
) -> None:
    """Have them called before and after each execution of a statement through `engine`.

    Where it fails, `after` is not called: listen to SQLAlchemy's `handle_error`. What SQLAlchemy asks of a
    database before its first use is left out, as it is of SQLAlchemy's own events.
    """
    watchers = _watchers_of(engine)
    if watchers is None:
        watchers = _Watchers(engine)
        for name in _EVENTS:
            event.listen(engine, name, _Execution(name, watchers))
            # The first is asked first. (`insert=True` does nothing for these events.)
            getattr(engine.dialect.dispatch, name).listeners.rotate(1)
    watchers.before += (before,) if before else ()
    watchers.after += (after,) if after else ()


class _Watchers:
    """Those of one engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.before: tuple[Watcher, ...] = ()
        self.after: tuple[Watcher, ...] = ()


def _watchers_of(engine: Engine) -> _Watchers | None:
    for listener in engine.dialect.dispatch.do_execute:
        if isinstance(listener, _Execution) and listener.watchers.engine is engine:
            return listener.watchers
    return None


class _Execution:
    """Listens to one event of an engine's dialect, which other engines may have, too."""

    def __init__(self, event_name: str, watchers: _Watchers) -> None:
        self.watchers = watchers
        self._event = event_name

    def __call__(self, cursor: Any, statement: str, *rest: Any) -> Literal[True] | None:
        """Execute the statement, between the watchers."""
        __tracebackhide__ = (
            True  # to Sentry and pytest, what fails was executed by whom we are called
        )
        parameters, context = rest if len(rest) == 2 else ((), rest[0])  # noqa: PLR2004
        if context is None:
            return None
        connection, dialect, many = context.root_connection, context.dialect, context.executemany
        # By its pool: `engine.execution_options()` is another engine, and yet the same.
        if connection.engine.pool is not self.watchers.engine.pool:
            return None
        if not connection._allow_autobegin:
            return None  # SQLAlchemy asks for itself
        for before in self.watchers.before:
            before(connection, cursor, statement, parameters, context, many)
        for listener in getattr(dialect.dispatch, self._event):
            if listener is not self and listener(cursor, statement, *rest):
                break
        else:
            getattr(dialect, self._event)(cursor, statement, *rest)
        for after in self.watchers.after:
            after(connection, cursor, statement, parameters, context, many)
        return True
