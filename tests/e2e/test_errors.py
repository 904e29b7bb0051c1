"""One failed request is the same event everywhere: in the error tracker, as a trace, and as a log line."""

import json
from typing import Any

from deploy.stack.backends.app import Ids
from deploy.stack.backends.bugsink import Bugsink
from deploy.stack.backends.jaeger import Jaeger
from deploy.stack.backends.loki import Loki
from tests.e2e.conftest import Stack, eventually


def test_it_is_in_the_error_tracker_with_its_trace_id(stack: Stack, breakdown: Ids) -> None:
    bugsink = stack.ask(Bugsink)

    def exceptions() -> list[dict[str, Any]]:
        # Beside it there may be a warning of the same request, such as that of a slow statement.
        return [one for one in bugsink.with_trace(breakdown.trace_id) if "exception" in one]

    (event,) = eventually(exceptions, f"an event of trace {breakdown.trace_id} is in Bugsink")
    assert event["tags"]["service"] == "glasshouse"
    assert event["tags"]["request_id"] == breakdown.request_id
    assert event["transaction"] == "/v1/payments"
    assert event["exception"]["values"][-1]["type"] == "ProviderNotReached"


def test_its_trace_is_kept_and_marked_as_failed(stack: Stack, breakdown: Ids) -> None:
    jaeger = stack.ask(Jaeger)
    trace = eventually(
        lambda: jaeger.trace(breakdown.trace_id), f"trace {breakdown.trace_id} is in Jaeger"
    )
    root = next(span for span in trace.spans if not span.parent)
    assert root.tags.get("error") is True
    assert str(root.tags["http.response.status_code"]) == "503"


def test_its_log_line_has_the_stack_in_its_text(loki: Loki, breakdown: Ids) -> None:
    query = f'{{service_name="glasshouse"}} | type="error" | trace_id="{breakdown.trace_id}"'
    (line,) = eventually(lambda: loki.lines(query), "the line of the error")
    assert line.labels["level"] == "ERROR"
    assert line.labels["exception_type"] == "ProviderNotReached"
    assert "Traceback" in json.dumps(json.loads(line.text))
