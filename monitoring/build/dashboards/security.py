"""Does somebody try to get in who should not, and would it be in the audit log?"""

from typing import Final

from monitoring.build.grafana.board import Board, Section
from monitoring.build.grafana.colours import (
    CRITICAL,
    GOOD,
    MUTED,
    NEUTRAL,
    NOTICE,
    OUTCOMES,
    WARNING,
    above,
)
from monitoring.build.grafana.figures import figure
from monitoring.build.grafana.graphs import graph
from monitoring.build.grafana.idle import counted_while_up, zero_while_up
from monitoring.build.grafana.links import explore_logs, explore_traces, from_row
from monitoring.build.grafana.queries import lines, log_metric, over_time, rows
from monitoring.build.grafana.selectors import (
    API,
    CHOSEN,
    ENVIRONMENT,
    OUR_LOGS,
    SHOWN,
    WORKER,
    ZOOM,
)
from monitoring.build.grafana.tables import Column, grid, log_lines
from monitoring.build.grafana.variables import environment, instance, label_values
from monitoring.build.logs.intruders import REFUSED_BY_POSTGRES
from monitoring.build.logs.secrets import PATTERNS
from monitoring.build.records.expressions import increase, rate, share

JOBS: Final = f'job=~"$job",{CHOSEN}'
SCOPES: Final = f'{API},scope=~"$scope"'
GUESSES: Final = f'{API},result=~"failure|locked"'
ATTEMPTS: Final = f'{API},result=~"success|failure|locked"'
REFUSALS: Final = f'{API},status=~"401|403|404|409|413|422|429"'
FORGED: Final = f'{API},event="invalid_token"'
LOGS: Final = f'{OUR_LOGS} | type=~"auth|security"'
AUDIT: Final = f'{{log_stream="audit",{ENVIRONMENT}}}'
WRONG_PASSWORDS: Final = (
    f'{{service_name="glasshouse",{ENVIRONMENT}}} | type="http_request"'
    ' | route="/v1/auth/token" | status="401"'
)
RESULTS: Final = {
    "success": GOOD,
    "failure": WARNING,
    "locked": CRITICAL,
    "revoked": "purple",
    "expired": MUTED,
}
PER_MINUTE: Final = "suffix:/ min"


def _minute(metric: str, by: str, where: str) -> str:
    return f"60 * {rate(metric, by, where=where, window=ZOOM)}"


def _answered(by: str, where: str) -> str:
    return increase("http_requests_total", by, where=where, window=SHOWN)


