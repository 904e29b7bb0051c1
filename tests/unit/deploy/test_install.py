"""deploy/local/install.sh: every machine that cannot run the service is told why, in one sentence."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools import free_port

SCRIPT = Path(__file__).parents[3] / "deploy" / "local" / "install.sh"
TOOLS = ("cat", "cmp", "cp", "dirname", "grep", "head", "mkdir", "rm", "sed", "sh", "tail")
EMPTY_LOCK = "# nothing\n"
LOCK_OF_AN_INDEX = f"no-such-package-anywhere==1.0 \\\n    --hash=sha256:{'0' * 64}\n"


class Machine:
    """A checkout and the programs that its machine has: the few that the script uses, and some Pythons."""

    def __init__(self, directory: Path) -> None:
        self.checkout = directory / "checkout"
        self.programs = directory / "bin"
        self.programs.mkdir()
        for tool in TOOLS:
            (self.programs / tool).symlink_to(
                shutil.which(tool) or pytest.fail(f"{tool} is missing")
            )
        (self.checkout / "deploy" / "local").mkdir(parents=True)
        shutil.copy(SCRIPT, self.checkout / "deploy" / "local")
        self.write_locks(EMPTY_LOCK)

    def write_locks(self, lock: str) -> None:
        for name in ("requirements.lock", "requirements-dev.lock"):
            (self.checkout / name).write_text(lock)

    def add_python(self, name: str, answer: str) -> None:
        """Add a Python that answers the script's question in this way."""
        program = self.programs / name
        program.write_text(f"#!/bin/sh\necho '{answer}'\n")
        program.chmod(0o755)

    def add_real_python(self) -> None:
        (self.programs / "python3").symlink_to(sys.executable)

    def install(self, what: str = "run", **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the script as the Makefile does."""
        return subprocess.run(
            ["sh", "deploy/local/install.sh", what],
            cwd=self.checkout,
            env={"PATH": str(self.programs), "HOME": str(self.checkout), **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    @property
    def venv(self) -> Path:
        return self.checkout / ".venv"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def sentence(refused: subprocess.CompletedProcess[str]) -> str:
    """Return the one line on standard error of a run that has to have failed."""
    assert refused.returncode == 1
    lines = refused.stderr.splitlines()
    assert len(lines) == 1, refused.stderr
    assert lines[0].startswith("glasshouse: ")
    return lines[0]


def test_a_machine_without_python_is_told_so(machine: Machine) -> None:
    assert "no Python was found, Python 3.11 or later is needed" in sentence(machine.install())


def test_a_python_that_is_too_old_is_named_with_its_version(machine: Machine) -> None:
    machine.add_python("python3", "old 3.6.15")
    assert "Python 3.6.15 (python3) is too old, Python 3.11 or later" in sentence(machine.install())


def test_a_python_without_venv_is_told_how_debian_adds_it(machine: Machine) -> None:
    machine.add_python("python3", "bare 3.11.2")
    said = sentence(machine.install())
    assert "Python 3.11.2 (python3)" in said
    assert "apt install python3-venv" in said


def test_a_better_python_further_down_the_list_is_preferred(machine: Machine) -> None:
    machine.add_python("python3", "old 3.8.18")
    machine.add_python("python3.13", "bare 3.13.0")
    machine.add_python("python3.12", "ok 3.12.1")
    found = machine.install("python")
    assert (found.returncode, found.stdout) == (0, "python3.12\n")


def test_a_named_python_is_the_only_one_asked(machine: Machine) -> None:
    machine.add_python("python3", "ok 3.12.1")
    said = sentence(machine.install(PYTHON="/nowhere/python"))
    assert "PYTHON=/nowhere/python is not a Python that can be run" in said


def test_the_question_is_understood_by_any_python_3() -> None:
    found = re.search(r"^PROBE='$(.*?)^'$", SCRIPT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    ast.parse(found[1], feature_version=(3, 4))


def test_a_directory_that_cannot_be_written_is_named(machine: Machine) -> None:
    machine.add_real_python()
    (machine.checkout / "var").write_text("a file where the directory should be")
    assert f"cannot write to {machine.checkout}/var" in sentence(machine.install())


def test_an_index_that_does_not_answer_leaves_a_log_and_no_environment(machine: Machine) -> None:
    machine.add_real_python()
    machine.write_locks(LOCK_OF_AN_INDEX)
    index = f"http://127.0.0.1:{free_port()}/simple"
    said = sentence(machine.install(PIP_INDEX_URL=index, PIP_RETRIES="1"))
    assert "the package index does not answer (" in said
    assert "Connection refused" in said
    assert "var/install.log" in said
    assert "no-such-package-anywhere" in (machine.checkout / "var" / "install.log").read_text()
    assert not machine.venv.exists()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Machine, str]:
    """Return a machine with an environment, and what was said when half a one was found there."""
    machine = Machine(tmp_path_factory.mktemp("prepared"))
    machine.add_real_python()
    half = machine.venv / "bin" / "python"
    half.parent.mkdir(parents=True)
    half.write_text("#!/bin/sh\nexit 1\n")
    half.chmod(0o755)
    shutil.copy(machine.checkout / "requirements-dev.lock", machine.venv)
    return machine, machine.install("dev").stdout


def test_half_an_environment_is_made_anew(prepared: tuple[Machine, str]) -> None:
    machine, said = prepared
    assert "Making .venv" in said
    subprocess.run([machine.venv / "bin" / "python", "-c", "import pip"], check=True)


def test_what_is_installed_is_trusted_until_the_lock_changes(prepared: tuple[Machine, str]) -> None:
    machine, _ = prepared
    machine.write_locks(EMPTY_LOCK)
    machine.install("dev")
    pip_was_asked = machine.checkout / "var" / "install.log"
    pip_was_asked.unlink()

    assert machine.install("dev").stdout == ""
    assert machine.install("run").stdout == "", "the dev lock holds what running needs"
    assert not pip_was_asked.exists()

    machine.write_locks(EMPTY_LOCK + "# moved\n")
    assert "Installing requirements.lock" in machine.install("run").stdout
    assert pip_was_asked.exists()


def test_a_failed_update_is_not_trusted_by_the_next_run(prepared: tuple[Machine, str]) -> None:
    machine, _ = prepared
    machine.write_locks(EMPTY_LOCK)
    machine.install()
    machine.write_locks(LOCK_OF_AN_INDEX)
    offline = {"PIP_INDEX_URL": f"http://127.0.0.1:{free_port()}/simple", "PIP_RETRIES": "0"}
    for _ in range(2):
        assert "could not be installed" in sentence(machine.install(**offline))
    assert os.access(machine.venv / "bin" / "python", os.X_OK), "what worked before is kept"

    machine.write_locks(EMPTY_LOCK)
    assert "Installing" in machine.install().stdout, "nobody knows what the failed update changed"
