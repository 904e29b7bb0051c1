"""Cursors: what goes in comes out, and nothing else is taken for a place."""

import base64
import datetime as dt
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.orders.errors import InvalidCursor
from app.orders.pagination import Place, decode_cursor, encode_cursor

AN_ID = uuid.UUID("0b0f9c3e-7a59-4a54-9d3a-6f7f0e1f2a3b")
_UTC = st.just(dt.UTC)


@given(st.datetimes(timezones=_UTC), st.uuids())
def test_a_cursor_comes_back_as_the_place_it_stands_for(
    moment: dt.datetime, id_: uuid.UUID
) -> None:
    cursor = encode_cursor(Place(moment, id_))
    assert decode_cursor(cursor) == (moment, id_)


@given(st.datetimes(timezones=_UTC), st.uuids())
def test_a_cursor_fits_into_a_query_as_it_is(moment: dt.datetime, id_: uuid.UUID) -> None:
    cursor = encode_cursor(Place(moment, id_))
    assert len(cursor) <= 200
    assert set(cursor) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def _encode(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        "A",
        "next",
        "\u00fc",
        _encode(""),
        _encode("|"),
        _encode(f"2026-01-01T00:00:00+00:00|{AN_ID}x"),
        _encode("2026-01-01T00:00:00+00:00"),
        _encode(f"yesterday|{AN_ID}"),
        _encode(f"2026-01-01T00:00:00|{AN_ID}"),
        _encode(f"\u0662\u0660\u0662\u0666|{AN_ID}"),
        # Real moments, but not in UTC's calendar.
        _encode(f"0001-01-01T00:00:00+23:59|{AN_ID}"),
        _encode(f"9999-12-31T23:59:59-23:59|{AN_ID}"),
    ],
)
def test_what_this_api_has_not_given_out_is_refused(cursor: str) -> None:
    with pytest.raises(InvalidCursor):
        decode_cursor(cursor)


@given(st.text())
def test_any_text_is_a_place_in_utc_or_refused(text: str) -> None:
    for cursor in (text, _encode(text) if text.isprintable() else text):
        try:
            place = decode_cursor(cursor)
        except InvalidCursor:
            continue
        assert place.created_at.utcoffset() == dt.timedelta(0)
