"""The book of journeys: what customers do, how often, and a tour through all of it.

The shares keep every alert quiet (monitoring/prometheus/rules): a shop on an ordinary day has declined cards,
typing errors and a few who try doors, and nobody is woken for them.
"""

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from sandbox.customers import journeys, mischief
from sandbox.customers.customer import Customer
from sandbox.customers.deck import Deck
from sandbox.customers.wares import CARDS, CURRENCIES, SOURCES


@dataclass(frozen=True, slots=True)
class Journey:
    """Something that people do.

    Attributes:
        act: Does it.
        share: Of a thousand visits, about.
        at_most_every_seconds: However many customers there are: what would be an incident if it came often.
    """

    act: Callable[[Customer], None]
    share: int
    at_most_every_seconds: float = 0.0

    @property
    def name(self) -> str:
        """For a person."""
        return self.act.__name__.replace("_", " ")


LOCKOUT: Final = Journey(mischief.forget_the_password, 1, 1_800)
FLOODS: Final = (
    Journey(mischief.register_by_machine, 1, 1_200),
    Journey(mischief.guess_strangers_passwords, 1, 1_200),
)
BOOK: Final = (
    Journey(journeys.buy, 370),
    Journey(journeys.fill_a_basket, 60),
    Journey(journeys.open_the_app, 55),
    Journey(journeys.send_back, 45),
    Journey(journeys.change_ones_mind, 35),
    Journey(journeys.browse, 280),
    Journey(journeys.log_out, 25),
    Journey(journeys.tidy_up, 24),
    Journey(journeys.buy_on_a_bad_line, 20),
    Journey(journeys.close_the_account, 16),
    Journey(mischief.mistype_the_password, 15),
    Journey(journeys.take_ones_data, 14),
    Journey(journeys.sign_up_and_leave, 12),
    Journey(mischief.ask_for_nonsense, 8),
    Journey(mischief.come_back_to_an_old_tab, 8),
    Journey(mischief.pay_twice, 4),
    Journey(mischief.repeat_with_a_difference, 4),
    Journey(mischief.try_a_door, 3, 300),
    LOCKOUT,
    *FLOODS,
)


class Dealer:
    """Says what comes next; shared by all customers."""

    def __init__(self, rng: random.Random) -> None:
        self._deck = Deck({journey: journey.share for journey in BOOK}, rng)
        self._last: dict[str, float] = {}
        self._dealing = threading.Lock()

    def deal(self) -> Journey:
        """Return the next journey that is not too early."""
        with self._dealing:
            while True:
                journey = self._deck.deal()
                now = time.monotonic()
                last = self._last.get(journey.name, float("-inf"))
                if now - last >= journey.at_most_every_seconds:
                    self._last[journey.name] = now
                    return journey


def tour() -> Iterator[Journey]:
    """Yield every journey at least once, and each as often as it takes to show all that is dealt.

    With wares in a row, of which each of these journeys takes one. Who buys comes before who looks at what
    was bought, and what makes others wait comes last.
    """
    everyday = [one for one in BOOK if one not in (LOCKOUT, *FLOODS)]
    often: dict[Callable[[Customer], None], int] = {
        journeys.buy: len(CARDS),
        journeys.send_back: len(CURRENCIES),
        journeys.close_the_account: len(SOURCES),
    }
    for journey in everyday:
        yield from [journey] * often.get(journey.act, 1)
    yield LOCKOUT
    yield from FLOODS
