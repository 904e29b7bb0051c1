"""Does what the service stands on have room left?"""

from typing import Final

from monitoring.build.grafana.board import Board, Section
from monitoring.build.grafana.colours import (
    CRITICAL,
    GOOD,
    MUTED,
    NEUTRAL,
    OUTCOMES,
    WARNING,
    above,
    below,
    plain,
)
from monitoring.build.grafana.figures import bars, figure
from monitoring.build.grafana.graphs import graph, states
from monitoring.build.grafana.links import explore_logs, explore_traces, from_row
from monitoring.build.grafana.panel import DOWN_OR_UP
from monitoring.build.grafana.queries import now, over_time, rows
from monitoring.build.grafana.selectors import CHOSEN, SHOWN, ZOOM
from monitoring.build.grafana.shared import TARGETS_DOWN
from monitoring.build.grafana.tables import Column, grid
from monitoring.build.grafana.variables import environment, exporter_instance, label_values
from monitoring.build.records.expressions import quantile, rate

HOST: Final = f'job="node",{CHOSEN}'
REDIS: Final = f'job="redis",{CHOSEN}'
CACHE: Final = 'job="api",cache=~"$cache"'
HIT_OR_MISS: Final = 'result=~"hit|miss"'
PROCESSES: Final = 'job=~"$job"'
FILES: Final = f'{HOST},fstype!~"tmpfs|devtmpfs|ramfs|overlay|squashfs|iso9660|fuse.+"'
WIRES: Final = f'{HOST},device!~"lo|veth.*|docker.*|br-.*"'
LOGS: Final = '{service_name=~"postgres|valkey|prometheus|alertmanager|grafana|gateway"}'
NO_BACKUP: Final = "on one machine nobody makes backups unless asked to"


def _waiting(resource: str) -> str:
    return f"rate(node_pressure_{resource}_waiting_seconds_total{{{HOST}}}[{ZOOM}])"


_HEALTH: Final = Section(
    "Is it healthy? The machine, the cache, the processes",
    (
        figure(
            "CPU used",
            over_time(
                "1 - avg("
                + rate(
                    "node_cpu_seconds_total",
                    "instance, cpu",
                    where=f'{HOST},mode=~"idle|iowait"',
                    window=ZOOM,
                )
                + ")",
                "used",
            ),
            shows="Share of all cores of the machine that is busy.",
            normal="Below 70 %.",
            act="Above 90 % for 15 minutes HostCpuHigh fires: which process, below?",
            unit="percentunit",
            decimals=0,
            steps=above(warning=0.7, critical=0.9),
        ),
        figure(
            "Memory available",
            over_time(
                f"min by (instance) (node_memory_MemAvailable_bytes{{{HOST}}}) / "
                f"min by (instance) (node_memory_MemTotal_bytes{{{HOST}}})",
                "available",
            ),
            shows="Share of the machine's memory that programs can have without swapping.",
            normal="Above 25 %.",
            act="Below 10 % HostMemoryLow fires; the kernel ends processes next.",
            unit="percentunit",
            decimals=0,
            steps=below(warning=0.25, critical=0.1),
        ),
        figure(
            "Fullest disk",
            over_time(
                "max(1 - max by (instance, device) (node_filesystem_avail_bytes{"
                f"{FILES}}}) / (max by (instance, device) (node_filesystem_size_bytes{{{FILES}}}) > 0))",
                "used",
            ),
            shows="How full the fullest file system of the machine is.",
            normal="Below 75 %.",
            act=(
                "Above 90 %, or full within a day, HostDiskFilling fires: telemetry's volumes have "
                "limits of their own."
            ),
            unit="percentunit",
            decimals=0,
            steps=above(warning=0.75, critical=0.9),
        ),
        figure(
            "Cache hits",
            over_time(
                rate("cache_requests_total", where=f'{CACHE},result="hit"', window=ZOOM)
                + f" / ({rate('cache_requests_total', where=f'{CACHE},{HIT_OR_MISS}', window=ZOOM)} > 0)",
                "hits",
            ),
            shows="Share of the reads of the service's cache that found a value.",
            normal="Above 80 %: each request of a customer with a session reads it.",
            act="Below 50 % CacheHitRatioLow fires: was the cache emptied, or is it too small?",
            unit="percentunit",
            decimals=0,
            steps=below(warning=0.5),
        ),
        figure(
            "Redis memory",
            over_time(f"sum(redis_memory_used_bytes{{{REDIS}}})", "used"),
            shows="Memory of the Redis-compatible server that keeps cache, limits and queue.",
            normal="Some megabytes; the graph below shows it against its limit.",
            act="Above 90 % of its limit RedisMemoryHigh fires, and it evicts or refuses.",
            unit="bytes",
            decimals=1,
        ),
        figure(
            "Targets down",
            over_time(TARGETS_DOWN, "down"),
            shows="Targets that Prometheus cannot scrape, of all jobs.",
            normal="None.",
            act=(
                "The states below name them; the dashboard Telemetry says what else is amiss with "
                "the watching."
            ),
            unit="short",
            steps=above(critical=1),
        ),
    ),
)

