"""Is the database fast, and is there a connection for everybody who needs one?

Two views of the same: what our processes see (statements, pools, N+1), and what the servers say of themselves
(PostgreSQL, and Redis, which stands before it as a cache).
"""

from typing import Final

from monitoring.build.grafana.board import Board, Section
from monitoring.build.grafana.colours import (
    CRITICAL,
    GOOD,
    LIMIT,
    MUTED,
    NEUTRAL,
    NOTICE,
    OUTCOMES,
    QUANTILES,
    WARNING,
    above,
    below,
)
from monitoring.build.grafana.figures import figure
from monitoring.build.grafana.graphs import graph, heat, states
from monitoring.build.grafana.idle import zero_while_up
from monitoring.build.grafana.links import explore_logs, explore_traces
from monitoring.build.grafana.panel import DOWN_OR_UP
from monitoring.build.grafana.queries import (
    buckets,
    lines,
    log_metric,
    over_time,
    rows,
    traces,
)
from monitoring.build.grafana.selectors import API, CHOSEN, OUR_LOGS, PROCESSES, SHOWN, ZOOM
from monitoring.build.grafana.tables import Column, grid, log_lines, trace_list
from monitoring.build.grafana.variables import environment, instance, label_values
from monitoring.build.logs.backends import DAMAGE
from monitoring.build.records.expressions import increase, mean, or_zero, quantile, rate

STATEMENTS: Final = f'{PROCESSES},operation!="TRANSACTION"'
"""What somebody wrote: BEGIN, COMMIT and ROLLBACK are fast and many, and would hide the others."""
ROUTES: Final = f'{PROCESSES},handler=~"$handler"'
POOLS: Final = f'{PROCESSES},pool=~"$pool"'
POOL_RECORDS: Final = f'{CHOSEN},pool=~"$pool"'
SERVERS: Final = 'instance=~"$server"'
SERVER: Final = f'job="postgres",{SERVERS}'
DATABASES: Final = f'{SERVER},datname!~"|template.*"'
BY: Final = "operation, table"
LOGS: Final = f'{OUR_LOGS} | type="db_query"'


def _quantile(rank: float, by: str = "") -> str:
    return quantile(rank, "database_query_duration_seconds", by, where=STATEMENTS, window=ZOOM)


_HEALTH: Final = Section(
    "Is it healthy? Reached, fast, without errors, with connections to spare",
    (
        figure(
            "Database",
            over_time(
                'min(job_dependency:dependency_up:max{dependency="database"})',
                "database",
            ),
            shows="Whether our processes reach the database: the worst of API and worker.",
            normal="Up, for both of them.",
            act=(
                "DatabaseDown fires after a minute: nothing can be read or stored until it is back."
            ),
            unit="none",
            steps=below(critical=1),
            texts=DOWN_OR_UP,
        ),
        figure(
            "Statements",
            over_time(
                rate("database_query_duration_seconds_count", where=STATEMENTS, window=ZOOM),
                "statements",
            ),
            shows="Statements a second of the chosen processes; BEGIN and COMMIT are left out.",
            normal="Follows the requests: some 3 to 10 of each.",
            act="It jumps and requests do not: an N+1, or a job that loops. See the table.",
            unit="ops",
            decimals=1,
        ),
        figure(
            "Duration p95",
            over_time(f"{_quantile(0.95)} >= 0", "p95"),
            shows="95 of 100 statements had their rows within this time.",
            normal="Some milliseconds.",
            act="Above 50 ms look which table it is, then at locks and blocks read, below.",
            unit="s",
            steps=above(warning=0.05, critical=0.2),
        ),
        figure(
            "Failed statements",
            over_time("max(job:database_errors:ratio_rate5m)", "failed"),
            shows=(
                "Share of the last five minutes' statements that failed, broken constraints left "
                "out."
            ),
            normal="0 %.",
            act="Above 1 % DatabaseErrorsHigh fires: the errors by kind say what to look for.",
            unit="percentunit",
            decimals=2,
            steps=above(warning=0.01, critical=0.05),
        ),
        figure(
            "Pool in use",
            over_time(
                f"max(job_instance_pool:database_connections:saturation{{{POOL_RECORDS}}})",
                "in use",
            ),
            shows="Share of its connections that the busiest process has in use.",
            normal="Below 50 %; peaks that are gone at the next scrape.",
            act="Above 80 % DatabasePoolHigh fires, above 95 % requests wait: who holds them?",
            unit="percentunit",
            decimals=0,
            steps=above(warning=0.8, critical=0.95),
        ),
        figure(
            "Server connections",
            over_time(f"max(instance:pg_connections_used:ratio{{{SERVERS}}})", "used"),
            shows="Share of the connections that PostgreSQL allows, all its clients together.",
            normal="Below 50 %.",
            act=(
                "Above 80 % DatabaseConnectionsNearLimit fires: smaller pools, fewer replicas, or "
                "a pooler."
            ),
            unit="percentunit",
            decimals=0,
            steps=above(warning=0.8, critical=0.95),
        ),
        graph(
            "Duration of statements",
            *(
                over_time(f"{_quantile(rank)} >= 0", f"p{rank * 100:g}")
                for rank in (0.5, 0.95, 0.99)
            ),
            shows="Within which time 50, 95 and 99 of 100 statements had their rows.",
            normal="Milliseconds, flat.",
            act="p99 alone: some statement, see the log of slow ones. All three: the server.",
            unit="s",
            colours=QUANTILES,
        ),
        graph(
            "Failed statements over time",
            over_time("clamp_max(job:database_errors:ratio_rate5m, 1)", "{{job}}"),
            shows=(
                "Failures per statement, by job, constraints that did their work left out; 1 is "
                "the end of the scale."
            ),
            normal="0 % for API and worker.",
            act="Above the line for 2 minutes DatabaseErrorsHigh fires.",
            unit="percentunit",
            limit=0.01,
        ),
        graph(
            "Slow statements",
            over_time("job:database_slow_queries:ratio_rate5m", "{{job}}"),
            shows="Share of the statements slower than DATABASE_SLOW_QUERY_MS, by job.",
            normal="0 %.",
            act="Above the line for 5 minutes DatabaseSlowQueries fires: the log below names them.",
            unit="percentunit",
            limit=0.1,
        ),
    ),
)

