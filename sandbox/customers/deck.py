"""Shares without luck: a deck of cards, in which each thing lies as often as its share says.

The deck is shuffled and dealt to its end before it is shuffled again. So a thing with a share of one in a
thousand comes exactly once in a thousand, and no run of bad luck looks like an incident.
"""

import random
from collections.abc import Hashable, Mapping
from typing import Generic, TypeVar

Card = TypeVar("Card", bound=Hashable)


class Deck(Generic[Card]):
    """Deals cards.

    Args:
        shares: How often each card lies in the deck.
        rng: Shuffles.
    """

    def __init__(self, shares: Mapping[Card, int], rng: random.Random) -> None:
        self._cards = [card for card, share in shares.items() for _ in range(share)]
        self._rng = rng
        self._left: list[Card] = []

    def deal(self) -> Card:
        """Return the next card."""
        if not self._left:
            self._left = self._cards.copy()
            self._rng.shuffle(self._left)
        return self._left.pop()


class Row(Deck[Card]):
    """Each card once, in order, again and again: a tour through all there is."""

    def deal(self) -> Card:
        """Return the next card."""
        if not self._left:
            self._left = [*reversed(dict.fromkeys(self._cards))]
        return self._left.pop()