_CHANGED: Final = Section(
    "What changed? Use, saturation and errors of the machine",
    (
        graph(
            "CPU by mode",
            over_time(
                rate("node_cpu_seconds_total", "mode", where=f'{HOST},mode!="idle"', window=ZOOM),
                "{{mode}}",
            ),
            shows=(
                "Cores in use, by what for; `iowait` waits for a disk, `steal` for the hypervisor."
            ),
            normal="Mostly `user`.",
            act=(
                "`iowait`: the disks, to the right. `steal`: the machine is shared, and its "
                "neighbours are busy."
            ),
            unit="short",
            stacked=True,
        ),
        graph(
            "Memory",
            over_time(f"sum(node_memory_MemTotal_bytes{{{HOST}}})", "total"),
            over_time(
                f"sum(node_memory_MemTotal_bytes{{{HOST}}}) - "
                f"sum(node_memory_MemAvailable_bytes{{{HOST}}})",
                "used",
            ),
            shows="Memory that programs hold, and what there is.",
            normal="Used stays flat; the file cache counts as available.",
            act="A slope: which process, below; `/debug/memory` of ours says what grew.",
            unit="bytes",
            colours={"total": MUTED, "used": NEUTRAL},
        ),
        graph(
            "Disks: share of time busy",
            over_time(
                rate("node_disk_io_time_seconds_total", "device", where=HOST, window=ZOOM),
                "{{device}}",
            ),
            shows="Share of the time in which a disk had something to do.",
            normal="Far below 100 %.",
            act="Near 100 % everything that writes waits: the database first.",
            unit="percentunit",
            maximum=1,
        ),
        graph(
            "Pressure: waiting for",
            over_time(_waiting("cpu"), "CPU"),
            over_time(_waiting("io"), "disks"),
            over_time(_waiting("memory"), "memory"),
            shows=(
                "Share of the time in which some process waited for CPU, disks or memory, as the "
                "kernel says."
            ),
            normal="A few per cent of CPU; no memory.",
            act="The line that rises is the resource that is short.",
            unit="percentunit",
        ),
        graph(
            "Network",
            over_time(
                rate("node_network_receive_bytes_total", where=WIRES, window=ZOOM), "received"
            ),
            over_time(
                f"-{rate('node_network_transmit_bytes_total', where=WIRES, window=ZOOM)}", "sent"
            ),
            shows=(
                "Bytes a second over the interfaces that the node exporter sees, in the stack "
                "those of its own container; sent is drawn below zero."
            ),
            normal="It follows the traffic.",
            act="Sent without requests: who exports, or is being copied?",
            unit="Bps",
            minimum=None,
        ),
        graph(
            "Disk space left",
            over_time(
                f"min by (mountpoint) (node_filesystem_avail_bytes{{{FILES}}})",
                "{{mountpoint}}",
            ),
            shows="Bytes that are left on each file system.",
            normal="Flat, or a saw as blocks are compacted.",
            act="A straight slope downwards: HostDiskFilling fires when it would end within a day.",
            unit="bytes",
        ),
    ),
)

