"""What must not leave the process: secrets and personal data, taken out of every signal.

Two nets. By key: the value of `password`, `X-Api-Key` or `card_number` goes, whatever it is. By
pattern: card numbers (Luhn), IBANs (ISO 13616, mod 97), e-mail addresses, JWTs, Authorization values,
credentials and queries of URLs, and the values that database and validation errors quote go from any
text. Logs, spans and error reports all pass here; where in doubt, it takes out too much.

Must never raise, never follow a structure for ever, and never be slow for the ordinary short text:
each pattern stands behind a substring check.
"""

import hashlib
import ipaddress
import re
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from itertools import combinations, islice
from typing import Final

REDACTED: Final = "[redacted]"

MAX_TEXT = 32_768
"""Characters of one text that are kept."""
MAX_DEPTH = 8
MAX_ITEMS = 1_000
"""Values of one structure that are kept, over all levels."""

_SECRET_WORDS: Final = {
    "password", "passwd", "passphrase", "pwd", "pin", "secret", "token", "jwt", "authorization",
    "auth", "cookie", "credential", "apikey", "card", "pan", "cvv", "cvc", "cvv2", "csc", "otp",
    "totp", "mfa", "iban", "ssn", "email", "phone", "msisdn",
}  # fmt: skip
_SECRET_PAIRS: Final = {
    ("api", "key"), ("private", "key"), ("access", "key"), ("signing", "key"), ("e", "mail"),
}  # fmt: skip
_HARMLESS_AFTER: Final = {
    "type", "kind", "count", "length", "ttl", "expires", "expiry", "expired", "status", "state",
    "verified", "present", "required", "valid", "sent", "brand", "network", "domain", "used",
    "bucket", "scope", "scopes", "policy", "pseudonym",
}  # fmt: skip
"""`token_type` and `email_verified` say something about the secret, and not the secret."""

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+\d*|\d+")


@lru_cache(maxsize=4096)
def is_secret_key(name: str) -> bool:
    """Whether a value under this key must not be shown.

    Compares words, not substrings: `card_number`, `X-Api-Key` and `accessToken` are secret,
    `discard`, `token_type` and `author` are not.
    """
    words = [_singular(word.lower()) for word in _WORDS.findall(name[:128])]
    for word, after in zip(words, [*words, ""][1:], strict=True):
        secret = word in _SECRET_WORDS or (word, after) in _SECRET_PAIRS
        if secret and after not in _HARMLESS_AFTER:
            return True
    return False


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and word[:-1] in _SECRET_WORDS else word


def pseudonym(value: str, key: str) -> str:
    """Return a name for `value` that only holders of `key` can recompute: 96 bits, hexadecimal.

    Equal values (case and surrounding blanks aside) get equal pseudonyms, so events about one
    e-mail address can be counted without storing it. A plain hash would not do: addresses are
    guessable. Raises ValueError for an empty key.
    """
    if not key:
        raise ValueError("a pseudonym needs a key: without one, anybody can recompute it")
    derived = hashlib.blake2b(key.encode(), digest_size=32).digest()
    plain = value.strip().casefold().encode()
    return hashlib.blake2b(plain, key=derived, digest_size=12).hexdigest()


# Patterns -----------------------------------------------------------------------------------------

_EMAIL = re.compile(r"(?<![\w.%+-])[\w.%+-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+")
_JWT = re.compile(r"eyJ[\w-]{5,}(?:\.[\w-]*){2,4}")
_BEARER = re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]+")
_BASIC = re.compile(r"\b((?i:basic))\s+(?=[a-z]*[A-Z0-9+/=])[A-Za-z0-9+/]{6,}={0,2}")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s\"'<>\\]+")
_TWO_DIGITS = re.compile(r"[0-9]{2}")
# These two begin with a character set, which lets the engine skip ahead; hence the late lookbehind.
_CARD = re.compile(r"[2-6](?<![A-Za-z0-9.][2-6])(?:[ -]?[0-9]){12,18}(?![A-Za-z0-9]|-[A-Za-z0-9])")
_IBAN = re.compile(
    r"[A-Z](?<![A-Za-z0-9][A-Z])[A-Z][0-9]{2}"
    r"(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,4})?)(?![A-Za-z0-9])"
)
_SHORTEST_CARD = 13
_SHORTEST_IBAN = 15  # Norway's
_HEADER = re.compile(
    r"(?i)\b((?:(?:set-)?cookie|(?:proxy-)?authorization)\s*[:=]\s*)(?![\"'])[^\r\n\"']+"
)
_PAIR = re.compile(
    r"(?<![\w.-])(?P<key>[A-Za-z][\w.-]{1,63})(?P<sign>[\"']?\s{0,3}[=:]\s{0,3})"
    r"(?P<value>\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|[^\s,;&)\]}\"']+)"
)
_QUOTED_VALUES: tuple[tuple[str, re.Pattern[str], str], ...] = (
    # SQLAlchemy, PostgreSQL, pydantic and FastAPI put the offending values into their messages.
    ("[parameters: ", re.compile(r"(\[parameters: )[^\n]*\]"), rf"\1{REDACTED}]"),
    ("Failing row", re.compile(r"(Failing row contains )\([^\n]*\)"), rf"\1({REDACTED})"),
    ("Key (", re.compile(r"(Key \([^)\n]*\)=)\([^\n]*?\)(?= \w|\.|$)"), rf"\1({REDACTED})"),
    ("input_value=", re.compile(r"(input_value=)[^\n]*?(, input_type=)"), rf"\1{REDACTED}\2"),
    (
        "'input': ",
        re.compile(
            r"('input': )(?:'(?:[^'\\\n]|\\.)*'|\"(?:[^\"\\\n]|\\.)*\"|[\[{][^\n]*|[^\s,}]+)"
        ),
        rf"\1{REDACTED}",
    ),
)


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(int(digit) for digit in digits[-1::-2]) + sum(doubled)) % 10 == 0


