"""Shares come true, day follows night, and everybody is one person at a time."""

import ipaddress
import random
from collections import Counter

import pytest

from sandbox.customers.accounts import Accounts, address_of
from sandbox.customers.book import BOOK, Dealer, tour
from sandbox.customers.deck import Deck, Row
from sandbox.customers.settings import CustomersSettings
from sandbox.customers.wares import CARDS, CURRENCIES, SIZES, SOURCES, Wares
from sandbox.customers.wave import NIGHT, busy

RNG = random.Random(7)


def test_a_deck_deals_each_card_as_often_as_its_share_says() -> None:
    deck = Deck({"often": 3, "rarely": 1}, RNG)
    for _ in range(5):
        assert Counter(deck.deal() for _ in range(4)) == {"often": 3, "rarely": 1}


def test_a_row_deals_each_card_once_in_order() -> None:
    row = Row({"first": 3, "second": 1}, RNG)
    assert [row.deal() for _ in range(3)] == ["first", "second", "first"]


def test_orders_have_the_size_that_was_dealt() -> None:
    wares = Wares.in_a_row(RNG)
    tiers = {
        "small": (0, 10),
        "medium": (10, 100),
        "large": (100, 1_000),
        "very_large": (1_000, 1e9),
    }
    for number in range(len(CURRENCIES) * len(SIZES)):
        order = wares.order()
        lines = order["lines"]
        assert isinstance(lines, list)
        total = sum(line["quantity"] * line["unit_amount"] for line in lines)
        units = total if order["currency"] == "JPY" else total / 100
        low, high = tiers[list(SIZES)[number % len(SIZES)]]
        assert low <= units < high
        assert all(line["unit_amount"] >= 0 for line in lines)


def test_bad_cards_leave_the_objectives_room() -> None:
    payments = sum(CARDS.values())
    assert (CARDS["tok_error"] + CARDS["tok_timeout"]) / payments < 0.005
    declined = sum(
        CARDS[card] for card in ("tok_declined", "tok_insufficient_funds", "tok_expired")
    )
    assert 0.05 < declined / payments < 0.3


def test_the_tour_shows_everything() -> None:
    made = Counter(journey.act.__name__ for journey in tour())
    assert made.keys() == {journey.act.__name__ for journey in BOOK}
    assert made["buy"] >= len(CARDS)
    assert made["send_back"] >= max(len(CURRENCIES), len(SIZES))
    assert made["close_the_account"] >= len(SOURCES)


def test_what_would_be_an_incident_is_rare_however_many_customers_there_are() -> None:
    dealer = Dealer(random.Random(1))
    dealt = Counter(dealer.deal().act.__name__ for _ in range(10 * sum(one.share for one in BOOK)))
    assert dealt["forget_the_password"] == dealt["try_a_door"] == 1
    assert dealt["buy"] > 1_000


@pytest.mark.parametrize(("hour", "expected"), [(15, 1.0), (3, NIGHT)])
def test_it_is_busy_in_the_afternoon_and_quiet_at_night(hour: int, expected: float) -> None:
    assert busy(86_400, hour * 3_600) == pytest.approx(expected)


def test_without_a_day_it_is_always_day() -> None:
    assert {busy(0, moment) for moment in range(0, 86_400, 3_600)} == {1.0}


def test_nobody_is_two_people_and_who_rests_is_left_alone() -> None:
    accounts = Accounts(CustomersSettings(customers_users=2, customers_accounts=3), RNG)
    for one in accounts.first(1):
        one.rests_until = float("inf")
    with accounts.one() as first, accounts.one() as second:
        assert {first.number, second.number} == {1, 2}
        with accounts.one() as third:
            assert third.number == 0
    with accounts.one() as again:
        assert again.number != 0


def test_addresses_are_of_the_documentation_and_of_one_person_each() -> None:
    addresses = [ipaddress.ip_address(address_of(number)) for number in range(400)]
    assert len(set(addresses)) == 400
    documented = [
        ipaddress.ip_network(one)
        for one in ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32")
    ]
    assert all(any(address in network for network in documented) for address in addresses)
