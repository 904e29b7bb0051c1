"""Keeps CPython 3.11 from hanging under coverage: import this before any thread is started.

Coverage (`concurrency = greenlet`) keeps a WeakKeyDictionary of greenlets for each thread. When a thread
has ended, greenlet has its greenlets freed by a "pending call" of the main thread, which calls the
dictionary's Python callback. If a second thread ends just then, another pending call is waiting while
the first one runs: CPython 3.11 goes round for ever at the entry of a traced function (DO_TRACING on
RESUME re-checks the eval breaker, and make_pending_calls refuses to nest). CPython 3.12 has neither.

The callback is replaced by a built-in function, which is not traced and does the same: a dictionary that
loses a key while somebody iterates over it is the one thing that the original protects from, too.
"""

import sys
import weakref
from typing import Any


class _WeakKeyDictionary(weakref.WeakKeyDictionary[Any, Any]):
    def __init__(self, other: Any = None) -> None:
        super().__init__()
        self._remove = self.data.pop  # type: ignore[attr-defined]
        if other is not None:
            self.update(other)


if sys.version_info < (3, 12):
    weakref.WeakKeyDictionary = _WeakKeyDictionary  # type: ignore[assignment, misc]
