"""The probes of monitoring/blackbox/blackbox.yml, made by the real exporter.

Each succeeds on the healthy service and fails on what it is there to find; a probe that cannot fail
watches nothing.
"""

import asyncio
import os
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx2
import pytest
import uvicorn
import yaml
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from app.main import create_app
from tests.provider import RunningProvider, start_provider
from tests.service import (
    ROOT,
    RunningProcess,
    migrate_database,
    start_process,
    test_settings,
)
from tests.tools import (
    Server,
    create_database,
    drop_database,
    free_port,
    require_tool,
    wait_until,
)

CONFIGURATION = ROOT / "monitoring" / "blackbox" / "blackbox.yml"
PATHS = {
    "home": "/",
    "live": "/health/live",
    "ready": "/health/ready",
    "health": "/health",
    "docs": "/docs",
}
SECONDS = 60.0
FRIENDLY_PAGE = b"<html><body>We will be back soon.</body></html>"


class Exporter(Server):
    """The blackbox exporter, which trusts the authorities in `authorities` and nobody else."""

    authorities = Path()

    def command(self, directory: Path) -> tuple[list[str], str]:
        program = str(require_tool("prometheus-blackbox-exporter"))
        return [
            "env", f"SSL_CERT_FILE={self.authorities}", "SSL_CERT_DIR=/nowhere", program,
            f"--config.file={CONFIGURATION}", f"--web.listen-address=127.0.0.1:{self.port}",
        ], "-"  # fmt: skip

    def is_ready(self) -> bool:
        try:
            return httpx2.get(f"http://127.0.0.1:{self.port}/-/healthy").status_code == 200
        except httpx2.TransportError:
            return False

    def probe(self, module: str, target: str) -> dict[str, float]:
        """Return what a probe found, by the name of the metric."""
        page = httpx2.get(
            f"http://127.0.0.1:{self.port}/probe",
            params={"module": module, "target": target},
            timeout=SECONDS,
        )
        return {
            sample.name: sample.value
            for family in text_string_to_metric_families(page.raise_for_status().text)
            for sample in family.samples
        }

    def succeeds(self, module: str, target: str) -> bool:
        """Whether a probe finds what it should."""
        return self.probe(module, target)["probe_success"] == 1


# Certificates -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Authority:
    """A certificate authority of this test's own."""

    directory: Path
    name: str

    @property
    def certificate(self) -> Path:
        return self.directory / f"{self.name}.pem"

    @classmethod
    def made(cls, directory: Path, name: str) -> "Authority":
        authority = cls(directory, name)
        _openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", f"/CN={name}",
            "-keyout", str(directory / f"{name}.key"), "-out", str(authority.certificate),
        )  # fmt: skip
        return authority

    def issue(self, name: str, *, days: int, host: str = "IP:127.0.0.1") -> ssl.SSLContext:
        """Return what a server with a certificate for `host`, good for so many days, needs."""
        key, request = self.directory / f"{name}.key", self.directory / f"{name}.csr"
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName = {host}\n")
        certificate = self.directory / f"{name}.pem"
        _openssl(
            "req", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}",
            "-keyout", str(key), "-out", str(request),
        )  # fmt: skip
        _openssl(
            "x509", "-req", "-in", str(request), "-CA", str(self.certificate),
            "-CAkey", str(self.directory / f"{self.name}.key"), "-CAcreateserial",
            "-days", str(days), "-extfile", str(extensions), "-out", str(certificate),
        )  # fmt: skip
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        return context

    def expiry(self, name: str) -> float:
        """Return the end of a certificate as Unix time."""
        shown = _openssl("x509", "-enddate", "-noout", "-in", str(self.directory / f"{name}.pem"))
        return float(ssl.cert_time_to_seconds(shown.strip().removeprefix("notAfter=")))


