"""Does the API answer its customers, all of them, correctly and fast, and if not: on which route, since when?

RED by route (rate, errors, duration), then what a process of ours can be short of. The figures of alerts are
recorded over all instances; what is asked here follows the chosen ones.
"""

from typing import Final

from monitoring.build.grafana.board import Board, Section
from monitoring.build.grafana.colours import (
    CRITICAL,
    DURATION_LIMITS,
    DURATION_STEPS,
    FAILED_LIMITS,
    FAILED_STEPS,
    GOOD,
    QUANTILES,
    STATUS_CLASSES,
    WARNING,
    above,
    below,
)
from monitoring.build.grafana.figures import figure
from monitoring.build.grafana.graphs import graph, heat, states
from monitoring.build.grafana.idle import zero_while_up
from monitoring.build.grafana.links import drill_down, explore_logs, explore_traces, from_row
from monitoring.build.grafana.queries import (
    Query,
    buckets,
    lines,
    log_metric,
    over_time,
    rows,
    traces,
)
from monitoring.build.grafana.selectors import (
    API,
    CHOSEN,
    ENVIRONMENT,
    NOTEWORTHY,
    OUR_LOGS,
    PROCESSES,
    ZOOM,
)
from monitoring.build.grafana.shared import REQUEST_SPANS, requests_by_class
from monitoring.build.grafana.tables import Column, grid, log_lines, trace_list
from monitoring.build.grafana.variables import environment, instance, label_values
from monitoring.build.records.expressions import mean, quantile, rate, share

ROUTES: Final = f'{API},handler=~"$handler"'
FAILED: Final = f'{ROUTES},status=~"5.."'
KNOWN: Final = 'job="api",handler!="unmatched"'
SLOW: Final = 'slo:sli_error:ratio_rate5m{sloth_slo="api-latency"}'
SERIES: Final = "{{job}} {{instance}}"
REFUSED: Final = f'{KNOWN},status=~"4..",status!~"401|429|499"'
"""What ClientErrorsHigh counts: a token that ended, a rate limit and who left are no mistakes of a client."""
LOGS: Final = f'{{service_name="glasshouse",{ENVIRONMENT}}} | {NOTEWORTHY}'
COUNTED: Final = f"sum(count_over_time({OUR_LOGS}"

_REQUESTS: Final = rate("http_requests_total", where=ROUTES, window=ZOOM)


def _quantile(rank: float, by: str = "") -> str:
    return quantile(rank, "http_request_duration_seconds", by, where=ROUTES, window=ZOOM)


def _quantile_line(rank: float) -> Query:
    return over_time(_quantile(rank), f"p{rank * 100:g}", exemplars=True)


