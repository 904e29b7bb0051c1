"""docs/telemetry.md tells of everything that the system emits, and of nothing that it does not.

The page is compared with what real processes said on a journey through everything that can happen
(tests/everything.py), and with what the source code could say in rarer moments (tests/emitters.py).
Each failure names all differences, and the table that wants a change.
"""

import fcntl
import pickle
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.catalogue import ANY, Catalogue, LogType, Message, SpanRow, Values, read_catalogue
from tests.emitters import ROOT, Emitters, read_emitters
from tests.everything import everything
from tests.otlp import ReceivedSpan
from tests.stage import Everything

PROCESSES = {
    "glasshouse": "api",
    "glasshouse-worker": "worker",
    "glasshouse-payment-provider": "provider",
    "glasshouse-synthetic": "synthetic",
}
pytestmark = pytest.mark.timeout(600)
"""The first test waits for the journey, a minute of many processes, on machines of any speed."""
UNSEEN = 'or list it under "Not seen by the contract test", with the reason'


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    """The page."""
    return read_catalogue()


@pytest.fixture(scope="module")
def emitters() -> Emitters:
    """What the source code could emit."""
    return read_emitters()


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory, postgres_url: str, worker_id: str) -> Everything:
    """What was emitted; with pytest-xdist the first worker that asks makes the journey for all."""
    directory = tmp_path_factory.mktemp("everything")
    shared = directory if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    kept = shared / "everything.pickle"
    with (shared / "everything.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not kept.exists():
            kept.write_bytes(pickle.dumps(everything(directory, postgres_url)))
    found: Everything = pickle.loads(kept.read_bytes())
    return found


def fail_with(differences: Iterable[str]) -> None:
    """Fail with all of them at once, if there are any."""
    told = sorted(set(differences))
    if told:
        pytest.fail("docs/telemetry.md:\n" + "\n".join(f"- {one}" for one in told), pytrace=False)


@dataclass
class Family:
    """A metric as the pages of one kind of process show it."""

    type: str = ""
    samples: int = 0
    labels: dict[str, set[str]] = field(default_factory=dict)
    has_moved: bool = False


Families = dict[str, dict[str, Family]]


def families_of(seen: Everything) -> Families:
    """Return what is on the pages of /metrics, by name and process."""
    found: Families = defaultdict(lambda: defaultdict(Family))
    for process, page in seen.pages:
        for one in text_string_to_metric_families(page):
            name = f"{one.name}_total" if one.type == "counter" else one.name
            family = found[name][process]
            family.type = one.type
            for sample in one.samples:
                family.samples += 1
                family.has_moved |= sample.value != 0
                for label, value in sample.labels.items():
                    if label not in {"le", "quantile"}:
                        family.labels.setdefault(label, set()).add(value)
    return found


# Metrics ----------------------------------------------------------------------------------------------


def metrics_not_told(catalogue: Catalogue, families: Families) -> Iterable[str]:
    """Yield what is emitted and not on the page."""
    for name, by_process in families.items():
        metric = catalogue.metrics.get(name)
        if metric is None:
            yield f"{name} ({', '.join(by_process)}): add a row to a table of metrics"
            continue
        for process, family in by_process.items():
            where = f"{name} of the {process}"
            if family.type != metric.type:
                yield f"{where} is a {family.type}: correct its type"
            if family.samples and family.labels.keys() != metric.labels.keys():
                yield f"{where} has the labels {sorted(family.labels)}: correct its labels"
            if family.has_moved and process not in metric.processes and family.type != "gauge":
                yield f'{where} moves: name the {process} in the column "From"'
            for label, values in family.labels.items():
                allowed = metric.labels.get(label, Values())
                yield from beyond(allowed, values, f"{where}, label {label}")


def beyond(allowed: Values, values: set[str], what: str) -> Iterable[str]:
    """Yield what is not among the values that the page allows."""
    if allowed.closed and (new := values - allowed.closed):
        yield f"{what}: {sorted(new)} is not among its values: add it there"
    if allowed.at_most is not None and len(values) > allowed.at_most:
        yield f"{what} has {len(values)} values, and {allowed.at_most} are promised"


def metrics_not_emitted(
    catalogue: Catalogue, families: Families, emitters: Emitters
) -> Iterable[str]:
    """Yield what is on the page and not emitted."""
    for name, metric in catalogue.metrics.items():
        by_process = families.get(name, {})
        for process in metric.processes - by_process.keys():
            yield f'{name} is not on /metrics of the {process}: correct the column "From"'
        is_seen = any(by_process[p].samples for p in metric.processes & by_process.keys())
        yield from unless_listed(catalogue, is_seen, f"metric {name}")
        for label, values in metric.labels.items():
            found = {v for one in by_process.values() for v in one.labels.get(label, ())}
            for gone in values.closed - found - emitters.words:
                yield f"{name}, label {label}: nothing can emit {gone}: take it out"


def unless_listed(catalogue: Catalogue, is_seen: bool, what: str) -> Iterable[str]:
    """Yield what was neither seen nor listed as rare, and what was both."""
    if is_seen and what in catalogue.unseen:
        yield f'{what} was seen: take it out of "Not seen by the contract test"'
    if not is_seen and what not in catalogue.unseen:
        yield f"{what} was not seen: take it out, {UNSEEN}"


def test_every_metric_is_on_the_page(catalogue: Catalogue, seen: Everything) -> None:
    fail_with(metrics_not_told(catalogue, families_of(seen)))


def test_every_metric_of_the_page_is_emitted(
    catalogue: Catalogue, seen: Everything, emitters: Emitters
) -> None:
    fail_with(metrics_not_emitted(catalogue, families_of(seen), emitters))


def test_every_metric_of_the_source_code_is_on_the_page(
    catalogue: Catalogue, emitters: Emitters
) -> None:
    told = {
        name: (metric.type, frozenset(metric.labels), metric.source)
        for name, metric in catalogue.metrics.items()
        if metric.source is not None
    }
    made = {
        name: (kind, frozenset(labels), path)
        for name, (kind, labels, path) in emitters.metrics.items()
    }
    fail_with(
        [
            *(f"{name}, made in {made[name][2]}: add a row" for name in made.keys() - told.keys()),
            *(f"{name} is made nowhere: take the row out" for name in told.keys() - made.keys()),
            *(
                f"{name}: the code says {made[name]}, the page {told[name]}"
                for name in made.keys() & told.keys()
                if made[name] != told[name]
            ),
            *(
                f"{name} is not prometheus_client's: name its file"
                for name, metric in catalogue.metrics.items()
                if metric.source is None and not name.startswith(("process_", "python_"))
            ),
        ]
    )


def test_a_unit_is_in_the_name_of_the_metric(catalogue: Catalogue) -> None:
    for unit, suffix in (("seconds", r".*_seconds(_total)?"), ("bytes", r".*_bytes(_total)?")):
        named = {one for one in catalogue.metrics if re.fullmatch(suffix, one)}
        told = {name for name, one in catalogue.metrics.items() if unit in one.unit}
        fail_with(f"{name} is {'' if name in named else 'not '}in {unit}" for name in named ^ told)


# Log lines --------------------------------------------------------------------------------------------

Line = dict[str, Any]


def message_of(kind: LogType, line: Line) -> Message | None:
    """Return the row that a line belongs to."""
    return kind.messages.get(line["message"]) or kind.messages.get(ANY)


def lines_not_told(catalogue: Catalogue, lines: list[Line]) -> Iterable[str]:
    """Yield what is in the lines and not on the page."""
    always = {name for name, is_always_there in catalogue.common_fields.items() if is_always_there}
    for line in lines:
        kind = catalogue.types.get(line["type"])
        if kind is None:
            yield f"type {line['type']}: add a section with its messages and fields"
            continue
        message = message_of(kind, line)
        what = f"{line['type']}: {line['message']}"
        if message is None:
            yield f"{what}: add a row to the table of that type"
            continue
        process = PROCESSES[line["service"]]
        if line["level"] not in message.levels:
            yield f"{what} is said at {line['level']}: add the level"
        if process not in message.processes:
            yield f'{what} is said by the {process}: name it in the column "From"'
        known = catalogue.common_fields.keys() | message.fields.keys()
        if message.sentence != ANY and (new := line.keys() - known):
            yield f"{what} has {sorted(new)}: add it to its fields"
        required = {name for name, is_always_there in message.fields.items() if is_always_there}
        if missing := (required | always) - line.keys():
            yield f"{what} can be without {sorted(missing)}: mark it with ?"
        for name, value in line.items():
            allowed = kind.fields.get(name) or catalogue.common_values.get(name, Values())
            if not allowed.fits(value):
                yield f"{what}, field {name} is not always {allowed.form!r}: correct the unit"
            if isinstance(value, str) and value:
                yield from beyond(allowed, {value}, f"{what}, field {name}")


def lines_not_said(catalogue: Catalogue, lines: list[Line]) -> Iterable[str]:
    """Yield what is on the page and in no line."""
    said: dict[tuple[str, str], set[str]] = defaultdict(set)
    for line in lines:
        kind = catalogue.types.get(line["type"], LogType())
        if message := message_of(kind, line):
            said[line["type"], message.sentence] |= line.keys()
    for name, kind in catalogue.types.items():
        used = {one for message in kind.messages.values() for one in message.fields}
        for unused in kind.fields.keys() ^ used:
            yield f"type {name}: {unused} is in only one of its two tables"
        for sentence, message in kind.messages.items():
            found = said.get((name, sentence))
            yield from unless_listed(catalogue, found is not None, f"{name}: {sentence}")
            for one in message.fields if found is not None else ():
                is_said = found is not None and one in found
                yield from unless_listed(catalogue, is_said, f"{name}: {sentence}: {one}")


def test_every_line_is_on_the_page(catalogue: Catalogue, seen: Everything) -> None:
    fail_with(lines_not_told(catalogue, seen.lines))


def test_every_sentence_and_field_of_the_page_is_said(
    catalogue: Catalogue, seen: Everything
) -> None:
    fail_with(lines_not_said(catalogue, seen.lines))


def test_every_sentence_of_the_source_code_is_on_the_page(
    catalogue: Catalogue, emitters: Emitters
) -> None:
    told = {
        (message.sentence, message.source)
        for kind in catalogue.types.values()
        for message in kind.messages.values()
        if message.sentence != ANY
    }
    written = {sentence for sentence, _ in emitters.sentences}
    fail_with(
        [
            *(
                f"{sentence!r} of {path.relative_to(ROOT)}: add it to the table of its type"
                for sentence, path in emitters.sentences - told
            ),
            *(
                f"{sentence!r} is not said in {path.relative_to(ROOT)}: correct the row"
                for sentence, path in told - emitters.sentences
                if sentence in written or sentence not in emitters.words
            ),
        ]
    )


# Spans ------------------------------------------------------------------------------------------------


def row_of(catalogue: Catalogue, span: ReceivedSpan) -> SpanRow | None:
    """Return the row that a span belongs to: the first whose pattern fits."""
    tracer = "ours" if span.scope == span.service else span.scope
    return next(
        (
            row
            for row in catalogue.spans
            if (row.kind, row.tracer) == (span.kind, tracer) and row.matches(span.name)
        ),
        None,
    )


def spans_not_told(catalogue: Catalogue, spans: list[ReceivedSpan]) -> Iterable[str]:
    """Yield what is in the spans and not on the page."""
    for span in spans:
        row = row_of(catalogue, span)
        if row is None:
            yield f"span {span.name} ({span.kind} of {span.scope}): add a row to the table of spans"
            continue
        what = f"span {row.kind} {row.name}"
        if PROCESSES[span.service] not in row.processes:
            yield f'{what} comes from {span.service}: name it in the column "From"'
        yield from keys_not_told(row.attributes, span.attributes, f"{what}, attribute")
        yield from keys_not_told(row.events, span.events, f"{what}, event")
        for name, value in span.attributes.items():
            allowed = catalogue.attributes.get(name, Values())
            if not allowed.fits(value):
                yield f"attribute {name} is not always {allowed.form!r}: correct the unit"
            yield from beyond(allowed, {str(value)}, f"attribute {name}")
        for name, value in span.resource.items():
            yield from beyond(catalogue.resource.get(name, Values()), {str(value)}, name)
        yield from keys_not_told(
            dict.fromkeys(catalogue.resource, True), span.resource, "resource attribute"
        )


def keys_not_told(told: Mapping[str, bool], found: Iterable[str], what: str) -> Iterable[str]:
    """Yield which keys are new, and which are not always there."""
    found = set(found)
    for new in found - told.keys():
        yield f"{what} {new}: add it"
    for missing in {name for name, is_always_there in told.items() if is_always_there} - found:
        yield f"{what} {missing} can be missing: mark it with ?, or take it out"


def spans_not_made(catalogue: Catalogue, spans: list[ReceivedSpan]) -> Iterable[str]:
    """Yield what is on the page and in no span."""
    used: dict[int, set[str]] = defaultdict(set)
    for span in spans:
        if row := row_of(catalogue, span):
            used[catalogue.spans.index(row)] |= {*span.attributes, *span.events, ""}
    for number, row in enumerate(catalogue.spans):
        what = f"span {row.kind} {row.name}"
        yield from unless_listed(catalogue, number in used, what)
        for one in (*row.attributes, *row.events):
            yield from unless_listed(catalogue, one in used[number], f"{what}: {one}")
    on_rows = {name for row in catalogue.spans for name in row.attributes}
    for name in on_rows ^ catalogue.attributes.keys():
        yield f"attribute {name} is in only one of the two tables of spans"


def test_every_span_is_on_the_page(catalogue: Catalogue, seen: Everything) -> None:
    fail_with(spans_not_told(catalogue, seen.spans))


def test_every_span_of_the_page_is_made(catalogue: Catalogue, seen: Everything) -> None:
    fail_with(spans_not_made(catalogue, seen.spans))


# Error reports and headers ----------------------------------------------------------------------------


def crumbs_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the breadcrumbs of a report."""
    crumbs: list[dict[str, Any]] = report["breadcrumbs"]["values"]
    return crumbs


def reports_not_told(catalogue: Catalogue, reports: list[dict[str, Any]]) -> Iterable[str]:
    """Yield what is in the reports and not on the page."""
    for report in reports:
        yield from keys_not_told(catalogue.parts, report, "part of a report")
        for tag, value in report["tags"].items():
            if tag not in catalogue.tags:
                yield f"tag {tag}: add it"
            yield from beyond(catalogue.tags.get(tag, Values()), {value}, f"tag {tag}")
        for name, details in report["contexts"].items():
            if name not in catalogue.contexts:
                yield f"context {name}: add it"
            else:
                yield from keys_not_told(catalogue.contexts[name], details, f"context {name}")
        for crumb in crumbs_of(report):
            if crumb["data"].keys() != catalogue.breadcrumbs.get(crumb["message"]):
                yield f"breadcrumb {crumb['message']} {sorted(crumb['data'])}: add or correct it"
        if "exception" not in report and report["fingerprint"][0] not in catalogue.fingerprints:
            yield f"fingerprint {report['fingerprint']}: add it"


def reports_not_made(catalogue: Catalogue, reports: list[dict[str, Any]]) -> Iterable[str]:
    """Yield what is on the page and in no report."""
    tags = {tag for report in reports for tag in report["tags"]}
    parts = {part for report in reports for part in report}
    kinds = {report["fingerprint"][0] for report in reports}
    for tag in catalogue.tags:
        yield from unless_listed(catalogue, tag in tags, f"tag {tag}")
    for part in catalogue.parts:
        yield from unless_listed(catalogue, part in parts, f"part {part}")
    for kind in catalogue.fingerprints:
        yield from unless_listed(catalogue, kind in kinds, f"fingerprint {kind}")
    for name, told in catalogue.contexts.items():
        found = {one for report in reports for one in report["contexts"].get(name, ())}
        for one in told:
            yield from unless_listed(catalogue, one in found, f"context {name}: {one}")


def test_every_error_report_is_on_the_page(catalogue: Catalogue, seen: Everything) -> None:
    fail_with(reports_not_told(catalogue, seen.reports))


def test_every_part_of_an_error_report_on_the_page_is_sent(
    catalogue: Catalogue, seen: Everything
) -> None:
    assert any(crumbs_of(report) for report in seen.reports)
    fail_with(reports_not_made(catalogue, seen.reports))


def test_the_breadcrumbs_of_the_page_are_those_of_the_source_code(
    catalogue: Catalogue, seen: Everything, emitters: Emitters
) -> None:
    told = {(message, frozenset(data)) for message, data in catalogue.breadcrumbs.items()}
    left = {(c["message"], frozenset(c["data"])) for r in seen.reports for c in crumbs_of(r)}
    fail_with(
        [
            *(f"breadcrumb {one[0]}: add it" for one in emitters.breadcrumbs - told),
            *(
                f"breadcrumb {one[0]}: nobody leaves it"
                for one in told - emitters.breadcrumbs - left
            ),
        ]
    )


def test_answers_and_messages_have_the_headers_of_the_page(
    catalogue: Catalogue, seen: Everything
) -> None:
    answers = {name.lower() for name, where in catalogue.headers.items() if "answer" in where}
    ours = {name for name in seen.response_headers if re.match(r"x-.*-id$|trace|baggage", name)}
    messages = {name for name, where in catalogue.headers.items() if "message" in where}
    fail_with(
        [
            *(f"header {name} of answers" for name in answers ^ ours),
            *(f"header {name} of messages" for name in messages ^ seen.message_headers),
        ]
    )


# The page itself --------------------------------------------------------------------------------------


def test_every_file_that_the_page_leads_to_exists(catalogue: Catalogue) -> None:
    assert catalogue.linked
    fail_with(f"{path} does not exist" for path in catalogue.linked if not path.is_file())


def test_what_is_listed_as_not_seen_is_on_the_page(catalogue: Catalogue) -> None:
    known = {
        *(f"metric {name}" for name in catalogue.metrics),
        *(f"tag {name}" for name in catalogue.tags),
        *(f"context {name}: {one}" for name, told in catalogue.contexts.items() for one in told),
    }
    for name, kind in catalogue.types.items():
        for sentence, message in kind.messages.items():
            known |= {
                f"{name}: {sentence}",
                *(f"{name}: {sentence}: {one}" for one in message.fields),
            }
    for row in catalogue.spans:
        span = f"span {row.kind} {row.name}"
        known |= {span, *(f"{span}: {one}" for one in (*row.attributes, *row.events))}
    fail_with(f"{one} is listed as not seen and told nowhere" for one in catalogue.unseen - known)
