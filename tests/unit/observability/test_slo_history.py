"""The history of a pair of counters: what a window covers, and what it costs to remember a month."""

import pytest

from app.observability.service_levels.event_history import TIERS, Count, EventHistory

MINUTE, HOUR, DAY = 60.0, 3_600.0, 86_400.0
WINDOWS = {"5m": 5 * MINUTE, "1h": HOUR, "2h": 2 * HOUR, "6h": 6 * HOUR, "1d": DAY, "3d": 3 * DAY}


def steady(seconds: float, *, every: float = 10.0) -> EventHistory:
    """Return the history of one event a second, every tenth of them bad, for so long."""
    history = EventHistory(0, Count(0, 0))
    for step in range(1, int(seconds / every) + 1):
        at = step * every
        history.add(at, Count(at, at / 10))
    return history


def test_what_was_counted_before_the_history_began_belongs_to_no_window() -> None:
    history = EventHistory(100, Count(5_000, 700))
    history.add(110, Count(5_010, 702))
    assert history.increase(300) == (10, 2, 10)


def test_a_window_that_is_longer_than_the_history_says_how_much_it_covers() -> None:
    history = steady(20 * MINUTE)
    assert history.increase(5 * MINUTE) == (300, 30, None)
    assert history.increase(HOUR) == (1_200, 120, 1_200)


def test_nothing_is_known_about_no_time() -> None:
    assert EventHistory(100, Count(5, 1)).increase(300) == (0, 0, 0)


def test_old_events_leave_the_window() -> None:
    history = EventHistory(0, Count(0, 0))
    history.add(10, Count(100, 50))
    for step in range(2, 100):
        history.add(step * 10, Count(100 + step, 50))
    assert history.increase(300).bad == 0
    assert history.increase(HOUR).bad == 50


@pytest.mark.parametrize("window", WINDOWS)
def test_after_weeks_every_window_is_right_within_a_tenth_of_its_length(window: str) -> None:
    history = steady(10 * DAY, every=30)
    seconds = WINDOWS[window]
    events, bad, covered = history.increase(seconds)
    assert covered is None
    assert seconds <= events <= seconds * 1.1
    assert bad == pytest.approx(events / 10)


def test_a_month_fits_into_few_points_and_is_still_covered() -> None:
    history = steady(40 * DAY, every=60)
    assert len(history) < 600
    events, _, covered = history.increase(30 * DAY)
    assert covered is None
    assert 30 * DAY <= events <= 30.3 * DAY


def test_the_points_of_a_month_stay_few_however_often_somebody_asks() -> None:
    history = steady(HOUR, every=1)
    newest = TIERS[0][1] / TIERS[0][0] / 0.9
    assert len(history) < newest + 70


def test_the_latest_count_is_seen_even_when_it_is_not_kept() -> None:
    history = EventHistory(0, Count(0, 0))
    history.add(10, Count(1, 0))
    history.add(10.5, Count(7, 2))
    assert history.increase(300) == (7, 2, 10.5)


def test_a_gap_in_the_samples_is_bridged() -> None:
    history = steady(HOUR)
    history.add(10 * HOUR, Count(HOUR, 400))
    assert history.increase(5 * MINUTE).events == 0
    assert history.increase(DAY) == (HOUR, 400, 10 * HOUR)
