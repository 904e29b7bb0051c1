"""Makes all checks at once, except where one needs what another found; none may take longer than its time.

A check whose ground has failed is not made: what is down is told once, and not by everything above it.
"""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Final

from deploy.stack.backends.errors import BackendError, Denied, UnknownHost
from deploy.stack.backends.http import Backend
from deploy.stack.doctor.findings import Failed, Finding, NotChecked, Status
from deploy.stack.doctor.house import BACKENDS, Deadline, House

GRACE_SECONDS: Final = 20.0
"""Beyond a check's own time: what it takes for the last request to be given up."""
NAMELESS: Final = "A container has its name only while it runs"
"""What is said inside of the stack where a host's name is not known."""


@dataclass(frozen=True)
class Check:
    """One thing that has to be so.

    Attributes:
        name: What is checked; no two have the same.
        component: Whose it is, as the compose file calls it.
        run: Returns what was seen where all is well; raises Failed, NotChecked or BackendError.
        needs: The backends that it asks. Each has to answer first.
        after: Names of checks that must be ok before.
        seconds: How long it may wait for what takes time to arrive.
    """

    name: str
    component: str
    run: Callable[[House, Deadline], str]
    needs: tuple[type[Backend], ...] = ()
    after: tuple[str, ...] = ()
    seconds: float = 15.0


def answers(kind: type[Backend]) -> str:
    """Return the name of the check that a backend answers."""
    return f"{kind.service} answers"


def examine(house: House, checks: Sequence[Check], *, patience: float = 1.0) -> list[Finding]:
    """Return a finding for each check, those of reachability first, in the order of `checks`.

    Each may take `patience` times its own time, as a slow machine needs.
    """
    every = [
        replace(check, seconds=check.seconds * patience)
        for check in (*map(_reachability, BACKENDS), *checks)
    ]
    outcomes: dict[str, Future[Finding]] = {check.name: Future() for check in every}
    for check in every:
        # Daemons: a backend that hangs must not keep the process from ending.
        threading.Thread(
            target=_make, args=(check, house, outcomes), name=check.name, daemon=True
        ).start()
    findings = []
    for check in every:
        try:
            findings.append(outcomes[check.name].result(_patience(check, every)))
        except TimeoutError:
            seen = f"no result within {check.seconds:.0f} s"
            remedy = f"It hangs: docker compose restart {check.component}"
            findings.append(Finding(check.component, check.name, "failed", seen, remedy))
    return findings


def _reachability(kind: type[Backend]) -> Check:
    def run(house: House, deadline: Deadline) -> str:  # noqa: ARG001 - as all checks
        backend = house.ask(kind)
        backend.check_health()
        return backend.url

    return Check(answers(kind), kind.service, run, needs=(kind,))


def _ground(check: Check) -> list[str]:
    reachable = [answers(kind) for kind in check.needs if answers(kind) != check.name]
    return [*reachable, *check.after]


def _patience(check: Check, every: Sequence[Check]) -> float:
    """Return how long a check may take with all that it waits for."""
    by_name = {one.name: one for one in every}
    before = max((_patience(by_name[name], every) for name in _ground(check)), default=0.0)
    return before + check.seconds + GRACE_SECONDS


def _make(check: Check, house: House, outcomes: dict[str, Future[Finding]]) -> None:
    outcome = outcomes[check.name]
    try:
        if reason := _obstacle(check, house, outcomes):
            outcome.set_result(Finding(check.component, check.name, "not checked", reason))
        else:
            outcome.set_result(_look(check, house))
    except Exception as error:  # noqa: BLE001 - a bug of ours: raised again by who waits for it
        outcome.set_exception(error)


def _obstacle(check: Check, house: House, outcomes: dict[str, Future[Finding]]) -> str:
    """Return why a check is not made, when all that it stands on is known; nothing where it is."""
    missing = [kind.variable for kind in check.needs if not house.has(kind)]
    if missing:
        return f"{' and '.join(missing)} not given"
    for name in _ground(check):
        status = outcomes[name].result().status
        if status != "ok":
            return f"since “{name}” {'failed' if status == 'failed' else 'was not checked'}"
    return ""


def _look(check: Check, house: House) -> Finding:
    started = time.monotonic()
    status: Status = "failed"
    remedy = ""
    try:
        seen = check.run(house, Deadline(check.seconds))
        status = "ok"
    except NotChecked as reason:
        seen, status = str(reason), "not checked"
    except Failed as failure:
        seen, remedy = failure.seen, failure.remedy
    except BackendError as error:
        seen, remedy = str(error), _remedy(error, check, is_inside=house.addresses.is_inside)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        seen = f"An answer is not of the form that is known ({type(error).__name__}: {error})."
        remedy = (
            f"Is it really {check.component} that listens at that address, in the version that "
            "docker-compose.yml pins?"
        )
    return Finding(
        check.component, check.name, status, seen, remedy, round(time.monotonic() - started, 1)
    )


def _remedy(error: BackendError, check: Check, *, is_inside: bool) -> str:
    if isinstance(error, UnknownHost) and is_inside:
        return f"{NAMELESS}: docker compose ps {check.component}; docker compose start {check.component}"
    if isinstance(error, UnknownHost):
        return (
            "That name is known inside of the stack only: run `make doctor`, or give the address as "
            "this machine reaches it."
        )
    if isinstance(error, Denied):
        return "`make urls` shows the login; give it as STACK_USER and STACK_PASSWORD."
    name = check.component
    return f"docker compose ps {name}; docker compose logs --tail=50 {name}"