_CHANGED: Final = Section(
    "What changed? Which statements, of which route",
    (
        grid(
            "Statements by table",
            rows(rate("database_query_duration_seconds_count", BY, where=STATEMENTS, window=ZOOM)),
            rows(f"{_quantile(0.95, BY)} >= 0"),
            rows(
                rate("database_query_duration_seconds_sum", BY, where=STATEMENTS, window=ZOOM)
                + " / on () group_left () ("
                + rate("database_query_duration_seconds_sum", where=STATEMENTS, window=ZOOM)
                + " > 0)"
            ),
            rows(
                or_zero(
                    increase("database_slow_queries_total", BY, where=STATEMENTS, window=SHOWN),
                    rate(
                        "database_query_duration_seconds_count", BY, where=STATEMENTS, window=ZOOM
                    ),
                    BY,
                )
            ),
            shows="What is asked of each table now, how long it takes, its share of all time.",
            normal="Short, none slow; the time is where the traffic is.",
            act="A large share of time is where an index or a cached answer pays most.",
            labels={"operation": "Operation", "table": "Table"},
            columns=[
                Column("Rate", "ops", decimals=2, width=95),
                Column("p95", "s", above(warning=0.05, critical=0.2), width=95),
                Column("Time", "percentunit", decimals=0, width=75),
                Column("Slow", "short", above(warning=1), decimals=0, width=75),
            ],
            sorted_by="Time",
            height=10,
        ),
        heat(
            "How long statements take",
            buckets(
                rate("database_query_duration_seconds_bucket", "le", where=STATEMENTS, window=ZOOM)
            ),
            shows="How many statements took how long, and when.",
            normal="One band, below 5 ms.",
            act=(
                "The band moves up: the server is busy. A second one above: some statement lacks "
                "an index."
            ),
            unit="s",
            height=10,
        ),
        graph(
            "Statements by operation",
            over_time(
                rate(
                    "database_query_duration_seconds_count",
                    "operation",
                    where=STATEMENTS,
                    window=ZOOM,
                ),
                "{{operation}}",
            ),
            shows="Statements a second by operation, stacked.",
            normal="Follows the requests, mostly SELECT.",
            act="One kind grows alone: which table, and since which deployment?",
            unit="ops",
            stacked=True,
            colours={"SELECT": "blue", "INSERT": "green", "UPDATE": "yellow", "DELETE": "orange"},
        ),
        graph(
            "Statements of one request or job",
            over_time(
                mean("database_queries_per_request", "handler", where=ROUTES, window=ZOOM),
                "{{handler}}",
            ),
            shows="Mean number of statements of a request to each route, or of a run of each job.",
            normal="Constant, below 10, whatever the size of the tables.",
            act="It grows with the data: an N+1 below the threshold. Open a trace of that route.",
            unit="short",
            decimals=1,
        ),
        graph(
            "Repeated SELECTs (N+1)",
            # The counter of a route begins with its first event, which an increase would not see.
            over_time(
                zero_while_up(f"sum(database_n_plus_one_total{{{ROUTES}}})", "api|worker"),
                "chosen routes and jobs",
            ),
            shows=(
                "Requests and jobs that repeated one SELECT again and again, since the processes "
                "began."
            ),
            normal="0, from start to end.",
            act=(
                "DatabaseNPlusOne fires at a step up: its log line names the caller. Load in one "
                "query."
            ),
            unit="short",
            decimals=0,
            colours={"^chosen": WARNING},
        ),
    ),
)

