"""The machines and servers below: host, PostgreSQL and Redis, from their exporters.

Names are those of node_exporter 1.5 and later, postgres_exporter 0.11 and later, redis_exporter 1.45 and
later. What the exporters call a server differs between versions: sums go by the scrape's instance.
"""

from typing import Final

from monitoring.build.model import Group, Record
from monitoring.build.records.expressions import rate, share

NODE: Final = 'job="node"'
POSTGRES: Final = 'job="postgres"'
DATABASES: Final = f'{POSTGRES},datname!~"|template.*"'
REDIS: Final = 'job="redis"'
DISKS: Final = f'{NODE},fstype!~"tmpfs|ramfs|overlay|squashfs"'
CARDS: Final = f'{NODE},device!~"lo|veth.*|docker.*|br-.*"'

_HOST: Final = (
    Record(
        "instance:node_cpu_used:ratio_rate5m",
        "1 - avg by (instance)"
        f' (sum without (mode) (rate(node_cpu_seconds_total{{{NODE},mode=~"idle|iowait"}}[5m])))',
        "Share (0 to 1) of the host's CPU time that is used.",
    ),
    Record(
        "instance:node_load1_per_cpu:ratio",
        f"max by (instance) (node_load1{{{NODE}}})"
        f' / count by (instance) (node_cpu_seconds_total{{{NODE},mode="idle"}})',
        "Processes per CPU that run or want to.",
    ),
    Record(
        "instance:node_memory_used:ratio",
        f"1 - max by (instance) (node_memory_MemAvailable_bytes{{{NODE}}})"
        f" / max by (instance) (node_memory_MemTotal_bytes{{{NODE}}})",
        "Share (0 to 1) of the host's memory that is not available.",
    ),
    Record(
        "instance_mountpoint:node_filesystem_used:ratio",
        f"1 - max by (instance, mountpoint) (node_filesystem_avail_bytes{{{DISKS}}})"
        f" / (max by (instance, mountpoint) (node_filesystem_size_bytes{{{DISKS}}}) > 0)",
        "Share (0 to 1) of a file system that is not free for everybody.",
    ),
    Record(
        "instance_device:node_disk_io_time:rate5m",
        rate("node_disk_io_time_seconds_total", "instance, device", where=NODE),
        "Share (0 to 1) of the time in which a disk was busy.",
    ),
    *(
        Record(
            f"instance:node_network_{direction}_bytes:rate5m",
            rate(f"node_network_{direction}_bytes_total", "instance", where=CARDS),
            f"Bytes per second that the host did {direction}.",
        )
        for direction in ("receive", "transmit")
    ),
)

_POSTGRES: Final = (
    Record(
        "instance:pg_connections_used:ratio",
        f"sum by (instance) (pg_stat_activity_count{{{POSTGRES}}})"
        f" / max by (instance) (pg_settings_max_connections{{{POSTGRES}}})",
        "Share (0 to 1) of the connections that the PostgreSQL server allows.",
    ),
    Record(
        "instance_datname:pg_transactions:rate5m",
        f"{rate('pg_stat_database_xact_commit', 'instance, datname', where=DATABASES)}"
        f" + {rate('pg_stat_database_xact_rollback', 'instance, datname', where=DATABASES)}",
        "Transactions per second of a database, rolled back ones included.",
    ),
    Record(
        "instance_datname:pg_blocks_hit:ratio_rate5m",
        share(
            rate("pg_stat_database_blks_hit", "instance, datname", where=DATABASES),
            f"({rate('pg_stat_database_blks_hit', 'instance, datname', where=DATABASES)}"
            f" + {rate('pg_stat_database_blks_read', 'instance, datname', where=DATABASES)})",
            "instance, datname",
        ),
        "Share (0 to 1) of the blocks that PostgreSQL had in memory.",
    ),
    Record(
        "instance_datname:pg_database_size_bytes:max",
        f"max by (instance, datname) (pg_database_size_bytes{{{DATABASES}}})",
        "Bytes of a database on disk.",
    ),
)

_REDIS: Final = (
    Record(
        "instance:redis_memory_used:ratio",
        f"max by (instance) (redis_memory_used_bytes{{{REDIS}}})"
        f" / (max by (instance) (redis_memory_max_bytes{{{REDIS}}}) > 0)",
        "Share (0 to 1) of `maxmemory` that is used; nothing where no limit is set.",
    ),
    Record(
        "instance:redis_commands:rate5m",
        rate("redis_commands_processed_total", "instance", where=REDIS),
        "Commands per second.",
    ),
    Record(
        "instance:redis_evicted_keys:rate5m",
        rate("redis_evicted_keys_total", "instance", where=REDIS),
        "Keys per second thrown out to make room.",
    ),
)

GROUPS: Final = (Group("servers", (*_HOST, *_POSTGRES, *_REDIS)),)
