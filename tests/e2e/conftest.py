"""What the end-to-end tests share: the backends of a running stack, and one journey that they look for.

Run by `make e2e`, against whatever `make up` started, or against any other stack with the addresses in the
environment (deploy/stack/backends/addresses.py). A backend that is not given is told as "not checked", by
name, at the end of the run, and its tests are skipped; with none given nothing is run, and that is an error.

`make test` leaves this directory out: it needs a stack that runs, which no test could start on every machine.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import pytest

from deploy.stack.backends.addresses import INSIDE, Addresses, NotUsable
from deploy.stack.backends.app import App, Customer, Ids
from deploy.stack.backends.http import Backend
from deploy.stack.backends.loki import Loki
from deploy.stack.backends.prometheus import Prometheus
from deploy.stack.doctor.house import BACKENDS

HERE: Final = Path(__file__).parent
CARD: Final = "4111 1111 1111 1111"
"""A number that passes every check and belongs to nobody."""
AT_ONCE: Final = 8
SECONDS: Final = 90.0
"""A scrape (15 s), the sampling's wait (10 s), batches on the way, and a busy machine."""

T = TypeVar("T")
B = TypeVar("B", bound=Backend)


def _is_asked_for(config: pytest.Config) -> bool:
    """Whether the command names this directory, or something in it."""
    named = [Path(str(one).partition("::")[0]).resolve() for one in config.invocation_params.args]
    return any(path == HERE or HERE in path.parents for path in named)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave these tests out of every run that does not name them: `make e2e` does."""
    return None if _is_asked_for(config) else True


def pytest_sessionstart(session: pytest.Session) -> None:
    """Refuse a run that would check nothing."""
    if _is_asked_for(session.config) and not any(os.environ.get(variable) for variable in INSIDE):
        pytest.exit(
            f"No backend is given, so that nothing would be checked: say `make e2e`, or set some of "
            f"{', '.join(INSIDE)}.",
            returncode=pytest.ExitCode.USAGE_ERROR,
        )
    if _is_asked_for(session.config):
        try:
            Addresses.read(os.environ)
        except NotUsable as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name the backends that nobody looked at."""
    if not _is_asked_for(config):
        return
    missing = [kind.variable for kind in BACKENDS if _address(kind) is None]
    said = ", ".join(missing) or "nothing, every backend was given"
    terminalreporter.section("end to end")
    terminalreporter.line(f"not checked: {said}")


def _address(kind: type[Backend]) -> str | None:
    backend = kind.at(Addresses.read(os.environ))
    if backend is None:
        return None
    backend.close()
    return backend.url


class Stack:
    """The backends that were given."""

    def __init__(self, addresses: Addresses) -> None:
        self.access = addresses.access
        self._backends = {kind: kind.at(addresses) for kind in BACKENDS}

    def has(self, kind: type[Backend]) -> bool:
        """Whether its address was given."""
        return self._backends[kind] is not None

    def ask(self, kind: type[B]) -> B:
        """Return the client of a backend; skip the test where it was not given."""
        backend = self._backends[kind]
        if backend is None:
            pytest.skip(f"not checked: {kind.variable} is not given")
        assert isinstance(backend, kind)
        return backend

    def close(self) -> None:
        """Close every connection."""
        for backend in self._backends.values():
            if backend is not None:
                backend.close()


def eventually(look: Callable[[], T | None], what: str, seconds: float = SECONDS) -> T:
    """Look until there is something to see, and return it; fail with `what` otherwise."""
    deadline = time.monotonic() + seconds
    while not (found := look()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {what}", pytrace=False)
        time.sleep(1)
    return found


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """The running stack."""
    stack = Stack(Addresses.read(os.environ))
    yield stack
    stack.close()


@dataclass(frozen=True)
class Journey:
    """What one customer did: paid for an order, and made mistakes that showed secrets to the service.

    Attributes:
        paid: The payment, by which everything is found; its card is slow, so that its trace is kept.
        mistaken: The card's number was given instead of the payment's token.
        shown: The password stood in an address.
    """

    customer: Customer
    paid: Ids
    mistaken: Ids
    shown: Ids

    @property
    def trace_id(self) -> str:
        """What joins all signals of the payment."""
        return self.paid.trace_id

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be found anywhere."""
        return (*self.customer.secrets, CARD, CARD.replace(" ", ""))


@pytest.fixture(scope="session")
def journey(stack: Stack) -> Journey:
    """One journey for all tests. It is no synthetic one: those are in no HTTP metric."""
    app = stack.ask(App)
    customer = app.customer(synthetic=False)
    order, other = app.order(customer), app.order(customer)
    mistaken = app.try_to_pay(customer, other, CARD.replace(" ", ""))
    _, shown = app.ask("GET", f"/v1/orders?limit=1&password={customer.password}", customer)
    payment, paid = app.pay(customer, order)
    assert payment["status"] == "captured", payment
    assert len(paid.trace_id) == 32, "the answer has no X-Trace-ID: are traces exported?"
    eventually(
        lambda: app.order_status(customer, order) == "fulfilled", "the worker fulfils the order"
    )
    return Journey(customer, paid, mistaken, shown)


@pytest.fixture(scope="session")
def breakdown(stack: Stack) -> Ids:
    """An answer 503 of the API, as customers get it while the payment provider fails.

    Several charges that fail at once (tok_error) open the circuit breaker: for some ten seconds, payments are
    refused before anything is sent. One after the other would not do: those of others succeed in between.
    Marked synthetic where SYNTHETIC_TOKEN is given; otherwise it costs error budget.
    """
    app = stack.ask(App)
    customer = app.customer(synthetic=True)
    for _ in range(5):
        orders = [app.order(customer) for _ in range(AT_ONCE + 1)]
        with ThreadPoolExecutor(AT_ONCE) as threads:
            for order in orders[1:]:
                threads.submit(app.try_to_pay, customer, order, "tok_error")
        ids = app.try_to_pay(customer, orders[0], "tok_ok")
        if ids.status == 503:
            return ids
    pytest.fail("the circuit to the payment provider does not open", pytrace=False)


@pytest.fixture(scope="session")
def prometheus(stack: Stack) -> Prometheus:
    """Prometheus, if it was given."""
    return stack.ask(Prometheus)


@pytest.fixture(scope="session")
def loki(stack: Stack) -> Loki:
    """Loki, directly or through Grafana, if one of them was given."""
    return stack.ask(Loki)
