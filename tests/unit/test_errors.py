"""Every refusal and every failure is one kind of document, and says nothing that it should not."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from httpx2 import Response
from prometheus_client import REGISTRY
from sqlalchemy import text
from starlette.responses import StreamingResponse

from app.errors import PROBLEM_MEDIA_TYPE, AppError
from app.infrastructure.database import Database
from app.infrastructure.dependencies import Session
from tests.service import (
    PASSWORD,
    YEAR,
    Service,
    ServiceClient,
    migrate_database,
    open_service,
)
from tests.tools import free_port

SECRET = "the combination is 1-2-3-4-5"
MEMBERS = {"type", "title", "status", "detail", "code", "instance", "request_id", "trace_id"}


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A migrated SQLite database, shared by the tests of this module."""
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('errors') / 'service.db'}"
    migrate_database(url)
    return url


def add_failing_routes(service: Service) -> None:
    """Add routes that fail as nothing in the service is known to."""

    @service.app.get("/fails")
    async def fails() -> None:
        raise RuntimeError(SECRET)

    @service.app.get("/fails-halfway")
    async def fails_halfway() -> StreamingResponse:
        async def body() -> AsyncIterator[bytes]:
            yield b"so far"
            raise RuntimeError(SECRET)

        return StreamingResponse(body())

    @service.app.get("/asks")
    async def asks(statement: str, session: Session) -> None:
        await session.execute(text(statement))


@pytest_asyncio.fixture
async def service(database_url: str) -> AsyncIterator[Service]:
    """The API with routes that fail, answering as it would behind a server."""
    async with open_service(
        database_url, raise_app_exceptions=False, max_body_bytes=2048, rate_limit_login="2/year"
    ) as running:
        add_failing_routes(running)
        yield running


def problem_of(answer: Response, status: int, code: str) -> dict[str, Any]:
    """Return the document of an error, checked for what all of them have in common."""
    assert answer.status_code == status, answer.text
    assert answer.headers["Content-Type"] == PROBLEM_MEDIA_TYPE
    problem: dict[str, Any] = answer.json()
    assert set(problem) >= MEMBERS
    assert problem["status"] == status
    assert problem["code"] == code
    assert problem["type"] == f"urn:problem:{code.replace('_', '-')}"
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == answer.request.url.path
    assert re.fullmatch(r"[0-9a-f]{32}", problem["trace_id"])
    assert problem["trace_id"] == answer.headers["X-Trace-ID"]
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    assert problem["request_id"]
    for name, value in {
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
        "Cache-Control": "no-store",
    }.items():
        assert answer.headers[name] == value
    return problem


async def _chunks(size: int) -> AsyncIterator[bytes]:
    for _ in range(0, size, 512):
        yield b"x" * 512


async def test_every_error_is_a_problem_document_with_the_ids_of_its_request(
    service: Service,
) -> None:
    http = service.http
    person = await service.person()
    json = {"Content-Type": "application/json"}
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    taken = {"email": person.email, "password": PASSWORD, "name": "Ada"}
    missing = "00000000-0000-4000-8000-000000000000"
    answers: list[tuple[int, str, Response]] = [
        (400, "bad_request", await http.post("/v1/users", content=b'"\xff"', headers=json)),
        (401, "not_authenticated", await http.get("/v1/users/me")),
        (401, "invalid_credentials", await ServiceClient(http).log_in()),
        (404, "not_found", await http.get("/v1/nothing-here")),
        (404, "not_found", await http.get("/v1/users/me/nothing-here")),
        (404, "order_not_found", await person.get(f"/v1/orders/{missing}")),
        (404, "payment_not_found", await person.get(f"/v1/payments/{missing}")),
        (405, "method_not_allowed", await http.put("/v1/users")),
        (409, "email_taken", await http.post("/v1/users", json=taken)),
        (413, "payload_too_large", await http.post("/v1/users", content=b"x" * 4096)),
        (
            413,
            "payload_too_large",
            await http.post("/v1/users", content=_chunks(4096), headers=json),
        ),
        (
            413,
            "payload_too_large",
            await http.post("/v1/auth/token", content=_chunks(4096), headers=form),
        ),
        (422, "validation_failed", await http.post("/v1/users", content="{", headers=json)),
        (422, "validation_failed", await person.get("/v1/orders/no-id")),
        (422, "invalid_cursor", await person.get("/v1/orders", cursor="nonsense")),
        (429, "rate_limited", await person.log_in()),
        (500, "internal_error", await http.get("/fails")),
    ]
    for status, code, answer in answers:
        problem_of(answer, status, code)
    assert len({answer.json()["request_id"] for *_, answer in answers}) == len(answers)


async def test_a_clients_own_request_id_comes_back_in_the_document(service: Service) -> None:
    headers = {"X-Request-ID": "a-client-made-this-1"}
    answer = await service.http.get("/v1/users/me", headers=headers)
    assert problem_of(answer, 401, "not_authenticated")["request_id"] == "a-client-made-this-1"


async def test_a_method_that_is_not_allowed_is_told_which_ones_are(service: Service) -> None:
    answer = await service.http.put("/v1/users")
    assert answer.headers["Allow"] == "POST"


