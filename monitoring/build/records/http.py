"""Rate, errors and duration of HTTP, by route and in all, for the API and the sandbox's payment provider.

A request is failed when it was answered with 5xx. 499 (the client left) is neither failed nor refused.
"""

from typing import Final

from monitoring.build.model import Group, Record
from monitoring.build.records.expressions import increase, or_zero, quantile, rate, share

SERVERS: Final = 'job=~"api|payment-provider"'
FAILED: Final = f'{SERVERS},status=~"5.."'
REFUSED: Final = f'{SERVERS},status=~"4..",status!="499"'

_LEVELS: Final = (("job_handler", "job, handler", "a route"), ("job", "job", "all routes"))


def _rates() -> tuple[Record, ...]:
    records: list[Record] = []
    for level, by, what in _LEVELS:
        total = f"{level}:http_requests:rate5m"
        records += [
            Record(
                total,
                rate("http_requests_total", by, where=SERVERS),
                f"Requests per second of {what}.",
            ),
            Record(
                f"{level}:http_requests_failed:rate5m",
                or_zero(rate("http_requests_total", by, where=FAILED), total, by),
                f"Requests per second of {what} that were answered with 5xx.",
            ),
            Record(
                f"{level}:http_requests_failed:ratio_rate5m",
                share(f"{level}:http_requests_failed:rate5m", total, by),
                f"Share (0 to 1) of the requests of {what} that were answered with 5xx.",
            ),
            Record(
                f"{level}:http_requests_refused:ratio_rate5m",
                share(rate("http_requests_total", by, where=REFUSED), total, by),
                f"Share (0 to 1) of the requests of {what} that were answered with 4xx.",
            ),
        ]
    return tuple(records)


def _counts() -> tuple[Record, ...]:
    total = "job:http_requests:increase5m"
    return (
        Record(
            "job_status:http_requests:rate5m",
            rate("http_requests_total", "job, status", where=SERVERS),
            "Requests per second by HTTP status.",
        ),
        Record(
            total,
            increase("http_requests_total", "job", where=SERVERS),
            "Requests in 5 minutes: whether a ratio has enough of them to mean something.",
        ),
        Record(
            "job:http_requests_failed:increase5m",
            or_zero(increase("http_requests_total", "job", where=FAILED), total, "job"),
            "Requests in 5 minutes that were answered with 5xx.",
        ),
    )


def _durations() -> tuple[Record, ...]:
    return tuple(
        Record(
            f"{level}:http_request_duration_seconds:p{rank * 100:g}_5m",
            quantile(rank, "http_request_duration_seconds", by, where=SERVERS),
            f"Seconds within which {rank:.0%} of the requests of {what} were answered.",
        )
        for level, by, what in _LEVELS
        for rank in (0.5, 0.95, 0.99)
    )


def _load() -> tuple[Record, ...]:
    return (
        Record(
            "job:http_requests_in_progress:sum",
            f"sum by (job) (http_requests_in_progress{{{SERVERS}}})",
            "Requests that are being served, by all processes of a job.",
        ),
        Record(
            "job_handler:http_request_size_bytes:p95_5m",
            quantile(0.95, "http_request_size_bytes", "job, handler", where=SERVERS),
            "Bytes within which 95% of the bodies of requests of a route are.",
        ),
        Record(
            "job_handler:http_response_size_bytes:p95_5m",
            quantile(0.95, "http_response_size_bytes", "job, handler", where=SERVERS),
            "Bytes within which 95% of the bodies of answers of a route are.",
        ),
    )


GROUPS: Final = (Group("http", (*_rates(), *_counts(), *_durations(), *_load())),)
