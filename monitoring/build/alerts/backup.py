"""Backups, by what `python -m deploy.backup` leaves for the node exporter's textfile collector.

Presumes the job `node`, and a backup every night: whoever scrapes a host and makes no backups is told after
26 hours, once a day being what a loss may cost. Hours are real ones in the demonstration, too, since
backups are made in real time.
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Group, Silent

_HOUR: Final = 3_600
_PATIENCE: Final = 26 * _HOUR
"""A night and two hours: the backup may take longer on one day than on the other."""
_SUCCESS: Final = 'backup_last_success_timestamp_seconds{job="node",instance="h"}'
_START: Final = 'process_start_time_seconds{job="node",instance="h"}'
_RESULT: Final = 'backup_last_attempt_success{job="node",instance="h"}'
_SIZE: Final = 'backup_size_bytes{job="node",instance="h"}'

_MISSING: Final = Alert(
    name="BackupMissing",
    # Never made: the exporter that would tell of it has been there for as long. 0 stands for never, too.
    expr=f"""
        time() - (max(backup_last_success_timestamp_seconds{{job="node"}}) != 0) > {_PATIENCE}
        or
        (
          time() - min(process_start_time_seconds{{job="node"}}) > {_PATIENCE}
          unless on ()
          backup_last_success_timestamp_seconds{{job="node"}} != 0
        )
    """,
    severity="critical",
    component="backup",
    wait="10m",
    depends_on=("database",),
    summary="There is no backup of the last 26 hours.",
    description="The newest backup of the database is {{ $value | humanizeDuration }} old, or there has"
    " been none for so long; it should be below 26 hours.",
    dashboard="infrastructure",
    logs='{service_name=~"glasshouse.*"} | level=~"ERROR|CRITICAL"',
    fires=(
        Fires(series={_SUCCESS: f"{1200 - 27 * _HOUR}x30"}, at="20m", value="1d 3h 0m 0s"),
        # There never was one.
        Fires(series={_START: f"{1200 - 27 * _HOUR}x30"}, at="20m", value="1d 3h 0m 0s"),
        # The first ones failed: 0 is no time.
        Fires(
            series={_START: f"{1200 - 27 * _HOUR}x30", _SUCCESS: "0x30"},
            at="20m",
            value="1d 3h 0m 0s",
        ),
    ),
    silent=(
        Silent(
            why="it is 25 hours old, and another host never made one",
            series={
                _SUCCESS: f"{1200 - 25 * _HOUR}x30",
                _SUCCESS.replace('"h"', '"other"'): "-1e9x30",
                _START: f"{1200 - 99 * _HOUR}x30",
            },
            at="20m",
        ),
        Silent(
            why="the host has been watched for 25 hours only",
            series={_START: f"{1200 - 25 * _HOUR}x30"},
            at="20m",
        ),
        Silent(
            why="no host is watched here", series={'up{job="api",instance="a"}': "1x30"}, at="20m"
        ),
        Silent(
            why="the late one may be made within ten minutes",
            series={_SUCCESS: f"{1200 - 27 * _HOUR}x20"},
            at="9m",
        ),
    ),
)

_FAILED: Final = Alert(
    name="BackupFailed",
    expr='backup_last_attempt_success{job="node"} == 0',
    severity="warning",
    component="backup",
    wait="5m",
    depends_on=("database",),
    summary="The last attempt to make a backup failed.",
    description="On {{ $labels.instance }} the last attempt left no verified backup"
    " (backup_last_attempt_success is {{ $value }}; 1 is good). The backups before it are still there.",
    dashboard="infrastructure",
    variables=("instance",),
    fires=(
        Fires(
            series={_RESULT: "1x5 0x20"},
            at="15m",
            labels={"job": "node", "instance": "h"},
            value="0",
        ),
    ),
    silent=(
        Silent(why="it was made", series={_RESULT: "1x20"}, at="15m"),
        Silent(why="it may be repeated at once", series={_RESULT: "1x5 0x20"}, at="9m"),
    ),
)

_SHRUNK: Final = Alert(
    name="BackupShrunk",
    expr="""
        max by (instance) (backup_size_bytes{job="node"})
        / max by (instance) (max_over_time(backup_size_bytes{job="node"}[7d])) < 0.5
        and
        max by (instance) (max_over_time(backup_size_bytes{job="node"}[7d])) > 1e6
    """,
    severity="warning",
    component="backup",
    wait="5m",
    summary="The newest backup is less than half as large as the largest of the last <7d>.",
    description="The backup on {{ $labels.instance }} has {{ $value | humanizePercentage }} of the size"
    " of the largest one in <7d>; it should be above 50 %.",
    dashboard="infrastructure",
    variables=("instance",),
    fires=(
        Fires(
            series={_SIZE: "1200000x5 480000x20"},
            at="15m",
            labels={"instance": "h"},
            value="40%",
        ),
    ),
    silent=(
        Silent(why="it is 60 %", series={_SIZE: "5000000x5 3000000x20"}, at="15m"),
        Silent(why="it may be made anew", series={_SIZE: "5000000x5 2000000x20"}, at="9m"),
        Silent(
            why="a database without customers varies",
            series={_SIZE: "900000x5 360000x20"},
            at="15m",
        ),
    ),
)

GROUPS: tuple[Group, ...] = (Group("backup", (_MISSING, _FAILED, _SHRUNK)),)
