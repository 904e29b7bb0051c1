"""tests/bugsink.py: an environment that is not complete is never used, and made anew."""

import shutil
from pathlib import Path

import pytest

from tests.bugsink import CannotInstall, Installation
from tests.tools import require_tool


@pytest.fixture
def installation(tmp_path: Path) -> Installation:
    """Nothing yet, for a lock that no index can fulfil."""
    lock = tmp_path / "requirements.lock"
    lock.write_text("bugsink==0.0.1\n")
    return Installation(tmp_path / "environment", lock)


def complete(installation: Installation, lock: str) -> None:
    """Make what a finished installation for `lock` leaves behind, with a Python that does nothing."""
    python = Path(installation.program("python"))
    python.parent.mkdir(parents=True)
    python.symlink_to(require_tool("true"))
    (installation.directory / "requirements.lock").write_text(lock)


def test_an_environment_is_complete_when_its_last_step_was_for_this_lock(
    installation: Installation, tmp_path: Path
) -> None:
    assert not installation.is_complete()
    complete(installation, (tmp_path / "requirements.lock").read_text())
    assert installation.is_complete()
    (tmp_path / "requirements.lock").write_text("another")
    assert not installation.is_complete()


@pytest.mark.parametrize("target", ["nowhere", "false"])
def test_an_environment_whose_python_does_not_run_is_not_complete(
    installation: Installation, tmp_path: Path, target: str
) -> None:
    complete(installation, (tmp_path / "requirements.lock").read_text())
    python = Path(installation.program("python"))
    python.unlink()
    python.symlink_to(shutil.which(target) or tmp_path / target)
    assert not installation.is_complete()


def test_an_installation_that_fails_says_why_and_is_not_taken_for_good(
    installation: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = tmp_path / "python"  # the real thing says the same, and takes its time
    python.write_text(
        "#!/bin/sh\necho Looking in indexes\n"
        "echo ERROR: No matching distribution found for bugsink==0.0.1\nexit 1\n"
    )
    python.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(python))
    with pytest.raises(CannotInstall, match=r"ERROR: No matching distribution found for bugsink"):
        installation.prepare()
    assert not installation.is_complete()


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CannotInstall, match="Not a directory"):
        Installation(tmp_path / "file" / "environment").prepare()
