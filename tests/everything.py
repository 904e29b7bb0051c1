"""Everything the running system emits: a journey through all that can happen to it.

For tests that compare what is emitted with what is promised; what the values have to be, others test.
"""

import secrets
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2

from tests.service import OPERATIONS_TOKEN, PASSWORD
from tests.stage import SECONDS, Everything, Stage
from tests.tools import wait_until

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND")
_GIVEN = {
    "X-Request-ID": "given-by-the-caller",
    "traceparent": f"00-{'1' * 32}-{'2' * 16}-01",
    "tracestate": "vendor=1",
    "baggage": "a=b",
}


def everything(directory: Path, postgres_url: str) -> Everything:
    """Make the journey; return what was said on it."""
    with ExitStack() as stack:
        stage = Stage(directory, postgres_url, stack)
        _Journey(stage).make()
        return stage.end()


class _Journey:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._api, self._worker, self._provider = stage.api, stage.worker, stage.provider
        self._http = stage.client()

    def make(self) -> None:
        """Go through all of it."""
        ada, bob, eve = (Person(self._stage.client()) for _ in range(3))
        for person in (ada, bob, eve):
            assert person.register() == 201
            assert person.log_in() == 200
        self._stage.probe("success")
        self._be_a_customer(ada)
        self._be_refused(ada, bob, eve)
        self._stage.probe("failure")  # it may not register any more, like ada
        self._be_slow(ada)
        self._break_requests(ada)
        self._kill_a_message(ada)
        self._lose_spans()
        self._break_the_provider(ada)
        self._break_redis(ada)
        self._look_inside()
        self._stage.command("audit", "archive", "--older-than-days=0", "--to=archive")
        self._stage.command("audit", "expire", "--keep-days=0", "--from=archive")

    # What people do -----------------------------------------------------------------------------------

    def _be_a_customer(self, ada: "Person") -> None:
        ada.http.headers |= _GIVEN
        paid = ada.pay(ada.order())
        for name in _GIVEN:
            del ada.http.headers[name]
        ada.pay(ada.order(50_000), key="pay-once")
        ada.pay(ada.order(), key="pay-once", status=422)
        unpaid = ada.order(key="order-once")
        assert ada.order(key="order-once") == unpaid
        for token in ("tok_declined", "tok_insufficient_funds", "tok_expired", "tok_slow"):
            ada.pay(ada.order(), token)
        ada.pay(ada.order(), "tok_of_nobody", status=422)
        ada.post(f"/v1/payments/{paid}/refund", {"amount": 500})
        ada.post(f"/v1/payments/{paid}/refund", {})
        ada.post(f"/v1/orders/{unpaid}/cancel", status=200)
        ada.http.get(f"/v1/orders/{unpaid}").raise_for_status()
        ada.http.get("/v1/users/me/export").raise_for_status()
        for task in ("fulfil_order", "write_receipt", "write_credit_note"):
            self._stage.says(self._worker, "Job finished", task=task)
        self._stage.says(self._worker, "Audit log sealed")

    def _be_refused(self, ada: "Person", bob: "Person", eve: "Person") -> None:
        for method in _METHODS:
            ada.http.request(method, "/nowhere", params={"from": "here"})
        ada.http.request("PATCH", "/v1/orders")
        ada.post("/v1/orders", {}, status=422)
        ada.http.get("/v1/users/me", headers={"Authorization": "Bearer not.a.token"})
        assert ada.http.get("/debug/tasks").status_code == 401
        assert [eve.log_in("wrong") for _ in range(6)] == [401] * 5 + [429]
        assert Person(ada.http).log_in("of nobody") == 401
        eve.post("/v1/auth/logout", status=204)
        bob.http.delete("/v1/users/me").raise_for_status()
        assert bob.http.get("/v1/users/me").status_code == 401
        while (status := ada.register()) != 429:
            assert status == 409

    def _be_slow(self, ada: "Person") -> None:
        """Let a SELECT wait for a lock; of the first one the plan as well, behind another lock."""
        first = ada.http.get("/v1/orders", params={"limit": 1}).json()
        self._stage.wait_for_lock(lambda: ada.http.get("/v1/orders"), "DESC", also_the_plan=True)
        self._stage.says(self._api, "A slow statement could not be explained")
        cursor = {"limit": 1, "cursor": first["next_cursor"]}
        self._stage.wait_for_lock(lambda: ada.http.get("/v1/orders", params=cursor), "orders.id) <")
        self._stage.says(self._api, "Plan of a slow statement")
        self._stage.says(self._api, "Slow statement")

    # What goes wrong ----------------------------------------------------------------------------------

    def _break_requests(self, ada: "Person") -> None:
        with self._stage.refusing("INSERT ON order_lines"):
            ada.post("/v1/orders", _order_of(900), status=500)
        self._stage.says(self._api, "Unhandled exception")

    def _kill_a_message(self, ada: "Person") -> None:
        with self._stage.refusing("INSERT ON receipts"):
            ada.pay(ada.order())
            self._stage.says(self._worker, "Job finished", status="failed")
            self._stage.sql(
                "UPDATE outbox_deliveries SET attempts = 5, due_at = now() - interval '1 minute'"
                " WHERE state = 'retrying'"
            )
            self._stage.says(self._worker, "Job finished", status="dead")
        # It leaves the process a second later, and what comes next loses spans on purpose.
        wait_until(self._has_told_of_the_failed_job, "the span of the failed job", SECONDS)

    def _has_told_of_the_failed_job(self) -> bool:
        return any(one.kind == "CONSUMER" and one.events for one in self._stage.receiver.spans())

    def _lose_spans(self) -> None:
        self._stage.receiver.refuses = True
        self._http.get("/nowhere")
        self._stage.says(self._api, "Spans cannot be exported")
        self._stage.receiver.refuses = False
        self._http.get("/nowhere")
        self._stage.says(self._api, "Spans are exported again")

    def _break_the_provider(self, ada: "Person") -> None:
        paid = [ada.pay(ada.order()) for _ in range(2)]
        late = ada.pay(ada.order(), "tok_timeout")  # which charges all the same
        self._let_reconcile("payment settled", payment_id=late, payment_status="captured")
        ada.pay(ada.order(), "tok_error")
        self._provider.behave(failure_rate=1.0)
        ada.post(f"/v1/payments/{paid[0]}/refund", {"amount": 1})
        self._stage.says(self._api, "refund outcome is unknown, reconciliation will settle it")
        self._let_reconcile("the provider could not tell an outcome, it is asked again later")
        self._stage.collect(self._provider)

        def pay() -> int:
            return ada.ask("/v1/payments", _payment_of(ada.order())).status_code

        self._stage.until(pay, "circuit opened", dependency="payment_provider")
        ada.post(f"/v1/payments/{paid[1]}/refund", {"amount": 1}, status=503)
        self._let_reconcile("the provider could not be asked, reconciliation goes on later")
        self._provider.database.unlink()
        self._provider.start()
        wait_until(lambda: pay() == 201, "payments work again", SECONDS)
        self._stage.says(self._api, "circuit closed", dependency="payment_provider")
        ada.post(f"/v1/payments/{paid[1]}/refund", {"amount": 1})  # forgotten, hence refused
        self._stage.says(self._api, "refund failed")
        self._let_reconcile("payment settled", payment_status="failed")

    def _break_redis(self, ada: "Person") -> None:
        self._stage.redis.stop()
        ada.http.get("/v1/users/me").raise_for_status()
        self._stage.says(self._worker, "broker is unreachable")
        ada.log_in()
        self._stage.says(self._api, "rate limits are not enforced: their store does not answer")
        self._stage.until(
            lambda: self._http.get("/health"), "Dependency is down", dependency="cache"
        )
        self._stage.redis.start()
        self._stage.until(ada.log_in, "rate limits are enforced again")
        self._stage.until(
            lambda: self._http.get("/health"), "Dependency is up again", dependency="cache"
        )

    def _look_inside(self) -> None:
        operator = {"Authorization": f"Bearer {OPERATIONS_TOKEN}"}
        for path in ("tasks", "memory", "memory?stop=true", "profile?seconds=1"):
            self._http.get(f"/debug/{path}", headers=operator).raise_for_status()
        self._stage.sql("ALTER TABLE audit_entries RENAME TO away")
        self._http.get("/debug/tasks", headers=operator).raise_for_status()
        self._stage.sql("ALTER TABLE away RENAME TO audit_entries")
        self._stage.says(self._api, "Audit entry could not be stored")

    def _let_reconcile(self, message: str, **fields: str) -> None:
        for table in ("payments", "refunds"):
            self._stage.sql(f"UPDATE {table} SET check_at = now() WHERE status = 'pending'")
        self._stage.says(self._worker, message, **fields)


