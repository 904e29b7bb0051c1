"""Escalation: an alert that fires for too long is told to other people, under a name of its own.

Made of ALERTS, the series that Prometheus keeps of its own alerts, so it holds for every alert there is.
`escalated` is the alert that nobody resolved, all its instances together. The other labels stay,
`depends_on` among them: what is not told as a symptom of something else is not told as unresolved either.
A silence in Alertmanager is not known here: one that is to last needs a second one, of `escalated`
(docs/operations/on-call.md).
"""

from collections.abc import Mapping
from typing import Final

from monitoring.build.model import Alert, Fires, Group, Severity, Silent


def _firing(severity: Severity) -> str:
    return (
        'count without (alertstate, instance) (label_replace(ALERTS{alertstate="firing",'
        f'severity="{severity}",alertname!~"Unresolved.+"}}, "escalated", "$1", "alertname", "(.+)"))'
    )


def _alerts(name: str, *, severity: Severity, state: str = "firing") -> str:
    return (
        f'ALERTS{{alertname="{name}",alertstate="{state}",severity="{severity}",'
        'component="database",service="glasshouse",team="shop",instance="a",depends_on="database"}'
    )


def _labels(escalated: str) -> Mapping[str, str]:
    return {"escalated": escalated, "depends_on": "database"}


_CRITICAL: Final = Alert(
    name="UnresolvedCritical",
    expr=_firing("critical"),
    severity="critical",
    component="watchdog",
    wait="30m",
    summary="A critical alert has been firing for <30m>, and nobody has resolved it.",
    description="{{ $labels.escalated }} has been firing for more than <30m>"
    " ({{ $value }} at this moment). It goes to the second line.",
    dashboard="overview",
    fires=(
        Fires(
            series={_alerts("PoolExhausted", severity="critical"): "1x40"},
            at="31m",
            labels=_labels("PoolExhausted"),
            value="1",
        ),
    ),
    silent=(
        Silent(
            why="29 minutes are not 30",
            series={_alerts("PoolExhausted", severity="critical"): "1x40"},
            at="29m",
        ),
        Silent(
            why="it was resolved in between",
            series={_alerts("PoolExhausted", severity="critical"): "1x20 stale _x2 1x20"},
            at="35m",
        ),
        Silent(
            why="it is pending, or a warning, or this alert itself",
            series={
                _alerts("PoolExhausted", severity="critical", state="pending"): "1x40",
                _alerts("PoolNearlyExhausted", severity="warning"): "1x40",
                _alerts("UnresolvedCritical", severity="critical"): "1x40",
            },
            at="35m",
        ),
    ),
)

_WARNING: Final = Alert(
    name="UnresolvedWarning",
    expr=_firing("warning"),
    severity="warning",
    component="watchdog",
    wait="24h",
    summary="A warning has been firing for <24h>, and nobody has resolved it.",
    description="{{ $labels.escalated }} has been firing for more than <24h>"
    " ({{ $value }} at this moment): resolve it, or change an alert that nobody acts on.",
    dashboard="overview",
    fires=(
        Fires(
            series={
                _alerts("PoolNearlyExhausted", severity="warning"): "1x300",
                # One of 23 hours, one that is this alert itself.
                _alerts("SlowQueriesHigh", severity="warning"): "_x24 1x276",
                _alerts("UnresolvedWarning", severity="warning"): "1x300",
            },
            at="1445m",
            labels=_labels("PoolNearlyExhausted"),
            value="1",
            interval="5m",
        ),
    ),
    silent=(
        Silent(
            why="an hour is not a day",
            series={_alerts("PoolNearlyExhausted", severity="warning"): "1x60"},
            at="1h",
        ),
    ),
)

GROUPS: tuple[Group, ...] = (Group("escalation", (_CRITICAL, _WARNING)),)
