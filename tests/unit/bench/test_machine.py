"""What keeps all else from being measured: processors that are shared, memory taken away, our garbage."""

import gc
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from bench.garbage import no_collection
from bench.machine import Steal
from bench.memory import _may_lock
from bench.processors import keep_to, one_kept_free
from bench.stalls import Stalls
from tests.service import ROOT
from tests.tools import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux has these calls")

TWO_THREADS = """
import threading
threading.Thread(target=threading.Event().wait).start()
print("ready", flush=True)
"""


@pytest.fixture
def _as_before() -> Iterator[None]:
    before = os.sched_getaffinity(0)
    yield
    assert os.sched_getaffinity(0) == before


@pytest.mark.usefixtures("_as_before")
def test_nothing_else_uses_the_processor_of_the_servers() -> None:
    allowed = os.sched_getaffinity(0)
    with one_kept_free() as kept:
        assert kept in (allowed if len(allowed) > 1 else {None})
        tell = "import os; print(*sorted(os.sched_getaffinity(0)))"
        told = subprocess.check_output([sys.executable, "-c", tell], text=True)
        assert set(map(int, told.split())) == allowed - {kept}


@pytest.mark.usefixtures("_as_before")
def test_one_processor_is_shared() -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        with one_kept_free() as kept:
            assert kept is None
            assert os.sched_getaffinity(0) == {min(before)}
    finally:
        os.sched_setaffinity(0, before)


def test_all_threads_of_a_server_use_its_processor() -> None:
    processor = max(os.sched_getaffinity(0))
    program = [sys.executable, "-c", TWO_THREADS]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as one:
        try:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
            keep_to(processor, one.pid)
            threads = list(Path(f"/proc/{one.pid}/task").iterdir())
            assert len(threads) == 2
            for thread in threads:
                assert os.sched_getaffinity(int(thread.name)) == {processor}
        finally:
            one.kill()


def test_a_process_that_has_gone_is_no_trouble_to_who_moves_it() -> None:
    with subprocess.Popen(["true"]) as one:
        wait_until(lambda: Path(f"/proc/{one.pid}/stat").read_text().split()[2] == "Z", "it ends")
        keep_to(0, one.pid)
    keep_to(0, one.pid)


@pytest.mark.usefixtures("_as_before")
def test_where_it_may_not_be_said_who_serves_where_all_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(_: int, _processors: set[int]) -> None:
        raise PermissionError

    with monkeypatch.context() as patched:
        patched.setattr(os, "sched_setaffinity", refuse)
        with one_kept_free() as kept:
            assert kept is None


def test_of_one_processor_more_is_lost_than_of_all() -> None:
    stalls = SimpleNamespace(seconds=1.0)
    steal = Steal(cast("Stalls", stalls))
    stalls.seconds += 100.0
    wait_until(lambda: steal.share() > 0, "time passes")
    assert steal.share_of_one() > steal.share() * (os.cpu_count() or 1) * 0.5


STAYS = """
from bench import memory
stays = memory.stay()
held = bytearray(1 << 22)
locked = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmLck")]
print(int(stays), *locked)
"""


def test_what_may_stay_in_memory_does() -> None:
    told = subprocess.check_output([sys.executable, "-c", STAYS], cwd=ROOT, text=True)
    stays, kilobytes = map(int, told.split())
    assert (kilobytes > 4096) is bool(stays)


def test_nobody_collects_while_a_server_is_measured() -> None:
    assert gc.isenabled()
    with no_collection():
        assert not gc.isenabled()
        with no_collection():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_who_has_a_limit_asks_for_nothing_that_it_would_be_refused_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(to: int) -> None:
        monkeypatch.setattr(resource, "getrlimit", lambda _: (to, to))

    status = tmp_path / "status"
    nowhere = tmp_path / "nowhere"
    limit(8 << 20)
    for capabilities, may in (("0000000000000000", False), ("000001ffffffffff", True)):
        status.write_text(f"Name:\tpython\nCapEff:\t{capabilities}\nSeccomp:\t0\n")
        assert _may_lock(status) is may
    assert _may_lock(nowhere) is False
    limit(resource.RLIM_INFINITY)
    assert _may_lock(nowhere) is True
