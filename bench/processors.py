"""Which processor serves, and which ask: where there are several, the servers have one for themselves.

Left alone, the system wakes the client where the server is that has just answered it, and takes the
processor from the server nearly twice in each request: the latency of all variants is greater for it, and
that of some by more than of others. (Where two processors are threads of one core, the other one of it is
not kept free; nor is a database kept away that was there before.)
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def one_kept_free() -> Iterator[int | None]:
    """Yield a processor that nothing uses which is started meanwhile; None where there is only one."""
    before = _allowed()
    if len(before) < 2:  # noqa: PLR2004 - one to serve and one to ask
        yield None
        return
    kept = max(before)
    try:
        yield kept if _allow(os.getpid(), before - {kept}) else None
    finally:
        _allow(os.getpid(), before)


def keep_to(processor: int, pid: int) -> None:
    """Have a process use `processor` only, with all threads that it has and will have.

    Where that is refused, or it has ended, nothing happens.
    """
    _allow(pid, {processor})


def _allowed() -> set[int]:
    return os.sched_getaffinity(0) if sys.platform == "linux" else set()


def _allow(pid: int, processors: set[int]) -> bool:
    """Return whether it was done."""
    threads, moved = Path(f"/proc/{pid}/task"), set[Path]()
    try:
        while new := set(threads.iterdir()) - moved:  # a thread may have begun meanwhile
            for thread in new:
                with suppress(ProcessLookupError):  # or have ended
                    os.sched_setaffinity(int(thread.name), processors)
            moved |= new
    except OSError:
        return False
    return True
