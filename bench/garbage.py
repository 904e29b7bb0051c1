"""Keeps the client's garbage collector from being measured: once in a run it took 40 to 130 ms of a turn."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Have this process look for no garbage that holds itself: a run of minutes makes little of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
