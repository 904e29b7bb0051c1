"""Secrets that nobody else has: random, well-formed, and each remembered with the place it was put in.

A canary is what it claims to be: card numbers pass Luhn, IBANs pass mod 97, a JWT can be decoded. At
least sixteen random letters or digits are in each, so that finding one by chance is out of question.
"""

import base64
import json
import random
import secrets
import string
from collections.abc import Callable
from dataclasses import dataclass

_random = random.SystemRandom()


def letters(length: int = 20) -> str:
    """Return random lower-case letters."""
    return "".join(_random.choice(string.ascii_lowercase) for _ in range(length))


def digits(length: int) -> str:
    """Return random digits."""
    return "".join(_random.choice(string.digits) for _ in range(length))


@dataclass(frozen=True, slots=True)
class Canary:
    """One secret. `core` is the part that alone gives it away, such as the local part of an address."""

    kind: str
    place: str
    value: str
    core: str = ""
    stored_in: frozenset[str] = frozenset()
    """Columns, as "table.column", where it is meant to live."""


class Aviary:
    """Makes canaries and keeps the list of them."""

    def __init__(self) -> None:
        self.all: list[Canary] = []

    def new(self, kind: str, place: str, *stored_in: str) -> str:
        """Return a new secret of `kind`, to be put in `place`; `stored_in` are columns it may be in."""
        value, core = KINDS[kind]()
        return self.keep(kind, place, value, *stored_in, core=core)

    def keep(self, kind: str, place: str, value: str, *stored_in: str, core: str = "") -> str:
        """Remember a secret that was made elsewhere, such as an access token."""
        self.all.append(Canary(kind, place, value, core, frozenset(stored_in)))
        return value


def _email() -> tuple[str, str]:
    local = letters()
    return f"{local}@example.com", local


def _tagged_email() -> tuple[str, str]:
    local = letters()
    return f"{local}+{letters(8)}@Mail.Example.com", local


def card_number() -> str:
    """Return sixteen digits that pass Luhn, as a Visa card's do."""
    body = "4" + digits(14)
    doubled = sum(sum(divmod(2 * int(digit), 10)) for digit in body[::2])
    return f"{body}{-(doubled + sum(int(digit) for digit in body[1::2])) % 10}"


def _iban() -> tuple[str, str]:
    account = digits(18)
    check = 98 - int(f"{account}131400") % 97  # D is 13, E is 14
    return f"DE{check:02d}{account}", account


def _grouped(make: Callable[[], str], separator: str) -> tuple[str, str]:
    compact = make()
    return separator.join(compact[at : at + 4] for at in range(0, len(compact), 4)), compact


def _jwt() -> tuple[str, str]:
    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")

    core = letters(24)
    claims = part({"sub": core, "exp": 4102444800})
    return f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{claims}.{secrets.token_urlsafe(32)}", core


def _basic() -> tuple[str, str]:
    core = letters(24)
    return base64.b64encode(f"user:{core}".encode()).decode(), core


def _alone(make: Callable[[], str]) -> tuple[str, str]:
    return make(), ""


def _payment_token() -> str:
    return f"tok_{letters(16)}{digits(4)}{letters(4).upper()}"


def _address() -> str:
    host = ":".join(f"{_random.randrange(0x1000, 0x10000):x}" for _ in range(5))
    return f"2001:db8:77:{host}"


KINDS: dict[str, Callable[[], tuple[str, str]]] = {
    "e-mail": _email,
    "tagged e-mail": _tagged_email,
    "card": lambda: _alone(card_number),
    "card with blanks": lambda: _grouped(card_number, " "),
    "card with dashes": lambda: _grouped(card_number, "-"),
    "IBAN": _iban,
    "IBAN with blanks": lambda: _grouped(lambda: _iban()[0], " "),
    "telephone number": lambda: _alone(lambda: f"+49{digits(12)}"),
    "JWT": _jwt,
    "Basic": _basic,
    "payment token": lambda: _alone(_payment_token),
    "opaque token": lambda: _alone(lambda: f"{letters(12)}-{secrets.token_urlsafe(24)}"),
    "hexadecimal token": lambda: _alone(lambda: secrets.token_hex(20)),
    "word": lambda: _alone(letters),
    "IPv6 address": lambda: _alone(_address),
}
