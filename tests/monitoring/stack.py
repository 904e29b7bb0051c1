"""The whole house on loopback: the service, what it stands on, and the monitoring that watches it.

Every program is the real one and every configuration is made from the deployed file (stack_configuration.py).
Parts are stopped, frozen and started again by a test through their own attributes: `stack.postgres.stop()`,
`stack.provider.stop()`, `stack.worker.start()`. Nothing survives the process that started the stack
(tests/guard.py), however that process ends.

    stack_programs.py        Debian's programs, and ours of the sandbox, as servers
    stack_configuration.py   their configuration
    stack_postgres.py        a database that survives its stop
    mailbox.py               where e-mail goes
    stack_https.py           an address with a certificate
    stack_watcher.py         what is asked of Prometheus and Alertmanager
    customers.py             who makes the traffic
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from monitoring.build.profile import DEMO, Profile
from tests.monitoring.customers import Customers
from tests.monitoring.mailbox import Mailbox
from tests.monitoring.stack_configuration import (
    MONITORING,
    add_rules,
    write_alertmanager,
    write_prometheus,
)
from tests.monitoring.stack_https import HttpsAddress
from tests.monitoring.stack_postgres import LastingPostgres
from tests.monitoring.stack_programs import (
    Place,
    Program,
    SandboxProgram,
    alertmanager,
    blackbox_exporter,
    node_exporter,
    postgres_exporter,
    prometheus,
    redis_exporter,
)
from tests.monitoring.stack_watcher import Watcher
from tests.otlp import Receiver
from tests.provider import RunningProvider
from tests.service import RunningProcess, migrate_database
from tests.tools import RedisServer, Server

ENVIRONMENT: Final = "test"
CLUSTER: Final = "loopback"
SYNTHETIC_TOKEN: Final = "synthetic-token-of-the-tests"

DROPPED: Final = "prometheus_notifications_dropped_total"
SCRAPED: Final = ({"up"}, {"down"}, {"up", "down"})
"""What is known of targets when all of them have been scraped."""

Step = Callable[[], None]


class LiveStack(Watcher):
    """Starts everything on entering, ends everything on leaving.

    Args:
        profile: How fast time passes; in the demonstration a minute is a second.
        synthetic: Whether the synthetic journey runs, too.
        settings: More variables for the API and the worker, such as DATABASE_POOL_SIZE.
        recorded: The ports of what stands for programs that run in containers only, by their `host:port`.
    """

    def __init__(
        self,
        *,
        profile: Profile = DEMO,
        synthetic: bool = True,
        settings: Mapping[str, str] | None = None,
        recorded: Mapping[str, int] | None = None,
    ) -> None:
        # Open to PostgreSQL's own account, which may not enter pytest's directories.
        self.directory = Path(tempfile.mkdtemp(prefix="live-stack-"))
        self.directory.chmod(0o711)
        self.textfiles = self.directory / "textfiles"
        """What commands leave for the node exporter, such as `python -m deploy.backup --metrics`."""
        self.textfiles.mkdir()
        place = Place(os.getpid(), self.directory)
        self.mailbox = Mailbox()
        self.spans = Receiver()
        self.https = HttpsAddress(self.directory / "https")
        self.postgres = LastingPostgres(name="postgres", **place._asdict())
        self.redis = RedisServer(name="redis", **place._asdict())
        self.provider = RunningProvider(
            self.directory, {"OTEL_EXPORTER_OTLP_ENDPOINT": self.spans.url}
        )
        environment = {
            "DATABASE_URL": self.postgres.url,
            "REDIS_URL": self.redis.url,
            "PAYMENT_PROVIDER_URL": self.provider.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.spans.url,
            "OTEL_TRACES_SAMPLER_ARG": "1",
            "WEB_CONCURRENCY": "1",
            "SYNTHETIC_TOKEN": SYNTHETIC_TOKEN,
            **(settings or {}),
        }
        self.api = RunningProcess("serve", self.directory, environment)
        self.worker = RunningProcess("worker", self.directory, environment)
        self.page = _page(place)
        self.synthetic = _synthetic(place, self.api.url) if synthetic else None
        self.node_exporter = node_exporter(place, textfiles=self.textfiles)
        self.blackbox_exporter = blackbox_exporter(
            place,
            configuration=MONITORING / "blackbox/blackbox.yml",
            authority=self.https.authority,
        )
        self.redis_exporter = redis_exporter(place, redis_url=self.redis.url)
        self.postgres_exporter = postgres_exporter(
            place,
            database_url=f"postgresql://postgres@127.0.0.1:{self.postgres.port}/postgres?sslmode=disable",
        )
        self._profile = profile
        self._configuration = configuration = self.directory / "prometheus-configuration"
        self.prometheus = prometheus(
            place,
            configuration=configuration / "prometheus.yml",
            environment={"ENVIRONMENT": ENVIRONMENT, "CLUSTER": CLUSTER},
        )
        alertmanager_configuration = self.directory / "alertmanager.yml"
        self.alertmanager = alertmanager(place, configuration=alertmanager_configuration)
        addresses = self._addresses(recorded or {})
        write_prometheus(
            configuration,
            profile,
            addresses,
            without=() if self.synthetic else ("synthetic",),
            https=self.https.url,
        )
        write_alertmanager(alertmanager_configuration, profile, addresses)
        self._resources = ExitStack()

    def customers(self, *, rounds_per_second: float = 2.0) -> Customers:
        """Return customers of this stack's service; they come with the block."""
        return Customers(self.api.url, rounds_per_second=rounds_per_second)

    def _addresses(self, recorded: Mapping[str, int]) -> dict[str, str]:
        """Return what stands for each `host:port` of the deployed files."""
        ports = {
            "app:8000": self.api.port,
            "worker:8002": self.worker.port,
            "payment-provider:8001": self.provider.port,
            "notifications:8003": self.page.port,
            "postgres-exporter:9187": self.postgres_exporter.port,
            "redis-exporter:9121": self.redis_exporter.port,
            "node-exporter:9100": self.node_exporter.port,
            "blackbox-exporter:9115": self.blackbox_exporter.port,
            "alertmanager:9093": self.alertmanager.port,
            "localhost:9090": self.prometheus.port,
            "mailpit:1025": self.mailbox.port,
        }
        if self.synthetic:
            ports["synthetic:8004"] = self.synthetic.port
        ports |= recorded
        return {host: f"127.0.0.1:{port}" for host, port in ports.items()}

    def _start_database(self) -> None:
        self.postgres.start()
        migrate_database(self.postgres.url)

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        self._resources.callback(shutil.rmtree, self.directory, ignore_errors=True)
        self._resources.callback(_stop, self._parts())
        self._resources.enter_context(self.mailbox.running())
        self._resources.enter_context(self.spans.running())
        self._resources.enter_context(self.https.running())
        _at_once(
            self._start_database,
            self.redis.start,
            self.provider.start,
            self.page.start,
            self.alertmanager.start,
            self.node_exporter.start,
            self.blackbox_exporter.start,
        )
        _at_once(
            self.api.start,
            self.worker.start,
            self.postgres_exporter.start,
            self.redis_exporter.start,
        )
        # Last: what is not there yet would be an alert.
        if self.synthetic:
            self.synthetic.start()
        self.prometheus.start()
        self._start_rules()

    def _start_rules(self) -> None:
        # Prometheus looks for its targets 5 seconds after its start. In production that is less than any
        # alert waits; here it would tell that nobody is up.
        self.wait_for(
            lambda: {target.health for target in self.targets()} in SCRAPED,
            "every target has been scraped",
        )
        add_rules(self._configuration, self._profile)
        self.prometheus.reload()
        self.wait_for(lambda: bool(self.rules()), "Prometheus has its rules")
        # It also looks for Alertmanager 5 seconds after it has read its configuration, and counts as dropped
        # what it has to tell before: an alert of its own, which is over before a test begins.
        self.wait_for_notification("Watchdog")
        self.wait_for_query(
            f"sum(increase({DROPPED}[5s]))", lambda found: [value for _, value in found] == [0]
        )
        self.wait_for_alert("PrometheusNotificationsFailing", "inactive")

    def _parts(self) -> list[Step]:
        parts: list[Server | RunningProcess | RunningProvider] = [
            self.prometheus,
            self.alertmanager,
            self.page,
            self.api,
            self.worker,
            self.provider,
            self.node_exporter,
            self.blackbox_exporter,
            self.postgres_exporter,
            self.redis_exporter,
            self.redis,
            self.postgres,
            *([self.synthetic] if self.synthetic else []),
        ]
        return [part.stop for part in parts]

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resources.close()


