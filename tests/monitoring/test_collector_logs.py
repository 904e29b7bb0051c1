"""Log lines as Docker's driver sends them, through the real collector, as Loki would get them.

The lines are those that the real service wrote, and some of every other kind of program in the stack.
Without the collector these tests are skipped, and say so.
"""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path

import httpx2
import pytest

from tests.contract.canary.canaries import KINDS
from tests.monitoring.collector import Collector
from tests.monitoring.collector_fluent import PIECE, FluentClient
from tests.monitoring.collector_loki import LokiReceiver, ReceivedLine
from tests.monitoring.stack_programs import Place
from tests.monitoring.test_collector_redaction import BY_ITSELF
from tests.programs import needs
from tests.service import PASSWORD, migrate_database, start_process
from tests.tools import wait_until

pytestmark = needs("OTELCOL_BIN")

SECONDS = 60.0
OWN_PLACE = {"timestamp", "trace_id", "span_id", "service", "environment"}
"""Fields of ours that are no metadata, since Loki has a place for them."""
STRUCTURES = {"exception", "details", "analysis"}
FROM_ELSEWHERE = {"container_name", "log.iostream", "exception_type"}
LINE = {
    "timestamp": "2026-11-21T17:51:31.123Z",
    "level": "WARNING",
    "message": "Rate limit hit",
    "logger": "app.observability.security",
    "service": "glasshouse",
    "version": "0.1.0",
    "environment": "test",
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "span_id": "4234567890123456",  # digits only, like a card number
    "request_id": "r-1",
    "user_id": "",
    "type": "security",
}


