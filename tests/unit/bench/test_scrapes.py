"""Scrapes: how series are counted, and a small real run with two processes."""

import json

from bench.routes import Page, count_families
from bench.scrapes import (
    Probed,
    Result,
    Scrape,
    as_json,
    count_series,
    measure,
    scrape_request,
    show,
)
from bench.stage import open_stage

PAGE = """# HELP http_requests_total HTTP requests that have ended.
# TYPE http_requests_total counter
http_requests_total{status="200"} 5.0
http_requests_total{status="404"} 1.0

# HELP http_request_duration_seconds Time.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="0.1"} 5.0
http_request_duration_seconds_bucket{le="+Inf"} 6.0
http_request_duration_seconds_count 6.0
http_request_duration_seconds_sum 0.3
"""


def test_each_sample_is_a_series_and_comments_are_none() -> None:
    assert count_series(PAGE) == 6


def test_buckets_sum_and_count_belong_to_their_histogram() -> None:
    assert dict(count_families(PAGE)) == {
        "http_requests_total": 2,
        "http_request_duration_seconds": 4,
    }


def test_a_scraper_asks_for_the_format_and_the_encoding() -> None:
    plain = scrape_request(8000, "text", "plain").decode()
    compressed = scrape_request(8000, "openmetrics", "gzip").decode()
    assert plain.startswith("GET /metrics HTTP/1.1\r\n")
    assert plain.endswith("\r\n\r\n")
    assert "Accept: text/plain" in plain
    assert "gzip" not in plain
    assert "Accept: application/openmetrics-text" in compressed
    assert "Accept-Encoding: gzip" in compressed


def test_the_report_has_pages_probes_and_the_services_own_series() -> None:
    result = Result(
        (Scrape(1, 5_000, "text", "gzip", 30_000, 45.0, 44.0, 10),),
        (Probed(2, 5_000, "/health/live", True, 400, 1.0, 9.0),),
        (Page("the API", 400, 1_788, (("http_request_duration_seconds", 330),)),),
    )
    shown = show(result)
    assert "text, gzip, 1 process" in shown
    assert "0.30%" in shown  # 45 ms of each 15 s
    assert "/health/live, 2 processes, scraped without a pause" in shown
    assert "1788" in shown
    said = json.loads(json.dumps(as_json(result)))
    assert said["scrapes"][0]["cpu_ms"] == 45.0
    assert said["own"][0]["under_load"] == 1_788


async def test_two_processes_are_scraped_as_one(postgres_database: str) -> None:
    with open_stage(postgres_database) as stage:
        result = await measure(
            stage, lambda _: None, sizes=(1_500,), workers=(2,), seconds=0.1, probe_seconds=0.5
        )
    assert {(one.form, one.encoding) for one in result.scrapes} == {
        (form, encoding) for form in ("text", "openmetrics") for encoding in ("plain", "gzip")
    }
    for one in result.scrapes:
        assert one.series > 1_500  # those that were added, once for both, and the service's own
        assert one.series < 3_000
        assert one.cpu_ms > 0
        assert one.scrapes > 0
    by_form = {(one.form, one.encoding): one.size for one in result.scrapes}
    assert by_form["text", "gzip"] < by_form["text", "plain"] / 4
    assert [(one.path, one.scraped) for one in result.probed] == [
        ("/health/live", False),
        ("/bench/ping", False),
        ("/health/live", True),
        ("/bench/ping", True),
    ]
    assert [page.name for page in result.own] == ["the API, one page of 2 processes", "the worker"]
    assert all(page.under_load > page.at_start > 100 for page in result.own)
