"""What the viewer takes: exports and envelopes as they are sent, nonsense as 4xx and without effect."""

import gzip
import json
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList

from sandbox.signals_viewer.intake import MAX_SENT_BYTES, MAX_UNPACKED_BYTES
from sandbox.signals_viewer.signals import MAX_TEXT
from tests.viewer import BEGIN, MILLISECOND, ViewerClient, envelope_of, export_of, open_viewer

IDS: dict[str, Any] = {"trace_id": bytes(15) + b"\x01", "span_id": bytes(7) + b"\x02"}
TRACE = "0" * 31 + "1"


@pytest.fixture
async def viewer() -> AsyncIterator[ViewerClient]:
    async with open_viewer() as client:
        yield client


async def the_span(viewer: ViewerClient) -> dict[str, Any]:
    (span,) = (await viewer.http.get(f"/api/traces/{TRACE}")).json()["spans"]
    found: dict[str, Any] = span
    return found


# Exports ----------------------------------------------------------------------------------------------


async def test_a_span_is_kept_with_all_that_it_says(viewer: ViewerClient) -> None:
    export = export_of(
        service="shop",
        **IDS,
        parent_span_id=bytes(7) + b"\x03",
        name="GET /things",
        kind=2,
        end_time_unix_nano=BEGIN + 12 * MILLISECOND,
        status={"code": 2, "message": "it broke"},
        events=[{"name": "exception", "time_unix_nano": BEGIN + 3 * MILLISECOND}],
    )
    answer = await viewer.send_spans(export)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-protobuf"
    assert answer.content == b""  # nothing was rejected
    assert await the_span(viewer) == {
        "span_id": "0000000000000002",
        "parent_id": "0000000000000003",
        "depth": 0,
        "detached": True,
        "service": "shop",
        "process": "shop",
        "name": "GET /things",
        "kind": "server",
        "offset_ms": 0.0,
        "duration_ms": 12.0,
        "failed": True,
        "status_message": "it broke",
        "attributes": {},
        "events": [{"name": "exception", "offset_ms": 3.0, "attributes": {}}],
    }
    (outline,) = (await viewer.http.get("/api/traces")).json()["traces"]
    assert outline == {
        "trace_id": TRACE,
        "name": "GET /things",
        "services": ["shop"],
        "spans": 1,
        "spans_left_out": 0,
        "started_at": "2026-09-21T14:13:20+00:00",
        "duration_ms": 12.0,
        "failed": True,
        "failed_spans": 1,
        "errors": [],
    }


async def test_attributes_keep_their_types(viewer: ViewerClient) -> None:
    array = ArrayValue(values=[AnyValue(int_value=1), AnyValue(string_value="two")])
    pairs = KeyValueList(values=[KeyValue(key="in", value=AnyValue(bool_value=True))])
    values = {
        "text": AnyValue(string_value="t"),
        "whole": AnyValue(int_value=-(2**63)),
        "part": AnyValue(double_value=0.5),
        "nan": AnyValue(double_value=float("nan")),
        "flag": AnyValue(bool_value=False),
        "bytes": AnyValue(bytes_value=b"\xff"),
        "array": AnyValue(array_value=array),
        "pairs": AnyValue(kvlist_value=pairs),
        "nothing": AnyValue(),
    }
    await viewer.send_spans(
        export_of(**IDS, attributes=[KeyValue(key=k, value=v) for k, v in values.items()])
    )
    assert (await the_span(viewer))["attributes"] == {
        "text": "t",
        "whole": -(2**63),
        "part": 0.5,
        "nan": None,
        "flag": False,
        "bytes": "ff",
        "array": [1, "two"],
        "pairs": {"in": True},
        "nothing": None,
    }
    await viewer.page(f"/traces/{TRACE}")


async def test_what_is_too_long_is_cut(viewer: ViewerClient) -> None:
    long = AnyValue(string_value="x" * 10_000)
    many = AnyValue(array_value=ArrayValue(values=[long] * 10))
    attributes = [KeyValue(key=f"a{n}", value=many if n else long) for n in range(100)]
    await viewer.send_spans(
        export_of(**IDS, name="n" * 10_000, attributes=attributes, events=[{"name": "e"}] * 100)
    )
    span = await the_span(viewer)
    assert len(span["attributes"]) == 64
    assert {len(value) for value in span["attributes"].values()} == {MAX_TEXT}
    assert len(span["name"]) == 256
    assert len(span["events"]) == 32


