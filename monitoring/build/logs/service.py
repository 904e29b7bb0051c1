"""What our processes say, or say no more, and no counter counts."""

from typing import Final

from monitoring.build.logs.model import Alarming, Harmless, Line, LogAlert

_OURS: Final = '{service_name=~"glasshouse.*"}'
_LAST_WORDS: Final = (
    r"^(Fatal Python error|Traceback \(most recent call last\)|MemoryError|Segmentation fault)"
)
"""At the beginning of a line: what our own logging writes begins with a brace."""


def _library(level: str, times: int, logger: str = "asyncio") -> Line:
    fields = {"type": "library", "level": level, "logger": logger, "message": "it went wrong"}
    return Line("glasshouse", fields, times=times)


_CRITICAL: Final = LogAlert(
    name="CriticalLogLine",
    expr=f'sum by (service_name, logger) (count_over_time({_OURS} | level="CRITICAL" [5m])) > 0',
    severity="warning",
    component="api",
    summary="A process wrote a line at CRITICAL: something says that it cannot go on.",
    description='{{ $labels.logger }} of {{ $labels.service_name }} said so {{ $value | printf "%.0f" }}'
    " times in the last <5m>; it should be never.",
    dashboard="api",
    logs=f'{_OURS} | level="CRITICAL"',
    reason="Levels are not counted, and none of our own lines is CRITICAL: it is a library that gives up.",
    alarming=(
        Alarming(
            lines=(_library("CRITICAL", 2),),
            labels={"service_name": "glasshouse", "logger": "asyncio"},
            value="2",
        ),
    ),
    harmless=(
        Harmless(why="an error is no end", lines=(_library("ERROR", 3),)),
        Harmless(
            why="the word stands in a sentence",
            lines=(
                Line(
                    "glasshouse",
                    {"type": "application", "level": "INFO", "message": "level CRITICAL is known"},
                ),
            ),
        ),
    ),
)

_LIBRARY: Final = LogAlert(
    name="LibraryErrors",
    expr=f"""
        sum by (service_name, logger) (
          count_over_time({_OURS} | type=~"library|application" | level="ERROR" [10m])
        ) >= 5
    """,
    severity="warning",
    component="api",
    depends_on=("database", "broker", "cache", "payment_provider"),
    summary="A library reports errors again and again.",
    description='{{ $labels.logger }} of {{ $labels.service_name }} wrote {{ $value | printf "%.0f" }} errors'
    " in the last <10m>; below 5 is usual.",
    dashboard="api",
    logs=f'{_OURS} | type=~"library|application" | level="ERROR"',
    reason="What a library catches itself and only logs raises no exception, and moves no counter of ours.",
    alarming=(
        Alarming(
            lines=(_library("ERROR", 4), _library("ERROR", 6, "aiohttp.server")),
            labels={"service_name": "glasshouse", "logger": "aiohttp.server"},
            value="6",
        ),
    ),
    harmless=(
        Harmless(why="four are not five", lines=(_library("ERROR", 4),)),
        Harmless(why="warnings", lines=(_library("WARNING", 9),)),
        Harmless(
            why="a failed request has alerts of its own",
            lines=(
                Line(
                    "glasshouse",
                    {"type": "http_request", "level": "ERROR", "logger": "app", "status": 500},
                    times=9,
                ),
            ),
        ),
    ),
)

_CRASHED: Final = LogAlert(
    name="ProcessCrashed",
    expr=f"sum by (service_name) (count_over_time({_OURS} |~ `{_LAST_WORDS}` [5m])) > 0",
    severity="warning",
    component="api",
    summary="A process ended with a traceback that its own logging did not write.",
    description="{{ $labels.service_name }} wrote the beginning of"
    ' {{ $value | printf "%.0f" }} tracebacks or fatal errors in the last <5m>; it should be 0.',
    dashboard="api",
    logs=f"{_OURS} |~ `{_LAST_WORDS}`",
    reason="It died before metrics and error reports were set up, or in a way in which they could not go out:"
    " these are its last words.",
    alarming=(
        Alarming(
            lines=(Line("glasshouse-worker", text="Fatal Python error: Segmentation fault"),),
            labels={"service_name": "glasshouse-worker"},
            value="1",
        ),
        Alarming(
            lines=(Line("glasshouse", text="Traceback (most recent call last):"),),
            labels={"service_name": "glasshouse"},
            value="1",
        ),
    ),
    harmless=(
        Harmless(
            why="our logging wrote it, and it is counted",
            lines=(
                Line(
                    "glasshouse-worker",
                    {"type": "error", "level": "ERROR", "message": "Unhandled exception"},
                ),
            ),
        ),
        Harmless(
            why="what is printed at the start is no traceback",
            lines=(Line("glasshouse", text="warning: no .env file, defaults are used"),),
        ),
    ),
)

