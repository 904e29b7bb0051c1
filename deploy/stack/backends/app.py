"""The service itself: its health, and a customer who registers, orders and pays.

A person who is made up: the address is reserved for examples, the password is random. What must never show up
in any signal is in `Customer.secrets`, for who wants to look for it.
"""

import secrets
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import httpx2

from deploy.stack.backends.addresses import Access
from deploy.stack.backends.errors import WrongAnswer
from deploy.stack.backends.http import Backend

LINES: Final = [{"sku": "STACK-CHECK", "quantity": 1, "unit_amount": 100}]
SLOW: Final = "tok_slow"
"""The sandbox takes its time over this card, and what is slow is kept by the sampling of traces."""


@dataclass(frozen=True)
class Ids:
    """What an answer can be found by."""

    trace_id: str
    request_id: str
    status: int


@dataclass
class Customer:
    """Somebody with an account."""

    email: str = field(default_factory=lambda: f"stack-{secrets.token_hex(8)}@check.example")
    password: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    headers: dict[str, str] = field(default_factory=dict, repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What was sent and must be found nowhere."""
        return (self.password, *(value.removeprefix("Bearer ") for value in self.headers.values()))


class App(Backend):
    """The API at APP_URL."""

    variable: ClassVar = "APP_URL"
    name: ClassVar = "the app"
    service: ClassVar = "app"
    health_path: ClassVar = "/health/live"

    def authentication(self, access: Access) -> httpx2.Auth | None:  # noqa: ARG002 - as all do
        """Nobody logs in to the API with the stack's login."""
        return None

    def readiness(self) -> tuple[bool, list[str]]:
        """Return whether it is ready, and which of its checks failed."""
        response = self.exchange("GET", "/health/ready")
        document = self.read(response)
        if not isinstance(document, dict) or "status" not in document:
            raise WrongAnswer(
                f"/health/ready at {self.url} answered {response.status_code}, "
                "and not what the app answers.",
                response.status_code,
            )
        return response.is_success, list(document.get("failed", []))

    def details(self) -> list[dict[str, Any]]:
        """Return what the app found out about its dependencies; needs the operations token."""
        headers = {"Authorization": f"Bearer {self.access.operations_token}"}
        response = self.exchange("GET", "/health/detailed", headers=headers)
        if response.status_code == httpx2.codes.UNAUTHORIZED:
            raise WrongAnswer("OPERATIONS_TOKEN is not the token that the app has.", 401)
        document = self.read(response)
        checks: list[dict[str, Any]] = document.get("checks", [])
        return checks

    def customer(self, *, synthetic: bool) -> Customer:
        """Return a new person, registered and logged in; a `synthetic` one moves no business figure."""
        person = Customer()
        if synthetic and self.access.synthetic_token:
            person.headers["X-Synthetic-Token"] = self.access.synthetic_token
        account = {"email": person.email, "password": person.password, "name": "Stack Check"}
        self.ask("POST", "/v1/users", person, json={**account, "source": "other"})
        form = {"username": person.email, "password": person.password}
        token, _ = self.ask("POST", "/v1/auth/token", person, data=form)
        person.headers["Authorization"] = f"Bearer {token['access_token']}"
        return person

    def order(self, person: Customer) -> str:
        """Place an order; return its id."""
        body = {"currency": "EUR", "lines": LINES}
        placed, _ = self.ask("POST", "/v1/orders", person, json=body)
        return str(placed["id"])

    def order_status(self, person: Customer, order: str) -> str:
        """Return where the order stands; the worker makes a paid one `fulfilled`."""
        found, _ = self.ask("GET", f"/v1/orders/{order}", person)
        return str(found["status"])

    def pay(self, person: Customer, order: str, token: str = SLOW) -> tuple[dict[str, Any], Ids]:
        """Pay an order; return the payment."""
        body = {"order_id": order, "payment_token": token}
        return self.ask("POST", "/v1/payments", person, json=body)

    def try_to_pay(self, person: Customer, order: str, token: str) -> Ids:
        """Pay an order; return how that was answered, a refusal included."""
        body = {"order_id": order, "payment_token": token}
        return _ids(self.exchange("POST", "/v1/payments", json=body, headers=person.headers))

    def refund(self, person: Customer, payment: str) -> None:
        """Give all of it back."""
        self.ask("POST", f"/v1/payments/{payment}/refund", person, json={})

    def erase(self, person: Customer) -> None:
        """Have the account erased."""
        self.ask("DELETE", "/v1/users/me", person)

    def ask(
        self, method: str, path: str, person: Customer, **content: Any
    ) -> tuple[dict[str, Any], Ids]:
        """Return the answer to a request of this person. Raises BackendError."""
        response = self.send(method, path, headers=person.headers, **content)
        return self.read(response) or {}, _ids(response)


def _ids(response: httpx2.Response) -> Ids:
    headers = response.headers
    return Ids(headers.get("X-Trace-ID", ""), headers.get("X-Request-ID", ""), response.status_code)
