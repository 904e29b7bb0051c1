"""A customer finds the way back in: old tokens, databases that were emptied, limits, a shop that is away."""

import random
import threading
from collections.abc import Callable

import pytest

from sandbox.customers.accounts import Account
from sandbox.customers.customer import AskedToWait, Customer, ShopIsAway, Unexpected
from sandbox.customers.http import Answer, Request
from sandbox.customers.presence import Presence
from sandbox.customers.wares import Wares

TOKEN = Answer(200, {"access_token": "new"})
CREATED = Answer(201, {"id": "1"})
DENIED = Answer(401)
PROFILE = Answer(200, {"id": "1"})


class Script:
    """A shop that gives these answers, and remembers what it was asked."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.asked: list[Request] = []

    def ask(self, request: Request) -> Answer:
        self.asked.append(request)
        return self.answers.pop(0)

    @property
    def names(self) -> list[str]:
        return [f"{request.method} {request.name}" for request in self.asked]


def somebody(script: Script, **known: object) -> Customer:
    account = Account(7, "192.0.2.8", "a browser", "a password", **known)  # type: ignore[arg-type]
    return Customer(script, account, Wares.shuffled(random.Random(1)), pause=lambda: None)


def look(customer: Customer) -> Answer:
    return customer.signed("GET", "/v1/users/me", (200,))


def test_a_newcomer_registers_and_logs_in_first() -> None:
    script = Script(CREATED, TOKEN, PROFILE)
    look(somebody(script))
    assert script.names == ["POST /v1/users", "POST /v1/auth/token", "GET /v1/users/me"]
    assert script.asked[-1].headers["Authorization"] == "Bearer new"
    assert {request.headers["X-Forwarded-For"] for request in script.asked} == {"192.0.2.8"}


def test_a_token_that_is_too_old_is_followed_by_a_log_in() -> None:
    script = Script(DENIED, TOKEN, PROFILE)
    look(somebody(script, is_registered=True, token="old"))
    assert script.names == ["GET /v1/users/me", "POST /v1/auth/token", "GET /v1/users/me"]


def test_an_emptied_database_is_followed_by_a_registration() -> None:
    script = Script(DENIED, CREATED, TOKEN, PROFILE)
    look(somebody(script, is_registered=True))
    assert script.names[:3] == ["POST /v1/auth/token", "POST /v1/users", "POST /v1/auth/token"]


def test_an_account_with_another_password_is_given_up() -> None:
    customer = somebody(Script(Answer(409), DENIED, Answer(409), DENIED))
    with pytest.raises(Unexpected):
        look(customer)
    assert customer.account.email == "customer-0007-1@customers.example"
    assert not customer.account.is_registered


def test_a_limit_is_heeded_and_no_failure() -> None:
    script = Script(Answer(429, retry_after=30))
    with pytest.raises(AskedToWait) as asked:
        look(somebody(script, is_registered=True))
    assert asked.value.seconds == 30
    assert 429 in script.asked[0].expected


def test_another_status_is_a_sentence() -> None:
    with pytest.raises(Unexpected, match=r"^GET /v1/users/me answered 500\.$"):
        look(somebody(Script(Answer(500)), is_registered=True, token="good"))


def test_no_answer_at_all_is_a_shop_that_is_away() -> None:
    with pytest.raises(ShopIsAway):
        look(somebody(Script(Answer(0)), is_registered=True, token="good"))


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sandbox.customers.presence.FIRST_PAUSE_SECONDS", 0.0)


def presence(answers: list[bool]) -> tuple[Presence, threading.Event]:
    ended = threading.Event()
    ask: Callable[[], bool] = lambda: answers.pop(0)  # noqa: E731 - typed
    return Presence(ask, ended), ended


@pytest.mark.usefixtures("at_once")
def test_waiting_is_said_once(log_records: list[dict[str, object]]) -> None:
    shop, _ = presence([False, False, True, False, True])
    assert shop.wait()
    assert shop.wait()
    shop.lost()
    assert shop.wait()
    assert [record["message"] for record in log_records] == [
        "Customers wait for the API",
        "Customers find the API",
    ] * 2


def test_an_answer_that_got_lost_is_no_absence(log_records: list[dict[str, object]]) -> None:
    shop, _ = presence([True, True])
    assert shop.wait()
    shop.lost()
    assert shop.wait()
    assert [record["message"] for record in log_records] == ["Customers find the API"]


def test_the_end_ends_the_waiting() -> None:
    shop, ended = presence([False])
    ended.set()
    assert not shop.wait()
