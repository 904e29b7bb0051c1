"""One person's requests to the API, each with a look at whether the answer is what it has to be.

A status alone proves little: a 201 with a wrong total is a failure that customers notice first. What is
wrong is one sentence (StepFailed), fit for a terminal and a log: it names the request and what came back,
never the address, the password or a token.
"""

import asyncio
import secrets
from typing import Any

import httpx2

from sandbox.synthetic_journey.settings import JourneySettings

CURRENCY = "EUR"
LINES = [{"sku": "SYNTHETIC-JOURNEY", "quantity": 2, "unit_amount": 1250}]
TOTAL = 2500
_POLL_SECONDS = 0.25


class StepFailed(Exception):
    """Something did not go as a customer expects; the text is a sentence that says what."""


class Customer:
    """A person who is made up for one journey."""

    def __init__(self, http: httpx2.AsyncClient, settings: JourneySettings) -> None:
        self._http = http
        self._email = f"journey-{secrets.token_hex(10)}@{settings.synthetic_email_domain}".lower()
        self._password = secrets.token_urlsafe(24)
        self._payment_token = settings.synthetic_payment_token
        self._order_id = self._payment_id = ""

    # The steps ----------------------------------------------------------------------------------------

    async def register(self) -> None:
        """Create the account."""
        body = {
            "email": self._email,
            "password": self._password,
            "name": "Synthetic Journey",
            "source": "other",
        }
        answer = await self._ask("POST", "/v1/users", 201, json=body)
        _look("POST /v1/users", answer, email=self._email, source="other")
        _id(answer, "POST /v1/users")

    async def token(self) -> None:
        """Log in."""
        form = {"username": self._email, "password": self._password}
        answer = await self._ask("POST", "/v1/auth/token", 200, data=form)
        _look("POST /v1/auth/token", answer, token_type="bearer")  # noqa: S106 - a type
        token = answer.get("access_token")
        if not isinstance(token, str) or not token:
            raise StepFailed("POST /v1/auth/token answered 200 without an access token.")
        self._http.headers["Authorization"] = f"Bearer {token}"

    async def order(self) -> None:
        """Place an order."""
        body = {"currency": CURRENCY, "lines": LINES}
        answer = await self._ask("POST", "/v1/orders", 201, json=body)
        wanted = {"status": "pending", "total_amount": TOTAL, "currency": CURRENCY, "lines": LINES}
        _look("POST /v1/orders", answer, **wanted)
        self._order_id = _id(answer, "POST /v1/orders")

    async def pay(self) -> None:
        """Pay the order."""
        body = {"order_id": self._order_id, "payment_token": self._payment_token}
        answer = await self._ask("POST", "/v1/payments", 201, json=body)
        wanted = {"order_id": self._order_id, "amount": TOTAL, "currency": CURRENCY}
        _look("POST /v1/payments", answer, **wanted)
        self._payment_id = _id(answer, "POST /v1/payments")
        if answer.get("status") != "pending":  # else `confirm` waits for the outcome
            _captured(answer)

    async def confirm(self) -> None:
        """See that the payment is captured and the order is paid for, as whoever comes back later does."""
        path = f"/v1/payments/{self._payment_id}"
        answer = await self._ask("GET", path, 200)
        while answer.get("status") == "pending":  # until the step's time is over
            await asyncio.sleep(_POLL_SECONDS)
            answer = await self._ask("GET", path, 200)
        _captured(answer)
        order = await self._ask("GET", f"/v1/orders/{self._order_id}", 200)
        _look("GET /v1/orders/{order_id}", order, id=self._order_id, total_amount=TOTAL)
        if order.get("status") not in {"paid", "fulfilled"}:  # the worker may have been quick
            raise StepFailed(
                f"The payment is captured, but the order is {_shown(order.get('status'))}."
            )

    async def refund(self) -> None:
        """Get all of it back."""
        path = f"/v1/payments/{self._payment_id}/refund"
        answer = await self._ask("POST", path, 201, json={})
        wanted = {"status": "succeeded", "amount": TOTAL, "payment_id": self._payment_id}
        _look("POST /v1/payments/{payment_id}/refund", answer, **wanted)

    async def erase(self) -> None:
        """Have the account erased.

        That the token is worth nothing any more is not tried: it would be told as a revoked token that
        somebody uses, and security signals count the monitoring like anybody.
        """
        if "Authorization" not in self._http.headers:
            await self.token()
        await self._ask("DELETE", "/v1/users/me", 204)

    # How ----------------------------------------------------------------------------------------------

    async def _ask(self, method: str, path: str, expected: int, **given: Any) -> dict[str, Any]:
        shown = path
        for found, name in ((self._order_id, "order_id"), (self._payment_id, "payment_id")):
            shown = shown.replace(found, f"{{{name}}}") if found else shown
        try:
            response = await self._http.request(method, path, **given)
        except httpx2.HTTPError as error:
            raise StepFailed(
                f"{method} {shown} got no answer from {self._http.base_url} "
                f"({type(error).__name__}): is it running, and is SYNTHETIC_API_URL right?"
            ) from error
        if response.status_code != expected:
            raise StepFailed(
                f"{method} {shown} answered {response.status_code}{_problem(response)}, "
                f"and not {expected}."
            )
        if not response.content:
            return {}
        try:
            answer = response.json()
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise StepFailed(f"{method} {shown} answered {expected} with no JSON object.")
        return answer


def _problem(response: httpx2.Response) -> str:
    """Return what the API says of its refusal, as " (code: title)" (RFC 9457)."""
    try:
        problem = response.json()
        return f" ({_shown(problem['code'])}: {_shown(problem['title'])})"
    except (ValueError, KeyError, TypeError):
        return ""


def _look(what: str, answer: dict[str, Any], **wanted: object) -> None:
    for field, value in wanted.items():
        found = answer.get(field)
        if found != value:
            raise StepFailed(
                f"{what} answered with {field} {_shown(found)}, and not {_shown(value)}."
            )


def _id(answer: dict[str, Any], what: str) -> str:
    found = answer.get("id")
    if not isinstance(found, str) or not found:
        raise StepFailed(f"{what} answered without an id.")
    return found


def _captured(payment: dict[str, Any]) -> None:
    if payment.get("status") != "captured":
        reason = payment.get("decline_reason")
        because = f" ({_shown(reason)})" if reason else ""
        raise StepFailed(f"The payment is {_shown(payment.get('status'))}{because}, not captured.")


def _shown(value: object) -> str:
    return str(value)[:80]
