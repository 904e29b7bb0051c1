"""Bugsink: sends an error event as the SDK does, and reads events back.

With a token (BUGSINK_TOKEN) through its API; without one as a person does who logs in with the stack's login
and opens the event. Nothing is created there to be able to read.
"""

import json
import re
import threading
import uuid
from datetime import UTC, datetime
from typing import Any, ClassVar, Final

import httpx2

from deploy.stack.backends.addresses import Access
from deploy.stack.backends.errors import BackendError, Denied
from deploy.stack.backends.http import Backend

_FORM_TOKEN: Final = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')
_ISSUE: Final = re.compile(r"/issues/issue/([0-9a-f-]{36})/")
_DSN: Final = re.compile(r"https?://([0-9a-f]{32})@")
_LOGIN: Final = "/accounts/login/"


class CannotRead(BackendError):
    """There is neither a token nor a login to read events with."""


class Bugsink(Backend):
    """The server at BUGSINK_URL."""

    variable: ClassVar = "BUGSINK_URL"
    name: ClassVar = "Bugsink"
    service: ClassVar = "bugsink"
    health_path: ClassVar = "/health/ready"

    def __init__(self, url: str, access: Access) -> None:
        super().__init__(url, access)
        self._lock = threading.Lock()
        self._key = access.bugsink_key
        self._cookies: dict[str, str] = {}

    def authentication(self, access: Access) -> httpx2.Auth | None:  # noqa: ARG002 - as all do
        """It has a login of its own (_log_in), and its API wants a token."""
        return None

    @property
    def can_be_read(self) -> bool:
        """Whether there is something to read events with."""
        return bool(self.access.bugsink_token or self.access.password)

    @property
    def has_key(self) -> bool:
        """Whether it is known, or can be found out, with which key events are sent."""
        return bool(self._key) or self.can_be_read

    def key(self) -> str:
        """Return the public key of the project's DSN; looked up where it was not given."""
        project = self.access.bugsink_project
        if not self._key and self.access.bugsink_token:
            self._key = httpx2.URL(self._api(f"projects/{project}/")["dsn"]).username
        elif not self._key:
            page = self._page(f"/projects/{project}/sdk-setup/python/").text
            found = _DSN.search(page)
            if found is None:
                raise Denied(
                    f"Bugsink shows no DSN for project {project}: is there such a project?"
                )
            self._key = found[1]
        return self._key

    def send_event(self, message: str, *, trace_id: str = "", **tags: str) -> str:
        """Send an event as an SDK does; return its id. Raises Denied where the key is not known."""
        key, event_id = self.key(), uuid.uuid4().hex
        now = datetime.now(UTC).isoformat()
        event = {
            "event_id": event_id,
            "timestamp": now,
            "platform": "python",
            "level": "info",
            "logger": "stack-doctor",
            "message": message,
            "fingerprint": ["stack-doctor"],
            "tags": tags,
            **(
                {"contexts": {"trace": {"trace_id": trace_id, "span_id": trace_id[:16]}}}
                if trace_id
                else {}
            ),
        }
        parts = ({"event_id": event_id, "sent_at": now}, {"type": "event"}, event)
        response = self.exchange(
            "POST",
            f"/api/{self.access.bugsink_project}/envelope/",
            content="\n".join(map(json.dumps, parts)).encode(),
            headers={
                "Content-Type": "application/x-sentry-envelope",
                "X-Sentry-Auth": f"Sentry sentry_version=7, sentry_key={key}",
            },
        )
        if not response.is_success:
            raise Denied(
                f"Bugsink did not take an event for project {self.access.bugsink_project}: "
                f"status {response.status_code}. Is BUGSINK_KEY the key of its DSN?"
            )
        return event_id

    def event(self, event_id: str) -> dict[str, Any] | None:
        """Return an event by the id that its sender gave it; None while it is not there."""
        if self.access.bugsink_token:
            return next((one for one in self.events() if one.get("event_id") == event_id), None)
        found = self._page(f"/issues/event/{uuid.UUID(event_id)}/")
        internal = found.headers.get("Location", "").rstrip("/").rpartition("/")[2]
        if found.status_code != httpx2.codes.FOUND or not internal:
            return None
        event: dict[str, Any] = self.read(self._page(f"/events/event/{internal}/raw/"))
        return event

    def events(self, *, newest_issues: int = 20) -> list[dict[str, Any]]:
        """Return the latest event of each of the issues that were seen last."""
        if self.access.bugsink_token:
            listed = self._api(
                "issues/", project=self.access.bugsink_project, sort="last_seen", order="desc"
            )
            found = []
            for issue in listed["results"][:newest_issues]:
                events = self._api("events/", issue=issue["id"])["results"][:10]
                found += [self._api(f"events/{event['id']}/")["data"] for event in events]
            return found
        return self._shown(f"/issues/{self.access.bugsink_project}/", newest_issues)

    def with_trace(self, trace_id: str) -> list[dict[str, Any]]:
        """Return the events that name this trace, among those that were seen last."""
        if self.access.bugsink_token:
            events = self.events()
        else:
            path = f"/issues/{self.access.bugsink_project}/all/?q=trace:{trace_id}"
            events = self._shown(path, most=5)
        return [
            event
            for event in events
            if (event.get("contexts") or {}).get("trace", {}).get("trace_id") == trace_id
        ]

    def _shown(self, path: str, most: int) -> list[dict[str, Any]]:
        issues = list(dict.fromkeys(_ISSUE.findall(self._page(path).text)))[:most]
        events = []
        for issue in issues:
            page = self._page(f"/issues/issue/{issue}/events/").text
            numbers = re.findall(rf"/issues/issue/{issue}/event/([0-9a-f-]{{36}})/", page)
            raw = [f"/events/event/{number}/raw/" for number in dict.fromkeys(numbers)]
            events += [self.read(self._page(path)) for path in raw[:10]]
        return events

    def _page(self, path: str) -> httpx2.Response:
        """Return a page as who is logged in sees it."""
        self._log_in()
        return self.exchange("GET", path, headers={"Cookie": self._cookie_header()})

    def _api(self, path: str, **parameters: str) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.access.bugsink_token}"}
        response = self.exchange(
            "GET", f"/api/canonical/0/{path}", params=parameters, headers=headers
        )
        if not response.is_success:
            raise Denied(f"Bugsink does not take BUGSINK_TOKEN: status {response.status_code}.")
        document: dict[str, Any] = self.read(response)
        return document

    def _log_in(self) -> None:
        with self._lock:
            if "sessionid" in self._cookies:
                return
            if not self.access.password:
                raise CannotRead("Neither BUGSINK_TOKEN nor STACK_PASSWORD is given.")
            shown = self.send("GET", _LOGIN)
            form = _FORM_TOKEN.search(shown.text)
            self._keep_cookies(shown)
            answer = self.exchange(
                "POST",
                _LOGIN,
                data={
                    "username": self.access.bugsink_user,
                    "password": self.access.password,
                    "csrfmiddlewaretoken": form[1] if form else "",
                },
                headers={"Referer": f"{self.url}{_LOGIN}", "Cookie": self._cookie_header()},
            )
            if answer.status_code != httpx2.codes.FOUND:  # otherwise the form is shown again
                raise Denied(
                    f"Bugsink refuses the login of {self.access.bugsink_user} "
                    f"(BUGSINK_USER, STACK_PASSWORD): status {answer.status_code}."
                )
            self._keep_cookies(answer)

    # By hand: where people come by https, its cookies are for https only, which there is none of inside.

    def _keep_cookies(self, response: httpx2.Response) -> None:
        for header in response.headers.get_list("Set-Cookie"):
            name, _, value = header.partition(";")[0].partition("=")
            self._cookies[name.strip()] = value.strip()
        self.http.cookies.clear()

    def _cookie_header(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())
