"""Is what was promised to happen later happening, and soon enough?"""

from typing import Final

from monitoring.build.grafana.board import Board, Section
from monitoring.build.grafana.colours import CRITICAL, OUTCOMES, WARNING, above, below
from monitoring.build.grafana.figures import bars, figure
from monitoring.build.grafana.graphs import graph, heat, states
from monitoring.build.grafana.links import drill_down, explore_logs, explore_traces, from_row
from monitoring.build.grafana.panel import DOWN_OR_UP
from monitoring.build.grafana.queries import buckets, lines, now, over_time, rows, traces
from monitoring.build.grafana.selectors import ENVIRONMENT, NOTEWORTHY, SHOWN, WORKER, ZOOM
from monitoring.build.grafana.tables import Column, grid, log_lines, trace_list
from monitoring.build.grafana.variables import environment, instance, label_values
from monitoring.build.records.expressions import increase, mean, quantile, rate
from monitoring.build.records.queue import PERIODIC

OF_TASK: Final = f'{WORKER},task=~"$task"'
MESSAGES: Final = f'{OF_TASK},task!~"{PERIODIC}"'
"""Jobs that handle a message; those that run by the clock have no duration."""
BAD: Final = 'status=~"failed|dead"'
LOGS: Final = f'{{service_name="glasshouse-worker",{ENVIRONMENT}}} | {NOTEWORTHY}'


def _jobs(by: str, where: str, window: str = ZOOM) -> str:
    return rate("jobs_processed_total", by, where=where, window=window)


_HEALTH: Final = Section(
    "Is it healthy? Nothing waits, nothing is given up",
    (
        figure(
            "Oldest message",
            over_time(f"max(outbox_oldest_age_seconds{{{WORKER}}})", "age"),
            shows=(
                "How long the oldest message that is not yet handled has waited, dead letters "
                "excepted."
            ),
            normal="Below a second; a few while a burst is worked off.",
            act=(
                "Above 5 minutes OutboxBacklog fires, above 15 OutboxStalled: is a worker up, and "
                "the broker?"
            ),
            unit="s",
            steps=above(warning=300, critical=900),
        ),
        figure(
            "Messages waiting",
            over_time(
                f'sum(max by (state) (outbox_messages{{{WORKER},state!="dead"}}))', "messages"
            ),
            shows="Messages in the outbox that are not yet handled: pending, queued and retrying.",
            normal="A handful; it follows the bursts of orders and comes back.",
            act=(
                "If it only grows, compare what comes with what is handled, below: too few "
                "workers, or a slow job."
            ),
            unit="short",
            steps=above(warning=500, critical=5000),
        ),
        figure(
            "Dead letters",
            over_time(f'max(outbox_messages{{{WORKER},state="dead"}})', "dead"),
            shows="Messages that were given up on after six attempts, and wait for a person.",
            normal="None.",
            act=(
                "`python -m app dead-letters` shows them with their errors; `--replay` when the "
                "cause is gone."
            ),
            unit="short",
            steps=above(critical=1),
        ),
        figure(
            "Jobs handled",
            over_time(
                _jobs("", f'{WORKER},task!~"{PERIODIC}"'),
                "jobs",
            ),
            shows="Jobs that handle a message, a second, whatever became of them.",
            normal=(
                "As many as orders, payments and registrations cause: some a second under the "
                "local customers."
            ),
            act=(
                "Zero while messages wait means that the worker stands still: look at its log and "
                "its probes."
            ),
            unit="ops",
        ),
        figure(
            "Jobs that fail",
            over_time(
                f"({_jobs('', f'{WORKER},{BAD}')} or vector(0)) / ({_jobs('', WORKER)} > 0)",
                "failed",
            ),
            shows="Share of the runs of jobs that failed; most are tried again.",
            normal="0 %.",
            act=(
                "Above 10 % of a job JobFailuresHigh fires: the table below says which, the log "
                "why."
            ),
            unit="percentunit",
            decimals=1,
            steps=above(warning=0.01, critical=0.1),
        ),
        figure(
            "Workers up",
            over_time('sum(up{job="worker"})', "up"),
            shows="Worker processes that Prometheus reaches.",
            normal="As many as were started: one on this machine.",
            act=(
                "At zero WorkerDown fires: orders are taken and paid, and nothing is fulfilled "
                "until one is back."
            ),
            unit="short",
            steps=below(critical=1),
        ),
    ),
)