_POOL: Final = Section(
    "Why? Is there a connection, and what fails",
    (
        graph(
            "Connections of the pools",
            over_time(f"sum by (job) (database_connections_active{{{POOLS}}})", "active: {{job}}"),
            over_time(f"sum by (job) (database_connections_idle{{{POOLS}}})", "idle: {{job}}"),
            over_time(
                f"sum by (job) (database_connections_overflow{{{POOLS}}})", "overflow: {{job}}"
            ),
            over_time(f"sum by (job) (database_connections_max{{{POOLS}}})", "most: {{job}}"),
            shows=(
                "Connections in use, open and idle, beyond the pool's size, and the most there may "
                "be."
            ),
            normal="Active far below the most; no overflow for long.",
            act="Overflow that stays: the pool is too small, or statements got slower.",
            unit="short",
            width=6,
            colours={"^active": NEUTRAL, "^idle": MUTED, "^overflow": WARNING, "^most": LIMIT},
        ),
        graph(
            "Pool in use, by process",
            over_time(
                "max by (job, instance, pool) (job_instance_pool:database_connections:saturation"
                f"{{{POOL_RECORDS}}})",
                "{{job}} {{instance}}",
            ),
            shows="Share of the connections that each process may open and has in use.",
            normal="Below 50 %.",
            act=(
                "On average above 80 % for 5 minutes: DatabasePoolHigh; above 95 %: "
                "DatabasePoolExhausted."
            ),
            unit="percentunit",
            maximum=1,
            width=6,
            limit=((0.8, WARNING), (0.95, CRITICAL)),
        ),
        graph(
            "Wait for a connection, p95",
            over_time(
                quantile(
                    0.95, "database_connection_wait_seconds", "job, pool", where=POOLS, window=ZOOM
                )
                + " >= 0",
                "{{job}}: {{pool}}",
            ),
            shows="95 of 100 that wanted a connection had one within this time.",
            normal="Below a millisecond.",
            act=(
                "Above 10 ms the pool is short: slow statements hold it, or there is too little of "
                "it."
            ),
            unit="s",
            width=6,
        ),
        graph(
            "Waits given up, in 5 minutes",
            over_time(
                "sum by (job, instance) (job_instance_pool:database_connection_timeouts:increase5m"
                f"{{{POOL_RECORDS}}})",
                "{{job}} {{instance}}",
            ),
            shows="Waits for a connection that were given up; such a request is answered with 503.",
            normal="0 everywhere.",
            act="From 3 on DatabasePoolExhausted fires: `/debug/tasks` says who holds connections.",
            unit="short",
            decimals=0,
            width=6,
            limit=3,
        ),
        graph(
            "Errors by kind",
            over_time(
                f"60 * {rate('database_errors_total', 'error_type', where=PROCESSES, window=ZOOM)}",
                "{{error_type}}",
            ),
            shows="Statements and connections that failed, a minute, by kind.",
            normal="Nothing but integrity: a taken e-mail address, a repeated idempotency key.",
            act=(
                "connection, pool_timeout: 503s. timeout: slow. deadlock above the line (3 in 15 "
                "minutes): DatabaseDeadlocks, lock rows in one order."
            ),
            unit="suffix:/ min",
            limit=0.2,
            colours={
                "integrity": MUTED,
                "timeout": NOTICE,
                "deadlock": WARNING,
                "connection": CRITICAL,
                "pool_timeout": "dark-orange",
                "other": "purple",
            },
        ),
        graph(
            "Rows of a SELECT, p95",
            over_time(
                quantile(
                    0.95,
                    "database_rows_returned",
                    "table",
                    where=f'{PROCESSES},operation="SELECT"',
                    window=ZOOM,
                )
                + " >= 0",
                "{{table}}",
            ),
            shows="95 of 100 SELECTs on each table return no more rows.",
            normal="1 to 10; 100 for a page of a list.",
            act="Thousands: a query without a limit.",
            unit="short",
        ),
        states(
            "Reached, migrated, observed",
            over_time(
                f'min by (job, dependency) (dependency_up{{{PROCESSES},dependency=~"database|migrations"}})',
                "{{job}}: {{dependency}}",
            ),
            over_time(f"min by (instance) (pg_up{{{SERVER}}})", "exporter {{instance}}"),
            shows=(
                "Whether processes reach the database, find the schema they need, and its exporter "
                "does."
            ),
            normal="Green throughout.",
            act=(
                "migrations red: MigrationsPending, `python -m app migrate`. Exporter alone: "
                "DatabaseServerDown, the server is not observed."
            ),
            texts=DOWN_OR_UP,
            height=8,
        ),
    ),
)

