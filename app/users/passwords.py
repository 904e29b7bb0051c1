"""Password hashing: Argon2id, in a thread, and never more at once than the machine has cores.

One hash takes some 0.1 to 0.4 s of CPU and 64 MiB by intention. On the event loop it would stop every
request; in unbounded threads a burst of log-ins would take all CPU and memory.
"""

import os
from functools import cache

from anyio import CapacityLimiter, to_thread
from pwdlib import PasswordHash

_hasher = PasswordHash.recommended()


@cache
def _limiter() -> CapacityLimiter:
    return CapacityLimiter(os.cpu_count() or 1)


@cache
def _hash_of_nothing() -> str:
    return _hasher.hash("no account has this password")


async def hash_password(password: str) -> str:
    """Return the Argon2id hash in PHC string format."""
    return await to_thread.run_sync(_hasher.hash, password, limiter=_limiter())


async def verify_password(password: str, password_hash: str | None) -> bool:
    """Return whether `password` has this hash. Without one it takes as long, and is False.

    An unknown address must not be told from a wrong password by the time that the answer takes.
    """

    def verify() -> bool:
        return _hasher.verify(password, password_hash or _hash_of_nothing()) and bool(password_hash)

    return await to_thread.run_sync(verify, limiter=_limiter())
