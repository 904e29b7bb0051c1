"""The state machine of an order, pair by pair."""

import itertools

import pytest

from app.orders.errors import IllegalTransition
from app.orders.states import TRANSITIONS, OrderStatus, check_transition

LEGAL = {
    ("pending", "paid"),
    ("pending", "cancelled"),
    ("paid", "fulfilled"),
    ("paid", "refunded"),
    ("fulfilled", "refunded"),
}
"""Written out a second time, from the drawing: a slip in the table must not be its own proof."""


@pytest.mark.parametrize(("current", "target"), [*itertools.product(OrderStatus, OrderStatus)])
def test_exactly_the_drawn_transitions_are_allowed(
    current: OrderStatus, target: OrderStatus
) -> None:
    if (current.value, target.value) in LEGAL:
        check_transition(current, target)
        return
    with pytest.raises(IllegalTransition) as refusal:
        check_transition(current, target)
    assert refusal.value.status == 409
    assert refusal.value.extensions == {"current_status": current, "target": target}


def test_the_table_knows_every_status() -> None:
    assert set(TRANSITIONS) == set(OrderStatus)