def _card(match: re.Match[str]) -> str:
    # Other numbers may stand beside the card's, such as its CVV.
    groups = match[0].replace("-", " ").split(" ")
    for begin, end in combinations(range(len(groups) + 1), 2):
        digits = "".join(groups[begin:end])
        if len(digits) >= _SHORTEST_CARD and digits[0] in "23456" and _luhn(digits):
            return REDACTED
    return match[0]


def _iban(match: re.Match[str]) -> str:
    groups = match[0].split(" ")
    for end in range(len(groups), 0, -1):  # the last groups may be words that follow the number
        compact = "".join(groups[:end])
        if len(compact) < _SHORTEST_IBAN:
            break
        if int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1:
            return " ".join([REDACTED, *groups[end:]])
    return match[0]


_PLACEHOLDER = re.compile(r"\?|%s|\$\d{1,5}(?:::\w+)?")
"""What stands for a value in the text of a statement."""


def _pair(match: re.Match[str]) -> str:
    value = match["value"]
    if value.startswith(REDACTED[:-1]) or _PLACEHOLDER.fullmatch(value):
        return match[0]
    if not is_secret_key(match["key"]):
        return match[0]
    return f"{match['key']}{match['sign']}{REDACTED}"


def _url(match: re.Match[str]) -> str:
    return redact_url(match[0])


_harmless: set[str] = set()
_MAX_HARMLESS = 4096
_MAX_HARMLESS_LENGTH = 128
"""Sentences, routes and user agents come again and again: what was found clean is remembered (and only
that, so no secret stays in memory). It makes the ordinary text five times cheaper."""


def redact_text(text: str) -> str:
    """Return `text` without the secrets and personal data that can be recognised in it."""
    if text in _harmless:
        return text
    redacted = _redact_text(text)
    if len(text) <= _MAX_HARMLESS_LENGTH and redacted == text:
        if len(_harmless) >= _MAX_HARMLESS:
            _harmless.clear()
        _harmless.add(text)
    return redacted


def _redact_text(text: str) -> str:
    if len(text) > MAX_TEXT:
        text = f"{text[:MAX_TEXT]}... [{len(text) - MAX_TEXT} characters cut]"
    if "://" in text:
        text = _URL.sub(_url, text)
    if "@" in text or "%40" in text:
        text = _EMAIL.sub(REDACTED, text)
    if "eyJ" in text:
        text = _JWT.sub(REDACTED, text)
    if "earer" in text or "EARER" in text:
        text = _BEARER.sub(rf"\1 {REDACTED}", text)
    if "asic " in text or "ASIC " in text:
        text = _BASIC.sub(rf"\1 {REDACTED}", text)
    if "=" in text or ":" in text:
        text = _redact_pairs(text)
    if _TWO_DIGITS.search(text):
        text = _CARD.sub(_card, text)
        text = _IBAN.sub(_iban, text)
    return text


def _redact_pairs(text: str) -> str:
    for hint, pattern, replacement in _QUOTED_VALUES:
        if hint in text:
            text = pattern.sub(replacement, text)
    return _PAIR.sub(_pair, _HEADER.sub(rf"\1{REDACTED}", text))


def redact_url(url: str) -> str:
    """Return `url` without credentials, query values and fragment; names of parameters stay.

    `postgresql://u:p@h/db?ssl=1` becomes `postgresql://[redacted]@h/db?ssl=[redacted]`.
    """
    url, sign, _ = url.partition("#")
    fragment = f"{sign}{REDACTED}" if sign else ""
    address, sign, query = url.partition("?")
    if sign:
        names = [pair.partition("=")[0] for pair in query.split("&")]
        query = "&".join(f"{redact_text(name)}={REDACTED}" for name in names)
    scheme, separator, rest = address.partition("://")
    if separator:
        authority, slash, path = rest.partition("/")
        # An unescaped slash in a password moves the @ into what looks like the path.
        if "@" not in authority and "@" in path and not _ends_in_port(authority):
            authority, slash, path = rest.rpartition("@")[2].partition("/")
            authority = f"@{authority}"
        _, at, host = authority.rpartition("@")
        address = f"{scheme}://{REDACTED if at else ''}{at}{host}{slash}{redact_text(path)}"
    else:
        address = redact_text(address)
    return f"{address}{sign}{query}{fragment}"


