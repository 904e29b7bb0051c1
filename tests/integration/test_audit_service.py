"""The audit log of the running service: what people, operators and configurations leave in it."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY
from pydantic import SecretStr
from typer.testing import CliRunner, Result

from app import cli
from app.infrastructure import audit
from app.infrastructure.audit import AuditEntry
from app.infrastructure.audit_chain import (
    AuditHead,
    audit_keys,
    sealed_content,
)
from app.infrastructure.audit_configuration import record_configuration
from app.infrastructure.audit_files import list_files
from app.infrastructure.audit_verify import verify
from app.infrastructure.database import now
from app.users import passwords
from tests.audit_log import DAY, SECRET, WHO, Log, lines, open_log
from tests.service import OPERATIONS_TOKEN, PASSWORD, ROOT, Service, open_service, test_settings
from tests.tools import run_async

WITHIN_SECONDS = 60.0


def said_by(service: Service) -> Log:
    return Log(service.settings.database_url, service.app.state.database)


def done(entries: Sequence[AuditEntry]) -> list[tuple[str, str, str, str]]:
    """Return what people did, the start of processes left out."""
    return [
        (entry.action, entry.outcome, entry.actor, entry.record_type)
        for entry in sorted(entries, key=lambda entry: entry.occurred_at)
        if entry.action != "configuration"
    ]


async def test_what_people_do_has_entries_that_name_who_and_what(service: Service) -> None:
    log, ada = said_by(service), await service.person(registered=False)
    ada_id = (await ada.register())["id"]
    assert (await ada.log_in("wrong")).status_code == 401
    assert (await ada.log_in()).status_code == 200
    paid = (await ada.pay((await ada.order())["id"])).json()
    refund = await ada.post(f"/v1/payments/{paid['id']}/refund", {"amount": 500})
    assert refund.json()["status"] == "succeeded"
    assert (await ada.get("/v1/users/me/export")).status_code == 200
    assert (await ada.post("/v1/auth/logout")).status_code == 204
    assert (await ada.log_in()).status_code == 200
    assert (await ada.delete("/v1/users/me")).status_code == 204

    entries = await log.entries()
    assert done(entries) == [
        ("registration", "success", ada_id, "user"),
        ("login", "failure", ada_id, "user"),
        ("login", "success", ada_id, "user"),
        ("refund", "requested", ada_id, "refund"),
        ("refund", "success", ada_id, "refund"),
        ("data_export", "success", ada_id, "user"),
        ("logout", "success", ada_id, "session"),
        ("login", "success", ada_id, "user"),
        ("erasure", "success", ada_id, "user"),
    ]
    (settled,) = (e for e in entries if (e.action, e.outcome) == ("refund", "success"))
    assert settled.record_id == refund.json()["id"]
    assert settled.details == {"amount": 500, "currency": "EUR"}
    assert all(entry.request_id for entry in entries if entry.action != "configuration")
    stored = str([sealed_content(entry) for entry in entries])
    for secret in (ada.email, ada.email.split("@")[0], PASSWORD, OPERATIONS_TOKEN):
        assert secret not in stored


async def test_a_lockout_is_recorded_with_every_attempt_around_it(service: Service) -> None:
    log, eve = said_by(service), await service.person(registered=False)
    eve_id = (await eve.register())["id"]
    for _ in range(5):
        assert (await eve.log_in("wrong")).status_code == 401
    assert (await eve.log_in()).status_code == 429
    # Of one transaction, so of the same moment or nearly so: the order within it is not the subject.
    assert sorted(done(await log.entries())[1:]) == sorted(
        [("login", "failure", eve_id, "user")] * 5
        + [("lockout", "success", "system", "user"), ("login", "denied", eve_id, "user")]
    )


async def test_who_is_not_known_is_told_apart_for_a_day_and_not_named(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = said_by(service)
    one, other = [await service.person(registered=False) for _ in range(2)]
    for person in (one, one, other):
        assert (await person.log_in()).status_code == 401
    monkeypatch.setattr(audit, "now", lambda: now() + DAY)
    assert (await one.log_in()).status_code == 401
    no_address = {"username": "robert'); drop table", "password": "x"}
    assert (await service.http.post("/v1/auth/token", data=no_address)).status_code == 401

    tried = [actor for action, _, actor, _ in done(await log.entries()) if action == "login"]
    assert len(tried) == 5
    assert all(actor.startswith("unknown:") for actor in tried)
    assert tried[0] == tried[1]
    assert len(set(tried)) == 4
    assert one.email not in str(tried)


async def test_an_account_that_is_locked_while_the_password_is_checked_is_recorded(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, eve = said_by(service), await service.person(registered=False)
    eve_id = (await eve.register())["id"]
    checked = passwords.verify_password

    async def check_and_lose(*given: Any) -> bool:
        await log.execute("UPDATE users SET locked_until = '2100-01-01 00:00:00'")
        return await checked(*given)

    monkeypatch.setattr("app.users.service.verify_password", check_and_lose)
    assert (await eve.log_in()).status_code == 429
    assert done(await log.entries())[1:] == [("login", "denied", eve_id, "user")]


async def test_the_worker_seals_what_the_api_records(service_with_worker: Service) -> None:
    await service_with_worker.person()
    log = said_by(service_with_worker)
    keys = audit_keys(service_with_worker.settings, service_with_worker.settings.secret_key)
    async with asyncio.timeout(WITHIN_SECONDS):
        while (found := await verify(log.database, keys)).last < 3 or found.unsealed:
            await asyncio.sleep(0.05)
        while REGISTRY.get_sample_value("audit_unsealed_entries") != 0:
            await asyncio.sleep(0.05)
    assert {entry.action for entry in await log.entries()} == {
        "registration",
        "login",
        "configuration",
    }


# The configuration --------------------------------------------------------------------------------


async def configurations(log: Log, at_least: int = 0) -> list[dict[str, Any]]:
    """Return the details of the entries about configurations, as soon as there are so many."""
    async with asyncio.timeout(WITHIN_SECONDS):
        while True:
            entries = [e for e in await log.entries() if e.action == "configuration"]
            if len(entries) >= at_least:
                entries.sort(key=lambda entry: entry.occurred_at)
                return [entry.details | {"service": entry.record_id} for entry in entries]
            await asyncio.sleep(0.05)


async def test_a_changed_configuration_is_recorded_by_the_names_of_what_changed(log: Log) -> None:
    async def start(**changes: Any) -> bool:
        settings = test_settings(log.url, **changes)
        return await record_configuration(
            log.database, settings, service="glasshouse", key=settings.secret_key
        )

    assert await start()
    assert not await start()
    assert await start(rate_limit_login="7/minute", operations_token=SecretStr("another" * 5))
    assert not await start(rate_limit_login="7/minute", operations_token=SecretStr("another" * 5))
    assert await start()
    first, changed, back = await configurations(log)
    assert (first["is_first"], first["changed"]) == (True, [])
    assert (changed["is_first"], changed["changed"]) == (
        False,
        ["OPERATIONS_TOKEN", "RATE_LIMIT_LOGIN"],
    )
    assert back["changed"] == changed["changed"]
    stored = str([first, changed, back])
    assert "another" not in stored
    assert OPERATIONS_TOKEN not in stored
    assert "[redacted]" not in stored


async def test_replicas_that_start_together_record_one_configuration(log: Log) -> None:
    settings = test_settings(log.url)
    wrote = await asyncio.gather(
        *(
            record_configuration(log.database, settings, service="api", key=settings.secret_key)
            for _ in range(8)
        )
    )
    assert sorted(wrote) == [False] * 7 + [True]
    assert len(await configurations(log)) == 1


async def test_api_and_worker_record_their_configuration_once_each(log: Log) -> None:
    for _ in range(2):
        async with open_service(log.url, worker=True):
            found = await configurations(log, at_least=2)
    assert sorted(one["service"] for one in found) == ["glasshouse", "glasshouse-worker"]


async def test_a_process_starts_without_the_database_and_records_when_it_is_there(
    postgres_log: Log, log_records: list[dict[str, Any]]
) -> None:
    await postgres_log.execute("ALTER TABLE audit_head RENAME TO away")
    async with open_service(postgres_log.url) as running:
        assert (await running.http.get("/health/live")).status_code == 200
        async with asyncio.timeout(WITHIN_SECONDS):
            while not lines(log_records, "Audit entry could not be stored yet"):
                await asyncio.sleep(0.05)
        await postgres_log.execute("ALTER TABLE away RENAME TO audit_head")
        assert len(await configurations(postgres_log, at_least=1)) == 1


# The command line ---------------------------------------------------------------------------------


def command(log: Log, directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m app audit`."""
    return subprocess.run(
        [sys.executable, "-m", "app", "audit", *arguments],
        cwd=directory,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **environment(log)},
        capture_output=True,
        text=True,
        timeout=WITHIN_SECONDS,
        check=False,
    )


