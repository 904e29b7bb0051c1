"""What happens at the edges: half a character, a forged proxy header, a request that is cut off."""

import asyncio
import json
import socket
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx2
import pytest
from sqlalchemy import make_url

from app.errors import UnhandledErrorMiddleware
from tests.books import reconcile_now
from tests.provider import RunningProvider
from tests.service import PASSWORD, Service, start_process
from tests.tools import wait_until


async def test_a_password_with_half_a_character_is_refused(service: Service) -> None:
    body = rb'{"email":"half@example.com","password":"long enough \ud800","name":"Ada"}'
    headers = {"Content-Type": "application/json"}
    answer = await service.http.post("/v1/users", content=body, headers=headers)
    assert answer.status_code == 422
    assert [found["pointer"] for found in answer.json()["errors"]] == ["/body/password"]


async def test_calls_with_one_key_and_an_unknown_token_are_all_refused_alike(
    service: Service,
) -> None:
    person = await service.person()
    order = await person.order()
    answers = await asyncio.gather(
        *(person.pay(order["id"], "tok_nobody_knows", key="once") for _ in range(6))
    )
    told = {(answer.status_code, answer.json().get("code")) for answer in answers}
    assert told <= {(422, "payment_token_refused")}
    assert (await person.pay(order["id"], key="another")).json()["status"] == "captured"


async def test_a_key_tells_the_outcome_once_it_is_known(service: Service) -> None:
    person = await service.person()
    order = await person.order()
    unknown = await person.pay(order["id"], "tok_error", key="once")
    assert unknown.json()["status"] == "pending"
    await reconcile_now(service)
    settled = await person.pay(order["id"], "tok_error", key="once")
    assert settled.json()["status"] == "failed"
    assert settled.json()["id"] == unknown.json()["id"]
    again = await person.pay(order["id"], "tok_error", key="once")
    assert again.content == settled.content


@pytest.mark.parametrize(("proxies", "third"), [("", 429), ("127.0.0.1", 401)])
def test_a_forwarded_address_counts_only_from_a_proxy_that_is_named(
    sqlite_service_database: str,
    provider: RunningProvider,
    tmp_path: Path,
    proxies: str,
    third: int,
) -> None:
    with start_process(
        "serve",
        tmp_path,
        database_url=sqlite_service_database,
        provider_url=provider.url,
        RATE_LIMIT_LOGIN="2/year",
        FORWARDED_ALLOW_IPS=proxies,
    ) as api:
        form = {"username": "nobody@example.com", "password": PASSWORD}
        answers = [
            httpx2.post(
                f"{api.url}/v1/auth/token", data=form, headers={"X-Forwarded-For": f"10.0.0.{i}"}
            ).status_code
            for i in range(3)
        ]
    assert answers == [401, 401, third]


async def test_a_request_that_is_cut_off_is_told_so_in_a_problem_document() -> None:
    begun = asyncio.Event()

    async def never_ends(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.request"}

    scope = {"type": "http", "path": "/v1/payments", "method": "POST", "headers": []}
    request = asyncio.create_task(UnhandledErrorMiddleware(never_ends)(scope, receive, send))
    await begun.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    assert sent[0]["status"] == 503
    assert (b"retry-after", b"1") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["code"] == "service_unavailable"


def test_a_client_that_leaves_before_its_answer_is_told_as_499(
    sqlite_service_database: str, provider: RunningProvider, tmp_path: Path
) -> None:
    with start_process(
        "serve", tmp_path, database_url=sqlite_service_database, provider_url=provider.url
    ) as api:

        def in_progress() -> float:
            page = httpx2.get(f"{api.url}/metrics").text
            return float(page.partition("\nhttp_requests_in_progress ")[2].partition("\n")[0])

        body = json.dumps({"email": "leaver@example.com", "password": PASSWORD, "name": "Ada"})
        request = (
            "POST /v1/users HTTP/1.1\r\nHost: api\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        with closing(sqlite3.connect(make_url(sqlite_service_database).database or "")) as busy:
            busy.execute("BEGIN IMMEDIATE")  # nobody is answered while this lasts
            with socket.create_connection(("127.0.0.1", api.port)) as client:
                client.sendall(request.encode())
                wait_until(lambda: in_progress() == 1, "the request is there")
            assert api.answers("/health/live")  # so the server has seen the connection close, too
            busy.rollback()

        def access() -> list[dict[str, Any]]:
            lines = [json.loads(line) for line in api.log().splitlines()]
            return [line for line in lines if line["type"] == "http_request"]

        wait_until(lambda: bool(access()), "the request has ended")
        assert [line["status"] for line in access()] == [499]
        page = httpx2.get(f"{api.url}/metrics").text
        assert 'http_requests_total{handler="/v1/users",method="POST",status="499"} 1.0' in page
