"""Several customers at once, by locust: it runs them side by side and counts what they were answered.

Importing this replaces the sockets, locks and threads of the process (gevent): only __main__.py does so.
Once a minute a line says how it went, and the counts begin anew, so that nothing grows.
"""

import json
import random
import threading
from typing import Any, Final
from urllib.parse import urlencode

from locust import FastHttpUser, constant
from locust.contrib.fasthttp import FastHttpSession
from locust.env import Environment
from locust.exception import StopUser
from loguru import logger

from sandbox.customers.accounts import Accounts
from sandbox.customers.book import Dealer
from sandbox.customers.customer import AskedToWait, Customer, Leaving, ShopIsAway, Unexpected
from sandbox.customers.http import UNANSWERED, Answer, Request, is_well
from sandbox.customers.presence import Presence
from sandbox.customers.settings import CustomersSettings
from sandbox.customers.wares import Wares
from sandbox.customers.wave import busy

CONNECT_SECONDS: Final = 3.0
ANSWER_SECONDS: Final = 20.0
"""Longer than a payment may take with a provider that does not answer."""
ARRIVALS_PER_SECOND: Final = 2.0
TELL_SECONDS: Final = 60.0
STOP_SECONDS: Final = 3.0
_LIVE: Final = "/health/live"


class LocustHttp:
    """Carries requests, and has them counted under the name of their route."""

    def __init__(self, session: FastHttpSession) -> None:
        self._session = session

    def ask(self, request: Request) -> Answer:
        """Return the answer; what is not well is a failure in the counts."""
        headers, data = dict(request.headers), None
        if request.form is not None:
            data = urlencode(request.form)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        with self._session.request(
            request.method,
            request.path,
            name=request.name,
            headers=headers,
            data=data,
            json=request.json,
            allow_redirects=False,
            catch_response=True,
        ) as response:
            status = response.status_code or UNANSWERED
            answer = Answer(
                status, _body(response.text), _seconds((response.headers or {}).get("Retry-After"))
            )
            if is_well(request, answer):
                response.success()
            else:
                response.failure(f"answered {status}" if status else "not answered")
        return answer


def _body(text: str | None) -> Any:
    try:
        return json.loads(text or "null")
    except ValueError:
        return None


def _seconds(value: str | None) -> float:
    return float(value) if value is not None and value.isdigit() else 0.0


class Shop:
    """What all customers share."""

    def __init__(self, settings: CustomersSettings, ended: threading.Event) -> None:
        self.settings = settings
        self.ended = ended
        self.rng = random.Random(settings.customers_seed)  # noqa: S311 - to choose, not to keep a secret
        self.wares = Wares.shuffled(self.rng)
        self.accounts = Accounts(settings, self.rng)
        self.dealer = Dealer(self.rng)
        self.presence = Presence(lambda: is_alive(settings.customers_api_url), ended)

    def pause(self) -> None:
        """Let a customer think; raise Leaving at the end."""
        settings = self.settings
        average = settings.customers_pause_seconds / busy(settings.customers_day_seconds)
        if self.ended.wait(average * self.rng.uniform(0.4, 1.6)):
            raise Leaving

    def visit(self, http: LocustHttp) -> bool:
        """Let somebody come in and do something; return False at the end."""
        if not self.presence.wait():
            return False
        journey = self.dealer.deal()
        with self.accounts.one() as account:
            customer = Customer(http, account, self.wares, self.pause)
            try:
                journey.act(customer)
            except Leaving:
                return False
            except ShopIsAway:
                self.presence.lost()
            except (AskedToWait, Unexpected):
                pass  # counted as the answer that it was
            except Exception as error:  # noqa: BLE001 - a bug of ours must not end the traffic
                logger.bind(type="customers", journey=journey.name).opt(exception=error).error(
                    "Customers' journey is broken"
                )
                self.ended.wait(1)  # and not fill the log either
        return True


def new_session(environment: Environment, api_url: str) -> FastHttpSession:
    """Return a session outside of locust's users."""
    return FastHttpSession(
        api_url,
        environment.events.request,
        None,
        insecure=False,
        connection_timeout=CONNECT_SECONDS,
        network_timeout=ANSWER_SECONDS,
    )


def is_alive(api_url: str) -> bool:
    """Whether the API is there at all."""
    session = new_session(Environment(), api_url)
    return LocustHttp(session).ask(Request("GET", _LIVE, _LIVE, (200,))).status == 200  # noqa: PLR2004


def run(settings: CustomersSettings, ended: threading.Event) -> None:
    """Let customers come and go until `ended`."""
    shop = Shop(settings, ended)

    class Visitor(FastHttpUser):
        host = settings.customers_api_url
        insecure = False
        connection_timeout = CONNECT_SECONDS
        network_timeout = ANSWER_SECONDS
        wait_time = constant(0)

        def visit(self) -> None:
            if not shop.visit(LocustHttp(self.client)):
                raise StopUser

        tasks = [visit]  # noqa: RUF012 - as locust has it

    environment = Environment(user_classes=[Visitor], stop_timeout=STOP_SECONDS)
    runner = environment.create_local_runner()
    runner.start(settings.customers_users, spawn_rate=ARRIVALS_PER_SECOND, wait=False)
    tells = threading.Thread(target=_tell, args=(environment, ended), name="tells")
    tells.start()
    ended.wait()
    runner.quit()
    tells.join()


def _tell(environment: Environment, ended: threading.Event) -> None:
    while True:
        is_over = ended.wait(TELL_SECONDS)
        total = environment.stats.total
        logger.bind(
            type="customers",
            requests=total.num_requests,
            failures=total.num_failures,
            p95_ms=round(total.get_response_time_percentile(0.95) or 0, 1),
        ).info("Customers were served")
        environment.stats.reset_all()
        if is_over:
            return