def invoke(log: Log, *arguments: str) -> Result:
    """Run a command in this process, which is quicker: for those that leave nothing behind."""
    return CliRunner().invoke(cli.app, ["audit", *arguments], env=environment(log))


def environment(log: Log) -> dict[str, str]:
    return {"DATABASE_URL": log.url, "AUDIT_KEY": SECRET}


async def prepare(url: str) -> tuple[Log, AuditHead]:
    async with open_log(url) as log:
        with pytest.MonkeyPatch.context() as past:
            past.setattr(audit, "now", lambda: now() - 100 * DAY)
            await log.write(8)
        await log.write(2)
        await log.seal()
        return log, await log.head()


def test_the_commands(
    service_database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    log, head = run_async(prepare(service_database))
    fine = invoke(log, "verify", "--expect-head", f"10:{head.hash}")
    assert (fine.exit_code, fine.stderr) == (0, "")
    assert fine.stdout == f"entries 1 to 10 are whole; head 10:{head.hash}\n"
    nonsense = invoke(log, "verify", "--expect-head", "nonsense")
    assert (nonsense.exit_code, "POSITION:HASH" in nonsense.stderr) == (1, True)

    listed = invoke(log, "list", "--limit", "2")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == ["10", "9"]
    assert listed.stdout.splitlines()[0].endswith(f"login success by {WHO} on user {WHO}")

    archived = command(log, tmp_path, "archive", "--older-than-days", "30", "--to", "old")
    assert archived.returncode == 0, archived.stderr
    (file,) = list_files(Path("old"))
    assert "action=archival" in archived.stdout
    assert archived.stdout.splitlines()[-1] == str(file)
    whole = invoke(log, "verify", "--archive", str(file))
    assert whole.stdout.startswith("entries 1 to 10 are whole")
    assert whole.stdout.endswith("; 1 not sealed yet\n")

    run_async(rewrite(service_database))
    broken = command(log, tmp_path, "verify", "--archive", str(file))
    assert (broken.returncode, broken.stdout) == (1, "")
    (sentence,) = broken.stderr.splitlines()
    assert sentence.startswith("error: the audit log: entry 9 (")
    assert sentence.endswith("): its content was changed")

    expired = command(log, tmp_path, "expire", "--keep-days", "90", "--from", "old")
    assert expired.stdout.splitlines()[-1] == f"deleted {file}"
    assert list_files(Path("old")) == []


async def rewrite(url: str) -> None:
    async with open_log(url) as log:
        await log.tamper("UPDATE audit_entries SET actor = 'nobody' WHERE position = 9")
