"""Can what the other dashboards show be believed, and what does it cost?"""

from typing import Final

from monitoring.build.grafana.board import Board, Section
from monitoring.build.grafana.colours import CRITICAL, GOOD, MUTED, NEUTRAL, WARNING, above, below
from monitoring.build.grafana.figures import bars, figure
from monitoring.build.grafana.graphs import graph, states
from monitoring.build.grafana.idle import counted_while_up, zero_while_up
from monitoring.build.grafana.links import explore_logs, explore_traces, from_row
from monitoring.build.grafana.panel import DOWN_OR_UP
from monitoring.build.grafana.queries import log_metric, now, over_time, rows
from monitoring.build.grafana.selectors import SHOWN, ZOOM
from monitoring.build.grafana.shared import REQUEST_SPANS, TARGETS_DOWN
from monitoring.build.grafana.tables import Column, grid
from monitoring.build.grafana.variables import environment, label_values
from monitoring.build.records.expressions import increase, quantile, rate

OURS: Final = 'job=~"api|worker|payment-provider|synthetic"'
COLLECTOR: Final = 'job="otel-collector"'
DROPPED: Final = f'{OURS},signal=~"$signal"'
QUEUES: Final = f'{COLLECTOR},exporter=~"$exporter"'
TAIL: Final = "otelcol_processor_tail_sampling"
LOKI: Final = 'job="loki"'
RETAINED: Final = "loki_compactor_apply_retention_last_successful_run_timestamp_seconds"
JAEGER: Final = 'job="jaeger"'
FOUND: Final = f'{JAEGER},operation!="get_trace"'
"""A trace that is not found counts as an error there."""
PROMETHEUS: Final = 'job="prometheus"'
ALERTMANAGER: Final = 'job="alertmanager"'
GRAFANA: Final = 'job="grafana"'
TOOLS: Final = 'job=~"prometheus|alertmanager|loki|jaeger|grafana|otel-collector"'
CHANNELS_USED: Final = (
    f"sum by (integration) (alertmanager_notifications_total{{{ALERTMANAGER}}}) > 0"
)
"""Alertmanager counts for every kind of channel that it knows: most are not set up."""
LOGS: Final = (
    '{service_name=~"prometheus|alertmanager|grafana|jaeger|loki|otel-collector"}'
    " | detected_level=~`warn|error|critical`"
)


def _lost(kind: str) -> str:
    """Return what was lost before each destination; 0 where nothing ever was: then nothing counts it."""
    nothing = f"sum by (exporter) (0 * otelcol_exporter_queue_size{{{QUEUES}}})"
    lost = (
        increase(
            f"otelcol_exporter_{way}_failed_{kind}_total", "exporter", where=QUEUES, window=ZOOM
        )
        for way in ("enqueue", "send")
    )
    return " + ".join(f"({counted} or {nothing})" for counted in lost)


LOST_SPANS: Final = _lost("spans")
LOST_LINES: Final = _lost("log_records")

