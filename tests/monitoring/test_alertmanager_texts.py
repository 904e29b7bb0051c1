"""What people read: each channel's templates, rendered by Alertmanager itself and sent to where they go."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.monitoring.alertmanager import House, make_alert, new_environment, open_house
from tests.monitoring.mailbox import Mail

EXPLORE = "http://grafana.test/explore?schemaVersion=1&panes=%7B%22from%22%3A%22@start@%22%2C%22to%22%3A%22@end@%22%7D"
ANNOTATIONS = {
    "summary": "Customers cannot pay <b>at all</b> & leave",
    "description": "37 % of payments fail <!channel>; <script>alert(1)</script> it should be below 0.5 %",
    "runbook_url": "http://runbooks.test/runbooks/PaymentsFail",
    "dashboard_url": "http://grafana.test/d/glasshouse-api?var-a=b&from=@start@&to=@end@",
    "logs_url": EXPLORE,
    "traces_url": "http://jaeger.test/search?service=glasshouse&start=@start@000&end=@end@000&limit=20",
}
FIRED_SINCE = timedelta(hours=2)
ENVIRONMENT = new_environment()


def alert(*, ended: bool = False) -> dict[str, Any]:
    """The alert that is told of."""
    return make_alert(
        "PaymentsFail",
        {"severity": "critical", "environment": ENVIRONMENT, "instance": 'api"1&<x>:8000'},
        since=FIRED_SINCE,
        ended=ended,
        annotations=ANNOTATIONS,
    )


class Messages:
    """What arrived by each channel for one alert, when it fired and when it was over."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.url = house.alertmanager.url
        first = alert()
        self.start = datetime.fromisoformat(first["startsAt"])
        house.alertmanager.post(first)
        self.firing = self._wait(house, "firing")
        last = alert(ended=True) | {"startsAt": first["startsAt"]}
        self.end = datetime.fromisoformat(last["endsAt"])
        house.alertmanager.post(last)
        self.resolved = self._wait(house, "resolved")

    def _wait(self, house: House, status: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            channel: house.notifications.wait_for(
                lambda one: one["status"] == status,
                f"{channel} {status}\n{house.alertmanager.log()}",
                channel=channel,
            )
            for channel in ("webhook", "slack", "pagerduty")
        }
        prefix = "[RESOLVED]" if status == "resolved" else "[CRITICAL]"
        found["mail"] = house.mailbox.wait_for(
            lambda mail: mail.message["Subject"].startswith(prefix), f"e-mail {status}"
        )
        return found

    def window(self, status: str) -> tuple[int, int]:
        """The time that links show, in milliseconds."""
        begin = self.start - timedelta(minutes=15)
        end = (
            self.end + timedelta(minutes=5)
            if status == "resolved"
            else self.start + timedelta(hours=1)
        )
        return milliseconds(begin), milliseconds(end)

    def links(self, status: str) -> list[str]:
        """The links that every channel shows."""
        begin, end = map(str, self.window(status))
        names = ("runbook_url", "dashboard_url", "logs_url", "traces_url")
        return [ANNOTATIONS[name].replace("@start@", begin).replace("@end@", end) for name in names]


def milliseconds(at: datetime) -> int:
    """A moment as Grafana takes it; Alertmanager keeps and passes on milliseconds."""
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@pytest.fixture(scope="module")
def messages(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Messages]:
    with open_house(tmp_path_factory.mktemp("texts")) as house:
        yield Messages(house)


STATUSES = pytest.mark.parametrize("status", ["firing", "resolved"])
CHANNELS = pytest.mark.parametrize("channel", ["slack", "pagerduty", "webhook"])


def of(messages: Messages, status: str) -> dict[str, Any]:
    found: dict[str, Any] = getattr(messages, status)
    return found


