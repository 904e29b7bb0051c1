"""Everything that is generated: paths in the repository, and what stands in them."""

from pathlib import Path
from typing import Final

from monitoring.build.alerts import families
from monitoring.build.conventions import Conventions, load_conventions
from monitoring.build.index import index
from monitoring.build.model import Group
from monitoring.build.profile import PRODUCTION, PROFILES, Profile
from monitoring.build.promtool import promtool_tests
from monitoring.build.records import GROUPS as RECORDS
from monitoring.build.render import groups_of, prometheus_rule, to_yaml

ROOT: Final = Path(__file__).parents[2]
OBJECTIVES: Final = ROOT / "monitoring/slo/objectives.yml"
GENERATED: Final = (
    "monitoring/prometheus/rules",
    "monitoring/prometheus/tests",
    "monitoring/demo",
)
"""Directories in which everything is generated: what is there and not made is left over."""


def rule_groups() -> dict[str, tuple[Group, ...]]:
    """Return all groups by the name of their file, recording rules first."""
    return {"records": RECORDS, **families()}


def artifacts(profile: Profile) -> dict[str, str]:
    """Return the files of a profile by their path."""
    conventions = load_conventions()
    rules = {
        name: groups_of(groups, conventions, profile) for name, groups in rule_groups().items()
    }
    where = "monitoring" if profile is PRODUCTION else f"monitoring/{profile.name}"
    made = {
        f"{where}/prometheus/rules/{name}.rules.yml": to_yaml(content, source=_source(name))
        for name, content in rules.items()
    }
    if profile is PRODUCTION:
        made |= _tests(conventions)
        made["docs/alerts.md"] = index(rule_groups())
        made["deploy/kubernetes/prometheus-rules.yml"] = to_yaml(
            prometheus_rule(rules, conventions.service), source="monitoring/build"
        )
    return made


def all_artifacts() -> dict[str, str]:
    """Return the files of all profiles."""
    return {
        path: text for profile in PROFILES.values() for path, text in artifacts(profile).items()
    }


def _source(name: str) -> str:
    return f"monitoring/build/{'records' if name == 'records' else f'alerts/{name}.py'}"


def _tests(conventions: Conventions) -> dict[str, str]:
    return {
        f"monitoring/prometheus/tests/{name}.test.yml": to_yaml(
            promtool_tests(
                groups,
                conventions,
                rule_files=["../rules/records.rules.yml", f"../rules/{name}.rules.yml"],
            ),
            source=_source(name),
        )
        for name, groups in families().items()
    }
