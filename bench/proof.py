"""Whether what was measured worked: a service that logs nothing and traces nothing would look good.

After the run, each server's log lines, the spans that the receiver has got and the count on its own page of
metrics are compared with the number of requests that were sent to it.
"""

import math
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from bench.process import ServerProcess
from bench.variants import VARIANTS

COUNTS_REQUESTS: Final = ("sampling_", "only_metrics", "typical")
"""How the names of variants begin that count requests."""
SEES_SCRAPES: Final = "typical"
"""How the names of those begin that log and trace the request for that page, too; it is made once."""
SURELY: Final = 5.0
"""Standard deviations: one honest run in a million is farther off."""


@dataclass(frozen=True, slots=True)
class Evidence:
    """What one server has left behind, beside what it was asked."""

    asked: int
    access_lines: int
    traced: int
    counted: int | None
    """By http_requests_total; None where the page has no such counter."""


def counted_requests(server: ServerProcess) -> int | None:
    """Return the requests that the server's page of metrics counts, of the measured routes; None without."""
    if not server.name.startswith(COUNTS_REQUESTS):
        return None
    url = f"http://127.0.0.1:{server.port}/metrics"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return count(answer.read().decode())


def count(page: str) -> int:
    """Return the sum of http_requests_total over the routes that are measured."""
    total = 0.0
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == "http_requests_total" and _is_measured(sample.labels["handler"]):
                total += sample.value
    return int(total)


def _is_measured(handler: str) -> bool:
    return handler.startswith(("/bench/", "/v1/orders"))


def evidence(
    servers: Mapping[str, ServerProcess],
    counted: Mapping[str, int | None],
    received: Mapping[str, int],
) -> dict[str, Evidence]:
    """Collect it, when the servers have ended and so have sent all that they had."""
    return {
        name: Evidence(
            server.asked,
            server.access_lines,
            received.get(f"{name}/requests", 0),
            counted.get(name),
        )
        for name, server in servers.items()
    }


def complaints(name: str, left: Evidence) -> list[str]:
    """Return a sentence for everything that is not as it must be."""
    variant = VARIANTS[name]
    seen = left.asked + name.startswith(SEES_SCRAPES)
    said = []
    if left.access_lines != seen * variant.lines:
        said.append(f"{name} has logged {left.access_lines} of {seen * variant.lines} access lines")
    if name.startswith(COUNTS_REQUESTS) and left.counted != left.asked:
        said.append(
            f"{name} has counted {left.counted} of {left.asked} requests in http_requests_total"
        )
    expected = seen * variant.spans
    allowed = SURELY * math.sqrt(expected * (1 - variant.spans))
    if abs(left.traced - expected) > allowed:
        about = f"{expected:.0f}" + (f" ±{allowed:.0f}" if allowed else "")
        said.append(f"{name} has traced {left.traced} of {seen} requests, not {about}")
    return said
