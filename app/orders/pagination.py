"""Keyset cursors: "after this order", not "skip so many".

A page costs the same wherever it is, and an order that arrives meanwhile neither repeats nor hides
another one. The cursor is opaque to clients. (Source: Winand, "SQL Performance Explained", paging.)
"""

import base64
import binascii
import datetime as dt
import uuid
from typing import NamedTuple

from app.orders.errors import InvalidCursor


class Place(NamedTuple):
    """A place in the list that is ordered by creation and id."""

    created_at: dt.datetime
    id: uuid.UUID


def encode_cursor(place: Place) -> str:
    """Return the cursor that stands for "after this place"."""
    text = f"{place.created_at.isoformat()}|{place.id}"
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> Place:
    """Return the place a cursor stands for.

    Raises:
        InvalidCursor: It was not made by `encode_cursor`.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        created_at, _, order_id = base64.urlsafe_b64decode(padded).decode("ascii").partition("|")
        moment = dt.datetime.fromisoformat(created_at)
        if moment.utcoffset() is None:
            raise InvalidCursor
        # Not every moment with an offset is one in UTC: year 1 and year 9999 end early there.
        return Place(moment.astimezone(dt.UTC), uuid.UUID(order_id))
    except (ValueError, OverflowError, binascii.Error) as error:
        raise InvalidCursor from error
