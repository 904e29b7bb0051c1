"""The soak: what a slope is worth, and a small real run."""

import json
import math
import random

import pytest

from bench.soak import Result, Slope, as_json, measure, show, slope_of
from bench.stage import open_stage

MB = 1024 * 1024
EVERY = 5.0


def _samples(*, mb_an_hour: float, noise: float, count: int = 120) -> list[tuple[float, int]]:
    chance = random.Random(1)
    return [
        (
            n * EVERY,
            round((100 + mb_an_hour * n * EVERY / 3600 + chance.gauss(0, noise)) * MB),
        )
        for n in range(count)
    ]


def test_a_leak_is_told_with_its_rate() -> None:
    slope = slope_of(_samples(mb_an_hour=60, noise=0.05))
    assert slope.mb_an_hour == pytest.approx(60, abs=2 * slope.error)
    assert slope.verdict == f"grows by {slope.mb_an_hour:.0f} MB an hour"


def test_what_stays_where_it_is_does_not_grow() -> None:
    assert slope_of(_samples(mb_an_hour=0, noise=0.05)).verdict == "no growth"
    assert slope_of([(n * EVERY, 100 * MB) for n in range(120)]) == Slope(0.0, 0.0)


def test_the_first_half_does_not_count() -> None:
    warming = [(n * EVERY, 100 * MB + n * MB) for n in range(60)]
    steady = [(n * EVERY, 160 * MB) for n in range(60, 120)]
    assert slope_of([*warming, *steady]).verdict == "no growth"


def test_too_much_noise_and_too_few_samples_say_nothing() -> None:
    assert slope_of(_samples(mb_an_hour=20, noise=20)).verdict == "cannot be said"
    assert slope_of([(n * 0.1, (100 + n) * MB) for n in range(600)]).verdict == "cannot be said"
    few = slope_of(_samples(mb_an_hour=60, noise=0.05, count=10))
    assert math.isnan(few.error)
    assert few.verdict == "cannot be said"


def test_readings_that_follow_one_another_are_worth_less() -> None:
    chance, level = random.Random(2), 0.0
    wandering, independent = [], []
    for n in range(400):
        level = 0.95 * level + chance.gauss(0, 1)
        wandering.append((n * EVERY, round((500 + level) * MB)))
        independent.append((n * EVERY, round((500 + chance.gauss(0, 3.2)) * MB)))
    assert slope_of(wandering).error > 2 * slope_of(independent).error


def test_the_report_says_the_verdict() -> None:
    samples = tuple(_samples(mb_an_hour=0, noise=0.05))
    result = Result(10, 40, {"ping": 7}, samples, slope_of(samples))
    assert "no growth" in show(result)
    assert "7 ping" in show(result)
    assert json.loads(json.dumps(as_json(result)))["verdict"] == "no growth"


async def test_a_short_one_asks_everything_and_reads_the_memory(postgres_database: str) -> None:
    with open_stage(postgres_database) as stage:
        result = await measure(stage, lambda _: None, minutes=0.05, rate=400)
    assert all(result.requests.values()), result.requests
    assert set(result.requests) >= {"ping", "create", "no such path", "invalid", "fault"}
    assert len(result.samples) > 8
    assert all(size > 10 * MB for _, size in result.samples)
