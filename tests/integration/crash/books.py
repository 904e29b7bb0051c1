"""The books of both sides, and what is wrong with them: what has to hold however often who was killed.

`discrepancies` knows nothing of how the service works, only what a person with both books and the
customers' receipts in hand would call an error.
"""

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from app.infrastructure.database import Database
from app.infrastructure.outbox import OutboxDelivery, OutboxMessage
from app.orders.models import Order
from app.payments.models import Payment, Receipt, Refund
from tests.integration.crash.customers import Answer

CONSUMERS = {
    "payment.captured": ("fulfil_order", "write_receipt"),
    "order.refunded": ("write_credit_note",),
}


@dataclass(slots=True)
class Books:
    """Everything that both sides have recorded."""

    ledger: list[dict[str, Any]]
    orders: Sequence[Order]
    payments: Sequence[Payment]
    refunds: Sequence[Refund]
    receipts: Sequence[Receipt]
    messages: Sequence[OutboxMessage]
    deliveries: Sequence[OutboxDelivery]


async def read_books(database: Database, ledger: list[dict[str, Any]]) -> Books:
    """Return the books, all of ours from one transaction."""
    async with database.transaction() as session:
        return Books(
            ledger,
            (await session.scalars(select(Order))).all(),
            (await session.scalars(select(Payment))).all(),
            (await session.scalars(select(Refund))).all(),
            (await session.scalars(select(Receipt))).all(),
            (await session.scalars(select(OutboxMessage))).all(),
            (await session.scalars(select(OutboxDelivery))).all(),
        )


def discrepancies(books: Books, answers: Sequence[Answer]) -> list[str]:
    """Return a sentence for each thing that is wrong."""
    return [
        *_in_charges(books),
        *_in_refunds(books),
        *_in_orders(books),
        *_in_documents(books),
        *_in_the_outbox(books),
        *_in_answers(books, answers),
    ]


def _taken(payment: Payment) -> bool:
    return payment.status in {"captured", "refunded"}


def _in_charges(books: Books) -> Iterator[str]:
    """The provider took money exactly for the payments that we call captured, and the same amount."""
    charged = {
        line["key"]: (line["reference"], line["amount"], line["currency"])
        for line in books.ledger
        if line["kind"] == "charge" and line["status"] == "succeeded"
    }
    recorded = {
        str(payment.id): (str(payment.order_id), payment.amount, payment.currency)
        for payment in books.payments
        if _taken(payment)
    }
    for key in charged.keys() | recorded.keys():
        if charged.get(key) != recorded.get(key):
            yield f"payment {key}: provider has {charged.get(key)}, we have {recorded.get(key)}"
    declined = {
        line["key"]
        for line in books.ledger
        if line["kind"] == "charge" and line["status"] == "declined"
    }
    ours = {str(payment.id) for payment in books.payments if payment.status == "declined"}
    for key in declined ^ ours:
        yield f"payment {key}: only one side says that it was declined"
    for payment in books.payments:
        if payment.status == "pending":
            yield f"payment {payment.id} is still pending"


def _in_refunds(books: Books) -> Iterator[str]:
    """The provider gave back exactly what we say, and no payment more than it took."""
    given = {
        line["key"]: (line["reference"], line["amount"])
        for line in books.ledger
        if line["kind"] == "refund" and line["status"] == "succeeded"
    }
    recorded = {
        str(refund.id): (str(refund.payment_id), refund.amount)
        for refund in books.refunds
        if refund.status == "succeeded"
    }
    for key in given.keys() | recorded.keys():
        if given.get(key) != recorded.get(key):
            yield f"refund {key}: provider has {given.get(key)}, we have {recorded.get(key)}"
    for refund in books.refunds:
        if refund.status == "pending":
            yield f"refund {refund.id} is still pending"
    sums: Counter[uuid.UUID] = Counter()
    for refund in books.refunds:
        sums[refund.payment_id] += refund.amount if refund.status == "succeeded" else 0
    for payment in books.payments:
        if payment.refunded_amount != sums[payment.id]:
            yield f"payment {payment.id}: refunds sum up to {sums[payment.id]}, not what it says"
        if _taken(payment) and (
            (payment.status == "refunded") is not (payment.refunded_amount == payment.amount)
        ):
            yield f"payment {payment.id} is {payment.status} with {payment.refunded_amount} back"


