"""Tests of objectives: what a file may declare, what a mistake in it says, and what ours declares."""

import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import jsonschema_rs
import orjson
import pytest
import yaml

from app.observability.metrics import DURATION
from app.observability.service_levels.objectives import (
    FreshnessIndicator,
    LatencyIndicator,
    Objective,
    ObjectivesError,
    RatioIndicator,
    load_objectives,
    parse_matchers,
    seconds,
)
from app.worker import CONSUMERS
from monitoring.build.artifacts import OBJECTIVES, ROOT
from monitoring.build.slo.groups import schema
from tests.catalogue import read_catalogue

DECLARED = load_objectives(OBJECTIVES)
every_objective = pytest.mark.parametrize(
    "objective", DECLARED.objectives, ids=lambda objective: objective.name
)


def declared(**changes: Any) -> dict[str, Any]:
    """Return a file with one good objective, changed; None takes a field away."""
    objective = {
        "name": "errors",
        "service": "shop",
        "journey": "all",
        "description": "Requests are answered.",
        "owner": "shop",
        "target": 99.9,
        "indicator": {
            "type": "ratio",
            "metric": "http_requests_total",
            "job": "api",
            "bad": 'status=~"5.."',
        },
    } | changes
    return {"objectives": [{name: value for name, value in objective.items() if value is not None}]}


def mistake(tmp_path: Path, content: object) -> str:
    """Return what is said about a file, without its name."""
    file = tmp_path / "objectives.yml"
    file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    with pytest.raises(ObjectivesError) as raised:
        load_objectives(file)
    said = str(raised.value)
    assert "\n" not in said
    assert said.startswith(str(file))
    return said.removeprefix(str(file)).lstrip(": ")


# Mistakes ---------------------------------------------------------------------------------------------


def test_a_good_file_has_exact_numbers(tmp_path: Path) -> None:
    file = tmp_path / "objectives.yml"
    file.write_text(yaml.safe_dump(declared()))
    [objective] = load_objectives(file).objectives
    assert (str(objective.ratio), str(objective.budget)) == ("0.999", "0.001")
    assert objective.runbook == "slo-errors"
    assert [window.long for window in objective.windows] == ["1h", "6h", "1d", "3d"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"target": 100}, r"objective errors, target: .*less than 100"),
        ({"target": None}, r"objective errors, target: Field required"),
        ({"owner": ""}, r"objective errors, owner: "),
        ({"minimum_bad_events": 1}, r"objective errors, minimum_bad_events: .*2"),
        ({"depends_on": ["databse"]}, r"objective errors, depends_on, 0: .*'database'"),
        ({"budgett": 3}, r"objective errors, budgett: Extra inputs"),
        ({"name": "Errors"}, r"objective Errors, name: "),
        ({"name": None}, r"objective number 1, name: Field required"),
        ({"indicator": {"type": "guess"}}, r"objective errors, indicator: .*'ratio'"),
        (
            {"target": 90},
            r"objective errors: .* cannot burn 14.4 times too fast, .* 1h could never fire: raise the",
        ),
    ],
)
def test_a_mistake_is_one_sentence_with_the_name(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    assert re.match(said, mistake(tmp_path, declared(**changes)))


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ("status=~5..", r"objective errors, indicator, bad: .* is no list of matchers such as"),
        ('status=~"5("', r"objective errors, indicator, bad: '5\(' is no regular expression"),
        ("", r"objective errors, indicator, bad: "),
    ],
)
def test_a_mistake_in_a_matcher_says_what_is_wrong(bad: str, said: str, tmp_path: Path) -> None:
    content = declared()
    content["objectives"][0]["indicator"]["bad"] = bad
    assert re.match(said, mistake(tmp_path, content))


def test_two_mistakes_are_two_half_sentences(tmp_path: Path) -> None:
    said = mistake(tmp_path, declared(target=100, owner=None))
    assert said.count("objective errors") == 2
    assert "; " in said


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("objectives: [", "is no YAML: "),
        ("objectives: []", "objectives: "),
        ("period: 30 days\nobjectives: []", "period: "),
        ("", "Input should be"),
    ],
)
def test_a_file_that_is_none_is_told(content: str, said: str, tmp_path: Path) -> None:
    assert mistake(tmp_path, content).startswith(said)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ObjectivesError, match="No such file"):
        load_objectives(tmp_path / "objectives.yml")


def test_two_objectives_have_two_names(tmp_path: Path) -> None:
    twice = {"objectives": declared()["objectives"] * 2}
    assert mistake(tmp_path, twice) == "objectives share a name: errors"


