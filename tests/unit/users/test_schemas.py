"""Addresses are one form, whoever types them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.users.schemas import normalise_email


@pytest.mark.parametrize(
    ("typed", "stored"),
    [
        ("Ada@Example.COM", "ada@example.com"),
        ("ada@xn--bcher-kva.example", "ada@b\u00fccher.example"),
        ("ju\u0308rg@example.com", "j\u00fcrg@example.com"),
    ],
)
def test_an_address_has_one_form(typed: str, stored: str) -> None:
    assert normalise_email(typed) == stored


@pytest.mark.parametrize("typed", ["", "ada", "ada@", "@example.com", "a\x00@example.com", "a b@c"])
def test_what_is_no_address_has_none(typed: str) -> None:
    assert normalise_email(typed) is None


@given(
    st.emails()
    | st.builds("{}@example.com".format, st.text("abc\u00df\u0130\u0301\u212b", min_size=1))
)
def test_the_form_of_a_form_is_itself(typed: str) -> None:
    stored = normalise_email(typed)
    assert stored is None or normalise_email(stored) == stored


@given(st.text())
def test_no_text_is_too_strange_to_be_refused(typed: str) -> None:
    normalise_email(typed)
    normalise_email(f"{typed}@example.com")
    normalise_email(f"ada@{typed}.com")
