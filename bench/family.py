"""A program under measurement together with the processes that it starts: all of them are its cost."""

import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

import psutil  # type: ignore[import-untyped]
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from bench.process import ServerProcess

_CPUCLOCK_SCHED = 2


class Family(ServerProcess):
    """A server whose workers are processes of their own."""

    def cpu_seconds(self) -> float:
        """Return the CPU time of the process and of those below it that are alive."""
        return cpu_seconds([self._accounts, *self._accounts.children(recursive=True)])

    def resident_bytes(self) -> int:
        """Return their memory; pages that they share count in each."""
        total = super().resident_bytes()
        for child in self._accounts.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                total += child.memory_info().rss
        return total


@contextmanager
def stopping(server: ServerProcess) -> Iterator[ServerProcess]:
    """End a server with the block, however that ends."""
    try:
        yield server
    finally:
        server.stop()


def cpu_seconds(processes: Iterable[psutil.Process]) -> float:
    """Return the CPU time that these have used; who has ended meanwhile counts for nothing."""
    total = 0.0
    for process in processes:
        with suppress(psutil.NoSuchProcess, OSError):
            if sys.platform == "linux":
                # As in process.py: to the nanosecond, of all threads.
                total += time.clock_gettime((~process.pid << 3) | _CPUCLOCK_SCHED)
            else:
                used = process.cpu_times()
                total += used.user + used.system
    return total


async def postgres_processes(database_url: str) -> list[psutil.Process]:
    """Return the server's processes if it is PostgreSQL on this machine and its processes can be seen."""
    if not database_url.startswith("postgresql"):
        return []
    if make_url(database_url).host not in {"127.0.0.1", "localhost", "::1"}:
        return []
    engine = create_async_engine(database_url, poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            pid = await connection.scalar(text("SELECT pg_backend_pid()"))
            with suppress(psutil.Error):
                backend = psutil.Process(pid)
                parent = backend.parent()
                if parent is not None and "postgres" in backend.name():
                    return [parent, *parent.children(recursive=True)]
    finally:
        await engine.dispose()
    return []
