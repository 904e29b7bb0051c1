"""The newest traces and errors, in memory: what was there first goes first.

Bounds, so that a load test that runs overnight costs less than 100 MB and not the machine: 200 traces, 20,000
spans and 32 MB of them; of one trace 2,000 spans and 4 MB (what comes after is counted, not kept); 200
errors and 8 MB of them. Sizes are those of the texts, Python's own share is about twice as much.
Used from one event loop: nothing here waits, and nothing locks.
"""

import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from sandbox.signals_viewer.signals import ErrorReport, Span

MEGABYTE = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept."""

    traces: int = 200
    spans: int = 20_000
    span_bytes: int = 32 * MEGABYTE
    spans_of_a_trace: int = 2_000
    span_bytes_of_a_trace: int = 4 * MEGABYTE
    errors: int = 200
    error_bytes: int = 8 * MEGABYTE
    processes: int = 500


@dataclass(slots=True)
class Trace:
    """What has arrived of a trace so far; more may come, from any process."""

    trace_id: str
    spans: dict[str, Span] = field(default_factory=dict)
    size: int = 0
    left_out: int = 0
    """Spans that arrived when the trace was full."""

    @property
    def start(self) -> int:
        return min(span.start for span in self.spans.values())

    @property
    def end(self) -> int:
        return max(span.end for span in self.spans.values())

    @property
    def failed_spans(self) -> int:
        return sum(span.failed for span in self.spans.values())


class SignalStore:
    """The traces and errors that are kept."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._traces: OrderedDict[str, Trace] = OrderedDict()
        self._spans = self._span_bytes = 0
        self._errors: OrderedDict[str, ErrorReport] = OrderedDict()
        self._error_bytes = 0
        self._processes: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._born = time.time_ns()
        self._changes = 0

    @property
    def version(self) -> str:
        """What is not the same any more once something has arrived, or the viewer was started anew."""
        return f"{self._born}-{self._changes}"

    def add_spans(self, spans: Iterable[Span]) -> None:
        """Keep spans, each with its trace; one that comes again takes the place of its earlier self."""
        for span in spans:
            trace = self._traces.setdefault(span.trace_id, Trace(span.trace_id))
            earlier = trace.spans.get(span.span_id)
            grows = span.size - (earlier.size if earlier else 0)
            if trace.spans and self._is_full(trace, grows, is_new=earlier is None):
                trace.left_out += 1
                continue
            trace.spans[span.span_id] = span
            trace.size += grows
            self._span_bytes += grows
            self._spans += earlier is None
            self._number(span)
            self._drop_oldest_traces()
        self._changes += 1

    def _is_full(self, trace: Trace, grows: int, *, is_new: bool) -> bool:
        limits = self._limits
        return (
            is_new and len(trace.spans) >= limits.spans_of_a_trace
        ) or trace.size + grows > limits.span_bytes_of_a_trace

    def _drop_oldest_traces(self) -> None:
        limits = self._limits
        while (
            len(self._traces) > limits.traces
            or self._spans > limits.spans
            or self._span_bytes > limits.span_bytes
        ):
            _, oldest = self._traces.popitem(last=False)
            self._spans -= len(oldest.spans)
            self._span_bytes -= oldest.size

    def _number(self, span: Span) -> None:
        process = span.service, span.instance
        if process not in self._processes:
            same = [n for (service, _), n in self._processes.items() if service == span.service]
            self._processes[process] = max(same, default=0) + 1
            if len(self._processes) > self._limits.processes:
                self._processes.popitem(last=False)

    def add_error(self, report: ErrorReport) -> None:
        """Keep an error report; one that comes again takes the place of its earlier self."""
        earlier = self._errors.pop(report.event_id, None)
        self._errors[report.event_id] = report
        self._error_bytes += report.size - (earlier.size if earlier else 0)
        while (
            len(self._errors) > self._limits.errors or self._error_bytes > self._limits.error_bytes
        ):
            _, oldest = self._errors.popitem(last=False)
            self._error_bytes -= oldest.size
        self._changes += 1

    def traces(self) -> list[Trace]:
        """Return all traces, the one that began last first."""
        return sorted(self._traces.values(), key=lambda trace: trace.start, reverse=True)

    def trace(self, trace_id: str) -> Trace | None:
        """Return one trace."""
        return self._traces.get(trace_id)

    def errors(self) -> list[ErrorReport]:
        """Return all errors, the one that arrived last first."""
        return list(reversed(self._errors.values()))

    def error(self, event_id: str) -> ErrorReport | None:
        """Return one error."""
        return self._errors.get(event_id)

    def errors_of(self, trace_id: str) -> list[ErrorReport]:
        """Return the errors that share a trace id, the one that arrived first first."""
        return [error for error in self._errors.values() if error.trace_id == trace_id]

    def process_name(self, span: Span) -> str:
        """Return the service's name, with a number where it is not the first process that has it."""
        number = self._processes.get((span.service, span.instance), 1)
        return span.service if number == 1 else f"{span.service} (process {number})"

    def process_index(self, span: Span) -> int:
        """Return which process it was, in order of their first signs of life: for colours."""
        processes = list(self._processes)
        process = span.service, span.instance
        return processes.index(process) if process in self._processes else 0
