"""Who tries doors: from where, at which tool, and whether somebody changed the book that says so."""

import json
from typing import Final

from monitoring.build.logs.model import Alarming, Harmless, Line, LogAlert

_TRIES: Final = (
    '{service_name="glasshouse"} | type="http_request" | route="/v1/auth/token" | status="401"'
)


def _login(network: str, times: int, status: int = 401) -> Line:
    return Line(
        "glasshouse",
        {
            "type": "http_request",
            "level": "INFO",
            "message": "request served",
            "route": "/v1/auth/token",
            "status": status,
            "client_ip": network,
        },
        times=times,
    )


_ONE_NETWORK: Final = LogAlert(
    name="LoginsFailFromOneNetwork",
    expr=f"sum by (client_ip) (count_over_time({_TRIES} [15m])) >= 30",
    severity="warning",
    component="security",
    summary="One network tries one password after another.",
    description='From {{ $labels.client_ip }} came {{ $value | printf "%.0f" }} failed log-ins in the last'
    " <15m>; below 30 is usual. The last part of the address is not kept.",
    dashboard="security",
    logs=_TRIES,
    reason="LoginBruteForce counts them all; an address is no label of a metric, and it is the address that"
    " can be shut out.",
    alarming=(
        Alarming(
            lines=(_login("203.0.113.0", 31), _login("198.51.100.0", 29)),
            labels={"client_ip": "203.0.113.0"},
            value="31",
        ),
    ),
    harmless=(
        Harmless(
            why="customers mistype, from everywhere",
            lines=tuple(_login(f"198.51.{number}.0", 5) for number in range(9)),
        ),
        Harmless(
            why="an office logs in at nine o'clock", lines=(_login("203.0.113.0", 60, status=200),)
        ),
    ),
)

REFUSED_BY_POSTGRES: Final = (
    "FATAL: .*(password authentication failed|no pg_hba.conf entry|role .+ does not exist)"
)
_DOOR: Final = f'{{service_name="postgres"}} |~ "{REFUSED_BY_POSTGRES}"'


def _knock(times: int) -> Line:
    said = 'password authentication failed for user "postgres"'
    return Line("postgres", text=f"2026-11-21 14:02:15.123 UTC [42] FATAL:  {said}", times=times)


_DATABASE: Final = LogAlert(
    name="DatabaseLoginsRefused",
    expr=f"sum(count_over_time({_DOOR} [10m])) >= 5",
    severity="warning",
    component="security",
    summary="PostgreSQL refuses log-ins: somebody has a wrong password, or none.",
    description='{{ $value | printf "%.0f" }} log-ins were refused in the last <10m>; below 5 is usual.',
    dashboard="security",
    logs=_DOOR,
    reason="PostgreSQL counts connections that were made, and none that it refused.",
    alarming=(Alarming(lines=(_knock(5),), value="5"),),
    harmless=(
        Harmless(why="somebody mistyped", lines=(_knock(4),)),
        Harmless(
            why="it starts, and is not ready yet",
            lines=(Line("postgres", text="FATAL:  the database system is starting up", times=20),),
        ),
    ),
)

_TOOLS: Final = '{service_name="gateway"} | json code="status" | code="401"'
_GRAFANA: Final = '{service_name="grafana"} |= "password-auth.failed"'


def _gateway(status: int, times: int) -> Line:
    said = json.dumps({"logger": "http.log.access", "msg": "handled request", "status": status})
    return Line("gateway", text=said, times=times)


def _grafana(times: int) -> Line:
    said = 'logger=context level=info msg="[password-auth.failed] invalid password" status=401'
    return Line("grafana", text=said, times=times)


