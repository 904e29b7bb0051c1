"""The RED metrics: what is counted under which labels, and how the page is served."""

import asyncio
import gzip
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import StreamingResponse
from fastapi.testclient import TestClient
from prometheus_client import REGISTRY
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from starlette.responses import Response
from starlette.types import Message

from app.observability import cardinality, context, metrics
from app.observability.context import RequestContext
from app.observability.metrics import (
    MetricsSettings,
    instrument_metrics,
    telemetry_dropped,
)
from app.observability.settling import settle
from app.observability.shared_metrics import VARIABLE, prepare

SETTINGS = MetricsSettings(service_version="9.9.9", git_commit="abc1234", environment="test")
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


def build() -> FastAPI:
    router = APIRouter(prefix="/orders")

    @router.get("/{order_id}")
    def read(order_id: str) -> str:
        return order_id

    @router.post("/{order_id}/notes")
    async def note(order_id: str, request: Request) -> str:
        return (await request.body()).decode()[:0]

    @router.get("/{order_id}/boom")
    async def boom(order_id: str) -> None:
        raise RuntimeError(order_id)

    @router.get("/{order_id}/stream")
    async def stream(order_id: str) -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"x" * 1000
            await asyncio.sleep(0.06)
            if order_id == "endless":
                await asyncio.Event().wait()
            if order_id == "broken":
                raise RuntimeError
            yield b"x" * 1000

        return StreamingResponse(body())

    @router.head("/{order_id}/size")
    def size(order_id: str) -> str:
        return order_id

    app = FastAPI()

    @app.get("/health")
    def health() -> float:
        return REGISTRY.get_sample_value("http_requests_in_progress") or 0.0

    @app.get("/progress")
    def progress() -> float:
        return REGISTRY.get_sample_value("http_requests_in_progress") or 0.0

    outer = APIRouter(prefix="/v1")
    outer.include_router(router, prefix="/shop")
    app.include_router(outer)
    instrument_metrics(app, SETTINGS)
    return app


@pytest.fixture(autouse=True)
def _zero() -> None:
    """Begin at zero: the metrics live as long as the process."""
    for metric in (metrics.REQUESTS, metrics.DURATION, metrics.REQUEST_SIZE, metrics.RESPONSE_SIZE):
        metric.clear()
    metrics._series.cache_clear()
    metrics._sizes.cache_clear()


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(build(), raise_server_exceptions=False, follow_redirects=False) as client:
        yield client


def counted() -> dict[tuple[str, str, str], float]:
    """Return what http_requests_total has counted, by (method, handler, status)."""
    return {labels: found for labels, found in shown().items() if found}


def shown() -> dict[tuple[str, str, str], float]:
    """Return all series of http_requests_total, by (method, handler, status)."""
    settle()
    return {
        (sample.labels["method"], sample.labels["handler"], sample.labels["status"]): sample.value
        for metric in metrics.REQUESTS.collect()
        for sample in metric.samples
        if sample.name == "http_requests_total"
    }


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_the_failures_of_a_route_begin_at_0_with_its_first_request(client: TestClient) -> None:
    # increase() sees growth only: a series that begins with its first failure never tells of it.
    client.get("/v1/shop/orders/7")

    route = "/v1/shop/orders/{order_id}"
    assert shown() == {
        ("GET", route, "200"): 1,
        ("GET", route, "500"): 0,
        ("GET", route, "503"): 0,
    }


def test_a_failure_that_comes_first_is_counted_once(client: TestClient) -> None:
    client.get("/v1/shop/orders/7/boom")

    route = "/v1/shop/orders/{order_id}/boom"
    assert shown() == {("GET", route, "500"): 1, ("GET", route, "503"): 0}


def test_what_begins_at_0_is_bounded_like_the_rest(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cardinality, "_known", {})
    monkeypatch.setattr(metrics, "_MAX_HANDLERS", 1)
    client.get("/v1/shop/orders/7")
    client.get("/progress")
    client.get("/wp-login.php")

    first = "/v1/shop/orders/{order_id}"
    assert {handler for _, handler, _ in shown()} == {first, cardinality.OTHER}


def test_durations_have_no_series_of_failures_that_never_were(client: TestClient) -> None:
    client.get("/v1/shop/orders/7")
    settle()

    statuses = {
        sample.labels["status"] for one in metrics.DURATION.collect() for sample in one.samples
    }
    assert statuses == {"200"}