_HEALTH: Final = Section(
    "Is it healthy? Nobody guesses, nobody is shut out, everything is written down",
    (
        figure(
            "Failed log-ins",
            over_time(
                zero_while_up(
                    share(
                        rate("auth_attempts_total", where=GUESSES, window=ZOOM),
                        rate("auth_attempts_total", where=ATTEMPTS, window=ZOOM),
                    ),
                    "api",
                ),
                "failed",
            ),
            shows="Share of the log-ins that failed, those of locked accounts included.",
            normal="Below 20 %: people mistype.",
            act=(
                "Above one half, and many: LoginBruteForce. Which network, and one account or many?"
            ),
            unit="percentunit",
            decimals=0,
            steps=above(warning=0.2, critical=0.5),
        ),
        figure(
            "Accounts locked",
            over_time(counted_while_up("auth_lockouts_total", "api", where=API), "locked"),
            shows=(
                "Accounts that were locked in the shown time, after five failures within 15 "
                "minutes."
            ),
            normal="None, or one that forgot a password.",
            act=(
                "5 within an hour: AccountLockouts. Somebody knows addresses and guesses passwords."
            ),
            unit="short",
            decimals=0,
            steps=above(warning=5),
        ),
        figure(
            "Invalid tokens",
            over_time(counted_while_up("security_events_total", "api", where=FORGED), "tokens"),
            shows="Requests of the shown time with a token that we did not make.",
            normal="None; a few after SECRET_KEY was changed.",
            act=(
                "50 within 15 minutes: InvalidTokensHigh. Did the key change, or does somebody "
                "forge?"
            ),
            unit="short",
            decimals=0,
            steps=above(warning=50),
        ),
        figure(
            "Limits not enforced",
            over_time(
                counted_while_up("rate_limit_unenforced_total", "api", where=SCOPES), "let through"
            ),
            shows=(
                "Requests of the shown time that no rate limit looked at, since Redis did not "
                "answer."
            ),
            normal="None: every log-in is counted.",
            act=(
                "RateLimitsNotEnforced fires after 5 minutes: bring Redis back, log-ins are "
                "unprotected."
            ),
            unit="short",
            decimals=0,
            steps=above(critical=1),
        ),
        figure(
            "Audit entries lost",
            # The counter begins with its first event, which an increase would not see.
            over_time(zero_while_up(f"sum(audit_failures_total{{{JOBS}}})", "$job"), "lost"),
            shows=(
                "Operators' actions since the start that are in a log line, and not in the audit "
                "log."
            ),
            normal="None: what is not written down is not done.",
            act=(
                "AuditEntriesLost fires at the first: keep the line `Audit entry could not be "
                "stored`."
            ),
            unit="short",
            decimals=0,
            steps=above(critical=1),
        ),
        figure(
            "Last audit seal",
            over_time(
                'time() - max(job_last_success_timestamp_seconds{job="worker",task="seal"})', "ago"
            ),
            shows=(
                "How long ago the worker last sealed the audit log: what is newer could be changed."
            ),
            normal="Some seconds.",
            act="10 minutes with entries waiting: AuditLogUnsealed. Is a worker up?",
            unit="s",
            decimals=0,
            steps=above(warning=300, critical=600),
        ),
        graph(
            "Log-ins and tokens by result",
            over_time(_minute("auth_attempts_total", "result", API), "{{result}}"),
            shows="Log-ins, and tokens that were refused, a minute, by result.",
            normal="Green; some failures; expired tokens of who was away.",
            act="Orange above green: somebody guesses. revoked: a token is used after its log-out.",
            unit=PER_MINUTE,
            stacked=True,
            colours=RESULTS,
        ),
        graph(
            "Guesses against log-ins",
            over_time(
                f"{_minute('auth_attempts_total', '', GUESSES)} + "
                + _minute("rate_limit_hits_total", "", f'{API},scope="login"'),
                "guesses",
            ),
            over_time(
                _minute("auth_attempts_total", "", f'{API},result="success"'), "log-ins that worked"
            ),
            shows=(
                "Log-ins a minute that failed or were stopped by the rate limit, and those that "
                "worked."
            ),
            normal="Guesses far below the others.",
            act="Above the line (50 in 10 minutes) and above the others: LoginBruteForce fires.",
            unit=PER_MINUTE,
            limit=5,
            colours={"guesses": WARNING, "^log-ins": GOOD},
        ),
        graph(
            "Refused by a rate limit",
            over_time(_minute("rate_limit_hits_total", "scope", SCOPES), "{{scope}}"),
            over_time(
                _minute("rate_limit_unenforced_total", "scope", SCOPES), "not enforced: {{scope}}"
            ),
            shows=(
                "Requests a minute answered with 429, by limit, and those that no limit could look "
                "at."
            ),
            normal="None, or a few.",
            act=(
                "Above the line (100 in 15 minutes) RateLimitHitsHigh fires: an attack, or a tight "
                "limit?"
            ),
            unit=PER_MINUTE,
            limit=6.7,
            colours={"^login$": WARNING, "^registration$": NOTICE, "^not enforced": CRITICAL},
        ),
    ),
)

