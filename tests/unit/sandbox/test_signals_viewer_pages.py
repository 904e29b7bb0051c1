"""What a person sees: everything that arrived, escaped, and what to do where nothing did."""

import re
from collections.abc import AsyncIterator
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from sandbox.signals_viewer.markup import Markup, element, fragment
from sandbox.signals_viewer.signals import Breadcrumb, Frame, Raised, SpanEvent, clean
from tests.viewer import (
    BEGIN,
    MILLISECOND,
    ViewerClient,
    make_error,
    make_span,
    open_viewer,
    trace_id,
)

HOSTILE = """</style></script><script>alert(1)</script><img src=x onerror="alert(2)">'"&lt;"""
VOID = {"br", "input", "link", "meta"}


@pytest.fixture
async def viewer() -> AsyncIterator[ViewerClient]:
    async with open_viewer() as client:
        yield client


class Outline(HTMLParser):
    """The elements of a page, and whether each that is opened is closed again."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)


def fill(viewer: ViewerClient, text: str) -> list[str]:
    """Put `text` wherever text can be, and return the pages that show it."""
    event = SpanEvent(text, 0, {text: text})
    span = make_span("1", service=text, instance=text, name=text, kind=text, status_message=text)
    span = replace(span, attributes={text: text, "url.full": text, "db.query.text": text})
    viewer.store.add_spans([replace(span, events=(event,), failed=True)])
    frame = Frame(text, text, text, ours=True)
    error = make_error(
        type=text, message=text, service=text, route=text, release=text, tags={text: text}
    )
    chain = (Raised(text, text, (frame, replace(frame, ours=False))),)
    crumbs = (Breadcrumb(text, text, {text: text}),)
    viewer.store.add_error(replace(error, chain=chain, breadcrumbs=crumbs))
    return ["/", f"/traces/{trace_id(1)}", f"/errors/{error.event_id}"]


async def test_a_hostile_name_is_text_on_every_page(viewer: ViewerClient) -> None:
    fill(viewer, "harmless")
    pages = fill(viewer, HOSTILE)
    for path in pages:
        page = await viewer.page(path)
        outline = Outline(page)
        assert HOSTILE in outline.text
        assert (outline.count("script"), outline.count("img")) == (1, 0)
        names = {name for _, attributes in outline.elements for name in attributes}
        assert not {name for name in names if name.startswith("on")}
        assert "style" not in names
        assert "<script>alert" not in page


async def test_a_page_loads_nothing_and_runs_only_its_own_script(viewer: ViewerClient) -> None:
    for path in fill(viewer, "harmless"):
        answer = await viewer.http.get(path)
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        for tag, attributes in Outline(answer.text).elements:
            assert "src" not in attributes
            if tag == "link":
                assert attributes["href"] == "data:,"
            if tag == "a":
                assert re.match(r"[/#]", attributes["href"] or "")


async def test_empty_pages_say_what_to_do(viewer: ViewerClient) -> None:
    page = Outline(await viewer.page()).text
    assert "No traces yet" in page
    assert "Paste the journey that make run printed" in page
    assert "No errors" in page
    assert "to a real trace store and error tracker" in page


@pytest.mark.parametrize("path", ["/traces/" + "a" * 32, "/traces/<script>", "/errors/none"])
async def test_what_is_not_kept_is_said_with_404(viewer: ViewerClient, path: str) -> None:
    answer = await viewer.http.get(path)
    assert answer.status_code == 404
    assert "is not here" in answer.text
    assert Outline(answer.text).count("script") == 1
    assert (await viewer.http.get("/api" + path)).status_code == 404


async def test_the_list_shows_traces_and_errors_with_their_links(viewer: ViewerClient) -> None:
    viewer.store.add_spans(
        [
            make_span("1", name="POST /v1/payments", kind="server"),
            make_span("2", "1", service="provider", start=5),
            make_span("3", "1", start=20, instance="worker", failed=True),
            make_span("1", trace=2, name="GET /v1/orders"),
        ]
    )
    viewer.store.add_error(make_error(1, type="OrderError", message="no more tea"))
    viewer.store.add_error(make_error(2, trace_id=""))
    page = await viewer.page()
    outline = Outline(page)
    links = [attributes["href"] for tag, attributes in outline.elements if tag == "a"]
    for link in (f"/traces/{trace_id(1)}", f"/traces/{trace_id(2)}", f"/errors/{1:032x}"):
        assert link in links
    for text in ("POST /v1/payments", "provider", "glasshouse (process 2)", "30.0 ms", "1 failed"):
        assert text in outline.text
    for text in ("OrderError", "no more tea", "/v1/orders", "1 error"):
        assert text in outline.text
    assert outline.count("table") == outline.count("caption") == 2


async def test_a_trace_is_drawn_as_a_waterfall(viewer: ViewerClient) -> None:
    viewer.store.add_spans(
        [
            make_span("1", name="root", end=make_span(start=90).end),
            make_span("2", "1", name="child", start=50, failed=True, attributes={"order_id": "o7"}),
            make_span("3", "2", name="grandchild", start=90),
            make_span("4", "9", name="stray", start=100, end=BEGIN + 100 * MILLISECOND),
        ]
    )
    viewer.store.add_error(make_error(span_id="2".rjust(16, "0")))
    page = await viewer.page(f"/traces/{trace_id(1)}")
    rows = ["".join(Outline(row).text.split("\n")) for row in re.findall(r"<tr.*?</tr>", page)[1:]]
    assert [re.findall(r"root|grandchild|child|stray", row)[0] for row in rows] == [
        "root",
        "child",
        "grandchild",
        "stray",
    ]
    assert re.findall(r'class="operation (d\d+)"', page) == ["d0", "d1", "d2", "d0"]
    bars = re.findall(r'<rect x="(\d+)" y="0" width="(\d+)"', page)
    assert bars == [("0", "1000"), ("500", "100"), ("900", "100"), ("996", "4")]
    assert "order_id=o7" in rows[1]
    assert "failed" in rows[1]
    assert "parent not here" in rows[3]
    assert f'href="#error-{1:032x}"' in page
    assert f'id="error-{1:032x}"' in page


async def test_a_deep_trace_stays_readable(viewer: ViewerClient) -> None:
    viewer.store.add_spans(make_span(f"{n:x}", f"{n - 1:x}" if n > 1 else "") for n in range(1, 40))
    assert set(re.findall(r"operation (d\d+)", await viewer.page(f"/traces/{trace_id(1)}"))) == {
        f"d{depth}" for depth in range(13)
    }


async def test_calls_in_libraries_are_folded_between_those_of_ours(viewer: ViewerClient) -> None:
    library = Frame("lib.py:1", "call", "call()", ours=False)
    ours = Frame("app/orders.py:7", "place", "place()", ours=True)
    alone = Raised("DriverError", "", (library, library))
    mixed = Raised("OrderError", "", (library, ours, library, library))
    viewer.store.add_error(make_error(chain=(alone, mixed)))
    text = Outline(await viewer.page(f"/errors/{1:032x}")).text
    assert text.index("OrderError") < text.index("2 calls in libraries") < text.index("place()")
    assert text.index("place()") < text.index("1 call in libraries") < text.index("DriverError")
    assert "calls in libraries" not in text[text.index("DriverError") :]


async def test_other_sites_read_nothing_through_a_name_of_theirs(viewer: ViewerClient) -> None:
    answer = await viewer.http.get("/api/traces", headers={"Host": "rebound.example"})
    assert answer.status_code == 400
    for host in ("127.0.0.1:4318", "localhost:4318"):
        assert (await viewer.http.get("/api/traces", headers={"Host": host})).status_code == 200


async def test_probes_and_the_version_are_answered(viewer: ViewerClient) -> None:
    for method in ("GET", "HEAD"):
        assert (await viewer.http.request(method, "/health")).status_code == 200
    version = (await viewer.http.get("/api/version")).json()["version"]
    assert f'data-version="{version}"' in await viewer.page()


def test_markup_escapes_whatever_is_not_markup() -> None:
    assert element("b", "<", Markup("<i>"), None, ["&", "'"], title='"') == (
        '<b title="&quot;">&lt;<i>&amp;&#x27;</b>'
    )
    assert element("input", checked=True, disabled=False, class_=None) == "<input checked>"
    assert fragment("a", element("rect", x=1)) == 'a<rect x="1"/>'


def test_characters_that_turn_text_around_are_shown_as_replaced() -> None:
    assert clean("a\x00b\u202ec\r\n\td") == "a\ufffdb\ufffdc\n\td"
    assert clean("x" * 10, 4) == "xxx…"
