"""Makes every secret of the stack that the environment does not give, once, and hands them out.

Run by: the one-shot service `setup`, before everything else, on every `docker compose up`; the standard
library only. Tested by: tests/unit/deploy/test_stack_setup.py. `setup.py login` prints the login instead.

What is made is kept in the volume `secrets-setup`, which nobody else mounts. Each other volume has one
audience and holds what that audience needs, derived anew on every run: files that anybody in its
containers may read, since each container has its own user. A value from the environment wins, also later.
The database's passwords are the exception: they are in the database since it was made.

Must never print a secret other than the login, and that only when it was made here.
"""

import hashlib
import json
import os
import re
import secrets
import string
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import quote

ROOT: Final = Path("/volumes/secrets")
KEPT: Final = "setup"
"""The volume that only this program mounts."""

DEFAULT_USER: Final = "admin"
SYMBOLS: Final = string.ascii_letters + string.digits
"""A password of these needs no quoting anywhere, and survives being copied from a terminal."""
USER: Final = re.compile(r"[A-Za-z0-9._@-]+")
"""It becomes a word in the gateway's configuration, and a part of an address of e-mail."""


def _password() -> str:
    return "".join(secrets.choice(SYMBOLS) for _ in range(24))


def _key() -> str:
    return secrets.token_hex(32)


MADE: Final[Mapping[str, Callable[[], str]]] = {
    "stack_password": _password,
    "secret_key": _key,
    "operations_token": _key,
    "synthetic_token": _key,
    "postgres_password": _key,
    "postgres_superuser_password": _key,
    "postgres_exporter_password": _key,
    "valkey_password": _key,
    "valkey_exporter_password": _key,
    "bugsink_secret_key": _key,
    "grafana_secret_key": _key,
}
"""What is made, and how. A variable of the same name in upper case overrules it."""

IN_THE_DATABASE: Final = "postgres_"
"""What begins so was written into the database when that was made."""

CHANGED: Final[Mapping[str, str]] = {
    "stack_password": (
        "Bugsink and the gateway ask for the new one when they have started again (make up does it). "
        "Grafana keeps its own; change it with:\n"
        "  docker compose exec grafana sh -c "
        "'grafana cli admin reset-admin-password \"$(cat /run/secrets/stack_password)\"'"
    ),
    "secret_key": (
        "Whoever was logged in has to log in again. What the earlier one sealed in the audit log can be "
        "verified with AUDIT_RETIRED_KEYS (docs/operations/audit-log.md)."
    ),
}
"""What to know where a value of the environment replaces an earlier one."""


class CannotPrepare(Exception):
    """Why the secrets are not in place: one sentence that says what to do."""


def read_kept(directory: Path) -> dict[str, str]:
    """Return what earlier runs have made."""
    return {
        name: (directory / name).read_text("utf-8")
        for name in (*MADE, "stack_user")
        if (directory / name).is_file()
    }


def decide(
    kept: Mapping[str, str], environment: Mapping[str, str]
) -> tuple[dict[str, str], list[str]]:
    """Return each secret's value, and what a person has to be told.

    Raises:
        CannotPrepare: A value of the environment cannot be one.
    """
    values = {"stack_user": environment.get("STACK_USER") or DEFAULT_USER}
    if not USER.fullmatch(values["stack_user"]):
        raise CannotPrepare("STACK_USER may have letters, digits and . _ - @ only.")
    told = []
    for name, make in MADE.items():
        given = environment.get(name.upper(), "")
        if any(ord(symbol) < ord(" ") for symbol in given):
            raise CannotPrepare(f"{name.upper()} holds a line break or another control character.")
        earlier = kept.get(name)
        if not given:
            values[name] = earlier or make()
        elif earlier in (None, given):
            values[name] = given
        elif name.startswith(IN_THE_DATABASE):
            values[name] = earlier or given
            told.append(
                f"{name.upper()} is not what the database was made with: the earlier one stays in force. "
                "Unset it again, or begin with an empty database: make clean."
            )
        else:
            values[name] = given
            told.append(f"{name.upper()} has changed. {CHANGED.get(name, '')}".rstrip())
    return values, told


