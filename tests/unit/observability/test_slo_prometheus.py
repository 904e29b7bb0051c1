"""`/slo` with a Prometheus: one question for everybody, and an answer in time whatever Prometheus does."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import orjson
import pytest
import yaml
from pydantic import SecretStr

from app.observability.service_levels.assessment import WINDOWS, Measured
from app.observability.service_levels.objectives import load_objectives
from app.observability.service_levels.prometheus_api import (
    MAX_POINTS,
    PrometheusAPI,
    PrometheusError,
    Series,
)
from app.observability.service_levels.recorded_levels import ALL_LEVELS, read_levels
from app.observability.slo import CACHE_SECONDS, LAST_KNOWN_SECONDS, ServiceLevelMonitor
from tests.listener import Answer
from tests.slo import StubPrometheus, declare, slo_settings, vector
from tests.tools import free_port

ROOT = Path(__file__).parents[3]
PASSWORD = "hunter2-of-prometheus"
GOOD = vector(
    [
        ("slo:sli_error:ratio_rate5m", 0.02),
        ("slo:sli_error:ratio_rate30m", float("nan")),
        ("slo:sli_error:ratio_rate1h", 0.016),
        ("slo:sli_error:ratio_rate30d", 0.0004),
        ("slo:events:increase1h", 1000),
        ("slo:bad_events:increase1h", 16),
        ("slo:events:increase30d", 10_000),
        ("slo:bad_events:increase30d", 4),
        ("slo:something:else5m", 1),
    ]
)


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def prometheus() -> Iterator[StubPrometheus]:
    with StubPrometheus(200, GOOD).running() as stub:
        yield stub


@pytest.fixture
def clock() -> Clock:
    return Clock()


@asynccontextmanager
async def watching(
    directory: Path, clock: Clock, url: str, *, patience: float = 30.0
) -> AsyncIterator[ServiceLevelMonitor]:
    settings = slo_settings(declare(directory), url=url, timeout=patience)
    monitor = ServiceLevelMonitor(settings, clock=clock)
    async with monitor.running():
        yield monitor


async def test_what_prometheus_has_recorded_is_told(
    prometheus: StubPrometheus, clock: Clock, tmp_path: Path
) -> None:
    async with watching(tmp_path, clock, f"{prometheus.url}/prefix/") as monitor:
        levels = await monitor.levels()
    assert (levels.source, levels.degraded, levels.since) == ("prometheus", False, None)
    (found,) = levels.objectives
    assert (found.sli, found.error_budget_remaining) == (0.9996, 0.6)
    assert (found.events, found.bad_events) == (10_000, 4)
    rates = {rate.window: rate.burn_rate for rate in found.burn_rates}
    assert (rates["5m"], rates["1h"]) == (20, 16)
    assert rates["30m"] is None, "NaN is no number"
    assert rates["3d"] is None, "what is not there is not 0"
    assert found.state == "burning"
    (asked,) = prometheus.asked
    address = urlsplit(asked.path)
    assert address.path == "/prefix/api/v1/query"
    assert parse_qs(address.query) == {"query": [ALL_LEVELS]}


async def test_fifty_callers_ask_once(
    prometheus: StubPrometheus, clock: Clock, tmp_path: Path
) -> None:
    prometheus.may_answer.clear()
    async with watching(tmp_path, clock, prometheus.url) as monitor:
        callers = [asyncio.create_task(monitor.levels()) for _ in range(50)]
        while not prometheus.asked:
            await asyncio.sleep(0.01)
        callers[0].cancel()  # whoever asked first hangs up: the others are served all the same
        await asyncio.sleep(0)
        prometheus.may_answer.set()
        answers = await asyncio.gather(*callers[1:])
        assert {one.source for one in answers} == {"prometheus"}
        clock.now += CACHE_SECONDS - 0.1
        assert (await monitor.levels()).age_seconds == pytest.approx(CACHE_SECONDS - 0.1)
        assert len(prometheus.asked) == 1
        clock.now += 0.2
        assert (await monitor.levels()).age_seconds == 0
        assert len(prometheus.asked) == 2


HUGE = vector([("slo:sli_error:ratio_rate30d", 0.0004)] * 20_000)
TROUBLE: dict[str, tuple[Callable[[], Answer], str]] = {
    "error": (lambda: Answer(500, b'{"status":"error"}'), "answered with status 500"),
    "refusal": (lambda: Answer(401, b"secret"), "answered with status 401"),
    "redirect": (lambda: Answer(302, b""), "answered with status 302"),
    "page": (lambda: Answer(200, b"<html>", "text/html"), "answered with something that is no"),
    "nothing": (lambda: Answer(200, b""), "answered with something that is no result"),
    "list": (lambda: Answer(200, b"[]"), "answered with something that is no result"),
    "null": (lambda: Answer(200, b'{"status":"success","data":null}'), "that is no result"),
    "scalar": (
        lambda: Answer(
            200, b'{"status":"success","data":{"resultType":"scalar","result":[1,"1"]}}'
        ),
        "answered with something that is no result",
    ),
    "words": (lambda: Answer(200, GOOD.replace(b'"0.02"', b'"much"')), "that is no result"),
    "huge": (lambda: Answer(200, HUGE), "answered with more than 2000000 bytes"),
    "empty": (lambda: Answer(200, vector([])), "has no service levels: are the rules loaded"),
}


@pytest.mark.parametrize("kind", TROUBLE)
async def test_trouble_with_prometheus_is_told_and_the_own_counters_are_used(
    kind: str, prometheus: StubPrometheus, clock: Clock, tmp_path: Path
) -> None:
    prometheus.make_answer, said = TROUBLE[kind]
    url = prometheus.url.replace("http://", f"http://someone:{PASSWORD}@")
    async with watching(tmp_path, clock, url) as monitor:
        levels = await monitor.levels()
    assert (levels.source, levels.degraded) == ("process", True)
    assert levels.since is not None
    assert levels.reason.startswith("Prometheus ")
    assert said in levels.reason
    assert levels.reason.endswith("; this process has counted these itself.")
    told = levels.model_dump_json()
    assert all(secret not in told for secret in (PASSWORD, "someone", "127.0.0.1", "secret"))
    assert prometheus.asked[0].headers["Authorization"].startswith("Basic ")


async def test_nobody_there_is_trouble_like_any_other(clock: Clock, tmp_path: Path) -> None:
    async with watching(tmp_path, clock, f"http://127.0.0.1:{free_port()}") as monitor:
        levels = await monitor.levels()
    assert (levels.source, levels.degraded) == ("process", True)
    assert "Prometheus could not be asked (ConnectError)" in levels.reason


async def test_a_prometheus_that_does_not_answer_costs_the_time_out_once(
    prometheus: StubPrometheus, clock: Clock, tmp_path: Path
) -> None:
    prometheus.may_answer.clear()
    async with watching(tmp_path, clock, prometheus.url, patience=0.05) as monitor:
        levels = await monitor.levels()
        assert "gave no answer within 0.05 s" in levels.reason
        clock.now += CACHE_SECONDS - 1
        await monitor.levels()
        assert len(prometheus.asked) == 1, "the next callers do not wait for it again"
        prometheus.may_answer.set()


async def test_an_answer_that_trickles_is_given_up_as_a_whole() -> None:
    async def trickle() -> AsyncIterator[bytes]:
        for _ in range(300):
            yield b" "
            await asyncio.sleep(0.01)
        yield GOOD

    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, content=trickle()))
    api = PrometheusAPI(SecretStr("http://tea"), timeout_seconds=0.1, transport=transport)
    with pytest.raises(PrometheusError, match=r"gave no answer within 0\.1 s"):
        await api.query("up")
    await api.aclose()


async def test_a_packed_answer_is_refused_since_it_may_be_endless() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return httpx2.Response(200, headers={"Content-Encoding": "gzip"}, content=b"")

    api = PrometheusAPI(
        SecretStr("http://tea"), timeout_seconds=30, transport=httpx2.MockTransport(answer)
    )
    with pytest.raises(PrometheusError, match="is packed"):
        await api.query("up")
    await api.aclose()


async def test_the_last_known_numbers_come_first_with_their_age_and_not_for_ever(
    prometheus: StubPrometheus, clock: Clock, tmp_path: Path
) -> None:
    async with watching(tmp_path, clock, prometheus.url) as monitor:
        known = await monitor.levels()
        prometheus.make_answer = lambda: Answer(503, b"")
        clock.now += 600
        levels = await monitor.levels()
        assert (levels.source, levels.degraded) == ("prometheus", True)
        assert levels.age_seconds == 600
        assert levels.evaluated_at == known.evaluated_at
        assert levels.objectives == known.objectives
        assert levels.reason == (
            "Prometheus answered with status 503; these are its last known numbers."
        )
        clock.now += LAST_KNOWN_SECONDS - 599
        levels = await monitor.levels()
        assert (levels.source, levels.degraded) == ("process", True)


async def test_trouble_is_logged_once_and_so_is_its_end(
    prometheus: StubPrometheus,
    clock: Clock,
    tmp_path: Path,
    log_records: list[dict[str, Any]],
) -> None:
    async with watching(tmp_path, clock, prometheus.url) as monitor:
        for status in (200, 500, 401, 500, 200, 200):
            prometheus.make_answer = lambda status=status: Answer(status, GOOD)  # type: ignore[misc]
            clock.now += CACHE_SECONDS + 1
            await monitor.levels()
    assert [(line["level"].name, line["message"], line["extra"]) for line in log_records] == [
        (
            "WARNING",
            "Prometheus cannot be asked for service levels",
            {"type": "telemetry", "reason": "answered with status 500"},
        ),
        ("INFO", "Prometheus can be asked for service levels again", {"type": "telemetry"}),
    ]


async def test_a_period_that_is_no_number_has_no_data(
    prometheus: StubPrometheus, clock: Clock, tmp_path: Path
) -> None:
    nan = float("nan")
    records = [("slo:sli_error:ratio_rate30d", nan), ("slo:events:increase30d", nan)]
    prometheus.make_answer = lambda: Answer(200, vector(records))
    async with watching(tmp_path, clock, prometheus.url) as monitor:
        levels = await monitor.levels()
    assert not levels.degraded
    assert (levels.objectives[0].state, levels.objectives[0].events) == ("no_data", None)
    read = read_levels([Series({"__name__": name}, [(0, value)]) for name, value in records])
    assert read == {("", ""): {"30d": Measured()}}


async def test_an_objective_without_a_record_has_no_data(
    prometheus: StubPrometheus, clock: Clock, tmp_path: Path
) -> None:
    prometheus.make_answer = lambda: Answer(200, GOOD.replace(b"tea-errors", b"tea-latency"))
    async with watching(tmp_path, clock, prometheus.url) as monitor:
        (found,) = (await monitor.levels()).objectives
    assert (found.state, found.sli) == ("no_data", None)
    assert found.reason == "Prometheus has recorded no event of it in the period."


async def test_a_long_range_is_asked_for_in_parts_that_have_each_point_once() -> None:
    asked: list[dict[str, str]] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(dict(request.url.params))
        first, last = float(asked[-1]["start"]), float(asked[-1]["end"])
        points = [[at, "1"] for at in range(round(first), round(last) + 1, 60)]
        result = [{"metric": {"a": "b"}, "values": points}]
        data = {"resultType": "matrix", "result": result}

        async def body() -> AsyncIterator[bytes]:
            yield json.dumps({"status": "success", "data": data}).encode()

        return httpx2.Response(200, content=body())

    api = PrometheusAPI(
        SecretStr("http://tea"), timeout_seconds=30, transport=httpx2.MockTransport(answer)
    )
    (series,) = await api.query_range("up", start=600, end=600 + 60 * 12_000, step=60)
    await api.aclose()
    assert [at for at, _ in series.points] == [600 + 60 * n for n in range(12_001)]
    assert len(asked) == 3
    for one in asked:
        assert (float(one["end"]) - float(one["start"])) / 60 < MAX_POINTS


def test_the_records_that_are_asked_for_are_those_that_the_rules_make() -> None:
    made: dict[tuple[str, str], dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for path in (ROOT / "monitoring" / "prometheus" / "rules").glob("slo-*.yml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                series = Series({"__name__": rule.get("record", "")} | rule["labels"], [(0, 1)])
                for objective, windows in read_levels([series]).items():
                    for window, measured in windows.items():
                        known = (name for name, value in asdict(measured).items() if value == 1)
                        made[objective][window].update(known)
    declared = load_objectives(ROOT / "monitoring" / "slo" / "objectives.yml")
    everything = {"error_ratio", "events", "bad_events"}
    assert made == {
        (one.service, one.name): dict.fromkeys((*WINDOWS, declared.period), everything)
        for one in declared.objectives
    }


def test_the_answers_of_the_stub_are_what_prometheus_says() -> None:
    assert orjson.loads(GOOD)["data"]["result"][1]["value"][1] == "NaN"
