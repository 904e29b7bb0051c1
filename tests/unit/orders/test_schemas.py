"""What the API of orders takes."""

from typing import Any

import pytest
from pydantic import ValidationError

from app.orders.schemas import OrderCreate

LINE: dict[str, Any] = {"sku": "TEA", "quantity": 1, "unit_amount": 100}


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"quantity": 0}, "quantity"),
        ({"quantity": 1_001}, "quantity"),
        ({"quantity": 1.5}, "quantity"),
        ({"unit_amount": -1}, "unit_amount"),
        ({"unit_amount": 100_000_001}, "unit_amount"),
        ({"unit_amount": 0.5}, "unit_amount"),
        ({"sku": ""}, "sku"),
        ({"sku": "A" * 65}, "sku"),
        ({"sku": "TEA\x00"}, "sku"),
        ({"sku": "TEA\n"}, "sku"),
        ({"sku": "<b>"}, "sku"),
        ({"discount": 5}, "discount"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        OrderCreate.model_validate({"currency": "EUR", "lines": [LINE | changes]})
    assert [error["loc"] for error in refusal.value.errors()] == [("lines", 0, where)]


@pytest.mark.parametrize("currency", ["eur", "XXX", "", "EURO", None, 978])
def test_only_the_currencies_that_are_sold_in_are_taken(currency: object) -> None:
    with pytest.raises(ValidationError):
        OrderCreate.model_validate({"currency": currency, "lines": [LINE]})


@pytest.mark.parametrize("count", [0, 101])
def test_an_order_has_between_one_and_a_hundred_lines(count: int) -> None:
    with pytest.raises(ValidationError):
        OrderCreate.model_validate({"currency": "EUR", "lines": [LINE] * count})


def test_the_extremes_are_taken() -> None:
    largest = {"sku": "A" * 64, "quantity": 1_000, "unit_amount": 100_000_000}
    smallest = {"sku": "a", "quantity": 1, "unit_amount": 0}
    order = OrderCreate.model_validate({"currency": "JPY", "lines": [largest] * 99 + [smallest]})
    assert len(order.lines) == 100
