"""What must not leave the process: secrets and personal data, taken out of every signal.

Two nets. By key: the value of `password`, `X-Api-Key` or `card_number` goes, whatever it is. By
pattern: card numbers (Luhn), IBANs (ISO 13616, mod 97), e-mail addresses, international telephone
numbers, JWTs, Authorization values, keys that name themselves (`tok_...`), credentials and queries of
URLs, and the values that database and validation errors quote go from any text, also where they are
percent-encoded, JSON-escaped or written with look-alikes. Of a path, what is neither a word nor the id
of a known route goes. Logs, spans, error reports and the audit log all pass here; where in doubt, it
takes out too much. What nobody can recognise, such as a password alone in a sentence, is for the
caller to leave out; tests/contract/test_canary.py looks whether everybody does.

Must never raise, never follow a structure for ever, and never be slow for the ordinary short text:
each pattern stands behind a substring check. `python -m bench redaction` measures it.
"""

import hashlib
import ipaddress
import re
import unicodedata
from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from itertools import combinations, islice
from typing import Final
from urllib.parse import unquote

REDACTED: Final = "[redacted]"

MAX_TEXT = 32_768
"""Characters of one text that are kept."""
MAX_DEPTH = 8
MAX_ITEMS = 1_000
"""Values of one structure that are kept, over all levels."""

