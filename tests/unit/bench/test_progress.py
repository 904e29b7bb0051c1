"""What is said while it runs."""

import io

import pytest

from bench import progress as progress_module
from bench.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    return clock


def test_the_time_left_runs_down_and_is_corrected_by_parts(clock: Clock) -> None:
    out = Terminal()
    progress = Progress(100, out)
    progress.begin(30)
    progress("starting")
    clock.now += 50  # it took longer
    progress("still starting")
    progress.begin(70)
    progress("measuring")
    progress.now_left(10)
    progress("measuring")
    progress.end()

    lines = out.getvalue().split("\r\x1b[K")
    assert lines == [
        "",
        "starting, about 1 min 40 s left",
        "still starting, about 50 s left",
        "measuring, about 1 min 10 s left",
        "measuring, about 10 s left",
        "",
    ]


def test_it_never_says_less_than_nothing(clock: Clock) -> None:
    out = Terminal()
    progress = Progress(5, out)
    clock.now += 9
    progress("measuring")

    assert "about 0 s left" in out.getvalue()


def test_where_lines_stay_there_are_few(clock: Clock) -> None:
    out = io.StringIO()
    progress = Progress(None, out)
    for second in range(30):
        clock.now = 100.0 + second
        progress(f"second {second}")
    progress.end()

    assert out.getvalue().splitlines() == ["second 0", "second 10", "second 20"]
