from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from prometheus_client import REGISTRY
from sqlalchemy import create_engine, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from app.observability.business import (
    after_commit,
    count_feature,
    count_funnel_step,
    set_active_users,
)


@pytest.fixture
async def session() -> AsyncIterator[AsyncSession]:
    engine = create_async_engine("sqlite+aiosqlite://", poolclass=StaticPool)
    async with async_sessionmaker(engine)() as session:
        yield session
    await engine.dispose()


@pytest.fixture
def sync_session() -> Iterator[Session]:
    engine = create_engine("sqlite://", poolclass=StaticPool)
    with Session(engine) as session:
        yield session
    engine.dispose()


async def test_a_callback_runs_once_after_the_commit_and_not_before(session: AsyncSession) -> None:
    calls: list[str] = []
    await session.execute(text("SELECT 1"))
    after_commit(session, lambda: calls.append("paid"))
    await session.flush()
    assert calls == []

    await session.commit()
    assert calls == ["paid"]

    await session.execute(text("SELECT 1"))
    await session.commit()
    assert calls == ["paid"]


def test_a_plain_session_works_too(sync_session: Session) -> None:
    calls: list[str] = []
    after_commit(sync_session, lambda: calls.append("paid"))
    sync_session.commit()

    assert calls == ["paid"]


async def test_a_rolled_back_transaction_never_counts(session: AsyncSession) -> None:
    calls: list[str] = []
    await session.execute(text("SELECT 1"))
    after_commit(session, lambda: calls.append("paid"))
    await session.rollback()

    await session.execute(text("SELECT 1"))
    await session.commit()

    assert calls == []


async def test_a_rollback_does_not_repeat_what_an_earlier_commit_has_run(
    session: AsyncSession,
) -> None:
    calls: list[str] = []
    after_commit(session, lambda: calls.append("first"))
    await session.commit()
    after_commit(session, lambda: calls.append("second"))
    await session.rollback()

    assert calls == ["first"]


async def test_a_session_closed_without_commit_never_counts(session: AsyncSession) -> None:
    calls: list[str] = []
    await session.execute(text("SELECT 1"))
    after_commit(session, lambda: calls.append("paid"))
    await session.close()

    await session.execute(text("SELECT 1"))
    await session.commit()

    assert calls == []


async def test_a_callback_registered_before_any_statement_belongs_to_the_coming_transaction(
    session: AsyncSession,
) -> None:
    calls: list[str] = []
    after_commit(session, lambda: calls.append("dropped"))
    await session.rollback()
    after_commit(session, lambda: calls.append("kept"))
    await session.execute(text("SELECT 1"))
    await session.commit()

    assert calls == ["kept"]


async def test_a_released_savepoint_waits_for_the_outermost_commit(session: AsyncSession) -> None:
    calls: list[str] = []
    async with session.begin_nested():
        after_commit(session, lambda: calls.append("paid"))
    assert calls == []

    await session.commit()
    assert calls == ["paid"]


async def test_a_released_savepoint_is_dropped_with_the_outer_transaction(
    session: AsyncSession,
) -> None:
    calls: list[str] = []
    async with session.begin_nested():
        after_commit(session, lambda: calls.append("paid"))
    await session.rollback()
    await session.execute(text("SELECT 1"))
    await session.commit()

    assert calls == []


async def test_a_rolled_back_savepoint_drops_its_own_callbacks_only(session: AsyncSession) -> None:
    calls: list[str] = []
    after_commit(session, lambda: calls.append("before"))
    savepoint = await session.begin_nested()
    after_commit(session, lambda: calls.append("inside"))
    await savepoint.rollback()
    after_commit(session, lambda: calls.append("after"))
    await session.commit()

    assert calls == ["before", "after"]


async def test_a_rolled_back_savepoint_drops_what_was_released_inside_it(
    session: AsyncSession,
) -> None:
    calls: list[str] = []
    outer = await session.begin_nested()
    async with session.begin_nested():
        after_commit(session, lambda: calls.append("inner"))
    await outer.rollback()
    await session.commit()

    assert calls == []


async def test_a_savepoint_rolled_back_around_an_open_one_drops_both(session: AsyncSession) -> None:
    calls: list[str] = []
    outer = await session.begin_nested()
    await session.begin_nested()
    after_commit(session, lambda: calls.append("inner"))
    await outer.rollback()
    await session.commit()

    assert calls == []


async def test_a_callback_that_raises_is_logged_and_stops_nobody(
    session: AsyncSession, log_records: list[Any]
) -> None:
    calls: list[str] = []
    after_commit(session, lambda: 1 / 0)
    after_commit(session, lambda: calls.append("still called"))
    await session.commit()

    assert calls == ["still called"]
    assert log_records[0]["exception"].type is ZeroDivisionError


async def test_a_callback_registered_by_a_callback_waits_for_the_next_commit(
    session: AsyncSession,
) -> None:
    calls: list[str] = []
    after_commit(session, lambda: after_commit(session, lambda: calls.append("second")))
    await session.commit()
    assert calls == []

    await session.commit()
    assert calls == ["second"]


async def test_sessions_do_not_see_each_others_callbacks(session: AsyncSession) -> None:
    calls: list[str] = []
    other = AsyncSession(session.bind)
    after_commit(session, lambda: calls.append("mine"))
    await other.execute(text("SELECT 1"))
    await other.commit()
    await other.close()

    assert calls == []


def value(name: str, labels: dict[str, str]) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_every_step_and_feature_has_a_series_before_its_first_use() -> None:
    for step in ("registration", "login", "order", "payment"):
        assert value("funnel_steps_total", {"step": step}) is not None
    for feature in ("data_export", "erasure", "order_cancel", "refund", "pagination"):
        assert value("feature_usage_total", {"feature": feature}) is not None


def test_counting_counts() -> None:
    steps = value("funnel_steps_total", {"step": "order"}) or 0
    refunds = value("feature_usage_total", {"feature": "refund"}) or 0
    count_funnel_step("order")
    count_feature("refund")
    set_active_users("7d", 42)

    assert value("funnel_steps_total", {"step": "order"}) == steps + 1
    assert value("feature_usage_total", {"feature": "refund"}) == refunds + 1
    assert value("active_users", {"window": "7d"}) == 42