_SECRET_WORDS: Final = {
    "password", "passwd", "passphrase", "pwd", "pin", "secret", "token", "jwt", "authorization",
    "auth", "cookie", "credential", "apikey", "card", "pan", "cvv", "cvc", "cvv2", "csc", "otp",
    "totp", "mfa", "iban", "ssn", "email", "phone", "msisdn", "passcode", "signature", "dsn",
}  # fmt: skip
_SECRET_PAIRS: Final = {
    ("api", "key"), ("private", "key"), ("access", "key"), ("signing", "key"), ("e", "mail"),
    ("telephone", "number"), ("mobile", "number"), ("account", "number"),
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

_EMAIL = re.compile(r"(?<![\w.%+!#$*^~|-])[\w.%+!#$*^~|-]+(?:@|%40)[\w-]+(?:\.[\w-]+)+")
_PHONE = re.compile(r"(?<![\w.+])\+[1-9](?:[ ().-]{0,2}[0-9]){7,14}(?![\w])")  # E.164
_JWT = re.compile(
    r"eyJ[\w-]{5,}(?:\.[\w-]*){0,4}"
)  # also what is none, so that it is read only once
_DOTS_OF_JWT = 2
_BEARER = re.compile(r"(?i)\b(bearer)\s+[\w.~+/=-]+")
_BASIC = re.compile(r"\b((?i:basic))\s+(?=[a-z]*[A-Z0-9+/=])[A-Za-z0-9+/]{6,}={0,2}")
_TELLTALES = ("tok_", "sk_", "rk_", "whsec_", "ghp_", "glpat-")
_NAMED_KEY = re.compile(
    r"(?<![A-Za-z0-9])(?:tok|sk|rk|whsec|ghp|glpat)[_-](?=[a-z_-]{0,64}[A-Z0-9])[\w-]{10,}"
)
_PEM = re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(?:(?=-----END )|\Z)", re.DOTALL)
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s\"'<>\\]+")
_TWO_DIGITS = re.compile(r"[0-9]{2}")
# These two begin with a character set, which lets the engine skip ahead; hence the late lookbehind.
_CARD = re.compile(r"[2-6](?<![A-Za-z0-9.][2-6])(?:[ +-]?[0-9]){12,18}(?![A-Za-z0-9]|-[A-Za-z0-9])")
_IBAN = re.compile(
    r"[A-Z](?<![A-Za-z0-9][A-Z])[A-Z][0-9]{2}"
    r"(?:[A-Z0-9]{11,30}|(?:[ +-][A-Z0-9]{4}){2,7}(?:[ +-][A-Z0-9]{1,4})?)(?![A-Za-z0-9])"
)
_SHORTEST_CARD = 13
_SHORTEST_IBAN = 15  # Norway's
_SEPARATOR = re.compile(r"[ +-]")
_HEADER = re.compile(
    r"(?i)\b((?:(?:set-)?cookie|(?:proxy-)?authorization)\s*[:=]\s*)(?![\"'])[^\r\n\"']+"
)
# A value may be cut off, so its closing quote or bracket may be missing.
_QUOTED = r"[bBrRuU]{0,2}(?:\"(?:[^\"\\\n]|\\.)*\"?|'(?:[^'\\\n]|\\.)*'?)"
_KEY = re.compile(r"(?<![\w.-])(?P<key>[A-Za-z][\w.-]{1,63})(?:\\{0,8}[\"'])?\s{0,3}[=:]\s{0,3}")
_VALUE = re.compile(
    rf"{_QUOTED}|[bBrRuU]{{0,2}}\\+(?P<quote>[\"'])[^\n]*?(?:\\+(?P=quote)|(?=\n)|\Z)"
    r"|[\[({][^\n\])}]{0,2000}[\])}]?"
    rf"|[^\s,;&)\]}}\"']+(?:(?<=\(){_QUOTED}\)?)?"
)
_ITEM = re.compile(  # of a list of headers or a list of pairs
    rf"(?P<sign>[(\[][bB]?(?P<quote>[\"'])(?P<key>[A-Za-z][\w.-]{{1,63}})(?P=quote), )(?P<value>{_QUOTED})"
)
_QUOTED_VALUES: tuple[tuple[str, re.Pattern[str], str], ...] = (
    # SQLAlchemy, PostgreSQL, pydantic, FastAPI and Python put the offending values into their messages,
    # whose end may be cut off.
    (
        "[parameters: ",
        re.compile(r"(\[parameters: )(?:[^\n]*\]|[^\n]*\Z)"),
        rf"\1{REDACTED}]",
    ),
    (
        "Failing row",
        re.compile(r"(Failing row contains )(?:\([^\n]*\)|\([^\n]*\Z)"),
        rf"\1({REDACTED})",
    ),
    (
        "ey (",
        re.compile(r"([Kk]ey \([^\n]*?\)=)(?:\([^\n]*?\)(?= \w|\.|$)|\([^\n]*\Z)", re.MULTILINE),
        rf"\1({REDACTED})",
    ),
    (
        "input_value=",
        re.compile(r"(input_value=)(?:[^\n]*?(, input_type=)|[^\n]*\Z)"),
        rf"\1{REDACTED}\2",
    ),
    (
        "input",
        re.compile(rf"([\"']input[\"']: )(?:{_QUOTED}|[\[{{][^\n]*|[^\s,}}]+)"),
        rf"\1{REDACTED}",
    ),
    (
        "nvalid input",
        re.compile(
            r"(nvalid input (?:for query argument \$\d+|(?:syntax|value) for [\w ]{1,64}): )[^\n]+"
        ),
        rf"\1{REDACTED}",
    ),
    (
        "out of range",
        re.compile(r"(out of range: )[^\n]+|(value )\"[^\n]*\"( is out of range)"),
        rf"\1\2{REDACTED}\3",
    ),
    (" in tsquery", re.compile(r"( in tsquery: )\"[^\n]*"), rf"\1{REDACTED}"),
    (
        "not recognized",
        re.compile(r"((?:time zone|unit) )\"[^\n]*\"(?= not recognized)"),
        rf"\1{REDACTED}",
    ),
    (
        "value for parameter",
        re.compile(r"(value for parameter \"[^\"\n]*\": )\"[^\n]*"),
        rf"\1{REDACTED}",
    ),
    (" literal: ", re.compile(r"( literal: )\"[^\n]+"), rf"\1{REDACTED}"),
    (
        ": ",
        re.compile(
            r"(invalid literal for int\(\) with base \d{1,2}: |could not convert string to float: "
            r"|nvalid isoformat string: )[^\n]+"
        ),
        rf"\1{REDACTED}",
    ),
)


_STATEMENT = re.compile(r"\[SQL: (?:.*?\](?=\n|$)|.*\Z)", re.DOTALL)
_LITERAL = re.compile(r"'(?:[^']|'')*(?:'|\Z)")


def _statement(match: re.Match[str]) -> str:
    return _LITERAL.sub(f"'{REDACTED}'", match[0])


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(int(digit) for digit in digits[-1::-2]) + sum(doubled)) % 10 == 0


def _jwt(match: re.Match[str]) -> str:
    return REDACTED if match[0].count(".") >= _DOTS_OF_JWT else match[0]


def _card(match: re.Match[str]) -> str:
    # Other numbers may stand beside the card's, such as its CVV.
    groups = _SEPARATOR.split(match[0])
    for begin, end in combinations(range(len(groups) + 1), 2):
        digits = "".join(groups[begin:end])
        if len(digits) >= _SHORTEST_CARD and digits[0] in "23456" and _luhn(digits):
            return REDACTED
    return match[0]


