"""Look inside the running process: where its time goes, what its memory holds, what it waits for.

Owns `/debug/profile`, `/debug/memory`, `/debug/tasks` and the log line of type `operations` (one for each
use). Nothing is installed before somebody asks. Each answer speaks for the one process that gave it:
where several serve one port, the next question may reach another.

Must never show the value of a variable, only names, file:line and sizes; never serve a stranger; never
work for two at once, nor on for somebody who has gone.
"""

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Final, Literal, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response
from loguru import logger
from pyinstrument import Profiler
from pyinstrument.frame_info import IDENTIFIER_SEP, frame_info_get_identifier
from pyinstrument.renderers import ConsoleRenderer, HTMLRenderer
from pyinstrument.session import Session
from pyinstrument.stack_sampler import get_stack_sampler

from app.observability.allocations import AllocationTracing, MemoryReport, resident_bytes
from app.observability.operations import OPERATIONS_PROBLEMS, OperationsSettings, operators_only
from app.observability.stacks import TasksReport, describe_stacks, measure_loop_lag

T = TypeVar("T")

MAX_SAMPLES: Final = 5_000
"""Of one profile; as HTML they are 10 MB, and take one second of CPU to write."""
LOOK_SECONDS: Final = 0.2
"""How often a profile looks whether it is still wanted."""

_BUSY: dict[int | str, dict[str, Any]] = {
    409: {
        "description": "Another one is at work; Retry-After says for how long.",
        "content": {"application/problem+json": {"schema": {"type": "object"}}},
    }
}


