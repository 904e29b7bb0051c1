"""One run of everything, with secrets in every place, and all that came out of it.

Three sets of processes share one collector and one error tracker: the service in order (PostgreSQL, DEBUG,
faults), the service that finds every statement slow and explains it (TRACE) and has a provider whose
answers are garbage, and the service whose every dependency is away (console format).
"""

import gzip
import json
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from tests.contract.canary import journey
from tests.contract.canary.canaries import Aviary, Canary, letters
from tests.contract.canary.clients import Client
from tests.contract.canary.processes import PROGRAM, Process, run_to_end
from tests.contract.canary.search import Haystack, Leak, spellings
from tests.contract.canary.sinks import BrokenProvider, Receiver, decoded_spans, read_columns
from tests.nursery import Nursery, open_nursery
from tests.service import migrate_database
from tests.tools import run_async, wait_until

PAGES = (
    "/metrics",
    "/health",
    "/health/ready",
    "/health/detailed",
    "/debug/tasks",
    "/debug/memory",
)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was put in, and what came out."""

    canaries: list[Canary]
    found: list[Leak]
    leaked: set[tuple[str, str]]
    """Where the deliberate leaks were found, with the spelling: that in which each was leaked."""
    sinks: dict[str, bytes]
    told: list[str]
    """Answers that were not as expected: what was not refused as planned was not tried."""
    exits: dict[str, int]


class Evening:
    """Holds what the parts of the run share."""

    def __init__(self, directory: Path, nursery: Nursery, database_url: str) -> None:
        self.directory = directory
        self.nursery = nursery
        self.aviary = Aviary()
        self.clients: list[Client] = []
        self.sinks: dict[str, bytes] = {}
        self.exits: dict[str, int] = {}
        self.otlp, self.sentry = Receiver(), Receiver()
        self.operations_token = self.aviary.new("opaque token", "OPERATIONS_TOKEN")
        self.synthetic_token = self.aviary.new("opaque token", "SYNTHETIC_TOKEN")
        self.plain_database_url = database_url
        password = self.aviary.new("word", "password in DATABASE_URL")
        self.database_url = (
            make_url(database_url).set(password=password).render_as_string(hide_password=False)
        )
        new = self.aviary.new
        self.environment = {
            "ENVIRONMENT": "test",
            "LOG_FORMAT": "json",
            "LOG_LEVEL": "DEBUG",
            "DATABASE_URL": self.database_url,
            "DATABASE_SLOW_QUERY_MS": "1000000",  # of the slow ones, below
            "SECRET_KEY": self.aviary.keep("key", "SECRET_KEY", journey.unsafe_secret()),
            "AUDIT_KEY": self.aviary.keep("key", "AUDIT_KEY", journey.unsafe_secret()),
            "OPERATIONS_TOKEN": self.operations_token,
            "SYNTHETIC_TOKEN": self.synthetic_token,
            "SENTRY_DSN": f"http://{new('word', 'SENTRY_DSN')}:{new('word', 'SENTRY_DSN')}"
            f"@127.0.0.1:{self.sentry.port}/1",
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://u:{new('word', 'OTEL_EXPORTER_OTLP_ENDPOINT')}"
            f"@127.0.0.1:{self.otlp.port}",
            "OTEL_TRACES_SAMPLER_ARG": "1",
            "EXTERNAL_READ_TIMEOUT_SECONDS": "0.5",
            "EXTERNAL_ATTEMPTS": "1",
            "CIRCUIT_FAILURE_THRESHOLD": "100000",
            "RATE_LIMIT_LOGIN": "1000000/minute",
            "RATE_LIMIT_REGISTRATION": "1000000/minute",
        }

    def start(self, name: str, command: str, **environment: str) -> Process:
        return Process(self.nursery, name, [command], {**self.environment, **environment})

    def client(self, process: Process) -> Client:
        process.until_it_answers()
        self.clients.append(Client(process.name, process.port, self.aviary))
        return self.clients[-1]

    def look(self, process: Process, *, is_down: bool = False) -> None:
        """Read the pages that are for operators."""
        client = Client(process.name, process.port, self.aviary)
        token = {"Authorization": f"Bearer {self.operations_token}"}
        for page in PAGES:
            expect = 503 if is_down and page.startswith("/health") else 200
            answer = client.ask("GET", page, expect=expect, headers=token)
            self.sinks[f"{process.name} {page}"] = answer.body
        self.clients.append(client)

    def end(self, process: Process) -> None:
        self.exits[process.name] = process.end()
        self.sinks[f"{process.name} output"] = process.log()


def spend_evening(directory: Path, database_url: str) -> Evidence:
    """Return the evidence of one run on the empty PostgreSQL database `database_url`."""
    migrate_database(database_url)
    with ExitStack() as stack:
        nursery = stack.enter_context(open_nursery(PROGRAM, directory))
        evening = Evening(directory, nursery, database_url)
        stack.enter_context(evening.otlp.running())
        stack.enter_context(evening.sentry.running())
        # Short, since an audit entry has 64 characters for what it is about; each with what its
        # spelling treats in its own way, and what no signal has to escape.
        special = {"JSON": ' "\u00f6', "Python": "\t'"}
        leaks = {name: f"{letters(16)}{special.get(name, ' /+&')}" for name in spellings("")}
        leaked = [spellings(leak)[name] for name, leak in leaks.items()]
        _in_order(evening, leaked)
        _slow(evening)
        _alone(evening)
        _unheard(evening)
        _commands(evening)
        _refused_starts(evening)
        evening.sinks["collector"] = evening.otlp.content() + decoded_spans(evening.otlp)
        evening.sinks["error tracker"] = evening.sentry.content()
        for column, content in run_async(read_columns(database_url)).items():
            evening.sinks[f"database {column}"] = content
        haystack = Haystack(evening.sinks)
        leaked_canaries = [Canary(name, "everywhere", leak) for name, leak in leaks.items()]
        return Evidence(
            canaries=evening.aviary.all,
            found=haystack.find(evening.aviary.all),
            leaked={
                (leak.sink, leak.spelling)
                for leak in haystack.find(leaked_canaries)
                if leak.canary.kind == leak.spelling
            },
            sinks=evening.sinks,
            told=[line for client in evening.clients for line in client.told],
            exits=evening.exits,
        )


def _in_order(evening: Evening, leaked: list[str]) -> None:
    known = evening.aviary.new("e-mail", "e-mail address that a statement repeats", journey.EMAIL)
    ordered = journey.faults(evening.aviary, known, leaked)
    (evening.directory / "faults.json").write_text(json.dumps(ordered))
    faults = {"CANARY_FAULTS": str(evening.directory / "faults.json")}
    provider = evening.start(
        "provider",
        "provider",
        PROVIDER_LATENCY_MS="0",
        PROVIDER_TIMEOUT_SECONDS="1",
        PROVIDER_DATABASE=str(evening.directory / "provider.db"),
    )
    credentials = evening.aviary.new("word", "password in PAYMENT_PROVIDER_URL")
    url = {"PAYMENT_PROVIDER_URL": f"http://shop:{credentials}@127.0.0.1:{provider.port}"}
    api = evening.start("api", "serve", **url, **faults)
    worker = evening.start("worker", "worker", **url, **faults)
    asked = evening.client(provider)
    client = evening.client(api)
    evening.client(worker)
    ada = journey.walk(client)
    person = {"email": known, "password": "not a canary", "name": "Known"}
    client.ask("POST", "/v1/users", json_body=person, expect=201)
    run_async(_publish(evening.plain_database_url, journey.damaged_message(evening.aviary)))
    journey.stumble(client, ada)
    journey.fail(client, ada, ordered)
    # The monitoring's own request, one that fails and is told to everybody.
    mark = {"X-Synthetic-Token": evening.synthetic_token}
    failing = next(one for one, fault in ordered.items() if fault.get("name") == "raise")
    ada.ask("GET", f"/v1/orders/{failing}", expect=500, headers=mark)
    for note in leaked:
        asked.ask("GET", "/health", expect=200, headers={"User-Agent": note})
        asked.ask("GET", "/v1/behaviour", expect=200, headers={"User-Agent": note})
    asked.ask(
        "GET",
        f"/{quote(evening.aviary.new('e-mail', 'path at the provider'))}",
        expect=404,
        noise=True,
    )
    # The worker has met what was damaged, and tells it a second time.
    wait_until(lambda: worker.log().count(b'"type":"error"') >= 3, "jobs fail", 60)
    for process in (api, worker):
        evening.look(process)
    evening.sinks["provider /metrics"] = asked.ask("GET", "/metrics", expect=200).body
    for process in (api, worker, provider):
        evening.end(process)


async def _publish(url: str, message: dict[str, str]) -> None:
    engine = create_async_engine(url, poolclass=NullPool)
    insert = (
        "INSERT INTO outbox_messages (id, topic, payload, headers, created_at)"
        " VALUES (CAST(:id AS uuid), 'payment.captured', CAST(:payload AS json),"
        " CAST(:headers AS json), now())"
    )
    async with engine.begin() as connection:
        await connection.execute(text(insert), {"id": str(uuid.uuid4()), **message})
    await engine.dispose()


def _slow(evening: Evening) -> None:
    aviary = evening.aviary
    garbage = [
        (201, journey.recognisable(aviary, "provider's answer, no JSON")),
        (201, json.dumps({"status": aviary.new("e-mail", "provider's answer, wrong status")})),
        (500, json.dumps({"detail": aviary.new("word", "provider's answer, a problem")})),
    ]
    repeated = str(uuid.uuid4())
    fault = {repeated: {"name": "repeat", "said": journey.said(aviary, "repeat")}}
    (evening.directory / "slow.json").write_text(json.dumps(fault))
    reason = aviary.new("word", "provider's answer, unknown reason")
    garbage.append((201, json.dumps({"status": "declined", "decline_reason": reason})))
    with BrokenProvider(garbage).running() as broken:
        api = evening.start(
            "slow api",
            "serve",
            LOG_LEVEL="TRACE",
            DATABASE_SLOW_QUERY_MS="0.0001",
            DATABASE_EXPLAIN_SLOW_QUERIES="true",
            DATABASE_N_PLUS_ONE_THRESHOLD="2",
            FORWARDED_ALLOW_IPS="127.0.0.1",
            RATE_LIMIT_LOGIN="2/year",
            LOG_SAMPLE="GET /v1/orders=0.5",
            CANARY_FAULTS=str(evening.directory / "slow.json"),
            PAYMENT_PROVIDER_URL=f"http://127.0.0.1:{broken.port}",
        )
        client = evening.client(api)
        ada = journey.Person(client, "Ada at the slow api")
        ada.register(noise=True)
        ada.log_in(noise=True)
        for _ in garbage:
            ada.pay(ada.order(), noise=True)
        forwarded = {"X-Forwarded-For": aviary.new("IPv6 address", "X-Forwarded-For")}
        for expect in (200, 200, 429):
            client.ask("POST", "/v1/auth/token", form=ada.form(), headers=forwarded, expect=expect)
        ada.ask("GET", "/v1/orders", expect=200, noise=True)
        ada.ask("GET", "/v1/users/me/export", expect=200, noise=True)
        explained = _plans_of_users(api.log())
        ada.ask("GET", f"/v1/orders/{repeated}", expect=404, noise=True)
        wait_until(lambda: _plans_of_users(api.log()) > explained, "its plan is told", 60)
        evening.look(api)
        evening.end(api)


def _plans_of_users(log: bytes) -> int:
    plans = [line for line in log.splitlines() if b'"event":"query_plan"' in line]
    return sum(b'"table":"users"' in line for line in plans)


def _alone(evening: Evening) -> None:
    new = evening.aviary.new
    api = evening.start(
        "lonely api",
        "serve",
        LOG_FORMAT="console",
        DATABASE_URL=f"postgresql://shop:{new('word', 'DATABASE_URL of nobody')}@127.0.0.1:9/shop",
        REDIS_URL=f"redis://:{new('word', 'REDIS_URL of nobody')}@127.0.0.1:9/0",
        PAYMENT_PROVIDER_URL=f"http://u:{new('word', 'PAYMENT_PROVIDER_URL of nobody')}@127.0.0.1:9",
        CORS_ORIGINS="https://shop.example",
    )
    client = evening.client(api)
    ada = journey.Person(client, "Ada at the lonely api", erased=True)
    for _ in range(3):
        ada.register(503, noise=True)
    ada.log_in(503, noise=True)
    text = journey.recognisable(evening.aviary, "body at the lonely api")
    client.ask("POST", "/v1/users", body=text, expect=422, noise=True)
    client.ask("GET", f"/{quote(text)}", expect=404)
    evening.look(api, is_down=True)
    evening.end(api)


def _unheard(evening: Evening) -> None:
    """Run a worker that can reach nothing, neither its database nor those who collect its signals."""
    new = evening.aviary.new
    worker = evening.start(
        "unheard worker",
        "worker",
        DATABASE_URL=f"postgresql://shop:{new('word', 'DATABASE_URL of nobody')}@127.0.0.1:9/shop",
        PAYMENT_PROVIDER_URL=f"http://u:{new('word', 'PAYMENT_PROVIDER_URL of nobody')}@127.0.0.1:9",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://u:{new('word', 'collector of nobody')}@127.0.0.1:9",
        OTEL_EXPORTER_OTLP_HEADERS=f"x-key {new('word', 'OTEL_EXPORTER_OTLP_HEADERS')}",
        SENTRY_DSN=f"http://{new('word', 'SENTRY_DSN of nobody')}@127.0.0.1:9/1",
    )
    evening.client(worker)
    wait_until(lambda: b"Unhandled exception" in worker.log(), "the worker fails", 60)
    evening.look(worker, is_down=True)
    evening.end(worker)


def _commands(evening: Evening) -> None:
    archive = evening.directory / "archive"
    archive.mkdir()
    for name, arguments in {
        "audit list": ["audit", "list", "--limit", "1000"],
        "audit verify": ["audit", "verify"],
        "dead letters": ["dead-letters"],
        # What it moves into files is not in the table any more, so it comes last.
        "audit archive": ["audit", "archive", "--older-than-days", "0", "--to", str(archive)],
    }.items():
        evening.exits[name], said = run_to_end(
            evening.nursery, name, arguments, evening.environment
        )
        evening.sinks[name] = said
    evening.sinks["audit files"] = b"\n".join(
        gzip.decompress(file.read_bytes()) for file in sorted(archive.glob("*.gz"))
    )


def _refused_starts(evening: Evening) -> None:
    def new() -> str:
        return evening.aviary.new("word", "a setting that is malformed")

    production = {"ENVIRONMENT": "production", "REDIS_URL": f"redis://:{new()}@h/0"}
    for number, wrong in enumerate(
        (
            {"DATABASE_URL": f"mysql://u:{new()}@h/{new()}"},
            {"DATABASE_URL": f"postgresql://u:{new()}@h:{new()}/x"},
            {"DATABASE_URL": new()},
            {"SECRET_KEY": new()},
            {"SENTRY_DSN": f"{new()}://h/1"},
            {"SENTRY_DSN": f"https://{new()}@h/{new()}"},
            {"SENTRY_DSN": f"https://key:{new()}/{new()}@h/1"},
            {"OTEL_EXPORTER_OTLP_ENDPOINT": f"u:{new()}@h:4318"},
            {"REDIS_URL": f"http://:{new()}@h/0"},
            {"PAYMENT_PROVIDER_URL": f"http://u:{new()}@h:{new()}"},
            {"RATE_LIMIT_LOGIN": new()},
            {"LOG_LEVEL": new()},
            {"LOG_SAMPLE": new()},
            {"PORT": new()},
            {"CORS_ORIGINS": "*", "SECRET_KEY": new() * 2, **production},
        )
    ):
        name = f"refused start {number}"
        environment = {**evening.environment, **wrong}
        evening.exits[name], said = run_to_end(evening.nursery, name, ["serve"], environment)
        evening.sinks[f"{name}: {', '.join(wrong)}"] = said
    wrong = {"PROVIDER_LATENCY_MS": new()}
    evening.exits["refused provider"], said = run_to_end(
        evening.nursery, "refused provider", ["provider"], wrong
    )
    evening.sinks["refused provider"] = said
    down = {"DATABASE_URL": f"postgresql://u:{new()}@127.0.0.1:9/x"}
    for command in (["migrate"], ["dead-letters"], ["audit", "list"]):
        name = f"without a database: {' '.join(command)}"
        environment = {**evening.environment, **down}
        evening.exits[name], evening.sinks[name] = run_to_end(
            evening.nursery, name, command, environment
        )
