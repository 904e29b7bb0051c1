"""What is chosen anew each time: currencies, sizes of orders, cards, and where people heard of the shop.

The shares of cards keep the objectives (monitoring/slo/objectives.yml) with room to spare: of 600 payments
two have an outcome that the customer is not told at once (99.5 % is promised), and three are slow (99 %).
"""

import random
from dataclasses import dataclass
from typing import Final

from sandbox.customers.deck import Deck, Row

CURRENCIES: Final = {"EUR": 10, "USD": 6, "GBP": 3, "CHF": 2, "JPY": 1}
SOURCES: Final = {"web": 8, "mobile": 5, "referral": 2, "partner": 2, "other": 1}
SIZES: Final = {"small": 6, "medium": 10, "large": 3, "very_large": 1}
CARDS: Final = {
    "tok_ok": 536,
    "tok_declined": 25,
    "tok_insufficient_funds": 22,
    "tok_expired": 10,
    "tok_unknown": 3,
    "tok_slow": 2,
    "tok_error": 1,
    "tok_timeout": 1,
}
"""The provider does not know `tok_unknown`, and answers neither `tok_error` nor `tok_timeout`."""

_UNITS: Final = {
    "small": (1, 9),
    "medium": (11, 99),
    "large": (101, 990),
    "very_large": (1_001, 4_000),
}
"""From and to, in major units: the tiers of `revenue_events_total`."""
_WITHOUT_MINOR_UNITS: Final = frozenset({"JPY"})
_SKUS: Final = (
    "TEA-EARL-GREY",
    "TEA-SENCHA",
    "POT-CAST-IRON",
    "CUP-PORCELAIN",
    "STRAINER",
    "TIN-250",
)


@dataclass(frozen=True, slots=True)
class Wares:
    """The decks that all customers draw from."""

    rng: random.Random
    currencies: Deck[str]
    sizes: Deck[str]
    cards: Deck[str]
    sources: Deck[str]

    @classmethod
    def shuffled(cls, rng: random.Random) -> "Wares":
        """Return decks with the shares of an ordinary day."""
        decks = (Deck(shares, rng) for shares in (CURRENCIES, SIZES, CARDS, SOURCES))
        return cls(rng, *decks)

    @classmethod
    def in_a_row(cls, rng: random.Random) -> "Wares":
        """Return decks that show each thing in its turn."""
        rows = (Row(shares, rng) for shares in (CURRENCIES, SIZES, CARDS, SOURCES))
        return cls(rng, *rows)

    def order(self) -> dict[str, object]:
        """Return an order as the API takes it, of the currency and the size that come next."""
        currency, size = self.currencies.deal(), self.sizes.deal()
        low, high = _UNITS[size]
        units = self.rng.randint(low, high)
        total = units if currency in _WITHOUT_MINOR_UNITS else units * 100
        skus = self.rng.sample(_SKUS, self.rng.randint(1, 3))
        # The first article takes what the others leave.
        others = [
            {"sku": sku, "quantity": 1, "unit_amount": total // (4 * len(skus))} for sku in skus[1:]
        ]
        rest = total - sum(int(str(line["unit_amount"])) for line in others)
        return {
            "currency": currency,
            "lines": [{"sku": skus[0], "quantity": 1, "unit_amount": rest}, *others],
        }
