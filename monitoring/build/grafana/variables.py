"""The variables of dashboards: what a person chooses at the top, and what links hand on.

`environment` is a label of build_info and of the logs, not of every series: it decides which instances
there are to choose from, and every query selects by `instance`.
"""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import QueryVariable
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models.dashboard import (
    VariableModel,
    VariableOption,
    VariableRefresh,
    VariableSort,
)

from monitoring.build.grafana.queries import PROMETHEUS

Variable = Builder[VariableModel]

_LABEL_VALUES: Final = 1  # how Grafana's editor knows it again
_EVERYTHING: Final = VariableOption(selected=True, text=["All"], value=["$__all"])


def label_values(name: str, label: str, series: str, *, of: str, description: str) -> QueryVariable:
    """Return a variable with the values of the label `of` in `series` within the shown time.

    All is the choice at the start, and means the values that there are: not `.*`, which would undo what
    another variable has narrowed.
    """
    query = f"label_values({series}, {of})"
    return (
        QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(PROMETHEUS)
        .query({"query": query, "qryType": _LABEL_VALUES, "refId": f"variable-{name}"})
        .definition(query)
        .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .current(_EVERYTHING)
        .allow_custom_value(False)
    )


def environment() -> Variable:
    """Return the variable `environment`: development, staging, production, as build_info says."""
    return label_values(
        "environment",
        "Environment",
        "build_info",
        of="environment",
        description="Where the service runs; narrows the instances, and the logs.",
    )


def instance(job: str) -> Variable:
    """Return the variable `instance`: the processes of scrape jobs of ours (a regular expression)."""
    return label_values(
        "instance",
        "Instance",
        f'build_info{{job=~"{job}",environment=~"$environment"}}',
        of="instance",
        description="One process, by the address that Prometheus scrapes.",
    )


def exporter_instance(job: str) -> Variable:
    """Return the variable `instance` for jobs that are not ours, and know nothing of environments."""
    return label_values(
        "instance",
        "Instance",
        f'up{{job=~"{job}"}}',
        of="instance",
        description="One target, by the address that Prometheus scrapes.",
    )
