"""Counts the calls of Python and C functions that one coroutine makes, exactly and by who makes them.

The profiler is on while the coroutine itself, or a task that it has started, runs in this thread, and off
while the event loop does its own work: how often the loop wakes up depends on the machine, what a request
executes does not. Code in greenlets (SQLAlchemy's) counts; what other threads do meanwhile does not.
"""

import asyncio
import gc
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final, cast

_ROOT: Final = Path(__file__).resolve().parents[2]
_COUNTED: Final = {"call", "c_call"}
_WAKING: Final = {"Condition.notify", "Condition.notify_all"}
"""Left out: how much there is to do depends on whether the other thread waits at that moment."""

Calls = Counter[str]
"""Number of calls by "module:function"; a C function stands with who called it, "module:function > name"."""

_Raw = Counter[tuple[CodeType, str]]
_Run = frozenset[tuple[str, int]]

_counting: ContextVar[_Raw | None] = ContextVar("counting", default=None)


class _Counted(Awaitable[Any]):
    """A coroutine that is counted for as long as it runs, and not while it waits."""

    def __init__(self, inner: Coroutine[Any, Any, Any], raw: _Raw) -> None:
        self._inner = inner
        self._raw = raw

    def __await__(self) -> Generator[Any, Any, Any]:
        send: Callable[[Any], Any] = self._inner.send
        sent: Any = None
        while True:
            sys.setprofile(self._notice)
            try:
                waits_for = send(sent)
            except StopIteration as end:
                return end.value
            finally:
                sys.setprofile(None)
            try:
                sent = yield waits_for
                send = self._inner.send
            except BaseException as error:  # noqa: BLE001 - cancelled, or whatever was awaited failed
                sent, send = error, self._inner.throw

    def _notice(self, frame: FrameType, event: str, argument: object) -> None:
        if event in _COUNTED:
            name = argument.__qualname__ if event == "c_call" else ""  # type: ignore[attr-defined]
            self._raw[frame.f_code, name] += 1


async def _run(counted: _Counted) -> Any:
    return await counted


def _factory(
    loop: asyncio.AbstractEventLoop,
    started: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
    **options: Any,
) -> asyncio.Task[Any]:
    raw = _counting.get()
    coroutine = cast("Coroutine[Any, Any, Any]", started)  # only those of Python 3.4 are generators
    if raw is not None:
        coroutine = _run(_Counted(coroutine, raw))
    return asyncio.Task(coroutine, loop=loop, **options)


async def count_calls(
    make: Callable[[], Coroutine[Any, Any, Any]], times: int, *, prepare: Callable[[], None]
) -> Calls:
    """Run `make()` so often, each time after another run and `prepare()`; return the calls of most runs.

    One run in many differs, because a second has begun, for which a timestamp is remembered, or because
    another thread was faster. Where all differ, the one with the fewest calls counts.
    """
    loop = asyncio.get_running_loop()
    before = loop.get_task_factory()
    seen: Counter[_Run] = Counter()
    loop.set_task_factory(_factory)
    try:
        for _ in range(times):
            raw: _Raw = Counter()
            await make()
            prepare()
            gc.collect()
            gc.disable()  # a finaliser that runs in between is not the request's
            token = _counting.set(raw)
            try:
                await _Counted(make(), raw)
            finally:
                _counting.reset(token)
                gc.enable()
            seen[frozenset(_named(raw).items())] += 1
    finally:
        loop.set_task_factory(before)
    return Counter(dict(min(seen, key=partial(_order, seen))))


def _order(seen: Counter[_Run], run: _Run) -> tuple[int, int]:
    return -seen[run], sum(number for _, number in run)


def _named(raw: _Raw) -> Calls:
    calls: Calls = Counter()
    for (code, called), number in raw.items():
        who = f"{module_of(code.co_filename)}:{code.co_qualname}"
        if code is not _Counted.__await__.__code__ and code.co_qualname not in _WAKING:
            calls[f"{who} > {called}" if called else who] += number
    return calls


@cache
def module_of(filename: str) -> str:
    """Return the module whose code lies in this file, as far as it can be told from the path."""
    path = Path(filename)
    if path.is_relative_to(_ROOT) and "site-packages" not in path.parts:
        parts = path.relative_to(_ROOT).parts
    elif "site-packages" in path.parts:
        parts = path.parts[path.parts.index("site-packages") + 1 :]
    elif filename.startswith("<"):
        return "generated"
    else:
        parts = ("stdlib", path.name)
    return ".".join(parts).removesuffix(".py").removesuffix(".__init__")
