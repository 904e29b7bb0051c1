"""The circuit breaker as a specification, with a clock of our own."""

import asyncio
from contextlib import AbstractContextManager, suppress
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from prometheus_client import REGISTRY

from app.infrastructure.circuit_breaker import (
    CircuitBreaker,
    CircuitOpen,
    State,
    circuit_breaker_state,
)

THRESHOLD = 3
RECOVERY = 10.0
PROBE = 5.0


class BrokenError(Exception):
    """A failure of the dependency."""


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return make_breaker(clock)


def make_breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker(
        "shop",
        failures=(BrokenError,),
        failure_threshold=THRESHOLD,
        recovery_seconds=RECOVERY,
        probe_seconds=PROBE,
        clock=clock,
    )


def succeed(breaker: CircuitBreaker) -> None:
    with breaker.attempt():
        pass


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        with suppress(BrokenError), breaker.attempt():
            raise BrokenError


def state_of(breaker: CircuitBreaker) -> State:
    """A call, since mypy would take an attribute for unchanged after the first assertion."""
    return breaker.state


def gauge() -> float:
    """Ask the one metric: the registry would collect all of them, at every step of the machine below."""
    (family,) = circuit_breaker_state.collect()
    return next(found.value for found in family.samples if found.labels["dependency"] == "shop")


def transitions(to: str) -> float:
    labels = {"dependency": "shop", "to": to}
    return REGISTRY.get_sample_value("circuit_breaker_transitions_total", labels) or 0.0


def test_failures_in_a_row_open_the_circuit(breaker: CircuitBreaker) -> None:
    fail(breaker, THRESHOLD - 1)
    assert state_of(breaker) is State.CLOSED
    fail(breaker)
    assert state_of(breaker) is State.OPEN


def test_a_success_starts_the_count_again(breaker: CircuitBreaker) -> None:
    fail(breaker, THRESHOLD - 1)
    succeed(breaker)
    fail(breaker, THRESHOLD - 1)
    assert state_of(breaker) is State.CLOSED


def test_an_exception_that_is_not_a_failure_neither_counts_nor_resets(
    breaker: CircuitBreaker,
) -> None:
    fail(breaker, THRESHOLD - 1)
    for _ in range(THRESHOLD):
        with suppress(KeyError), breaker.attempt():
            raise KeyError
    assert state_of(breaker) is State.CLOSED
    fail(breaker)
    assert state_of(breaker) is State.OPEN


def test_the_exception_reaches_the_caller(breaker: CircuitBreaker) -> None:
    with pytest.raises(BrokenError), breaker.attempt():
        raise BrokenError


def test_an_open_circuit_refuses_and_says_how_long(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, THRESHOLD)
    clock.now += 4
    ran = False
    with pytest.raises(CircuitOpen) as refused, breaker.attempt():
        ran = True
    assert not ran
    assert refused.value.retry_after == RECOVERY - 4


async def test_of_a_hundred_concurrent_callers_one_is_the_probe(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, THRESHOLD)
    clock.now += RECOVERY
    release = asyncio.Event()
    probes = 0

    async def call() -> None:
        nonlocal probes
        with breaker.attempt():
            probes += 1
            await release.wait()

    calls = [asyncio.create_task(call()) for _ in range(100)]
    await asyncio.sleep(0)  # each has run until its first wait
    assert probes == 1
    assert state_of(breaker) is State.HALF_OPEN
    release.set()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(result, CircuitOpen) for result in results) == 99
    assert state_of(breaker) is State.CLOSED


def test_a_failed_probe_opens_the_circuit_for_the_whole_time_again(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, THRESHOLD)
    clock.now += RECOVERY
    fail(breaker)
    clock.now += RECOVERY - 1
    with pytest.raises(CircuitOpen):
        succeed(breaker)
    clock.now += 1
    succeed(breaker)
    assert state_of(breaker) is State.CLOSED


async def test_a_cancelled_probe_frees_its_slot(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker, THRESHOLD)
    clock.now += RECOVERY

    async def call() -> None:
        with breaker.attempt():
            await asyncio.Event().wait()

    probe = asyncio.create_task(call())
    await asyncio.sleep(0)
    with pytest.raises(CircuitOpen):
        succeed(breaker)
    probe.cancel()
    with suppress(asyncio.CancelledError):
        await probe
    succeed(breaker)
    assert state_of(breaker) is State.CLOSED


def test_a_probe_that_hangs_loses_its_slot_and_its_say(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker, THRESHOLD)
    clock.now += RECOVERY
    hanging = breaker.attempt()
    hanging.__enter__()
    clock.now += PROBE - 1
    with pytest.raises(CircuitOpen):
        succeed(breaker)
    clock.now += 1
    succeed(breaker)
    assert state_of(breaker) is State.CLOSED
    end(hanging, BrokenError())
    fail(breaker, THRESHOLD - 1)
    assert state_of(breaker) is State.CLOSED


def test_what_began_before_the_outage_cannot_end_it(breaker: CircuitBreaker, clock: Clock) -> None:
    early = breaker.attempt()
    early.__enter__()
    fail(breaker, THRESHOLD)
    end(early, None)
    assert state_of(breaker) is State.OPEN
    with pytest.raises(CircuitOpen):
        succeed(breaker)


