"""deploy/stack/setup.py: secrets are made once, handed out to whom they are for, and never told."""

import json
from pathlib import Path
from typing import Any

import pytest

from deploy.stack.setup import DEFAULT_USER, KEPT, MADE, audiences, main

AUDIENCES = audiences(dict.fromkeys((*MADE, "stack_user"), "value"))


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    for name in AUDIENCES:
        (tmp_path / name).mkdir()
    return tmp_path


def contents(volumes: Path) -> dict[str, str]:
    files = [path for path in volumes.rglob("*") if path.is_file()]
    return {str(path.relative_to(volumes)): path.read_text() for path in files}


def run(volumes: Path, *arguments: str, **environment: str) -> int:
    return main([*arguments], environment, volumes)


def told(capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_every_audience_gets_its_files_and_no_others(volumes: Path) -> None:
    assert run(volumes) == 0
    expected = {f"{name}/{file}" for name, files in AUDIENCES.items() for file in files}
    assert set(contents(volumes)) == expected


def test_what_is_made_is_long_and_each_time_another(volumes: Path) -> None:
    run(volumes)
    made = [(volumes / KEPT / name).read_text() for name in MADE]
    assert all(len(value) >= 24 for value in made)
    assert len(set(made)) == len(made)


def test_a_second_run_changes_nothing(volumes: Path) -> None:
    run(volumes)
    before = contents(volumes)
    stamps = {path: path.stat().st_mtime_ns for path in volumes.rglob("*")}
    assert run(volumes) == 0
    assert contents(volumes) == before
    assert {path: path.stat().st_mtime_ns for path in volumes.rglob("*")} == stamps


def test_a_lost_volume_is_filled_with_the_same_again(volumes: Path) -> None:
    run(volumes)
    before = contents(volumes)
    for file in (volumes / "app").iterdir():
        file.unlink()
    run(volumes)
    assert contents(volumes) == before


def test_files_can_be_read_by_their_audience_and_written_by_nobody(volumes: Path) -> None:
    run(volumes)
    for path in volumes.rglob("*"):
        if path.is_file():
            expected = 0o400 if path.parent.name == KEPT else 0o444
            assert path.stat().st_mode & 0o777 == expected, path


def test_what_no_audience_needs_any_more_is_removed(volumes: Path) -> None:
    (volumes / "app" / "retired_key").write_text("old")
    run(volumes)
    assert not (volumes / "app" / "retired_key").exists()


def test_the_service_is_led_to_its_database_and_cache(volumes: Path) -> None:
    run(volumes, POSTGRES_PASSWORD="a/b@c:d", VALKEY_PASSWORD="e?f#g")
    app = volumes / "app"
    assert (
        app / "database_url"
    ).read_text() == "postgresql://glasshouse:a%2Fb%40c%3Ad@postgres:5432/glasshouse"
    assert (app / "redis_url").read_text() == "redis://app:e%3Ff%23g@valkey:6379/0"
    assert (volumes / "postgres" / "glasshouse_password").read_text() == "a/b@c:d"


def test_the_cache_knows_hashes_only_and_nobody_without_a_password(volumes: Path) -> None:
    run(volumes, VALKEY_PASSWORD="abc")
    rules = (volumes / "valkey" / "users.acl").read_text()
    # FIPS 180-2, appendix B.1
    assert "#ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad " in rules
    assert "abc " not in rules
    assert rules.startswith("user default off\n")
    password = (volumes / "valkey" / "exporter_password").read_text()
    assert json.loads((volumes / "redis-exporter" / "passwords.json").read_text()) == {
        "redis://exporter@valkey:6379": password
    }


def test_a_login_that_was_made_is_printed_once(
    volumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(volumes)
    password = (volumes / "gateway" / "stack_password").read_text()
    assert f"{DEFAULT_USER}, password: {password}" in told(capsys)[0]
    run(volumes)
    assert password not in "".join(told(capsys))


def test_nothing_else_is_ever_printed(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = {name.upper(): f"given-{name}" for name in MADE}
    run(volumes, **given)
    run(volumes, **{name: f"other-{value}" for name, value in given.items()})
    printed = "".join(told(capsys))
    assert not [value for value in given.values() if value in printed]


def test_the_login_can_be_asked_for(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(volumes, "login") == 1
    assert told(capsys) == ("", "There is no login yet: make up\n")
    run(volumes, STACK_USER="eve", STACK_PASSWORD="word")
    told(capsys)
    assert run(volumes, "login") == 0
    assert told(capsys) == ("eve\nword\n", "")


def test_the_environment_wins_also_later(volumes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(volumes)
    told(capsys)
    run(volumes, STACK_PASSWORD="chosen", SECRET_KEY="0" * 64)
    for audience in ("gateway", "grafana", "bugsink", "doctor"):
        assert (volumes / audience / "stack_password").read_text() == "chosen"
    assert (volumes / "app" / "secret_key").read_text() == "0" * 64
    said = told(capsys)[0]
    assert "STACK_PASSWORD has changed." in said
    assert "grafana cli admin reset-admin-password" in said
    assert "AUDIT_RETIRED_KEYS" in said
    run(volumes)
    assert (volumes / "gateway" / "stack_password").read_text() == "chosen"


def test_the_database_keeps_the_password_that_it_was_made_with(
    volumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(volumes, POSTGRES_PASSWORD="first")
    before = contents(volumes)
    told(capsys)
    assert run(volumes, POSTGRES_PASSWORD="second") == 0
    assert contents(volumes) == before
    said = told(capsys)[0]
    assert "POSTGRES_PASSWORD is not what the database was made with" in said
    assert "make clean" in said


def test_a_value_of_several_lines_is_refused_and_changes_nothing(
    volumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(volumes)
    before = contents(volumes)
    told(capsys)
    assert run(volumes, STACK_PASSWORD="one\ntwo") == 1
    assert contents(volumes) == before
    assert told(capsys) == (
        "",
        "The stack is not prepared. STACK_PASSWORD holds a line break or another control character.\n",
    )


@pytest.mark.parametrize("user", ["a b", "a:b", "{admin}", "adm\nin", "admin\n", "ädmin", "a+b"])
def test_a_user_that_the_gateway_could_not_take_is_refused(
    volumes: Path, capsys: pytest.CaptureFixture[str], user: str
) -> None:
    assert run(volumes, STACK_USER=user) == 1
    assert contents(volumes) == {}
    assert "STACK_USER may have letters, digits and . _ - @ only" in told(capsys)[1]


def test_a_user_may_be_an_address(volumes: Path) -> None:
    assert run(volumes, STACK_USER="Eve_1.b-c@example.org") == 0
    assert (volumes / "gateway" / "stack_user").read_text() == "Eve_1.b-c@example.org"


def test_a_volume_that_cannot_be_written_is_said_with_the_remedy(
    volumes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (volumes / "grafana").rmdir()
    assert run(volumes) == 1
    out, err = told(capsys)
    assert out == ""
    assert err.startswith(f"The stack is not prepared. {volumes / 'grafana'}")
    assert "make clean" in err


def test_a_file_is_never_seen_half_written(volumes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(volumes)
    before = contents(volumes)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", die)
    with pytest.raises(KeyboardInterrupt):
        run(volumes, SYNTHETIC_TOKEN="another")
    assert contents(volumes) == before
