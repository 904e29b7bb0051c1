"""Jaeger: is the journey there, as one trace of all who took part?"""

from typing import Final

from deploy.stack.backends.app import App
from deploy.stack.backends.jaeger import Jaeger
from deploy.stack.doctor.checks.service import JOURNEY, WORKER
from deploy.stack.doctor.examination import Check
from deploy.stack.doctor.findings import Failed, listed
from deploy.stack.doctor.house import Deadline, House


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


_ASKS: Final = (App, Jaeger)
CHECKS: Final = (
    Check(
        "the journey's trace has the API and the provider", "jaeger", _asked, _ASKS, (JOURNEY,), 40
    ),
    Check("the same trace has the worker", "jaeger", _worked, _ASKS, (WORKER,), 40),
)