_HEALTH: Final = Section(
    "Is it healthy? Requests, errors and duration",
    (
        figure(
            "Requests",
            over_time(_REQUESTS, "requests"),
            shows=(
                "Requests a second to the chosen routes and instances, without the monitoring's "
                "own."
            ),
            normal="As many as customers make: it follows the hour of the day, and never jumps.",
            act="At zero, look whether instances are up, and what stands before them.",
            unit="reqps",
        ),
        figure(
            "Failed (5xx)",
            over_time(
                zero_while_up(
                    share(rate("http_requests_total", where=FAILED, window=ZOOM), _REQUESTS),
                    "api",
                ),
                "failed",
            ),
            shows="Share of the requests that were answered with 5xx. Nobody asks: 0 %.",
            normal="0 %; 0.1 % is what the service level api-errors allows.",
            act="The table of routes says which, the log below why.",
            unit="percentunit",
            decimals=2,
            steps=FAILED_STEPS,
        ),
        figure(
            "Duration p95",
            over_time(f"{_quantile(0.95)} >= 0", "p95"),
            shows="95 of 100 requests to the chosen routes are answered within this time.",
            normal="Below 200 ms; hashing a password takes a third of a second, on purpose.",
            act="Above 1 s ApiLatencyHigh fires: compare the routes, then open a slow trace.",
            unit="s",
            steps=DURATION_STEPS,
        ),
        figure(
            "Within 200 ms",
            over_time(f"1 - max({zero_while_up(SLOW, 'api')})", "fast"),
            shows=(
                "Share of the last five minutes' requests that the service level calls fast enough."
            ),
            normal="Above 95 %, which is what api-latency promises.",
            act="The dashboard SLO says how fast the budget burns.",
            unit="percentunit",
            decimals=1,
            steps=below(warning=0.95),
            links=[drill_down("slo", "This service level", {}, fixed={"slo": "api-latency"})],
        ),
        figure(
            "At hand at once",
            over_time(f"max(avg_over_time(http_requests_in_progress{{{API}}}[5m]))", "requests"),
            shows=(
                "Requests that the busiest instance serves at the same time, averaged over 5 "
                "minutes."
            ),
            normal="A handful.",
            act=(
                "Above 50 ApiSaturated fires: something that all wait for is slow, or replicas are "
                "few."
            ),
            unit="short",
            decimals=1,
            steps=above(warning=50),
        ),
        figure(
            "Instances down",
            over_time(f"sum(1 - up{{{API}}})", "down"),
            shows="Instances that Prometheus knows and does not reach. No data: it knows none.",
            normal="None: all instances answer.",
            act=(
                "After 2 minutes ApiInstanceDown fires; the state and last lines of that container "
                "say why."
            ),
            unit="short",
            steps=above(warning=1),
        ),
        graph(
            "Requests by status",
            over_time(requests_by_class(ROUTES), "{{class}}xx"),
            shows=(
                "Requests a second by class of status, stacked. 4xx includes who left first (499)."
            ),
            normal="Nearly all 2xx, a thin band of 4xx, no red.",
            act=(
                "Red: look to the right. A yellow band that grows is a client that changed, or an "
                "attack."
            ),
            unit="reqps",
            stacked=True,
            colours=STATUS_CLASSES,
        ),
        graph(
            "Failed requests (5xx)",
            over_time('job:http_requests_failed:ratio_rate5m{job="api"}', "all routes, 5 minutes"),
            over_time(
                "max("
                + share(
                    rate("http_requests_total", "handler", where=FAILED, window=ZOOM),
                    rate("http_requests_total", "handler", where=ROUTES, window=ZOOM),
                    "handler",
                )
                + ")",
                "worst of the chosen routes",
            ),
            shows=(
                "Share of the requests that failed: of all routes, as alerts see it, and of the "
                "worst."
            ),
            normal="Both at 0 %.",
            act=(
                "Lines: 1 % ApiErrorRateHigh, 5 % ApiErrorRateCritical. The table says which route "
                "it is."
            ),
            unit="percentunit",
            limit=FAILED_LIMITS,
            colours={"^all routes": CRITICAL, "^worst": WARNING},
        ),
        graph(
            "Duration",
            *(_quantile_line(rank) for rank in (0.5, 0.95, 0.99)),
            over_time('job:http_request_duration_seconds:p95_5m{job="api"}', "all routes, p95"),
            shows=(
                "Within which time 50, 95 and 99 of 100 requests are answered. Dots lead to their "
                "traces."
            ),
            normal="p95 below the lowest line, the 200 ms of the service level.",
            act=(
                "Above 1 s ApiLatencyHigh fires, above 2 s ApiLatencyCritical. Open a dot at the "
                "top."
            ),
            unit="s",
            limit=DURATION_LIMITS,
            colours={**QUANTILES, "^all routes": "light-purple"},
        ),
    ),
)

_SHARE_OF_TIME: Final = (
    rate("http_request_duration_seconds_sum", "handler", where=ROUTES, window=ZOOM)
    + " / on () group_left () "
    + f"({rate('http_request_duration_seconds_sum', where=ROUTES, window=ZOOM)} > 0)"
)

