"""Grafana: the login, data sources, dashboards, and queries as its panels make them."""

from typing import Any, ClassVar

import httpx2

from deploy.stack.backends.addresses import Access
from deploy.stack.backends.errors import Denied, WrongAnswer
from deploy.stack.backends.http import Backend


class Grafana(Backend):
    """The API at GRAFANA_URL."""

    variable: ClassVar = "GRAFANA_URL"
    name: ClassVar = "Grafana"
    service: ClassVar = "grafana"
    health_path: ClassVar = "/api/health"

    def authentication(self, access: Access) -> httpx2.Auth | None:
        """It answers 401 without asking for a login, so that it has to be told at once."""
        return httpx2.BasicAuth(access.user, access.password) if access.password else None

    def check_health(self) -> None:
        """Return when it and its database work."""
        document = self.get(self.health_path)
        state = document.get("database") if isinstance(document, dict) else None
        if state != "ok":
            raise WrongAnswer(f"/api/health at {self.url} says that its database is {state}.", 200)

    def login(self) -> str:
        """Return who we are there. Raises Denied where nobody."""
        document = self.get("/api/user")
        if not isinstance(document, dict) or "login" not in document:
            raise Denied(f"What listens at {self.url} knows no login, as Grafana does.")
        return str(document["login"])

    def data_sources(self) -> dict[str, dict[str, Any]]:
        """Return the data sources by uid."""
        return {str(one["uid"]): one for one in self.get("/api/datasources")}

    def data_source_health(self, uid: str) -> tuple[bool, str]:
        """Return whether Grafana reaches what the data source names, and what it says of it."""
        if uid == "alertmanager":  # this data source has no health check of its own
            try:
                self.get("/api/datasources/proxy/uid/alertmanager/api/v2/status")
            except WrongAnswer as error:
                return False, str(error)
            return True, "answers"
        response = self.exchange("GET", f"/api/datasources/uid/{uid}/health")
        document = self.read(response)
        said = str(document.get("message", "")) if isinstance(document, dict) else ""
        is_well = response.is_success and document.get("status") == "OK"
        return is_well, said or f"status {response.status_code}"

    def correlations(self) -> list[dict[str, Any]]:
        """Return the correlations between data sources."""
        response = self.exchange("GET", "/api/datasources/correlations")
        if response.status_code == httpx2.codes.NOT_FOUND:  # its answer where there is none
            return []
        document = self.read(response)
        found: list[dict[str, Any]] = (
            document.get("correlations", []) if isinstance(document, dict) else document
        )
        return found

    def dashboard_uids(self) -> set[str]:
        """Return the uids of all dashboards."""
        return {str(one["uid"]) for one in self.get("/api/search", type="dash-db", limit=5000)}

    def dashboard(self, uid: str) -> dict[str, Any]:
        """Return a dashboard as it is stored, with `meta`."""
        found: dict[str, Any] = self.get(f"/api/dashboards/uid/{uid}")
        return found

    def run(self, queries: list[dict[str, Any]], *, minutes: int = 15) -> dict[str, Any]:
        """Run queries as a panel does; return the results by refId."""
        body = {"queries": queries, "from": f"now-{minutes}m", "to": "now"}
        response = self.exchange("POST", "/api/ds/query", json=body)
        document = self.read(response)
        if not isinstance(document, dict) or "results" not in document:
            raise WrongAnswer(
                f"/api/ds/query at {self.url} answered {response.status_code}: "
                f"{response.text[:200]}",
                response.status_code,
            )
        results: dict[str, Any] = document["results"]
        return results
