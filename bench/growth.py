"""What a request costs as something grows: concurrency, routes, lines of an order, rows in the tables.

The first three are measured on the bare application and on the service with 1 % of traces, in interleaved
bursts as in cpu.py: one server works while the others are frozen. What instrumentation adds must not
depend on how much there is. For the fourth see tables.py.
"""

import asyncio
import json
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Final

import httpx2

from bench.client import connected, request
from bench.columns import aligned
from bench.cpu import CONNECTIONS, DRAIN_SECONDS
from bench.estimates import estimate
from bench.family import stopping
from bench.process import ServerProcess
from bench.serve import EXTRA
from bench.stage import Customer, Stage, customer
from bench.tables import Tables, measure_tables
from tests.tools import free_port

CONCURRENCY: Final = (1, 8, 32, 128)
ROUTES: Final = (2, 50, 200)
LINES: Final = (1, 10, 100)
ORDERS: Final = (1_000, 10_000, 100_000, 1_000_000)
BARE: Final = "bare"
SERVICE: Final = "sampling_0.01"
_JSON: Final = {"Content-Type": "application/json"}
_SETTINGS: Final = {"OTEL_TRACES_SAMPLER_ARG": "0.01"}


@dataclass(frozen=True, slots=True)
class Point:
    """CPU of the server a request, in microseconds: medians of the rounds."""

    dimension: str
    """What grows."""
    operation: str
    value: int
    """How much of it there is."""
    bare_us: float
    service_us: float
    added_us: float
    """What the instrumentation costs: the median of the rounds' differences."""
    added_error_us: float
    """How far off that may be."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was seen."""

    points: tuple[Point, ...]
    tables: Tables


@dataclass(frozen=True, slots=True)
class _Task:
    """One burst to measure again and again."""

    dimension: str
    operation: str
    value: int
    connections: int
    status: int
    servers: dict[str, ServerProcess]
    """Bare and service."""
    make: Callable[[int], bytes]
    """The request for a port."""


async def measure(
    stage: Stage,
    progress: Callable[[str], None],
    *,
    rounds: int = 5,
    seconds: float = 0.25,
    concurrency: Sequence[int] = CONCURRENCY,
    routes: Sequence[int] = ROUTES,
    lines: Sequence[int] = LINES,
    most_orders: int = ORDERS[-1],
    table_seconds: float = 1.0,
) -> Result:
    """Measure all four, the tables last and up to `most_orders`."""
    sizes = [size for size in ORDERS if size <= most_orders]
    with ExitStack() as stack:
        servers: list[ServerProcess] = []

        def start(routes: int) -> dict[str, ServerProcess]:
            progress(f"starting with {routes} routes")
            pair = {}
            for name in (BARE, SERVICE):
                extra = {**_SETTINGS, EXTRA: json.dumps({"routes": routes})}
                server = ServerProcess(name, free_port(), stage.environment(name) | extra)
                pair[name] = stack.enter_context(stopping(server))
                servers.append(server)
            return pair

        few = start(min(routes))
        who = await asyncio.to_thread(customer, few[SERVICE].port)
        tasks = [
            *_concurrency(few, who, concurrency),
            *_lines(few, who, lines),
            *(
                _ping("routes", few if n == min(routes) else start(n), n, CONNECTIONS)
                for n in routes
            ),
        ]
        points = await _measure(tasks, servers, rounds, seconds, progress)
    return Result(
        tuple(points),
        await measure_tables(stage, progress, sizes=sizes, seconds=table_seconds),
    )


def _ping(dimension: str, pair: dict[str, ServerProcess], value: int, connections: int) -> _Task:
    ask = partial(_asked, "GET", "/bench/ping", "")
    return _Task(dimension, "ping", value, connections, 200, pair, ask)


def _concurrency(
    pair: dict[str, ServerProcess], who: Customer, values: Sequence[int]
) -> list[_Task]:
    read = partial(_asked, "GET", f"/bench/orders/{who.order_id}", "")
    return [
        task
        for value in values
        for task in (
            _ping("concurrency", pair, value, value),
            _Task("concurrency", "read", value, value, 200, pair, read),
        )
    ]


def _lines(pair: dict[str, ServerProcess], who: Customer, values: Sequence[int]) -> list[_Task]:
    tasks = []
    for value in values:
        body = order_of(value)
        with httpx2.Client(base_url=f"http://127.0.0.1:{pair[SERVICE].port}", timeout=30) as http:
            http.headers |= {"Authorization": f"Bearer {who.token}", **_JSON}
            order_id = http.post("/v1/orders", content=body).raise_for_status().json()["id"]
        read = partial(_asked, "GET", f"/v1/orders/{order_id}", who.token)
        create = partial(_asked, "POST", "/v1/orders", who.token, body=body)
        tasks.append(_Task("lines", "create", value, CONNECTIONS, 201, pair, create))
        tasks.append(_Task("lines", "read", value, CONNECTIONS, 200, pair, read))
    return tasks