@pytest.mark.parametrize(
    ("method", "path", "labels"),
    [
        ("GET", "/v1/shop/orders/7", ("GET", "/v1/shop/orders/{order_id}", "200")),
        ("POST", "/v1/shop/orders/7/notes", ("POST", "/v1/shop/orders/{order_id}/notes", "200")),
        ("DELETE", "/v1/shop/orders/7", ("DELETE", "/v1/shop/orders/{order_id}", "405")),
        ("HEAD", "/v1/shop/orders/7/size", ("HEAD", "/v1/shop/orders/{order_id}/size", "200")),
        ("BREW", "/v1/shop/orders/7", ("OTHER", "/v1/shop/orders/{order_id}", "405")),
        ("GET", "/v1/shop/orders/7/", ("GET", "unmatched", "307")),
        ("GET", "/wp-login.php", ("GET", "unmatched", "404")),
        ("BREW", "/teapot", ("OTHER", "unmatched", "404")),
        ("GET", "/v1/shop/orders/7/boom", ("GET", "/v1/shop/orders/{order_id}/boom", "500")),
    ],
)
def test_a_request_is_counted_and_timed_under_bounded_labels(
    client: TestClient, method: str, path: str, labels: tuple[str, str, str]
) -> None:
    client.request(method, path)

    assert counted() == {labels: 1}
    named = dict(zip(("method", "handler", "status"), labels, strict=True))
    assert value("http_request_duration_seconds_count", **named) == 1


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_probes_and_scrapes_are_not_counted(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 200

    assert counted() == {}


def test_the_objectives_thresholds_are_bucket_bounds(client: TestClient) -> None:
    client.get("/v1/shop/orders/7")

    labels = {"method": "GET", "handler": "/v1/shop/orders/{order_id}", "status": "200"}
    for bound in ("0.2", "1.0"):
        name = "http_request_duration_seconds_bucket"
        assert REGISTRY.get_sample_value(name, {"le": bound, **labels}) is not None


def test_a_streamed_answer_is_timed_and_measured_to_its_end(client: TestClient) -> None:
    client.get("/v1/shop/orders/7/stream")

    handler = "/v1/shop/orders/{order_id}/stream"
    labels = {"method": "GET", "handler": handler, "status": "200"}
    assert value("http_request_duration_seconds_sum", **labels) >= 0.06
    assert value("http_response_size_bytes_sum", handler=handler) == 2000


def test_an_answer_that_breaks_off_is_a_500(client: TestClient) -> None:
    client.get("/v1/shop/orders/broken/stream")

    assert counted() == {("GET", "/v1/shop/orders/{order_id}/stream", "500"): 1}


def test_sizes_are_measured(client: TestClient) -> None:
    handler = "/v1/shop/orders/{order_id}/notes"
    client.post("/v1/shop/orders/7/notes", content=b"x" * 300)
    client.post("/v1/shop/orders/7/notes", content=iter([b"x" * 50, b"x" * 50]))  # chunked

    assert value("http_request_size_bytes_sum", handler=handler) == 400
    assert value("http_response_size_bytes_sum", handler=handler) == 4  # twice ""
    client.get("/v1/shop/orders/7", headers={"Content-Length": "9" * 5000})


def test_the_answer_to_head_has_no_body(client: TestClient) -> None:
    client.head("/v1/shop/orders/7/size")

    handler = "/v1/shop/orders/{order_id}/size"
    assert value("http_response_size_bytes_count", handler=handler) == 1
    assert value("http_response_size_bytes_sum", handler=handler) == 0


def test_requests_in_progress_are_a_gauge(client: TestClient) -> None:
    assert client.get("/progress").json() == 1
    assert client.get("/health").json() == 0
    client.get("/v1/shop/orders/7/boom")
    assert value("http_requests_in_progress") == 0


async def test_a_client_that_leaves_early_is_499() -> None:
    incoming = [{"type": "http.request", "body": b"", "more_body": False}]

    has_begun = asyncio.Event()

    async def receive() -> Message:
        if incoming:
            return incoming.pop()
        await has_begun.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.body":
            has_begun.set()

    scope: dict[str, Any] = {
        "type": "http", "method": "GET", "path": "/v1/shop/orders/endless/stream", "raw_path": b"",
        "headers": [], "query_string": b"", "client": None, "server": None, "scheme": "http",
        "root_path": "", "http_version": "1.1", "asgi": {"version": "3.0", "spec_version": "2.3"},
    }  # fmt: skip
    await build()(scope, receive, send)

    assert counted() == {("GET", "/v1/shop/orders/{order_id}/stream", "499"): 1}


def test_several_applications_record_in_one_process() -> None:
    for _ in range(2):
        with TestClient(build()) as client:
            client.get("/v1/shop/orders/7")

    assert counted() == {("GET", "/v1/shop/orders/{order_id}", "200"): 2}


def test_the_routes_are_not_scanned(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's way costs more with each route; ours must not come back to it."""

    def scan(*_: object, **__: object) -> str:
        raise AssertionError("the routes were scanned")

    monkeypatch.setattr("prometheus_fastapi_instrumentator.middleware.routing.get_route_name", scan)

    assert client.get("/v1/shop/orders/7").status_code == 200
    assert counted() == {("GET", "/v1/shop/orders/{order_id}", "200"): 1}


def exemplars(page: str) -> set[str]:
    parse: Any = text_string_to_metric_families  # untyped
    return {
        sample.exemplar.labels["trace_id"]
        for family in parse(page)
        for sample in family.samples
        if sample.exemplar
    }


def test_a_sampled_trace_is_the_exemplar_for_who_can_read_it(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        context, "_trace_source", lambda: ("0af7651916cd43dd8448eb211c80319c", "b7")
    )
    client.get("/v1/shop/orders/7")

    page = client.get("/metrics", headers=OPENMETRICS)
    assert exemplars(page.text) == {"0af7651916cd43dd8448eb211c80319c"}
    assert page.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert "0af7651916cd43dd8448eb211c80319c" not in client.get("/metrics").text


def test_a_trace_that_is_not_sampled_is_no_exemplar(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(context, "_trace_source", lambda: ("0af7651916cd43dd8448eb211c80319c", ""))
    client.get("/v1/shop/orders/7")

    assert exemplars(client.get("/metrics", headers=OPENMETRICS).text) == set()


def test_the_page_is_compressed_on_request(client: TestClient) -> None:
    plain = client.get("/metrics", headers={"Accept-Encoding": "identity"})
    with client.stream("GET", "/metrics", headers={"Accept-Encoding": "gzip"}) as packed:
        raw = b"".join(packed.iter_raw())

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert len(raw) < len(plain.content) / 2
    assert b"build_info" in gzip.decompress(raw)


def test_the_page_is_no_part_of_the_api(client: TestClient) -> None:
    assert "/metrics" not in client.get("/openapi.json").json()["paths"]


def test_the_page_does_not_run_on_the_event_loop(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(_: object) -> bytes:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        return b"in a thread"

    monkeypatch.setattr(metrics, "choose_encoder", lambda _: (encode, "text/plain"))

    assert client.get("/metrics").content == b"in a thread"


def test_the_build_is_told(client: TestClient) -> None:
    assert value("build_info", version="9.9.9", commit="abc1234", environment="test") == 1


def test_lost_telemetry_is_counted_from_zero() -> None:
    lost = telemetry_dropped("carrier-pigeons")
    assert REGISTRY.get_sample_value("telemetry_dropped_total", {"signal": "carrier-pigeons"}) == 0

    lost(3)

    assert value("telemetry_dropped_total", signal="carrier-pigeons") == 3


def test_routes_and_statuses_beyond_what_a_service_has_are_folded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cardinality, "_known", {})
    monkeypatch.setattr(metrics, "_MAX_HANDLERS", 3)
    monkeypatch.setattr(metrics, "_MAX_STATUSES", 4)  # 500 and 503 are always there
    app = FastAPI()
    for number in range(6):
        app.add_api_route(
            f"/route/{number}", lambda number=number: Response(status_code=200 + number)
        )
    instrument_metrics(app, SETTINGS)
    folded = {"metric": "http_requests_total"}
    before = value("metrics_label_values_folded_total", label="status", **folded)

    with TestClient(app) as client:
        for _ in range(2):
            for number in range(6):
                client.get(f"/route/{number}")

    assert counted() == {
        ("GET", "/route/0", "200"): 2,
        ("GET", "/route/1", "201"): 2,
        ("GET", "/route/2", "other"): 2,
        ("GET", "other", "other"): 6,
    }
    assert value("http_request_size_bytes_count", handler="other") == 6
    assert value("metrics_label_values_folded_total", label="status", **folded) > before


def test_the_page_of_several_workers_is_read_from_their_files(
    client: TestClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path)
    monkeypatch.setenv(VARIABLE, str(tmp_path))

    page = client.get("/metrics")

    assert page.status_code == 200
    assert "python_info" in page.text
    assert "build_info" not in page.text, "no worker has written a file"


def test_an_instrumentation_of_the_librarys_kind_is_told_of_the_request() -> None:
    ended = RequestContext("request-1", "/v1/orders/{order_id}")
    ended.method, ended.path, ended.answered, ended.seconds = "GET", "/v1/orders/7", 404, 0.25

    info = metrics.RequestInfo(ended)

    assert (info.method, info.modified_handler, info.modified_status) == (
        "GET",
        "/v1/orders/{order_id}",
        "404",
    )
    assert info.modified_duration == info.modified_duration_without_streaming == 0.25
    assert (info.request.method, info.request.url.path) == ("GET", "/v1/orders/7")
    assert info.response.status_code == 404
