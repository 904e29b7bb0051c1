"""Security: somebody tries to get in, or what should hold them off or record them does not work.

Numbers of events, not shares, where attackers decide how many there are; each has a floor above what
people who mistype do. The monitoring's journeys are counted here: they never fail to log in.
"""

from typing import Final

from monitoring.build.growth import growth
from monitoring.build.model import Alert, Fires, Group, Silent

_P: Final = 'job=~"api|worker"'


def _attempts(result: str) -> str:
    return f'auth_attempts_total{{job="api",instance="a",result="{result}"}}'


def _event(event: str) -> str:
    return f'security_events_total{{job="api",instance="a",event="{event}"}}'


_LIMITED: Final = 'rate_limit_hits_total{job="api",instance="a",scope="login"}'
_UNENFORCED: Final = 'rate_limit_unenforced_total{job="api",instance="a",scope="login"}'
_LOCKOUTS: Final = 'auth_lockouts_total{job="api",instance="a"}'
_LOST: Final = 'audit_failures_total{job="api",instance="a",action="profiling"}'
_UNSEALED: Final = 'audit_unsealed_entries{job="worker",instance="w"}'
_SEALED: Final = 'job_last_success_timestamp_seconds{job="worker",instance="w",task="seal"}'
_OK: Final = (
    'http_requests_total{job="api",instance="a",method="GET",handler="/v1/orders",status="200"}'
)

_BRUTE_FORCE: Final = Alert(
    name="LoginBruteForce",
    # What the rate limit refused was tried, too: one address alone gets no further than 10 a minute.
    expr="""
        sum(increase(auth_attempts_total{job="api",result=~"failure|locked"}[10m]))
        + sum(increase(rate_limit_hits_total{job="api",scope="login"}[10m]))
        >= 50
        and
        sum(increase(auth_attempts_total{job="api",result=~"failure|locked"}[10m]))
        + sum(increase(rate_limit_hits_total{job="api",scope="login"}[10m]))
        > sum(increase(auth_attempts_total{job="api",result="success"}[10m]))
    """,
    severity="warning",
    component="security",
    summary="Somebody tries passwords: more log-ins fail than succeed, and they are many.",
    description='{{ $value | printf "%.0f" }} log-ins were refused in the last <10m>, more than succeeded;'
    " below 50 is usual.",
    dashboard="security",
    logs='{service_name="glasshouse"} | type="auth" | result=~"failure|locked"',
    fires=(
        Fires(
            series={
                _attempts("failure"): "0+3x20",
                _attempts("locked"): "0+1x20",
                _attempts("success"): "0+1x20",
                _LIMITED: "0+2x20",
            },
            at="15m",
            value="60",
        ),
    ),
    silent=(
        Silent(
            why="40 failures in ten minutes are people who mistype",
            series={
                _attempts("failure"): "0+4x20",
                _attempts("success"): "0+1x20",
                _LIMITED: "0x20",
            },
            at="15m",
        ),
        Silent(
            why="a busy shop has many failures, and more successes",
            series={
                _attempts("failure"): "0+30x20",
                _attempts("success"): "0+40x20",
                _LIMITED: "0x20",
            },
            at="15m",
        ),
    ),
)

_ACCOUNT_LOCKOUTS: Final = Alert(
    name="AccountLockouts",
    expr='sum(increase(auth_lockouts_total{job="api"}[1h])) >= 5',
    severity="warning",
    component="security",
    summary="Several accounts were locked within <1h> after repeated failures.",
    description='{{ $value | printf "%.0f" }} accounts were locked in the last <1h>; below 5 is usual.',
    dashboard="security",
    logs='{service_name="glasshouse"} | type="auth" | event="lockout"',
    fires=(Fires(series={_LOCKOUTS: "0+0.1x90"}, at="80m", value="6"),),
    silent=(
        Silent(why="four people forgot theirs", series={_LOCKOUTS: "0x40 4x50"}, at="80m"),
        Silent(why="it was yesterday", series={_LOCKOUTS: "0 20x90"}, at="80m"),
    ),
)

