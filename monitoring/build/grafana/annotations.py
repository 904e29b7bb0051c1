"""What happened meanwhile, drawn into every graph: alerts that fired, and deployments."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders.dashboard import AnnotationQuery

from monitoring.build.grafana.colours import CRITICAL, NEUTRAL
from monitoring.build.grafana.queries import PROMETHEUS


def alerts(names: Sequence[str]) -> AnnotationQuery:
    """Return the times in which these alerts fired; without names, those that wake or call people."""
    chosen = f'alertname=~"{"|".join(names)}"' if names else 'severity=~"critical|warning"'
    return (
        AnnotationQuery()
        .name("Alerts")
        .datasource(PROMETHEUS)
        .enable(True)
        .icon_color(CRITICAL)
        .expr(f'ALERTS{{alertstate="firing",{chosen}}}')
        .step("60s")
        .title_format("{{alertname}}")
        .text_format("{{severity}} {{instance}}")
        .tag_keys("severity,component")
    )


def deployments() -> AnnotationQuery:
    """Return the minutes in which a version appeared that was not there a minute before."""
    seen = "max by (service, version, commit) (build_info)"
    return (
        AnnotationQuery()
        .name("Deployments")
        .datasource(PROMETHEUS)
        .enable(True)
        .icon_color(NEUTRAL)
        .expr(f"{seen} unless {seen.replace('build_info', 'build_info offset 1m')}")
        .step("60s")
        .title_format("{{service}} {{version}}")
        .text_format("{{commit}}")
        .tag_keys("service")
    )
