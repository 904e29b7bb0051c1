"""How many blocks of memory a request leaves behind, which is none or a leak.

One block is the smallest thing to leak, and an idle process differs by some dozens from one moment to the
next: over hundreds of requests that is less than half a block for each. A buffer that fills up does so
once, so the best of a few windows counts; what leaks does so in each.
"""

import asyncio
import gc
import sys
from collections.abc import Awaitable, Callable
from typing import Final

ATTEMPTS: Final = 4
_STILL: Final = 5


async def blocks_left(
    run: Callable[[], Awaitable[object]], times: int, *, settle: Callable[[], Awaitable[None]]
) -> int:
    """Return the blocks that each `run()` leaves behind, to the nearest whole one.

    `settle` waits for what other threads still have to do, and forgets what the test has kept.
    """
    before = await _blocks_after(run, times // 4, settle)
    least = sys.maxsize
    for _ in range(ATTEMPTS):
        now = await _blocks_after(run, times, settle)
        least = min(least, abs(round((now - before) / times)))
        if not least:
            break
        before = now
    return least


async def _blocks_after(
    run: Callable[[], Awaitable[object]], times: int, settle: Callable[[], Awaitable[None]]
) -> int:
    for _ in range(times):
        await run()
    await settle()
    blocks, before = 0, -_STILL
    for _ in range(20):  # until the exporter has let go of what it has sent
        gc.collect()
        blocks, before = sys.getallocatedblocks(), blocks
        if abs(blocks - before) < _STILL:
            break
        await asyncio.sleep(0.02)
    return blocks