_DIED: Final = LogAlert(
    name="ServerProcessDied",
    expr=f"""
        sum by (service_name) (
          count_over_time({_OURS} | type="lifecycle"
            | message=~"a worker (died and was replaced|did not end: killed)" [15m])
        ) > 0
    """,
    severity="warning",
    component="api",
    summary="One of several processes of the API died or hung, and was replaced.",
    description='That happened {{ $value | printf "%.0f" }} times in the last <15m>; it should be 0. The'
    " requests that it had at hand were lost.",
    dashboard="api",
    logs=f'{_OURS} | type="lifecycle"',
    reason="The processes of one instance share a page of metrics: the instance stays up, and its start time"
    " is that of the first process.",
    alarming=(
        Alarming(
            lines=(
                Line(
                    "glasshouse",
                    {
                        "type": "lifecycle",
                        "level": "WARNING",
                        "message": "a worker died and was replaced",
                        "pid": 42,
                    },
                ),
            ),
            labels={"service_name": "glasshouse"},
            value="1",
        ),
    ),
    harmless=(
        Harmless(
            why="a deployment ends in order",
            lines=(
                Line(
                    "glasshouse",
                    {"type": "lifecycle", "level": "INFO", "message": "draining"},
                    times=3,
                ),
            ),
        ),
    ),
)


def _asked(payment: str, times: int) -> Line:
    return Line(
        "glasshouse-worker",
        {
            "type": "job",
            "level": "WARNING",
            "task": "reconcile",
            "subject_id": payment,
            "message": "the provider could not tell an outcome, it is asked again later",
        },
        times=times,
        age="10m",
    )


_STUCK: Final = LogAlert(
    name="PaymentOutcomeStuck",
    # A payment is asked about every 15 seconds, however fast time passes.
    expr="""
        count(
          sum by (subject_id) (
            count_over_time({service_name="glasshouse-worker"} | type="job" | task="reconcile"
              | message=~"the provider could not tell an outcome.*" [1h])
          ) >= $seconds(30m, 30s) / 15
        ) > 0
    """,
    severity="warning",
    component="business",
    depends_on=("payment_provider",),
    summary="The provider cannot tell for long what became of a payment or a refund.",
    description='{{ $value | printf "%.0f" }} payments or refunds have been asked about for more than <30m>'
    " of the last <1h> without an outcome; it should be 0.",
    dashboard="business",
    logs='{service_name="glasshouse-worker"} | type="job" | task="reconcile"',
    reason="Metrics know how many wait (PaymentsPendingHigh), and no id: that it is the same one all the time"
    " is in the lines only.",
    alarming=(Alarming(lines=(_asked("11111111", 120), _asked("22222222", 40)), value="1"),),
    harmless=(
        Harmless(
            why="many, but each for a short time",
            lines=tuple(_asked(f"{number:08}", 20) for number in range(8)),
        ),
    ),
)

_REFUND: Final = LogAlert(
    name="RefundFailed",
    expr="""
        sum(
          count_over_time({service_name=~"glasshouse|glasshouse-worker"} | type="business"
            | message="refund failed" [1h])
        ) > 0
    """,
    severity="warning",
    component="business",
    summary="A refund was promised, and the provider will not make it: the customer has to be told.",
    description='{{ $value | printf "%.0f" }} refunds failed for good in the last <1h>; it should be 0. Each'
    " line has its refund_id.",
    dashboard="business",
    logs='{service_name=~"glasshouse|glasshouse-worker"} | type="business" | message="refund failed"',
    reason="Only refunds that succeeded are counted, and what has to be done needs the id.",
    alarming=(
        Alarming(
            lines=(
                Line(
                    "glasshouse-worker",
                    {"type": "business", "level": "WARNING", "message": "refund failed"},
                ),
            ),
            value="1",
        ),
    ),
    harmless=(
        Harmless(
            why="nothing is decided yet",
            lines=(
                Line(
                    "glasshouse",
                    {
                        "type": "business",
                        "level": "WARNING",
                        "message": "refund outcome is unknown, reconciliation will settle it",
                    },
                ),
            ),
        ),
    ),
)


def _served(service: str, age: str) -> Line:
    return Line(
        service, {"type": "http_request", "level": "INFO", "message": "request served"}, age=age
    )


_SILENT: Final = LogAlert(
    name="LogsSilent",
    expr="""
        absent_over_time({service_name="glasshouse"}[30m])
        or
        absent_over_time({service_name="glasshouse-worker"}[30m])
    """,
    severity="warning",
    component="telemetry",
    wait="5m",
    depends_on=("api", "worker"),
    summary="A service that works has had no log line for long: its lines get lost on their way.",
    description="Nothing of {{ $labels.service_name }} has arrived in Loki for <30m> (absent is {{ $value"
    " }}). The synthetic journey alone makes a line every minute.",
    dashboard="telemetry-cost",
    logs=_OURS,
    reason="What is lost between standard output and Loki is counted by nobody who could be asked: the log"
    " driver drops it.",
    alarming=(
        Alarming(
            lines=(_served("glasshouse", "2m"), _served("glasshouse-worker", "40m")),
            labels={"service_name": "glasshouse-worker"},
            value="1",
        ),
    ),
    harmless=(
        Harmless(
            why="both were heard within half an hour",
            lines=(_served("glasshouse", "2m"), _served("glasshouse-worker", "25m")),
        ),
    ),
)

SERVICE: Final = (_CRITICAL, _LIBRARY, _CRASHED, _DIED, _STUCK, _REFUND, _SILENT)