_HEALTH: Final = Section(
    "Is it healthy? Everything is watched, and nothing is lost",
    (
        figure(
            "Targets down",
            over_time(TARGETS_DOWN, "down"),
            shows="Targets that Prometheus cannot scrape.",
            normal="None.",
            act=(
                "The states below name them. While one is down its alerts are blind: TargetMissing "
                "fires."
            ),
            unit="short",
            steps=above(critical=1),
        ),
        figure(
            "Lost by processes",
            now(counted_while_up("telemetry_dropped_total", "api|worker", where=DROPPED)),
            sparkline=False,
            shows=(
                "Log lines, spans and error reports of the shown time that our processes threw "
                "away."
            ),
            normal="None.",
            act=(
                "Ten in ten minutes: TelemetryDropped fires. Whoever takes them is slow or away, "
                "below."
            ),
            unit="short",
            decimals=0,
            steps=above(critical=1),
        ),
        figure(
            "Lost by collector",
            now(
                " + ".join(
                    counted_while_up(
                        f"otelcol_{way}_{kind}_total", "otel-collector", where=COLLECTOR
                    )
                    for way in (
                        "exporter_enqueue_failed",
                        "exporter_send_failed",
                        "receiver_refused",
                    )
                    for kind in ("spans", "log_records")
                )
            ),
            sparkline=False,
            shows=(
                "Spans and log lines of the shown time that the collector refused, had no room for, "
                "or could not deliver after its retries."
            ),
            normal="None.",
            act="Is Jaeger up, is Loki? The queues, below, say since when it waits.",
            unit="short",
            decimals=0,
            steps=above(critical=1),
        ),
        figure(
            "Series",
            over_time(f"sum(prometheus_tsdb_head_series{{{PROMETHEUS}}})", "series"),
            shows="Series that Prometheus keeps in memory: what it costs is counted in these.",
            normal="Flat; a deployment adds some for a while.",
            act="A slope is a label with too many values: which job, below?",
            unit="short",
            steps=above(warning=200_000, critical=1_000_000),
        ),
        figure(
            "Rules that fail",
            now(
                counted_while_up(
                    "prometheus_rule_evaluation_failures_total", "prometheus", where=PROMETHEUS
                )
            ),
            sparkline=False,
            shows="Evaluations of rules in the shown time that failed: alerts that cannot fire.",
            normal="None.",
            act="PrometheusRuleFailures fires: `/rules` of Prometheus has the error.",
            unit="short",
            decimals=0,
            steps=above(critical=1),
        ),
        figure(
            "Messages lost",
            now(
                counted_while_up(
                    "alertmanager_notifications_failed_total", "alertmanager", where=ALERTMANAGER
                )
            ),
            sparkline=False,
            shows="Notifications of the shown time that Alertmanager could not deliver.",
            normal="None.",
            act="AlertmanagerNotificationsFailing fires, if any channel is left: which one, below.",
            unit="short",
            decimals=0,
            steps=above(critical=1),
        ),
    ),
)

_LOST: Final = Section(
    "What changed? From the process to the place where it is kept",
    (
        states(
            "Targets by job",
            over_time('min by (job) (up{job=~"$job"})', "{{job}}"),
            shows="Whether all targets of each job could be scraped.",
            normal="All of them.",
            act="Its container: is it running, and on the network that Prometheus is on?",
            texts=DOWN_OR_UP,
            height=10,
        ),
        graph(
            "Lost in our processes, by signal",
            over_time(
                rate("telemetry_dropped_total", "job, signal", where=DROPPED, window=ZOOM),
                "{{job}}: {{signal}}",
            ),
            shows=(
                "What each process threw away a second; it never waits for whoever should take it."
            ),
            normal="Zero throughout.",
            act=(
                "`logs`: the reader of its output. `traces`: the collector. `errors`: the error "
                "tracker."
            ),
            unit="ops",
            height=10,
        ),
        graph(
            "Error reports held back",
            over_time(
                rate(
                    "error_reports_suppressed_total", "job", where='job=~"api|worker"', window=ZOOM
                ),
                "{{job}}",
            ),
            over_time(
                f"{rate('metrics_label_values_folded_total', 'job', where=OURS, window=ZOOM)}"
                f" or sum by (job) (0 * process_start_time_seconds{{{OURS}}})",
                "{{job}}: folded label values",
            ),
            shows="Error reports that were not made since there were enough of their kind, and label values "
            "counted as `other`.",
            normal="Zero.",
            act=(
                "Reports: an outage, of which some are enough. Labels: find where the values come "
                "from."
            ),
            unit="ops",
            height=10,
        ),
        graph(
            "Collector: spans in and out",
            over_time(
                rate("otelcol_receiver_accepted_spans_total", where=COLLECTOR, window=ZOOM),
                "received",
            ),
            over_time(
                rate("otelcol_exporter_sent_spans_total", where=COLLECTOR, window=ZOOM), "delivered"
            ),
            shows=(
                "Spans a second that came in, and that went to Jaeger; between them stands tail "
                "sampling."
            ),
            normal="With all traces kept both are equal, but for the delay of the decision.",
            act="Delivered falls alone: Jaeger does not take them; the queue to the right fills.",
            unit="ops",
            colours={"received": "light-blue", "delivered": GOOD},
        ),
        graph(
            "Collector: log lines in and out",
            over_time(
                rate("otelcol_receiver_accepted_log_records_total", where=COLLECTOR, window=ZOOM),
                "received",
            ),
            over_time(
                rate("otelcol_exporter_sent_log_records_total", where=COLLECTOR, window=ZOOM),
                "delivered",
            ),
            shows="Log lines a second from all containers, and those that Loki took.",
            normal="Equal.",
            act="Delivered falls alone: Loki refuses or is away; its limits are in the next row.",
            unit="ops",
            colours={"received": "light-blue", "delivered": GOOD},
        ),
        graph(
            "Collector: queues",
            over_time(
                f"max by (exporter) (otelcol_exporter_queue_size{{{QUEUES}}}) / "
                f"(max by (exporter) (otelcol_exporter_queue_capacity{{{QUEUES}}}) > 0)",
                "{{exporter}}",
            ),
            shows="How full the queue before each destination is.",
            normal="Near empty.",
            act="At 100 % the newest is thrown away: bring the destination back before that.",
            unit="percentunit",
            limit=0.8,
            maximum=1,
        ),
    ),
)

