"""Alertmanager's own webhook, version 4: the whole message as data, which this page words itself.

https://prometheus.io/docs/alerting/latest/configuration/#webhook_config
"""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, BaseModel, Field, model_validator

from sandbox.notifications.shown import (
    MAX_PARAGRAPHS,
    Paragraph,
    Shown,
    Status,
    in_a_row,
    part,
)

BEFORE: Final = timedelta(minutes=15)
AFTER: Final = timedelta(minutes=5)
WHILE_IT_FIRES: Final = timedelta(hours=1)
"""The time that links show, as monitoring/alertmanager/templates/common.tmpl has it."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LINKS: Final = ("runbook", "dashboard", "logs", "traces")

YEARS: Final = (1970, 9000)

Labels = dict[str, str]


def _in_our_time(at: datetime) -> datetime:
    """Refuse a time at the edges of the calendar, where adding an hour is an error."""
    if not YEARS[0] <= at.year <= YEARS[1]:
        raise ValueError(f"the year is not between {YEARS[0]} and {YEARS[1]}")
    return at


Moment = Annotated[AwareDatetime, AfterValidator(_in_our_time)]


class Alert(BaseModel):
    """One alert of the message."""

    status: Status
    labels: Labels
    annotations: Labels = Field(default_factory=dict)
    starts_at: Moment = Field(alias="startsAt")
    ends_at: AwareDatetime = Field(alias="endsAt")
    """Of an alert that fires it is the year 1, which means nothing."""

    @model_validator(mode="after")
    def _ends_in_our_time(self) -> "Alert":
        if self.status == "resolved":
            _in_our_time(self.ends_at)
        return self


class Webhook(BaseModel):
    """The message."""

    version: Literal["4"]
    status: Status
    receiver: str
    common_labels: Labels = Field(alias="commonLabels", default_factory=dict)
    external_url: str = Field(alias="externalURL", default="")
    truncated_alerts: int = Field(alias="truncatedAlerts", default=0)
    alerts: Annotated[list[Alert], Field(min_length=1)]


def read_webhook(message: Any) -> Shown:
    """Return what to show of a webhook.

    Raises:
        pydantic.ValidationError: It is not one.
    """
    webhook = Webhook.model_validate(message)
    firing = [alert for alert in webhook.alerts if alert.status == "firing"]
    first = (firing or webhook.alerts)[0]
    more = len(firing or webhook.alerts) + webhook.truncated_alerts - 1
    paragraphs = [line for alert in webhook.alerts for line in _lines(alert)]
    if webhook.truncated_alerts:
        paragraphs.append((part(f"And {webhook.truncated_alerts} more alerts."),))
    return Shown(
        receiver=part(webhook.receiver).text,
        status=webhook.status,
        severity=part(webhook.common_labels.get("severity", "")).text,
        title=part(
            _sentence(first) + (f" (and {more} more)" if more else ""), webhook.external_url
        ),
        paragraphs=tuple(paragraphs[:MAX_PARAGRAPHS]),
        alerts=tuple(part(alert.labels.get("alertname", "")).text for alert in webhook.alerts),
    )


def _sentence(alert: Alert) -> str:
    return alert.annotations.get("summary") or alert.labels.get("alertname", "An alert")


def _lines(alert: Alert) -> list[Paragraph]:
    rest = ", ".join(
        f"{name}={value}" for name, value in alert.labels.items() if name != "alertname"
    )
    lines: list[Paragraph] = [
        (part(f"{alert.labels.get('alertname', '')}: {_sentence(alert)}", strong=True),)
    ]
    if description := alert.annotations.get("description"):
        lines.append((part(description),))
    lines += [(part(_since(alert)),), (part(rest),)]
    links = [part(name.capitalize(), _link(alert, name)) for name in _LINKS]
    lines.append(in_a_row([link for link in links if link.url]))
    return [line for line in lines if line]


def _since(alert: Alert) -> str:
    begin = f"{alert.starts_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    if alert.status == "firing":
        return f"Since {begin}"
    lasted = timedelta(seconds=round((alert.ends_at - alert.starts_at).total_seconds()))
    return f"Resolved after {lasted} (h:mm:ss), since {begin}"


def _link(alert: Alert, name: str) -> str:
    fires = alert.status == "firing"
    end = alert.starts_at + WHILE_IT_FIRES if fires else alert.ends_at + AFTER
    url = alert.annotations.get(f"{name}_url", "")
    return url.replace("@start@", _unix(alert.starts_at - BEFORE)).replace("@end@", _unix(end))


def _unix(at: datetime) -> str:
    return str((at - _EPOCH) // timedelta(milliseconds=1))
