"""What the provider's metrics, logs and traces say, and what they never say."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from app.observability.tracing import Tracing, setup_tracing
from sandbox.payment_provider import ProviderSettings
from tests.provider import open_provider

Client = httpx2.AsyncClient
KEY = "a-key-that-nobody-else-may-know"
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
FROM_THE_SERVICE = {"traceparent": f"00-{TRACE_ID}-b7ad6b7169203331-01"}


class Traced(NamedTuple):
    client: Client
    tracing: Tracing
    spans: InMemorySpanExporter


@pytest.fixture
async def traced(tmp_path: Path) -> AsyncIterator[Traced]:
    """A provider that records its spans in memory."""
    spans = InMemorySpanExporter()
    tracing = setup_tracing(ProviderSettings(), exporter=spans)
    async with open_provider(tmp_path / "provider.db", tracing=tracing) as client:
        yield Traced(client, tracing, spans)
    tracing.shutdown()


async def use_everything(client: Client) -> None:
    """Charge, replay, refund, read, cancel and fail, all with KEY."""
    headers = {"Idempotency-Key": KEY, **FROM_THE_SERVICE}
    body = {"amount": 10, "currency": "EUR", "token": "tok_ok", "reference": "order-1"}
    for token in ("tok_ok", "tok_ok", "tok_declined", "tok_unknown"):
        await client.post("/v1/charges", json=body | {"token": token}, headers=headers)
    fails = headers | {"Idempotency-Key": f"{KEY}-2"}
    await client.post("/v1/charges", json=body | {"token": "tok_error"}, headers=fails)
    await client.post("/v1/refunds", json={"charge": KEY, "amount": 10}, headers=headers)
    await client.post("/v1/refunds", json={"charge": KEY, "amount": 1}, headers=headers)
    for kind in ("charges", "refunds"):
        await client.get(f"/v1/{kind}/{KEY}", headers=FROM_THE_SERVICE)
        await client.get(f"/v1/{kind}/{KEY}/more?key={KEY}", headers=FROM_THE_SERVICE)
        await client.post(f"/v1/{kind}/{KEY}/cancel", headers=FROM_THE_SERVICE)


async def test_a_trace_goes_on_from_the_service_into_the_provider(traced: Traced) -> None:
    await use_everything(traced.client)
    traced.tracing.flush()
    spans = traced.spans.get_finished_spans()

    assert {f"{span.context.trace_id:032x}" for span in spans if span.context} == {TRACE_ID}
    assert {span.resource.attributes["service.name"] for span in spans} == {
        "glasshouse-payment-provider"
    }
    names = {span.name for span in spans}
    assert names >= {
        "POST /v1/charges",
        "GET /v1/charges/{idempotency_key}",
        "POST /v1/refunds/{idempotency_key}/cancel",
        "ledger.charge",
        "ledger.refund",
        "ledger.cancel",
    }


async def test_keys_and_tokens_are_in_no_span(traced: Traced) -> None:
    await use_everything(traced.client)
    traced.tracing.flush()
    written = "".join(span.to_json() for span in traced.spans.get_finished_spans())

    assert "/v1/charges/[key]" in written
    assert KEY not in written
    assert "tok_" not in written


async def test_keys_and_tokens_are_in_no_metric(provider: Client) -> None:
    await use_everything(provider)
    page = (await provider.get("/metrics")).text

    assert 'handler="/v1/charges/{idempotency_key}"' in page
    assert KEY not in page
    assert "tok_" not in page


async def test_what_was_recorded_is_counted_and_logged_once(
    provider: Client, log_records: list[dict[str, Any]]
) -> None:
    before = await counters(provider)
    await use_everything(provider)
    after = await counters(provider)

    counted = {name: value - before[name] for name, value in after.items()}
    assert {name: value for name, value in counted.items() if value} == {
        'provider_charges_total{status="succeeded"}': 1,
        'provider_refunds_total{status="succeeded"}': 1,
        'provider_injected_faults_total{kind="processing_failed"}': 1,
    }
    said = [line["extra"]["type"] for line in log_records]
    assert (said.count("charge"), said.count("refund")) == (1, 1)
    assert said.count("http_request") == 13


async def counters(client: Client) -> dict[str, float]:
    """Return the provider's own counters."""
    page = (await client.get("/metrics")).text
    lines = [line.rsplit(" ", 1) for line in page.splitlines() if line.startswith("provider_")]
    return {name: float(value) for name, value in lines if "_total{" in name}
