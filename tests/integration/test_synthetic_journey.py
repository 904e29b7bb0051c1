"""The synthetic journey on the real programs: it finds what is broken, and leaves no mark on the business."""

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.everything import Person
from tests.otlp import Receiver
from tests.prober import TOKEN, make_one_journey, start_prober
from tests.provider import RunningProvider
from tests.service import RunningProcess, start_process
from tests.tools import free_port, wait_until

SECONDS = 120.0
STEPS = ["register", "token", "order", "pay", "confirm", "refund", "erase"]
OF_CUSTOMERS = (
    "http_requests", "http_request_duration_seconds", "http_request_size_bytes",
    "http_response_size_bytes", "user_registrations", "funnel_steps", "feature_usage",
    "orders_created", "order_value", "payments", "payment_duration_seconds", "revenue",
    "revenue_events", "refunds", "refunded_amount", "active_users", "orders_current",
)  # fmt: skip


class System:
    """The API and a worker, with a receiver of spans."""

    def __init__(self, api: RunningProcess, worker: RunningProcess, receiver: Receiver) -> None:
        self.api, self.worker, self.receiver = api, worker, receiver

    def of_customers(self) -> dict[str, float]:
        """Return every sample of both processes that customers are counted in, 0 excepted."""
        return {
            f"{process.command} {sample.name}{sorted(sample.labels.items())}": sample.value
            for process in (self.api, self.worker)
            for sample in page(process)
            if sample.value and not sample.name.endswith("_created")
        }

    def is_idle(self) -> bool:
        """Whether the worker has nothing left to do, as of its last sample."""
        text = httpx2.get(f"{self.worker.url}/metrics").text
        lines = [one for one in text.splitlines() if one.startswith("outbox_messages{")]
        return bool(lines) and all(float(line.rpartition(" ")[2]) == 0 for line in lines)


def page(process: RunningProcess) -> list[Any]:
    text = httpx2.get(f"{process.url}/metrics").text
    return [
        sample
        for family in text_string_to_metric_families(text)
        if family.name in OF_CUSTOMERS
        for sample in family.samples
    ]


def value(process: RunningProcess, name: str, **labels: str) -> float:
    for family in text_string_to_metric_families(httpx2.get(f"{process.url}/metrics").text):
        for sample in family.samples:
            if sample.name == name and labels.items() <= sample.labels.items():
                return sample.value
    return 0.0


def lines(process: RunningProcess) -> list[dict[str, Any]]:
    return [json.loads(one) for one in process.log().splitlines() if one.startswith("{")]


@pytest.fixture
def system(
    postgres_service_database: str, provider: RunningProvider, tmp_path: Path
) -> Iterator[System]:
    """The system, with the setting."""
    where = {"database_url": postgres_service_database, "provider_url": provider.url}
    with Receiver().running() as receiver:
        signals = {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url, "SYNTHETIC_TOKEN": TOKEN}
        with (
            start_process("serve", tmp_path, **where, **signals) as api,
            start_process("worker", tmp_path, **where, **signals) as worker,
        ):
            wait_until(lambda: api.answers("/health/ready"), "the API is ready", SECONDS)
            yield System(api, worker, receiver)


def be_a_customer(api: RunningProcess, headers: dict[str, str]) -> None:
    with httpx2.Client(base_url=api.url, timeout=60, headers=headers) as http:
        person = Person(http)
        assert person.register() == 201
        assert person.log_in() == 200
        person.pay(person.order())


def test_journeys_leave_no_mark_on_the_business_while_a_customer_beside_them_counts(
    system: System, tmp_path: Path
) -> None:
    _make_a_good_one(system)
    _is_one_trace(system)
    _find_a_declined_card(system)
    _make_them_again_and_again(system, tmp_path)
    wait_until(system.is_idle, "the worker has sampled after that", SECONDS)
    assert system.of_customers() == {}

    be_a_customer(system.api, {"X-Synthetic-Token": "a wrong one"})

    wait_until(
        lambda: value(system.worker, "orders_current", status="fulfilled") == 1, "a sample", SECONDS
    )
    found = system.of_customers()
    assert found["serve orders_created_total[('currency', 'EUR')]"] == 1
    assert found["serve revenue_total[('currency', 'EUR')]"] == 25
    assert found["serve funnel_steps_total[('step', 'registration')]"] == 1
    assert found["worker active_users[('window', '1d')]"] == 1
    requests = [count for name, count in found.items() if name.startswith("serve http_requests_t")]
    assert requests == [1, 1, 1, 1]
    _are_marked(system)
    for process in (system.api, system.worker):
        assert TOKEN not in process.log()
        assert TOKEN not in httpx2.get(f"{process.url}/metrics").text


def _make_a_good_one(system: System) -> None:
    done = make_one_journey(api_url=system.api.url, OTEL_EXPORTER_OTLP_ENDPOINT=system.receiver.url)
    assert done.returncode == 0, done.stderr
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [[one, "ok"] for one in STEPS]
    assert done.stderr == ""
    for task in ("fulfil_order", "write_receipt", "write_credit_note"):
        labels = {"task": task, "status": "succeeded"}
        wait_until(
            lambda labels=labels: value(system.worker, "jobs_processed_total", **labels) == 1,  # type: ignore[misc]
            f"the journey's {task}",
            SECONDS,
        )


def _find_a_declined_card(system: System) -> None:
    done = make_one_journey(api_url=system.api.url, SYNTHETIC_PAYMENT_TOKEN="tok_declined")
    assert done.returncode == 1
    assert done.stderr == (
        "The journey failed at the step pay. "
        "The payment is declined (do_not_honor), not captured.\n"
    )
    assert done.stdout.splitlines()[-1].split()[:2] == ["erase", "ok"]