_CACHE: Final = Section(
    "Why? The cache and the server behind it",
    (
        graph(
            "Cache reads by result",
            over_time(
                rate("cache_requests_total", "result", where=CACHE, window=ZOOM),
                "{{result}}",
            ),
            shows="Reads of the service's cache a second, by result.",
            normal="Mostly hits, no errors.",
            act="Errors: CacheErrors fires above 5 %; each request asks the database instead.",
            unit="ops",
            stacked=True,
            colours=OUTCOMES,
        ),
        graph(
            "Cache operations, p95",
            over_time(
                quantile(
                    0.95, "cache_operation_duration_seconds", "operation", where=CACHE, window=ZOOM
                ),
                "{{operation}}",
            ),
            shows="95 of 100 operations of the cache are shorter, the network to it included.",
            normal="Below 5 ms.",
            act=(
                "Slow: is the server busy (commands, to the right), or the event loop (dashboard "
                "API)?"
            ),
            unit="s",
        ),
        graph(
            "Redis: memory and limit",
            over_time(f"sum by (instance) (redis_memory_used_bytes{{{REDIS}}})", "used"),
            over_time(f"sum by (instance) (redis_memory_max_bytes{{{REDIS}}})", "limit"),
            shows="Memory in use, and `maxmemory`; a limit of 0 is none.",
            normal="Used far below the limit.",
            act=(
                "At the limit keys are evicted: sessions first, which sends their reads to the "
                "database."
            ),
            unit="bytes",
            colours={"^limit$": CRITICAL, "^used$": NEUTRAL},
        ),
        graph(
            "Redis: commands",
            over_time(rate("redis_commands_processed_total", where=REDIS, window=ZOOM), "commands"),
            shows="Commands a second: cache, rate limits and queue together.",
            normal="A few for each request.",
            act="A multiple without more requests: a loop, or another client.",
            unit="ops",
            height=10,
        ),
        graph(
            "Redis: evicted, expired keys",
            over_time(rate("redis_evicted_keys_total", where=REDIS, window=ZOOM), "evicted"),
            over_time(rate("redis_expired_keys_total", where=REDIS, window=ZOOM), "expired"),
            shows="Keys a second that went because they were over, or because there was no room.",
            normal="Expired: some. Evicted: none.",
            act="Evicted: give it more memory, or keep less.",
            unit="ops",
            colours={"evicted": WARNING, "expired": GOOD},
            height=10,
        ),
        states(
            "Is everything reached?",
            over_time("min by (job) (up)", "{{job}}"),
            over_time(f"min(redis_up{{{REDIS}}})", "Redis, to its exporter"),
            over_time('min(dependency_up{job="api",dependency="cache"})', "Cache, to the API"),
            over_time(
                'min by (job) (dependency_up{job=~"api|worker",dependency="disk"})',
                "Room on disk, to the {{job}}",
            ),
            shows=(
                "Whether Prometheus could scrape all targets of each job, and whether Redis, cache "
                "and disk are there to those who need them."
            ),
            normal="All of them.",
            act=(
                "HostDown, RedisDown, CacheDown, ServiceDiskLow, ExporterDown and others fire for "
                "what is not."
            ),
            texts=DOWN_OR_UP,
            height=10,
        ),
    ),
)

