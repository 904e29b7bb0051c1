"""Everything that is generated: paths in the repository, and what stands in them."""

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from app.observability.service_levels.objectives import load_objectives
from monitoring.build import alertmanager, prometheus
from monitoring.build.alerts import families
from monitoring.build.conventions import Conventions, load_conventions
from monitoring.build.dashboards import dashboards
from monitoring.build.index import index, table
from monitoring.build.logs import LOG_GROUPS
from monitoring.build.model import Group
from monitoring.build.profile import PRODUCTION, PROFILES, Profile
from monitoring.build.promtool import promtool_tests
from monitoring.build.records import TOPICS
from monitoring.build.render import groups_of, prometheus_rule, to_yaml
from monitoring.build.slo.groups import SCHEMA_PATH, schema, slo_groups
from monitoring.build.slo.promtool_tests import slo_tests

ROOT: Final = Path(__file__).parents[2]
OBJECTIVES: Final = ROOT / "monitoring/slo/objectives.yml"
GENERATED: Final = (
    "monitoring/prometheus/rules",
    "monitoring/prometheus/tests",
    "monitoring/loki/rules",
    "monitoring/demo",
    "monitoring/grafana/dashboards",
)
"""Directories in which everything is generated: what is there and not made is left over."""


def rule_groups() -> dict[str, tuple[Group, ...]]:
    """Return all groups by the name of their file, recording rules first."""
    records = {f"records-{topic}": groups for topic, groups in TOPICS.items()}
    return records | families() | slo_groups(load_objectives(OBJECTIVES))


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
    } | {
        # "fake" is what Loki calls the only tenant where nobody logs in.
        f"{where}/loki/rules/fake/{name}.yml": to_yaml(
            groups_of(groups, conventions, profile), source="monitoring/build/logs"
        )
        for name, groups in LOG_GROUPS.items()
    }
    if profile is PRODUCTION:
        made |= _tests(conventions)
        made[SCHEMA_PATH] = schema()
        made["docs/alerts.md"] = index(rule_groups() | LOG_GROUPS)
        made["docs/objectives.md"] = table(load_objectives(OBJECTIVES))
        made |= {
            f"monitoring/grafana/dashboards/{file}": text
            for file, text in dashboards(
                group for groups in rule_groups().values() for group in groups
            ).items()
        }
        made["deploy/kubernetes/prometheus-rules.yml"] = to_yaml(
            prometheus_rule(rules, conventions.service), source="monitoring/build"
        )
    else:
        made |= _configuration(profile, where)
    return made


def _configuration(profile: Profile, where: str) -> dict[str, str]:
    """Return what is written by hand for production, in another profile."""
    return {
        f"{where}/prometheus/prometheus.yml": to_yaml(
            prometheus.scaled(prometheus.load_configuration(), profile),
            source="monitoring/prometheus/prometheus.yml",
        ),
        f"{where}/alertmanager/alertmanager.yml": to_yaml(
            alertmanager.scaled(alertmanager.load_alertmanager(), profile),
            source="monitoring/alertmanager/alertmanager.yml",
        ),
    }


def all_artifacts() -> dict[str, str]:
    """Return the files of all profiles."""
    return {
        path: text for profile in PROFILES.values() for path, text in artifacts(profile).items()
    }


def _source(name: str) -> str:
    if name.startswith("slo-"):
        return str(OBJECTIVES.relative_to(ROOT))
    kind, topic = ("records", name[8:]) if name.startswith("records-") else ("alerts", name)
    source = f"monitoring/build/{kind}/{topic}"
    return source if (ROOT / source).is_dir() else f"{source}.py"


def _tests(conventions: Conventions) -> dict[str, str]:
    return {
        f"monitoring/prometheus/tests/{name}.test.yml": to_yaml(
            promtool_tests(
                groups,
                conventions,
                rule_files=[f"../rules/{file}.rules.yml" for file in [*_read_by(groups), name]],
            ),
            source=_source(name),
        )
        for name, groups in families().items()
    } | {
        f"monitoring/prometheus/tests/{name}.test.yml": to_yaml(content, source=_source(name))
        for name, content in slo_tests(load_objectives(OBJECTIVES), conventions).items()
    }


def _read_by(groups: Iterable[Group]) -> list[str]:
    """Return the files of those records that these rules name: promtool evaluates all that it loads."""
    expressions = [rule.expr for group in groups for rule in group.rules]
    return [
        f"records-{topic}"
        for topic, recorded in TOPICS.items()
        if any(
            rule.name in expression
            for group in recorded
            for rule in group.rules
            for expression in expressions
        )
    ]
