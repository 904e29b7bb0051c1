"""One person in the shop: their requests, and which answers are well.

A status that a person in that place would not expect ends the visit (Unexpected) and counts as a failure of
the request. That the API is away (ShopIsAway), asks to come later (AskedToWait) or that the end has come
(Leaving) are none.
"""

import secrets
import time
from collections.abc import Callable, Collection
from typing import Any

from sandbox.customers.accounts import Account
from sandbox.customers.http import UNANSWERED, Answer, Http, Request
from sandbox.customers.wares import Wares

CREATED = 201
UNAUTHORIZED = 401
CONFLICT = 409
TOO_MANY = 429
TRACED_SHARE = 0.3
"""Of the requests that carry an X-Request-ID: some clients make one."""


class Unexpected(Exception):
    """The shop did not do as it should; the text is a sentence."""


class ShopIsAway(Exception):
    """A request was not answered."""


class AskedToWait(Exception):
    """The customer has been too fast, or the account is locked."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"asked to come back in {seconds:g} seconds")
        self.seconds = seconds


class Leaving(Exception):
    """The end has come."""


class Customer:
    """A person with an account, or about to have one.

    Args:
        http: Carries the requests.
        account: Whose.
        wares: What is bought and how it is paid for.
        pause: Thinks for a while before the next request; raises Leaving at the end.
    """

    def __init__(
        self, http: Http, account: Account, wares: Wares, pause: Callable[[], None]
    ) -> None:
        self.account = account
        self.wares = wares
        self.rng = wares.rng
        self._http = http
        self._pause = pause

    # What everybody does ------------------------------------------------------------------------------

    def register(self) -> None:
        """Create the account, unless it is there from an earlier day."""
        body = {
            "email": self.account.email,
            "password": self.account.password,
            "name": f"Customer {self.account.number}",
            "source": self.wares.sources.deal(),
        }
        self.ask("POST", "/v1/users", (CREATED, CONFLICT), json=body)
        self.account.is_registered = True

    def log_in(self, password: str | None = None) -> bool:
        """Log in, with another password where one is given; return whether it was right."""
        form = {
            "username": self.account.email,
            "password": password or self.account.password,
        }
        answer = self.ask("POST", "/v1/auth/token", (200, UNAUTHORIZED), form=form)
        token = answer.fields.get("access_token")
        self.account.token = token if isinstance(token, str) else ""
        return bool(self.account.token)

    def sign_in(self) -> None:
        """See to it that there is an account and a token."""
        if not self.account.is_registered:
            self.register()
        if self.account.token:
            return
        if not self.log_in():
            # Somebody has emptied the database, or has changed the password of all.
            self.register()
            if not self.log_in():
                self.account.start_over()
                raise Unexpected("The password of an earlier day is wrong.")

    def list_orders(self, limit: int = 5, cursor: str | None = None) -> dict[str, Any]:
        """Return a page of the own orders."""
        path = f"/v1/orders?limit={limit}" + (f"&cursor={cursor}" if cursor else "")
        return self.signed("GET", path, (200,), name="/v1/orders").fields

    def order(self, key: str | None = None, body: object | None = None) -> dict[str, Any]:
        """Place an order."""
        body = self.wares.order() if body is None else body
        return self.signed("POST", "/v1/orders", (CREATED,), json=body, key=key).fields

    def pay(
        self,
        order: dict[str, Any],
        card: str | None = None,
        key: str | None = None,
        expected: Collection[int] = (CREATED,),
    ) -> dict[str, Any]:
        """Pay for an order."""
        body = {"order_id": order["id"], "payment_token": card or self.wares.cards.deal()}
        return self.signed("POST", "/v1/payments", expected, json=body, key=key).fields

    def look_at(self, what: str, thing: dict[str, Any]) -> dict[str, Any]:
        """Read an order or a payment (`orders`, `payments`)."""
        name = f"/v1/{what}/{{{what.removesuffix('s')}_id}}"
        return self.signed("GET", f"/v1/{what}/{thing['id']}", (200,), name=name).fields

    def rest(self, seconds: float) -> None:
        """Leave the account alone for a while."""
        self.account.rests_until = time.monotonic() + seconds

    # How ----------------------------------------------------------------------------------------------

    def signed(
        self,
        method: str,
        path: str,
        expected: Collection[int],
        *,
        name: str | None = None,
        json: object | None = None,
        key: str | None = None,
    ) -> Answer:
        """Ask as who one is; log in first, and again when the token is not good any more."""
        self.sign_in()
        accepted = {*expected, UNAUTHORIZED} if expected else ()
        for is_last in (False, True):
            headers = {"Authorization": f"Bearer {self.account.token}"}
            if key is not None:
                headers["Idempotency-Key"] = key
            answer = self.ask(method, path, accepted, name=name, headers=headers, json=json)
            if answer.status != UNAUTHORIZED or UNAUTHORIZED in expected:
                return answer
            self.account.token = ""
            if not is_last:
                self.sign_in()
        raise Unexpected(f"{method} {name or path} refuses a token that is new.")

    def ask(
        self,
        method: str,
        path: str,
        expected: Collection[int],
        *,
        name: str | None = None,
        headers: dict[str, str] | None = None,
        json: object | None = None,
        form: dict[str, str] | None = None,
    ) -> Answer:
        """Ask anything, after thinking for a while.

        Raises:
            Unexpected: The status is none of `expected`, if there are any.
            ShopIsAway, AskedToWait, Leaving: see there.
        """
        self._pause()
        carried = {
            "X-Forwarded-For": self.account.address,
            "User-Agent": self.account.agent,
            **(headers or {}),
        }
        if self.rng.random() < TRACED_SHARE:
            carried["X-Request-ID"] = f"customer-{secrets.token_hex(8)}"
        # To be asked to wait is no failure of the shop's.
        well = {*expected, TOO_MANY} if expected else ()
        request = Request(method, path, name or path, well, carried, json, form)
        answer = self._http.ask(request)
        if answer.status == UNANSWERED:
            raise ShopIsAway
        if answer.status == TOO_MANY and expected and TOO_MANY not in expected:
            self.rest(answer.retry_after)
            raise AskedToWait(answer.retry_after)
        if expected and answer.status not in expected:
            raise Unexpected(f"{method} {request.name} answered {answer.status}.")
        return answer