def _iban(match: re.Match[str]) -> str:
    groups = _SEPARATOR.split(match[0])
    for end in range(len(groups), 0, -1):  # the last groups may be words that follow the number
        compact = "".join(groups[:end])
        if len(compact) < _SHORTEST_IBAN:
            break
        if int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1:
            return " ".join([REDACTED, *groups[end:]])
    return match[0]


_PLACEHOLDER = re.compile(r"\?|%s|\$\d{1,5}(?:::\w+)?")
"""What stands for a value in the text of a statement."""


def _redact_values(text: str) -> str:
    """Take out what stands behind a secret key. Values of other keys are looked into."""
    parts: list[str] = []
    done = at = 0
    while key := _KEY.search(text, at):
        at = key.end()
        if not is_secret_key(key["key"]):
            continue
        value = _VALUE.match(text, at)
        if value is None or value[0].startswith(REDACTED[:-1]) or _PLACEHOLDER.fullmatch(value[0]):
            continue
        parts += text[done:at], REDACTED
        done = at = value.end()
    return "".join([*parts, text[done:]]) if parts else text


def _item(match: re.Match[str]) -> str:
    return f"{match['sign']}{REDACTED}" if is_secret_key(match["key"]) else match[0]


def _url(match: re.Match[str]) -> str:
    return redact_url(match[0])


_harmless: set[str] = set()
_MAX_HARMLESS = 4096
_MAX_HARMLESS_LENGTH = 128
"""Sentences, routes and user agents come again and again: what was found clean is remembered (and only
that, so no secret stays in memory). It makes the ordinary text five times cheaper."""


class Clean(str):
    """Text that was redacted already, so that the next one to redact it need not look again."""

    __slots__ = ()


def redact_text(text: str, limit: int = MAX_TEXT) -> str:
    """Return `text` without the secrets and personal data that can be recognised in it.

    Who shows less than all of it says so with `limit`, and does not cut it before: half an e-mail
    address is none, to a pattern.
    """
    if text in _harmless or isinstance(text, Clean):
        return text
    if len(text) > limit:
        rest = len(text) - limit
        return f"{_redact_spelled(text[: limit + _BEYOND])[:limit]}... [{rest} characters cut]"
    redacted = _redact_spelled(text)
    if len(text) <= _MAX_HARMLESS_LENGTH and redacted == text:
        if len(_harmless) >= _MAX_HARMLESS:
            _harmless.clear()
        _harmless.add(text)
    return redacted


_BEYOND = 512
"""Characters that are looked at behind the limit, so that what begins before it is recognised."""


def _redact_spelled(text: str) -> str:
    redacted = _redact_text(text)
    if "%" in redacted or "\\" in redacted or not redacted.isascii():
        plain = _plain(redacted)
        if plain != redacted and (shown := _redact_text(plain)) != plain:
            return shown
    return redacted


_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|x([0-9a-fA-F]{2})|([\"'/]))")
_DIGITS = "0123456789"
_LOOK_ALIKES: dict[int, str | None] = {
    **dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF)),  # seen by nobody
    **dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-"),
    **{first + n: _DIGITS[n] for first in (0x660, 0x6F0, 0x966) for n in range(10)},
}
_MAX_LAYERS = 3


def _plain(text: str) -> str:
    """Return `text` as a reader understands it: decoded, unescaped, look-alikes put into ASCII."""
    for _ in range(_MAX_LAYERS):
        before = text
        if "%" in text:
            text = unquote(text)
        if "\\" in text:
            text = _ESCAPE.sub(_unescaped, text)
        if text == before:
            break
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text[: MAX_TEXT + _BEYOND]).translate(_LOOK_ALIKES)
    return text[: MAX_TEXT + _BEYOND]


def _unescaped(match: re.Match[str]) -> str:
    return match[3] or chr(int(match[1] or match[2], 16))


