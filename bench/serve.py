"""One server process to be measured: `python -m bench.serve VARIANT PORT`, settings from the environment.

BENCH_EXTRA, in JSON, names what it has beyond its variant: {"routes": 200, "series": 5000, "fault": true}.
With WEB_CONCURRENCY several processes serve, as they do in the service.
"""

import json
import os
import sys
from typing import Any, Final

from fastapi import FastAPI
from prometheus_client import Histogram

from app.server import serve, serve_with_workers
from app.settings import Settings
from bench.memory import stay
from bench.variants import VARIANTS

EXTRA: Final = "BENCH_EXTRA"
SERIES_OF_A_HISTOGRAM: Final = 15
_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_HOST: Final = "127.0.0.1"
_GRACEFUL_SECONDS: Final = 2


def create() -> FastAPI:
    """Return the variant that the command line names, with what BENCH_EXTRA adds."""
    stay()
    extra: dict[str, Any] = json.loads(os.environ.get(EXTRA, "{}"))
    variant = VARIANTS[sys.argv[1]]
    app = variant.create(Settings(_env_file=None), routes=extra.get("routes", variant.routes))
    if series := extra.get("series", 0):
        _register_series(series)
    if extra.get("fault"):
        app.add_api_route("/bench/fault", _fault)
    return app


def _register_series(number: int) -> None:
    """Make about so many series, of histograms as nearly all of the service's are."""
    histogram = Histogram(
        "bench_extra_duration_seconds",
        "Nothing's duration: it is there to be scraped.",
        ["handler", "result"],
        buckets=_BUCKETS,
    )
    for one in range(max(1, number // SERIES_OF_A_HISTOGRAM)):
        histogram.labels(f"/v1/things/{one}/parts/{{part_id}}", "succeeded").observe(0.001 * one)


async def _fault() -> None:
    raise RuntimeError("a fault that was asked for")


def main() -> None:
    """Serve until SIGTERM."""
    port, workers = int(sys.argv[2]), Settings(_env_file=None).web_concurrency
    if workers > 1:
        serve_with_workers(
            "bench.serve:create",
            workers=workers,
            host=_HOST,
            port=port,
            graceful_seconds=_GRACEFUL_SECONDS,
        )
    serve(create(), host=_HOST, port=port, graceful_seconds=_GRACEFUL_SECONDS)


if __name__ == "__main__":
    main()
