"""Hosts and processes: what runs out, what has gone.

Presumes the jobs `node`, `postgres`, `redis` and `blackbox`; without one there are no series, and nothing
fires for it. All warnings: what customers notice of them has alerts of its own, which wake people.
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Group, Silent

_DISK: Final = 'job="node",fstype!~"tmpfs|devtmpfs|ramfs|overlay|squashfs|iso9660|fuse.+"'
_FREE: Final = (
    f"max by (instance, device, mountpoint) (node_filesystem_avail_bytes{{{_DISK}}})"
    f" / max by (instance, device, mountpoint) (node_filesystem_size_bytes{{{_DISK}}})"
)
_HOST: Final = {"instance": "h"}
_ROOT: Final = '{job="node",instance="h",device="/dev/vda",fstype="ext4",mountpoint="/"}'
_AVAILABLE: Final = f"node_filesystem_avail_bytes{_ROOT}"
_SIZE: Final = f"node_filesystem_size_bytes{_ROOT}"
_READ_ONLY: Final = f"node_filesystem_readonly{_ROOT}"
_ROOT_LABELS: Final = {**_HOST, "device": "/dev/vda", "mountpoint": "/"}
_IDLE: Final = 'node_cpu_seconds_total{job="node",instance="h",cpu="0",mode="idle"}'
_WAITING: Final = 'node_cpu_seconds_total{job="node",instance="h",cpu="0",mode="iowait"}'
_MEMORY: Final = 'node_memory_MemAvailable_bytes{job="node",instance="h"}'
_ALL_MEMORY: Final = 'node_memory_MemTotal_bytes{job="node",instance="h"}'
_API: Final = '{job="api",instance="a"}'
_UP: Final = 'up{job="%s",instance="%s"}'

_HOST_DOWN: Final = Alert(
    name="HostDown",
    expr='up{job="node"} == 0',
    severity="warning",
    component="infrastructure",
    wait="2m",
    summary="A host does not answer: it is down, cut off, or its exporter has ended.",
    description="The node exporter at {{ $labels.instance }} has not answered for <2m>"
    " (up is {{ $value }}; 1 is good).",
    dashboard="infrastructure",
    variables=("instance",),
    fires=(
        Fires(
            series={_UP % ("node", "h"): "1x5 0x10"},
            at="8m",
            labels={"job": "node", **_HOST},
            value="0",
        ),
    ),
    silent=(
        Silent(why="a minute is not two", series={_UP % ("node", "h"): "1x5 0x10"}, at="7m"),
        Silent(why="another job is down", series={_UP % ("loki", "l"): "0x10"}, at="8m"),
    ),
)

_CPU_HIGH: Final = Alert(
    name="HostCpuHigh",
    # Waiting for a disk is not work: it has its own reasons and remedies.
    expr="""
        1 - avg by (instance) (
          sum by (instance, cpu) (rate(node_cpu_seconds_total{job="node",mode=~"idle|iowait"}[5m]))
        ) > 0.9
    """,
    severity="warning",
    component="infrastructure",
    wait="15m",
    summary="The processors of a host have had no rest for <15m>.",
    description="On {{ $labels.instance }} {{ $value | humanizePercentage }} of the processors' time is"
    " used; it should be below 90 %.",
    dashboard="infrastructure",
    variables=("instance",),
    fires=(Fires(series={_IDLE: "0+3x40", _WAITING: "0x40"}, at="30m", labels=_HOST, value="95%"),),
    silent=(
        Silent(why="88 % is used", series={_IDLE: "0+7.2x40", _WAITING: "0x40"}, at="30m"),
        Silent(why="it waits for a disk", series={_IDLE: "0+3x40", _WAITING: "0+50x40"}, at="30m"),
        Silent(
            why="it has lasted for eight minutes",
            series={_IDLE: "0+57x10 570x30", _WAITING: "0x40"},
            at="22m",
        ),
    ),
)

_MEMORY_LOW: Final = Alert(
    name="HostMemoryLow",
    expr="""
        min by (instance) (node_memory_MemAvailable_bytes{job="node"})
        / min by (instance) (node_memory_MemTotal_bytes{job="node"}) < 0.1
    """,
    severity="warning",
    component="infrastructure",
    wait="5m",
    summary="A host has nearly no memory left; processes will be killed.",
    description="On {{ $labels.instance }} {{ $value | humanizePercentage }} of the memory is available;"
    " it should be above 10 %.",
    dashboard="infrastructure",
    variables=("instance",),
    fires=(
        Fires(
            series={_MEMORY: "1.44e9x20", _ALL_MEMORY: "16e9x20"},
            at="10m",
            labels=_HOST,
            value="9%",
        ),
    ),
    silent=(
        Silent(why="11 % is left", series={_MEMORY: "1.76e9x20", _ALL_MEMORY: "16e9x20"}, at="10m"),
        Silent(
            why="it has lasted for three minutes",
            series={_MEMORY: "8e9x5 8e8x20", _ALL_MEMORY: "16e9x30"},
            at="9m",
        ),
    ),
)

_DISK_FILLING: Final = Alert(
    name="HostDiskFilling",
    # Full, or, at the pace of the last hours, full within a day: a large disk at 20 % may have weeks.
    expr=f"""
        (
          {_FREE} < 0.1
          or
          (
            {_FREE} < 0.25
            and
            max by (instance, device, mountpoint) (
              predict_linear(node_filesystem_avail_bytes{{{_DISK}}}[6h], $seconds(1d))
            ) < 0
          )
        )
        unless
        max by (instance, device, mountpoint) (node_filesystem_readonly{{{_DISK}}}) == 1
    """,
    severity="warning",
    component="infrastructure",
    wait="15m",
    summary="A disk is full to nine tenths, or will be full within <1d>.",
    description="On {{ $labels.instance }} {{ $value | humanizePercentage }} of {{ $labels.mountpoint }}"
    " ({{ $labels.device }}) is free; it should be above 10 %, and not fall to 0 within <1d>.",
    dashboard="infrastructure",
    variables=("instance",),
    fires=(
        Fires(
            series={_AVAILABLE: "8e9x40", _SIZE: "100e9x40", _READ_ONLY: "0x40"},
            at="20m",
            labels=_ROOT_LABELS,
            value="8%",
        ),
        # It loses 1 % in 10 minutes: 20 % are gone in four hours.
        Fires(
            series={_AVAILABLE: "24e9-1e8x60", _SIZE: "100e9x60", _READ_ONLY: "0x60"},
            at="40m",
            labels=_ROOT_LABELS,
            value="20%",
        ),
    ),
    silent=(
        Silent(
            why="11 % are free, and nothing changes",
            series={_AVAILABLE: "11e9x40", _SIZE: "100e9x40", _READ_ONLY: "0x40"},
            at="30m",
        ),
        Silent(
            why="30 % are free, whatever the pace",
            series={_AVAILABLE: "34e9-1e8x60", _SIZE: "100e9x60", _READ_ONLY: "0x60"},
            at="40m",
        ),
        Silent(
            why="24 % are free, and last for days",
            series={_AVAILABLE: "24e9-1e6x60", _SIZE: "100e9x60", _READ_ONLY: "0x60"},
            at="40m",
        ),
        Silent(
            why="it has been full for nine minutes",
            series={_AVAILABLE: "50e9x5 8e9x40", _SIZE: "100e9x50", _READ_ONLY: "0x50"},
            at="15m",
        ),
        Silent(
            why="nobody can write there, and in memory fullness has another meaning",
            series={
                _AVAILABLE: "0x40",
                _SIZE: "100e9x40",
                _READ_ONLY: "1x40",
                _AVAILABLE.replace("ext4", "tmpfs").replace("vda", "shm"): "0x40",
                _SIZE.replace("ext4", "tmpfs").replace("vda", "shm"): "100e9x40",
            },
            at="30m",
        ),
    ),
)

_SERVICE_DISK_LOW: Final = Alert(
    name="ServiceDiskLow",
    expr='dependency_up{job=~"api|worker",dependency="disk"} == 0',
    severity="warning",
    component="infrastructure",
    wait="2m",
    summary="A process of the service has less than 100 MiB of disk left where it runs.",
    description="{{ $labels.instance }} ({{ $labels.job }}) has found its disk full for <2m>"
    " (dependency_up is {{ $value }}; 1 is good).",
    dashboard="infrastructure",
    variables=("instance",),
    logs='{service_name=~"glasshouse.*"} | type="health" | dependency="disk"',
    fires=(
        Fires(
            series={'dependency_up{job="api",instance="a",dependency="disk"}': "1x5 0x10"},
            at="8m",
            labels={"job": "api", "instance": "a", "dependency": "disk"},
            value="0",
        ),
    ),
    silent=(
        Silent(
            why="another dependency is down",
            series={'dependency_up{job="api",instance="a",dependency="database"}': "0x10"},
            at="8m",
        ),
        Silent(
            why="it has been full for a minute",
            series={'dependency_up{job="api",instance="a",dependency="disk"}': "1x5 0x10"},
            at="7m",
        ),
    ),
)

_DESCRIPTORS: Final = Alert(
    name="FileDescriptorsHigh",
    expr="""
        max by (job, instance) (process_open_fds{job=~".+"})
        / max by (job, instance) (process_max_fds{job=~".+"}) > 0.8
    """,
    severity="warning",
    component="infrastructure",
    wait="5m",
    summary="A process nears the limit of open files and connections.",
    description="{{ $labels.instance }} ({{ $labels.job }}) has used {{ $value | humanizePercentage }} of"
    " the file descriptors it may open; it should be below 80 %.",
    dashboard="infrastructure",
    variables=("instance",),
    fires=(
        Fires(
            series={f"process_open_fds{_API}": "922x20", f"process_max_fds{_API}": "1024x20"},
            at="10m",
            labels={"job": "api", "instance": "a"},
            value="90.04%",
        ),
    ),
    silent=(
        Silent(
            why="79 % are open",
            series={f"process_open_fds{_API}": "809x20", f"process_max_fds{_API}": "1024x20"},
            at="10m",
        ),
        Silent(
            why="it was a burst of four minutes",
            series={
                f"process_open_fds{_API}": "90x4 922x4 90x20",
                f"process_max_fds{_API}": "1024x30",
            },
            at="9m",
        ),
    ),
)

_RSS: Final = 'process_resident_memory_bytes{job=~"api|worker"}'

_MEMORY_GROWING: Final = Alert(
    name="ProcessMemoryGrowing",
    # Half as much again in three hours, 200 MB at least, and still growing. A young process warms up.
    expr=f"""
        max by (job, instance) ({_RSS}) - max by (job, instance) ({_RSS} offset 3h) > 200e6
        and
        max by (job, instance) ({_RSS}) > 1.5 * max by (job, instance) ({_RSS} offset 3h)
        and
        max by (job, instance) (deriv({_RSS}[1h])) > 0
        and
        time() - max by (job, instance) (process_start_time_seconds{{job=~"api|worker"}})
        > $seconds(4h)
    """,
    severity="warning",
    component="infrastructure",
    wait="30m",
    summary="A process needs more and more memory: something in it leaks.",
    description="{{ $labels.instance }} ({{ $labels.job }}) has grown by {{ $value | humanize1024 }}B in"
    " <3h>, to more than one and a half times of what it was.",
    dashboard="infrastructure",
    variables=("instance",),
    fires=(
        Fires(
            series={
                f"process_resident_memory_bytes{_API}": "2e8+6990506.666666667x60",
                f"process_start_time_seconds{_API}": "-7200x60",
            },
            at="225m",
            labels={"job": "api", "instance": "a"},
            value="240Mi",
            interval="5m",
        ),
    ),
    silent=(
        Silent(
            why="it grows by a third",
            series={
                f"process_resident_memory_bytes{_API}": "1e9+9e6x60",
                f"process_start_time_seconds{_API}": "-7200x60",
            },
            at="225m",
            interval="5m",
        ),
        Silent(
            why="180 MB are not worth a look",
            series={
                f"process_resident_memory_bytes{_API}": "5e7+5e6x60",
                f"process_start_time_seconds{_API}": "-7200x60",
            },
            at="225m",
            interval="5m",
        ),
        Silent(
            why="it has lasted for twenty minutes",
            series={
                f"process_resident_memory_bytes{_API}": "2e8+1e7x60",
                f"process_start_time_seconds{_API}": "-7200x60",
            },
            at="200m",
            interval="5m",
        ),
        Silent(
            why="it is young",
            series={
                f"process_resident_memory_bytes{_API}": "2e8+1e7x60",
                f"process_start_time_seconds{_API}": "0x60",
            },
            at="225m",
            interval="5m",
        ),
        Silent(
            why="it grew once, and has stood since",
            series={
                f"process_resident_memory_bytes{_API}": "2e8x10 6e8x50",
                f"process_start_time_seconds{_API}": "-7200x60",
            },
            at="225m",
            interval="5m",
        ),
    ),
)

_EXPORTER_DOWN: Final = Alert(
    name="ExporterDown",
    # Of blackbox each probed address is a target: one alert for the exporter, when none of them is answered.
    expr="""
        min by (job, instance) (up{job=~"postgres|redis"}) == 0
        or
        max by (job) (up{job="blackbox"}) == 0
    """,
    severity="warning",
    component="telemetry",
    wait="3m",
    summary="An exporter does not answer, so what it watches is not seen.",
    description="The exporter of {{ $labels.job }} has not answered for <3m> (up is {{ $value }};"
    " 1 is good). What it watches may be well.",
    dashboard="infrastructure",
    variables=("job",),
    fires=(
        Fires(
            series={_UP % ("postgres", "p"): "1x5 0x10", _UP % ("redis", "r"): "1x15"},
            at="9m",
            labels={"job": "postgres", "instance": "p"},
            value="0",
        ),
        Fires(
            series={
                _UP % ("blackbox", "http://app:8000/"): "0x15",
                _UP % ("blackbox", "http://app:8000/docs"): "0x15",
            },
            at="9m",
            labels={"job": "blackbox"},
            value="0",
        ),
    ),
    silent=(
        Silent(
            why="one of the probed addresses is slow",
            series={
                _UP % ("blackbox", "http://app:8000/"): "0x15",
                _UP % ("blackbox", "http://app:8000/docs"): "1x15",
            },
            at="9m",
        ),
        Silent(why="two minutes are not three", series={_UP % ("redis", "r"): "1x5 0x9"}, at="8m"),
    ),
)

GROUPS: tuple[Group, ...] = (
    Group("hosts", (_HOST_DOWN, _CPU_HIGH, _MEMORY_LOW, _DISK_FILLING)),
    Group("processes", (_SERVICE_DISK_LOW, _DESCRIPTORS, _MEMORY_GROWING, _EXPORTER_DOWN)),
)
