"""What the instrumentation costs, measured: `python -m bench`.

Exit codes: 0 measured; 1 it could not be measured, or something did not work that was measured; 2 wrong
arguments; 3 measured, but the machine was too noisy to conclude; 4 a target was missed, with --check;
130 interrupted.
"""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
from rich.console import Console

from bench import report
from bench.agenda import Agenda, WrongArgument, make_agenda
from bench.groups import GROUPS, Group, arguments
from bench.interruption import interruptible, run
from bench.process import NotMeasurable
from bench.progress import Progress
from bench.results import Results
from bench.run import compare
from bench.stage import open_stage
from bench.targets import MISSED

FAILED: Final = 1
WRONG: Final = 2
NOISY: Final = 3
TARGET_MISSED: Final = 4
INTERRUPTED: Final = 130
_WIDTH: Final = 130
"""Where the output is no terminal."""

_PARAGRAPHS: Final = (" ".join(one.split()) for one in __doc__.split("\n\n"))

app = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, help="\n\n".join(_PARAGRAPHS)
)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Also write the numbers here.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        help="A database that may be filled, instead of a PostgreSQL started for this "
        "(SQLite where its programs are not installed)."
    ),
]


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    quick: Annotated[bool, typer.Option("--quick", help="Less, in under a minute.")] = False,
    json_file: JsonFile = None,
    database_url: DatabaseUrl = None,
    variants: Annotated[str, typer.Option(help="Only these, separated by commas.")] = "",
    operations: Annotated[str, typer.Option(help="Only these, separated by commas.")] = "",
    rounds: Annotated[int | None, typer.Option(help="More rounds, less noise.")] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second for the latency at a fixed rate.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 4 if a target is missed.")
    ] = False,
) -> None:
    """Compare the instrumented service with the bare application and with a typical template."""
    if context.invoked_subcommand is not None:
        return
    try:
        agenda = make_agenda(
            quick=quick, variants=variants, operations=operations, rounds=rounds, rate=rate
        )
    except WrongArgument as error:
        _fail(str(error), WRONG)
    _writable(json_file)
    sys.exit(_compared(agenda, database_url, json_file, check=check))


def _compared(
    agenda: Agenda, database_url: str | None, json_file: Path | None, *, check: bool
) -> int:
    progress = Progress(agenda.seconds)
    kept: list[Results] = []
    code = 0
    try:
        with interruptible():
            compare(agenda, database_url, progress, kept.append)
    except NotMeasurable as error:
        progress.end()
        typer.echo(f"error: {error}", err=True)
        code = FAILED
    except KeyboardInterrupt:
        progress.end()
        typer.echo("interrupted; everything that was started has ended", err=True)
        code = INTERRUPTED
    progress.end()
    if not kept or kept[0].empty:
        typer.echo("nothing was measured", err=True)
        return code or FAILED
    results = kept[0]
    report.show(results, _console())
    _write(json_file, results.as_json())
    return code or exit_code(results, check=check)


def exit_code(results: Results, *, check: bool) -> int:
    """Return what a complete run ends with."""
    if results.complaints:
        return FAILED
    if not results.noise.conclusive:
        return NOISY
    if check and any(one.verdict == MISSED and not one.stretch for one in results.targets):
        return TARGET_MISSED
    return 0


def _add(group: Group) -> None:
    def command(
        json_file: JsonFile = None,
        database_url: DatabaseUrl = None,
        option: Annotated[
            list[str] | None,
            typer.Option("--set", help="NAME=NUMBER or NAME=NUMBER,NUMBER: what it measures with."),
        ] = None,
    ) -> None:
        _writable(json_file)
        try:
            module = group.module
            given = arguments(module, option or [])
        except NotMeasurable as error:
            _fail(str(error), FAILED)
        except ValueError as error:
            _fail(str(error), WRONG)
        progress = Progress(None)
        try:
            with interruptible():
                result = _group(group, module.measure, database_url, progress, given)
        except NotMeasurable as error:
            progress.end()
            _fail(str(error), FAILED)
        except KeyboardInterrupt:
            progress.end()
            _fail(
                "interrupted; everything that was started has ended; nothing was measured",
                INTERRUPTED,
            )
        progress.end()
        typer.echo(module.show(result))
        _write(json_file, {group.name: module.as_json(result)})

    app.command(group.name, help=group.help)(command)


def _group(
    group: Group,
    measure: Callable[..., Any],
    database_url: str | None,
    progress: Progress,
    given: dict[str, Any],
) -> object:
    if not group.needs_stage:
        return run(measure(None, progress, **given))
    with open_stage(database_url) as stage:
        return run(measure(stage, progress, **given))


for each in GROUPS.values():
    _add(each)


def _console() -> Console:
    return Console() if sys.stdout.isatty() else Console(width=_WIDTH)


def _writable(file: Path | None) -> None:
    """Say it before minutes have gone by."""
    if file is None:
        return
    try:
        file.open("a", encoding="utf-8").close()
    except OSError as error:
        _fail(f"cannot write {file}: {error.strerror}", WRONG)


def _write(file: Path | None, told: dict[str, Any]) -> None:
    if file is not None:
        file.write_text(json.dumps(_strict(told), indent=2) + "\n", encoding="utf-8")


def _strict(value: Any) -> Any:
    """Return it with null where a number is none: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _strict(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _fail(sentence: str, code: int) -> NoReturn:
    typer.echo(f"error: {sentence}", err=True)
    sys.exit(code)
