"""What must stand in no line: the last look at what redaction let through, before people read it."""

from typing import Final

from monitoring.build.logs.model import Alarming, Harmless, Line, LogAlert

PATTERNS: Final = (
    r"eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]{8,}",  # a JWT
    r"[Bb]earer [\w.~+/=-]{20,}",
    r"Basic [A-Za-z0-9+/]{20,}",
    r"\b(?:sk|rk|whsec|ghp|glpat|xox[abprs])[_-][A-Za-z0-9_-]{12,}",  # keys that name themselves
    r"\bAKIA[A-Z0-9]{16}\b",
    r"[a-z]://[^/\s:@\[]+:[^/\s@\[*]{3,}@",  # the password of a URL
    r"PRIVATE KEY-----\W{1,4}[A-Za-z0-9+/]{16}",
    r"(?:password|passwd|client_secret)=[A-Za-z0-9_.~!$%^-]{8,}",
    r"\b[3-6]\d{3}[ -]\d{4}[ -]\d{4}[ -]\d{4}\b",  # a card number as people write it
)
"""Only what is hardly ever anything else: nobody would act on an alert that is wrong every day."""

_ANY: Final = '{service_name=~".+"} |~ `' + "|".join(PATTERNS) + "`"


def _said(text: str) -> Line:
    return Line("postgres", text=text)


_SECRET: Final = LogAlert(
    name="SecretInLogs",
    expr=f"sum by (service_name) (count_over_time({_ANY} [5m])) > 0",
    severity="warning",
    component="security",
    summary="Something that looks like a secret stands in log lines.",
    description='{{ $value | printf "%.0f" }} lines of {{ $labels.service_name }} in the last <5m> hold a'
    " token, key, password or card number; it should be 0. Whoever may read logs can read it.",
    dashboard="security",
    logs=_ANY,
    reason="The service and the collector redact what they know. What another program writes, or a new"
    " pattern that neither knows, is seen in what arrived.",
    alarming=(
        Alarming(
            lines=(
                Line(
                    "glasshouse",
                    {
                        "type": "application",
                        "level": "INFO",
                        "message": "calling with Bearer abcdefgh12345678ijklmnop",
                    },
                ),
            ),
            labels={"service_name": "glasshouse"},
            value="1",
        ),
        Alarming(
            lines=(
                _said("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJlLTEyMw"),
                _said("connecting to postgresql://shop:hunter2hunter2@postgres:5432/shop"),
                _said("-----BEGIN RSA PRIVATE KEY-----\\nMIIEowIBAAKCAQEAxyz0"),
                _said("PGOPTIONS password=correct-horse-battery"),
                _said("card 4111 1111 1111 1111 refused"),
                _said("whsec_1a2b3c4d5e6f7g8h"),
                _said("AKIAABCDEFGHIJKLMNOP"),
                _said("Authorization: Basic c2hvcDpodW50ZXIyaHVudGVyMg=="),
            ),
            labels={"service_name": "postgres"},
            value="8",
        ),
    ),
    harmless=(
        Harmless(
            why="it was taken out",
            lines=(
                _said("Authorization: Bearer [redacted]"),
                _said("postgresql://shop:***@postgres:5432/shop"),
                _said("postgresql://shop:[redacted]@postgres:5432/shop"),
                _said("-----BEGIN PRIVATE KEY-----[redacted]-----END PRIVATE KEY-----"),
                _said('{"password": "[redacted]", "token_type": "bearer"}'),
            ),
        ),
        Harmless(
            why="ids, times and versions",
            lines=(
                _said("4bf92f3577b34da6a3ce929d0e0e4736 6f9619ff-8b86-4011-b42d-00c04fc964ff"),
                _said("2026-11-21 14:02:15.123 UTC [4242] LOG:  checkpoint complete"),
                _said("http://8f3b2c1d9e4a4f6d8b7c6a5e4d3c2b1a@bugsink:8000/1"),
                _said('password authentication failed for user "shop"'),
            ),
        ),
    ),
)

_MASKED: Final = (
    '{service_name=~"glasshouse.*"} | redaction_masked_count > 0 | type!="http_request"'
)


def _masked(kind: str, times: int) -> Line:
    fields: dict[str, str | int] = {
        "type": kind,
        "level": "INFO",
        "logger": "app.orders.service",
        "message": "said",
        "redaction_masked_count": 1,
    }
    return Line("glasshouse", fields, times=times, age="10m")


_MISSED: Final = LogAlert(
    name="RedactionMissed",
    # The collector is coarser than the service: now and then a number of a line looks like a card's.
    expr=f"sum by (service_name, logger) (count_over_time({_MASKED} [1h])) >= 30",
    severity="info",
    component="security",
    summary="Lines of the service held what the collector had to mask: our redaction missed it.",
    description='{{ $value | printf "%.0f" }} lines of {{ $labels.logger }} ({{ $labels.service_name }}) were'
    " masked in the last <1h>; below 30 is usual.",
    dashboard="security",
    logs=_MASKED,
    reason="The collector writes on each line how much it masked, and counts it nowhere.",
    alarming=(
        Alarming(
            lines=(_masked("business", 30),),
            labels={"service_name": "glasshouse", "logger": "app.orders.service"},
            value="30",
        ),
    ),
    harmless=(
        Harmless(why="an id that looks like a number", lines=(_masked("business", 5),)),
        Harmless(why="clients send what they like", lines=(_masked("http_request", 60),)),
    ),
)

SECRETS: Final = (_SECRET, _MISSED)
