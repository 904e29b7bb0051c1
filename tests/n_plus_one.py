"""The fixture that fails a test in which a request or a job repeats one SELECT too often.

    from tests.n_plus_one import no_n_plus_one  # in conftest.py; `autouse` makes it hold for all

What is watched is an engine with `instrument_database`, within a request (`identify_requests`) or a job
(`bind_context`), and with more rows than `database_n_plus_one_threshold`: lower that in tests. Code that
repeats on purpose says so with `database.repetition_is_meant()`.
"""

from collections.abc import Iterator

import pytest

from app.observability.database import watch_n_plus_one


@pytest.fixture
def no_n_plus_one() -> Iterator[None]:
    """Fail the test when an N+1 is found while it runs, and say where it comes from."""
    with watch_n_plus_one() as found:
        yield
    if found:
        lines = "\n".join(f"{one.handler} at {one.caller}: {one.statement}" for one in found)
        pytest.fail(f"N+1, one statement again and again:\n{lines}", pytrace=False)