_SERVERS: Final = Section(
    "Why? What PostgreSQL says of itself",
    (
        graph(
            "Connections by state",
            over_time(
                f"sum by (state) (pg_stat_activity_count{{{SERVER}}}) > 0",
                "{{state}}",
            ),
            over_time(f"max(pg_settings_max_connections{{{SERVER}}})", "allowed"),
            shows=(
                "Connections that the server has, of all clients, by what they do, and how many it "
                "allows."
            ),
            normal="Mostly idle, far below what is allowed.",
            act="`idle in transaction` that stays holds locks: somebody began and does not end.",
            unit="short",
            width=6,
            colours={
                "allowed": LIMIT,
                "active": NEUTRAL,
                "idle": MUTED,
                "idle in transaction.*": WARNING,
            },
        ),
        graph(
            "Longest transaction",
            over_time(
                "max by (datname) (pg_stat_activity_max_tx_duration{"
                f'{DATABASES},state=~"active|idle in transaction.*"}})',
                "{{datname}}",
            ),
            shows="How long the oldest transaction of each database has been open.",
            normal="Below a second; a backup takes longer.",
            act="Minutes: it keeps locks and dead rows. `pg_stat_activity` says whose it is.",
            unit="s",
            width=6,
        ),
        graph(
            "Locks",
            over_time(f"sum by (mode) (pg_locks_count{{{DATABASES}}}) > 0", "{{mode}}"),
            shows="Locks that are held or waited for, by mode.",
            normal="A few of the shared ones, as many as statements run.",
            act=(
                "exclusivelock or accessexclusivelock that stay: a migration or a long transaction."
            ),
            unit="short",
            decimals=0,
            width=6,
            colours={"accessexclusivelock": CRITICAL, "^exclusivelock": WARNING},
        ),
        graph(
            "Transactions",
            over_time(
                rate("pg_stat_database_xact_commit", where=DATABASES, window=ZOOM), "committed"
            ),
            over_time(
                rate("pg_stat_database_xact_rollback", where=DATABASES, window=ZOOM),
                "rolled back",
            ),
            over_time(
                rate("pg_stat_database_deadlocks", where=DATABASES, window=ZOOM), "deadlocks"
            ),
            shows="Transactions a second, by how they ended, and deadlocks, which end one of them.",
            normal="Nearly all committed, no deadlocks.",
            act=(
                "Rolled back ones rise: requests fail. Deadlocks: the log of the server has both "
                "statements."
            ),
            unit="ops",
            width=6,
            colours={"committed": GOOD, "rolled back": WARNING, "deadlocks": CRITICAL},
        ),
        graph(
            "Blocks found in memory",
            over_time(
                f"instance_datname:pg_blocks_hit:ratio_rate5m{{{SERVERS}}}",
                "{{datname}}",
            ),
            shows=(
                "Share of the blocks that PostgreSQL had in its own memory, and did not have to "
                "read."
            ),
            normal="Above 99 %.",
            act=(
                "Below 95 % the working set is larger than `shared_buffers`, or a table is read as "
                "a whole."
            ),
            unit="percentunit",
            minimum=None,
            maximum=1,
            decimals=1,
            width=6,
        ),
        graph(
            "Size of databases",
            over_time(
                f"instance_datname:pg_database_size_bytes:max{{{SERVERS}}}",
                "{{datname}}",
            ),
            shows="Bytes of each database on disk.",
            normal="Grows slowly, with the orders.",
            act="A jump: an import, or dead rows that nobody removes.",
            unit="bytes",
            width=6,
        ),
        graph(
            "Rows read and written",
            *(
                over_time(rate(f"pg_stat_database_tup_{kind}", where=DATABASES, window=ZOOM), kind)
                for kind in ("fetched", "inserted", "updated", "deleted")
            ),
            shows="Rows a second that the server fetched by index, and wrote.",
            normal="Follows the requests.",
            act="Fetched rises alone: a query reads more than it needs.",
            unit="suffix:rows/s",
            width=6,
            colours={
                "fetched": "blue",
                "inserted": "green",
                "updated": "yellow",
                "deleted": "orange",
            },
        ),
        graph(
            "Alarming lines of PostgreSQL",
            log_metric(
                f'sum(count_over_time({{service_name="postgres"}} |~ "{DAMAGE}"'
                ' !~ "(STATEMENT|DETAIL|QUERY|CONTEXT): " [$__interval]))',
                "damage",
            ),
            shows="Lines about panics, damaged pages, failed writes and killed processes.",
            normal="None at all.",
            act=(
                "DatabaseReportsDamage fires at the first one: take a backup, then follow its "
                "runbook."
            ),
            unit="short",
            width=6,
            colours={"damage": CRITICAL},
            quiet="a healthy server writes none of these lines",
        ),
    ),
)