def _ends_in_port(authority: str) -> bool:
    _, colon, port = authority.rpartition(":")
    return not colon or port.isdigit() or port.endswith("]")


def redact_path(path: str, parameters: Mapping[str, object]) -> str:
    """Return the path of a request without the values of its secret parameters, such as `{token}`."""
    for name, value in parameters.items():
        if is_secret_key(name) and (text := str(value)):
            path = path.replace(text, REDACTED)
    return redact_text(path)


@lru_cache(maxsize=1024)
def redact_address(host: str) -> str:
    """Return the /24 or /48 network of an IP address: enough to see where, too little to see who.

    Returns an empty string for anything else, such as the name that a test client gives.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return ""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped:
        address = address.ipv4_mapped
    prefix = 24 if isinstance(address, ipaddress.IPv4Address) else 48
    return str(ipaddress.ip_network((address, prefix), strict=False).network_address)


# Structures ---------------------------------------------------------------------------------------


def redact(value: object) -> object:
    """Return a copy of `value`, fit for JSON, without secrets on any level.

    Mappings, sequences and sets are followed to MAX_DEPTH levels and MAX_ITEMS values; numbers,
    booleans and None stay what they are; everything else becomes its redacted text.
    """
    return _Walk().value(value, MAX_DEPTH)


_NUMBERS = (int, float)
_BYTES = (bytes, bytearray, memoryview)
_ITEMS = (Sequence, Set)
_MAX_PLAIN = 10**12
"""A card number may come as a number; nearly everything that a service counts is smaller."""
_MAX_DIGITS = 4096


class _Walk:
    """One passage through a structure, with what is left of its allowance."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        self._left = MAX_ITEMS

    def value(self, value: object, depth: int) -> object:
        if isinstance(value, str):
            return redact_text(value)
        if value is None:
            return None
        if isinstance(value, _NUMBERS):
            return value if -_MAX_PLAIN < value < _MAX_PLAIN else _number(value)
        if isinstance(value, Mapping):
            return self._mapping(value, depth) if depth else _cut(value)
        if isinstance(value, _ITEMS) and not isinstance(value, _BYTES):
            return self._sequence(value, depth) if depth else _cut(value)
        return redact_text(_text_of(value))

    def _mapping(self, mapping: Mapping[object, object], depth: int) -> dict[str, object]:
        kept: dict[str, object] = {}
        for key, value in islice(mapping.items(), max(self._left, 0)):
            name = key if isinstance(key, str) else _text_of(key)
            shown = name if name.isidentifier() else redact_text(name)
            kept[shown] = self._under(name, value, depth)
        if len(mapping) > len(kept):
            kept["..."] = f"[{len(mapping) - len(kept)} more]"
        return kept

    def _sequence(self, items: Sequence[object] | Set[object], depth: int) -> list[object]:
        kept: list[object] = []
        for item in islice(items, max(self._left, 0)):
            match item:
                case (str() | bytes() as key, value):  # a header, as ASGI and http.client hold it
                    name = key if isinstance(key, str) else key.decode("latin-1")
                    kept.append([redact_text(name), self._under(name, value, depth)])
                case _:
                    self._left -= 1
                    kept.append(self.value(item, depth - 1))
        if len(items) > len(kept):
            kept.append(f"[{len(items) - len(kept)} more]")
        return kept

    def _under(self, name: str, value: object, depth: int) -> object:
        self._left -= 1
        if is_secret_key(name):
            return value if value is None or isinstance(value, bool) else REDACTED
        if isinstance(value, str):
            return redact_text(value)
        return self.value(value, depth - 1)


def _number(value: int | float) -> object:
    text = str(value) if isinstance(value, float) or value.bit_length() < _MAX_DIGITS else "[huge]"
    if isinstance(value, float) or value.bit_length() >= 64:  # noqa: PLR2004 - JSON's integers
        return redact_text(text)
    return REDACTED if redact_text(text) == REDACTED else value


def _cut(value: Mapping[object, object] | Sequence[object] | Set[object]) -> str:
    return f"[{type(value).__name__} of {len(value)}, nested too deep]"


def _text_of(value: object) -> str:
    try:
        if isinstance(value, _BYTES):
            return bytes(value[:MAX_TEXT]).decode("utf-8", "replace")
        return str(value)
    except Exception:  # noqa: BLE001 - a broken __str__ must not break the log line that shows it
        return f"[unprintable {type(value).__name__}]"
