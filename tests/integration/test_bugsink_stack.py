"""Bugsink as the local stack runs it: the real one, with monitoring/bugsink/ and the stack's command.

What is not the same: it listens on loopback and stays the user that runs the tests.
"""

import os
import re
import secrets
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import sentry_sdk
from sentry_sdk.transport import HttpTransport

from app.observability.context import use_trace_source
from app.observability.error_tracking import (
    ErrorTrackingSettings,
    flush_errors,
    report_exception,
    setup_error_tracking,
)
from tests.bugsink import CannotInstall, Installation
from tests.tools import free_port, skip_or_fail, wait_until

CONFIGURATION = Path(__file__).parents[2] / "monitoring" / "bugsink"
KEY = "6f1d3c0e5a2b4e7f9c8d7a6b5e4f3210"
USER = "admin@glasshouse.localhost"
PASSWORD = "correct-horse-battery"
PUBLISHED = "http://localhost:8010"
TRACE_ID, SPAN_ID = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
ARRIVAL_SECONDS = 60.0


class Stack:
    """The two services with their volumes: `directory`/data, secrets and tmp."""

    def __init__(self, directory: Path) -> None:
        self.installation = Installation()
        try:
            self.installation.prepare()
        except CannotInstall as error:
            skip_or_fail(str(error))
        self.directory = directory
        self.port = free_port()
        for name in ("data", "secrets", "tmp"):
            (directory / name).mkdir()
        self.write_secret("bugsink_secret_key", secrets.token_urlsafe(64))
        self.write_secret("stack_password", PASSWORD)

    def write_secret(self, name: str, value: str) -> None:
        """Put a secret where the services read it."""
        (self.directory / "secrets" / name).write_text(f"{value}\n")

    def environment(self, **more: str) -> dict[str, str]:
        """What docker-compose.yml sets, with the places of the volumes."""
        return {
            "PATH": f"{Path(self.installation.program('python')).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(CONFIGURATION),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DJANGO_SETTINGS_MODULE": "bugsink_settings",
            "BUGSINK_DATA": str(self.directory / "data"),
            "BUGSINK_SECRETS": str(self.directory / "secrets"),
            "BUGSINK_SCRATCH": str(self.directory / "tmp"),
            "BUGSINK_BASE_URL": PUBLISHED,
            "BUGSINK_UID": str(os.geteuid()),
            "BUGSINK_KEY": KEY,
        } | more

    def set_up(self, **more: str) -> subprocess.CompletedProcess[str]:
        """Run bugsink-setup."""
        return subprocess.run(
            [self.installation.program("python"), CONFIGURATION / "bugsink_setup.py"],
            env=self.environment(**more),
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=180,
            check=False,
        )

    @contextmanager
    def running(self, **more: str) -> Iterator[None]:
        """Run the service bugsink."""
        migrate = ["bugsink-manage", "migrate", "snappea", "--database=snappea", "--verbosity=0"]
        serve = [
            "gunicorn",
            f"--bind=127.0.0.1:{self.port}",
            "--workers=2",
            "--no-control-socket",
            "--access-logfile=/dev/null",
            "bugsink.wsgi",
        ]
        log = self.directory / "log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    self.installation.program("monofy"),
                    *migrate,
                    "&&",
                    *serve,
                    "|||",
                    "bugsink-runsnappea",
                ],
                env=self.environment(**more),
                cwd=self.directory,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            wait_until(self._is_ready, f"bugsink answers\n{log.read_text()}", ARRIVAL_SECONDS)
            yield
        finally:
            process.terminate()
            process.wait(60)

    def _is_ready(self) -> bool:
        try:
            return self.client("127.0.0.1").get("/health/ready").status_code == 200
        except httpx2.TransportError:
            return False

    def client(self, host: str, scheme: str = "http") -> httpx2.Client:
        """A browser or a service that knows bugsink by another name."""
        return httpx2.Client(
            base_url=f"http://127.0.0.1:{self.port}",
            headers={"Host": host, "X-Forwarded-Proto": scheme},
            trust_env=False,
            timeout=60,
        )

    def log_in(self, password: str = PASSWORD) -> httpx2.Client:
        """Log in as a person does who comes through the gateway; return the browser."""
        browser = self.client("localhost:8010")
        page = browser.get("/accounts/login/").text
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
        assert token is not None
        browser.post(
            "/accounts/login/",
            data={"username": USER, "password": password, "csrfmiddlewaretoken": token[1]},
            headers={"Origin": PUBLISHED},
        )
        return browser


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack's Bugsink, set up twice: as on the second `docker compose up`."""
    stack = Stack(tmp_path_factory.mktemp("bugsink-stack"))
    for told in ("made", "up to date"):
        result = stack.set_up()
        assert result.returncode == 0, result.stderr
        assert result.stdout == f"The project glasshouse is {told}. Log in as {USER}.\n"
        assert PASSWORD not in result.stdout + result.stderr
    with stack.running():
        yield stack


def is_logged_in(browser: httpx2.Client) -> bool:
    """Whether the pages are shown, and not the one that asks for a login."""
    return browser.get("/issues/1/").status_code == 200


def page_that_shows(read: Callable[[], str], what: str) -> str:
    """Wait until a page shows `what`; return the page."""
    pages = [""]

    def arrived() -> bool:
        pages[0] = read()
        return what in pages[0]

    wait_until(arrived, f"{what} is shown", ARRIVAL_SECONDS)
    return pages[0]