_CHANGED: Final = Section(
    "What changed? What comes, what is handled, and how long it takes",
    (
        graph(
            "Jobs by outcome",
            over_time(
                _jobs("status", OF_TASK),
                "{{status}}",
            ),
            shows="Runs of jobs a second, by what became of them, periodic ones included.",
            normal=(
                "Nearly all succeeded; a duplicate now and then is a message that came twice and "
                "was handled once."
            ),
            act="`failed` is tried again, `dead` is not: the job's lines say why, with the trace.",
            unit="ops",
            stacked=True,
            colours=OUTCOMES,
        ),
        graph(
            "Messages by state",
            over_time(f"max by (state) (outbox_messages{{{WORKER}}})", "{{state}}"),
            shows="Messages in the outbox: pending (no relay saw it yet), queued, retrying, dead.",
            normal="Near zero throughout; a burst is a peak that comes down again.",
            act=(
                "`pending` grows: the relay. `queued` grows: too few consumers. `retrying` grows: "
                "a dependency is down."
            ),
            unit="short",
            colours={
                "pending": "blue",
                "queued": "light-blue",
                "retrying": WARNING,
                "dead": CRITICAL,
            },
        ),
        graph(
            "Age of the oldest message",
            over_time(f"max(outbox_oldest_age_seconds{{{WORKER}}})", "oldest"),
            shows="How late the outbox is; the dashed line is where OutboxBacklog fires.",
            normal="Below a second.",
            act="A straight slope upwards means that nothing is handled at all.",
            unit="s",
            limit=300,
        ),
        graph(
            "Duration of jobs, p95",
            over_time(
                quantile(0.95, "job_duration_seconds", "task", where=MESSAGES, window=ZOOM),
                "{{task}}",
                exemplars=True,
            ),
            shows=(
                "95 of 100 runs of a job are shorter than this; dots are single runs and lead to "
                "their traces."
            ),
            normal="Below 50 ms.",
            act=(
                "Click a dot for the trace. A job that got slower makes the queue longer: compare "
                "the age, to the left."
            ),
            unit="s",
            links=[drill_down("worker", "Only this job", {"task": "task"})],
        ),
        heat(
            "Duration of all jobs",
            buckets(rate("job_duration_seconds_bucket", "le", where=MESSAGES, window=ZOOM)),
            shows=(
                "How many runs took how long: a second band above the first is another kind of "
                "work."
            ),
            normal="One band, below 50 ms.",
            act=(
                "A band that moves up with the number of rows: a query without an index (dashboard "
                "Database)."
            ),
            unit="s",
            width=8,
        ),
        graph(
            "Retries and dead letters",
            over_time(
                rate("job_retries_total", "task", where=OF_TASK, window=ZOOM),
                "retried: {{task}}",
            ),
            over_time(
                increase("dead_letters_total", "task", where=OF_TASK, window=ZOOM),
                "dead: {{task}}",
            ),
            shows="Runs that failed and will be tried again, a second, and messages given up.",
            normal="Nothing.",
            act=(
                "Steady retries of one job: what it depends on is down. Dead: a person has to "
                "decide."
            ),
            unit="short",
            colours={"^dead": CRITICAL},
        ),
    ),
)

