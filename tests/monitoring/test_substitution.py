"""Variables are filled in as Grafana does, so that what is asked in tests is what a person's browser asks."""

import pytest

from tests.monitoring.dashboards import Dashboard
from tests.monitoring.expositions import Page, trimmed
from tests.monitoring.promql import selectors
from tests.monitoring.substitution import NoValues, Times, filling, shown_seconds

TIMES = Times(shown_seconds=3_600, scrape_seconds=15)


def variable(name: str, query: str, **more: object) -> dict[str, object]:
    definition: dict[str, object] = {
        "name": name,
        "type": "query",
        "query": {"query": query},
        "multi": True,
        "includeAll": True,
        "current": {"value": ["$__all"]},
    }
    return definition | more


def board(*variables: dict[str, object]) -> Dashboard:
    content = {"templating": {"list": list(variables)}, "time": {"from": "now-3h", "to": "now"}}
    return Dashboard("board", content)


def values(series: str, label: str) -> list[str]:
    return {
        "environment": ["test"],
        "instance": ["app-1:8000", "app-2:8000"] if 'environment=~"test"' in series else [],
        "handler": ["/v1/orders/{order_id}"],
    }.get(label, [])


def filled(text: str, *variables: dict[str, object]) -> str:
    return filling(board(*variables), TIMES, values).fill(text)


ENVIRONMENT = variable("environment", "label_values(build_info, environment)")
INSTANCE = variable("instance", 'label_values(up{environment=~"$environment"}, instance)')


def test_all_is_the_values_that_the_definition_finds() -> None:
    text = 'up{instance=~"$instance"}'
    assert filled(text, INSTANCE, ENVIRONMENT) == 'up{instance=~"(app-1:8000|app-2:8000)"}'


def test_signs_of_regular_expressions_are_escaped_inside_of_a_string() -> None:
    handler = variable("handler", "label_values(http_requests_total, handler)")
    text = filled('x{handler=~"$handler"}', handler)
    assert text == r'x{handler=~"/v1/orders/\\{order_id\\}"}'
    assert selectors(text)[0].values("handler") == [("=~", r"/v1/orders/\{order_id\}")]


def test_what_is_said_to_be_all_is_all() -> None:
    anything = variable("instance", "label_values(up, instance)", allValue=".+")
    assert filled("$instance", anything) == ".+"


def test_formats_and_what_is_no_variable() -> None:
    assert filled("${instance:pipe} ${instance:csv} $other", INSTANCE, ENVIRONMENT) == (
        "app-1:8000|app-2:8000 app-1:8000,app-2:8000 $other"
    )


def test_an_interval_holds_four_scrapes() -> None:
    assert filled("[$__rate_interval] [$__interval] [$__range] $__range_s") == (
        "[60000ms] [15000ms] [3600000ms] 3600"
    )
    assert Times(86_400, 15).rate_interval == pytest.approx(86.4 + 15)


def test_a_variable_without_values_is_named() -> None:
    with pytest.raises(NoValues, match=r"board / \$nothing"):
        filled("", variable("nothing", "label_values(nothing)"))


def test_the_time_that_is_shown_is_the_dashboards() -> None:
    assert shown_seconds(board()) == 3 * 3_600


RECORDED = """\
# HELP requests_total Requests.
# TYPE requests_total counter
requests_total{route="a b"} 10 # {trace_id="1"} 1
requests_total{route="c"} 0
# TYPE temperature gauge
temperature 20
# TYPE seconds histogram
seconds_bucket{le="1"} 2
seconds_bucket{le="+Inf"} 4
seconds_sum 3
seconds_count 4
# EOF
"""


def test_a_recording_is_cut_to_what_is_asked_for() -> None:
    assert trimmed(RECORDED, {"temperature", "seconds_bucket"}).splitlines() == [
        "# TYPE temperature gauge",
        "temperature 20",
        "# TYPE seconds histogram",
        'seconds_bucket{le="1"} 2',
        'seconds_bucket{le="+Inf"} 4',
        "seconds_sum 3",
        "seconds_count 4",
    ]


def test_counters_of_a_recording_move_together_and_gauges_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moments = iter([0.0, 60.0])
    monkeypatch.setattr("tests.monitoring.expositions.time.monotonic", lambda: next(moments))
    samples = [line for line in Page(RECORDED).text().splitlines() if not line.startswith("#")]
    assert samples == [
        'requests_total{route="a b"} 20.0',
        'requests_total{route="c"} 0.0',
        "temperature 20.0",
        'seconds_bucket{le="1"} 4.0',
        'seconds_bucket{le="+Inf"} 8.0',
        "seconds_sum 6.0",
        "seconds_count 8.0",
    ]