def _make_them_again_and_again(system: System, directory: Path) -> None:
    with start_prober(
        directory, api_url=system.api.url, SYNTHETIC_INTERVAL_SECONDS="0.5"
    ) as prober:
        wait_until(
            lambda: value(prober, "synthetic_journeys_total", result="success") >= 2,
            "two journeys",
            SECONDS,
        )
        assert value(prober, "synthetic_journey_last_success_timestamp_seconds") > 0
        for path in ("/health", "/health/live", "/health/ready"):
            assert prober.answers(path)
        prober.stop()
    # The journey that was under way has erased its account as well.
    apart, users = "synthetic_http_requests_total", "/v1/users"
    registered = value(system.api, apart, handler=users, status="201")
    assert value(system.api, apart, handler=f"{users}/me", status="204") == registered >= 4


def _are_marked(system: System) -> None:
    access = [one for one in lines(system.api) if one["type"] == "http_request"]
    jobs = [one for one in lines(system.worker) if one["message"] == "Job finished"]
    assert [one.get("synthetic") for one in access[-4:]] == [None] * 4
    assert {one.get("synthetic") for one in access[:-4]} == {True}
    assert {one.get("synthetic") for one in jobs[:-2]} == {True}
    assert [one.get("synthetic") for one in jobs[-2:]] == [None] * 2


def _is_one_trace(system: System) -> None:
    def spans() -> list[Any]:
        return [one for one in system.receiver.spans() if one.service == "glasshouse-synthetic"]

    def has_root() -> bool:
        return any(one.name == "synthetic.journey" for one in spans())

    wait_until(has_root, "the spans of the journey", SECONDS)

    def has_served() -> bool:
        names = [one.name for one in system.receiver.spans() if one.kind == "SERVER"]
        return "DELETE /v1/users/me" in names

    wait_until(has_served, "the spans of the API", SECONDS)
    (root,) = (one for one in spans() if one.name == "synthetic.journey")
    assert [one.name for one in spans() if one.parent_id == root.span_id] == [
        f"synthetic.{step}" for step in STEPS
    ]
    served = [one for one in system.receiver.spans() if one.kind == "SERVER"]
    marked = [one for one in served if one.attributes.get("user_agent.synthetic.type") == "test"]
    assert {one.trace_id for one in marked} == {root.trace_id}
    assert len(marked) == len([one for one in served if one.service == "glasshouse"]) == 8
    assert TOKEN not in str(system.receiver.spans())


# What is broken ---------------------------------------------------------------------------------------


def test_an_api_that_is_down_is_one_sentence() -> None:
    done = make_one_journey(api_url=f"http://127.0.0.1:{free_port()}", SYNTHETIC_TOKEN="")

    assert done.returncode == 1
    assert done.stdout.split()[:2] == ["register", "failed"]
    unmarked, failed = done.stderr.splitlines()
    assert unmarked.endswith("the service counts these journeys as a customer's.")
    assert failed.startswith(
        "The journey failed at the step register. POST /v1/users got no answer from http://127.0.0.1:"
    )
    assert "Traceback" not in done.stderr


def test_a_setting_that_cannot_be_is_one_sentence() -> None:
    done = make_one_journey(api_url="ftp://nowhere")

    assert done.returncode == 1
    assert done.stderr == (
        "The synthetic journey does not start. SYNTHETIC_API_URL: Value error, "
        "must begin with http:// or https://, such as http://127.0.0.1:8000.\n"
    )


def _frozen(api: RunningProcess) -> str:
    api.send_signal(signal.SIGSTOP)
    return "register"


def _without_provider(api: RunningProcess) -> str:
    return "pay"


@pytest.mark.parametrize("break_it", [_frozen, _without_provider], ids=["hangs", "no provider"])
def test_the_service_counts_what_its_journeys_find(
    sqlite_service_database: str, tmp_path: Path, break_it: Callable[[RunningProcess], str]
) -> None:
    where = {
        "database_url": sqlite_service_database,
        "provider_url": f"http://127.0.0.1:{free_port()}",
    }
    with start_process("serve", tmp_path, **where, SYNTHETIC_TOKEN=TOKEN) as api:
        step = break_it(api)
        limits = {"SYNTHETIC_INTERVAL_SECONDS": "0.5"}
        if step == "register":  # it is to be reached, and nothing else is
            limits["SYNTHETIC_STEP_TIMEOUT_SECONDS"] = "1"
        with start_prober(tmp_path, api_url=api.url, **limits) as prober:
            wait_until(
                lambda: value(prober, "synthetic_journeys_total", result="failure") >= 2,
                "two journeys have failed",
                SECONDS,
            )
            assert value(prober, "synthetic_step_failures_total", step=step) >= 2
            assert value(prober, "synthetic_journeys_total", result="success") == 0
            assert value(prober, "synthetic_journey_last_success_timestamp_seconds") == 0
            assert prober.answers("/health/ready")
            wait_until(
                lambda: any(one["message"] == "Synthetic step failed" for one in lines(prober)),
                "the line of the step",
                SECONDS,
            )
            (said, *_) = (one for one in lines(prober) if one["message"] == "Synthetic step failed")
            assert said["step"] == step
            assert said["type"] == "synthetic"
            assert said["service"] == "glasshouse-synthetic"
            if step == "register":
                api.send_signal(signal.SIGCONT)