_WHY: Final = Section(
    "Why? Each job, what it stands on, and what it says",
    (
        grid(
            "Jobs that handle messages",
            rows(_jobs("task", MESSAGES, SHOWN)),
            rows(
                f"({_jobs('task', f'{MESSAGES},{BAD}', SHOWN)} or"
                f" sum by (task) (0 * rate(jobs_processed_total{{{MESSAGES}}}[{SHOWN}])))"
                f" / ({_jobs('task', MESSAGES, SHOWN)} > 0)"
            ),
            rows(quantile(0.95, "job_duration_seconds", "task", where=MESSAGES, window=SHOWN)),
            shows=(
                "Over the shown time: how often each job ran, how often it failed, and how long 95 "
                "of 100 took."
            ),
            normal="No failures, below 50 ms.",
            act="A click on a job shows it alone.",
            labels={"task": "Job"},
            columns=[
                Column("Runs", "ops", decimals=2),
                Column("Failed", "percentunit", above(warning=0.01, critical=0.1), decimals=1),
                Column("p95", "s", above(warning=1, critical=5)),
            ],
            sorted_by="Runs",
            links=[from_row("worker", "Only this job", {"task": "Job"})],
        ),
        bars(
            "Periodic jobs: last success",
            now("sort_desc(task:job_success_age_seconds:min)", "{{task}}"),
            shows="How long ago each periodic job last ended well.",
            normal="Within its own period: seconds, for `purge` an hour.",
            act=(
                "Above 15 minutes (`purge`: 2 hours) PeriodicJobStale fires: it hangs, or the "
                "worker is gone."
            ),
            unit="s",
            steps=above(warning=600, critical=900),
            width=6,
        ),
        states(
            "What the worker stands on",
            over_time(f"max by (dependency) (dependency_up{{{WORKER}}})", "{{dependency}}"),
            shows="Whether the worker's last check of each dependency passed.",
            normal="All up.",
            act=(
                "Broker down: messages stay in the outbox and are sent later. Database down: "
                "nothing moves at all."
            ),
            texts=DOWN_OR_UP,
            width=6,
            height=8,
        ),
        graph(
            "Event loop lag, p99",
            over_time(
                quantile(0.99, "event_loop_lag_seconds", "instance", where=WORKER, window=ZOOM),
                "{{instance}}",
            ),
            shows="How late a timer fires in the worker: all its jobs wait as long.",
            normal="Below 10 ms.",
            act=(
                "Something computes or blocks inside the loop: `/debug/profile` of the API's kind, "
                "or fewer jobs at once."
            ),
            unit="s",
            limit=0.05,
        ),
        graph(
            "CPU",
            over_time(
                rate("process_cpu_seconds_total", "instance", where=WORKER, window=ZOOM),
                "CPU {{instance}}",
            ),
            shows="Cores that each worker uses: one process can use one.",
            normal="A few hundredths under the local customers.",
            act="Near 1 a second worker helps: they share the queue.",
            unit="short",
            maximum=1,
        ),
        graph(
            "Statements for one job",
            over_time(
                mean("database_queries_per_request", "handler", where=WORKER, window=ZOOM),
                "{{handler}}",
            ),
            shows="Statements that one run of a job sends to the database, on average.",
            normal="Constant: between 1 and 10, whatever the size of the tables.",
            act="If it grows with the data there is an N+1: dashboard Database.",
            unit="short",
        ),
        trace_list(
            "Newest traces",
            traces("glasshouse-worker"),
            shows="Traces in which a worker took part, newest first.",
            normal="The request that caused a job and the job are one trace.",
            act="Open one: where is the time between the request and its job?",
            width=12,
        ),
        log_lines(
            "Warnings and errors",
            lines(LOGS),
            shows="What the worker says at WARNING and above.",
            normal="Nothing, or a retry now and then.",
            act="Open a line for its fields; its trace id leads to the trace.",
            width=12,
            height=8,
            quiet="a healthy worker has nothing to warn of",
        ),
    ),
)

BOARD: Final = Board(
    name="worker",
    title="Worker and queue",
    asks="Is what was promised to happen later happening, and soon enough?",
    reading=(
        "Each order and payment leaves messages in the outbox; the worker relays and handles them. "
        "The figures say whether anything waits; the graphs when it began; the tables which job it is."
    ),
    sections=(_HEALTH, _CHANGED, _WHY),
    variables=(
        environment(),
        instance("worker"),
        label_values(
            "task",
            "Job",
            'jobs_processed_total{job="worker",instance=~"$instance"}',
            of="task",
            description="One job.",
        ),
    ),
    neighbours=(
        ("overview", "Overview"),
        ("database", "Database"),
        ("business", "Business"),
        ("infrastructure", "Infrastructure"),
    ),
    explore=(explore_logs(LOGS), explore_traces("glasshouse-worker")),
)
