"""A journey against an API that is made up: what counts as good, what each failure says and counts.

That the real API is good is shown in tests/integration/test_synthetic_journey.py.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr, ValidationError

from sandbox.synthetic_journey.journey import run_journey
from sandbox.synthetic_journey.outcomes import Outcome
from sandbox.synthetic_journey.settings import JourneySettings

STEPS = ["register", "token", "order", "pay", "confirm", "refund", "erase"]
ORDER = "8c7f2f5e-0001-4000-8000-000000000001"
PAYMENT = "8c7f2f5e-0002-4000-8000-000000000002"
SETTINGS = JourneySettings(environment="test", synthetic_token=SecretStr("token-of-the-test"))

Reply = tuple[int, Any] | Callable[[dict[str, Any]], Awaitable[tuple[int, Any]]]


class Api:
    """Answers as the API does, but for what a test replaces by "METHOD /path"."""

    def __init__(self, **replaced: Reply) -> None:
        self.requests: list[httpx2.Request] = []
        self.replaced = replaced
        lines = [{"sku": "SYNTHETIC-JOURNEY", "quantity": 2, "unit_amount": 1250}]
        order = {"id": ORDER, "total_amount": 2500, "currency": "EUR", "lines": lines}
        payment = {
            "id": PAYMENT,
            "order_id": ORDER,
            "status": "captured",
            "amount": 2500,
            "currency": "EUR",
            "decline_reason": None,
        }
        refund = {"id": "r", "payment_id": PAYMENT, "status": "succeeded", "amount": 2500}
        self.replies: dict[str, Reply] = {
            "POST /v1/users": self._registered,
            "POST /v1/auth/token": (200, {"access_token": "a.b.c", "token_type": "bearer"}),
            "POST /v1/orders": (201, order | {"status": "pending"}),
            "POST /v1/payments": (201, payment),
            f"GET /v1/payments/{PAYMENT}": (200, payment),
            f"GET /v1/orders/{ORDER}": (200, order | {"status": "fulfilled"}),
            f"POST /v1/payments/{PAYMENT}/refund": (201, refund),
            "DELETE /v1/users/me": (204, None),
        }

    async def _registered(self, body: dict[str, Any]) -> tuple[int, Any]:
        return 201, {"id": "u", "email": body["email"], "source": body["source"]}

    async def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        reply = self.replies[f"{request.method} {request.url.path}"]
        if not isinstance(reply, tuple):
            is_json = request.headers.get("content-type") == "application/json"
            reply = await reply(json.loads(request.content) if is_json else {})
        status, content = reply
        if isinstance(content, bytes):
            return httpx2.Response(status, content=content)
        return (
            httpx2.Response(status, json=content)
            if content is not None
            else httpx2.Response(status)
        )

    @property
    def asked(self) -> list[str]:
        return [f"{request.method} {request.url.path}" for request in self.requests]


async def journey(api: Api, **settings: Any) -> Outcome:
    return await run_journey(
        SETTINGS.model_copy(update=settings), transport=httpx2.MockTransport(api)
    )


def value(name: str, **labels: str) -> float:
    found = REGISTRY.get_sample_value(name, labels)
    assert found is not None, f"{name} {labels} is not there from the start"
    return found


def failures() -> dict[str, float]:
    return {step: value("synthetic_step_failures_total", step=step) for step in STEPS}


async def test_a_good_journey_takes_all_steps_and_is_counted() -> None:
    journeys = value("synthetic_journeys_total", result="success")
    took = value("synthetic_journey_duration_seconds_count")
    orders = value("synthetic_step_duration_seconds_count", step="order")
    failed = failures()

    outcome = await journey(Api())

    assert outcome.failed is None
    assert [step.step for step in outcome.steps] == STEPS
    assert value("synthetic_journeys_total", result="success") == journeys + 1
    assert value("synthetic_journey_duration_seconds_count") == took + 1
    assert value("synthetic_step_duration_seconds_count", step="order") == orders + 1
    assert value("synthetic_journey_last_success_timestamp_seconds") > 0
    assert failures() == failed


async def test_each_request_carries_the_mark_the_trace_and_one_request_id() -> None:
    api = Api()

    await journey(api)

    assert {request.headers["X-Synthetic-Token"] for request in api.requests} == {
        "token-of-the-test"
    }
    assert len({request.headers["X-Request-ID"] for request in api.requests}) == 1


async def test_two_journeys_are_two_people() -> None:
    api = Api()
    for _ in range(2):
        await journey(api)

    bodies = [json.loads(one.content) for one in api.requests if one.url.path == "/v1/users"]
    for field in ("email", "password"):
        assert len({body[field] for body in bodies}) == 2
    assert all(body["email"].endswith("@synthetic.example") for body in bodies)


PROBLEM = {"code": "service_unavailable", "title": "Later", "detail": "secret detail"}


@pytest.mark.parametrize(
    ("step", "request_line", "reply", "sentence"),
    [
        (
            "register", "POST /v1/users", (429, PROBLEM),
            "POST /v1/users answered 429 (service_unavailable: Later), and not 201.",
        ),
        (
            "register", "POST /v1/users", (201, {"id": "u", "email": "x@y.example"}),
            "POST /v1/users answered with email x@y.example, and not ",
        ),
        (
            "order", "POST /v1/orders", (200, {}),
            "POST /v1/orders answered 200, and not 201.",
        ),
        (
            "order", "POST /v1/orders", (201, {"status": "pending", "total_amount": 2400}),
            "POST /v1/orders answered with total_amount 2400, and not 2500.",
        ),
        (
            "order", "POST /v1/orders", (201, b"<html>"),
            "POST /v1/orders answered 201 with no JSON object.",
        ),
        (
            "pay", "POST /v1/payments", (503, b"<html>"),
            "POST /v1/payments answered 503, and not 201.",
        ),
        (
            "pay", "POST /v1/payments",
            (201, {"id": PAYMENT, "order_id": ORDER, "amount": 2500, "currency": "EUR",
                   "status": "declined", "decline_reason": "do_not_honor"}),
            "The payment is declined (do_not_honor), not captured.",
        ),
        (
            "confirm", f"GET /v1/payments/{PAYMENT}", (200, {"status": "failed"}),
            "The payment is failed, not captured.",
        ),
        (
            "confirm", f"GET /v1/orders/{ORDER}",
            (200, {"id": ORDER, "total_amount": 2500, "status": "pending"}),
            "The payment is captured, but the order is pending.",
        ),
        (
            "confirm", f"GET /v1/orders/{ORDER}", (404, PROBLEM),
            "GET /v1/orders/{order_id} answered 404 (service_unavailable: Later), and not 200.",
        ),
        (
            "refund", f"POST /v1/payments/{PAYMENT}/refund",
            (201, {"status": "pending", "amount": 2500, "payment_id": PAYMENT}),
            "POST /v1/payments/{payment_id}/refund answered with status pending, and not succeeded.",
        ),
        (
            "erase", "DELETE /v1/users/me", (500, PROBLEM),
            "DELETE /v1/users/me answered 500 (service_unavailable: Later), and not 204.",
        ),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_a_sentence_and_a_count(
    step: str,
    request_line: str,
    reply: tuple[int, Any],
    sentence: str,
    log_records: list[dict[str, Any]],
) -> None:
    api = Api()
    api.replies[request_line] = reply
    before, ended = failures(), value("synthetic_journeys_total", result="failure")

    outcome = await journey(api)

    assert outcome.failed is not None
    assert outcome.failed.step == step
    assert outcome.failed.failure.startswith(sentence)
    assert failures() == before | {step: before[step] + 1}
    assert value("synthetic_journeys_total", result="failure") == ended + 1
    said = [record["extra"] for record in log_records if record["extra"].get("type") == "synthetic"]
    assert [(one.get("reason"), one["step"]) for one in said] == [
        (outcome.failed.failure, step),
        (None, step),
    ]
    # Whatever has failed, what was registered is erased.
    assert "DELETE /v1/users/me" in api.asked


async def test_a_payment_whose_outcome_is_late_is_waited_for() -> None:
    api = Api()
    payment = api.replies["POST /v1/payments"]
    assert isinstance(payment, tuple)
    pending = (201, payment[1] | {"status": "pending"})
    answers = [(200, pending[1]), (200, payment[1])]

    async def settles(_: dict[str, Any]) -> tuple[int, Any]:
        return answers.pop(0)

    api.replies["POST /v1/payments"] = pending
    api.replies[f"GET /v1/payments/{PAYMENT}"] = settles

    assert (await journey(api)).failed is None
    assert answers == []


async def hangs(_: dict[str, Any]) -> tuple[int, Any]:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_step_that_hangs_is_broken_off() -> None:
    api = Api()
    api.replies["POST /v1/orders"] = hangs

    outcome = await journey(api, synthetic_step_timeout_seconds=0.2)

    assert outcome.failed is not None
    assert (outcome.failed.step, outcome.failed.failure) == ("order", "It took longer than 0.2 s.")
    assert api.asked[-1] == "DELETE /v1/users/me"


async def test_a_journey_that_drags_on_is_broken_off_and_cleaned_up_all_the_same() -> None:
    api = Api()
    api.replies[f"GET /v1/payments/{PAYMENT}"] = hangs

    outcome = await journey(api, synthetic_timeout_seconds=0.5, synthetic_step_timeout_seconds=20)

    assert outcome.failed is not None
    assert outcome.failed.step == "confirm"
    assert outcome.failed.failure == "The journey as a whole took longer than 0.5 s."
    assert outcome.failed.seconds < 20
    assert outcome.steps[-1].step == "erase"
    assert not outcome.steps[-1].failure


async def test_an_account_that_could_not_log_in_is_erased_with_a_second_try() -> None:
    api = Api()
    answers: list[tuple[int, Any]] = [
        (500, PROBLEM),
        (200, {"access_token": "a", "token_type": "bearer"}),
    ]

    async def recovers(_: dict[str, Any]) -> tuple[int, Any]:
        return answers.pop(0)

    api.replies["POST /v1/auth/token"] = recovers

    outcome = await journey(api)

    assert [(one.step, bool(one.failure)) for one in outcome.steps] == [
        ("register", False),
        ("token", True),
        ("erase", False),
    ]
    assert api.asked[-1] == "DELETE /v1/users/me"


async def test_an_account_that_cannot_log_in_is_left_behind_which_is_a_failure_too() -> None:
    api = Api()
    api.replies["POST /v1/auth/token"] = (200, {"token_type": "bearer"})
    before = failures()

    outcome = await journey(api)

    sentence = "POST /v1/auth/token answered 200 without an access token."
    assert [one.failure for one in outcome.steps] == ["", sentence, sentence]
    assert failures() == before | {name: before[name] + 1 for name in ("token", "erase")}


async def test_an_account_that_may_exist_is_erased_and_what_may_not_is_no_second_failure() -> None:
    api = Api()
    api.replies["POST /v1/users"] = (500, PROBLEM)  # after its commit, who knows
    before = failures()

    outcome = await journey(api)

    assert api.asked[-1] == "DELETE /v1/users/me"
    api.replies["POST /v1/auth/token"] = (401, PROBLEM)
    await journey(api)
    assert [one.step for one in outcome.steps] == ["register"]
    assert failures() == before | {"register": before["register"] + 2}


async def test_nobody_there_is_said_with_what_to_look_at() -> None:
    async def refused(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("connection refused", request=request)

    outcome = await run_journey(SETTINGS, transport=httpx2.MockTransport(refused))

    assert outcome.failed is not None
    assert outcome.failed.failure == (
        "POST /v1/users got no answer from http://127.0.0.1:8000 (ConnectError): "
        "is it running, and is SYNTHETIC_API_URL right?"
    )


async def test_a_bug_of_the_journey_is_a_failed_step_and_not_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("sandbox.synthetic_journey.customer.Customer.order", broken)
    api = Api()

    outcome = await journey(api)

    assert outcome.failed is not None
    assert outcome.failed.failure == "The step itself is broken: KeyError."
    assert api.asked[-1] == "DELETE /v1/users/me"


async def test_no_secret_of_the_journey_is_logged(log_records: list[dict[str, Any]]) -> None:
    api = Api()
    for request in ("POST /v1/orders", "DELETE /v1/users/me"):
        api.replies[request] = (500, PROBLEM)
    await journey(api)

    body = json.loads(api.requests[0].content)
    said = str([(record["message"], record["extra"]) for record in log_records])
    assert "Synthetic step failed" in said
    for secret in (body["email"], body["password"], "a.b.c", "token-of-the-test", "secret detail"):
        assert secret not in said


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("SYNTHETIC_API_URL", "ftp://api"),
        ("SYNTHETIC_INTERVAL_SECONDS", "0"),
        ("SYNTHETIC_STEP_TIMEOUT_SECONDS", "inf"),
        ("SYNTHETIC_JITTER_SECONDS", "-1"),
        ("SYNTHETIC_EMAIL_DOMAIN", "no domain"),
        ("SYNTHETIC_PORT", "0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(
    name: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, bad)

    with pytest.raises(ValidationError):
        JourneySettings()