_CHANGED: Final = Section(
    "What changed? Which route, and since when",
    (
        grid(
            "Routes",
            rows(rate("http_requests_total", "handler", where=ROUTES, window=ZOOM)),
            rows(
                share(
                    rate("http_requests_total", "handler", where=FAILED, window=ZOOM),
                    rate("http_requests_total", "handler", where=ROUTES, window=ZOOM),
                    "handler",
                )
            ),
            rows(f"{_quantile(0.95, 'handler')} >= 0"),
            rows(_SHARE_OF_TIME),
            rows(
                quantile(0.95, "http_response_size_bytes", "handler", where=ROUTES, window=ZOOM)
                + " >= 0"
            ),
            shows=(
                "Each route now: how often, how much of it failed, how long, and its share of all "
                "time spent."
            ),
            normal="No red; the time is where the customers are.",
            act="Click a route to see it alone. A large share of time is where work pays most.",
            labels={"handler": "Route"},
            columns=[
                Column("Rate", "reqps", decimals=2, width=90),
                Column(
                    "Failed",
                    "percentunit",
                    above(warning=0.01, critical=0.05),
                    decimals=1,
                    width=80,
                ),
                Column("p95", "s", above(warning=1, critical=2), width=75),
                Column("Time", "percentunit", decimals=0, width=65),
                Column("Answer p95", "bytes", width=105),
            ],
            sorted_by="Time",
            height=10,
            links=[from_row("api", "Only this route", {"handler": "Route"})],
        ),
        heat(
            "How long requests take",
            buckets(rate("http_request_duration_seconds_bucket", "le", where=ROUTES, window=ZOOM)),
            shows="How many requests took how long, and when: two bands are two kinds of requests.",
            normal="A band below 50 ms; log-in and registration are the one at 0.3 s.",
            act=(
                "A band that moves up: all got slower. A new one above: some did, choose routes to "
                "find them."
            ),
            unit="s",
            height=10,
        ),
        graph(
            "Duration p95 by route",
            over_time(f"{_quantile(0.95, 'handler')} >= 0", "{{handler}}"),
            shows="Within which time 95 of 100 requests to each route are answered.",
            normal="Flat lines, each at its own height.",
            act="One line that rises: that route. All at once: database, event loop or CPU, below.",
            unit="s",
            limit=DURATION_LIMITS[1:],
            links=[drill_down("api", "Only this route", {"handler": "handler"})],
        ),
        graph(
            "Refused requests (4xx)",
            over_time(
                share(
                    rate("http_requests_total", where=REFUSED, window=ZOOM),
                    rate("http_requests_total", where=KNOWN, window=ZOOM),
                ),
                "clients' mistakes, all routes",
            ),
            over_time(
                rate("http_requests_total", "status", where=f'{ROUTES},status=~"4.."', window=ZOOM)
                + f" / on () group_left () ({_REQUESTS} > 0)",
                "{{status}}",
            ),
            shows=(
                "Share of the requests that were refused, by status; 429 is a rate limit, 499 left "
                "first."
            ),
            normal="A few percent: 401 of tokens that ended, 422 of what people mistype.",
            act=(
                "Mistakes above 30 % for 15 minutes: ClientErrorsHigh. Did a client or our "
                "contract change?"
            ),
            unit="percentunit",
            limit=0.3,
            colours={"^clients": WARNING},
        ),
        graph(
            "Sizes of bodies, p95",
            *(
                over_time(
                    quantile(0.95, f"http_{kind}_size_bytes", where=ROUTES, window=ZOOM) + " >= 0",
                    f"{kind}s",
                )
                for kind in ("request", "response")
            ),
            shows="95 of 100 bodies of requests and of answers are no larger.",
            normal="Some hundred bytes to some KiB, always the same.",
            act=(
                "Answers that grow with the data are a list without a limit: the table says which "
                "route."
            ),
            unit="bytes",
            colours={"requests": "light-blue", "responses": "blue"},
        ),
    ),
)