@pytest.fixture
def reported(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An exception of the real error tracking, sent to the address that services inside use."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")

    class Inside(HttpTransport):
        """Reaches the host `bugsink` on loopback, as Docker's DNS makes it reachable."""

        def _send_request(
            self, body: Any, headers: dict[str, str], *args: Any, **named: Any
        ) -> None:
            super()._send_request(body, headers | {"Host": "bugsink:8000"}, *args, **named)

    setup_error_tracking(
        ErrorTrackingSettings.model_validate(
            {
                "sentry_dsn": f"http://{KEY}@127.0.0.1:{stack.port}/1",
                "trace_url_template": "http://localhost:16686/trace/{trace_id}",
                "logs_url_template": "http://localhost:3000/explore?panes=%7B%22{trace_id}%22%7D&a=1",
            }
        ),
        transport=Inside,
    )
    use_trace_source(lambda: (TRACE_ID, SPAN_ID))
    report_exception(ZeroDivisionError("<script>alert(1)</script>"), route="/v1/orders")
    flush_errors(30)
    yield
    use_trace_source(lambda: ("", ""))
    setup_error_tracking(ErrorTrackingSettings.model_validate({"sentry_dsn": None}))
    assert not sentry_sdk.get_client().is_active()


def test_a_person_logs_in_with_the_stack_s_password_and_with_no_other(stack: Stack) -> None:
    assert is_logged_in(stack.log_in())
    assert not is_logged_in(stack.log_in("another"))
    assert not is_logged_in(stack.client("localhost:8010"))


def test_it_answers_to_no_other_name(stack: Stack) -> None:
    assert stack.client("elsewhere.example").get("/accounts/login/").status_code == 400
    assert stack.client("bugsink:8000").get("/accounts/login/").status_code == 200


def test_the_project_s_address_is_the_one_of_the_stack(stack: Stack) -> None:
    page = stack.log_in().get("/projects/1/sdk-setup/", follow_redirects=True).text
    assert f"http://{KEY}@localhost:8010/1" in page


@pytest.mark.usefixtures("reported")
def test_an_error_is_found_by_its_trace_and_leads_to_the_trace_and_its_logs(stack: Stack) -> None:
    browser = stack.log_in()
    search = f"/issues/1/all/?q=trace:{TRACE_ID}"
    found = page_that_shows(lambda: browser.get(search).text, "ZeroDivisionError")
    issue = re.search(r"/issues/issue/([-0-9a-f]{36})/", found)
    assert issue is not None
    nothing = browser.get(f"/issues/1/all/?q=trace:{uuid.uuid4().hex}").text
    assert "ZeroDivisionError" not in nothing

    details = browser.get(f"/issues/issue/{issue[1]}/event/last/details/").text
    links = re.findall(r'<a href="([^"]+)" class="underline" rel="noopener', details)
    assert links == [
        f"http://localhost:16686/trace/{TRACE_ID}",
        f"http://localhost:3000/explore?panes=%7B%22{TRACE_ID}%22%7D&amp;a=1",
    ]
    assert "<script>alert(1)" not in details


def test_behind_tls_cookies_are_for_https_only(tmp_path: Path) -> None:
    stack = Stack(tmp_path)
    secure = {"BUGSINK_BASE_URL": "https://localhost:8010"}
    result = stack.set_up(**secure)
    assert result.returncode == 0, result.stderr
    with stack.running(**secure):
        browser = stack.client("localhost:8010", "https")
        page = browser.get("/accounts/login/")
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page.text)
        assert token is not None
        answer = stack.client("localhost:8010", "https").post(
            "/accounts/login/",
            data={"username": USER, "password": PASSWORD, "csrfmiddlewaretoken": token[1]},
            headers={
                "Origin": "https://localhost:8010",
                "Cookie": page.headers["Set-Cookie"].partition(";")[0],
            },
        )
    assert answer.status_code == 302
    cookies = [*page.headers.get_list("Set-Cookie"), *answer.headers.get_list("Set-Cookie")]
    names = {cookie.partition("=")[0] for cookie in cookies}
    assert names == {"csrftoken", "glasshouse_bugsink_session"}
    assert all("; Secure" in cookie for cookie in cookies)


def test_a_new_password_is_applied_and_the_same_one_ends_no_session(stack: Stack) -> None:
    before = stack.log_in()
    assert stack.set_up().returncode == 0
    assert is_logged_in(before)

    stack.write_secret("stack_password", "another-horse")
    try:
        assert stack.set_up().returncode == 0
        assert not is_logged_in(before)
        assert is_logged_in(stack.log_in("another-horse"))
    finally:
        stack.write_secret("stack_password", PASSWORD)
        assert stack.set_up().returncode == 0


def test_who_was_the_user_before_cannot_log_in_any_more(stack: Stack) -> None:
    try:
        assert stack.set_up(BUGSINK_USER="another@glasshouse.localhost").returncode == 0
        assert not is_logged_in(stack.log_in())
    finally:
        assert stack.set_up().returncode == 0
    assert is_logged_in(stack.log_in())


@pytest.mark.parametrize(
    ("secret", "key", "told"),
    [
        (PASSWORD, "not-a-key", "BUGSINK_KEY has to be 32 hexadecimal digits"),
        (PASSWORD, "", "BUGSINK_KEY has to be 32 hexadecimal digits"),
        ("", KEY, "The secret stack_password is empty"),
    ],
)
def test_what_is_missing_is_told_in_one_sentence(
    tmp_path: Path, secret: str, key: str, told: str
) -> None:
    stack = Stack(tmp_path)
    stack.write_secret("stack_password", secret)
    result = stack.set_up(BUGSINK_KEY=key)
    assert result.returncode == 1
    assert told in result.stderr
    assert "Traceback" not in result.stderr
