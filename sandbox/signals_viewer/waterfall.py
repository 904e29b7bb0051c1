"""The spans of a trace in the order in which one reads them: each below its parent, siblings by start.

Spans arrive in any order, from several processes, some never: one whose parent is not here (yet) starts a
branch of its own. Nonsense such as two spans that are each other's parent must not hide a span or hang.
"""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from sandbox.signals_viewer.signals import Span


@dataclass(frozen=True, slots=True)
class Row:
    """One span in its place."""

    span: Span
    depth: int
    detached: bool
    """Whether it names a parent that is not here, or that is below itself."""


def arrange(spans: Collection[Span]) -> list[Row]:
    """Return every span once: parents before children, branches by the time they start."""
    in_time = sorted(spans, key=lambda span: (span.start, -span.end, span.span_id))
    known = {span.span_id for span in in_time}
    children: dict[str, list[Span]] = defaultdict(list)
    for span in in_time:
        children[span.parent_id].append(span)
    begins = [span for span in in_time if span.parent_id not in known]
    rows: list[Row] = []
    seen: set[str] = set()
    # After the real beginnings only the members of cycles are left: the earliest becomes a beginning.
    for begin in [*begins, *in_time]:
        waiting = [(begin, 0)]
        while waiting:
            span, depth = waiting.pop()
            if span.span_id in seen:
                continue
            seen.add(span.span_id)
            rows.append(Row(span, depth, detached=depth == 0 and bool(span.parent_id)))
            waiting.extend((child, depth + 1) for child in reversed(children[span.span_id]))
    return rows


def root_of(spans: Collection[Span]) -> Span:
    """Return the span that names the trace: the first without a parent, else the first to begin."""
    return min(spans, key=lambda span: (bool(span.parent_id), span.start, -span.end))