def _in_orders(books: Books) -> Iterator[str]:
    """No order is paid twice, and each is in the state that its payments make."""
    payments: dict[uuid.UUID, list[Payment]] = {order.id: [] for order in books.orders}
    for payment in books.payments:
        payments[payment.order_id].append(payment)
    for order in books.orders:
        taken = [payment for payment in payments[order.id] if _taken(payment)]
        if len(taken) > 1:
            yield f"order {order.id} was paid {len(taken)} times"
        for payment in taken:
            if payment.amount != order.total_amount:
                yield f"order {order.id} of {order.total_amount} was paid with {payment.amount}"
        expected = "pending"
        if taken:
            expected = "refunded" if taken[0].status == "refunded" else "fulfilled"
        if order.status != expected:
            yield f"order {order.id} is {order.status}, not {expected}"
        if order.payment_in_progress:
            yield f"order {order.id} is held by a payment for ever"


def _in_documents(books: Books) -> Iterator[str]:
    """There is one receipt for each captured payment, and one credit note for each refund."""
    due = Counter(
        ("receipt", payment.id, payment.id, payment.amount)
        for payment in books.payments
        if _taken(payment)
    ) + Counter(
        ("credit_note", refund.id, refund.payment_id, refund.amount)
        for refund in books.refunds
        if refund.status == "succeeded"
    )
    written = Counter(
        (receipt.kind, receipt.subject_id, receipt.payment_id, receipt.amount)
        for receipt in books.receipts
    )
    for document in due.keys() | written.keys():
        if due[document] != written[document]:
            yield f"{document}: {written[document]} written, {due[document]} due"


def _in_the_outbox(books: Books) -> Iterator[str]:
    """There is an event for everything that happened and for nothing else, and all are handled once."""
    due = Counter(("order.placed", str(order.id)) for order in books.orders)
    for payment in books.payments:
        if _taken(payment):
            due["payment.captured", str(payment.id)] += 1
        elif payment.status == "declined":
            due["payment.declined", str(payment.id)] += 1
    for refund in books.refunds:
        due["order.refunded", str(refund.id)] += refund.status == "succeeded"
    subject = {
        "order.placed": "order_id",
        "payment.captured": "payment_id",
        "payment.declined": "payment_id",
        "order.refunded": "refund_id",
    }
    events = Counter(
        (message.topic, message.payload[subject[message.topic]])
        for message in books.messages
        if message.topic in subject
    )
    for event in due.keys() | events.keys():
        if due[event] != events[event]:
            yield f"{event}: {events[event]} events, {due[event]} due"
    handed = Counter((delivery.message_id, delivery.consumer) for delivery in books.deliveries)
    wanted = Counter(
        (message.id, consumer)
        for message in books.messages
        for consumer in CONSUMERS.get(message.topic, ())
    )
    for delivery_key in handed.keys() | wanted.keys():
        if handed[delivery_key] != wanted[delivery_key]:
            yield f"delivery {delivery_key}: {handed[delivery_key]}, {wanted[delivery_key]} due"
    for message in books.messages:
        if message.published_at is None:
            yield f"event {message.id} was never relayed"
    for delivery in books.deliveries:
        if delivery.state != "done":
            yield f"delivery {delivery.id} is {delivery.state}: {delivery.last_error}"


_EXPECTED_REFUSALS = {
    ("payment", "payment_in_progress"),
    ("payment", "illegal_transition"),
    ("refund", "refund_too_large"),
    ("refund", "not_refundable"),
}
_FITTING = {
    "captured": {"captured", "refunded"},
    "declined": {"declined"},
    "failed": {"failed"},
    "succeeded": {"succeeded"},
    "refunded": {"refunded"},
}
"""What an answer may have become since it was given; `pending` may have become anything."""


def _in_answers(books: Books, answers: Sequence[Answer]) -> Iterator[str]:
    """What a customer was told is true, and each order was placed once."""
    status: dict[tuple[str, str], str] = {
        **{("order", str(order.id)): order.status for order in books.orders},
        **{("payment", str(payment.id)): payment.status for payment in books.payments},
        **{("refund", str(refund.id)): refund.status for refund in books.refunds},
    }
    for answer in answers:
        if answer.status != 201:
            if (answer.kind, answer.body.get("code")) not in _EXPECTED_REFUSALS:
                yield f"unexpected answer {answer}"
            continue
        now = status.get((answer.kind, answer.body["id"]))
        told = answer.body["status"]
        if now is None:
            yield f"{answer} speaks of what does not exist"
        elif answer.kind != "order" and told != "pending" and now not in _FITTING[told]:
            yield f"{answer} has become {now}"
    placed = [answer for answer in answers if answer.kind == "order"]
    if len(placed) != len(books.orders):
        yield f"{len(placed)} orders were asked for, {len(books.orders)} were placed"
