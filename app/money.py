"""Money: integer minor units and an ISO 4217 currency; major units only where people look at numbers."""

from enum import StrEnum


class Currency(StrEnum):
    """The currencies that are sold in: a label of several metrics, so a closed list."""

    CHF = "CHF"
    EUR = "EUR"
    GBP = "GBP"
    JPY = "JPY"
    USD = "USD"


_MINOR_DIGITS = {Currency.JPY: 0}
"""Digits after the decimal point where they are not two (ISO 4217)."""


def major_units(amount: int, currency: str) -> float:
    """Return an amount in minor units as major units (1250 EUR -> 12.5).

    For metrics; logs and the API keep minor units.
    """
    digits = _MINOR_DIGITS.get(Currency(currency), 2)
    return amount / float(10**digits)