def test_without_pages_a_low_target_is_possible(tmp_path: Path) -> None:
    file = tmp_path / "objectives.yml"
    file.write_text(yaml.safe_dump(declared(target=90, page=False)))
    [objective] = load_objectives(file).objectives
    assert [window.severity for window in objective.windows] == ["ticket", "ticket"]


# Parts ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("matchers", "labels", "are_meant"),
    [
        ('status=~"5.."', {"status": "503"}, True),
        ('status=~"5.."', {"status": "5033"}, False),
        ('status=~"5.."', {}, False),
        ('status!~"4.."', {}, True),
        ('status!="404"', {"status": "404"}, False),
        ('a="x", b=""', {"a": "x"}, True),
        (r'a="say \"hi\""', {"a": 'say "hi"'}, True),
        ("", {"anything": "goes"}, True),
    ],
)
def test_matchers_match_as_in_prometheus(
    matchers: str, labels: dict[str, str], are_meant: bool
) -> None:
    assert all(matcher.matches(labels) for matcher in parse_matchers(matchers)) is are_meant


def test_matchers_are_written_as_they_were_read() -> None:
    text = r'a="say \"hi\"",b!~"\\d+"'
    assert ",".join(map(str, parse_matchers(text))) == text


@pytest.mark.parametrize("text", ["", "5", "m", "0m", "1.5h", "-1m", "5 m", "5M"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration such as"):
        seconds(text)


# Ours -------------------------------------------------------------------------------------------------


def test_the_promises_are_these() -> None:
    """A change here is a change of what is promised: it needs more than a reviewer."""
    promised = {objective.name: str(objective.target) for objective in DECLARED.objectives}
    assert DECLARED.period == "30d"
    assert promised == {
        "api-availability": "99.9",
        "api-errors": "99.9",
        "api-latency": "95",
        "login-errors": "99.9",
        "checkout-errors": "99.9",
        "checkout-latency": "99",
        "payment-success": "99.5",
        "worker-jobs": "99.5",
        "job-freshness": "99.5",
        "synthetic-journey": "99",
    }


@every_objective
def test_a_threshold_is_a_bound_of_the_buckets(objective: Objective) -> None:
    """Any other would give no series, so no ratio, so no alert, ever."""
    if not isinstance(objective.indicator, LatencyIndicator):
        return
    assert objective.indicator.metric == "http_request_duration_seconds"
    bounds = {Decimal(str(bound)) for bound in DURATION._upper_bounds[:-1]}
    assert objective.indicator.threshold_seconds in bounds


@every_objective
def test_an_objective_selects_what_is_emitted(objective: Objective) -> None:
    indicator = objective.indicator
    if indicator.metric == "probe_success":
        return  # blackbox's
    metric = read_catalogue().metrics[indicator.metric]
    matchers = (
        indicator.bad_selection if isinstance(indicator, RatioIndicator) else indicator.selection
    )
    for matcher in matchers:
        closed = metric.labels[matcher.label].closed
        if closed:
            values = [value for value in closed if matcher.matches({matcher.label: value})]
            assert values, matcher
            for part in re.split(r"\|", matcher.value) if "~" in matcher.operator else ():
                assert any(re.fullmatch(part, value) for value in closed), part


def test_every_job_that_handles_messages_counts_and_no_other() -> None:
    [objective] = [one for one in DECLARED.objectives if one.name == "worker-jobs"]
    [tasks] = [one for one in objective.indicator.selection if one.label == "task"]
    assert set(tasks.value.split("|")) == {consumer.name for consumer in CONSUMERS}


def test_what_is_fresh_is_told_apart_by_a_label() -> None:
    for objective in DECLARED.objectives:
        if isinstance(objective.indicator, FreshnessIndicator):
            metric = read_catalogue().metrics[objective.indicator.metric]
            assert objective.indicator.by in metric.labels


@every_objective
def test_an_objective_has_its_page(objective: Objective) -> None:
    page = (ROOT / "docs/runbooks" / f"{objective.runbook}.md").read_text()
    assert objective.name in page


# The schema -------------------------------------------------------------------------------------------


def test_the_schema_accepts_our_file_and_is_named_in_it() -> None:
    text = OBJECTIVES.read_text()
    assert text.startswith("# yaml-language-server: $schema=objectives.schema.json\n")
    jsonschema_rs.validate(orjson.loads(schema()), yaml.safe_load(text))


@pytest.mark.parametrize("changes", [{"target": 100}, {"owner": None}, {"budgett": 3}])
def test_the_schema_refuses_what_loading_refuses(changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validate(orjson.loads(schema()), declared(**changes))
