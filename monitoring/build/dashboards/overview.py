"""Is the shop healthy for its customers, and if not, where? The page to begin with.

It repeats what the other dashboards are about, one figure each, and leads to them.
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
    NEUTRAL,
    OUTCOMES,
    QUANTILES,
    STATUS_CLASSES,
    WARNING,
    above,
    below,
)
from monitoring.build.grafana.figures import bars, figure
from monitoring.build.grafana.graphs import graph, states
from monitoring.build.grafana.idle import zero_while_up
from monitoring.build.grafana.links import drill_down, explore_logs, explore_traces
from monitoring.build.grafana.panel import DOWN_OR_UP
from monitoring.build.grafana.queries import lines, now, over_time, rows, traces
from monitoring.build.grafana.selectors import API, CHOSEN, OUR_LOGS, ZOOM
from monitoring.build.grafana.shared import DEPENDENCIES, requests_by_class
from monitoring.build.grafana.tables import Column, grid, log_lines, service_map, trace_list
from monitoring.build.grafana.variables import environment, instance, label_values
from monitoring.build.records.expressions import mean, rate

PROBES: Final = 'job="blackbox",probe=~"$probe"'
SYNTHETIC: Final = 'job="synthetic"'
CHECKOUT: Final = 'slo:sli_error:ratio_rate5m{sloth_slo="checkout-errors"}'
CALLS: Final = f'rate(traces_service_graph_request_total{{job="span-metrics"}}[{ZOOM}])'
LOGS: Final = f'{OUR_LOGS} | level=~"ERROR|CRITICAL"'

_HEALTH: Final = Section(
    "Is it healthy? What customers get",
    (
        figure(
            "API instances up",
            over_time('sum(up{job="api"})', "up"),
            shows="Instances of the API that answer Prometheus. No data: it knows none.",
            normal="As many as were started: one on this machine.",
            act=(
                "At zero ApiDown fires: nobody is served. Look at the container, and at what was "
                "deployed."
            ),
            unit="short",
            steps=below(critical=1),
            links=[drill_down("api", "API", {})],
        ),
        figure(
            "Failed requests",
            over_time(
                zero_while_up(
                    'sum(job:http_requests_failed:ratio_rate5m{job="api"})',
                    "api",
                ),
                "failed",
            ),
            shows="Share of the requests of the last five minutes that were answered with 5xx.",
            normal="0 %; 0.1 % is what the service level api-errors allows.",
            act="Click for the dashboard API: which route, and why.",
            unit="percentunit",
            decimals=2,
            steps=FAILED_STEPS,
            links=[drill_down("api", "API", {})],
        ),
        figure(
            "Duration p95",
            over_time('job:http_request_duration_seconds:p95_5m{job="api"} >= 0', "p95"),
            shows="95 of 100 requests of the last five minutes were answered within this time.",
            normal="Below 200 ms, unless nearly everybody is logging in.",
            act="Click for the dashboard API: which route, and since when.",
            unit="s",
            steps=DURATION_STEPS,
            links=[drill_down("api", "API", {})],
        ),
        figure(
            "Checkout works",
            over_time(f"1 - ({zero_while_up(f'sum({CHECKOUT})', 'api')})", "works"),
            shows=(
                "Share of the last five minutes' orders and payments that got an answer; a decline "
                "is one."
            ),
            normal="100 %; the service level checkout-errors promises 99.9 %.",
            act="Click for the dashboard Business: orders, payments, and the payment provider.",
            unit="percentunit",
            decimals=1,
            steps=below(warning=0.999, critical=0.95),
            links=[drill_down("business", "Business", {})],
        ),
        figure(
            "Least budget left",
            over_time("clamp_min(min(slo:period_error_budget_remaining:ratio), -1)", "left"),
            shows=(
                "30 days' error budget that is left to the service level with the least; -100 % is "
                "the end of the scale."
            ),
            normal="Above 20 %.",
            act=(
                "At 0 a promise is broken (ErrorBudgetExhausted). Click: which one, and how fast "
                "it burns."
            ),
            unit="percentunit",
            decimals=0,
            steps=below(warning=0.2, critical=0),
            links=[drill_down("slo", "SLO", {})],
        ),
        figure(
            "Worker lag",
            over_time("all:outbox_oldest_age_seconds:max", "oldest message"),
            shows="How long the oldest message that is not yet handled has waited.",
            normal="Some seconds.",
            act=(
                "Paid orders wait: after 5 minutes OutboxBacklog fires. Click for the dashboard "
                "Worker."
            ),
            unit="s",
            steps=above(warning=300, critical=900),
            links=[drill_down("worker", "Worker", {})],
        ),
        graph(
            "Traffic",
            over_time(requests_by_class(API), "{{class}}xx"),
            shows="Requests a second by class of status, without the monitoring's own.",
            normal="Nearly all 2xx; a thin band of 4xx.",
            act="A fall to nothing is as bad as red: is the API up, and can customers reach it?",
            unit="reqps",
            width=6,
            stacked=True,
            colours=STATUS_CLASSES,
            links=[drill_down("api", "API", {})],
        ),
        graph(
            "Errors",
            over_time('job:http_requests_failed:ratio_rate5m{job="api"}', "requests"),
            over_time(CHECKOUT, "checkout"),
            over_time("1 - sum(all:payments_succeeded:ratio_rate5m)", "payments"),
            shows=(
                "Share that failed: of all requests, of those of a checkout, and of settled "
                "payments."
            ),
            normal="All at 0 %.",
            act=(
                "The lines are where alerts about requests begin: 1 % and 5 %. Payments alone: the "
                "provider."
            ),
            unit="percentunit",
            width=6,
            limit=FAILED_LIMITS,
            colours={"requests": CRITICAL, "checkout": WARNING, "payments": "purple"},
            links=[drill_down("api", "API", {})],
        ),
        graph(
            "Duration",
            *(
                over_time(
                    f'job:http_request_duration_seconds:p{rank}_5m{{job="api"}} >= 0', f"p{rank}"
                )
                for rank in (50, 95, 99)
            ),
            shows="Within which time 50, 95 and 99 of 100 requests were answered.",
            normal="p50 and p95 below the lowest line: the 200 ms of the service level.",
            act=(
                "Above 1 s ApiLatencyHigh fires, above 2 s ApiLatencyCritical. Click for the "
                "dashboard API."
            ),
            unit="s",
            width=6,
            limit=DURATION_LIMITS,
            colours=QUANTILES,
            links=[drill_down("api", "API", {})],
        ),
        graph(
            "Saturation",
            over_time(
                f"max(job_instance:process_cpu_seconds:rate5m{{{CHOSEN}}})", "CPU of a process"
            ),
            over_time(
                f"max(job_instance_pool:database_connections:saturation{{{CHOSEN}}})",
                "database connections",
            ),
            over_time(f"max(job_instance:process_open_fds:ratio{{{CHOSEN}}})", "open files"),
            over_time("max(instance:node_memory_used:ratio)", "memory of a host"),
            shows="The fullest of each: what will be short first.",
            normal="All below 80 %.",
            act="A line that climbs says which dashboard is next: API, Database or Infrastructure.",
            unit="percentunit",
            width=6,
            limit=0.8,
            links=[drill_down("infrastructure", "Infrastructure", {})],
        ),
        graph(
            "Revenue an hour",
            over_time("3600 * currency:revenue:rate5m", "{{currency}}"),
            shows=(
                "Captured amounts by currency, in its major units, as if the pace were kept for an "
                "hour."
            ),
            normal="Follows the hour of the day.",
            act=(
                "It falls and requests do not: click for the dashboard Business, the funnel says "
                "where."
            ),
            unit="short",
            links=[drill_down("business", "This currency", {"currency": "currency"})],
        ),
        graph(
            "Orders and payments",
            over_time("60 * all:orders_created:rate5m", "orders"),
            over_time("60 * status:payments:rate5m", "{{status}}"),
            shows="Orders placed, and payments by outcome, a minute.",
            normal="Nearly as many captured as ordered; some declined.",
            act="pending or failed: the payment provider. Orders without payments: the checkout.",
            unit="suffix:/ min",
            colours={**OUTCOMES, "orders": NEUTRAL, "captured": GOOD},
            links=[drill_down("business", "Business", {})],
        ),
        bars(
            "Error budget left",
            now("sort(clamp_min(slo:period_error_budget_remaining:ratio, -1))", "{{sloth_slo}}"),
            shows="How much of the 30 days' error budget each service level has left.",
            normal="All green.",
            act="Red: what was promised is not kept. Click for how it burns.",
            unit="percentunit",
            steps=below(warning=0.2, critical=0),
            maximum=1,
            decimals=0,
            links=[drill_down("slo", "This service level", {"slo": "sloth_slo"})],
        ),
    ),
)

_FIRING: Final = "severity, alertname, component, sloth_slo, instance"

_CHANGED: Final = Section(
    "What changed? What fires, what is down, what was deployed",
    (
        grid(
            "Firing alerts",
            rows(
                f"max by ({_FIRING}) ((time() - ALERTS_FOR_STATE) and"
                " on (alertname, severity, component, sloth_id, sloth_window, instance)"
                ' ALERTS{alertstate="firing"})'
            ),
            shows="What fires now, and how long its condition has held. Watchdog always does.",
            normal="Watchdog alone: it shows that alerts work. No data: they do not.",
            act=(
                "Critical ones first; its runbook says what to do. After 30 minutes UnresolvedCritical "
                "calls the next person, after a day UnresolvedWarning."
            ),
            labels={
                "severity": "Severity",
                "alertname": "Alert",
                "component": "Component",
                "sloth_slo": "SLO",
                "instance": "Instance",
            },
            columns=[Column("For", "s", decimals=0, width=90)],
            sorted_by="Severity",
            ascending=True,
            widths={"Severity": 80, "Component": 105, "SLO": 135, "Instance": 135},
            width=14,
        ),
        grid(
            "Versions",
            rows(
                "count by (service, version, commit, environment)"
                f' (build_info{{environment=~"$environment",{CHOSEN}}})'
            ),
            shows="Which build of each service runs, and in how many processes.",
            normal="One version of each; two only while a deployment is under way.",
            act=(
                "Two for long: a deployment that stopped half-way. Newer than the trouble: it was "
                "not that."
            ),
            labels={
                "service": "Service",
                "version": "Version",
                "commit": "Commit",
                "environment": "Environment",
            },
            columns=[Column("Processes", "short", width=85)],
            sorted_by="Service",
            ascending=True,
            widths={"Version": 65, "Commit": 75, "Environment": 105},
            width=10,
        ),
        states(
            "Dependencies",
            over_time(DEPENDENCIES, "{{dependency}}"),
            shows=(
                "Whether all processes that need a dependency reach it, as their health checks say."
            ),
            normal="Green throughout.",
            act=(
                "The dashboard of what is down says more: Database, Worker (broker), Business "
                "(provider)."
            ),
            texts=DOWN_OR_UP,
            height=10,
        ),
        states(
            "Addresses, asked from outside",
            over_time(f"min by (probe) (probe_success{{{PROBES}}})", "{{probe}}"),
            shows="Whether the addresses that customers and machines ask answer as they should.",
            normal="Green throughout.",
            act="`ready` red: ApiNotReady, load balancers send it nothing. Another: ProbeFailing.",
            texts=DOWN_OR_UP,
            height=10,
        ),
        states(
            "Who answers Prometheus",
            over_time("min by (job) (up)", "{{job}}"),
            shows="Whether all targets of each scrape job answer; red is down, or not observed.",
            normal="Green throughout.",
            act=(
                "api or worker: theirs is the outage. Others: what they watch is not seen "
                "meanwhile."
            ),
            texts=DOWN_OR_UP,
            height=10,
        ),
        graph(
            "The scripted customer's journeys",
            over_time(
                f"60 * {rate('synthetic_journeys_total', 'result', where=SYNTHETIC, window=ZOOM)}",
                "{{result}}",
            ),
            shows=(
                "Journeys a minute from registration to a refund, made by the monitoring, by "
                "result."
            ),
            normal="About one a minute, all green.",
            act=(
                "More than half red for 15 minutes: SyntheticJourneyFailing, customers cannot buy. "
                "None at all: SyntheticJourneyStale."
            ),
            unit="suffix:/ min",
            width=12,
            stacked=True,
            colours=OUTCOMES,
        ),
        graph(
            "Duration of its journeys and steps",
            over_time(
                mean("synthetic_journey_duration_seconds", where=SYNTHETIC, window=ZOOM),
                "journey",
            ),
            over_time(
                mean("synthetic_step_duration_seconds", "step", where=SYNTHETIC, window=ZOOM),
                "{{step}}",
            ),
            shows="Mean duration of a whole journey, and of each of its steps.",
            normal="One to two seconds, most of it registration and log-in.",
            act=(
                "Above 5 s SyntheticJourneySlow fires: the step that rose says which route to look "
                "at."
            ),
            unit="s",
            width=12,
            limit=5,
            colours={"journey": "purple"},
        ),
    ),
)


def _named(calls: str, end: str) -> str:
    """Return calls with the service at one end of them as id and title of a node."""
    return (
        f'label_replace(label_replace({calls}, "id", "$1", "{end}", "(.+)"),'
        f' "title", "$1", "{end}", "(.+)")'
    )


# Who only calls has no requests of its own, and is a node all the same.
_NODES: Final = (
    f"sum by (id, title) ({_named(CALLS, 'server')} or {_named(f'0 * {CALLS}', 'client')})"
)
_EDGES: Final = (
    "sum by (id, source, target) (label_replace(label_replace(label_join("
    f'{CALLS}, "id", " to ", "client", "server"), "source", "$1", "client", "(.+)"),'
    ' "target", "$1", "server", "(.+)"))'
)

_WHY: Final = Section(
    "Why? Who calls whom, and what went wrong",
    (
        service_map(
            "Who calls whom",
            rows(_NODES),
            rows(_EDGES),
            shows=(
                "Services and what they call, as spans tell: requests a second that each receives."
            ),
            normal="API and worker, what they stand on, and the payment provider.",
            act="A neighbour that is new or gone: the traces of the service that calls it.",
            height=12,
        ),
        trace_list(
            "Newest traces with errors",
            traces("glasshouse", tags="error=true"),
            shows="Newest traces of the API in which something failed.",
            normal="Few: refused calls and sandbox tokens that fail on purpose.",
            act=(
                "Open one: the deepest red span is the cause; its logs and error report are a "
                "click away."
            ),
            width=12,
            height=12,
        ),
        log_lines(
            "Errors in the logs",
            lines(LOGS),
            shows="What services of ours say at ERROR and above.",
            normal="Little, and never the same line again and again.",
            act="Open a line: `trace_id` leads to the trace, `service_name` says whose it is.",
            quiet="a healthy shop logs no errors",
        ),
    ),
)

BOARD: Final = Board(
    name="overview",
    title="Overview",
    asks="Is the shop healthy for its customers, and if not, where?",
    reading=(
        "All figures green: it is. Otherwise the first one that is not leads to the dashboard that explains "
        "it: click. Below is what fires and what changed, then who calls whom, traces and logs."
    ),
    sections=(_HEALTH, _CHANGED, _WHY),
    variables=(
        environment(),
        instance("api|worker|payment-provider|synthetic"),
        label_values(
            "probe",
            "Probe",
            'probe_success{job="blackbox"}',
            of="probe",
            description="One address that is asked from outside.",
        ),
    ),
    neighbours=(
        ("api", "API"),
        ("database", "Database"),
        ("business", "Business"),
        ("worker", "Worker"),
        ("infrastructure", "Infrastructure"),
        ("slo", "SLO"),
        ("security", "Security"),
        ("telemetry-cost", "Telemetry cost"),
    ),
    explore=(explore_logs(LOGS), explore_traces("glasshouse")),
)
