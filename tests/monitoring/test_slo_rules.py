"""The rules of objectives: their tests pass, each can fail, and a demonstration pages within minutes.

That all generated tests pass is seen by test_rules.py, which runs every file; here are those of one objective
of each kind, with rules that are wrong.
"""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.observability.service_levels.objectives import BURN_WINDOWS, Objective, load_objectives
from monitoring.build.artifacts import OBJECTIVES
from monitoring.build.conventions import load_conventions
from monitoring.build.profile import DEMO, PRODUCTION, Profile
from monitoring.build.render import groups_of, to_yaml
from monitoring.build.slo.groups import WINDOWS, slo_groups
from monitoring.build.slo.promtool_tests import slo_tests
from monitoring.build.slo.series import Phase, series
from tests.tools import require_tool

DECLARED = load_objectives(OBJECTIVES)
CONVENTIONS = load_conventions()
NAMES = [objective.name for objective in DECLARED.objectives]


def objective_of(name: str) -> Objective:
    return next(objective for objective in DECLARED.objectives if objective.name == name)


def rules_of(name: str, profile: Profile = PRODUCTION) -> str:
    content = groups_of(slo_groups(DECLARED)[f"slo-{name}"], CONVENTIONS, profile)
    return to_yaml(content, source="a test")


def run(tmp_path: Path, *, name: str, rules: str, content: Mapping[str, Any]) -> tuple[int, str]:
    """Return what promtool says to rules and their tests: its exit code, and all of its words."""
    for directory in ("rules", "tests"):
        (tmp_path / directory).mkdir(exist_ok=True)
    (tmp_path / f"rules/slo-{name}.rules.yml").write_text(rules)
    file = tmp_path / f"tests/slo-{name}.test.yml"
    file.write_text(yaml.safe_dump(dict(content)))
    tested = subprocess.run(
        [require_tool("promtool"), "test", "rules", file.name],
        cwd=file.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return tested.returncode, tested.stdout + tested.stderr


# Production -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mistake:
    """A mistake in the rules of an objective, and the test that has to see it."""

    what: str
    objective: str
    right: str
    wrong: str
    seen_by: str
    tickets: bool = False

    def __str__(self) -> str:
        return f"{self.objective}: {self.what}"


TOGETHER = "{} and {} together fire"
SERIES = '{sloth_id="glasshouse-api-errors"}'
FRESH = 'job_last_success_timestamp_seconds{job="worker",task!="purge"}'
JOIN = "and on (sloth_id) slo:sli_error:ratio_rate"
MISTAKES = (
    *(
        mistake
        for window, limit in zip(BURN_WINDOWS, ("0.0144", "0.006", "0.003", "0.001"), strict=True)
        for mistake in (
            Mistake(
                f"the limit of {window.long} is twice as high",
                "api-errors",
                f"{SERIES} > {limit}\n",
                f"{SERIES} > {Decimal(limit) * 2}\n",
                TOGETHER.format(window.long, window.short),
                tickets=window.severity == "ticket",
            ),
            Mistake(
                f"{window.short} is not looked at",
                "api-errors",
                f"{JOIN}{window.short}{SERIES} > {limit}",
                f"{JOIN}{window.long}{SERIES} > {limit}",
                TOGETHER.format(window.long, window.short),
                tickets=window.severity == "ticket",
            ),
            Mistake(
                f"{window.long} is not looked at",
                "api-errors",
                f"slo:sli_error:ratio_rate{window.long}{SERIES} > {limit}\n",
                f"slo:sli_error:ratio_rate{window.short}{SERIES} > {limit}\n",
                TOGETHER.format(window.long, window.short),
                tickets=window.severity == "ticket",
            ),
        )
    ),
    Mistake(
        "a few bad events are enough",
        "api-errors",
        f"slo:bad_events:increase1h{SERIES} >= 5",
        f"slo:bad_events:increase1h{SERIES} >= 1",
        "in little traffic",
    ),
    Mistake(
        "a few bad events spend the budget",
        "api-errors",
        f"slo:bad_events:increase30d{SERIES} >= 5",
        f"slo:bad_events:increase30d{SERIES} >= 1",
        "in little traffic",
    ),
    Mistake(
        "the budget is spent when half of it is",
        "api-errors",
        f"slo:period_error_budget_remaining:ratio{SERIES} <= 0",
        f"slo:period_error_budget_remaining:ratio{SERIES} <= 1",
        "the budget is spent",
    ),
    Mistake(
        "the month is a mean of ratios",
        "api-errors",
        f"slo:bad_events:increase30d{SERIES} / (slo:events:increase30d{SERIES} > 0)",
        f"avg_over_time(slo:sli_error:ratio_rate5m{SERIES}[30d:5m])",
        "a busy hour counts for more",
    ),
    Mistake(
        "without a failure there is no ratio",
        "api-errors",
        f"or on ()\n          0 * slo:events:increase1h{SERIES}",
        "",
        "the error ratio is 0",
    ),
    Mistake(
        "nothing of nothing is not a number",
        "api-errors",
        f"(slo:events:increase30m{SERIES} > 0)",
        f"slo:events:increase30m{SERIES}",
        "with nothing to do",
    ),
    Mistake("a 404 counts", "api-errors", ',status!="404"', "", "is exact"),
    Mistake("every job counts", "api-errors", 'job="api",', "", "is exact"),
    Mistake("a fast error counts", "api-latency", 'status!~"404|5..",', "", "is exact"),
    Mistake("the bound is another one", "api-latency", 'le="0.2"', 'le="0.5"', "is exact"),
    Mistake("pending is no failure", "payment-success", "pending|failed", "failed", "is exact"),
    Mistake("another probe counts", "api-availability", ',probe="ready"', "", "is exact"),
    Mistake(
        "old is three times as old",
        "job-freshness",
        "bool 300",
        "bool 900",
        TOGETHER.format("1h", "5m"),
    ),
    Mistake(
        "what is gone is not old",
        "job-freshness",
        f"max_over_time({FRESH}[1d])",
        FRESH,
        "left behind",
    ),
)


@pytest.mark.parametrize("mistake", MISTAKES, ids=str)
def test_a_mistake_in_the_rules_is_seen(mistake: Mistake, tmp_path: Path) -> None:
    """With the right rules the test passes, with the wrong ones it fails, and says which test it was."""
    name = mistake.objective
    content = slo_tests(DECLARED, CONVENTIONS)[f"slo-{name}" + "-tickets" * mistake.tickets]
    content["tests"] = [test for test in content["tests"] if mistake.seen_by in test["name"]]
    assert content["tests"], "no such test"
    right = rules_of(name)
    assert mistake.right in right
    code, words = run(tmp_path, name=name, rules=right, content=content)
    assert code == 0, words
    wrong = right.replace(mistake.right, mistake.wrong)
    code, words = run(tmp_path, name=name, rules=wrong, content=content)
    assert code != 0
    assert "FAILED" in words, words


@pytest.mark.parametrize("name", NAMES)
def test_every_objective_is_tested_in_every_way(name: str) -> None:
    objective = objective_of(name)
    files = slo_tests(DECLARED, CONVENTIONS)
    tests = [
        test["name"]
        for file in (f"slo-{name}", f"slo-{name}-tickets")
        for test in files[file]["tests"]
    ]
    ways = [
        *(f"{window.long} and {window.short} together" for window in objective.windows),
        "is exact",
        "the error ratio is 0",
        "all alerts fire",
        "the budget is spent",
        "with nothing to do",
        "in little traffic",
    ]
    for way in ways:
        assert sum(way in test for test in tests) == 1, way
    for file in (f"slo-{name}", f"slo-{name}-tickets"):
        assert files[file]["rule_files"] == [f"../rules/slo-{name}.rules.yml"]


def test_names_and_labels_are_those_of_sloth() -> None:
    """So that its dashboards work; what it generates for the same objective was looked at."""
    records = {
        (rule.get("record"), rule["labels"].get("sloth_window"))
        for group in yaml.safe_load(rules_of("api-errors"))["groups"]
        for rule in group["rules"]
        if "record" in rule
    }
    assert {
        (f"slo:sli_error:ratio_rate{window}", window) for window in (*WINDOWS, "30d")
    } <= records
    assert {
        ("slo:objective:ratio", None),
        ("slo:error_budget:ratio", None),
        ("slo:time_period:days", None),
        ("slo:current_burn_rate:ratio", None),
        ("slo:period_burn_rate:ratio", None),
        ("slo:period_error_budget_remaining:ratio", None),
        ("sloth_slo_info", None),
    } <= records
    for group in yaml.safe_load(rules_of("api-errors"))["groups"]:
        for rule in group["rules"]:
            assert rule["labels"].items() >= {
                ("sloth_id", "glasshouse-api-errors"),
                ("sloth_service", "glasshouse"),
                ("sloth_slo", "api-errors"),
            }


def test_numbers_in_rules_are_exact() -> None:
    """Not 0.0010000000000000009, which is what 1 - 0.999 is for a computer."""
    text = rules_of("api-errors")
    for number in ("vector(0.999)", "vector(0.001)", "> 0.0144", "> 0.006", "> 0.003", "> 0.001"):
        assert number in text
    assert "000000" not in text


# Demonstration ----------------------------------------------------------------------------------------

PAGED_BY_A_FIFTH = [
    objective.name
    for objective in DECLARED.objectives
    if objective.indicator.type == "ratio" and objective.budget * Decimal("14.4") < Decimal("0.2")
]


@pytest.mark.parametrize("name", PAGED_BY_A_FIFTH)
def test_in_a_demonstration_a_fifth_of_errors_pages_within_two_minutes(
    name: str, tmp_path: Path
) -> None:
    """After ten minutes without an error, with ten requests a second, scraped each second."""
    phases = [Phase(600, per_minute=10), Phase(130, Decimal("0.2"), 10)]
    firing = (
        'count(ALERTS{alertname="ErrorBudgetBurnPage",alertstate="firing"}) > bool 0 or vector(0)'
    )
    content = {
        "rule_files": [f"../rules/slo-{name}.rules.yml"],
        "evaluation_interval": "1s",
        "group_eval_order": [f"slo-{name}{end}" for end in ("", "-long", "-period", "-alerts")],
        "tests": [
            {
                "interval": "1s",
                "input_series": [
                    {"series": selector, "values": values}
                    for selector, values in series(objective_of(name), phases).items()
                ],
                "promql_expr_test": [
                    {
                        "expr": firing,
                        "eval_time": moment,
                        "exp_samples": [{"labels": "{}", "value": value}],
                    }
                    for moment, value in (("600s", 0), ("720s", 1))
                ],
            }
        ],
    }
    code, words = run(tmp_path, name=name, rules=rules_of(name, DEMO), content=content)
    assert code == 0, words


def test_in_a_demonstration_nothing_is_asked_of_less_than_five_seconds() -> None:
    for name in NAMES:
        text = rules_of(name, DEMO)
        for short in ("[1s]", "[2s]", "[500ms]", "[5m]", "[1h]", "[30d"):
            assert short not in text, name
        assert "slo:sli_error:ratio_rate30d" in text, "names are those of production"
