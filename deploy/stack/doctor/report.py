"""How findings are told: a table for people, what to do below it, and the same as JSON for programs."""

import json
from collections.abc import Sequence
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.stack.doctor.findings import Finding, Status

_MARKS: Final[dict[Status, tuple[str, str]]] = {
    "ok": ("ok", "green"),
    "failed": ("FAILED", "bold red"),
    "not checked": ("not checked", "yellow"),
}


def exit_code(findings: Sequence[Finding]) -> int:
    """Return 1 where something failed, else 0."""
    return int(any(one.status == "failed" for one in findings))


def as_json(findings: Sequence[Finding]) -> str:
    """Return the findings as a document."""
    document: dict[str, Any] = {
        "ok": exit_code(findings) == 0,
        "summary": summary(findings),
        "findings": [vars(one) for one in findings],
    }
    return json.dumps(document, indent=2, ensure_ascii=False)


def print_report(findings: Sequence[Finding], console: Console) -> None:
    """Print a line for each check, then what to do, the root first."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for one in findings:
        mark, style = _MARKS[one.status]
        table.add_row(Text(mark, style), Text(one.check), Text(one.seen, overflow="fold"))
    console.print(table)
    failed = _of(findings, "failed")
    if failed:
        console.print()
        console.print(Text("What to do", "bold"))
    for number, one in enumerate(failed, 1):
        console.print(Text(f"{number}. {one.check}", "bold"))
        console.print(Text(f"   {one.remedy}"))
    console.print()
    console.print(Text(summary(findings), "bold"))


def summary(findings: Sequence[Finding]) -> str:
    """Return the whole in a few sentences."""
    failed, unknown = _of(findings, "failed"), _of(findings, "not checked")
    made = len(findings) - len(unknown)
    sentences = []
    answering = [one for one in findings if one.check.endswith(" answers")]
    if failed and all(one.status != "ok" for one in answering):
        sentences.append("Nothing answers: is the stack running? `make up` starts it.")
    elif failed:
        first = failed[0]
        also = f" {len(unknown)} could not be made." if unknown else ""
        sentences.append(f"{len(failed)} of {made} checks failed.{also}")
        sentences.append(f"Begin with “{first.check}”: the others may follow from it.")
    else:
        sentences.append(f"All {made} checks that were made are ok.")
    given_not = sorted(
        {word for one in unknown for word in one.seen.split() if one.seen.endswith("not given")}
        - {"and", "not", "given"}
    )
    if given_not:
        sentences.append(f"Not checked, for it was not given: {', '.join(given_not)}.")
    return " ".join(sentences)


def _of(findings: Sequence[Finding], status: Status) -> list[Finding]:
    return [one for one in findings if one.status == status]