_BACKENDS: Final = Section(
    "Why? Each backend",
    (
        graph(
            "Loki: lines by service",
            log_metric(
                'sum by (service_name) (count_over_time({service_name=~".+"}[$__auto]))',
                "{{service_name}}",
            ),
            shows="Log lines that Loki has, by the service that said them.",
            normal="The API says most.",
            act="A service that falls silent while it is up: its log driver, or the collector.",
            unit="short",
            stacked=True,
        ),
        graph(
            "Loki: bytes, and refused",
            over_time(
                rate("loki_distributor_bytes_received_total", where=LOKI, window=ZOOM), "received"
            ),
            over_time(
                zero_while_up(
                    rate("loki_discarded_samples_total", where=LOKI, window=ZOOM), "loki"
                ),
                "refused",
            ),
            shows="Bytes a second that Loki took, and that it refused for one of its limits.",
            normal="Nothing refused.",
            act=(
                "LokiDiscarding fires: the label `reason` of loki_discarded_samples_total names "
                "the limit."
            ),
            unit="Bps",
            colours={"refused": CRITICAL, "received": NEUTRAL},
        ),
        graph(
            "Loki: requests, p95",
            over_time(
                quantile(0.95, "loki_request_duration_seconds", "route", where=LOKI, window=ZOOM),
                "{{route}}",
            ),
            shows="95 of 100 requests to Loki are shorter, by what was asked.",
            normal="Writing below 50 ms; queries below a second or two.",
            act="Slow queries: a shorter time, or a narrower selector.",
            unit="s",
        ),
        graph(
            "Prometheus: samples a second",
            over_time(
                rate("prometheus_tsdb_head_samples_appended_total", where=PROMETHEUS, window=ZOOM),
                "samples",
            ),
            shows="Samples that Prometheus stores a second.",
            normal="Flat.",
            act="A step is a new target or more series: the table below says whose.",
            unit="ops",
        ),
        graph(
            "Prometheus: time for rules",
            over_time(
                f"sum by (rule_group) (prometheus_rule_group_last_duration_seconds{{{PROMETHEUS}}}) / "
                f"(sum by (rule_group) (prometheus_rule_group_interval_seconds{{{PROMETHEUS}}}) > 0) > 0.01",
                "{{rule_group}}",
            ),
            shows=(
                "Share of its interval that a group of rules needs, of those that need one per "
                "cent or more."
            ),
            normal="Below 10 %.",
            act="At 100 % evaluations are missed: split the group, or record what it computes.",
            unit="percentunit",
            legend="none",
            quiet="rules that need less than one per cent of their interval are not shown",
        ),
        graph(
            "Alertmanager: messages sent",
            over_time(
                rate(
                    "alertmanager_notifications_total",
                    "integration",
                    where=ALERTMANAGER,
                    window=ZOOM,
                )
                + f" * 60 and on (integration) {CHANNELS_USED}",
                "{{integration}}",
            ),
            over_time(
                rate(
                    "alertmanager_notifications_failed_total",
                    "integration",
                    where=ALERTMANAGER,
                    window=ZOOM,
                )
                + f" * 60 and on (integration) {CHANNELS_USED}",
                "failed: {{integration}}",
            ),
            shows="Notifications a minute by channel that was ever used, and those that failed.",
            normal="The watchdog's heartbeat only.",
            act="A channel that fails is silent: its secret, or its address.",
            unit="short",
            colours={"^failed": CRITICAL},
        ),
        states(
            "Configuration as it was read",
            over_time(
                f"min(prometheus_config_last_reload_successful{{{PROMETHEUS}}})", "Prometheus"
            ),
            over_time(
                f"min(alertmanager_config_last_reload_successful{{{ALERTMANAGER}}})",
                "Alertmanager",
            ),
            shows=(
                "Whether the last file that each has read was good; if not, the one before stays "
                "in force."
            ),
            normal="Both.",
            act=(
                "PrometheusConfigReloadFailed, AlertmanagerConfigReloadFailed: the log names the "
                "line."
            ),
            texts={"0": ("refused", CRITICAL), "1": ("good", GOOD)},
            height=8,
        ),
        graph(
            "Prometheus: what must not happen",
            over_time(
                increase("prometheus_notifications_dropped_total", where=PROMETHEUS, window=ZOOM)
                + " + "
                + increase("prometheus_notifications_errors_total", where=PROMETHEUS, window=ZOOM),
                "alerts not handed over",
            ),
            over_time(
                increase("prometheus_tsdb_compactions_failed_total", where=PROMETHEUS, window=ZOOM)
                + " + "
                + increase("prometheus_tsdb_wal_corruptions_total", where=PROMETHEUS, window=ZOOM),
                "storage failures",
            ),
            over_time(
                f"sum(changes(process_start_time_seconds{{{PROMETHEUS}}}[{ZOOM}]))", "restarts"
            ),
            shows="Alerts that did not reach Alertmanager, failures of the storage, restarts.",
            normal="Nothing.",
            act=(
                "PrometheusNotificationsFailing, PrometheusStorageFailing, PrometheusRestarting "
                "say what to do."
            ),
            unit="short",
            decimals=0,
        ),
        graph(
            "Loki: lines by level",
            log_metric(
                'sum by (detected_level) (count_over_time({service_name=~".+"}[$__auto]))',
                "{{detected_level}}",
            ),
            shows="Log lines that Loki has, by level.",
            normal="Nearly all `info`.",
            act="Errors rise: whose? The link Logs above, or the dashboard of that service.",
            unit="short",
            stacked=True,
            colours={"info": GOOD, "warn": WARNING, "error": CRITICAL, "critical": "dark-red"},
        ),
        graph(
            "Collector: what must not happen",
            over_time(LOST_SPANS, "{{exporter}}: spans lost"),
            over_time(LOST_LINES, "{{exporter}}: lines lost"),
            *(
                over_time(
                    counted_while_up(metric, "otel-collector", where=COLLECTOR, window=ZOOM), of
                )
                for metric, of in (
                    ("otelcol_receiver_refused_spans_total", "spans refused"),
                    ("otelcol_receiver_refused_log_records_total", "lines refused"),
                    (f"{TAIL}_sampling_trace_dropped_too_early_total", "traces decided too early"),
                )
            ),
            shows=(
                "Spans and lines that the collector refused or threw away, and traces that it could "
                "not wait for."
            ),
            normal="Nothing.",
            act=(
                "CollectorExportFailing, CollectorDropping and TracesDecidedTooEarly say what to "
                "do."
            ),
            unit="short",
            decimals=0,
        ),
        graph(
            "Loki: what must not happen",
            *(
                over_time(counted_while_up(metric, "loki", where=where, window=ZOOM), of)
                for metric, where, of in (
                    ("loki_ingester_chunks_flush_failures_total", LOKI, "chunks not stored"),
                    ("loki_prometheus_rule_evaluation_failures_total", LOKI, "rules failed"),
                    ("loki_prometheus_notifications_errors_total", LOKI, "alerts not handed over"),
                    (
                        "loki_request_duration_seconds_count",
                        f'{LOKI},status_code=~"5.."',
                        "requests failed",
                    ),
                )
            ),
            shows=(
                "Chunks that could not be stored, log rules that failed, alerts that did not reach "
                "Alertmanager, requests that failed."
            ),
            normal="Nothing.",
            act="LokiStorageFailing, LogRulesFailing and LogAlertsNotDelivered say what to do.",
            unit="short",
            decimals=0,
        ),
        figure(
            "Loki: log rules",
            over_time(f"max(loki_ruler_managers_total{{{LOKI}}})", "tenants"),
            shows="Tenants whose LogQL rules are evaluated.",
            normal="One.",
            act="Zero: LogRulesNotLoaded fires; the folder of rules is not where loki.yml says.",
            unit="short",
            steps=below(critical=1),
            height=8,
        ),
        figure(
            "Loki: last clean-up",
            over_time(
                f"time() - (max({RETAINED}{{{LOKI}}} > 0) or max(process_start_time_seconds{{{LOKI}}}))",
                "age",
            ),
            shows="How long ago Loki last deleted what is too old, or started.",
            normal="Below some hours.",
            act="It grows without end: the disk fills. The log of Loki's compactor says why.",
            unit="s",
            steps=above(warning=21_600, critical=86_400),
            height=8,
        ),
        graph(
            "Jaeger: storage, failed calls",
            over_time(
                rate(
                    "jaeger_storage_requests_total",
                    "operation",
                    where=f'{FOUND},result="err"',
                    window=ZOOM,
                )
                + " or 0 * "
                + rate("jaeger_storage_requests_total", "operation", where=FOUND, window=ZOOM),
                "{{operation}}",
            ),
            shows="Reads of Jaeger's storage that failed, a second, by what was asked.",
            normal="Zero; no line at all before the first question.",
            act="JaegerQueriesFailing fires: is its disk full?",
            unit="ops",
        ),
        graph(
            "Grafana: data sources",
            over_time(
                rate(
                    "grafana_plugin_request_total", "plugin_id, status", where=GRAFANA, window=ZOOM
                ),
                "{{plugin_id}}: {{status}}",
            ),
            shows="Queries of panels a second by data source and result.",
            normal="All `ok`.",
            act="GrafanaDataSourceFailing fires above 20 % errors: is the backend up?",
            unit="ops",
            colours={"error": CRITICAL},
        ),
        graph(
            "Jaeger: spans received",
            over_time(
                rate("otelcol_receiver_accepted_spans_total", where=JAEGER, window=ZOOM), "stored"
            ),
            over_time(
                zero_while_up(
                    rate("otelcol_receiver_refused_spans_total", where=JAEGER, window=ZOOM),
                    "jaeger",
                ),
                "refused",
            ),
            shows="Spans a second that Jaeger took from the collector, and that it refused.",
            normal="As many as the collector delivers; none refused.",
            act="Refused: its disk or its memory (badger). The collector keeps them for a while.",
            unit="ops",
            colours={"refused": CRITICAL, "stored": GOOD},
        ),
        graph(
            "Grafana: requests by status",
            over_time(
                rate(
                    "grafana_http_request_duration_seconds_count",
                    "status_code",
                    where=GRAFANA,
                    window=ZOOM,
                ),
                "{{status_code}}",
            ),
            shows="Requests to Grafana a second, by status.",
            normal="200, with some 3xx.",
            act="5xx: its own log. 4xx: somebody's session is over.",
            unit="ops",
            stacked=True,
            colours={"^2": GOOD, "^3": NEUTRAL, "^4": "yellow", "^5": CRITICAL},
        ),
        graph(
            "Span metrics beside the API's own",
            over_time(REQUEST_SPANS, "spans of requests"),
            over_time(
                rate("http_requests_total", where='job="api"', window=ZOOM),
                "requests that were counted",
            ),
            shows="Requests a second as traces tell, before tail sampling, and as the API counts.",
            normal="Equal when all requests are traced.",
            act="Fewer spans: sampling at the API (OTEL_TRACES_SAMPLER_ARG), or spans are lost.",
            unit="reqps",
        ),
        graph(
            "Tail sampling: traces",
            over_time(
                rate(
                    f"{TAIL}_count_traces_sampled_total",
                    "policy",
                    where=f'{COLLECTOR},sampled="true"',
                    window=ZOOM,
                ),
                "kept: {{policy}}",
            ),
            over_time(
                rate(f"{TAIL}_new_trace_id_received_total", where=COLLECTOR, window=ZOOM), "seen"
            ),
            shows=(
                "Traces a second that the collector saw, and that it kept, by the rule that kept "
                "them."
            ),
            normal="With all traces kept: as many as seen, a few seconds later.",
            act=(
                "Too many kept: TRACES_KEPT_PERCENT is the share of the others. Errors and slow "
                "ones are always kept."
            ),
            unit="ops",
            colours={"^seen$": MUTED},
        ),
    ),
)