_CHANGED: Final = Section(
    "What changed? Which doors are tried",
    (
        graph(
            "Security events",
            over_time(_minute("security_events_total", "event", JOBS), "{{event}}"),
            shows="Events a minute that are worth a look in an audit, by kind.",
            normal="What people do with their own account: logout, data_exported, account_erased.",
            act="Another one that is new: its log lines, at the bottom, have the request's id.",
            unit=PER_MINUTE,
            stacked=True,
            colours={
                "account_locked": CRITICAL,
                "invalid_token": WARNING,
                "operations_access_denied": "dark-orange",
                "idempotency_key_mismatch": NOTICE,
                "logout": "light-blue",
                "data_exported": "blue",
                "account_erased": "purple",
            },
        ),
        graph(
            "Tokens that are not ours",
            over_time(
                share(
                    rate("security_events_total", where=FORGED, window=ZOOM),
                    rate("http_requests_total", where=API, window=ZOOM),
                ),
                "of all requests",
            ),
            shows="Share of the requests whose token we did not make.",
            normal="0 % for days on end.",
            act="Above the line, and 50 in 15 minutes, InvalidTokensHigh fires.",
            unit="percentunit",
            decimals=1,
            limit=0.05,
            colours={"of all requests": WARNING},
        ),
        graph(
            "Operators' pages refused",
            over_time(
                _minute("security_events_total", "job", f'{JOBS},event="operations_access_denied"'),
                "{{job}}",
            ),
            shows=(
                "Requests a minute for `/debug` and `/health/detailed` without the token, by "
                "process."
            ),
            normal="None at all.",
            act=(
                "Above the line (10 in 15 minutes) OperationsAccessDenied fires: who can reach "
                "this port?"
            ),
            unit=PER_MINUTE,
            limit=0.67,
        ),
        graph(
            "Sessions and lockouts",
            over_time(f"max(auth_sessions_active{{{WORKER}}})", "active sessions"),
            over_time(increase("auth_lockouts_total", where=API, window=ZOOM), "accounts locked"),
            shows=(
                "Sessions that are neither over nor revoked, as sampled, and accounts that get "
                "locked."
            ),
            normal="Follows the hour of the day; nobody is locked.",
            act=(
                "Sessions fall at once: were tokens revoked, or is the sample old (dashboard "
                "Worker)?"
            ),
            unit="short",
            decimals=0,
            colours={"active sessions": NEUTRAL, "accounts locked": CRITICAL},
        ),
        graph(
            "Refused requests by status",
            over_time(
                rate("http_requests_total", "status", where=REFUSALS, window=ZOOM), "{{status}}"
            ),
            shows="Requests a second that were refused: 401, 403, 404, 409, 413, 422 and 429.",
            normal="Few, and as many as always.",
            act=(
                "404 rises: somebody looks for pages. 422: for mistakes of ours. The table says "
                "where."
            ),
            unit="reqps",
            stacked=True,
            colours={
                "401": NOTICE,
                "403": WARNING,
                "404": MUTED,
                "409": "light-blue",
                "413": "purple",
                "422": "blue",
                "429": CRITICAL,
            },
        ),
        graph(
            "Wrong passwords by network",
            log_metric(
                f"topk(5, sum by (client_ip) (count_over_time({WRONG_PASSWORDS} [$__interval])))",
                "{{client_ip}}",
            ),
            shows=(
                "Log-ins with a wrong password, by the network they came from, its last part left "
                "out."
            ),
            normal="A few, from everywhere.",
            act=(
                "30 in 15 minutes from one: LoginsFailFromOneNetwork. It can be shut out at the "
                "gateway."
            ),
            unit="short",
            stacked=True,
        ),
        grid(
            "Refused requests by route",
            rows(_answered("handler, status", REFUSALS)),
            rows(
                f"{_answered('handler, status', REFUSALS)}"
                f" / on (handler) group_left () ({_answered('handler', API)} > 0)"
            ),
            shows=(
                "What was refused in the shown time, by route and status, and its share of the "
                "route."
            ),
            normal=(
                "401 of log-ins, 404 of `unmatched` (no route of ours), 422 of what people mistype."
            ),
            act=(
                "A share that is new: did our contract change, or does somebody try? Click for the "
                "route."
            ),
            labels={"handler": "Route", "status": "Status"},
            widths={"Status": 80},
            columns=[
                Column("Requests", "short", decimals=0, width=100),
                Column("Of the route", "percentunit", decimals=1, width=110),
            ],
            sorted_by="Requests",
            width=12,
            links=[from_row("api", "This route", {"handler": "Route"})],
        ),
        graph(
            "Other doors, and secrets in logs",
            log_metric(
                'sum(count_over_time({service_name="gateway"} | json code="status" | code="401"'
                " [$__interval]))",
                "tools: wrong log-ins",
            ),
            log_metric(
                f'sum(count_over_time({{service_name="postgres"}} |~ "{REFUSED_BY_POSTGRES}"'
                " [$__interval]))",
                "PostgreSQL: log-ins refused",
            ),
            log_metric(
                'sum(count_over_time({service_name=~".+"} |~ `'
                + "|".join(PATTERNS)
                + "` [$__interval]))",
                "lines that look like secrets",
            ),
            shows=(
                "Refused log-ins to tools and database, and log lines that look as if they held a "
                "secret."
            ),
            normal="None of all three; a browser asks a tool once before it shows the form.",
            act=(
                "In 10 minutes: ToolLoginsFail at 20, DatabaseLoginsRefused at 5. SecretInLogs at "
                "the first."
            ),
            unit="short",
            decimals=0,
            width=12,
            colours={"^tools": NOTICE, "^PostgreSQL": WARNING, "^lines": CRITICAL},
            quiet="nobody tries these doors while all is well",
        ),
    ),
)

