"""Loki: log lines and its rules; directly, or through Grafana's data source where only Grafana is open."""

import time
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import httpx2

from deploy.stack.backends.addresses import Access, Addresses
from deploy.stack.backends.errors import WrongAnswer
from deploy.stack.backends.http import Backend
from deploy.stack.backends.prometheus import Rule, Sample, read_rules


@dataclass(frozen=True)
class Line:
    """One log line, with its labels and its structured metadata in one."""

    labels: dict[str, str]
    text: str

    @property
    def service(self) -> str:
        """Who wrote it."""
        return self.labels.get("service_name", "")


class Loki(Backend):
    """The API at LOKI_URL, or that of the data source `loki` at GRAFANA_URL."""

    variable: ClassVar = "LOKI_URL"
    name: ClassVar = "Loki"
    service: ClassVar = "loki"
    health_path: ClassVar = "/ready"

    @classmethod
    def at(cls, addresses: Addresses) -> Self | None:
        """Return the client; through Grafana where only that is given."""
        direct = super().at(addresses)
        grafana = addresses.urls.get("GRAFANA_URL")
        if direct is not None or grafana is None:
            return direct
        return cls(f"{grafana}/api/datasources/proxy/uid/loki", addresses.access)

    @property
    def is_proxied(self) -> bool:
        """Whether Grafana stands between."""
        return "/api/datasources/proxy/" in self.url

    def authentication(self, access: Access) -> httpx2.Auth | None:
        """Grafana answers 401 without asking for a login, so that it has to be told at once."""
        if self.is_proxied and access.password:
            return httpx2.BasicAuth(access.user, access.password)
        return super().authentication(access)

    def check_health(self) -> None:
        """Return when it answers queries: Grafana passes nothing else on."""
        if self.is_proxied:
            self._api("labels")
        else:
            super().check_health()

    def lines(self, query: str, *, minutes: float = 15, limit: int = 200) -> list[Line]:
        """Return the newest lines that a LogQL query selects."""
        return [
            Line(one["stream"], value[1])
            for one in self._range(query, minutes, limit)
            for value in one["values"]
        ]

    def count(self, query: str) -> list[Sample]:
        """Return what an instant metric query finds now."""
        found = self._api("query", query=query)["result"]
        return [Sample(one["metric"], float(one["value"][1])) for one in found]

    def index_labels(self, query: str) -> list[dict[str, str]]:
        """Return the streams that a selector finds: their index labels, without structured metadata."""
        nanoseconds = time.time_ns()
        found: list[dict[str, str]] = self._api(
            "series",
            **{"match[]": query},
            start=str(nanoseconds - 15 * 60 * 10**9),
            end=str(nanoseconds),
        )
        return found

    def rules(self) -> list[Rule]:
        """Return the rules that its ruler evaluates."""
        document = self.get("/prometheus/api/v1/rules")
        return read_rules(self._data(document))

    def _range(self, query: str, minutes: float, limit: int) -> list[dict[str, Any]]:
        nanoseconds = time.time_ns()
        found: list[dict[str, Any]] = self._api(
            "query_range",
            query=query,
            start=str(nanoseconds - int(minutes * 60 * 10**9)),
            end=str(nanoseconds),
            limit=limit,
            direction="backward",
        )["result"]
        return found

    def _api(self, path: str, **parameters: Any) -> Any:
        return self._data(self.get(f"/loki/api/v1/{path}", **parameters))

    def _data(self, document: Any) -> Any:
        if not isinstance(document, dict) or document.get("status") != "success":
            raise WrongAnswer(f"What listens at {self.url} does not answer as Loki does.", 200)
        return document.get("data") or []
