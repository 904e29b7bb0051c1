"""Counts in a process of its own, which no coverage, no debugger and no other test shares.

    python -m tests.cost.probe bare|service RATIO OUTPUT [--only ping] [--defect NAME]

Writes JSON for measure.py, which starts it. Requests go to the application without a server and before its
lifespan begins, so that nothing else runs on the loop; the lifespan comes last, for what runs at rest.
"""

import argparse
import asyncio
import gc
import json
import re
import sys
import tempfile
import threading
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from fastapi import FastAPI
from prometheus_client import REGISTRY
from sqlalchemy import event

from app.observability import settling, tracing
from app.observability.logs import flush_logs
from tests.cost.applications import (
    add_routes,
    be_quick_and_steady,
    make_bare,
    make_service,
    settings_for,
    spoil,
)
from tests.cost.asked import PING, Ask, Reply, Requests
from tests.cost.calls import count_calls
from tests.cost.collector import SECONDS, Collector
from tests.cost.memory import blocks_left
from tests.service import migrate_database

WARM_UP: Final = 3
TIMES: Final = 7
TOGETHER: Final = 10
"""Requests in a row whose calls are counted as one: what is put off is done for several of them."""
WINDOWS: Final = {"ping": 1_000, "read_order": 200}
"""Requests in each window in which memory is watched."""
_CONTROL: Final = ("BEGIN", "COMMIT", "ROLLBACK", "SAVEPOINT", "RELEASE")
_NUMBER: Final = re.compile(r"[-_]\d+")
_STARTS: Final = re.compile("health-check|record-configuration")
"""Tasks of the start, which end."""
_LEFT_OUT: Final = ("MainThread", "Collector", "process_request_thread", "AnyIO worker thread")
"""The main one, the collector's, and those that end when they have been idle for a while."""


class Probe:
    """One application, and what it does for each request."""

    def __init__(self, app: FastAPI, log: Path, *, only: str = "") -> None:
        self.app = app
        self.requests = Requests({only: PING} if only else {})
        self._log = log
        self._only = only
        self.traces: set[str] = set()
        """Of all requests that were answered with one."""
        self._statements: list[str] = []
        event.listen(app.state.database.engine.sync_engine, "connect", self._listen_to_sqlite)

    def _listen_to_sqlite(self, connection: Any, _: object) -> None:
        # SQLite's own word: the COMMIT of the driver passes no event of SQLAlchemy.
        connection.run_async(lambda raw: raw.set_trace_callback(self._statements.append))

    async def ask(self, ask: Ask) -> Reply:
        """Put one request to the application."""
        answer = await ask(self.app)
        self.traces.add(_trace(answer))
        return answer

    async def prepare(self) -> None:
        """Make what is asked for, and ask for it, until everything that is remembered is."""
        if not self._only:
            await self.requests.prepare(self.ask)
        for ask in self.requests.named.values():
            for _ in range(WARM_UP):
                await self.ask(ask)
        gc.collect()
        gc.freeze()  # what lives until the end need not be looked at each time

    async def count(self) -> dict[str, Any]:
        """Return what one request leaves: statements, lines, series, and the id of its trace."""
        counted = {}
        for name, ask in self.requests.named.items():
            self._settle()
            begin, series = self._log.stat().st_size, _series()
            self._statements.clear()
            answer = await self.ask(ask)
            statements = _sorted(map(_kind, self._statements))
            self._settle()
            counted[name] = {
                "trace": _trace(answer),
                "statements": statements,
                "lines": _sorted(line["type"] for line in self._lines(begin)),
                "series": dict(_series() - series),
            }
        return counted

    async def new_route(self) -> dict[str, dict[str, int]]:
        """Return the series that the first request to a route adds, and the second."""
        before = _series()
        await self.ask(Ask("GET", "/new/1"))
        first = _series()
        await self.ask(Ask("GET", "/new/2"))
        return {"first": dict(first - before), "further": dict(_series() - first)}

    async def calls(self, *names: str) -> dict[str, dict[str, int]]:
        """Return the calls that TOGETHER requests of each kind make."""
        found = {}
        for name in names or self.requests.named:
            ask = self.requests.named[name]
            for _ in range(WARM_UP):
                await self.ask(ask)
            calls = await count_calls(partial(self._settled, ask), TIMES, prepare=self._settle)
            found[name] = dict(calls)
        return found

    async def _settled(self, ask: Ask) -> None:
        """Ask TOGETHER times, and then do what is put off: it is the requests', whenever it is done."""
        for _ in range(TOGETHER):
            await self.ask(ask)
        settling.settle()

    async def growth(self, sent: Callable[[], Awaitable[None]], *, sampled: bool) -> dict[str, int]:
        """Return the blocks of memory that each request leaves behind.

        Sampled requests have one id: the redaction remembers harmless texts, up to a bound, and an id in
        a span is such.
        """

        async def settle() -> None:
            self._settle()
            await sent()
            self._statements.clear()

        headers = ((b"x-request-id", b"the-same-each-time"),) if sampled else ()
        found = {}
        for name in WINDOWS.keys() & self.requests.named.keys():
            ask = self.requests.named[name]
            ask = replace(ask, headers=(*ask.headers, *headers))
            run = partial(ask, self.app)
            found[name] = await blocks_left(run, WINDOWS[name], settle=settle)
        return found

    async def at_rest(self) -> dict[str, list[str]]:
        """Return threads and tasks, by name, of the process that has started and serves nobody."""
        async with self.app.router.lifespan_context(self.app):
            tasks = [""]
            while any(map(_STARTS.match, tasks)) or "health-refresh" not in tasks:
                await asyncio.sleep(0.02)
                me = asyncio.current_task()
                tasks = [task.get_name() for task in asyncio.all_tasks() if task is not me]
            threads = {_NUMBER.sub("", one.name) for one in threading.enumerate()}
        theirs = [name for name in threads if not any(other in name for other in _LEFT_OUT)]
        return {"tasks": sorted(tasks), "threads": sorted(theirs)}

    def _settle(self) -> None:
        if not flush_logs(SECONDS):
            raise RuntimeError("the log is not written")
        if tracing._active is not None:
            tracing._active.flush(SECONDS)

    def _lines(self, begin: int) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.read_bytes()[begin:].splitlines()]