_OPERATIONS_DENIED: Final = Alert(
    name="OperationsAccessDenied",
    expr=f"""
        sum by (job) (
          increase(security_events_total{{{_P},event="operations_access_denied"}}[15m])
        ) >= 10
    """,
    severity="warning",
    component="security",
    summary="Somebody asks for the operators' pages again and again without the token.",
    description='{{ $value | printf "%.0f" }} requests to the {{ $labels.job }} for /health/detailed or'
    " /debug were refused in the last <15m>; below 10 is usual.",
    dashboard="security",
    variables=("job",),
    logs='{service_name=~"glasshouse.*"} | type="security" | event="operations_access_denied"',
    fires=(
        Fires(
            series={_event("operations_access_denied"): "0+0.8x30"},
            at="20m",
            labels={"job": "api"},
            value="12",
        ),
    ),
    silent=(
        Silent(
            why="an operator mistyped it a few times",
            series={_event("operations_access_denied"): "0x10 8x20"},
            at="20m",
        ),
        Silent(why="other events move", series={_event("invalid_token"): "0+10x30"}, at="20m"),
    ),
)

_INVALID_TOKENS: Final = Alert(
    name="InvalidTokensHigh",
    expr="""
        sum(increase(security_events_total{job="api",event="invalid_token"}[15m])) >= 50
        and
        sum(increase(security_events_total{job="api",event="invalid_token"}[15m]))
        > 0.05 * sum(increase(http_requests_total{job="api"}[15m]))
    """,
    severity="warning",
    component="security",
    summary="Many requests carry tokens that we did not make.",
    description='{{ $value | printf "%.0f" }} requests of the last <15m> had a token that is not ours,'
    " more than 5 % of all; below 50 is usual.",
    dashboard="security",
    logs='{service_name="glasshouse"} | type="security" | event="invalid_token"',
    fires=(
        Fires(series={_event("invalid_token"): "0+4x30", _OK: "0+20x30"}, at="20m", value="60"),
    ),
    silent=(
        Silent(
            why="3 a minute are a client that was forgotten",
            series={_event("invalid_token"): "0+3x30", _OK: "0+20x30"},
            at="20m",
        ),
        Silent(
            why="4 % of much traffic",
            series={_event("invalid_token"): "0+8x30", _OK: "0+200x30"},
            at="20m",
        ),
    ),
)

_NOT_ENFORCED: Final = Alert(
    name="RateLimitsNotEnforced",
    expr='sum by (scope) (increase(rate_limit_unenforced_total{job="api"}[5m])) > 0',
    severity="warning",
    component="security",
    # One gap is seen for as long as the range: this is a second one.
    wait="5m",
    depends_on=("cache",),
    summary="Rate limits are not enforced, since their store does not answer.",
    description='{{ $value | printf "%.0f" }} requests of the kind {{ $labels.scope }} went through'
    " uncounted in the last <5m>; it should be 0.",
    dashboard="security",
    variables=("scope",),
    logs='{service_name="glasshouse"} | type="security" | error!=""',
    fires=(
        Fires(series={_UNENFORCED: "0x5 0+2x20"}, at="20m", labels={"scope": "login"}, value="10"),
    ),
    silent=(
        Silent(why="Redis was restarted, once", series={_UNENFORCED: "0x5 3x20"}, at="10m"),
        Silent(why="they are enforced", series={_UNENFORCED: "7x20"}, at="20m"),
    ),
)

_LIMIT_HITS: Final = Alert(
    name="RateLimitHitsHigh",
    expr='sum by (scope) (increase(rate_limit_hits_total{job="api"}[15m])) >= 100',
    severity="info",
    component="security",
    summary="A rate limit refuses many requests.",
    description='{{ $value | printf "%.0f" }} requests of the kind {{ $labels.scope }} were answered with'
    " 429 in the last <15m>; below 100 is usual.",
    dashboard="security",
    variables=("scope",),
    logs='{service_name="glasshouse"} | type="security" | event="rate_limit"',
    fires=(Fires(series={_LIMITED: "0+8x30"}, at="20m", labels={"scope": "login"}, value="120"),),
    silent=(Silent(why="90 are below 100", series={_LIMITED: "0+6x30"}, at="20m"),),
)

_WATCHED: Final = 'up{job="api",instance="a"}'
_BORN: Final = 'process_start_time_seconds{job="api",instance="a"}'

