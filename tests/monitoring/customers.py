"""A few customers for the live stack: enough traffic that rates are rates, little enough for a busy machine.

Whatever is answered is counted and nothing is ever given up: a service that is being broken on purpose is
what they are for.
"""

import secrets
import threading
import time
from collections import Counter
from types import TracebackType
from typing import Any, Final, Self

import httpx2

PASSWORD: Final = "correct horse battery"
LINES: Final = [{"sku": "TEA", "quantity": 1, "unit_amount": 2500}]
PATIENCE_SECONDS: Final = 5.0
REFUSED_SECONDS: Final = 1.0
ROUNDS_OF_ONE: Final = 40
UNANSWERED: Final = 0


class Customers:
    """Somebody who looks, orders and pays, in a thread; after a while somebody else comes.

    Attributes:
        ordering: Whether orders are placed (and paid): without it there is traffic and no business.
        token: What orders are paid with: `tok_declined`, `tok_error`, ... of the sandbox.
        answers: How often each status was answered; 0 is no answer at all.
    """

    def __init__(self, url: str, *, rounds_per_second: float = 2.0) -> None:
        self.ordering = True
        self.token = "tok_ok"
        self.answers: Counter[int] = Counter()
        self._url = url
        self._pause = 1 / rounds_per_second
        self._email = ""
        self._headers: dict[str, str] = {}
        self._rounds = 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._live, name="Customers", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended.set()
        self._thread.join()

    def _live(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=PATIENCE_SECONDS) as http:
            while not self._ended.is_set():
                begin = time.monotonic()
                self._round(http)
                self._ended.wait(max(0.0, self._pause - (time.monotonic() - begin)))

    def _round(self, http: httpx2.Client) -> None:
        if self._rounds % ROUNDS_OF_ONE == 0:
            self._email, self._headers = f"{secrets.token_hex(8)}@example.com", {}
        if not self._headers and not self._log_in(http):
            # Each further try costs the service the hashing of a password.
            self._ended.wait(REFUSED_SECONDS)
            return
        self._rounds += 1
        self._ask(http, "GET", "/v1/orders", params={"limit": 5})
        if self.ordering:
            order = self._ask(http, "POST", "/v1/orders", json={"currency": "EUR", "lines": LINES})
            if order is not None:
                body = {"order_id": order["id"], "payment_token": self.token}
                self._ask(http, "POST", "/v1/payments", json=body)

    def _log_in(self, http: httpx2.Client) -> bool:
        # After a lost answer the account may be there already: then this is refused, and the log-in works.
        account = {"email": self._email, "password": PASSWORD, "name": "Ada"}
        self._ask(http, "POST", "/v1/users", json=account)
        form = {"username": self._email, "password": PASSWORD}
        token = self._ask(http, "POST", "/v1/auth/token", data=form)
        if token is not None:
            self._headers = {"Authorization": f"Bearer {token['access_token']}"}
        return token is not None

    def _ask(self, http: httpx2.Client, method: str, path: str, **content: Any) -> Any:
        """Return the answer's body if it is a success, else nothing."""
        try:
            answer = http.request(method, path, headers=self._headers, **content)
        except httpx2.TransportError:
            self.answers[UNANSWERED] += 1
            return None
        self.answers[answer.status_code] += 1
        if answer.status_code == httpx2.codes.UNAUTHORIZED:
            self._headers = {}
        return answer.json() if answer.is_success else None