def _sorted(names: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(names).items()))


def _trace(answer: Reply) -> str:
    return answer.headers.get(b"x-trace-id", b"").decode()


def _kind(statement: str) -> str:
    return "control" if statement.startswith(_CONTROL) else "query"


def _series() -> Counter[str]:
    return Counter(
        {metric.name: len(metric.samples) for metric in REGISTRY.collect() if metric.samples}
    )


async def _measure(given: argparse.Namespace, directory: Path) -> dict[str, Any]:
    collector = Collector()
    with collector.running():
        settings = settings_for(directory, collector=collector.url, ratio=given.ratio)
        be_quick_and_steady()
        migrate_database(settings.database_url)
        log = directory / "log"
        sys.stdout = log.open("w", encoding="utf-8")
        is_service = given.application == "service"
        app = (make_service if is_service else make_bare)(settings)
        if given.defect:
            spoil(app, given.defect)
        probe = Probe(app, log, only=given.only)
        await probe.prepare()

        async def ping() -> str:
            return _trace(await probe.ask(PING))

        async def sent() -> None:
            if is_service and given.ratio:
                await collector.has_all(ping)

        found: dict[str, Any] = {"counts": await probe.count()}
        await sent()
        found["calls"] = await probe.calls()
        if is_service:
            found["new_route"] = await probe.new_route()
            collector.keeps = False
            found["growth"] = await probe.growth(sent, sampled=bool(given.ratio))
        if not given.only:
            add_routes(app)
            found["calls_with_more_routes"] = await probe.calls("ping", "unmatched", "read_order")
        if is_service:
            collector.keeps = True
            found["at_rest"] = await probe.at_rest()
        else:
            await app.state.database.dispose()
    for counted in found["counts"].values():
        ours = (span for span in collector.kept if span.trace_id == counted["trace"])
        counted["spans"] = _sorted(span.kind for span in ours)
    # Of probes, which are answered without a trace, of the start, or of what runs at rest
    others = (span for span in collector.kept if span.trace_id not in probe.traces)
    found["spans_of_no_request"] = _sorted(span.name for span in others)
    return found


def main() -> None:
    """Count, and write it down."""
    parser = argparse.ArgumentParser()
    parser.add_argument("application", choices=["bare", "service"])
    parser.add_argument("ratio", type=float)
    parser.add_argument("output", type=Path)
    parser.add_argument("--only", choices=["", "ping"], default="")
    parser.add_argument("--defect", default="")
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as directory:
            found = asyncio.run(_measure(given, Path(directory)))
    except Exception:  # noqa: BLE001 - the service's own hook would tell its log, which is gone
        traceback.print_exc(file=sys.stderr)
        sys.exit(1)
    given.output.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