_AUDIT_LOST: Final = Alert(
    name="AuditEntriesLost",
    expr=f"sum by (job, action) {growth('audit_failures_total', 'action', jobs=_P, window='1h')} > 0",
    severity="warning",
    component="security",
    depends_on=("database",),
    summary="What an operator did is not in the audit log, only in a log line.",
    description='{{ $value | printf "%.0f" }} actions ({{ $labels.action }}) in the {{ $labels.job }} went on'
    " without an entry in the last <1h>; it should be 0.",
    dashboard="security",
    variables=("job",),
    logs='{service_name=~"glasshouse.*"} | type="audit" | level="ERROR"',
    fires=(
        Fires(
            # The first one makes the series.
            series={_LOST: "_x70 1x30", _WATCHED: "1x100"},
            at="75m",
            labels={"job": "api", "action": "profiling"},
            value="1",
        ),
        Fires(
            # In a process that is younger than the window, everything is.
            series={_LOST: "_x10 1x30", _BORN: "0x40"},
            at="15m",
            labels={"job": "api", "action": "profiling"},
            value="1",
        ),
        Fires(
            series={_LOST: "1x75 3x20"},
            at="80m",
            labels={"job": "api", "action": "profiling"},
            value="2",
        ),
    ),
    silent=(
        Silent(
            why="it was more than an hour ago",
            series={_LOST: "_x5 1x90", _WATCHED: "1x100", _BORN: "0x100"},
            at="80m",
        ),
        Silent(
            why="Prometheus is new, and what it sees is old",
            series={_LOST: "7x90", _WATCHED: "1x90", _BORN: "-7200x90"},
            at="59m",
        ),
        Silent(
            why="the process was not seen an hour ago",
            series={
                _LOST: "7x60 _x20 7x60",
                _WATCHED: "1x60 0x20 1x60",
                _BORN: "-7200x60 _x20 -7200x60",
            },
            at="132m",
        ),
        Silent(why="entries are stored", series={'up{job="api",instance="a"}': "1x20"}, at="15m"),
    ),
)

_UNSEALED_ALERT: Final = Alert(
    name="AuditLogUnsealed",
    # Entries of the last second are always unsealed: what counts is that nobody has sealed for long, or that
    # sealing does not keep up.
    expr="""
        (
          max(audit_unsealed_entries{job="worker"}) > 0
          and
          time() - max(job_last_success_timestamp_seconds{job="worker",task="seal"}) > $seconds(10m)
        )
        or
        max(audit_unsealed_entries{job="worker"}) > 10000
    """,
    severity="warning",
    component="security",
    wait="2m",
    depends_on=("worker", "database"),
    summary="The audit log is not sealed: what it says could be changed without a trace.",
    description='{{ $value | printf "%.0f" }} entries are not protected by the chain; they should be sealed'
    " within seconds.",
    dashboard="security",
    logs='{service_name="glasshouse-worker"} | task="seal"',
    fires=(
        Fires(series={_UNSEALED: "3x30", _SEALED: "60x30"}, at="18m", value="3"),
        # It seals, and does not keep up.
        Fires(series={_UNSEALED: "12000x30", _SEALED: "0+60x30"}, at="20m", value="12000"),
    ),
    silent=(
        Silent(
            why="a busy log always has some of the last second",
            series={_UNSEALED: "8000x30", _SEALED: "0+60x30"},
            at="20m",
        ),
        Silent(
            why="there is nothing to seal", series={_UNSEALED: "0x30", _SEALED: "60x30"}, at="20m"
        ),
        Silent(
            why="sealing stopped eleven minutes ago, and may begin again",
            series={_UNSEALED: "3x30", _SEALED: "0+60x9 540x20"},
            at="20m",
        ),
    ),
)

GROUPS: tuple[Group, ...] = (
    Group(
        "security",
        (
            _BRUTE_FORCE,
            _ACCOUNT_LOCKOUTS,
            _OPERATIONS_DENIED,
            _INVALID_TOKENS,
            _NOT_ENFORCED,
            _LIMIT_HITS,
            _AUDIT_LOST,
            _UNSEALED_ALERT,
        ),
    ),
)