_CACHE: Final = Section(
    "Why? What stands before it: the cache, and what was slow",
    (
        graph(
            "Reads of the cache",
            over_time(
                rate("cache_requests_total", "result", where=API, window=ZOOM),
                "{{result}}",
            ),
            shows="Reads of the cache a second by result, stacked; a miss asks the database.",
            normal="Nearly all hits.",
            act="Misses grow: the database works for it. Errors: Redis does not answer.",
            unit="ops",
            stacked=True,
            colours=OUTCOMES,
        ),
        graph(
            "Duration of cache operations, p95",
            over_time(
                quantile(
                    0.95,
                    "cache_operation_duration_seconds",
                    "operation",
                    where=API,
                    window=ZOOM,
                )
                + " >= 0",
                "{{operation}}",
            ),
            shows="95 of 100 operations of the cache ended within this time.",
            normal="About a millisecond.",
            act="It nears what a statement takes: Redis or the network to it is slow.",
            unit="s",
        ),
        graph(
            "Memory of Redis",
            over_time('max by (instance) (redis_memory_used_bytes{job="redis"})', "used"),
            over_time('max by (instance) (redis_memory_max_bytes{job="redis"}) > 0', "allowed"),
            shows=(
                "Memory that Redis uses and may use; no line of what is allowed: no limit is set."
            ),
            normal="Far below what is allowed.",
            act=(
                "Near it keys are thrown out, messages of the broker not excepted: RedisMemoryHigh."
            ),
            unit="bytes",
            colours={"used": "blue", "allowed": LIMIT},
        ),
        trace_list(
            "Traces with slow work",
            traces("glasshouse", tags="db.system.name=postgresql", min_duration="50ms"),
            shows=(
                "Newest traces of the API that asked the database and had something of over 50 ms."
            ),
            normal="Log-ins and registrations: it is the hashing, and not the database.",
            act="Are the blue spans of the database long, or are they many?",
            width=12,
            height=9,
        ),
        log_lines(
            "Slow and repeated statements",
            lines(LOGS),
            shows=(
                "Statements slower than DATABASE_SLOW_QUERY_MS, their plans, and N+1, as processes "
                "tell."
            ),
            normal="None, or the first ones after a start.",
            act="`caller` says where it stands in our code, `query_id` finds all of its kind.",
            width=12,
            quiet="no statement is slow while all is well",
        ),
    ),
)

BOARD: Final = Board(
    name="database",
    title="Database",
    asks="Is the database fast, and is there a connection for everybody?",
    reading=(
        "Figures and graphs say whether; the table which statements; then why: the pool in our processes, "
        "the server itself, the cache before it, and at the bottom the slow statements by name."
    ),
    sections=(_HEALTH, _CHANGED, _POOL, _SERVERS, _CACHE),
    variables=(
        environment(),
        instance("api|worker"),
        label_values(
            "pool",
            "Pool",
            'database_connections_max{job=~"api|worker"}',
            of="pool",
            description="One pool of connections.",
        ),
        label_values(
            "handler",
            "Route or job",
            'database_queries_per_request_count{job=~"api|worker"}',
            of="handler",
            description="One route, by its template, or one job.",
        ),
        label_values(
            "server",
            "Server",
            'up{job="postgres"}',
            of="instance",
            description="One PostgreSQL server, by its exporter's address.",
        ),
    ),
    neighbours=(
        ("overview", "Overview"),
        ("api", "API"),
        ("worker", "Worker"),
        ("infrastructure", "Infrastructure"),
    ),
    explore=(explore_logs(LOGS), explore_traces("glasshouse")),
)