class _Turn:
    """One at a time: whoever comes meanwhile is told when to come back."""

    def __init__(self) -> None:
        self._holders = 0
        self._until = 0.0

    @contextmanager
    def take(self, seconds: float) -> Iterator[None]:
        """Hold the turn for the block, which expects to need `seconds`."""
        if self._holders:
            wait = max(1, math.ceil(self._until - time.monotonic()))
            raise HTTPException(409, "Another one is at work.", {"Retry-After": str(wait)})
        self._until = time.monotonic() + seconds
        self._holders += 1
        try:
            yield
        finally:
            self._holders -= 1

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run `work` beside the loop. A thread cannot be cancelled: it holds the turn to its end."""
        job = asyncio.ensure_future(asyncio.to_thread(work))
        self._holders += 1
        job.add_done_callback(self._let_go)
        return await asyncio.shield(job)

    def _let_go(self, _: "asyncio.Future[T]") -> None:
        self._holders -= 1


async def _sample(seconds: int, is_wanted: Callable[[], Awaitable[bool]]) -> Session:
    """Profile the thread of the event loop: with all requests and jobs that it serves meanwhile."""
    # "disabled" stands for pyinstrument's following of one task alone through its awaits.
    interval = max(0.001, seconds / MAX_SAMPLES)
    profiler = Profiler(interval=interval, async_mode="disabled")
    # pyinstrument prints its opinion of slow clocks; standard error belongs to the log.
    get_stack_sampler().has_warned_about_timing_overhead = True
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    profiler.start(target_description=f"event loop, {seconds} s")
    try:
        while await is_wanted() and (left := end - loop.time()) > 0:  # noqa: ASYNC110 - must ask
            await asyncio.sleep(min(LOOK_SECONDS, left))
    finally:
        session = profiler.stop()
    return session


def _speedscope(session: Session) -> str:
    """Return the samples in the format of speedscope.app, of its type "sampled".

    pyinstrument's own renderer drops what is shorter than 1 % of the whole, before it adds up: in
    an event loop that is nearly everything.
    """
    frames: dict[str, int] = {}
    samples = [
        [frames.setdefault(frame_info_get_identifier(frame), len(frames)) for frame in stack]
        for stack, _ in session.frame_records
    ]
    profile = {
        "type": "sampled",
        "name": session.target_description,
        "unit": "seconds",
        "startValue": 0,
        "endValue": sum(seconds for _, seconds in session.frame_records),
        "samples": samples,
        "weights": [seconds for _, seconds in session.frame_records],
    }
    places = (frame.split(IDENTIFIER_SEP) for frame in frames)
    named = [{"name": name, "file": file, "line": int(line)} for name, file, line in places]
    schema = "https://www.speedscope.app/file-format-schema.json"
    return json.dumps({"$schema": schema, "shared": {"frames": named}, "profiles": [profile]})


_FORMATS: Final[dict[str, tuple[Callable[[Session], str], str, str]]] = {
    "html": (lambda session: HTMLRenderer().render(session), "text/html", "html"),
    "speedscope": (_speedscope, "application/json", "speedscope.json"),
    "text": (
        lambda session: ConsoleRenderer(unicode=True).render(session),
        "text/plain",
        "txt",
    ),
}


_BEGUN: Final = "Tracing has begun, and is expensive. Ask again to see what was allocated since."


def _never_store(response: Response) -> None:
    response.headers["Cache-Control"] = "no-store"


def install_profiling_routes(
    app: FastAPI,
    settings: OperationsSettings,
    *,
    on_denied: Callable[[], object] = lambda: None,
    on_use: Callable[..., Awaitable[None]] | None = None,
    is_ending: Callable[[], bool] = lambda: False,
) -> None:
    """Serve `/debug/profile`, `/debug/memory` and `/debug/tasks` to whoever has the operations token.

    Args:
        app: What to add the routes to.
        settings: The token; without one the routes answer 404.
        on_denied: Called when somebody comes without the token: it is worth a count.
        on_use: Awaited as `on_use(action="debug.profile", details={"seconds": 10, ...})` before the
            work, for an audit log. When it raises, the work is not done.
        is_ending: Whether the process is about to end: a profile then ends early.
    """
    router = APIRouter(
        prefix="/debug",
        tags=["operations"],
        dependencies=[operators_only(settings, on_denied=on_denied), Depends(_never_store)],
        responses=OPERATIONS_PROBLEMS,
    )
    turn, tracing = _Turn(), AllocationTracing()

    async def note_use(action: str, **details: str | int | bool) -> None:
        if on_use is not None:
            await on_use(action=action, details=details)
        logger.bind(type="operations", action=action, **details).info("An operator looks inside")

    @router.get(
        "/profile",
        response_class=Response,
        responses={**_BUSY, 200: {"content": {kind: {} for _, kind, _ in _FORMATS.values()}}},
        summary="CPU profile of the event loop",
    )
    async def get_profile(
        request: Request,
        seconds: Annotated[int, Query(ge=1, le=60)] = 10,
        format: Annotated[Literal["html", "speedscope", "text"], Query()] = "html",  # noqa: A002
    ) -> Response:
        """Sample for `seconds` what the event loop does, for all requests and jobs together.

        Other threads are not seen: neither `def` handlers and dependencies nor `to_thread`; while
        they work, the loop looks idle. `/debug/tasks` shows where they stand. Meanwhile requests
        need 2 to 3 times as much CPU (measured), whatever the number of samples.
        """

        async def is_wanted() -> bool:
            return not is_ending() and not await request.is_disconnected()

        render, kind, suffix = _FORMATS[format]
        with turn.take(seconds):
            await note_use("debug.profile", seconds=seconds, format=format)
            session = await _sample(seconds, is_wanted)
            if await request.is_disconnected():
                return Response()  # nobody is there to read it
            profile = await turn.in_thread(lambda: render(session))
        headers = {
            "Content-Disposition": f'attachment; filename="profile.{suffix}"',
            "Cache-Control": "no-store",
        }
        return Response(profile, media_type=kind, headers=headers)

    @router.get("/memory", responses=_BUSY, summary="Allocations by place, and their growth")
    async def get_memory(
        top: Annotated[int, Query(ge=1, le=100)] = 25,
        depth: Annotated[int, Query(ge=1, le=10)] = 1,
        stop: bool = False,
    ) -> MemoryReport:
        """Start tracing with the first call; then list where memory was allocated since.

        Tracing is expensive until `stop=true`, or 15 minutes after the last question. Measured on a
        small JSON request, its CPU time became 5 times as long with `depth` 1 and 30 times as long
        with 10. An answer over a million blocks stops the process for 0.4 s, and then computes for
        4 s to 10 s beside it. `depth` counts from the start of tracing.
        """
        with turn.take(10):
            await note_use("debug.memory", top=top, depth=depth, stop=stop)
            if stop:
                tracing.stop()
                return MemoryReport(
                    note="Tracing is off.", tracing=False, rss_bytes=resident_bytes()
                )
            if not tracing.keep_on(depth):
                return MemoryReport(note=_BEGUN, tracing=True, rss_bytes=resident_bytes())
            return await turn.in_thread(lambda: tracing.report(top))

    @router.get("/tasks", summary="Tasks, threads and the lag of the event loop")
    async def get_tasks(
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        depth: Annotated[int, Query(ge=1, le=50)] = 20,
    ) -> TasksReport:
        """Show where tasks and threads stand, and how late the event loop is right now."""
        await note_use("debug.tasks", limit=limit, depth=depth)
        return describe_stacks(await measure_loop_lag(), limit, depth)

    app.include_router(router)
