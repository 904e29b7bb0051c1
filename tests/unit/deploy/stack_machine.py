"""A checkout with the scripts of the stack, on a machine whose `docker` only answers what a test wants."""

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.compose_file import ROOT, variables
from tests.tools import free_port

TOOLS = [
    "awk",
    "cat",
    "chmod",
    "cut",
    "curl",
    "date",
    "df",
    "dirname",
    "grep",
    "head",
    "ls",
    "mkdir",
    "mktemp",
    "mv",
    "od",
    "rm",
    "sed",
    "sh",
    "sort",
    "tail",
    "touch",
    "tr",
    "umask",
    "wc",
]
PORTS = [name for name in variables() if name.endswith("_PORT")]

# Answers from files beside it, named as the command: "compose-up.out" is
# what `docker compose up ...` prints, ".next" what it prints from the second time on,
# ".err" what it complains of, ".code" how it ends. Notes each call.
DOCKER = r"""#!/bin/sh
here=$(dirname "$0")/docker.d
printf '%s | tls=%s demo=%s interval=%s ' "$*" "${STACK_TLS:-}" "${STACK_DEMO:-}" \
    "${SYNTHETIC_INTERVAL_SECONDS:-}" >>"$here/calls"
printf 'version=%s commit=%s ' "${SERVICE_VERSION:-}" "${GIT_COMMIT:-}" >>"$here/calls"
printf 'login=%s registration=%s\n' "${RATE_LIMIT_LOGIN:-}" "${RATE_LIMIT_REGISTRATION:-}" >>"$here/calls"
if [ "$1" = compose ]; then
    shift
    while [ "${1:-}" = --profile ]; do shift 2; done
    name=compose-$1
else
    name=$1
    case $1 in volume | network) name=$1-$2 ;; esac
fi
case $name:$* in
    inspect:*RestartCount*) name=inspect-restarts ;;
    inspect:*Config.Env*) name=inspect-env ;;
    inspect:*NetworkSettings*) name=inspect-ports ;;
    compose-ps:*--all\ --quiet*) name=compose-ps-all ;;
esac
[ ! -e "$here/$name.err" ] || cat "$here/$name.err" >&2
[ ! -e "$here/$name.out" ] || cat "$here/$name.out"
[ ! -e "$here/$name.next" ] || mv "$here/$name.next" "$here/$name.out"
[ ! -e "$here/$name.code" ] || exit "$(cat "$here/$name.code")"
"""


class Machine:
    """The checkout, the few programs that its scripts use, and a Docker that works unless told otherwise."""

    def __init__(self, directory: Path, shell: str = "sh") -> None:
        self.shell = shell
        self.checkout = directory / "checkout"
        self.programs = directory / "bin"
        self.answers = self.programs / "docker.d"
        self.answers.mkdir(parents=True)
        for tool in (*TOOLS, shell):
            found = shutil.which(tool)
            if found is not None and not (self.programs / tool).exists():
                (self.programs / tool).symlink_to(found)
        shutil.copytree(
            ROOT / "deploy/stack", self.checkout / "deploy/stack", ignore=lambda *_: {"__pycache__"}
        )
        shutil.copy(ROOT / "pyproject.toml", self.checkout)
        self.ports = {name: str(free_port()) for name in PORTS}
        (self.programs / "docker").write_text(DOCKER)
        (self.programs / "docker").chmod(0o755)
        # Nothing changes here because time goes by.
        (self.programs / "sleep").write_text("#!/bin/sh\n")
        (self.programs / "sleep").chmod(0o755)
        self.answer("compose-ps-all", "0123456789ab\n")
        self.answer("inspect-restarts", "running 0\n")
        self.answer("compose-version", "2.24.0\n")
        self.answer("info", f"{16 * 1024**3} 28.2.0\n")
        self.answer("volume-inspect", code=1)

    def answer(self, command: str, out: str = "", *, err: str = "", code: int = 0) -> None:
        """Let docker answer to a command in this way."""
        for suffix, content in (("out", out), ("err", err), ("code", str(code))):
            (self.answers / f"{command}.{suffix}").write_text(content)

    def run(
        self, script: str, *arguments: str, answer: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one of the scripts as the Makefile does; with `answer`, somebody sits at the terminal."""
        terminal, stdin = pty.openpty() if answer is not None else (None, subprocess.DEVNULL)
        try:
            if terminal is not None:
                os.write(terminal, (answer or "").encode())
            return subprocess.run(
                [self.shell, f"deploy/stack/{script}.sh", *arguments],
                cwd=self.checkout,
                env={
                    "PATH": str(self.programs),
                    "HOME": str(self.checkout),
                    **self.ports,
                    **environment,
                },
                stdin=stdin,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )
        finally:
            if terminal is not None:
                os.close(terminal)
                os.close(stdin)

    @property
    def calls(self) -> list[str]:
        """What docker was asked, one line a call, with the variables that Compose would see."""
        file = self.answers / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def called(self, words: str) -> list[str]:
        return [call for call in self.calls if call.startswith(words)]

    @property
    def env(self) -> Path:
        return self.checkout / ".env"


def refusal(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence of a run that has to have failed."""
    assert done.returncode != 0, done.stdout
    told = done.stderr.replace("[y/N] ", "[y/N]\n")  # where a person's answer ends the line
    said = [line for line in told.splitlines() if line.startswith("glasshouse: ")]
    if not said:
        pytest.fail(f"no reason was given: {done.stderr}", pytrace=False)
    return said[-1]


def shells() -> list[str]:
    """Return the shells of this machine that are POSIX and nothing else."""
    return [shell for shell in ("sh", "dash") if shutil.which(shell, path=os.defpath)]