def audiences(values: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the files of each volume: what its containers need, in the form that they read."""
    database, cache = (
        quote(values[f"{name}_password"], safe="") for name in ("postgres", "valkey")
    )
    login = {name: values[name] for name in ("stack_user", "stack_password")}
    return {
        KEPT: {name: values[name] for name in (*MADE, "stack_user")},
        "app": {
            **{
                name: values[name] for name in ("secret_key", "operations_token", "synthetic_token")
            },
            "database_url": f"postgresql://glasshouse:{database}@postgres:5432/glasshouse",
            "redis_url": f"redis://app:{cache}@valkey:6379/0",
        },
        "synthetic": {"synthetic_token": values["synthetic_token"]},
        "postgres": {
            "postgres_password": values["postgres_superuser_password"],
            "glasshouse_password": values["postgres_password"],
            "exporter_password": values["postgres_exporter_password"],
        },
        "postgres-exporter": {"exporter_password": values["postgres_exporter_password"]},
        "valkey": {
            "users.acl": access_list(values),
            "exporter_password": values["valkey_exporter_password"],  # for the health check
        },
        "redis-exporter": {
            "passwords.json": json.dumps(
                {"redis://exporter@valkey:6379": values["valkey_exporter_password"]}
            )
        },
        "grafana": {**login, "grafana_secret_key": values["grafana_secret_key"]},
        "bugsink": {name: values[name] for name in ("stack_password", "bugsink_secret_key")},
        "gateway": login,
        "doctor": {
            **login,
            **{name: values[name] for name in ("operations_token", "synthetic_token")},
        },
    }


def access_list(values: Mapping[str, str]) -> str:
    """Return who may do what in Valkey; it knows the passwords as hashes only."""

    def hashed(name: str) -> str:
        return "#" + hashlib.sha256(values[name].encode()).hexdigest()

    observing = (
        "+@connection +info +config|get +client|list +slowlog|get +slowlog|len +commandlog|get "
        "+commandlog|len +latency|latest +latency|histogram +memory|usage +scan +type +xlen "
        "+xinfo|stream +xinfo|groups +xinfo|consumers"
    )
    return (
        "user default off\n"
        f"user app on {hashed('valkey_password')} ~* &* +@all -@admin -@dangerous +info\n"
        f"user exporter on {hashed('valkey_exporter_password')} ~* -@all {observing}\n"
    )


def write(file: Path, content: str, mode: int) -> None:
    """Put `content` into the file at once: whoever reads it meanwhile has the earlier one, whole."""
    if (
        file.is_file()
        and file.read_text("utf-8") == content
        and file.stat().st_mode & 0o777 == mode
    ):
        return
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as written:
            written.write(content)
            written.flush()
            os.fsync(descriptor)
        Path(name).chmod(mode)
        Path(name).replace(file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def hand_out(root: Path, files: Mapping[str, Mapping[str, str]]) -> None:
    """Write every file, and remove what an audience no longer needs."""
    for audience, content in files.items():
        directory = root / audience
        for name, value in content.items():
            write(directory / name, value, 0o400 if audience == KEPT else 0o444)
        for file in directory.iterdir():
            if file.name not in content:
                file.unlink()


def prepare(root: Path, environment: Mapping[str, str]) -> list[str]:
    """Bring all volumes up to date; return what a person has to be told.

    Raises:
        CannotPrepare: With the reason.
    """
    try:
        kept = read_kept(root / KEPT)
        values, told = decide(kept, environment)
        hand_out(root, audiences(values))
    except OSError as error:
        raise CannotPrepare(
            f"{error.filename} cannot be used ({error.strerror}): remove the volumes of secrets "
            "(make clean), or give them to the user of this container."
        ) from error
    if "stack_password" not in kept:
        made_here = not environment.get("STACK_PASSWORD")
        password = values["stack_password"] if made_here else "what STACK_PASSWORD says"
        told.append(f"Login for all tools: {values['stack_user']}, password: {password}")
    return told


def main(arguments: list[str], environment: Mapping[str, str], root: Path = ROOT) -> int:
    """Prepare, or print the login; return the exit code."""
    if arguments == ["login"]:
        kept = read_kept(root / KEPT)
        if "stack_password" not in kept:
            print("There is no login yet: make up", file=sys.stderr)
            return 1
        print(kept.get("stack_user", DEFAULT_USER), kept["stack_password"], sep="\n")
        return 0
    try:
        told = prepare(root, environment)
    except CannotPrepare as reason:
        print(f"The stack is not prepared. {reason}", file=sys.stderr)
        return 1
    for line in told:
        print(line)
    print("The secrets are in place.")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
