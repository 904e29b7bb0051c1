"""The clients of one examination, what it found on its way, and the tidying up afterwards."""

import contextlib
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from deploy.stack.backends.addresses import Addresses
from deploy.stack.backends.alertmanager import Alertmanager
from deploy.stack.backends.app import App, Customer, Ids
from deploy.stack.backends.bugsink import Bugsink
from deploy.stack.backends.errors import BackendError
from deploy.stack.backends.grafana import Grafana
from deploy.stack.backends.http import Backend
from deploy.stack.backends.jaeger import Jaeger
from deploy.stack.backends.loki import Loki
from deploy.stack.backends.mailpit import Mailpit
from deploy.stack.backends.notifications import Notifications
from deploy.stack.backends.prometheus import Prometheus

BACKENDS: Final[tuple[type[Backend], ...]] = (
    App,
    Prometheus,
    Alertmanager,
    Notifications,
    Mailpit,
    Loki,
    Jaeger,
    Bugsink,
    Grafana,
)
PAUSE_SECONDS: Final = 0.5

T = TypeVar("T")
B = TypeVar("B", bound=Backend)


@dataclass(frozen=True)
class Journey:
    """What was bought, and by which ids it is found."""

    customer: Customer
    order: str
    payment: str
    ids: Ids


class Deadline:
    """How long one check may still wait."""

    def __init__(self, seconds: float) -> None:
        self._ends = time.monotonic() + seconds

    def wait(self, look: Callable[[], T | None]) -> T | None:
        """Look until there is something to see; None when the time is over."""
        while True:
            found = look()
            if found or time.monotonic() + PAUSE_SECONDS > self._ends:
                return found
            time.sleep(PAUSE_SECONDS)


class House:
    """What the checks of one examination share.

    Attributes:
        mark: A word that nobody else uses, to find again what was sent.
        journey: What the check of that name left; those that need it come after it.
        event_id: Of the test error, likewise.
    """

    def __init__(self, addresses: Addresses) -> None:
        self.addresses = addresses
        self.access = addresses.access
        self.mark = f"stack-doctor-{secrets.token_hex(4)}"
        self.journey: Journey | None = None
        self.event_id = ""
        self._backends = {kind: kind.at(addresses) for kind in BACKENDS}

    def has(self, kind: type[Backend]) -> bool:
        """Whether its address is known."""
        return self._backends[kind] is not None

    def ask(self, kind: type[B]) -> B:
        """Return the client of a backend whose address is known."""
        backend = self._backends[kind]
        assert isinstance(backend, kind)  # noqa: S101 - who asks has said so in `needs`
        return backend

    def travelled(self) -> Journey:
        """Return the journey, for a check that comes after it."""
        assert self.journey is not None  # noqa: S101 - see `after`
        return self.journey

    def tidy_up(self) -> None:
        """Give the money back, have the account erased, and close every connection."""
        if self.journey is not None:
            app, journey = self.ask(App), self.journey
            # It is not our patient's fault if this fails: what was wrong has been told.
            with contextlib.suppress(BackendError):
                app.refund(journey.customer, journey.payment)
            with contextlib.suppress(BackendError):
                app.erase(journey.customer)
        for backend in self._backends.values():
            if backend is not None:
                backend.close()
