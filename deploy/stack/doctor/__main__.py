"""`python -m deploy.stack.doctor`: examines the stack and says what is wrong and what to do.

Exit codes: 0 all that was checked is ok; 1 something failed; 2 it could not be examined at all.
"""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console

from deploy.stack.backends.addresses import Addresses, NotUsable
from deploy.stack.doctor.checks import CHECKS
from deploy.stack.doctor.examination import NAMELESS, examine
from deploy.stack.doctor.findings import Finding
from deploy.stack.doctor.house import House
from deploy.stack.doctor.report import as_json, exit_code, print_report

app = typer.Typer(add_completion=False)

_WIDE = 160


@app.command()
def doctor(
    *,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON document.")] = False,
    patience: Annotated[
        float, typer.Option(min=0, help="Wait so many times as long: 3 on a slow machine.")
    ] = 1.0,
) -> None:
    """Examine the stack that runs here, or at the addresses that the environment names."""
    try:
        addresses = Addresses.read(os.environ)
    except NotUsable as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    house = House(addresses)
    try:
        findings = examine(house, CHECKS, patience=patience)
    finally:
        house.tidy_up()
    if addresses.is_inside and _is_elsewhere(findings):
        typer.echo(
            "error: no address is given, and this is not inside of the stack, where they are known. "
            "Say `make doctor`, or give addresses (APP_URL, PROMETHEUS_URL, ...).",
            err=True,
        )
        sys.exit(2)
    if json:
        typer.echo(as_json(findings))
    else:
        # A file or a pipe has no width; what is cut there is lost.
        console = Console() if sys.stdout.isatty() else Console(width=_WIDE)
        print_report(findings, console)
    sys.exit(exit_code(findings))


def _is_elsewhere(findings: list[Finding]) -> bool:
    """Whether not one of the names of the compose file is known here."""
    answering = [one for one in findings if one.check.endswith(" answers")]
    return all(one.remedy.startswith(NAMELESS) for one in answering)


if __name__ == "__main__":
    app()
