"""Gives HTTP clients of the tests a minute instead of the library's five seconds: a machine may be busy.

Whoever tests a timeout says which one; the service's own clients do as well.
"""

from typing import Final

from httpx2._config import DEFAULT_TIMEOUT_CONFIG

_SECONDS: Final = 60.0

for _part in ("connect", "read", "write", "pool"):
    setattr(DEFAULT_TIMEOUT_CONFIG, _part, _SECONDS)
