"""Alertmanager: it is told by Prometheus, and what it is told arrives as e-mail and on the page.

The alert is a warning about a house of its own, for a team of its own. With the configuration of this
repository it stays on this machine; a stack with secrets for Slack or SMTP tells these, too.
"""

import secrets
from collections.abc import Iterator

import pytest

from deploy.stack.backends.alertmanager import Alertmanager
from deploy.stack.backends.mailpit import Mailpit
from deploy.stack.backends.notifications import Notifications
from tests.e2e.conftest import Stack, eventually

WAIT_SECONDS = 150.0
"""Alertmanager groups warnings for a minute before it tells the first of them."""


@pytest.fixture(scope="module")
def mark(stack: Stack) -> Iterator[str]:
    """The name of the house about which an alert was raised; the alert is over at the end."""
    alertmanager, mark = stack.ask(Alertmanager), f"e2e-{secrets.token_hex(4)}"
    labels = {
        "alertname": "EndToEndTest",
        "severity": "warning",
        "service": "stack-check",
        "environment": mark,
        "team": "end-to-end",
    }
    said = {
        "summary": f"Test alert {mark}",
        "description": "Raised by tests/e2e; nothing is wrong.",
    }
    alertmanager.tell(labels, said, seconds=300)
    yield mark
    alertmanager.tell(labels, said, seconds=0)


def test_prometheus_tells_it(stack: Stack) -> None:
    alertmanager = stack.ask(Alertmanager)
    eventually(lambda: alertmanager.alerts(alertname="Watchdog"), "the Watchdog arrives")


def test_an_alert_arrives_as_e_mail(stack: Stack, mark: str) -> None:
    mailpit = stack.ask(Mailpit)
    letters = eventually(lambda: mailpit.search(mark), f"an e-mail about {mark}", WAIT_SECONDS)
    assert letters[0]["Subject"] == f"[WARNING] Test alert {mark} ({mark})"
    assert [one["Address"] for one in letters[0]["To"]] == ["end-to-end@glasshouse.example"]
    letter = mailpit.message(letters[0]["ID"])
    assert "Raised by tests/e2e; nothing is wrong." in letter["Text"]


def test_an_alert_arrives_on_the_page_of_notifications(stack: Stack, mark: str) -> None:
    page = stack.ask(Notifications)
    told = eventually(
        lambda: page.about("warning", environment=mark),
        f"a notification about {mark}",
        WAIT_SECONDS,
    )
    assert told[0]["status"] == "firing"
    assert told[0]["severity"] == "warning"
    assert f"Test alert {mark}" in told[0]["title"]