@pytest.mark.parametrize(
    "ids",
    [
        {"trace_id": bytes(16)},
        {"trace_id": b"short"},
        {"span_id": bytes(8)},
        {"span_id": b""},
        {"parent_span_id": b"xyz"},
    ],
)
async def test_a_span_with_an_impossible_id_is_rejected_and_counted(
    viewer: ViewerClient, ids: dict[str, bytes]
) -> None:
    answer = await viewer.send_spans(export_of(**(IDS | ids)))
    said = ExportTraceServiceResponse.FromString(answer.content).partial_success
    assert said.rejected_spans == 1
    assert "16 bytes" in said.error_message
    assert viewer.store.traces() == []


async def test_impossible_times_and_kinds_break_no_page(viewer: ViewerClient) -> None:
    await viewer.send_spans(
        export_of(
            **IDS,
            kind=99,
            start_time_unix_nano=2**64 - 1,
            end_time_unix_nano=0,
            events=[{"time_unix_nano": 2**64 - 1}],
        )
    )
    await viewer.send_spans(
        export_of(trace_id=IDS["trace_id"], start_time_unix_nano=0, end_time_unix_nano=0)
    )
    spans = (await viewer.http.get(f"/api/traces/{TRACE}")).json()["spans"]
    assert [span["duration_ms"] for span in spans] == [0, 0]
    for path in ("/", f"/traces/{TRACE}", "/api/traces", f"/api/traces/{TRACE}"):
        assert (await viewer.http.get(path)).status_code == 200


@pytest.mark.parametrize("encoding", ["identity", "gzip", "deflate", "GZIP"])
async def test_bodies_may_be_packed(viewer: ViewerClient, encoding: str) -> None:
    body = export_of(**IDS).SerializeToString()
    pack: dict[str, Callable[[bytes], bytes]] = {"gzip": gzip.compress, "deflate": zlib.compress}
    packed = pack.get(encoding.lower(), bytes)(body)
    headers = {"Content-Encoding": encoding}
    assert (await viewer.http.post("/v1/traces", content=packed, headers=headers)).is_success
    assert len(viewer.store.traces()) == 1


# Envelopes --------------------------------------------------------------------------------------------

EVENT = {
    "event_id": "a" * 32,
    "transaction": "/v1/orders",
    "release": "glasshouse@1",
    "tags": {"service": "glasshouse", "request_id": "r1"},
    "contexts": {"trace": {"trace_id": TRACE, "span_id": "0000000000000002"}},
    "breadcrumbs": {"values": [{"category": "order", "message": "placed", "data": {"n": 1}}]},
    "exception": {
        "values": [
            {"type": "KeyError", "value": "'cause'"},
            {
                "type": "OrderError",
                "value": "no more tea",
                "stacktrace": {
                    "frames": [
                        {"filename": "lib/call.py", "lineno": 3, "function": "call"},
                        {
                            "filename": "app/orders/service.py",
                            "lineno": 7,
                            "function": "place",
                            "context_line": "    raise OrderError",
                            "in_app": True,
                        },
                        {"filename": "<generated>", "lineno": 1, "in_app": True},
                    ]
                },
            },
        ]
    },
}


async def test_an_error_is_kept_with_all_that_it_says(viewer: ViewerClient) -> None:
    answer = await viewer.send_envelope(envelope_of(EVENT, header={"event_id": "a" * 32}))
    assert (answer.status_code, answer.json()) == (200, {"id": "a" * 32})
    (error,) = (await viewer.http.get("/api/errors")).json()["errors"]
    assert error.pop("at").startswith("20")
    assert error == {
        "event_id": "a" * 32,
        "type": "OrderError",
        "message": "no more tea",
        "service": "glasshouse",
        "route": "/v1/orders",
        "trace_id": TRACE,
        "span_id": "0000000000000002",
        "release": "glasshouse@1",
        "tags": {"service": "glasshouse", "request_id": "r1"},
        "chain": [
            {"type": "KeyError", "message": "'cause'", "frames": []},
            {
                "type": "OrderError",
                "message": "no more tea",
                "frames": [
                    {"place": "lib/call.py:3", "function": "call", "code": "", "ours": False},
                    {
                        "place": "app/orders/service.py:7",
                        "function": "place",
                        "code": "raise OrderError",
                        "ours": True,
                    },
                    {"place": "<generated>:1", "function": "", "code": "", "ours": False},
                ],
            },
        ],
        "breadcrumbs": [{"category": "order", "message": "placed", "data": {"n": "1"}}],
    }


async def test_other_items_of_an_envelope_are_skipped(viewer: ViewerClient) -> None:
    payload = b"\n\nbinary \xff\n"
    body = b"\n".join(
        [
            b"{}",
            json.dumps({"type": "attachment", "length": len(payload)}).encode(),
            payload,
            b'{"type":"session"}',
            b"{}",
            b'{"type":"event"}',
            json.dumps(EVENT).encode(),
            b"",
        ]
    )
    answer = await viewer.send_envelope(gzip.compress(body), **{"Content-Encoding": "gzip"})
    assert answer.json() == {"id": EVENT["event_id"]}
    assert [error.type for error in viewer.store.errors()] == ["OrderError"]