_COST: Final = Section(
    "What does it cost?",
    (
        grid(
            "Series and scrapes by job",
            rows("sum by (job) (scrape_samples_post_metric_relabeling)"),
            rows(
                "max by (job) (scrape_samples_post_metric_relabeling / on (job, instance) "
                "(scrape_sample_limit > 0))"
            ),
            rows("max by (job) (scrape_duration_seconds)"),
            rows(
                "max by (job) (scrape_duration_seconds / on (job, instance) (scrape_timeout_seconds > 0))"
            ),
            shows=(
                "Samples of each scrape, their share of the limit, how long the scrape takes, and "
                "of what it may."
            ),
            normal="Far below both limits.",
            act=(
                "Above 80 % MetricsCardinalityHigh or ScrapeSlow fires: which metric has so many "
                "values?"
            ),
            labels={"job": "Job"},
            columns=[
                Column("Samples", "locale", decimals=0),
                Column("Of limit", "percentunit", above(warning=0.5, critical=0.8), decimals=1),
                Column("Scrape", "s", decimals=3),
                Column(
                    "Of time-out",
                    "percentunit",
                    above(warning=0.5, critical=0.8),
                    decimals=1,
                    width=110,
                ),
            ],
            sorted_by="Samples",
            height=10,
            links=[from_row("telemetry-cost", "Only this job", {"job": "Job"})],
        ),
        bars(
            "Memory of the tools",
            now(
                f"sort_desc(max by (job) (process_resident_memory_bytes{{{TOOLS}}}))",
                "{{job}}",
            ),
            shows="Memory in RAM of each program of the telemetry.",
            normal="Some hundred megabytes each; the limits are in docker-compose.yml.",
            act="Near its limit the kernel ends it: raise the limit, or keep less.",
            unit="bytes",
            width=6,
            height=10,
        ),
        bars(
            "CPU of the tools",
            now(
                f"sort_desc({rate('process_cpu_seconds_total', 'job', where=TOOLS, window=SHOWN)})",
                "{{job}}",
            ),
            shows="Cores that each program of the telemetry used in the shown time.",
            normal="A few hundredths each under the local customers.",
            act="Prometheus: rules and queries. Collector: spans a second. Loki: queries.",
            unit="short",
            decimals=3,
            width=6,
            height=10,
        ),
    ),
)

BOARD: Final = Board(
    name="telemetry-cost",
    title="Telemetry: health and cost",
    asks="Can what the other dashboards show be believed, and what does it cost?",
    reading=(
        "Whoever watches has to be watched. The figures say whether anything is lost; the graphs follow a "
        "span and a line from our processes to where they are kept; the table says what each job costs."
    ),
    sections=(_HEALTH, _LOST, _BACKENDS, _COST),
    variables=(
        environment(),
        label_values("job", "Job", "up", of="job", description="Which scrape jobs are shown."),
        label_values(
            "exporter",
            "Exporter",
            f"otelcol_exporter_queue_size{{{COLLECTOR}}}",
            of="exporter",
            description="Where the collector delivers to.",
        ),
        label_values(
            "signal",
            "Signal",
            "telemetry_dropped_total",
            of="signal",
            description="Logs, traces or errors.",
        ),
    ),
    neighbours=(
        ("overview", "Overview"),
        ("infrastructure", "Infrastructure"),
        ("api", "API"),
    ),
    explore=(explore_logs(LOGS), explore_traces("glasshouse")),
)
