"""`python -m monitoring.build`: writes what is generated, or with --check says what is not as it would be.

Exit codes: 0 done, or nothing differs; 1 something differs, or what is declared cannot be: a sentence
on standard error says what.
"""

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from app.observability.service_levels.objectives import ObjectivesError
from monitoring.build.artifacts import GENERATED, ROOT, all_artifacts, artifacts
from monitoring.build.profile import PROFILES


def build(
    *,
    check: Annotated[bool, typer.Option(help="Write nothing; fail when a file differs.")] = False,
    profile: Annotated[
        str, typer.Option(help="production or demo; both by default.", metavar="NAME")
    ] = "",
) -> None:
    """Turn objectives and declared alerts into rules, tests and configuration."""
    if profile and profile not in PROFILES:
        _fail(f"there is no profile {profile!r}: say {' or '.join(PROFILES)}")
    try:
        made = artifacts(PROFILES[profile]) if profile else all_artifacts()
    except (ObjectivesError, ValueError) as error:
        _fail(str(error))
    # With one profile only, what belongs to another one is not left over.
    left_over = [] if profile else sorted(_present() - made.keys())
    changed = [path for path, text in made.items() if _read(ROOT / path) != text]
    if check:
        if changed or left_over:
            differs = ", ".join([*changed, *(f"{path} (left over)" for path in left_over)])
            _fail(f"generated files differ; run `make rules`: {differs}")
        typer.echo(f"{len(made)} generated files are up to date")
        return
    for path in changed:
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(made[path])
    for path in left_over:
        (ROOT / path).unlink()
    typer.echo(f"{len(made)} files, {len(changed)} written, {len(left_over)} removed")


def _present() -> set[str]:
    return {
        str(file.relative_to(ROOT))
        for directory in GENERATED
        for file in (ROOT / directory).rglob("*")
        if file.is_file()
    }


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _fail(sentence: str) -> NoReturn:
    typer.echo(f"error: {sentence}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    typer.run(build)
