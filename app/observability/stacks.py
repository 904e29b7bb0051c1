"""What the process is doing right now: where its tasks and threads stand, and how late its event loop is.

Must never show the value of a variable: names, file:line and functions only.
"""

import asyncio
import sys
import threading
import time
from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary

from pydantic import BaseModel

from app.observability.redaction import redact_text

_known_since: WeakKeyDictionary[asyncio.Task[Any], float] = WeakKeyDictionary()


class ThreadReport(BaseModel):
    """One thread and where it stands: file:line and function, the innermost last."""

    name: str
    stack: list[str]


class TaskReport(ThreadReport):
    """One asyncio task; `known_for_seconds` counts from the first answer that could have shown it."""

    coroutine: str
    known_for_seconds: float


class TasksReport(BaseModel):
    """What the process is doing right now."""

    loop_lag_seconds_mean: float
    loop_lag_seconds_max: float
    tasks_total: int
    tasks: list[TaskReport]
    threads_total: int
    threads: list[ThreadReport]


async def measure_loop_lag(rounds: int = 10, pause: float = 0.01) -> tuple[float, float]:
    """Return by how much a timer fires late, in seconds: on average and at worst."""
    loop = asyncio.get_running_loop()
    late = []
    for _ in range(rounds):
        due = loop.time() + pause
        await asyncio.sleep(pause)
        late.append(max(0.0, loop.time() - due))
    return round(sum(late) / rounds, 6), round(max(late), 6)


def _place(frame: FrameType) -> str:
    return f"{frame.f_code.co_filename}:{frame.f_lineno} {frame.f_code.co_qualname}"


def _awaits(awaitable: Any, depth: int) -> list[str]:
    """Return the `depth` innermost frames of a coroutine that waits, by following what it awaits."""
    places = []
    while (frame := _first(awaitable, "cr_frame", "gi_frame", "ag_frame")) is not None:
        places.append(_place(frame))
        awaitable = _first(awaitable, "cr_await", "gi_yieldfrom", "ag_await")
    return places[-depth:]


def _first(thing: Any, *names: str) -> Any:
    return next((getattr(thing, name) for name in names if hasattr(thing, name)), None)


def _calls(frame: FrameType | None, depth: int) -> list[str]:
    """Return the `depth` innermost frames of a thread."""
    places: list[str] = []
    while frame is not None and len(places) < depth:
        places.append(_place(frame))
        frame = frame.f_back
    return places[::-1]


def describe_stacks(lag: tuple[float, float], limit: int, depth: int) -> TasksReport:
    """Say where tasks and threads stand, the longest known first; not the task that asks."""
    now = time.monotonic()
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    oldest = sorted(tasks, key=lambda task: (_known_since.setdefault(task, now), task.get_name()))
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    threads = sys._current_frames()
    return TasksReport(
        loop_lag_seconds_mean=lag[0],
        loop_lag_seconds_max=lag[1],
        tasks_total=len(tasks),
        tasks=[
            TaskReport(
                name=redact_text(task.get_name())[:200],
                # Its qualified name alone: a coroutine's repr could tell more.
                coroutine=getattr(task.get_coro(), "__qualname__", "unknown"),
                known_for_seconds=round(now - _known_since[task], 3),
                stack=_awaits(task.get_coro(), depth),
            )
            for task in oldest[:limit]
        ],
        threads_total=len(threads),
        threads=[
            ThreadReport(
                name=redact_text(names.get(ident, "unknown"))[:200], stack=_calls(frame, depth)
            )
            for ident, frame in sorted(threads.items())[:limit]
        ],
    )