def _redact_text(text: str) -> str:
    if "://" in text:
        text = _URL.sub(_url, text)
    if "@" in text or "%40" in text:
        text = _EMAIL.sub(REDACTED, text)
    if "eyJ" in text:
        text = _JWT.sub(_jwt, text)
    if "earer" in text or "EARER" in text:
        text = _BEARER.sub(rf"\1 {REDACTED}", text)
    if "asic " in text or "ASIC " in text:
        text = _BASIC.sub(rf"\1 {REDACTED}", text)
    if "PRIVATE KEY" in text:
        text = _PEM.sub(rf"\1{REDACTED}", text)
    if ("_" in text or "-" in text) and any(one in text for one in _TELLTALES):
        text = _NAMED_KEY.sub(REDACTED, text)
    if "=" in text or ":" in text:
        text = _redact_pairs(text)
    if "', " in text or '", ' in text:
        text = _ITEM.sub(_item, text)
    if _TWO_DIGITS.search(text):
        text = _CARD.sub(_card, text)
        text = _IBAN.sub(_iban, text)
        if "+" in text:
            text = _PHONE.sub(REDACTED, text)
    return text


def _redact_pairs(text: str) -> str:
    for hint, pattern, replacement in _QUOTED_VALUES:
        if hint in text:
            text = pattern.sub(replacement, text)
    if "[SQL: " in text:
        text = _STATEMENT.sub(_statement, text)
    return _redact_values(_HEADER.sub(rf"\1{REDACTED}", text))


def redact_url(url: str) -> str:
    """Return `url` without credentials, query values and fragment; names of parameters stay.

    `postgresql://u:p@h/db?ssl=1` becomes `postgresql://[redacted]@h/db?ssl=[redacted]`.
    """
    url, sign, _ = url.partition("#")
    fragment = f"{sign}{REDACTED}" if sign else ""
    address, sign, query = url.partition("?")
    if sign:
        names = [pair.partition("=")[0] for pair in query.split("&")]
        query = "&".join(f"{_part_of_url(name)}={REDACTED}" for name in names)
    scheme, separator, rest = address.partition("://")
    if separator:
        authority, slash, path = rest.partition("/")
        # An unescaped slash in a password moves the @ into what looks like the path.
        if "@" not in authority and "@" in path and not _ends_in_port(authority):
            authority, slash, path = rest.rpartition("@")[2].partition("/")
            authority = f"@{authority}"
        _, at, host = authority.rpartition("@")
        address = f"{scheme}://{REDACTED if at else ''}{at}{host}{slash}{_part_of_url(path)}"
    else:
        address = redact_text(address)
    return f"{address}{sign}{query}{fragment}"


def _part_of_url(text: str) -> str:
    # A URL inside of a URL goes, with all that follows: there may be any number, one in the other.
    before, sign, _ = text.partition("://")
    return f"{redact_text(before)}{sign}{REDACTED}" if sign else redact_text(text)


def _ends_in_port(authority: str) -> bool:
    _, colon, port = authority.rpartition(":")
    return not colon or port.isdigit() or port.endswith("]")


def redact_path(path: str, parameters: Mapping[str, object], limit: int = MAX_TEXT) -> Clean:
    """Return the path of a request with those segments that cannot be a secret, cut to `limit`.

    These are words (`users`, `wp-login.php`, `v1`) and the ids among the values of the route's
    `parameters`: UUIDs and whole numbers, unless the parameter's name says that it is a secret. What
    else a client has put into a path, of no route in particular, may be a token or a name.
    """
    ids = {
        text
        for name, value in parameters.items()
        if not is_secret_key(name) and _is_id(text := str(value))
    }
    secret = {str(value) for name, value in parameters.items() if is_secret_key(name)}
    segments = path[:MAX_TEXT].split("/")
    for at, segment in enumerate(segments):
        if segment in secret or not (segment in ids or _WORD.fullmatch(segment)):
            segments[at] = REDACTED if segment else ""
    return Clean("/".join(segments)[:limit])


def redact_matched_path(
    path: str, parameters: Mapping[str, object], limit: int = MAX_TEXT
) -> Clean:
    """Return the same of a path that a route has matched, sooner: what is no parameter is the route's."""
    for name, value in parameters.items():
        if is_secret_key(name) or not _is_id(str(value)):
            return redact_path(path, parameters, limit)
    return Clean(path[:limit])


_WORD = re.compile(
    r"\.?[A-Za-z]{0,15}[0-9]{0,3}(?:[._-][A-Za-z]{1,15}[0-9]{0,2}){0,5}|\[[a-z]{1,15}\]"
)
"""A four-digit number may be a one-time code, and sixteen letters in a row are hardly ever a word."""
_UUID = re.compile(r"[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}")
_MAX_ID_DIGITS = 12  # a card number has at least thirteen


def _is_id(text: str) -> bool:
    if text.isdecimal() and text.isascii():
        return len(text) <= _MAX_ID_DIGITS
    return _UUID.fullmatch(text) is not None


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