def _openssl(*arguments: str) -> str:
    done = subprocess.run(
        [str(require_tool("openssl")), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class _FriendlyPage(BaseHTTPRequestHandler):
    """Answers 200 with a page of a proxy, whatever is asked."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(FRIENDLY_PAGE)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(FRIENDLY_PAGE)

    def do_HEAD(self) -> None:
        self.do_GET()

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the library's
        """Say nothing."""


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve the friendly page, over TLS with a context; yield the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _FriendlyPage)
    if context is not None:
        # The handshake in the connection's own thread: one that fails must not end the server.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The authority that the exporter trusts."""
    return Authority.made(tmp_path_factory.mktemp("certificates"), "house")


@pytest.fixture(scope="module")
def exporter(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Exporter]:
    """The exporter with the deployed configuration."""
    directory = tmp_path_factory.mktemp("blackbox")
    server = Exporter(name="blackbox", owner=os.getpid(), directory=directory)
    server.authorities = authority.certificate
    server.start()
    yield server
    server.stop()


# The service ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def provider(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProvider]:
    """A payment provider."""
    with start_provider(tmp_path_factory.mktemp("provider")) as running:
        yield running


@pytest.fixture(scope="module")
def api(
    tmp_path_factory: pytest.TempPathFactory, provider: RunningProvider
) -> Iterator[RunningProcess]:
    """The API as a process."""
    directory = tmp_path_factory.mktemp("api")
    url = f"sqlite+aiosqlite:///{directory / 'service.db'}"
    migrate_database(url)
    with start_process("serve", directory, database_url=url, provider_url=provider.url) as process:
        wait_until(lambda: process.answers("/health/ready"), "the API is ready", SECONDS)
        yield process


@asynccontextmanager
async def served(database_url: str, provider_url: str) -> AsyncIterator[tuple[FastAPI, str]]:
    """Serve the API from this process, so that the test can reach into it; yield it and its address."""
    app = create_app(test_settings(database_url, payment_provider_url=provider_url))
    port = free_port()
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    serving_task = asyncio.create_task(server.serve())
    try:
        while not server.started:
            assert not serving_task.done()
            await asyncio.sleep(0.01)
        yield app, f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await serving_task


async def verdicts(exporter: Exporter, url: str) -> dict[str, bool]:
    """Return which probes succeed."""
    return {
        module: await asyncio.to_thread(exporter.succeeds, module, url + path)
        for module, path in PATHS.items()
    }


async def until(exporter: Exporter, url: str, wanted: dict[str, bool]) -> None:
    """Probe until the verdicts are what is wanted."""
    deadline = asyncio.get_running_loop().time() + SECONDS
    while (found := await verdicts(exporter, url)) != wanted:
        assert asyncio.get_running_loop().time() < deadline, found


@pytest.mark.parametrize("module", PATHS)
def test_every_probe_succeeds_on_a_healthy_service(
    exporter: Exporter, api: RunningProcess, module: str
) -> None:
    assert exporter.succeeds(module, api.url + PATHS[module])


@pytest.mark.parametrize("module", PATHS)
def test_a_friendly_page_of_somebody_else_is_no_success(exporter: Exporter, module: str) -> None:
    with serving() as port:
        found = exporter.probe(module, f"http://127.0.0.1:{port}{PATHS[module]}")

    assert found["probe_http_status_code"] == 200
    assert found["probe_failed_due_to_regex"] == 1
    assert found["probe_success"] == 0


@pytest.mark.parametrize("module", PATHS)
def test_nobody_there_is_a_failure(exporter: Exporter, module: str) -> None:
    assert not exporter.succeeds(module, f"http://127.0.0.1:{free_port()}{PATHS[module]}")


def test_the_probes_leave_no_trace_in_http_metrics(exporter: Exporter, api: RunningProcess) -> None:
    for module, path in PATHS.items():
        exporter.probe(module, api.url + path)

    lines = httpx2.get(f"{api.url}/metrics").text.splitlines()
    assert [line for line in lines if line.startswith("http_requests_total{")] == []


async def test_a_service_that_drains_is_live_and_not_ready(
    exporter: Exporter, tmp_path: Path, provider: RunningProvider
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'service.db'}"
    migrate_database(url)
    async with served(url, provider.url) as (app, address):
        await until(exporter, address, dict.fromkeys(PATHS, True))

        app.state.health.drain()

        not_ready = dict.fromkeys(PATHS, True) | {"ready": False, "health": False}
        assert await verdicts(exporter, address) == not_ready


async def test_a_service_without_its_database_is_live_and_not_ready(
    exporter: Exporter, postgres_url: str, provider: RunningProvider
) -> None:
    url = create_database(postgres_url)
    migrate_database(url)
    async with served(url, provider.url) as (_, address):
        await until(exporter, address, dict.fromkeys(PATHS, True))

        drop_database(url)

        not_ready = dict.fromkeys(PATHS, True) | {"ready": False, "health": False}
        await until(exporter, address, not_ready)


async def test_a_service_without_its_provider_is_ready_and_says_degraded(
    exporter: Exporter, tmp_path: Path
) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'service.db'}"
    migrate_database(url)
    async with served(url, f"http://127.0.0.1:{free_port()}") as (_, address):
        await until(exporter, address, dict.fromkeys(PATHS, True))

        verdict = await asyncio.to_thread(httpx2.get, f"{address}/health/ready")
        assert verdict.json()["status"] == "degraded"


# TLS --------------------------------------------------------------------------------------------------


def test_tls_tells_when_the_certificate_ends(exporter: Exporter, authority: Authority) -> None:
    with serving(authority.issue("shop", days=7)) as port:
        found = exporter.probe("tls", f"https://127.0.0.1:{port}")

    assert found["probe_success"] == 1
    assert found["probe_ssl_earliest_cert_expiry"] == authority.expiry("shop")


def test_tls_does_not_trust_everybody(exporter: Exporter, tmp_path: Path) -> None:
    foreign = Authority.made(tmp_path, "foreign")
    with serving(foreign.issue("shop", days=7)) as port:
        assert not exporter.succeeds("tls", f"https://127.0.0.1:{port}")


def test_tls_wants_the_name_that_was_asked_for(exporter: Exporter, authority: Authority) -> None:
    with serving(authority.issue("other", days=7, host="DNS:shop.example.com")) as port:
        assert not exporter.succeeds("tls", f"https://127.0.0.1:{port}")


def test_tls_wants_a_certificate_that_is_not_over(exporter: Exporter, authority: Authority) -> None:
    with serving(authority.issue("over", days=-1)) as port:
        assert not exporter.succeeds("tls", f"https://127.0.0.1:{port}")


def test_tls_wants_tls(exporter: Exporter) -> None:
    with serving() as port:
        assert not exporter.succeeds("tls", f"http://127.0.0.1:{port}")


# The configuration ------------------------------------------------------------------------------------


def test_prometheus_probes_with_every_module_and_no_other() -> None:
    modules = yaml.safe_load(CONFIGURATION.read_text("utf-8"))["modules"]
    prometheus = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text("utf-8"))
    (job,) = (one for one in prometheus["scrape_configs"] if one["job_name"] == "blackbox")
    probed = {one["labels"]["probe"] for one in job["static_configs"]}

    assert modules.keys() - {"tls"} == probed == PATHS.keys()


def test_no_probe_outlasts_its_scrape() -> None:
    modules = yaml.safe_load(CONFIGURATION.read_text("utf-8"))["modules"]
    prometheus = yaml.safe_load((ROOT / "monitoring/prometheus/prometheus.yml").read_text("utf-8"))
    scrape = int(prometheus["global"]["scrape_timeout"].removesuffix("s"))

    assert all(int(one["timeout"].removesuffix("s")) < scrape for one in modules.values())