_WHY: Final = Section(
    "Why? Who did what: the audit log, and what processes say",
    (
        graph(
            "Audit entries by action",
            over_time(_minute("audit_entries_total", "action", JOBS), "{{action}}"),
            shows="Entries of the audit log a minute, by what was done, after their commit.",
            normal=(
                "registration and login follow the customers; configuration with deployments only."
            ),
            act="configuration without a deployment, or profiling that nobody ordered: who was it?",
            unit=PER_MINUTE,
            stacked=True,
        ),
        graph(
            "Audit entries by outcome",
            over_time(_minute("audit_entries_total", "outcome", JOBS), "{{outcome}}"),
            shows="The same entries, by how they ended.",
            normal="success, and few failures.",
            act="denied: somebody lacks a right, or tries. The audit lines below name the actor.",
            unit=PER_MINUTE,
            stacked=True,
            colours={**OUTCOMES, "denied": CRITICAL, "requested": NOTICE},
        ),
        graph(
            "Entries not sealed yet",
            over_time(f"max(audit_unsealed_entries{{{WORKER}}})", "entries"),
            shows="Entries that the chain does not protect yet, as the worker last sampled.",
            normal="A few: it seals every some seconds.",
            act=(
                "It grows, or is above the line: AuditLogUnsealed. `python -m app audit verify` "
                "afterwards."
            ),
            unit="short",
            decimals=0,
            limit=10_000,
            colours={"entries": NEUTRAL},
        ),
        log_lines(
            "Audit log",
            lines(AUDIT),
            shows=(
                "The second copy of the audit log: entries, and the chain's head each time it is "
                "sealed."
            ),
            normal="Registrations, log-ins, seals whose `position` only rises.",
            act=(
                "A position that falls: AuditHeadWentBack, somebody changed the table. Compare the "
                "copies."
            ),
            width=12,
        ),
        log_lines(
            "Log-ins and security events",
            lines(LOGS),
            shows=(
                "Log-ins, refused tokens, rate limits and what else people try, as processes tell."
            ),
            normal="Successful log-ins.",
            act=(
                "Many of one `user_id`: guessing. `request_id` finds the access line with its "
                "network."
            ),
            width=12,
        ),
    ),
)

BOARD: Final = Board(
    name="security",
    title="Security",
    asks="Does somebody try to get in who should not, and is it written down?",
    reading=(
        "Figures say whether anybody guesses and whether the audit log is whole; the graphs which door is "
        "tried, the lines where alerts are; the lines at the bottom who it was, by user, network and request."
    ),
    sections=(_HEALTH, _CHANGED, _WHY),
    variables=(
        environment(),
        label_values(
            "job",
            "Process",
            'build_info{job=~"api|worker",environment=~"$environment"}',
            of="job",
            description="API or worker.",
        ),
        instance("api|worker"),
        label_values(
            "scope",
            "Rate limit",
            'rate_limit_hits_total{job="api"}',
            of="scope",
            description="One rate limit.",
        ),
    ),
    neighbours=(
        ("overview", "Overview"),
        ("api", "API"),
        ("worker", "Worker"),
        ("telemetry-cost", "Telemetry cost"),
    ),
    explore=(
        explore_logs(LOGS),
        explore_logs(AUDIT, "Audit log"),
        explore_traces("glasshouse"),
    ),
)
