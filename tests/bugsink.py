"""A real Sentry-compatible server for tests: bugsink with SQLite on loopback, in an environment of its own.

Needs a package index once: `.venv-bugsink` (git-ignored) is made from tests/requirements-bugsink.lock and
used until that lock changes. It also keeps a migrated, empty database, of which each server gets a copy.
The fixture `bugsink` of conftest.py is the run's server; a test that wants to read only its own issues asks
it for a project. (Licence of bugsink: PolyForm Shield, which allows this use.)

Must never call home: what tests do is nobody's business.
"""

import fcntl
import os
import secrets
import shutil
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

from tests.tools import Server, skip_or_fail, wait_until

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "tests" / "requirements-bugsink.lock"
ENVIRONMENT = ROOT / ".venv-bugsink"
INSTALL_SECONDS = 900.0
"""From a slow index, on a slow machine. An ordinary one takes 20 s."""
ARRIVAL_SECONDS = 120.0


class CannotInstall(Exception):
    """Why there is no bugsink here: one sentence."""


class Installation:
    """The environment in `directory`: complete, or made anew by whoever needs it first.

    Its last file is a copy of the lock, so one that was broken off half-way, or made from another lock,
    is never taken for good.
    """

    def __init__(self, directory: Path = ENVIRONMENT, lock: Path = LOCK) -> None:
        self.directory = directory
        self.template = directory / "template"
        self._lock = lock
        self._stamp = directory / lock.name
        self._log = directory / "install.log"

    def program(self, name: str) -> str:
        """Return the path of a program of the environment."""
        return str(self.directory / "venv" / "bin" / name)

    def prepare(self) -> None:
        """Make the environment unless it is there.

        Raises:
            CannotInstall: No index, no network, no space.
        """
        try:
            self.directory.mkdir(exist_ok=True)
            with (self.directory / "guard").open("w") as guard:
                fcntl.flock(guard, fcntl.LOCK_EX)
                if not self.is_complete():
                    self._make(guard.fileno())
        except OSError as error:
            raise CannotInstall(f"bugsink cannot be installed: {error}") from error

    def is_complete(self) -> bool:
        """Whether the last step was done for this lock, and its Python still runs."""
        if not self._stamp.exists() or self._stamp.read_bytes() != self._lock.read_bytes():
            return False
        probe = [self.program("python"), "-c", "import bugsink, gunicorn"]
        try:
            return subprocess.run(probe, check=False, capture_output=True).returncode == 0
        except OSError:  # the Python it was made with is gone
            return False

    def _make(self, guard: int) -> None:
        self._stamp.unlink(missing_ok=True)
        for part in (self.directory / "venv", self.template):
            shutil.rmtree(part, ignore_errors=True)
        self._log.write_bytes(b"")
        pip = [self.program("python"), "-m", "pip", "--disable-pip-version-check", "--no-input"]
        self._run(guard, sys.executable, "-m", "venv", str(self.directory / "venv"))
        self._run(guard, *pip, "install", "--require-hashes", "-r", str(self._lock))
        self.template.mkdir()
        configure(self.template, "http://127.0.0.1")
        manage = self.program("bugsink-manage")
        self._run(guard, manage, "migrate", cwd=self.template)
        self._run(guard, manage, "migrate", "snappea", "--database=snappea", cwd=self.template)
        shutil.copy(self._lock, self._stamp)

    def _run(self, guard: int, *command: str, cwd: Path = ROOT) -> None:
        try:
            with self._log.open("ab") as log:
                subprocess.run(
                    command,
                    cwd=cwd,
                    # The settings of people's machines that make no sense inside of an environment.
                    env={**os.environ, "PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    check=True,
                    timeout=INSTALL_SECONDS,
                    pass_fds=(
                        guard,
                    ),  # outlives pytest where that is killed: nobody remakes beside it
                )
        except (subprocess.SubprocessError, OSError) as error:
            told = [line for line in self._log.read_text(errors="replace").splitlines() if line]
            why = next((line for line in told if line.startswith("ERROR")), str(error))
            raise CannotInstall(f"bugsink cannot be installed: {why} (see {self._log})") from error


def configure(directory: Path, url: str) -> None:
    """Write the settings of a server that is reached under `url` and keeps everything in `directory`."""
    settings = f"""
        from bugsink.settings.default import *
        SECRET_KEY = {secrets.token_hex(32)!r}
        SNAPPEA = {{"TASK_ALWAYS_EAGER": True}}  # an event is stored when its request is answered
        EMAIL_BACKEND = "django.core.mail.backends.dummy.EmailBackend"
        DATABASES["default"]["NAME"] = {str(directory / "db.sqlite3")!r}
        DATABASES["snappea"]["NAME"] = {str(directory / "snappea.sqlite3")!r}
        DATABASES["default"]["OPTIONS"]["query_timeout"] = 60
        BUGSINK = {{
            "BASE_URL": {url!r},
            "SINGLE_USER": True,
            "PHONEHOME": False,
            "INGEST_STORE_BASE_DIR": {str(directory / "ingestion")!r},
            **{{
                f"MAX_EVENTS_PER_{{what}}": 1_000_000  # all tests of a run share this server
                for period in ("5_MINUTES", "HOUR", "MONTH")
                for what in (period, f"PROJECT_PER_{{period}}")
            }},
        }}
        """
    (directory / "bugsink_conf.py").write_text(textwrap.dedent(settings))


class BugsinkServer(Server):
    """gunicorn with one process, on a copy of the template database."""

    _token = ""

    @property
    def url(self) -> str:
        """The address, with the token of its API."""
        return f"http://{self._token}@127.0.0.1:{self.port}"

    def command(self, directory: Path) -> tuple[list[str], str]:
        missing = directory.parent / "bugsink.missing"
        installation = Installation()
        if not missing.exists():
            try:
                installation.prepare()
            except CannotInstall as error:
                missing.write_text(str(error))  # each pytest-xdist worker would try again
        if missing.exists():
            skip_or_fail(missing.read_text())
        for database in installation.template.glob("*.sqlite3"):
            shutil.copy(database, directory)
        configure(directory, f"http://127.0.0.1:{self.port}")
        self._token = subprocess.run(
            [installation.program("bugsink-manage"), "create_auth_token"],
            cwd=directory,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        options = ["--workers=1", "--timeout=300", "--no-control-socket", "--chdir", str(directory)]
        bind = ["--bind", f"127.0.0.1:{self.port}", "--env", "DJANGO_SETTINGS_MODULE=bugsink_conf"]
        return [installation.program("gunicorn"), *options, *bind, "bugsink.wsgi"], "-"

    def is_ready(self) -> bool:
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/health/ready").status_code == 200
        except httpx2.TransportError:
            return False


@dataclass(frozen=True, slots=True)
class Issue:
    """Events that the server took for the same thing; `events` as they were stored, oldest first."""

    type: str
    value: str
    transaction: str
    events: list[dict[str, Any]]


class Project:
    """A place of a test's own to send to: what is read back here was sent here."""

    def __init__(self, tracker: "Tracker", number: str, dsn: str) -> None:
        self.dsn = dsn
        self._tracker = tracker
        self._number = number

    @property
    def environment(self) -> dict[str, str]:
        """What a process needs to report here."""
        return {"SENTRY_DSN": self.dsn, "no_proxy": "127.0.0.1"}

    def issues(self) -> list[Issue]:
        """Return all issues, in the order of their first event."""
        return [
            Issue(
                type=found["calculated_type"],
                value=found["calculated_value"],
                transaction=found["transaction"],
                events=self._events_of(found["id"]),
            )
            for found in self._tracker.listed("issues", project=self._number)
        ]

    def events(self) -> list[dict[str, Any]]:
        """Return the events of all issues."""
        return [event for issue in self.issues() for event in issue.events]

    def wait_for(self, events: int) -> list[Issue]:
        """Wait until this many events have arrived; return the issues."""
        wait_until(lambda: len(self.events()) >= events, f"{events} events arrive", ARRIVAL_SECONDS)
        return self.issues()

    def _events_of(self, issue: str) -> list[dict[str, Any]]:
        listed = self._tracker.listed("events", issue=issue, order="asc")
        return [self._tracker.get(f"events/{event['id']}/")["data"] for event in listed]


class Tracker:
    """Speaks the API of a running server."""

    def __init__(self, url: str) -> None:
        """`url` is that of BugsinkServer."""
        self._http = httpx2.Client(
            base_url=f"http://{url.rpartition('@')[2]}/api/canonical/0/",
            headers={"Authorization": f"Bearer {httpx2.URL(url).username}"},
            timeout=ARRIVAL_SECONDS,
            trust_env=False,
        )

    def project(self) -> Project:
        """Make a project."""
        name = secrets.token_hex(8)
        team = self._create("teams/", name=name)["id"]
        number = self._create("projects/", name=name, team=team)["id"]
        return Project(self, number, self.get(f"projects/{number}/")["dsn"])

    def get(self, path: str, **parameters: str) -> dict[str, Any]:
        """GET one document."""
        found: dict[str, Any] = self._http.get(path, params=parameters).raise_for_status().json()
        return found

    def listed(self, what: str, **parameters: str) -> list[dict[str, Any]]:
        """GET a list that fits on one page."""
        page = self.get(f"{what}/", **parameters)
        assert page["next"] is None, f"more {what} than a page holds"
        found: list[dict[str, Any]] = page["results"]
        return found

    def _create(self, path: str, **fields: str) -> dict[str, Any]:
        made: dict[str, Any] = self._http.post(path, json=fields).raise_for_status().json()
        return made

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
