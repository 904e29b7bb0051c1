"""What the receiver takes and what it refuses, by the answers that the real services give."""

from typing import Any

import pytest

from sandbox.notifications.intake import MAX_BODY_BYTES
from tests.unit.sandbox.notifications.messages import KEY, Client, pagerduty, slack, webhook

ADDRESSES = ["/alertmanager", "/slack", "/pagerduty/v2/enqueue"]
EVERY_ADDRESS = pytest.mark.parametrize("address", ADDRESSES)


async def test_a_webhook_is_kept_as_it_was_sent(receiver: Client) -> None:
    assert (await receiver.send("/alertmanager", webhook())).status_code == 200
    (found,) = await receiver.list()
    assert found["channel"] == "webhook"
    assert found["receiver"] == "critical"
    assert found["alerts"] == ["ErrorsHigh"]
    assert found["title"] == "Requests fail"
    assert "7 % fail" in found["text"]
    assert found["payload"] == webhook()


async def test_slack_answers_ok_and_nothing_else(receiver: Client) -> None:
    answer = await receiver.send("/slack", slack())
    assert (answer.status_code, answer.text) == (200, "ok")
    assert answer.headers["Content-Type"].startswith("text/plain")


async def test_pagerduty_accepts_for_later(receiver: Client) -> None:
    answer = await receiver.send("/pagerduty/v2/enqueue", pagerduty())
    assert answer.status_code == 202
    assert answer.json() == {
        "status": "success",
        "message": "Event processed",
        "dedup_key": "d" * 64,
    }
    without = await receiver.send("/pagerduty/v2/enqueue", pagerduty(dedup_key=""))
    assert len(without.json()["dedup_key"]) == 32


async def test_pagerduty_takes_the_end_of_an_incident_without_a_payload(receiver: Client) -> None:
    event = {"routing_key": KEY, "event_action": "resolve", "dedup_key": "d"}
    assert (await receiver.send("/pagerduty/v2/enqueue", event)).status_code == 202
    assert [one["status"] for one in await receiver.list()] == ["resolved"]


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("/alertmanager", []),
        ("/alertmanager", webhook(version="3")),
        ("/alertmanager", webhook(alerts=[])),
        ("/alertmanager", webhook(alerts=[{}])),
        ("/alertmanager", webhook(status="gone")),
        ("/slack", "text"),
        ("/slack", {}),
        ("/slack", {"attachments": [{}]}),
        ("/slack", {"attachments": [{"text": 1}]}),
        ("/pagerduty/v2/enqueue", pagerduty(routing_key="short")),
        ("/pagerduty/v2/enqueue", pagerduty(event_action="shout")),
        ("/pagerduty/v2/enqueue", pagerduty(payload=None)),
        ("/pagerduty/v2/enqueue", pagerduty(event_action="resolve", dedup_key="")),
    ],
)
async def test_what_is_no_notification_is_refused(
    receiver: Client, address: str, message: Any
) -> None:
    answer = await receiver.send(address, message)
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["request_id"]
    assert await receiver.list() == []


@EVERY_ADDRESS
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b'{"a": NaN}', b'{"text": "\\ud800"}', b"[" * 100_000],
    ids=["nothing", "half", "no UTF-8", "no number", "half a character", "too deep"],
)
async def test_what_is_no_json_is_refused(receiver: Client, address: str, body: bytes) -> None:
    answer = await receiver.send(address, body)
    assert answer.status_code == 400
    assert answer.json()["code"] == "not_json"


@EVERY_ADDRESS
async def test_a_body_is_read_no_further_than_the_limit(receiver: Client, address: str) -> None:
    answer = await receiver.send(address, b" " * (MAX_BODY_BYTES + 1))
    assert answer.status_code == 413
    assert answer.headers["Content-Type"] == "application/problem+json"


@EVERY_ADDRESS
async def test_a_form_of_another_page_is_refused(receiver: Client, address: str) -> None:
    answer = await receiver.http.post(
        address, content=b'{"text": "x"}', headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 415


async def test_another_name_for_this_machine_reads_nothing(receiver: Client) -> None:
    answer = await receiver.http.get("/v1/notifications", headers={"Host": "evil.example"})
    assert answer.status_code == 400


async def test_the_list_is_filtered_and_newest_first(receiver: Client) -> None:
    await receiver.send("/alertmanager", webhook())
    await receiver.send("/alertmanager", webhook(receiver="info"))
    await receiver.send("/slack", slack())
    assert [one["channel"] for one in await receiver.list()] == ["slack", "webhook", "webhook"]
    assert [one["receiver"] for one in await receiver.list(channel="webhook")] == [
        "info",
        "critical",
    ]
    assert len(await receiver.list(receiver="critical")) == 2
    assert len(await receiver.list(limit=1)) == 1
    newest = (await receiver.list())[0]["id"]
    assert await receiver.list(after=newest) == []
    assert len(await receiver.list(after=newest - 1)) == 1


@pytest.mark.parametrize("query", ["channel=fax", "limit=0", "limit=501", "after=-1", "after=x"])
async def test_a_bad_filter_is_refused(receiver: Client, query: str) -> None:
    answer = await receiver.http.get(f"/v1/notifications?{query}")
    assert answer.status_code == 422
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_numbers_of_any_size_come_back(receiver: Client) -> None:
    body = b'{"text": "x", "number": 123456789012345678901234567890}'
    assert (await receiver.send("/slack", body)).status_code == 200
    (found,) = await receiver.list()
    assert found["payload"]["number"] == 123456789012345678901234567890


async def test_it_is_healthy_and_measured(receiver: Client) -> None:
    assert (await receiver.http.get("/health")).json() == {"status": "ok"}
    await receiver.send("/slack", slack())
    metrics = (await receiver.http.get("/metrics")).text
    assert 'http_requests_total{handler="/slack"' in metrics
