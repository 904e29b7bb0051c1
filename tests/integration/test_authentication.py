"""Log-in, lock-out, log-out, and which tokens are believed."""

import asyncio
import base64
import datetime as dt
import json
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest
import pytest_asyncio
from httpx2 import Response
from pydantic import SecretStr
from sqlalchemy import select, update

from app.infrastructure.database import Database, now
from app.users import passwords
from app.users.models import User, UserSession
from tests.integration.conftest import OpenService
from tests.service import PASSWORD, YEAR, Service, ServiceClient, open_service

IDS = ("request_id", "trace_id")
WRONG = "not the password"
SIGNING_KEY = "0123456789abcdef" * 4  # long enough for HS512, too


@pytest_asyncio.fixture
async def sqlite_service(sqlite_service_database: str) -> AsyncIterator[Service]:
    """The API for what does not depend on the database."""
    async with open_service(sqlite_service_database) as running:
        yield running


@pytest.fixture
def quick_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compare passwords as text: what counts failures is tested, and not the CPU."""

    async def hash_password(password: str) -> str:
        return f"plain:{password}"

    async def verify_password(password: str, password_hash: str | None) -> bool:
        await asyncio.sleep(0)  # as the thread does, this lets other requests in
        return password_hash == f"plain:{password}"

    monkeypatch.setattr("app.users.service.hash_password", hash_password)
    monkeypatch.setattr("app.users.service.verify_password", verify_password)


def without_ids(answer: Response) -> dict[str, Any]:
    return {name: value for name, value in answer.json().items() if name not in IDS}


async def pass_time(service: Service, moved: dt.timedelta) -> None:
    """Let time pass for all accounts, by moving what is stored into the past."""
    database: Database = service.app.state.database
    async with database.transaction() as session:
        for user in await session.scalars(select(User)):
            if user.first_failed_at is not None:
                user.first_failed_at -= moved
            if user.locked_until is not None:
                user.locked_until -= moved


async def fail(person: ServiceClient, times: int) -> None:
    for _ in range(times):
        answer = await person.log_in(WRONG)
        assert (answer.status_code, answer.json()["code"]) == (401, "invalid_credentials")


async def test_a_log_in_gives_a_bearer_token_that_must_not_be_stored(service: Service) -> None:
    person = ServiceClient(service.http)
    await person.register()
    answer = await person.log_in()
    assert answer.status_code == 200
    token = answer.json()
    assert token["token_type"] == "bearer"
    assert token["expires_in"] == 3600
    assert answer.headers["Cache-Control"] == "no-store"
    assert (await person.get("/v1/users/me")).status_code == 200


@pytest.mark.parametrize(
    "unknown", ["nobody@example.com", "no address", "nul\x00@example.com", "\x00", ""]
)
async def test_an_unknown_address_and_a_wrong_password_are_answered_alike(
    service: Service, quick_passwords: None, unknown: str
) -> None:
    known, stranger = ServiceClient(service.http), ServiceClient(service.http)
    await known.register()
    stranger.email = unknown
    wrong, nobody = await known.log_in(WRONG), await stranger.log_in(WRONG)
    if unknown:
        assert wrong.status_code == nobody.status_code == 401
        assert without_ids(wrong) == without_ids(nobody)
        assert wrong.headers["WWW-Authenticate"] == nobody.headers["WWW-Authenticate"] == "Bearer"
        assert {*wrong.headers} == {*nobody.headers}
    else:
        assert nobody.status_code == 422  # no address at all is a mistake of the form


async def test_an_unknown_address_costs_as_many_hashes_as_a_wrong_password(
    sqlite_service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    person, stranger = ServiceClient(sqlite_service.http), ServiceClient(sqlite_service.http)
    await person.register()
    hasher = passwords._hasher
    verified: list[str] = []

    class Counting:
        def hash(self, password: str) -> str:
            return hasher.hash(password)

        def verify(self, password: str, password_hash: str) -> bool:
            verified.append(password_hash)
            return hasher.verify(password, password_hash)

    monkeypatch.setattr(passwords, "_hasher", Counting())
    await person.log_in(WRONG)
    assert len(verified) == 1
    await stranger.log_in(WRONG)
    assert len(verified) == 2


async def test_the_fifth_failure_locks_log_in_also_for_the_right_password(
    service: Service, quick_passwords: None
) -> None:
    person, other = ServiceClient(service.http), ServiceClient(service.http)
    await person.register()
    await other.register()
    await person.log_in()
    await fail(person, 5)

    locked = await person.log_in()

    assert (locked.status_code, locked.json()["code"]) == (429, "account_locked")
    assert 14 * 60 < int(locked.headers["Retry-After"]) <= 15 * 60
    assert (await person.log_in(WRONG)).status_code == 429
    assert (await person.get("/v1/users/me")).status_code == 200, "a session goes on"
    assert (await other.log_in()).status_code == 200, "nobody else is locked out"


async def test_four_failures_do_not_lock_and_a_success_forgets_them(
    service: Service, quick_passwords: None
) -> None:
    person = ServiceClient(service.http)
    await person.register()
    for _ in range(2):
        await fail(person, 4)
        assert (await person.log_in()).status_code == 200


async def test_after_a_quarter_of_an_hour_the_right_password_is_enough_again(
    service: Service, quick_passwords: None
) -> None:
    person = ServiceClient(service.http)
    await person.register()
    await fail(person, 5)
    await pass_time(service, dt.timedelta(minutes=14))
    still = await person.log_in()
    assert still.status_code == 429
    assert int(still.headers["Retry-After"]) <= 60
    await pass_time(service, dt.timedelta(minutes=1, seconds=1))
    await fail(person, 4)  # the count began anew, or the first of these would lock again
    assert (await person.log_in()).status_code == 200


async def test_failures_older_than_the_window_do_not_count(
    service: Service, quick_passwords: None
) -> None:
    person = ServiceClient(service.http)
    await person.register()
    await fail(person, 4)
    await pass_time(service, dt.timedelta(minutes=15, seconds=1))
    await fail(person, 4)
    assert (await person.log_in()).status_code == 200


async def test_guesses_side_by_side_are_all_counted(
    service: Service, quick_passwords: None
) -> None:
    person = ServiceClient(service.http)
    await person.register()
    answers = await asyncio.gather(*(person.log_in(WRONG) for _ in range(20)))
    assert {answer.status_code for answer in answers} <= {401, 429}
    assert (await person.log_in()).status_code == 429


async def test_a_right_guess_among_wrong_ones_does_not_get_past_the_lock(
    service: Service, monkeypatch: pytest.MonkeyPatch, quick_passwords: None
) -> None:
    person = ServiceClient(service.http)
    await person.register()
    looked, locked = asyncio.Event(), asyncio.Event()

    async def verify_when_locked(password: str, password_hash: str | None) -> bool:
        if password == WRONG:
            return False
        looked.set()  # this guess has passed the first look at the lock
        await locked.wait()
        return password_hash == f"plain:{password}"

    monkeypatch.setattr("app.users.service.verify_password", verify_when_locked)
    async with asyncio.TaskGroup() as group:
        lucky = group.create_task(_copy(person).log_in())
        await looked.wait()
        await fail(person, 5)
        locked.set()
    answer = lucky.result()
    assert (answer.status_code, answer.json()["code"]) == (429, "account_locked")


async def test_after_a_log_out_the_token_is_refused_although_the_session_was_cached(
    service: Service,
) -> None:
    person = await service.person()
    other_session = _copy(person)
    await other_session.log_in()
    for session in (person, other_session):
        assert (await session.get("/v1/users/me")).status_code == 200

    assert (await person.post("/v1/auth/logout")).status_code == 204

    refused = await person.get("/v1/users/me")
    assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
    assert (await person.post("/v1/auth/logout")).status_code == 401
    assert (await other_session.get("/v1/users/me")).status_code == 200


async def test_a_log_out_reaches_the_other_instances_through_the_shared_cache(
    open_here: OpenService, redis_database: str
) -> None:
    redis_url = SecretStr(redis_database)
    async with open_here(redis_url=redis_url) as one, open_here(redis_url=redis_url) as another:
        person = await one.person()
        elsewhere = ServiceClient(another.http)
        elsewhere.headers = person.headers
        assert (await elsewhere.get("/v1/users/me")).status_code == 200
        await person.post("/v1/auth/logout")
        assert (await elsewhere.get("/v1/users/me")).status_code == 401


async def test_a_token_says_when_it_ends(service: Service) -> None:
    person = await service.person()
    token = person.headers["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == service.settings.access_token_minutes * 60


async def test_a_session_that_is_over_is_refused_whatever_its_token_says(service: Service) -> None:
    person = await service.person()
    async with service.app.state.database.transaction() as session:
        await session.execute(update(UserSession).values(expires_at=now()))
    refused = await person.get("/v1/users/me")
    assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
    assert refused.headers["WWW-Authenticate"] == "Bearer"


def _encode(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


async def test_only_a_token_that_this_service_signed_is_believed(
    sqlite_service_database: str,
) -> None:
    secret_key = SecretStr(SIGNING_KEY)
    async with open_service(sqlite_service_database, secret_key=secret_key) as service:
        await _only_signed_tokens_are_believed(service)


async def _only_signed_tokens_are_believed(sqlite_service: Service) -> None:
    person = await sqlite_service.person()
    stranger = await sqlite_service.person()
    key = SIGNING_KEY
    good = person.headers["Authorization"].removeprefix("Bearer ")
    claims = jwt.decode(good, options={"verify_signature": False})
    head, body, signature = good.split(".")
    others = jwt.decode(
        stranger.headers["Authorization"].removeprefix("Bearer "),
        options={"verify_signature": False},
    )

    def signed(key: str = key, algorithm: str = "HS256", **changes: object) -> str:
        changed = {name: value for name, value in (claims | changes).items() if value is not None}
        return jwt.encode(changed, key, algorithm)

    async def status(token: str) -> int:
        headers = {"Authorization": f"Bearer {token}"}
        return (await sqlite_service.http.get("/v1/users/me", headers=headers)).status_code

    assert await status(signed()) == 200, "the forgeries below fail for their own reason"
    forged = {
        "nothing": "",
        "no token": "abc",
        "another key": signed(key=SIGNING_KEY[::-1]),
        "another algorithm": signed(algorithm="HS512"),
        "algorithm none": f"{_encode({'alg': 'none', 'typ': 'JWT'})}.{body}.",
        "another issuer": signed(iss="somebody-else"),
        "no issuer": signed(iss=None),
        "expired": signed(exp=now() - dt.timedelta(seconds=1)),
        "no expiry": signed(exp=None),
        "no session": signed(jti=None),
        "session that does not exist": signed(jti="00000000-0000-4000-8000-000000000000"),
        "session that is no id": signed(jti="1 OR 1=1"),
        "no person": signed(sub=None),
        "not valid yet": signed(nbf=now() + dt.timedelta(hours=1)),
        "someone else's claims under an old signature": f"{head}.{_encode(others)}.{signature}",
        "cut off": good[:-2],
    }
    believed = {name for name, token in forged.items() if await status(token) != 401}
    assert believed == set()


@pytest.mark.parametrize("scheme", ["Basic YWRhOmFkYQ==", "bearer", "Bearer", "Token {token}"])
async def test_only_the_bearer_scheme_is_understood(sqlite_service: Service, scheme: str) -> None:
    person = await sqlite_service.person()
    token = person.headers["Authorization"].removeprefix("Bearer ")
    person.headers = {"Authorization": scheme.format(token=token)}
    assert (await person.get("/v1/users/me")).status_code == 401


async def test_a_client_that_logs_in_too_often_is_told_when_it_may_again(
    sqlite_service_database: str, quick_passwords: None
) -> None:
    async with open_service(sqlite_service_database, rate_limit_login="3/year") as service:
        person = ServiceClient(service.http)
        await person.register()
        answers = [await person.log_in(password) for password in (PASSWORD, WRONG, PASSWORD)]
        assert Counter(answer.status_code for answer in answers) == {200: 2, 401: 1}
        refused = await person.log_in()
        assert (refused.status_code, refused.json()["code"]) == (429, "rate_limited")
        assert 1 <= int(refused.headers["Retry-After"]) <= YEAR


def _copy(person: ServiceClient) -> ServiceClient:
    copy = ServiceClient(person.http)
    copy.email = person.email
    return copy
