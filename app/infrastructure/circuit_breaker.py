"""A circuit breaker: stop asking a dependency that fails, find out gently when it is back.

After `failure_threshold` failures in a row the circuit opens and attempts are refused at once, which
spares our clients the waiting and the dependency the load (Nygard, Release It!, "Circuit Breaker").
After `recovery_seconds` exactly one attempt at a time is let through as a probe (half-open): its success
closes the circuit, its failure opens it again. An attempt that began before the last transition says
nothing about now: its result is ignored.

Signals: `circuit_breaker_state{dependency}` (0 closed, 1 open, 2 half-open),
`circuit_breaker_transitions_total{dependency,to}`, one log line when an outage begins and one when it is
over. The state changes when somebody asks, not when time passes: without traffic it stays 1.

Belongs to one event loop: between looking and deciding nothing awaits, so no lock is needed.
Must never judge which errors matter: the caller names the exception types that are failures.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum

from loguru import logger
from prometheus_client import Counter, Gauge

circuit_breaker_state = Gauge(
    "circuit_breaker_state",
    "State of the circuit to a dependency: 0 closed, 1 open, 2 half-open.",
    ["dependency"],
    multiprocess_mode="livemax",
)
circuit_breaker_transitions_total = Counter(
    "circuit_breaker_transitions_total",
    "Transitions of the circuit to a dependency, by the state entered.",
    ["dependency", "to"],
)


class State(IntEnum):
    """The states, with the gauge's values."""

    CLOSED = 0
    OPEN = 1
    HALF_OPEN = 2


class CircuitOpen(Exception):
    """The attempt was refused before anything was sent.

    Args:
        dependency: Whose circuit it is.
        retry_after: Seconds until the next attempt may be let through.
    """

    def __init__(self, dependency: str, retry_after: float) -> None:
        super().__init__(f"the circuit to {dependency} is open")
        self.dependency = dependency
        self.retry_after = retry_after


class CircuitBreaker:
    """The circuit to one dependency.

    Args:
        dependency: Label value of the metrics; a fixed name, never an address.
        failures: Exception types that speak against the dependency. Any other exception, cancellation
            included, says nothing: it neither counts nor resets, and a probe that ends so frees its slot.
        failure_threshold: Failures in a row that open the circuit.
        recovery_seconds: How long it stays open.
        probe_seconds: A probe that takes longer loses its slot to the next attempt (it is not ended:
            time-outs are the caller's), so that one that hangs cannot keep the circuit from closing.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        dependency: str,
        *,
        failures: tuple[type[Exception], ...],
        failure_threshold: int = 5,
        recovery_seconds: float = 10.0,
        probe_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dependency = dependency
        self._failures = failures
        self._failure_threshold = failure_threshold
        self._recovery_seconds = recovery_seconds
        self._probe_seconds = probe_seconds
        self._clock = clock
        self._state = State.CLOSED
        self._failures_in_a_row = 0
        self._wait_until = 0.0
        """Open: when a probe may begin. Half-open: when the probe in flight loses its slot."""
        self._ticket = 0
        """Of the attempts whose result counts: those of this closed phase, or the current probe."""
        self._gauge = circuit_breaker_state.labels(dependency)
        self._gauge.set(State.CLOSED)
        self._transitions = {
            state: circuit_breaker_transitions_total.labels(dependency, state.name.lower())
            for state in State
        }

    @property
    def state(self) -> State:
        """The state as of the last attempt."""
        return self._state

    @contextmanager
    def attempt(self) -> Iterator[None]:
        """Let the block try the dependency, and learn from how it ends.

        Raises:
            CircuitOpen: Instead of running the block.
        """
        ticket = self._admit()
        try:
            yield
        except self._failures:
            if ticket == self._ticket:
                self._failed()
            raise
        except BaseException:
            if ticket == self._ticket and self._state is State.HALF_OPEN:
                self._wait_until = self._clock()  # no verdict: the next attempt is the probe
            raise
        if ticket == self._ticket:
            self._succeeded()

    def _admit(self) -> int:
        if self._state is State.CLOSED:
            return self._ticket
        now = self._clock()
        if now < self._wait_until:
            raise CircuitOpen(self._dependency, self._wait_until - now)
        if self._state is State.OPEN:
            self._enter(State.HALF_OPEN)
        self._ticket += 1
        self._wait_until = now + self._probe_seconds
        return self._ticket

    def _failed(self) -> None:
        self._failures_in_a_row += 1
        if self._state is State.HALF_OPEN or self._failures_in_a_row >= self._failure_threshold:
            if self._state is State.CLOSED:
                logger.bind(type="external", dependency=self._dependency).warning("circuit opened")
            self._wait_until = self._clock() + self._recovery_seconds
            self._enter(State.OPEN)

    def _succeeded(self) -> None:
        self._failures_in_a_row = 0
        if self._state is State.HALF_OPEN:
            logger.bind(type="external", dependency=self._dependency).info("circuit closed")
            self._enter(State.CLOSED)

    def _enter(self, state: State) -> None:
        self._state = state
        self._ticket += 1
        self._gauge.set(state)
        self._transitions[state].inc()