_PROCESSES: Final = Section(
    "Why? Each process, certificates, backups",
    (
        grid(
            "Processes",
            rows(rate("process_cpu_seconds_total", "job, instance", where=PROCESSES, window=SHOWN)),
            rows(f"max by (job, instance) (process_resident_memory_bytes{{{PROCESSES}}})"),
            rows(
                f"max by (job, instance) (process_open_fds{{{PROCESSES}}}) / "
                f"(max by (job, instance) (process_max_fds{{{PROCESSES}}}) > 0)"
            ),
            rows(f"time() - max by (job, instance) (process_start_time_seconds{{{PROCESSES}}})"),
            shows=(
                "Cores and memory of each process, its share of the open files that it may have, "
                "and its age."
            ),
            normal="Descriptors far below 80 %; ages of days.",
            act="A young process has restarted: the end of its predecessor's log says why.",
            labels={"job": "Job", "instance": "Instance"},
            widths={"Job": 130},
            columns=[
                Column("Cores", "short", above(warning=0.7, critical=0.95), decimals=2, width=65),
                Column("Memory", "bytes", decimals=0, width=85),
                Column(
                    "Descriptors",
                    "percentunit",
                    above(warning=0.5, critical=0.8),
                    decimals=1,
                    width=105,
                ),
                Column("Age", "s", decimals=0, width=80),
            ],
            sorted_by="Memory",
            height=10,
            links=[from_row("infrastructure", "Only this job", {"job": "Job"})],
        ),
        graph(
            "Memory of our processes",
            over_time(
                "max by (job, instance) (process_resident_memory_bytes{"
                'job=~"api|worker|payment-provider|synthetic"})',
                "{{job}} {{instance}}",
            ),
            shows="Memory in RAM of the service's processes.",
            normal="Flat after the first minutes.",
            act="A slope of hours: ProcessMemoryGrowing fires; `/debug/memory` says what grew.",
            unit="bytes",
            width=12,
            height=10,
        ),
        bars(
            "Certificates: time left",
            now(
                'sort(min by (instance) (probe_ssl_earliest_cert_expiry{job="blackbox"}) - time())',
                "{{instance}}",
            ),
            shows=(
                "How long the certificates of the watched addresses are still good, as customers "
                "see them."
            ),
            normal="More than three weeks.",
            act=(
                "Renew: CertificateExpiresSoon fires at three weeks, CertificateExpiresVerySoon at "
                "three days."
            ),
            unit="s",
            steps=below(warning=1_814_400, critical=259_200),
            width=6,
            height=6,
            quiet="without https there is no certificate; targets/tls.yml names addresses",
            empty="no https here",
        ),
        states(
            "Seen from outside",
            over_time('min by (probe) (probe_success{job="blackbox"})', "{{probe}}"),
            shows="Whether each page is as it should be when asked from another machine.",
            normal="All of them.",
            act="ProbeFailing fires: the page of the probe (`&debug=true`) says what it saw.",
            width=6,
            texts={"0": ("failed", CRITICAL), "1": ("good", GOOD)},
        ),
        figure(
            "Since last backup",
            over_time('time() - max(backup_last_success_timestamp_seconds{job="node"})', "age"),
            shows=(
                "How long ago the last backup was complete, as `python -m deploy.backup` left word."
            ),
            normal="Below a day.",
            act="Above 26 hours BackupMissing fires: run it, and find out why it was not run.",
            unit="s",
            steps=above(warning=86_400, critical=93_600),
            width=4,
            height=6,
            quiet=NO_BACKUP,
            empty="no backup yet",
        ),
        figure(
            "Last backup attempt",
            now('min(backup_last_attempt_success{job="node"})', "attempt"),
            shows="Whether the last attempt to make a backup succeeded.",
            normal="It did.",
            act="BackupFailed fires: the command's last lines say why.",
            unit="none",
            steps=plain(),
            texts={"0": ("failed", CRITICAL), "1": ("good", GOOD)},
            width=4,
            height=6,
            sparkline=False,
            quiet=NO_BACKUP,
            empty="no backup yet",
        ),
        graph(
            "Size of backups",
            over_time('max by (instance) (backup_size_bytes{job="node"})', "{{instance}}"),
            shows="How large the newest backup is.",
            normal="It grows with the data.",
            act="Half of what it was: BackupShrunk fires.",
            unit="bytes",
            width=4,
            height=6,
            legend="none",
            quiet=NO_BACKUP,
        ),
    ),
)

BOARD: Final = Board(
    name="infrastructure",
    title="Infrastructure",
    asks="Does what the service stands on have room left?",
    reading=(
        "For each resource: how much is used, how long one waits for it, what failed. The machine first, "
        "then the cache and its server, then each process; the database has a dashboard of its own."
    ),
    sections=(_HEALTH, _CHANGED, _CACHE, _PROCESSES),
    variables=(
        environment(),
        exporter_instance("node|redis"),
        label_values(
            "job",
            "Job",
            "process_start_time_seconds",
            of="job",
            description="Which processes the table shows.",
        ),
        label_values(
            "cache",
            "Cache",
            'cache_requests_total{job="api"}',
            of="cache",
            description="Which of the service's caches.",
        ),
    ),
    neighbours=(
        ("overview", "Overview"),
        ("database", "Database"),
        ("api", "API"),
        ("telemetry-cost", "Telemetry"),
    ),
    explore=(explore_logs(LOGS), explore_traces("glasshouse")),
)
