"""Uses every route of the real service a bit, to see how many series it then has.

A series begins when its labels first occur, so a service that was just started has few. What makes them
is variety: routes, statuses, tables, outcomes. More of the same adds none.
"""

import asyncio
import secrets
import urllib.request
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from bench.family import Family, stopping
from bench.stage import Stage
from tests.provider import start_provider
from tests.tools import free_port

_PASSWORD = "correct horse battery"  # noqa: S105 - of customers who live for minutes
_ROUNDS = 2
_FAMILIES = 6
_WORKER_SECONDS = 6.0
"""The worker samples every 5."""


@dataclass(frozen=True, slots=True)
class Page:
    """The series of one page of metrics."""

    name: str
    at_start: int
    under_load: int
    largest: tuple[tuple[str, int], ...]
    """The metrics with most series."""


async def series_of_the_service(stage: Stage, workers: Sequence[int]) -> list[Page]:
    """Start the service as people do, with each number of processes, and a worker beside the last."""
    pages: list[Page] = []
    with ExitStack() as stack:
        directory = Path(stage.directory, f"provider-{secrets.token_hex(4)}")
        provider = stack.enter_context(start_provider(directory))
        settings = stage.environment("glasshouse") | {"PAYMENT_PROVIDER_URL": provider.url}
        port = free_port()
        environment = settings | {"WORKER_METRICS_PORT": str(port)}
        worker = Family("worker", port, environment, ("app", "worker"))
        stack.enter_context(stopping(worker))
        at_start = families(port)
        pages += [await _api(settings, processes) for processes in workers]
        await asyncio.sleep(_WORKER_SECONDS)
        pages.append(_page("the worker", at_start, families(port)))
    return pages


async def _api(settings: dict[str, str], processes: int) -> Page:
    port = free_port()
    environment = settings | {"PORT": str(port), "WEB_CONCURRENCY": str(processes)}
    with stopping(Family("api", port, environment, ("app", "serve"))):
        at_start = families(port)
        for _ in range(_ROUNDS):
            await asyncio.to_thread(use_every_route, f"http://127.0.0.1:{port}")
        name = "the API" if processes == 1 else f"the API, one page of {processes} processes"
        return _page(name, at_start, families(port))


def families(port: int) -> Counter[str]:
    """Return how many series each metric has on a page, in the text format."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        return count_families(page.read().decode())


def count_families(page: str) -> Counter[str]:
    """Return the number of samples of each metric of a page, by the name in its TYPE line."""
    found: Counter[str] = Counter()
    name = ""
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            name = line.split()[2]
        elif line and not line.startswith("#"):
            found[name] += 1
    return found


def _page(name: str, at_start: Counter[str], under_load: Counter[str]) -> Page:
    largest = tuple(under_load.most_common(_FAMILIES))
    return Page(name, at_start.total(), under_load.total(), largest)


def use_every_route(url: str) -> None:
    """Register, order, pay, refund, cancel, export, leave; and make the usual mistakes."""
    with httpx2.Client(base_url=url, timeout=30) as http:
        email = f"{secrets.token_hex(8)}@example.com"
        person = {"email": email, "password": _PASSWORD, "name": "B"}
        http.post("/v1/users", json=person)
        http.post("/v1/users", json=person)  # 409
        http.post("/v1/users", json={"email": "nobody"})  # 422
        form = {"username": email, "password": _PASSWORD}
        http.post("/v1/auth/token", data=form | {"password": "wrong"})
        token = http.post("/v1/auth/token", data=form).json()["access_token"]
        http.get("/v1/users/me")  # 401
        http.headers["Authorization"] = f"Bearer {token}"
        for payment_token in ("tok_ok", "tok_declined", "tok_error"):
            _buy(http, payment_token)
        http.post(f"/v1/orders/{_order(http)}/cancel")
        for path in ("/v1/orders?limit=50", "/v1/users/me", "/v1/users/me/export", "/slo", "/"):
            http.get(path)
        for path in ("/nowhere", "/v1/orders/00000000-0000-4000-8000-000000000000", "/v1/orders/x"):
            http.get(path)
        http.post("/v1/orders", json={"currency": "EUR", "lines": []})
        for path in ("live", "ready", "startup"):
            http.get(f"/health/{path}")
        http.post("/v1/auth/logout")
        token = http.post("/v1/auth/token", data=form).json()["access_token"]
        http.headers["Authorization"] = f"Bearer {token}"
        http.delete("/v1/users/me")


def _order(http: httpx2.Client) -> str:
    lines = [{"sku": "TEA", "quantity": 1, "unit_amount": 1250}]
    answer: dict[str, Any] = http.post(
        "/v1/orders", json={"currency": "EUR", "lines": lines}
    ).json()
    return str(answer["id"])


def _buy(http: httpx2.Client, payment_token: str) -> None:
    order_id = _order(http)
    body = {"order_id": order_id, "payment_token": payment_token}
    answer = http.post("/v1/payments", json=body).json()
    http.get(f"/v1/orders/{order_id}")
    if "id" in answer:
        http.get(f"/v1/payments/{answer['id']}")
        http.post(f"/v1/payments/{answer['id']}/refund", json={"amount": 250})
