"""The report for people: tables, the noise in words, the targets, and what did not work."""

from collections.abc import Mapping
from typing import Final

from rich.console import Console
from rich.table import Table

from bench.comparison import Figures, Latency
from bench.results import Results
from bench.targets import MET, MISSED, Target
from bench.variants import MANY, VARIANTS

_MB: Final = 1024 * 1024
_COLOURS: Final = {MET: "green", MISSED: "red"}
_WHAT: Final = {
    "ping": "ping: a handler that does nothing",
    "read": "read: one row by its key",
    "create": "create: an order with two lines",
    "list": "list: 50 orders",
}


def show(results: Results, console: Console) -> None:
    """Print everything that there is."""
    for operation, figures in results.figures.items():
        if figures:
            console.print(_costs(_WHAT.get(operation, operation), figures))
    for operation, latency in results.latency.items():
        if latency:
            rate = results.at_rates[operation].rate
            console.print(_latency(f"{operation} at {rate:.0f} requests a second", latency))
    if results.footprints:
        console.print(_footprints(results))
    console.print(_targets(results.targets))
    for line in _sentences(results):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        if number:
            table.add_column(column, justify="right", no_wrap=True)
        else:
            table.add_column(column, min_width=45, no_wrap=True)
    return table


def _costs(title: str, figures: Mapping[str, Figures]) -> Table:
    table = _table(
        f"\n{title}", "", "CPU µs", "to bare", "±", "added µs", "req/s", "p50 ms", "p99 ms"
    )
    for name, one in figures.items():
        table.add_row(
            _shown(name),
            f"{one.cpu_us:.0f}",
            f"{one.ratio.value:.2f}",
            f"{one.ratio.spread:.2f}",
            f"{one.added_us.value:.0f}",
            f"{one.requests_per_second:.0f}",
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
        )
    return table


def _latency(title: str, latency: Mapping[str, Latency]) -> Table:
    table = _table(f"\n{title}", "", "p50 ms", "p99 ms", "p99 to bare", "±")
    for name, one in latency.items():
        ratio = one.p99_ratio
        table.add_row(
            _shown(name),
            f"{one.p50_ms:.2f}",
            f"{one.p99_ms:.2f}",
            f"{ratio.value:.2f}",
            f"{ratio.spread:.2f}",
        )
    return table


def _footprints(results: Results) -> Table:
    table = _table(
        "\nstart and memory", "", "start s", "its CPU s", "MB idle", "MB after", "threads"
    )
    for name, one in results.footprints.items():
        table.add_row(
            _shown(name),
            f"{one.start_seconds:.2f}",
            f"{one.start_cpu_seconds:.2f}",
            f"{one.rest_bytes / _MB:.0f}",
            "" if one.after_bytes is None else f"{one.after_bytes / _MB:.0f}",
            "" if one.threads is None else str(one.threads),
        )
    return table


def _targets(targets: list[Target]) -> Table:
    table = _table("\ntargets", "", "limit", "measured", "±", "")
    for target in targets:
        kind = "at least" if target.at_least else "at most"
        what = f"{target.what}{', stretch' if target.stretch else ''}"
        colour = _COLOURS.get(target.verdict, "yellow")
        why = f": {target.reason}" if target.reason else ""
        table.add_row(
            what,
            f"{kind} {target.limit:g}",
            f"{target.value.value:.2f}" if target.value else "",
            f"{target.value.error:.2f}" if target.value else "",
            f"[{colour}]{target.verdict}[/]{why}",
        )
    table.columns[-1].justify = "left"
    table.columns[-1].no_wrap = False
    return table


def _sentences(results: Results) -> list[str]:
    machine = results.machine
    image, tests = results.image_bytes, results.test_seconds
    image_said = "not known" if image is None else f"{image / _MB:.0f} MB"
    tests_said = "not known" if tests is None else f"{tests:.0f} s"
    others = max(machine.others_before, results.others_after)
    database = "PostgreSQL" if results.on_postgres else "SQLite"
    lines = [
        "",
        results.noise.sentence,
        f"Container image: {image_said}. make test: {tests_said}.",
        f"{machine.cores} cores, {machine.processor}, {machine.system}, Python {machine.python}, {database}.",
        f"Others used {others:.0%} of it, its host {results.stolen:.1%}; load {machine.load_before:.2f}.",
        f"Bursts and turns that its host disturbed, which do not count: {results.disturbed:.0%}.",
    ]
    if not results.on_postgres:
        lines.append(
            "The database was SQLite, so the targets about PostgreSQL cannot be checked: install it "
            "(initdb and postgres), or name one with --database-url."
        )
    if results.complete:
        lines.append(f"It took {results.seconds:.0f} s.")
    else:
        lines.append(
            "It was ended before it was complete: fewer rounds, and no proof that all worked."
        )
    lines += [f"error: {complaint}" for complaint in results.complaints]
    return lines


def _shown(name: str) -> str:
    variant = VARIANTS[name]
    routes = f", {MANY} routes" if variant.routes == MANY and str(MANY) not in variant.shown else ""
    return f"{variant.shown}{routes}"
