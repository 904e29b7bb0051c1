"""A sample that is costly is taken seldom, one that is cheap each time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from typing import Any, cast

import pytest

from app.infrastructure import samples
from app.infrastructure.database import Database
from app.infrastructure.samples import SHARE, Sample


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def monotonic(self) -> float:
        return self.seconds


class NoDatabase:
    """Transactions that do nothing."""

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        yield


DATABASE = cast("Database", NoDatabase())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(samples, "time", clock)
    return clock


class Question:
    """Takes its time; may fail after that."""

    def __init__(self, clock: Clock, seconds: float, error: Exception | None = None) -> None:
        self.asked: list[float] = []
        self._clock, self._seconds, self._error = clock, seconds, error

    async def __call__(self, session: Any) -> None:
        self.asked.append(self._clock.seconds)
        self._clock.seconds += self._seconds
        if self._error:
            raise self._error


async def _for_a_while(sample: Sample, clock: Clock, seconds: float, every: float) -> None:
    end = clock.seconds + seconds
    while clock.seconds < end:
        await sample.take(DATABASE)
        clock.seconds += every


async def test_a_cheap_question_is_asked_each_time(clock: Clock) -> None:
    question = Question(clock, seconds=0.01)
    await _for_a_while(Sample(question), clock, seconds=100, every=5)
    assert len(question.asked) == 20


async def test_a_costly_question_takes_no_more_than_its_share_of_the_time(clock: Clock) -> None:
    question = Question(clock, seconds=3)
    await _for_a_while(Sample(question), clock, seconds=3000, every=5)
    gaps = [later - earlier for earlier, later in pairwise(question.asked)]
    assert gaps
    assert all(3 / SHARE <= gap < 3 / SHARE + 10 for gap in gaps)


async def test_no_question_is_forgotten(clock: Clock) -> None:
    question = Question(clock, seconds=60)
    await _for_a_while(Sample(question), clock, seconds=3000, every=5)
    gaps = [later - earlier for earlier, later in pairwise(question.asked)]
    assert gaps
    assert all(600 <= gap < 610 for gap in gaps)


async def test_waiting_for_the_database_is_not_held_against_a_question(clock: Clock) -> None:
    class Away(NoDatabase):
        @asynccontextmanager
        async def transaction(self) -> AsyncIterator[None]:
            clock.seconds += 30
            raise TimeoutError
            yield

    question = Question(clock, seconds=0.01)
    sample = Sample(question)
    with pytest.raises(TimeoutError):
        await sample.take(cast("Database", Away()))
    await sample.take(DATABASE)
    assert len(question.asked) == 1


async def test_a_question_that_fails_is_put_off_as_well(clock: Clock) -> None:
    question = Question(clock, seconds=3, error=TimeoutError())
    sample = Sample(question)
    with pytest.raises(TimeoutError):
        await sample.take(DATABASE)
    clock.seconds += 290
    await sample.take(DATABASE)
    assert len(question.asked) == 1
    clock.seconds += 10
    with pytest.raises(TimeoutError):
        await sample.take(DATABASE)
