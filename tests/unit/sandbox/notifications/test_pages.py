"""What a person sees: every notification as its channel shows it, escaped; and the runbooks."""

import re
from html import unescape

import pytest

from tests.unit.sandbox.notifications.messages import Client, pagerduty, slack, webhook

HOSTILE = """</style></script><script>alert(1)</script><img src=x onerror="alert(2)">'"&lt;"""


def words(page: str) -> str:
    """The text of a page without its elements."""
    main = page[page.index("<main") : page.index("</main>")]
    return unescape(re.sub(r"<[^>]*>", " ", main))


async def test_an_empty_page_says_what_to_do(receiver: Client) -> None:
    page = words(await receiver.page())
    assert "No notifications yet" in page
    assert "amtool alert add" in page
    assert "The watchdog has not been heard yet." in page
    assert "Nothing came by Slack yet" in words(await receiver.page("/?channel=slack"))


async def test_each_notification_is_shown_newest_first(receiver: Client) -> None:
    await receiver.send("/alertmanager", webhook())
    await receiver.send(
        "/slack", slack("*First* line\n<http://localhost:3000/|Dashboard> a &lt; b")
    )
    await receiver.send("/pagerduty/v2/enqueue", pagerduty())
    page = await receiver.page()
    text = words(page)
    order = [page.index(f'id="n{number}"') for number in (3, 2, 1)]
    assert order == sorted(order)
    assert "a < b" in text
    assert "<b>First</b>" in page
    assert '<a href="http://localhost:3000/" rel="noreferrer">' in page
    assert '<a href="http://localhost:8003/runbooks/ErrorsHigh" rel="noreferrer">' in page
    only = await receiver.page("/?channel=slack")
    assert 'id="n2"' in only
    assert 'id="n1"' not in only


async def test_the_watchdog_has_its_own_place(receiver: Client) -> None:
    await receiver.send("/alertmanager", webhook(receiver="watchdog"))
    page = await receiver.page()
    assert "Watchdog last heard" in words(page)
    assert "<article" not in page


async def test_resolved_is_told_apart_from_firing(receiver: Client) -> None:
    await receiver.send("/alertmanager", webhook())
    ended = webhook(status="resolved")
    ended["alerts"] = [
        ended["alerts"][0] | {"status": "resolved", "endsAt": "2026-11-21T11:02:03.123456789Z"}
    ]
    await receiver.send("/alertmanager", ended)
    page = await receiver.page()
    assert 'class="firing critical"' in page
    assert 'class="resolved"' in page
    assert "Resolved after 1:02:03 (h:mm:ss), since 2026-11-21 10:00:00 UTC" in words(page)


async def test_what_arrives_cannot_become_markup(receiver: Client) -> None:
    alert = webhook()["alerts"][0]
    alert["annotations"] = dict.fromkeys(
        ("summary", "description", "runbook_url", "logs_url"), HOSTILE
    )
    alert["labels"] = {"alertname": HOSTILE, HOSTILE: HOSTILE}
    hostile = webhook(receiver=HOSTILE, alerts=[alert], externalURL=HOSTILE)
    assert (await receiver.send("/alertmanager", hostile)).status_code == 200
    await receiver.send("/slack", slack(HOSTILE, title=HOSTILE, title_link=HOSTILE, footer=HOSTILE))
    details = {HOSTILE: HOSTILE, "receiver": HOSTILE}
    payload = pagerduty()["payload"] | {"summary": HOSTILE, "custom_details": details}
    links = [{"href": HOSTILE, "text": HOSTILE}]
    await receiver.send("/pagerduty/v2/enqueue", pagerduty(payload=payload, links=links))
    page = await receiver.page()
    assert page.count("<article") == 3
    assert page.count("<script") == 1  # ours
    assert "<img" not in page
    assert HOSTILE in words(page)


@pytest.mark.parametrize(
    "target", ["javascript:alert(1)", "data:text/html,x", "//evil", "http:///x"]
)
async def test_only_web_addresses_become_links(receiver: Client, target: str) -> None:
    await receiver.send("/slack", slack(f"<{target}|click>", title_link=target))
    page = await receiver.page()
    assert "click" in words(page)
    assert f'href="{target}' not in page
    assert (await receiver.list())[0]["links"] == []


async def test_the_page_loads_nothing_and_runs_nothing_of_others(receiver: Client) -> None:
    answer = await receiver.http.get("/")
    policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    assert not re.search(r"""(src|href)=["'](https?:)?//(?!localhost)""", answer.text)


async def test_a_runbook_is_shown(receiver: Client) -> None:
    text = (
        "# ErrorsHigh\n\n## What it *means*\n\nSee [the other](DatabaseDown.md#what), [outside]"
        "(https://example.org/), [code](../../app/main.py), [below](#what-it-means) and "
        "[bad](javascript:alert(1)).\n\n| a | b |\n|---|---|\n| `x` | y |\n\n"
        "![picture](http://example.org/x.png)\n\n<script>alert(1)</script> <b>raw</b>\n"
    )
    (receiver.runbooks / "ErrorsHigh.md").write_text(text)
    page = await receiver.page("/runbooks/ErrorsHigh")
    assert '<h2 id="what-it-means">' in page
    assert 'href="/runbooks/DatabaseDown#what"' in page
    assert 'href="https://example.org/"' in page
    assert 'href="#what-it-means"' in page
    assert "main.py" not in page
    assert "<td><code>x</code></td>" in page
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;b&gt;raw&lt;/b&gt;" in page
    assert "javascript:" not in re.findall(r'href="([^"]*)"', page)
    assert 'href="/runbooks/ErrorsHigh"' in await receiver.page("/runbooks")


@pytest.mark.parametrize(
    "name",
    [
        "Nothing",
        "..%2Fsecret",
        "%2e%2e%2fsecret",
        "../secret",
        "ErrorsHigh.md",
        "ErrorsHigh%00",
        ".hidden",
        "Linked",
        "x" * 300,
        "ä",
    ],
)
async def test_nothing_but_a_runbook_is_read(receiver: Client, name: str) -> None:
    (receiver.runbooks / "ErrorsHigh.md").write_text("# ErrorsHigh")
    secret = receiver.runbooks.parent / "secret.md"
    secret.write_text("verysecret")
    (receiver.runbooks / ".hidden.md").write_text("verysecret")
    (receiver.runbooks / "Linked.md").symlink_to(secret)
    answer = await receiver.http.get(f"/runbooks/{name}")
    assert answer.status_code == 404
    assert "verysecret" not in answer.text


async def test_a_missing_runbook_is_a_page_that_says_so(receiver: Client) -> None:
    answer = await receiver.http.get("/runbooks/Nothing")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "There is no such runbook" in answer.text
    assert "No runbooks here" in await receiver.page("/runbooks")