def test_what_began_before_the_outage_cannot_prolong_it(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    early = breaker.attempt()
    early.__enter__()
    fail(breaker, THRESHOLD)
    clock.now += RECOVERY
    end(early, BrokenError())
    succeed(breaker)
    assert state_of(breaker) is State.CLOSED


@pytest.mark.parametrize("how", [None, BrokenError(), asyncio.CancelledError()], ids=repr)
@pytest.mark.parametrize("is_lost_probe", [False, True])
def test_only_the_probe_decides(
    breaker: CircuitBreaker, clock: Clock, how: BaseException | None, is_lost_probe: bool
) -> None:
    early = breaker.attempt()
    if not is_lost_probe:
        early.__enter__()
    fail(breaker, THRESHOLD)
    clock.now += RECOVERY
    if is_lost_probe:
        early.__enter__()
        clock.now += PROBE
    with breaker.attempt():
        end(early, how)
        assert state_of(breaker) is State.HALF_OPEN
        with pytest.raises(CircuitOpen):
            succeed(breaker)
    assert state_of(breaker) is State.CLOSED


def test_state_and_transitions_are_published(breaker: CircuitBreaker, clock: Clock) -> None:
    before = {to: transitions(to) for to in ("open", "half_open", "closed")}
    assert gauge() == 0
    fail(breaker, THRESHOLD)
    assert gauge() == 1
    clock.now += RECOVERY
    with breaker.attempt():
        assert gauge() == 2
    assert gauge() == 0
    assert {to: transitions(to) - before[to] for to in before} == dict.fromkeys(before, 1)


def test_an_outage_is_logged_once_and_its_end_once(
    breaker: CircuitBreaker, clock: Clock, log_records: list[dict[str, Any]]
) -> None:
    fail(breaker, THRESHOLD)
    for _ in range(5):
        clock.now += RECOVERY
        fail(breaker)
    clock.now += RECOVERY
    succeed(breaker)
    lines = [(line["level"].name, line["message"]) for line in log_records]
    assert lines == [("WARNING", "circuit opened"), ("INFO", "circuit closed")]
    assert log_records[0]["extra"]["dependency"] == "shop"


def end(attempt: AbstractContextManager[None], error: BaseException | None) -> None:
    """Leave the block of `attempt`, with or without an exception."""
    if error is None:
        attempt.__exit__(None, None, None)
        return
    with suppress(type(error)):
        attempt.__exit__(type(error), error, None)


class CircuitBreakerMachine(RuleBasedStateMachine):
    """Any interleaving of attempts that succeed, fail, hang and are cancelled while time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.breaker = make_breaker(self.clock)
        self.in_flight: list[tuple[AbstractContextManager[None], State, float]] = []
        """Attempt, the state that admitted it, when it began."""
        self.opened_at = 0.0

    def _note_opening(self, before: State) -> None:
        if before is not State.OPEN and self.breaker.state is State.OPEN:
            self.opened_at = self.clock.now

    @rule()
    def begin(self) -> None:
        before = self.breaker.state
        attempt = self.breaker.attempt()
        refused: CircuitOpen | None = None
        try:
            attempt.__enter__()
        except CircuitOpen as error:
            refused = error
        if refused is not None:
            assert before is not State.CLOSED
            assert 0 < refused.retry_after <= max(RECOVERY, PROBE)
            return
        if before is State.OPEN:
            assert self.clock.now >= self.opened_at + RECOVERY
        if before is not State.CLOSED:
            assert self.breaker.state is State.HALF_OPEN
        self.in_flight.append((attempt, self.breaker.state, self.clock.now))

    @precondition(lambda self: self.in_flight)
    @rule(
        data=st.data(),
        how=st.sampled_from([None, BrokenError(), KeyError(), asyncio.CancelledError()]),
    )
    def finish(self, data: st.DataObject, how: BaseException | None) -> None:
        index = data.draw(st.integers(0, len(self.in_flight) - 1))
        attempt, admitted_by, _ = self.in_flight.pop(index)
        before = self.breaker.state
        end(attempt, how)
        self._note_opening(before)
        after = self.breaker.state
        if after is not before:
            # Only successful probes close; only failures open; nothing that ends makes a probe begin.
            assert (admitted_by, type(how), after) in {
                (State.HALF_OPEN, type(None), State.CLOSED),
                (State.HALF_OPEN, BrokenError, State.OPEN),
                (State.CLOSED, BrokenError, State.OPEN),
            }

    @rule(seconds=st.sampled_from([1.0, PROBE, RECOVERY]))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule()
    def always_recovers(self) -> None:
        """Whatever hangs: after the longest wait, a success closes the circuit."""
        self.clock.now += max(RECOVERY, PROBE)
        succeed(self.breaker)
        assert self.breaker.state is State.CLOSED

    @rule()
    def failures_in_a_row_always_open(self) -> None:
        for _ in range(THRESHOLD):
            if state_of(self.breaker) is State.CLOSED:
                fail(self.breaker)
                self._note_opening(State.CLOSED)
        assert state_of(self.breaker) is not State.CLOSED

    @invariant()
    def at_most_one_probe_has_the_slot(self) -> None:
        if self.breaker.state is State.HALF_OPEN:
            young = [
                began
                for _, admitted_by, began in self.in_flight
                if admitted_by is State.HALF_OPEN and self.clock.now < began + PROBE
            ]
            # A probe of an earlier half-open phase may be young, too, if that phase ended early.
            assert len([began for began in young if began >= self.opened_at]) <= 1

    @invariant()
    def the_gauge_shows_the_state(self) -> None:
        assert gauge() == self.breaker.state

    def teardown(self) -> None:
        for attempt, _, _ in self.in_flight:
            end(attempt, asyncio.CancelledError())


TestCircuitBreakerMachine = CircuitBreakerMachine.TestCase
# The same cases in every run, however long one takes: a failure is a change, not luck.
TestCircuitBreakerMachine.settings = settings(
    max_examples=400,
    stateful_step_count=30,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
