"""deploy/local/locks.py: a lock that is stale, unsafe or bound to one index is refused."""

from pathlib import Path

import pytest

from deploy.local.locks import complaints, complaints_about_bugsink, complaints_about_lock

HASH = f"--hash=sha256:{'0' * 64}"
PINS = f"alpha==1.2.0 \\\n    {HASH}\nbeta-tool==2.0rc1 ; sys_platform == 'linux' \\\n    {HASH}\n"
PROJECT = {
    "project": {"dependencies": ["alpha~=1.1"]},
    "dependency-groups": {
        "dev": [{"include-group": "load"}],
        "load": ["Beta_Tool>=2.0rc1"],
    },
}


def about(lock: str, *wanted: str) -> list[str]:
    return list(complaints_about_lock("x.lock", lock, wanted))


def test_a_lock_that_fits_is_accepted() -> None:
    assert about(PINS, "alpha[extra]~=1.1", "Beta_Tool>=2.0rc1") == []
    assert list(complaints(PINS, PINS, PINS, PROJECT)) == []


@pytest.mark.parametrize(
    ("defect", "complaint"),
    [
        (PINS.replace(HASH, "", 1).replace("\\\n    \n", "\n"), "alpha has no hash"),
        (PINS.replace("alpha==", "alpha>="), "alpha is not pinned to one version"),
        ("--index-url https://packages.example/simple\n" + PINS, "names an index"),
        ("-i http://packages.example\n" + PINS, "names an index"),
        ("--find-links /opt/wheels\n" + PINS, "names an index"),
        ("-f wheels\n" + PINS, "names an index"),
        (f"alpha @ https://packages.example/a.whl {HASH}\n", "names an index or an address"),
    ],
)
def test_a_defect_is_named(defect: str, complaint: str) -> None:
    found = about(defect)
    assert len(found) == 1
    assert complaint in found[0]


def test_a_stale_lock_is_told_what_it_lacks() -> None:
    assert about(PINS, "gamma>=1") == ["x.lock lacks gamma>=1"]
    assert about(PINS, "alpha~=1.3") == ["x.lock has alpha 1.2.0, pyproject.toml wants alpha~=1.3"]


def test_the_locks_must_agree_so_that_tests_run_on_what_is_deployed() -> None:
    newer = PINS.replace("1.2.0", "1.2.1")
    assert list(complaints(PINS, newer, newer, PROJECT)) == [
        "requirements.lock and requirements-dev.lock differ in alpha: tests would run on other versions"
    ]
    assert list(complaints(newer, PINS, newer, PROJECT)) == [
        "requirements-load.lock and requirements-dev.lock differ in alpha: tests would run on other versions"
    ]


def test_what_a_group_includes_is_wanted_as_well() -> None:
    lacking = PINS.replace("beta-tool", "gamma")
    assert list(complaints(lacking, lacking, lacking, PROJECT)) == [
        "requirements-load.lock lacks Beta_Tool>=2.0rc1",
        "requirements-dev.lock lacks Beta_Tool>=2.0rc1",
    ]


def test_a_project_without_the_lists_is_refused() -> None:
    assert len(list(complaints(PINS, PINS, PINS, {"project": {}}))) == 1
    assert len(list(complaints_about_bugsink(PINS, PROJECT))) == 1


def test_the_lock_of_the_tests_error_tracker_is_checked_like_the_others() -> None:
    project = {"dependency-groups": {"bugsink": ["alpha~=1.3"]}}
    assert list(complaints_about_bugsink(PINS, project)) == [
        "tests/requirements-bugsink.lock has alpha 1.2.0, pyproject.toml wants alpha~=1.3"
    ]


def test_the_locks_of_this_repository_say_how_they_are_made() -> None:
    root = Path(__file__).parents[3]
    for name in (
        "requirements.lock",
        "requirements-load.lock",
        "requirements-dev.lock",
        "tests/requirements-bugsink.lock",
    ):
        assert (root / name).read_text("utf-8").startswith("# Written by `make lock`")
