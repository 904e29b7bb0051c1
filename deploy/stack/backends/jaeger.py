"""Jaeger: one trace by its id, with each span's service and parent. (Its JSON API, /api/traces.)"""

from dataclasses import dataclass
from typing import Any, ClassVar

import httpx2

from deploy.stack.backends.errors import WrongAnswer
from deploy.stack.backends.http import Backend


@dataclass(frozen=True)
class Span:
    """One span; `parent` is empty for the root."""

    id: str
    parent: str
    service: str
    name: str
    tags: dict[str, Any]

    @property
    def kind(self) -> str:
        """`server`, `client`, `producer`, `consumer` or `internal`."""
        return str(self.tags.get("span.kind", "internal"))


@dataclass(frozen=True)
class Trace:
    """A trace as it is stored; `text` is all that Jaeger tells of it."""

    spans: tuple[Span, ...]
    text: str

    @property
    def services(self) -> set[str]:
        """Who took part."""
        return {span.service for span in self.spans}

    def named(self, name: str) -> list[Span]:
        """Return the spans with this name."""
        return [span for span in self.spans if span.name == name]

    def ancestors(self, span: Span) -> list[Span]:
        """Return the parent, its parent and so on, to the root."""
        by_id = {one.id: one for one in self.spans}
        found: list[Span] = []
        while (parent := by_id.get(span.parent)) is not None and parent not in found:
            found.append(parent)
            span = parent
        return found


class Jaeger(Backend):
    """The API at JAEGER_URL."""

    variable: ClassVar = "JAEGER_URL"
    name: ClassVar = "Jaeger"
    service: ClassVar = "jaeger"
    health_path: ClassVar = "/api/services"

    def check_health(self) -> None:
        """Return when it answers queries; its health is told on another port."""
        self.services()

    def services(self) -> list[str]:
        """Return the services that it has spans of."""
        document = self.get("/api/services")
        if not isinstance(document, dict):
            raise WrongAnswer(f"What listens at {self.url} does not answer as Jaeger does.", 200)
        return sorted(document.get("data") or [])

    def trace(self, trace_id: str) -> Trace | None:
        """Return a trace, as far as it has arrived; None where it has nothing of it."""
        response = self.exchange("GET", f"/api/traces/{trace_id}")
        if response.status_code == httpx2.codes.NOT_FOUND:
            return None
        document = self.read(self.send("GET", f"/api/traces/{trace_id}"))
        found = document.get("data") or []
        return _read(found[0], response.text) if found else None


def _read(trace: dict[str, Any], text: str) -> Trace:
    names = {key: process["serviceName"] for key, process in trace["processes"].items()}
    return Trace(
        tuple(
            Span(
                id=span["spanID"],
                parent=_parent(span),
                service=names[span["processID"]],
                name=span["operationName"],
                tags={tag["key"]: tag["value"] for tag in span.get("tags") or ()},
            )
            for span in trace["spans"]
        ),
        text,
    )


def _parent(span: dict[str, Any]) -> str:
    for reference in span.get("references") or ():
        if reference["refType"] == "CHILD_OF" and reference["traceID"] == span["traceID"]:
            return str(reference["spanID"])
    return ""
