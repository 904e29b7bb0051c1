"""The payment provider as the process that people start: what it survives, and how it ends."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.provider import ROOT, RunningProvider, start_provider
from tests.tools import free_port, wait_until

KEY = "a-key-that-nobody-else-may-know"
TOKENS = ["tok_ok", "tok_declined", "tok_insufficient_funds", "tok_expired", "tok_error"]


@pytest.fixture
def provider(tmp_path: Path) -> Iterator[RunningProvider]:
    with start_provider(tmp_path) as running:
        yield running


def charge(
    provider: RunningProvider, key: str = KEY, token: str = "tok_ok", timeout: float = 5
) -> httpx2.Response:
    return httpx2.post(
        f"{provider.url}/v1/charges",
        json={"amount": 700, "currency": "EUR", "token": token, "reference": "order-1"},
        headers={"Idempotency-Key": key},
        timeout=timeout,
    )


def charge_without_answer(provider: RunningProvider, key: str = KEY) -> None:
    with pytest.raises(httpx2.ReadTimeout):
        charge(provider, key, "tok_timeout", timeout=1)


def run_program(**environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "sandbox.payment_provider"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_it_answers_probes_and_shows_its_metrics(provider: RunningProvider) -> None:
    charge(provider)
    for method in ("GET", "HEAD"):
        assert httpx2.request(method, f"{provider.url}/health").status_code == 200
    metrics = httpx2.get(f"{provider.url}/metrics").text
    assert 'provider_charges_total{status="succeeded"} 1.0' in metrics
    assert 'provider_charges_total{status="declined"} 0.0' in metrics
    assert 'provider_injected_faults_total{kind="no_answer"} 0.0' in metrics


def test_the_answer_of_the_timeout_token_never_arrives_but_the_charge_is_in_the_ledger(
    provider: RunningProvider,
) -> None:
    charge_without_answer(provider)

    (entry,) = provider.ledger()
    assert (entry["key"], entry["status"]) == (KEY, "succeeded")
    # What a client does that does not know: it asks, or it cancels, which comes too late.
    known = httpx2.get(f"{provider.url}/v1/charges/{KEY}").json()
    assert known["status"] == "succeeded"
    assert httpx2.post(f"{provider.url}/v1/charges/{KEY}/cancel").json() == known


def test_after_kill_9_in_a_burst_every_answered_charge_is_in_the_ledger_exactly_once(
    provider: RunningProvider,
) -> None:
    answered: dict[str, str] = {}
    unanswered: set[str] = set()
    enough = threading.Event()

    def burst(worker: int) -> None:
        with httpx2.Client(base_url=provider.url, timeout=5) as client:
            for number in range(10_000):
                key = f"{worker}-{number}"
                body = {"amount": 1, "currency": "EUR", "token": "tok_ok", "reference": "burst"}
                try:
                    answer = client.post("/v1/charges", json=body, headers={"Idempotency-Key": key})
                except httpx2.TransportError:
                    unanswered.add(key)
                    return
                answered[key] = answer.json()["id"]
                if len(answered) >= 150:
                    enough.set()

    workers = [threading.Thread(target=burst, args=(number,)) for number in range(8)]
    for worker in workers:
        worker.start()
    assert enough.wait(30)
    provider.kill()
    for worker in workers:
        worker.join()
    assert len(unanswered) == 8

    provider.restart()
    recorded = Counter(entry["key"] for entry in provider.ledger())
    assert set(recorded.values()) == {1}
    assert set(answered) <= set(recorded) <= set(answered) | unanswered
    for key in sorted(answered)[::25]:
        assert httpx2.get(f"{provider.url}/v1/charges/{key}").json()["id"] == answered[key]

    # Whoever got no answer tries again, and then everything was charged once.
    for key in unanswered:
        httpx2.post(
            f"{provider.url}/v1/charges",
            json={"amount": 1, "currency": "EUR", "token": "tok_ok", "reference": "burst"},
            headers={"Idempotency-Key": key},
        ).raise_for_status()
    assert Counter(entry["key"] for entry in provider.ledger()) == Counter(
        set(answered) | unanswered
    )


def test_a_cancellation_survives_kill_9(provider: RunningProvider) -> None:
    httpx2.post(f"{provider.url}/v1/charges/{KEY}/cancel").raise_for_status()
    provider.kill()
    provider.restart()
    assert charge(provider).json()["status"] == "canceled"


def test_the_behaviour_lasts_until_the_restart(tmp_path: Path) -> None:
    with start_provider(tmp_path, failure_rate=1) as provider:
        assert charge(provider).status_code == 503
        provider.behave(failure_rate=0, latency_ms=1)
        assert charge(provider).status_code in {200, 201}
        provider.restart()
        assert charge(provider).status_code == 503


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_quick_and_orderly_although_a_request_hangs(
    tmp_path: Path, number: signal.Signals
) -> None:
    log = tmp_path / "log"
    port = free_port()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "sandbox.payment_provider"],
            cwd=ROOT,
            env={
                **os.environ,
                "PROVIDER_PORT": str(port),
                "PROVIDER_DATABASE": str(tmp_path / "provider.db"),
                "PROVIDER_SLOW_SECONDS": "30",
            },
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: answers_probe(url), "the provider answers")
        answers: list[httpx2.Response] = []
        hanging = [
            threading.Thread(target=lambda token=token: answers.append(post(url, token)))
            for token in ("tok_timeout", "tok_slow")
        ]
        for thread in hanging:
            thread.start()
        wait_until(lambda: both_are_waiting(url), "both requests are being served")

        started = time.monotonic()
        process.send_signal(number)
        assert process.wait(10) == 0
        assert time.monotonic() - started < 20  # the request would hang for 30
        for thread in hanging:
            thread.join()
    finally:
        process.kill()
        process.wait()

    # What was to be slow is done at once; what was never to be answered stays unknown to its client.
    assert {answer.status_code for answer in answers} == {201, 503}
    assert "Traceback" not in log.read_text()


def post(url: str, token: str) -> httpx2.Response:
    body = {"amount": 1, "currency": "EUR", "token": token, "reference": "stop"}
    return httpx2.post(
        f"{url}/v1/charges", json=body, headers={"Idempotency-Key": token}, timeout=10
    )


def both_are_waiting(url: str) -> bool:
    page = httpx2.get(f"{url}/metrics").text
    kinds = ("slow", "no_answer")
    return all(f'provider_injected_faults_total{{kind="{kind}"}} 1.0' in page for kind in kinds)


def answers_probe(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/health").status_code == 200
    except httpx2.TransportError:
        return False


def test_a_busy_port_is_one_clear_sentence(tmp_path: Path, provider: RunningProvider) -> None:
    ended = run_program(
        PROVIDER_PORT=str(provider.port), PROVIDER_DATABASE=str(tmp_path / "other.db")
    )
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert f"port {provider.port}" in line
    assert "PROVIDER_PORT" in line
    assert not (tmp_path / "other.db").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROVIDER_PORT", "eight thousand"),
        ("PROVIDER_FAILURE_RATE", "2"),
        ("PROVIDER_LATENCY_MS", "-1"),
        ("PROVIDER_HOST", "no.such.host.invalid"),
        ("PROVIDER_DATABASE", "/dev/null/provider.db"),
    ],
)
def test_a_wrong_setting_is_one_sentence_that_names_it(
    tmp_path: Path, name: str, value: str
) -> None:
    sound = {"PROVIDER_PORT": str(free_port()), "PROVIDER_DATABASE": str(tmp_path / "p.db")}
    ended = run_program(**{**sound, name: value})
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert name in line


def test_keys_and_tokens_are_in_no_line_of_the_log(tmp_path: Path) -> None:
    environment = {"LOG_LEVEL": "TRACE", "LOG_FORMAT": "json"}
    with start_provider(tmp_path, environment=environment, timeout_seconds=0.1) as provider:
        for number, token in enumerate([*TOKENS, "tok_timeout", "tok_unknown"]):
            charge(provider, f"{KEY}-{number}", token)
        for path in ("charges", "refunds"):
            httpx2.get(f"{provider.url}/v1/{path}/{KEY}-0")
            httpx2.get(f"{provider.url}/v1/{path}/{KEY}/of/nothing?key={KEY}")
            httpx2.post(f"{provider.url}/v1/{path}/{KEY}-0/cancel")
        httpx2.post(
            f"{provider.url}/v1/refunds",
            json={"charge": f"{KEY}-0", "amount": 1},
            headers={"Idempotency-Key": f"{KEY}-refund"},
        ).raise_for_status()
        charge(provider, f"{KEY} with a blank")
        time.sleep(0.3)
        log = provider.log()

    assert "charge recorded" in log
    assert "refund recorded" in log
    assert "/v1/charges/[key]" in log
    assert KEY not in log
    for token in (*TOKENS, "tok_timeout", "tok_unknown"):
        assert token not in log


def test_the_log_tells_the_provider_from_the_service(tmp_path: Path) -> None:
    environment = {"OTEL_SERVICE_NAME": "the-service", "LOG_FORMAT": "json"}
    with start_provider(tmp_path, environment=environment) as provider:
        charge(provider)
        time.sleep(0.3)
        log = provider.log()
    assert "glasshouse-payment-provider" in log
    assert "the-service" not in log
