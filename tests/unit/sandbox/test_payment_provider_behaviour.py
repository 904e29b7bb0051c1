"""Faults on request: they are as frequent as asked for, and they leave the ledger consistent."""

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx2
import pytest
from prometheus_client import REGISTRY

from sandbox.payment_provider.behaviour import Faults
from tests.provider import open_provider

Client = httpx2.AsyncClient


async def charge(client: Client, key: str, token: str = "tok_ok") -> httpx2.Response:
    body = {"amount": 5, "currency": "EUR", "token": token, "reference": "order-1"}
    return await client.post("/v1/charges", json=body, headers={"Idempotency-Key": key})


async def keys_in_ledger(client: Client) -> Counter[str]:
    entries: list[dict[str, Any]] = (await client.get("/v1/ledger")).json()["entries"]
    return Counter(entry["key"] for entry in entries)


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_failures_come_as_often_as_asked_for_and_half_of_them_took_effect(
    tmp_path: Path,
) -> None:
    keys = [f"key-{number}" for number in range(200)]
    names = ("unavailable_before", "unavailable_after")
    before = {name: sample("provider_injected_faults_total", kind=name) for name in names}
    async with open_provider(
        tmp_path / "provider.db", rng=random.Random(11), failure_rate=0.4
    ) as client:
        answers = {key: await charge(client, key) for key in keys}
        recorded = await keys_in_ledger(client)
        counted = {
            name: sample("provider_injected_faults_total", kind=name) - before[name]
            for name in names
        }
        failed = {key for key, answer in answers.items() if answer.status_code == 503}
        lost, charged = failed - recorded.keys(), failed & recorded.keys()

        # Every answered charge is in the ledger once; of the failed ones, those that were charged.
        assert {answer.status_code for answer in answers.values()} == {201, 503}
        assert recorded == Counter(set(keys) - lost)
        assert counted == {"unavailable_before": len(lost), "unavailable_after": len(charged)}
        assert 60 <= len(failed) <= 100
        assert 20 <= len(charged) <= 60
        assert 20 <= len(lost) <= 60

        # A client that tries again gets every charge made exactly once.
        await client.put("/v1/behaviour", json={"failure_rate": 0})
        again = {key: (await charge(client, key)).status_code for key in sorted(failed)}
        assert again == {key: 201 if key in lost else 200 for key in failed}
        assert await keys_in_ledger(client) == Counter(keys)


async def test_a_seed_repeats_the_same_failures(tmp_path: Path) -> None:
    runs = []
    for number in range(2):
        async with open_provider(
            tmp_path / f"{number}.db", rng=random.Random(5), failure_rate=0.5
        ) as client:
            runs.append([(await charge(client, f"key-{n}")).status_code for n in range(30)])
    assert runs[0] == runs[1]


async def test_failures_strike_every_operation_and_a_cancellation_holds_nevertheless(
    tmp_path: Path,
) -> None:
    async with open_provider(
        tmp_path / "provider.db", rng=random.Random(3), failure_rate=1
    ) as client:
        canceled = [
            (await client.post(f"/v1/charges/key-{n}/cancel")).status_code for n in range(20)
        ]
        read = await client.get("/v1/charges/key-1")
        problem = read.json()
        held = await keys_in_ledger(client)
        await client.put("/v1/behaviour", json={"failure_rate": 0})
        late = [(await charge(client, f"key-{n}")).json()["status"] for n in range(20)]

    assert (set(canceled), read.status_code, problem["code"]) == ({503}, 503, "unavailable")
    assert 0 < len(held) < 20
    assert late == ["canceled" if f"key-{n}" in held else "succeeded" for n in range(20)]


async def test_probes_the_ledger_and_the_behaviour_itself_never_fail(tmp_path: Path) -> None:
    async with open_provider(tmp_path / "p.db", failure_rate=1, latency_ms=60_000) as client:
        for path in ("/health", "/metrics", "/v1/ledger", "/v1/behaviour"):
            assert (await asyncio.wait_for(client.get(path), 30)).status_code == 200


async def test_the_behaviour_can_be_read_and_replaced_and_returns_to_its_start(
    provider: Client,
) -> None:
    initial = {
        "latency_ms": 0,
        "latency_jitter_ms": 0,
        "failure_rate": 0,
        "slow_seconds": 0.4,
        "timeout_seconds": 0.4,
    }
    assert (await provider.get("/v1/behaviour")).json() == initial

    changed = await provider.put("/v1/behaviour", json={"latency_ms": 1, "failure_rate": 0.5})
    assert changed.json() == initial | {"latency_ms": 1, "failure_rate": 0.5}
    assert (await provider.get("/v1/behaviour")).json() == changed.json()

    # PUT replaces: what is left out, or null, is what the provider started with.
    changed = await provider.put("/v1/behaviour", json={"slow_seconds": 9, "latency_ms": None})
    assert changed.json() == initial | {"slow_seconds": 9}
    assert (await provider.put("/v1/behaviour", json={})).json() == initial


@pytest.mark.parametrize(
    "change",
    [
        {"failure_rate": 1.01},
        {"failure_rate": -0.1},
        {"failure_rate": "0.5"},
        {"latency_ms": -1},
        {"latency_jitter_ms": 60_001},
        {"slow_seconds": 601},
        {"timeout_seconds": True},
        {"latency": 5},
    ],
)
async def test_a_behaviour_that_makes_no_sense_is_refused(
    provider: Client, change: dict[str, Any]
) -> None:
    before = (await provider.get("/v1/behaviour")).json()
    answer = await provider.put("/v1/behaviour", json=change)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert (await provider.get("/v1/behaviour")).json() == before


async def test_latency_and_jitter_delay_every_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []

    async def note(_: Faults, seconds: float) -> bool:
        waits.append(seconds)
        return True

    monkeypatch.setattr(Faults, "_wait", note)
    async with open_provider(
        tmp_path / "p.db", rng=random.Random(1), latency_ms=100, latency_jitter_ms=200
    ) as client:
        for number in range(6):
            await charge(client, f"key-{number}")

    same = random.Random(1)  # draws twice for a request: the jitter, then the fault
    drawn = [(same.random(), same.random())[0] for _ in range(6)]
    assert waits == pytest.approx([0.1 + 0.2 * jitter for jitter in drawn])


async def test_a_delay_is_waited_for(tmp_path: Path) -> None:
    async with open_provider(tmp_path / "p.db", latency_ms=100) as client:
        started = time.monotonic()
        await charge(client, "key-1")
        assert time.monotonic() - started >= 0.1


async def test_faults_that_tokens_ask_for_are_counted(provider: Client) -> None:
    kinds = {"tok_slow": "slow", "tok_error": "processing_failed", "tok_timeout": "no_answer"}
    for token, kind in kinds.items():
        before = sample("provider_injected_faults_total", kind=kind)
        await charge(provider, f"key-{token}", token)
        assert sample("provider_injected_faults_total", kind=kind) == before + 1