_WHY: Final = Section(
    "Why? What the processes lack, whom they wait for, and what they say",
    (
        graph(
            "Where a request's time goes",
            over_time(mean("http_request_duration_seconds", where=ROUTES, window=ZOOM), "request"),
            over_time(
                mean("database_time_per_request_seconds", where=ROUTES, window=ZOOM),
                "its statements",
            ),
            over_time(
                mean("external_request_duration_seconds", "dependency", where=API, window=ZOOM),
                "a call: {{dependency}}",
            ),
            shows=(
                "Mean time of a request, of its database statements, and of one call to a "
                "dependency."
            ),
            normal=(
                "Statements are the larger part of a request that is no log-in and calls nobody."
            ),
            act=(
                "The line that rises with the request's is the cause. None does: event loop or "
                "CPU, below."
            ),
            unit="s",
            colours={"^request$": "purple", "^its statements": "blue", "^a call": "orange"},
        ),
        states(
            "Circuits",
            over_time("job_dependency:circuit_breaker_state:max", "{{job}}: {{dependency}}"),
            shows="Whether calls to a dependency are let through; open: they are refused at once.",
            normal="All closed.",
            act=(
                "CircuitBreakerOpen fires after a minute. Repair the dependency: the circuit "
                "closes by itself."
            ),
            texts={
                "0": ("closed", GOOD),
                "1": ("open", CRITICAL),
                "2": ("half-open", WARNING),
            },
            height=8,
        ),
        graph(
            "Calls that were retries",
            over_time("dependency:external_retries:ratio_rate10m", "{{dependency}}"),
            shows=(
                "Share of the attempts to call a dependency that are not the first one of a call."
            ),
            normal="0 %.",
            act="Above 20 % ExternalRetriesHigh fires: it is flaky, and our customers wait for it.",
            unit="percentunit",
            limit=0.2,
            colours={"payment_provider": "orange"},
        ),
        graph(
            "Event loop lag, p99",
            over_time("job_instance:event_loop_lag_seconds:p99_5m{" + CHOSEN + "}", SERIES),
            shows="How late timers of a process fire: for so long it serves nobody.",
            normal="Below 10 ms.",
            act=(
                "Above 250 ms EventLoopBlocked fires: `/debug/profile` shows what computes inside "
                "the loop."
            ),
            unit="s",
            width=6,
            limit=0.25,
        ),
        graph(
            "CPU",
            over_time(
                rate("process_cpu_seconds_total", "job, instance", where=PROCESSES, window=ZOOM),
                SERIES,
            ),
            shows="Cores that each process uses; it can use one.",
            normal="Below 0.5.",
            act="Near 1 requests wait for the processor: add replicas, or profile.",
            unit="short",
            width=6,
            limit=1,
        ),
        graph(
            "Memory",
            over_time(
                f"sum by (job, instance) (process_resident_memory_bytes{{{PROCESSES}}})", SERIES
            ),
            shows="Memory in RAM of each process.",
            normal="Flat, some 150 to 250 MiB.",
            act="A slope that never ends is a leak (ProcessMemoryGrowing): `/debug/memory`.",
            unit="bytes",
            width=6,
        ),
        graph(
            "Garbage collections",
            over_time(
                rate("python_gc_collections_total", "generation", where=PROCESSES, window=ZOOM),
                "generation {{generation}}",
            ),
            shows=(
                "Collections a second of all processes. Generation 2 looks at everything, and "
                "stops all."
            ),
            normal="Generation 2 far below one a second.",
            act=(
                "Frequent ones of generation 2: something makes many long-lived objects; take a "
                "profile."
            ),
            unit="ops",
            width=6,
            colours={"0$": "light-blue", "1$": "blue", "2$": WARNING},
        ),
        graph(
            "Unhandled exceptions",
            over_time(
                f"60 * {rate('unhandled_exceptions_total', 'job, where', where=PROCESSES, window=ZOOM)}",
                "{{job}}: {{where}}",
            ),
            shows="Exceptions a minute that no code handled, by where they escaped.",
            normal="None.",
            act=(
                "At 3 in 15 minutes (the line) UnhandledExceptions fires: the error report has the "
                "stack."
            ),
            unit="suffix:/ min",
            width=6,
            limit=0.2,
        ),
        graph(
            "Restarts in 30 minutes",
            over_time(
                f"max by (job, instance) (resets(process_uptime_seconds{{{PROCESSES}}}[30m]))",
                SERIES,
            ),
            shows="How often each process has begun anew within the 30 minutes before.",
            normal="0; 1 after a deployment that kept the address.",
            act="At 3 ApiRestarting fires: it crashes, or is killed. Its last lines say why.",
            unit="short",
            decimals=0,
            width=6,
            limit=3,
        ),
        graph(
            "Requests in metrics and spans",
            over_time(
                f"{rate('http_requests_total', where=API, window=ZOOM)} + "
                f"({rate('synthetic_http_requests_total', where=API, window=ZOOM)}"
                " or on () vector(0))",
                "metrics",
            ),
            over_time(REQUEST_SPANS, "spans"),
            shows=(
                "Requests a second as the API counts them, and as the collector counts their spans."
            ),
            normal="One line: here every request is sampled. With less sampling, that share of it.",
            act="Spans fall behind: they are lost on the way (dashboard Telemetry cost).",
            unit="reqps",
            width=6,
            colours={"metrics": "blue", "spans": "purple"},
        ),
        graph(
            "Alarming lines",
            log_metric(f'{COUNTED} | level="CRITICAL" [$__interval]))', "CRITICAL"),
            log_metric(
                f'{COUNTED} | type=~"library|application" | level="ERROR" [$__interval]))',
                "errors of libraries",
            ),
            log_metric(
                f'{COUNTED} | type="lifecycle" | message=~"a worker (died and was replaced|did not'
                ' end: killed)" [$__interval]))',
                "dead server processes",
            ),
            log_metric(
                f'{COUNTED} |~ "^(Fatal Python error|Traceback|MemoryError|Segmentation fault)"'
                " [$__interval]))",
                "crashes",
            ),
            shows=(
                "Log lines that no counter counts: CRITICAL, errors of libraries, processes that "
                "died."
            ),
            normal="None.",
            act=(
                "CriticalLogLine, LibraryErrors, ServerProcessDied and ProcessCrashed say which; "
                "read them."
            ),
            unit="short",
            width=6,
            quiet="a healthy service writes none of these lines",
        ),
        trace_list(
            "Slow requests",
            traces("glasshouse", min_duration="200ms"),
            shows="Newest traces that took longer than the service level's 200 ms.",
            normal="Log-ins and registrations, whose passwords are hashed slowly on purpose.",
            act="Open another one: the longest span without children is where the time went.",
            width=12,
            height=9,
        ),
        log_lines(
            "Warnings and errors",
            lines(LOGS),
            shows="What the API says at WARNING and above, all instances.",
            normal="Little: refused log-ins, a slow statement.",
            act=(
                "Open a line: `trace_id` leads to its trace, `request_id` to the request's other "
                "lines."
            ),
            width=12,
        ),
    ),
)

BOARD: Final = Board(
    name="api",
    title="API",
    asks="Is every request answered, correctly and in time?",
    reading=(
        "Rate, errors and duration say whether; routes and bands of the heatmap say which and since "
        "when; what a process lacks or waits for says why. Click a route to see it alone."
    ),
    sections=(_HEALTH, _CHANGED, _WHY),
    variables=(
        environment(),
        instance("api|worker"),
        label_values(
            "handler",
            "Route",
            'http_requests_total{job="api"}',
            of="handler",
            description="One route, by its template.",
        ),
    ),
    neighbours=(
        ("overview", "Overview"),
        ("database", "Database"),
        ("slo", "SLO"),
        ("security", "Security"),
    ),
    explore=(explore_logs(LOGS), explore_traces("glasshouse")),
)
