"""The proof that what was measured worked."""

import pytest

from bench.proof import Evidence, complaints, count

PAGE = """# HELP http_requests_total Requests.
# TYPE http_requests_total counter
http_requests_total{method="GET",handler="/bench/ping",status="200"} 40.0
http_requests_total{method="GET",handler="/bench/orders/{order_id}",status="200"} 30.0
http_requests_total{method="POST",handler="/v1/orders",status="201"} 20.0
http_requests_total{method="GET",handler="/metrics",status="200"} 7.0
# HELP http_request_duration_seconds Time.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_count{handler="/bench/ping"} 3.0
"""


def test_requests_of_measured_routes_are_counted_from_the_page_of_metrics() -> None:
    assert count(PAGE) == 90
    assert count("") == 0


@pytest.mark.parametrize(
    ("name", "left"),
    [
        ("bare", Evidence(5000, 0, 0, None)),
        ("sampling_1.0", Evidence(5000, 5000, 5000, 5000)),
        ("sampling_0.01", Evidence(5000, 5000, 61, 5000)),
        ("only_logs", Evidence(5000, 5000, 0, None)),
        ("only_metrics", Evidence(5000, 0, 0, 5000)),
        ("typical", Evidence(5000, 5001, 5001, 5000)),
    ],
)
def test_who_left_what_must_be_there_is_not_complained_about(name: str, left: Evidence) -> None:
    assert complaints(name, left) == []


@pytest.mark.parametrize(
    ("name", "left", "said"),
    [
        ("sampling_1.0", Evidence(9, 8, 9, 9), "sampling_1.0 has logged 8 of 9 access lines"),
        ("sampling_1.0", Evidence(9, 9, 8, 9), "sampling_1.0 has traced 8 of 9 requests, not 9"),
        (
            "sampling_1.0",
            Evidence(9, 9, 9, 8),
            "has counted 8 of 9 requests in http_requests_total",
        ),
        ("sampling_1.0", Evidence(9, 9, 9, None), "has counted None of 9 requests"),
        (
            "sampling_0.01",
            Evidence(5000, 5000, 0, 5000),
            "has traced 0 of 5000 requests, not 50 ±35",
        ),
        (
            "sampling_0.01",
            Evidence(5000, 5000, 99, 5000),
            "has traced 99 of 5000 requests, not 50 ±35",
        ),
        ("bare", Evidence(9, 1, 0, None), "bare has logged 1 of 0 access lines"),
        ("only_errors", Evidence(9, 0, 1, None), "only_errors has traced 1 of 9 requests, not 0"),
        ("typical", Evidence(9, 10, 10, 0), "typical has counted 0 of 9 requests"),
    ],
)
def test_a_signal_that_is_missing_or_too_much_is_a_sentence(
    name: str, left: Evidence, said: str
) -> None:
    (sentence,) = complaints(name, left)

    assert said in sentence
