"""Jaeger: is the journey there, as one trace of all who took part, and does a graph lead to a trace?"""

from typing import Final

from deploy.stack.backends.app import App
from deploy.stack.backends.jaeger import Jaeger
from deploy.stack.backends.prometheus import Prometheus
from deploy.stack.doctor.checks.metrics import EXEMPLARS
from deploy.stack.doctor.checks.service import JOURNEY, WORKER
from deploy.stack.doctor.examination import Check
from deploy.stack.doctor.findings import Failed, listed
from deploy.stack.doctor.house import Deadline, House

_REQUESTS: Final = "http_request_duration_seconds_bucket"


def _has(house: House, deadline: Deadline, *services: str) -> str:
    jaeger, trace_id = house.ask(Jaeger), house.travelled().ids.trace_id
    found: set[str] = set()

    def look() -> bool:
        trace = jaeger.trace(trace_id)
        found.update(trace.services if trace else ())
        return found.issuperset(services)

    if deadline.wait(look):
        return f"trace {trace_id}: {listed(sorted(found))}"
    missing = [name for name in services if name not in found]
    raise Failed(
        f"trace {trace_id} has no span of {listed(missing)}"
        + (f", only of {listed(sorted(found))}" if found else ": it is not there at all"),
        "docker compose logs --tail=50 otel-collector jaeger; is it sampled away (tail_sampling in "
        "monitoring/collector/collector.yml)?",
    )


def _asked(house: House, deadline: Deadline) -> str:
    return _has(house, deadline, "glasshouse", "glasshouse-payment-provider")


def _worked(house: House, deadline: Deadline) -> str:
    return _has(house, deadline, "glasshouse-worker")


def _exemplar_leads_to_trace(house: House, deadline: Deadline) -> str:
    prometheus, jaeger = house.ask(Prometheus), house.ask(Jaeger)
    asked: dict[str, bool] = {}

    def look() -> str | None:
        for trace_id in prometheus.exemplars(_REQUESTS)[:30]:
            # What was not there may be on its way: the collector waits before it samples.
            if not asked.get(trace_id):
                asked[trace_id] = jaeger.trace(trace_id) is not None
            if asked[trace_id]:
                return trace_id
        return None

    trace_id = deadline.wait(look)
    if trace_id is None and not asked:
        raise Failed(
            f"no exemplar of {_REQUESTS} within 15 minutes",
            "Without requests there are none: docker compose ps customers. Are metrics asked for as "
            "OpenMetrics (scrape_protocols in monitoring/prometheus/prometheus.yml)?",
        )
    if trace_id is None:
        raise Failed(
            f"none of {len(asked)} exemplars leads to a trace",
            "docker compose logs --tail=50 otel-collector jaeger. Are all traces sampled away "
            "(TRACES_KEPT_PERCENT; tail_sampling in monitoring/collector/collector.yml)?",
        )
    return f"trace {trace_id}"


_ASKS: Final = (App, Jaeger)
CHECKS: Final = (
    Check(
        "the journey's trace has the API and the provider", "jaeger", _asked, _ASKS, (JOURNEY,), 40
    ),
    Check("the same trace has the worker", "jaeger", _worked, _ASKS, (WORKER,), 40),
    Check(
        "an exemplar leads to its trace",
        "prometheus",
        _exemplar_leads_to_trace,
        needs=(Prometheus, Jaeger),
        after=(EXEMPLARS,),
        seconds=30,
    ),
)
