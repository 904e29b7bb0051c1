"""Everything that customers do, once: a look at whether the whole shop works, told line by line."""

import random
import time
from collections.abc import Callable

from sandbox.customers.accounts import Account, Accounts
from sandbox.customers.book import FLOODS, LOCKOUT, Journey, tour
from sandbox.customers.customer import AskedToWait, Customer, ShopIsAway, Unexpected
from sandbox.customers.http import Http
from sandbox.customers.settings import CustomersSettings
from sandbox.customers.wares import Wares

PEOPLE = 5
"""Four who take turns, so that no limit is reached by accident, and one for what locks an account."""
ATTEMPTS = 3
LONGEST_WAIT_SECONDS = 65.0
"""The limits are by the minute; a lock lasts longer, and its account is given up."""

Say = Callable[[str, str, float], None]
"""Is told the journey, what was wrong with it (empty for nothing), and its seconds."""


def take_the_tour(settings: CustomersSettings, http: Http, say: Say) -> bool:
    """Make every journey; return whether all went well."""
    rng = random.Random(settings.customers_seed)  # noqa: S311 - to choose, not to keep a secret
    few = {"customers_users": 1, "customers_accounts": PEOPLE}
    *many, last = Accounts(settings.model_copy(update=few), rng).first(PEOPLE)
    wares = Wares.in_a_row(rng)
    all_well = True
    for number, journey in enumerate(tour()):
        is_last = journey is LOCKOUT or journey in FLOODS
        account = last if is_last else many[number % len(many)]
        started = time.monotonic()
        wrong = _make(journey, http, account, wares)
        say(journey.name, wrong, time.monotonic() - started)
        all_well = all_well and not wrong
    return all_well


def _make(journey: Journey, http: Http, account: Account, wares: Wares) -> str:
    """Make a journey, and again after a wait that is asked for; return what was wrong."""
    for _ in range(ATTEMPTS):
        try:
            journey.act(Customer(http, account, wares, pause=lambda: None))
        except AskedToWait as asked:
            if asked.seconds <= LONGEST_WAIT_SECONDS:
                time.sleep(asked.seconds)
            else:
                account.start_over()
        except Unexpected as error:
            return str(error)
        except ShopIsAway:
            return "There was no answer."
        else:
            return ""
    return "The limits do not let it through."