def since(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


@STATUSES
@CHANNELS
def test_every_channel_says_what_since_when_and_how_bad(
    messages: Messages, channel: str, status: str
) -> None:
    found = of(messages, status)[channel]
    assert found["receiver"] == "critical"
    assert found["severity"] == "critical"
    text = found["text"]
    for expected in (
        ANNOTATIONS["summary"],
        ANNOTATIONS["description"],
        since(messages.start),
        "PaymentsFail",
        ENVIRONMENT,
        'api"1&<x>:8000',
    ):
        assert expected in text


@STATUSES
@CHANNELS
def test_links_lead_to_the_time_of_the_alert(messages: Messages, channel: str, status: str) -> None:
    urls = [link["url"] for link in of(messages, status)[channel]["links"]]
    for expected in messages.links(status):
        assert expected in urls
    assert "@" not in "".join(urls)


@CHANNELS
def test_a_resolved_message_says_so_and_how_long_it_lasted(
    messages: Messages, channel: str
) -> None:
    text = of(messages, "resolved")[channel]["text"]
    assert "Resolved" in text
    assert re.search(r"after 2(h0m|:00:0)\ds?", text), text
    assert "after" not in of(messages, "firing")[channel]["text"]


@STATUSES
def test_the_sentence_comes_first(messages: Messages, status: str) -> None:
    found = of(messages, status)
    tag = "RESOLVED" if status == "resolved" else "CRITICAL"
    subject = f"[{tag}] {ANNOTATIONS['summary']} ({ENVIRONMENT})"
    assert found["slack"]["title"] == subject
    assert found["pagerduty"]["title"] == subject
    assert found["mail"].message["Subject"] == subject
    assert found["mail"].part("plain").startswith(ANNOTATIONS["summary"] + "\n")


def test_slack_cannot_be_made_to_call_everybody(messages: Messages) -> None:
    (attachment,) = messages.firing["slack"]["payload"]["attachments"]
    assert "&lt;!channel&gt;" in attachment["text"]
    assert "<!channel>" not in attachment["text"]
    assert attachment["color"] == "danger"
    assert messages.resolved["slack"]["payload"]["attachments"][0]["color"] == "good"


def test_pagerduty_opens_an_incident_and_ends_the_same_one(messages: Messages) -> None:
    opened, ended = (
        messages.firing["pagerduty"]["payload"],
        messages.resolved["pagerduty"]["payload"],
    )
    assert (opened["event_action"], ended["event_action"]) == ("trigger", "resolve")
    assert opened["dedup_key"] == ended["dedup_key"] != ""
    assert opened["payload"]["severity"] == "critical"
    assert opened["payload"]["class"] == "PaymentsFail"
    assert opened["payload"]["component"] == "api"


@STATUSES
def test_e_mail_goes_to_the_team_and_has_both_forms(messages: Messages, status: str) -> None:
    mail: Mail = of(messages, status)["mail"]
    assert mail.recipients == ("shop@glasshouse.example",)
    text, html = mail.part("plain"), mail.part("html")
    said = "Resolved at" if status == "resolved" else "Firing."
    for form in (text, html):
        assert said in form
        assert since(messages.start) in form
        assert ENVIRONMENT in form
        assert ("Resolved at" in form) == (status == "resolved")
    for link in messages.links(status):
        assert link in text
        assert f'href="{link.replace("&", "&amp;")}"' in html


def test_e_mail_escapes_what_is_not_markup(messages: Messages) -> None:
    html = messages.firing["mail"].part("html")
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html
    assert "<b>at all" not in html
    assert "api&#34;1&amp;&lt;x&gt;:8000" in html


@pytest.mark.parametrize("channel", ["slack", "pagerduty"])
def test_the_silence_link_is_for_this_alert_alone(messages: Messages, channel: str) -> None:
    urls = [link["url"] for link in messages.firing[channel]["links"]]
    (silence,) = [url for url in urls if "/#/silences/new" in url]
    assert silence.startswith(f"{messages.url}/#/silences/new?filter=%7B")
    assert "alertname%3D%22PaymentsFail%22%2C%20" in silence
    assert f"environment%3D%22{ENVIRONMENT}%22" in silence
    assert "instance%3D%22api%5C%221%26%3Cx%3E%3A8000%22" in silence
    html = messages.firing["mail"].part("html")
    assert f'href="{silence}"' in html


def test_what_still_fires_comes_before_what_is_over(messages: Messages) -> None:
    house, environment = messages.house, new_environment()
    labels = {"environment": environment, "severity": "critical"}
    # Many that are over, and in the order of names, which is Alertmanager's, before the one that fires.
    names = [f"instance-{number}" for number in range(8)]
    alerts = [make_alert("Flapping", labels | {"instance": name}) for name in names]
    house.alertmanager.post(*alerts)
    house.notifications.wait_for(
        lambda one: environment in one["text"] and len(one["alerts"]) == 8, "all fire"
    )
    over = datetime.now(UTC).isoformat()
    house.alertmanager.post(*(alert | {"endsAt": over} for alert in alerts[:-1]))
    told = house.notifications.wait_for(
        lambda one: environment in one["text"] and "Resolved" in one["text"],
        "seven are over",
        channel="slack",
    )
    assert told["status"] == "firing"
    assert told["text"].index("instance-7") < told["text"].index("Resolved at")
    assert "All 8 alerts of this message" in told["text"]
    pagerduty = house.notifications.wait_for(
        lambda one: environment in one["text"] and "Resolved" in one["text"],
        "PagerDuty is told, too",
        channel="pagerduty",
    )
    (silence,) = [link["url"] for link in pagerduty["links"] if link["text"] == "Silence"]
    assert "instance-7" in silence
    mail = house.mailbox.wait_for(
        lambda mail: environment in mail.part("plain") and "Resolved at" in mail.part("plain"),
        "an e-mail, too",
    )
    for form in ("plain", "html"):
        text = mail.part(form)
        assert text.index("instance-7") < text.index("Resolved at")