async def test_who_must_log_in_is_told_how(service: Service) -> None:
    for answer in (
        await service.http.get("/v1/users/me"),
        await ServiceClient(service.http).log_in(),
    ):
        assert answer.headers["WWW-Authenticate"] == "Bearer"


async def test_who_is_too_fast_is_told_how_long_to_wait(service: Service) -> None:
    stranger = ServiceClient(service.http)
    answers = [await stranger.log_in() for _ in range(3)]
    problem_of(answers[-1], 429, "rate_limited")
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= YEAR


async def test_a_failure_is_counted_and_logged_once_and_its_text_stays_inside(
    service: Service, log_records: list[dict[str, Any]]
) -> None:
    def counted() -> float:
        return REGISTRY.get_sample_value("unhandled_exceptions_total", {"where": "request"}) or 0

    before = counted()
    answer = await service.http.get("/fails")
    problem_of(answer, 500, "internal_error")
    for inside in (SECRET, "RuntimeError", "Traceback", "fails()"):
        assert inside not in answer.text
    assert counted() - before == 1
    recorded = [record for record in log_records if record["message"] == "Unhandled exception"]
    assert len(recorded) == 1
    assert recorded[0]["extra"]["exception_type"] == "RuntimeError"


async def test_a_failure_after_the_answer_began_breaks_it_off(database_url: str) -> None:
    async with open_service(database_url) as service:
        add_failing_routes(service)
        before = REGISTRY.get_sample_value("unhandled_exceptions_total", {"where": "request"}) or 0
        # A server that sees this exception closes the connection: the client knows it has not all.
        with pytest.raises(RuntimeError, match="combination"):
            await service.http.get("/fails-halfway")
        after = REGISTRY.get_sample_value("unhandled_exceptions_total", {"where": "request"})
        assert after == before + 1


async def test_no_free_connection_is_said_as_503_and_passes(
    database_url: str, log_records: list[dict[str, Any]]
) -> None:
    async with open_service(
        database_url,
        database_pool_size=1,
        database_max_overflow=0,
        database_pool_timeout_seconds=0.05,
    ) as service:
        person = await service.person()
        database: Database = service.app.state.database
        before = REGISTRY.get_sample_value("unhandled_exceptions_total", {"where": "request"})
        async with database.engine.connect():
            answer = await person.get("/v1/orders")
        problem_of(answer, 503, "database_unavailable")
        # It was foreseen: somebody is told, by another line, and it is no bug to be counted.
        after = REGISTRY.get_sample_value("unhandled_exceptions_total", {"where": "request"})
        assert after == before
        said = [one["message"] for one in log_records if one["extra"].get("type") == "error"]
        assert said == ["A foreseen failure ended a request"]
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await person.get("/v1/orders")).status_code == 200


async def test_a_database_that_refuses_connections_is_said_as_503() -> None:
    url = f"postgresql://someone:{SECRET.replace(' ', '')}@127.0.0.1:{free_port()}/nothing"
    async with open_service(url) as service:
        answer = await ServiceClient(service.http).log_in()
        problem_of(answer, 503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert "1-2-3" not in answer.text


async def test_a_database_that_hangs_is_said_as_503() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        open_service(
            f"postgresql://someone@127.0.0.1:{port}/nothing", database_connect_timeout_seconds=0.2
        ) as service,
    ):
        answer = await ServiceClient(service.http).log_in()
        problem_of(answer, 503, "database_unavailable")


async def test_a_statement_that_is_wrong_is_a_500_since_no_retry_will_help(
    postgres_database: str, database_url: str
) -> None:
    for url, statements in {
        postgres_database: ["SELECT 1/0", "SELECT nothing", "SELEC", "SELECT 'a'::int"],
        database_url: [f"INSERT INTO users (id) VALUES ('{SECRET}')"],
    }.items():
        async with open_service(url, raise_app_exceptions=False) as service:
            add_failing_routes(service)
            for statement in statements:
                answer = await service.http.get("/asks", params={"statement": statement})
                problem_of(answer, 500, "internal_error")
                assert SECRET not in answer.text


async def test_a_statement_that_takes_too_long_is_a_503(postgres_database: str) -> None:
    async with open_service(postgres_database, database_statement_timeout_ms=50) as service:
        add_failing_routes(service)
        answer = await service.http.get("/asks", params={"statement": "SELECT pg_sleep(30)"})
        problem_of(answer, 503, "database_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1


def test_an_error_says_its_title_where_it_has_no_detail() -> None:
    class Refused(AppError):
        status = 409
        code = "refused"
        title = "That cannot be"

    assert Refused().detail == str(Refused()) == "That cannot be"
    assert Refused("Not today.", left=3).extensions == {"left": 3}
    assert Refused(headers={"Retry-After": "1"}).headers == {"Retry-After": "1"}


def test_every_code_and_status_stands_for_one_error() -> None:
    def kinds(error: type[AppError]) -> list[type[AppError]]:
        return [error, *(kind for below in error.__subclasses__() for kind in kinds(below))]

    known = [kind for kind in kinds(AppError) if kind.__module__.startswith("app.")]
    codes = [kind.code for kind in known]
    assert len(codes) == len(set(codes)) > 10
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)
    assert all(400 <= kind.status < 600 for kind in known)
