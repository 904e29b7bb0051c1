"""The context of a request: its id, its route, and who sees it."""

import asyncio
from collections.abc import Iterator

import pytest
from fastapi import APIRouter, FastAPI, Request
from fastapi.testclient import TestClient
from starlette.types import ASGIApp, Receive, Scope, Send

from app.observability import context
from app.observability.context import (
    UNMATCHED_ROUTE,
    RequestContext,
    RequestContextMiddleware,
    bind_context,
    current_context,
    current_trace_ids,
    is_operational,
    route_template,
    use_trace_source,
)

seen: dict[str, str] = {}


class Outside:
    """Reads the context where the signals' middleware reads it: after the request."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)
        if scope["type"] == "http":
            now = current_context()
            seen.update(route=route_template(scope), user_id=now.user_id if now else "no context")


@pytest.fixture
def client() -> Iterator[TestClient]:
    seen.clear()
    inner = APIRouter(prefix="/orders")

    @inner.get("/{order_id}/lines/{line:int}")
    def read_line(order_id: str, line: int) -> dict[str, str]:
        now = current_context()
        assert now is not None
        now.user_id = "user-1"
        return {"request_id": now.request_id}

    outer = APIRouter(prefix="/v1")
    outer.include_router(inner, prefix="/shop")
    app = FastAPI()
    app.include_router(outer)

    @app.get("/plain/{x}")
    async def plain(x: str, request: Request) -> str:
        return route_template(request.scope)

    @app.get("/health")
    async def health() -> bool:
        return current_context() is None

    app.add_middleware(Outside)
    app.add_middleware(RequestContextMiddleware)
    with TestClient(app) as client:
        yield client


def test_each_request_gets_an_id_of_its_own_and_returns_it(client: TestClient) -> None:
    first = client.get("/v1/shop/orders/a/lines/1")
    second = client.get("/v1/shop/orders/a/lines/1")

    assert first.headers["X-Request-ID"] == first.json()["request_id"]
    assert len(first.headers["X-Request-ID"]) == 32
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


def test_a_well_formed_id_is_kept(client: TestClient) -> None:
    answer = client.get("/plain/1", headers={"X-Request-ID": "order-4711.retry_2"})

    assert answer.headers["X-Request-ID"] == "order-4711.retry_2"


@pytest.mark.parametrize(
    "bad", ["short", "x" * 129, "has space 123", "-starts-wrong", "new\\nline1"]
)
def test_an_ill_formed_id_is_replaced(client: TestClient, bad: str) -> None:
    answer = client.get("/plain/1", headers={"X-Request-ID": bad})

    assert answer.headers["X-Request-ID"] != bad
    assert len(answer.headers["X-Request-ID"]) == 32


@pytest.mark.parametrize(
    "secret",
    ["4111-1111-1111-1111", "DE89370400440532013000", "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.x"],
)
def test_a_secret_is_no_id_however_well_formed(client: TestClient, secret: str) -> None:
    answer = client.get("/plain/1", headers={"X-Request-ID": secret})

    assert len(answer.headers["X-Request-ID"]) == 32


def test_what_a_threaded_handler_sets_is_seen_outside(client: TestClient) -> None:
    client.get("/v1/shop/orders/a/lines/1")

    assert seen["user_id"] == "user-1"


@pytest.mark.parametrize(
    ("method", "path", "route"),
    [
        ("GET", "/v1/shop/orders/a/lines/1", "/v1/shop/orders/{order_id}/lines/{line:int}"),
        ("GET", "/plain/1", "/plain/{x}"),
        ("POST", "/plain/1", "/plain/{x}"),
        ("POST", "/v1/shop/orders/a/lines/1", "/v1/shop/orders/{order_id}/lines/{line:int}"),
        ("GET", "/plain/1/", UNMATCHED_ROUTE),
        ("GET", "/wp-login.php", UNMATCHED_ROUTE),
        ("GET", "/v1/shop/orders/a/lines/nine", UNMATCHED_ROUTE),
    ],
)
def test_the_route_is_the_whole_template(
    client: TestClient, method: str, path: str, route: str
) -> None:
    client.request(method, path, follow_redirects=False)

    assert seen["route"] == route


def test_a_sub_application_does_not_pass_for_a_route() -> None:
    seen.clear()
    inside = FastAPI()

    @inside.get("/items/{item}")
    def read_item(item: str) -> str:
        return item

    app = FastAPI()
    app.mount("/sub", inside)
    app.add_middleware(Outside)
    with TestClient(app) as client:
        assert client.get("/sub/items/1").status_code == 200

    assert seen["route"] == UNMATCHED_ROUTE


def test_probes_have_no_context(client: TestClient) -> None:
    answer = client.get("/health")

    assert answer.json() is True
    assert "X-Request-ID" not in answer.headers
    assert is_operational("/metrics")
    assert is_operational("/health/ready")
    assert not is_operational("/healthy")
    assert not is_operational("/v1/health")


async def test_concurrent_jobs_do_not_see_each_other() -> None:
    async def job(name: str) -> str:
        with bind_context(RequestContext(name)) as bound:
            await asyncio.sleep(0)
            assert current_context() is bound
        return name

    await asyncio.gather(job("first-job"), job("second-job"))

    assert current_context() is None


def test_trace_ids_come_from_whoever_knows_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(context, "_trace_source", context._no_trace)
    assert current_trace_ids() == ("", "")

    use_trace_source(lambda: ("t", "s"))

    assert current_trace_ids() == ("t", "s")
