"""Refusals of the orders domain."""

from app.errors import AppError


class OrderNotFound(AppError):
    """There is none with this id, or it is someone else's: the two must look the same."""

    status = 404
    code = "order_not_found"
    title = "There is no such order"


class IllegalTransition(AppError):
    """The state machine has no such step."""

    status = 409
    code = "illegal_transition"
    title = "The order cannot go into that state"

    def __init__(self, current: str, target: str) -> None:
        super().__init__(
            f"A {current} order cannot become {target}.", current_status=current, target=target
        )


class PaymentInProgress(AppError):
    """A payment of this order is on its way; its outcome decides what is possible."""

    status = 409
    code = "payment_in_progress"
    title = "A payment of this order is in progress"


class TotalOutOfRange(AppError):
    """The sum of the lines is nothing, or more than the payment provider takes."""

    status = 422
    code = "total_out_of_range"
    title = "The order's total is out of range"


class InvalidCursor(AppError):
    """Not a cursor that this API has given out."""

    status = 422
    code = "invalid_cursor"
    title = "The cursor is not valid"