class Person:
    """Speaks the API as one person."""

    def __init__(self, http: httpx2.Client) -> None:
        self.http = http
        self.email = f"{secrets.token_hex(8)}@example.com"

    def register(self) -> int:
        body = {"email": self.email, "password": PASSWORD, "name": "Ada", "source": "mobile"}
        return self.http.post("/v1/users", json=body).status_code

    def log_in(self, password: str = PASSWORD) -> int:
        form = {"username": self.email, "password": password}
        answer = self.http.post("/v1/auth/token", data=form)
        if answer.status_code == 200:
            self.http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
        return answer.status_code

    def ask(self, path: str, body: Any = None, *, key: str = "") -> httpx2.Response:
        headers = {"Idempotency-Key": key} if key else {}
        return self.http.post(path, json=body, headers=headers)

    def post(self, path: str, body: Any = None, *, key: str = "", status: int = 201) -> str:
        """Ask, and return the id in the answer."""
        answer = self.ask(path, body, key=key)
        assert answer.status_code == status, answer.text
        found: str = answer.json().get("id", "") if answer.content else ""
        return found

    def order(self, amount: int = 2_500, *, key: str = "") -> str:
        return self.post("/v1/orders", _order_of(amount), key=key)

    def pay(self, order: str, token: str = "tok_ok", *, key: str = "", status: int = 201) -> str:
        return self.post("/v1/payments", _payment_of(order, token), key=key, status=status)


def _order_of(amount: int) -> dict[str, Any]:
    lines = [{"sku": "TEA", "quantity": 1, "unit_amount": amount}]
    return {"currency": "EUR", "lines": lines}


def _payment_of(order: str, token: str = "tok_ok") -> dict[str, str]:
    return {"order_id": order, "payment_token": token}