class Way:
    """From a container's output to Loki."""

    def __init__(self, collector: Collector, loki: LokiReceiver) -> None:
        self.collector = collector
        self.loki = loki

    def send(self, *lines: str, tag: str = "app", source: str = "stdout") -> list[ReceivedLine]:
        """Send lines of one container; return what has arrived of them, in the same order."""
        before = len(self.loki.lines())
        with FluentClient(self.collector.fluent_port, tag=tag) as docker:
            for line in lines:
                docker.say(line, source=source)
        expected = sum(-(-len(line.encode()) // PIECE) for line in lines)
        wait_until(
            lambda: len(self.loki.lines()) >= before + expected,
            f"{expected} lines arrive\n{self.collector.log()}",
            SECONDS,
        )
        return self.loki.lines()[before:]


@pytest.fixture
def way(tmp_path: Path) -> Iterator[Way]:
    with ExitStack() as stack:
        loki = stack.enter_context(LokiReceiver().running())
        collector = Collector(Place(os.getpid(), tmp_path), loki=loki.otlp_url)
        stack.callback(collector.stop)
        collector.start()
        yield Way(collector, loki)


def ours(**fields: object) -> str:
    """Return a line as the service writes it."""
    return json.dumps(LINE | fields, separators=(",", ":"), ensure_ascii=False)


def test_lines_of_the_real_service_keep_their_text_and_their_fields(
    way: Way, tmp_path: Path, postgres_database: str, redis_database: str
) -> None:
    migrate_database(postgres_database)
    where = {"database_url": postgres_database, "provider_url": "http://127.0.0.1:9"}
    with start_process("serve", tmp_path, **where, REDIS_URL=redis_database) as api:
        account = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}
        with httpx2.Client(base_url=api.url, timeout=60, trust_env=False) as http:
            http.post("/v1/users", json=account).raise_for_status()
            http.post("/v1/auth/token", data={"username": "nobody@example.com", "password": "x"})
            http.get("/nowhere")
        wait_until(lambda: api.log().count('"type":"http_request"') == 3, "the lines are written")
        written = [line for line in api.log().splitlines() if line.startswith("{")]

    arrived = way.send(*written)

    assert sorted(line.body for line in arrived) == sorted(written)  # streams go by themselves
    assert {json.loads(line)["type"] for line in written} > {"http_request", "auth", "audit"}
    for line in arrived:
        said = json.loads(line.body)
        assert line.labels == {
            "service.name": "glasshouse",
            "service.namespace": "glasshouse",
            "deployment.environment.name": "test",
            "log_stream": "audit" if said["type"] == "audit" else "app",
        }
        assert (line.trace_id, line.span_id) == (said["trace_id"], said["span_id"])
        assert line.severity == said["level"]
        assert line.seconds == pytest.approx(datetime.fromisoformat(said["timestamp"]).timestamp())
        empty = {name for name, value in said.items() if value == ""}
        fields = said.keys() - OWN_PLACE - STRUCTURES
        for name in fields - empty:
            assert line.metadata[name] == said[name], name
        assert line.metadata.keys() - fields <= FROM_ELSEWHERE
    assert way.loki.paths == {"/otlp/v1/logs"}


def test_numbers_stay_numbers_and_structures_stay_in_the_body(way: Way) -> None:
    exception = {"type": "IntegrityError", "message": "x", "stacktrace": "File\n" * 500}
    text = ours(status=201, duration_ms=12.5, critical=True, exception=exception, details={"a": 1})

    (line,) = way.send(text)

    assert line.body == text
    assert (line.metadata["status"], line.metadata["duration_ms"]) == (201, 12.5)
    assert line.metadata["critical"] is True
    assert line.metadata["exception_type"] == "IntegrityError"
    assert line.metadata.keys() & STRUCTURES == set()
    assert sum(len(str(key)) + len(str(value)) for key, value in line.metadata.items()) < 1000


def test_nothing_can_be_more_than_loki_takes_for_a_line(way: Way) -> None:
    many = {f"field_{number}": "x" * 5000 for number in range(300)}

    parts = way.send(ours(type="audit", message="y" * 10_000), ours(**many)[: PIECE - 1])

    assert parts[0].labels["log_stream"] == "audit"
    for line in parts:
        assert len(line.metadata) < 120
        assert max(len(str(value)) for value in line.metadata.values()) <= 1024


def test_what_docker_cuts_stays_together_by_an_id_and_its_head_is_read(way: Way) -> None:
    text = ours(exception={"stacktrace": "File é\n" * 6000}, type="error", level="ERROR")

    parts = way.send(text, tag="worker")

    assert len(parts) > 2
    assert len({line.metadata["partial_id"] for line in parts}) == 1
    numbers = [line.metadata["partial_ordinal"] for line in parts]
    assert numbers == [str(number) for number in range(1, len(parts) + 1)]
    head, *rest = parts
    assert (head.labels["service.name"], head.severity) == ("glasshouse", "ERROR")
    assert (head.trace_id, head.metadata["type"]) == (LINE["trace_id"], "error")
    assert {line.labels["service.name"] for line in rest} == {"glasshouse-worker"}


def test_a_span_id_that_looks_like_a_card_number_stays_in_the_line(way: Way) -> None:
    (line,) = way.send(ours(note=KINDS["card"]()[0]))

    assert f'"span_id":"{LINE["span_id"]}"' in line.body
    assert '"note":"****"' in line.body
    assert line.metadata["note"] == "****"


@pytest.mark.parametrize(
    ("tag", "text", "level"),
    [
        ("prometheus", 'ts=2026-11-21T17:51:31Z level=warn msg="slow" component=tsdb', "WARNING"),
        ("prometheus", 'time=2026-11-21T17:51:31.1Z level=ERROR source=x.go:1 msg="no"', "ERROR"),
        ("grafana", "logger=context userId=0 t=2026-11-21T17:51:31Z level=info msg=done", "INFO"),
        ("gateway", '{"level":"error","ts":1795283491.1,"logger":"http","msg":"dial"}', "ERROR"),
        ("jaeger", '{"level":"info","ts":"2026","caller":"x.go:1","msg":"Config"}', "INFO"),
        ("postgres", "2026-11-21 17:51:31.123 UTC [27] LOG:  checkpoint starting: time", "INFO"),
        ("postgres", "2026-11-21 17:51:31.123 UTC [27] FATAL:  too many clients", "CRITICAL"),
        ("postgres", "2026-11-21 17:51:31.123 UTC [27] STATEMENT:  SELECT 1", ""),
        ("valkey", "1:M 21 Nov 2026 17:51:31.123 * Ready to accept connections tcp", "INFO"),
        ("valkey", "1:M 21 Nov 2026 17:51:31.123 # Memory overcommit must be enabled", "WARNING"),
        ("bugsink", "[2026-11-21 17:51:31 +0000] [7] [INFO] Listening at: http://0.0.0.0", "INFO"),
        ("mailpit", "just words", ""),
    ],
)
def test_a_line_of_another_program_keeps_its_text_and_gets_a_level_where_it_has_one(
    way: Way, tag: str, text: str, level: str
) -> None:
    (line,) = way.send(text, tag=tag, source="stderr")

    assert line.body == text
    assert line.labels == {
        "service.name": tag,
        "service.namespace": "platform",
        "deployment.environment.name": "development",
        "log_stream": "app",
    }
    assert line.severity == line.metadata.get("level", "") == level
    assert line.metadata["container_name"] == f"glasshouse-{tag}-1"
    assert line.metadata["log.iostream"] == "stderr"
    assert not line.metadata.keys() & {"container_id", "source", "fluent.tag"}
    assert bool(line.severity_number) == bool(level)


def test_what_our_containers_print_beside_their_lines_is_found_under_our_name(way: Way) -> None:
    (line,) = way.send("Traceback (most recent call last):", tag="worker")

    assert line.labels["service.name"] == "glasshouse-worker"
    assert line.labels["service.namespace"] == "glasshouse"


def test_what_the_first_line_has_missed_does_not_reach_loki(way: Way) -> None:
    canaries = {kind: KINDS[kind]()[0] for kind in sorted(BY_ITSELF)}
    word = KINDS["word"]()[0]
    said = "; ".join(f"{kind} {value}" for kind, value in canaries.items())
    clean = "key (id)=([redacted]) already exists; user f47ac10b-58cc-4372-a567-0e02b2c3d479"

    (ours_line,) = way.send(
        ours(message=said, password=word, nested={"api_key": word}, note=f"token={word}&a=1")
    )
    (plain,) = way.send(f"GET https://ada:{word}@shop.example/ {said}")
    (untouched,) = way.send(ours(message=clean, hash="9f86d081884c7d659a2feaa0c55ad015" * 2))

    for line in (ours_line, plain):
        everything = f"{line.body} {line.metadata} {line.labels}"
        for value in (*canaries.values(), word):
            assert value not in everything, everything
    said_again = json.loads(ours_line.body)  # still JSON
    assert said_again["password"] == said_again["nested"]["api_key"] == "****"
    assert ours_line.metadata["redaction.masked.count"] >= 2
    assert ours_line.metadata["redaction.body.masked.count"] == 1
    assert untouched.body == ours(message=clean, hash="9f86d081884c7d659a2feaa0c55ad015" * 2)
    assert not [key for key in untouched.metadata if key.startswith("redaction")]


@pytest.mark.parametrize(
    "break_it",
    [
        lambda: "{\"timestamp\":\"yesterday\",\"level\":7,\"logger\":[],\"service\":null}",
        lambda: "{\"timestamp\":\"2026-11-21T17:51:31.123Z\",\"level\":\"INFO\",\"mess",
        lambda: "{\"timestamp\":\"\"" + "}" * 50,
        lambda: ours(trace_id="not an id", span_id="", timestamp="never"),
        lambda: "\x00\x1b[31mred\x1b[0m \udcff".encode("utf-8", "replace").decode(),
        lambda: "   ",
    ],
)  # fmt: skip
def test_what_cannot_be_understood_arrives_all_the_same(
    way: Way, break_it: Callable[[], str]
) -> None:
    text = break_it()

    (line,) = way.send(text)

    assert line.body == text
    assert line.labels["service.name"] == "glasshouse"
    assert line.trace_id in {"", LINE["trace_id"]}
