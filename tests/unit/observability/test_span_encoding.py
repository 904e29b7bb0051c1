"""Encoded spans: to the last field what the library makes of the redacted ones."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.http.transport._requests import RequestsHTTPTransport
from opentelemetry.exporter.http.transport._urllib3 import Urllib3HTTPTransport
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from app.observability import span_encoding, span_export
from app.observability.redaction import Clean, redact_text
from app.observability.span_encoding import (
    PreparedSpan,
    SpanEncoder,
    _needs_requests,
    span_exporter,
)

ATTRIBUTES = st.dictionaries(
    st.sampled_from(["http.route", "url.path", "request.id", "password", "n", "url.full"]),
    st.one_of(
        st.text(max_size=20),
        st.integers(80, 260).map("x".__mul__),  # where lengths become two bytes long
        st.text(max_size=20).map(Clean),
        st.sampled_from(["jane@example.com", "https://u:p@h/x?y=z", "", "é", "\ud800"]),
        st.booleans(),
        st.integers(-(2**70), 2**70),
        st.floats(allow_nan=False),
        st.lists(st.sampled_from(["a", "tok_LIVE12345678"]), max_size=3),
    ),
)


class Recorder:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider(resource=Resource.create({"service.name": "x"}))
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("one", "1.0")

    def spans(self) -> list[ReadableSpan]:
        found = list(self.exporter.get_finished_spans())
        self.exporter.clear()
        return found


@pytest.fixture(scope="module")
def recorder() -> Iterator[Recorder]:
    made = Recorder()
    yield made
    made.provider.shutdown()


def encoder() -> SpanEncoder:
    return SpanEncoder(span_export.redacted, span_export.redacted_attribute, redact_text)


def read(encoded: bytes) -> ExportTraceServiceRequest:
    """Return what was encoded, attributes in the order of their names: theirs has no meaning."""
    found: ExportTraceServiceRequest = ExportTraceServiceRequest.FromString(encoded)
    for around in found.resource_spans:
        for scope in around.scope_spans:
            for span in scope.spans:
                span.attributes.sort(key=lambda one: one.key)
    return found


def librarys(spans: list[ReadableSpan]) -> ExportTraceServiceRequest:
    redacted = encode_spans([span_export.redacted(span) for span in spans])
    return read(redacted.SerializeToString())


@settings(max_examples=200, deadline=None)
@given(found=st.lists(ATTRIBUTES, max_size=4), kind=st.sampled_from(list(SpanKind)))
def test_the_librarys_words(
    recorder: Recorder, found: list[dict[str, Any]], kind: SpanKind
) -> None:
    for attributes in found:
        recorder.tracer.start_span("GET /jane@example.com", kind=kind, attributes=attributes).end()
    spans = recorder.spans()
    ours = encoder()
    assert read(ours.encode(spans)) == librarys(spans)
    assert read(ours.encode(spans)) == librarys(spans)  # from memory, as it were


def test_what_seldom_is_there_is_there(recorder: Recorder) -> None:
    other = SpanContext(1, 2, is_remote=True, trace_flags=TraceFlags(1), trace_state=TraceState())
    stated = SpanContext(3, 4, is_remote=True, trace_state=TraceState([("a", "b")]))
    with recorder.tracer.start_as_current_span("parent", links=[Link(other, {"n": 1})]) as parent:
        parent.add_event("told", {"email": "jane@example.com"})
        with recorder.tracer.start_as_current_span("child") as child:
            child.set_status(StatusCode.ERROR, "card 4111 1111 1111 1111")
        with recorder.tracer.start_as_current_span("failed") as failed:
            failed.set_status(StatusCode.ERROR)
    from_afar = set_span_in_context(NonRecordingSpan(stated))
    recorder.tracer.start_span("remote", from_afar).end()
    recorder.provider.get_tracer("other").start_span("in another scope").end()
    spans = recorder.spans()

    encoded = read(encoder().encode(spans))
    assert sorted(map(str, _spans(encoded))) == sorted(map(str, _spans(librarys(spans))))
    assert "jane@" not in str(encoded)
    assert "4111" not in str(encoded)


def _spans(request: ExportTraceServiceRequest) -> list[Any]:
    return [
        (one.resource, scope.scope.name, span)
        for one in request.resource_spans
        for scope in one.scope_spans
        for span in scope.spans
    ]


def test_prepared_or_not_a_span_is_the_same(recorder: Recorder) -> None:
    recorder.tracer.start_span("plain", attributes={"n": 1}).end()
    with recorder.tracer.start_as_current_span("failed") as failed:
        failed.record_exception(ValueError("jane@example.com"))
    recorder.provider.get_tracer("other").start_span("in another scope").end()
    spans = recorder.spans()
    ours = encoder()

    prepared = [ours.prepare(span) for span in spans]
    assert [isinstance(one, PreparedSpan) for one in prepared] == [True, False, True]
    assert read(ours.encode(prepared)) == read(ours.encode(spans))


def test_what_cannot_be_encoded_is_left_to_who_counts_it(recorder: Recorder) -> None:
    recorder.tracer.start_span("x", attributes={"name": "\ud800"}).end()
    (span,) = recorder.spans()
    ours = encoder()

    assert ours.prepare(span) is span
    assert read(ours.encode([span])) == librarys([span])


@pytest.mark.parametrize(
    "attributes", [{"url.query": "a=" * 300}, {"a": "x" * 300, "b": "y" * 300}, {"many": ["x"]}]
)
def test_requests_do_not_wait_for_long_texts(recorder: Recorder, attributes: Any) -> None:
    recorder.tracer.start_span("x", attributes=attributes).end()
    (span,) = recorder.spans()
    ours = encoder()

    assert ours.prepare(span) is span
    assert read(ours.encode([span])) == librarys([span])


def test_half_a_character_does_not_cost_the_whole_batch(recorder: Recorder) -> None:
    recorder.tracer.start_span("name \ud800").end()
    with recorder.tracer.start_as_current_span("told") as span:
        span.set_status(StatusCode.ERROR, "said \ud800")
        span.add_event("event \ud800")
    spans = recorder.spans()

    encoded = read(encoder().encode(spans))
    named, told = (span for *_, span in _spans(encoded))
    assert (named.name, told.status.message, told.events[0].name) == ("name ?", "said ?", "event ?")


def test_a_negative_zero_is_one(recorder: Recorder) -> None:
    ours = encoder()
    for value in (0.0, -0.0):
        recorder.tracer.start_span("x", attributes={"n": value}).end()
        ((*_, span),) = _spans(read(ours.encode(recorder.spans())))
        assert str(span.attributes[0].value.double_value) == str(value)


def test_what_was_dropped_is_told(recorder: Recorder) -> None:
    spans = TracerProvider(span_limits=SpanLimits(max_span_attributes=1))
    exporter = InMemorySpanExporter()
    spans.add_span_processor(SimpleSpanProcessor(exporter))
    spans.get_tracer("x").start_span("x", attributes={"a": 1, "b": 2}).end()
    ((*_, span),) = _spans(read(encoder().encode(exporter.get_finished_spans())))
    assert span.dropped_attributes_count == 1


def test_a_statement_is_looked_through_once(recorder: Recorder) -> None:
    asked: list[str] = []

    def redact_attribute(key: str, value: Any) -> Any:
        asked.append(key)
        return span_export.redacted_attribute(key, value)

    ours = SpanEncoder(span_export.redacted, redact_attribute, redact_text)
    statement = "SELECT " + ", ".join(f"column_{n}" for n in range(100))
    for _ in range(2):
        for name in ("db.query.text", "other"):
            recorder.tracer.start_span("x", attributes={name: statement}).end()
        ours.encode(recorder.spans())
    assert asked == ["db.query.text", "other", "other"]


def test_a_truth_is_no_number(recorder: Recorder) -> None:
    ours = encoder()
    for value in (1, True, 1.0):
        recorder.tracer.start_span("same", attributes={"n": value}).end()
        spans = recorder.spans()
        assert read(ours.encode(spans)) == librarys(spans)


def test_nothing_secret_and_nothing_that_comes_once_is_kept(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_encoding, "MAX_KEPT", 3)
    ours = encoder()
    for number in range(5):
        attributes: dict[str, Any] = {
            "to": "jane@example.com",
            "token": f"secret-{number}",
            "request.id": f"{number:032x}",
            "long": "x" * 129,
            "n": number,
        }
        recorder.tracer.start_span("one", attributes=attributes).end()
        ours.encode(recorder.spans())
    assert [key[:2] for key in ours._attributes] == [("n", 3), ("n", 4)]


def test_what_comes_together_is_kept_together(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_encoding, "MAX_ROWS", 2)
    ours = encoder()
    usual: dict[str, Any] = {"http.route": "/a", "server.port": 80}

    def kept_after(attributes: dict[str, Any]) -> list[object]:
        recorder.tracer.start_span("one", attributes=attributes).end()
        spans = recorder.spans()
        assert read(ours.encode(spans)) == librarys(spans)
        assert read(ours.encode(spans)) == librarys(spans)
        return [values for _, values, _ in ours._rows]

    own = {"request.id": "a" * 32, "user_agent.original": "x"}
    assert kept_after(usual | own) == [("/a", 80)]
    other = {"request.id": "b" * 32, "user_agent.original": "y"}
    assert kept_after(usual | other) == [("/a", 80)]
    assert kept_after(usual | {"server.port": True} | own) == [("/a", 80), ("/a", True)]
    for never in ({"to": "jane@example.com"}, {"n": 0.0}, {"long": "x" * 129}, {"many": ["x"]}):
        assert len(kept_after(usual | never)) == 2
    assert kept_after({"http.route": "/b"}) == [("/b",)]


def test_no_secret_name_is_kept_and_not_too_many_others(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(span_encoding, "MAX_KEPT", 3)
    ours = encoder()
    for name in ("one", "GET /jane@example.com", "two", "three", "four"):
        recorder.tracer.start_span(name).end()
        spans = recorder.spans()
        assert read(ours.encode(spans)) == librarys(spans)
    assert [key[0] for key in ours._kinds] == ["four"]


# The way out ------------------------------------------------------------------------------------------


@pytest.fixture
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))


@pytest.mark.usefixtures("_bare_environment")
@pytest.mark.parametrize(
    ("endpoint", "environment", "netrc", "by"),
    [
        ("http://collector:4318/v1/traces", {}, "", Urllib3HTTPTransport),
        ("http://collector:4318/v1/traces", {"HTTPS_PROXY": "http://proxy:3128"}, "", Urllib3HTTPTransport),
        ("http://collector:4318/v1/traces",
         {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "collector"}, "", Urllib3HTTPTransport),
        ("http://collector:4318/v1/traces", {"HTTP_PROXY": "http://proxy:3128"}, "", RequestsHTTPTransport),
        ("http://collector:4318/v1/traces", {}, "machine collector login a password b",
         RequestsHTTPTransport),
        ("https://collector:4318/v1/traces", {}, "", RequestsHTTPTransport),
    ],
)  # fmt: skip
def test_the_cheaper_way_is_taken_where_nothing_else_is_asked_for(
    endpoint: str,
    environment: dict[str, str],
    netrc: str,
    by: type,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (tmp_path / "netrc").write_text(netrc)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    exporter = span_exporter(endpoint, timeout=3)

    assert type(exporter._client._transport) is by
    cast("Any", exporter).shutdown()


@pytest.mark.usefixtures("_bare_environment")
def test_a_credential_provider_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not _needs_requests("http://127.0.0.1:4318/v1/traces")
    monkeypatch.setenv("OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER", "whose")
    assert _needs_requests("http://127.0.0.1:4318/v1/traces")