_GATEWAY: Final = LogAlert(
    name="ToolLoginsFail",
    # A browser is refused once at the gateway before it asks for the password, and never by Grafana.
    expr=f"""
        sum by (service_name) (count_over_time({_TOOLS} [10m])) >= 20
        or
        sum by (service_name) (count_over_time({_GRAFANA} [10m])) >= 5
    """,
    severity="warning",
    component="security",
    summary="Somebody tries passwords at the log-in of the monitoring tools.",
    description='{{ $labels.service_name }} refused {{ $value | printf "%.0f" }} log-ins in the last <10m>;'
    " below 20 at the gateway and 5 at Grafana are usual.",
    dashboard="security",
    logs=_TOOLS,
    reason="The gateway is not scraped, and Grafana counts no log-in that failed.",
    alarming=(
        Alarming(
            lines=(_gateway(401, 21), _gateway(200, 40)),
            labels={"service_name": "gateway"},
            value="21",
        ),
        Alarming(lines=(_grafana(5),), labels={"service_name": "grafana"}, value="5"),
    ),
    harmless=(
        Harmless(why="a team opens its tools", lines=(_gateway(401, 12), _grafana(2))),
        Harmless(why="they are in", lines=(_gateway(200, 40),)),
    ),
)

_INSIDE: Final = '{log_stream="audit"} | action="profiling"'


def _audit(**fields: str | int) -> Line:
    known: dict[str, str | int] = {"type": "audit", "level": "INFO", "message": "Audit entry"}
    return Line("glasshouse", known | fields, audit=True)


_OPERATOR: Final = LogAlert(
    name="OperatorLookedInside",
    # Long enough to be told in the morning: info waits for business hours.
    expr=f"sum by (record_id, client_network) (count_over_time({_INSIDE} [1d])) > 0",
    severity="info",
    component="security",
    summary="Somebody with the operations token looked into a running process.",
    description='{{ $labels.record_id }} was used {{ $value | printf "%.0f" }} times from'
    " {{ $labels.client_network }} within <1d>. Was it one of you?",
    dashboard="security",
    logs=_INSIDE,
    reason="That it is done is counted; from where, and what was looked at, is in the audit lines.",
    alarming=(
        Alarming(
            lines=(
                _audit(action="profiling", record_id="debug.memory", client_network="203.0.113.0"),
            ),
            labels={"record_id": "debug.memory", "client_network": "203.0.113.0"},
            value="1",
        ),
    ),
    harmless=(
        Harmless(
            why="customers log in",
            lines=(
                _audit(action="login", record_id="1", client_network="203.0.113.0"),
                _audit(action="refund", record_id="2", client_network="203.0.113.0"),
            ),
        ),
    ),
)

_SEALED: Final = '{log_stream="audit"} | message="Audit log sealed"'


def _sealed(position: int, age: str) -> Line:
    fields: dict[str, str | int] = {
        "type": "audit",
        "level": "INFO",
        "message": "Audit log sealed",
        "position": position,
    }
    return Line("glasshouse-worker", fields, age=age, audit=True)


_WENT_BACK: Final = LogAlert(
    name="AuditHeadWentBack",
    expr=f"""
        max(max_over_time({_SEALED} | unwrap position [10m]))
        <
        max(max_over_time({_SEALED} | unwrap position [1d] offset 10m))
    """,
    severity="critical",
    component="security",
    summary="The audit log ends earlier than it did: entries were removed, or an old copy is in use.",
    description='It was sealed at position {{ $value | printf "%.0f" }} in the last <10m>, and was further'
    " before: positions only grow.",
    dashboard="security",
    logs=_SEALED,
    reason="Whoever rewrites the table rewrites the numbers that come from it. The lines are the copy that is"
    " not in the database.",
    alarming=(Alarming(lines=(_sealed(900, "30m"), _sealed(120, "2m")), value="120"),),
    harmless=(
        Harmless(why="it grows", lines=(_sealed(900, "30m"), _sealed(901, "2m"))),
        Harmless(why="nothing was sealed lately", lines=(_sealed(900, "30m"),)),
    ),
)

INTRUDERS: Final = (_ONE_NETWORK, _DATABASE, _GATEWAY, _OPERATOR, _WENT_BACK)