async def test_a_message_without_an_exception_is_kept(viewer: ViewerClient) -> None:
    await viewer.send_envelope(envelope_of({"level": "warning", "logentry": {"message": "hm"}}))
    (error,) = viewer.store.errors()
    assert (error.type, error.message, error.trace_id) == ("warning", "hm", "")
    assert len(error.event_id) == 32
    assert "hm" in await viewer.page(f"/errors/{error.event_id}")


@pytest.mark.parametrize("wrong", ["../../etc", '"><script>', 5, ["a"], {"a": 1}, "a" * 33, None])
async def test_an_id_that_is_none_does_not_get_into_an_address(
    viewer: ViewerClient, wrong: Any
) -> None:
    event = {"event_id": wrong, "contexts": {"trace": {"trace_id": wrong, "span_id": wrong}}}
    assert (await viewer.send_envelope(envelope_of(event))).is_success
    (error,) = viewer.store.errors()
    assert (error.trace_id, error.span_id) == ("", "")
    assert set(error.event_id) <= set("0123456789abcdef")


# Nonsense ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/traces", "/api/1/envelope/"])
@pytest.mark.parametrize(
    ("body", "headers", "status", "said"),
    [
        (b"nonsense", {}, 400, "is no"),
        (b"\xff" * 100, {}, 400, "is no"),
        (b"nonsense", {"Content-Encoding": "gzip"}, 400, "not gzip"),
        (gzip.compress(b"x" * 99)[:-9], {"Content-Encoding": "gzip"}, 400, "cut off"),
        (b"", {"Content-Encoding": "deflate"}, 400, "cut off"),
        (b"x", {"Content-Encoding": "br"}, 415, "gzip, deflate or none"),
        (b"x" * (MAX_SENT_BYTES + 1), {}, 413, "at most"),
        (gzip.compress(bytes(MAX_UNPACKED_BYTES + 1)), {"Content-Encoding": "gzip"}, 413, "once"),
    ],
    ids=["text", "bytes", "not-packed", "cut", "empty", "unknown", "long", "bomb"],
)
async def test_nonsense_is_refused_with_a_sentence(
    viewer: ViewerClient, path: str, body: bytes, headers: dict[str, str], status: int, said: str
) -> None:
    answer = await viewer.http.post(path, content=body, headers=headers)
    assert answer.status_code == status
    assert said in answer.json()["detail"]
    assert viewer.store.traces() == []
    assert viewer.store.errors() == []


async def test_otlp_as_json_is_refused_with_what_to_do(viewer: ViewerClient) -> None:
    answer = await viewer.http.post("/v1/traces", json={"resourceSpans": []})
    assert answer.status_code == 415
    assert "http/protobuf" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}\n[]",
        b'{}\n{"type":"event"}\nnot json',
        b'{}\n{"type":"event"}\n[1]',
        b'{}\n{"type":"event","length":100}\n{}',
        b'{}\n{"type":"event"}\n{"message":"\\ud800"}',
        b'{}\n{"type":"event"}\n' + b"[" * 100_000,
        b"{}" + b'\n{"type":"session"}\n{}' * 1_000,
    ],
    ids=["empty", "list", "items", "text", "event", "cut", "surrogate", "deep", "many"],
)
async def test_a_broken_envelope_is_refused(viewer: ViewerClient, body: bytes) -> None:
    answer = await viewer.send_envelope(body)
    assert answer.status_code == 400
    assert "envelope" in answer.json()["detail"]
    assert viewer.store.errors() == []


ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=6,
)


def like(value: Any) -> st.SearchStrategy[Any]:
    """Return a strategy for what has the shape of `value`, with anything in any of its places."""
    if isinstance(value, dict):
        return ANYTHING | st.fixed_dictionaries({k: like(v) for k, v in value.items()})
    if isinstance(value, list):
        return ANYTHING | st.lists(st.one_of([like(item) for item in value]), max_size=2)
    return ANYTHING | st.just(value)


# The same cases in every run, however long one takes: a failure is a change, not luck.
@settings(
    max_examples=75,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(event=like(EVENT))
async def test_an_event_may_hold_anything_anywhere(viewer: ViewerClient, event: Any) -> None:
    answer = await viewer.send_envelope(envelope_of(event))
    assert answer.status_code == (200 if isinstance(event, dict) else 400)
    for path in ("/", "/api/errors", *(f"/errors/{e.event_id}" for e in viewer.store.errors()[:1])):
        assert (await viewer.http.get(path)).status_code == 200
