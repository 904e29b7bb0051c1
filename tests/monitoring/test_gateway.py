"""The gateway: who may start it, what it makes of the login, and what Caddy reads with and without TLS."""

import base64
import json
import os
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from monitoring.build.logs.intruders import INTRUDERS
from tests.programs import given_program, needs
from tests.tools import free_port, require_tool

FOLDER = Path(__file__).parents[2] / "monitoring/gateway"
PASSWORD = "very secret, with a $ and a ' in it"
PORTS = {"3000", "8003", "8010", "8025", "9090", "9093", "16686"}
# Hashes by saying that it did, and runs by saying what it was told.
STAND_IN = r"""#!/bin/sh
case $1 in
    hash-password) read -r given && [ "$given" = "$EXPECTED" ] && echo 'the$hash' ;;
    run) echo "$*"; env | grep -E '^(SITE|GATEWAY)_' ;;
esac
"""


class Start:
    """One run of start.sh."""

    def __init__(self, directory: Path, shell: str) -> None:
        self.secrets = directory / "secrets"
        self.secrets.mkdir()
        (self.secrets / "stack_user").write_text("admin")
        (self.secrets / "stack_password").write_text(PASSWORD)
        self.programs = directory / "bin"
        self.programs.mkdir()
        (self.programs / "caddy").write_text(STAND_IN)
        (self.programs / "caddy").chmod(0o755)
        program = str(require_tool(shell))
        self.shell = [program, "sh"] if shell == "busybox" else [program]

    def run(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self.shell, str(FOLDER / "start.sh")],
            env={
                "PATH": f"{self.programs}:{os.environ['PATH']}",
                "GATEWAY_SECRETS": str(self.secrets),
                "EXPECTED": PASSWORD,
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


@pytest.fixture(params=["dash", "busybox"])
def start(tmp_path: Path, request: pytest.FixtureRequest) -> Start:
    return Start(tmp_path, request.param)


def exported(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    assert done.returncode == 0, done.stderr
    return dict(line.split("=", 1) for line in done.stdout.splitlines()[1:])


def test_caddy_gets_the_hash_and_nothing_tells_the_password(start: Start) -> None:
    done = start.run()
    told = exported(done)
    assert (told["GATEWAY_USER"], told["GATEWAY_HASH"]) == ("admin", "the$hash")
    assert PASSWORD not in done.stdout + done.stderr
    assert done.stdout.startswith(f"run --config {FOLDER}/Caddyfile --adapter caddyfile\n")


def test_without_tls_each_site_is_a_port(start: Start) -> None:
    told = exported(start.run())
    assert told["GATEWAY_TLS"] == "plain"
    assert {name: told[name] for name in told if name.startswith("SITE_")} == {
        f"SITE_{port}": f"http://:{port}" for port in PORTS
    }


def test_with_tls_each_site_has_the_names_that_certificates_are_made_for(start: Start) -> None:
    told = exported(start.run(STACK_TLS="1"))
    assert told["GATEWAY_TLS"] == "tls"
    for port in PORTS:
        names = ("localhost", "127.0.0.1", "gateway")
        assert told[f"SITE_{port}"] == " ".join(f"https://{name}:{port}" for name in names)


@pytest.mark.parametrize("secret", ["stack_user", "stack_password"])
def test_without_a_login_it_does_not_start(start: Start, secret: str) -> None:
    (start.secrets / secret).write_text("")
    done = start.run()
    assert done.returncode == 1
    assert f"There is no {start.secrets / secret}" in done.stderr


@pytest.mark.parametrize("user", ["a b", "{admin}", "adm\nin"])
def test_a_user_that_would_be_more_than_a_word_is_refused(start: Start, user: str) -> None:
    (start.secrets / "stack_user").write_text(user)
    done = start.run()
    assert (done.returncode, done.stdout) == (1, "")
    assert "STACK_USER" in done.stderr


def test_what_is_imported_is_there() -> None:
    imported = re.findall(
        r"import (\{\$GATEWAY_TLS:plain\})\.caddy", (FOLDER / "Caddyfile").read_text()
    )
    assert len(imported) == 1
    assert {path.stem for path in FOLDER.glob("*.caddy")} == {"plain", "tls"}


def test_the_inside_is_plain_also_with_tls() -> None:
    """Else a health check and a scrape that speak http would be sent to https, which is not there."""
    text = (FOLDER / "Caddyfile").read_text()
    assert re.search(r"servers :2020 \{\n\t\tprotocols h1\n\t\}\n\tservers \{", text)


@needs("CADDY_BIN")
@pytest.mark.parametrize("tls", ["", "1"])
def test_caddy_takes_it(tmp_path: Path, tls: str) -> None:
    program = given_program("CADDY_BIN")
    start = Start(tmp_path, "dash")
    (start.programs / "caddy").write_text(
        f'#!/bin/sh\n[ "$1" != run ] || {{ shift; set -- validate "$@"; }}\nexec {program} "$@"\n'
    )
    done = start.run(STACK_TLS=tls, XDG_DATA_HOME=str(tmp_path), HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "not formatted" not in done.stderr


def test_refusals_are_logged_and_nobody_else() -> None:
    """What is skipped is decided after the login; otherwise nothing, or everything, would be logged."""
    text = (FOLDER / "Caddyfile").read_text()
    assert "\torder log_skip after basic_auth\n" in text
    login = text.partition("(with_login) {")[2].partition("\n}")[0]
    assert re.search(r"^\tlog \{\n\t\toutput stdout\n\t\tlevel INFO$", login, re.MULTILINE)
    assert re.search(r"^\tlog_skip$", login, re.MULTILINE)
    for kept_out in ("request>headers", "resp_headers"):
        assert f"\t{kept_out} delete\n" in login


@contextmanager
def running(directory: Path) -> Iterator[tuple[int, Path]]:
    """The real program with the real file, on ports that are free: the one of Prometheus, and its lines."""
    program = given_program("CADDY_BIN")
    folder = directory / "gateway"
    shutil.copytree(FOLDER, folder)
    inside = free_port()
    file = folder / "Caddyfile"
    file.write_text(file.read_text().replace(":2020", f":{inside}"))
    ports = {port: free_port() for port in PORTS}
    hashed = subprocess.run(
        [program, "hash-password", "--bcrypt-cost", "4"],
        input=f"{PASSWORD}\n",
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    lines = directory / "stdout"
    with lines.open("wb") as out, (directory / "stderr").open("wb") as err:
        caddy = subprocess.Popen(
            [program, "run", "--config", str(file), "--adapter", "caddyfile"],
            env={
                "HOME": str(directory),
                "GATEWAY_USER": "admin",
                "GATEWAY_HASH": hashed,
                "GATEWAY_TLS": "plain",
                **{f"SITE_{name}": f"http://:{port}" for name, port in ports.items()},
            },
            stdout=out,
            stderr=err,
        )
    try:
        deadline = time.monotonic() + 30
        while status(inside, "/health", None) != 200:
            assert time.monotonic() < deadline, (directory / "stderr").read_text()
            assert caddy.poll() is None, (directory / "stderr").read_text()
            time.sleep(0.1)
        yield ports["9090"], lines
    finally:
        caddy.terminate()
        caddy.wait(30)


def status(port: int, path: str, password: str | None) -> int:
    """Return what is answered, 0 for nothing."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if password is not None:
        word = base64.b64encode(f"admin:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {word}")
        request.add_header("Cookie", "grafana_session=a-cookie-of-theirs")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code
    except OSError:
        return 0


@needs("CADDY_BIN")
def test_a_wrong_password_leaves_the_line_that_the_alert_counts(tmp_path: Path) -> None:
    with running(tmp_path) as (port, file):
        assert status(port, "/-/quit", PASSWORD) == 403  # past the login
        assert status(port, "/graph?password=typed-in-the-address", "not-the-password") == 401
        assert status(port, "/", None) == 401
        # What comes before is written before.
        deadline = time.monotonic() + 30
        while len(file.read_bytes().splitlines()) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    said = file.read_text()
    lines: list[dict[str, Any]] = [json.loads(line) for line in said.splitlines()]
    assert [line["status"] for line in lines] == [401, 401]
    (alert,) = (alert for alert in INTRUDERS if alert.name == "ToolLoginsFail")
    example = json.loads(alert.alarming[0].lines[0].text)
    for line in lines:
        # As monitoring/build/logs/intruders.py has it, where the rest of the logger's name is the site's.
        assert line["logger"].startswith(example["logger"])
        assert (line["msg"], line["status"]) == (example["msg"], example["status"])
        assert line["level"] == "info"
    assert lines[0]["request"]["uri"] == "/graph"
    secret = base64.b64encode(b"admin:not-the-password").decode()
    for kept_out in ("not-the-password", secret, "a-cookie-of-theirs", "typed-in-the-address"):
        assert kept_out not in said
