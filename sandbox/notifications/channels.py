"""The channels by name: how each is read."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from sandbox.notifications.pagerduty import read_pagerduty
from sandbox.notifications.shown import Channel, Shown
from sandbox.notifications.slack import read_slack
from sandbox.notifications.webhook import read_webhook

READERS: Final[Mapping[Channel, Callable[[Any], Shown]]] = {
    "webhook": read_webhook,
    "slack": read_slack,
    "pagerduty": read_pagerduty,
}
NAMES: Final[Mapping[Channel, str]] = {
    "webhook": "Webhook",
    "slack": "Slack",
    "pagerduty": "PagerDuty",
}