def _asked(method: str, path: str, token: str, port: int, *, body: bytes = b"") -> bytes:
    return request(method, path, port, token=token, body=body)


def order_of(lines: int) -> bytes:
    """Return the body of an order with so many lines."""
    line = {"sku": "TEA-GREEN-100", "quantity": 2, "unit_amount": 799}
    return json.dumps({"currency": "EUR", "lines": [line] * lines}).encode()


async def _measure(
    tasks: Sequence[_Task],
    servers: Sequence[ServerProcess],
    rounds: int,
    seconds: float,
    progress: Callable[[str], None],
) -> list[Point]:
    costs: list[dict[str, list[float]]] = [{BARE: [], SERVICE: []} for _ in tasks]
    chance = random.Random(6)  # noqa: S311 - an order, not a secret
    for server in servers:
        server.freeze()
    for turn in range(rounds + 1):
        progress(f"round {turn} of {rounds}" if turn else "warming up")
        for task, found in zip(tasks, costs, strict=True):
            names = [BARE, SERVICE]
            chance.shuffle(names)
            for name in names:
                cost = await _burst(task.servers[name], task, seconds)
                if turn:
                    found[name].append(cost)
    for server in servers:
        server.thaw()
    return [
        point(task.dimension, task.operation, task.value, found[BARE], found[SERVICE])
        for task, found in zip(tasks, costs, strict=True)
    ]


def point(
    dimension: str, operation: str, value: int, bare: Sequence[float], service: Sequence[float]
) -> Point:
    """Return what the rounds say; a round's bursts come one after the other, and are compared."""
    added = estimate([(one - other) * 1e6 for one, other in zip(service, bare, strict=True)])
    return Point(
        dimension,
        operation,
        value,
        statistics.median(bare) * 1e6,
        statistics.median(service) * 1e6,
        added.value,
        added.error,
    )


async def _burst(server: ServerProcess, task: _Task, seconds: float) -> float:
    """Return CPU seconds a request."""
    asked = task.make(server.port)
    before = server.cpu_seconds()
    server.thaw()
    async with connected(server.port, task.connections) as client:
        durations = await client.burst(lambda: asked, task.status, seconds)
    time.sleep(DRAIN_SECONDS)  # noqa: ASYNC251 - nothing else is to run
    server.freeze()
    return (server.cpu_seconds() - before) / len(durations)


def show(result: Result) -> str:
    """Return tables for people."""
    rows = [["CPU us a request", "bare", "service", "ratio", "added", "+-"]]
    rows += [
        [
            f"{one.operation}, {one.dimension} {one.value}",
            f"{one.bare_us:.0f}",
            f"{one.service_us:.0f}",
            f"{one.service_us / one.bare_us:.2f}",
            f"{one.added_us:+.0f}",
            f"{one.added_error_us:.0f}",
        ]
        for one in result.points
    ]
    parts = [aligned(rows)]
    if result.tables.requests:
        asked = [["orders in the tables", "orders", "p50 ms", "CPU us"]]
        asked += [
            [one.operation, str(one.orders), f"{one.p50_ms:.2f}", f"{one.cpu_us:.0f}"]
            for one in result.tables.requests
        ]
        parts.append(aligned(asked))
        parts.append("\n".join(_plans(result.tables)))
    return "\n\n".join(parts)


def _plans(tables: Tables) -> list[str]:
    lines = ["Plans, with the fewest and the most orders"]
    for one in sorted(tables.statements, key=lambda found: not found.grows):
        word = "GROWS" if one.grows else "flat"
        lines.append(f"{word:5}  {one.work}: {' '.join(one.statement.split())[:90]}")
        for size, plan in (one.plans[0], one.plans[-1]):
            lines.append(f"         {size:>8} orders: {plan.summary}")
    return lines


def as_json(result: Result) -> dict[str, object]:
    """Return the same for machines, the plans as PostgreSQL has written them."""
    points = [asdict(one) for one in result.points]
    statements: list[dict[str, Any]] = [
        {
            "work": one.work,
            "statement": one.statement,
            "exponent": one.exponent,
            "grows": one.grows,
            "plans": [
                {
                    "orders": size,
                    "summary": plan.summary,
                    "buffers": plan.buffers,
                    "plan": plan.text,
                }
                for size, plan in one.plans
            ],
        }
        for one in result.tables.statements
    ]
    requests = [asdict(one) for one in result.tables.requests]
    return {"points": points, "tables": {"requests": requests, "statements": statements}}