def _page(place: Place) -> Program:
    return SandboxProgram(
        name="notifications",
        place=place,
        module="sandbox.notifications",
        port_variable="NOTIFICATIONS_PORT",
        environment={
            "NOTIFICATIONS_DATABASE": "{directory}/notifications.db",
            "NOTIFICATIONS_RUNBOOKS": str(MONITORING.parent / "docs/runbooks"),
        },
    )


def _synthetic(place: Place, api_url: str) -> Program:
    return SandboxProgram(
        name="synthetic",
        place=place,
        module="sandbox.synthetic_journey",
        port_variable="SYNTHETIC_PORT",
        environment={
            "SYNTHETIC_API_URL": api_url,
            "SYNTHETIC_TOKEN": SYNTHETIC_TOKEN,
            # A minute in production; a second would keep one of two processors busy with hashing passwords.
            "SYNTHETIC_INTERVAL_SECONDS": "4",
            "SYNTHETIC_JITTER_SECONDS": "0",
        },
    )


def _at_once(*steps: Step) -> None:
    with ThreadPoolExecutor(len(steps)) as threads:
        for future in [threads.submit(step) for step in steps]:
            future.result()


def _stop(steps: Iterable[Step]) -> None:
    def stop(step: Step) -> None:
        with contextlib.suppress(AssertionError):  # never started
            step()

    _at_once(*(lambda step=step: stop(step) for step in steps))
