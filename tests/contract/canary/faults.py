"""What goes wrong inside of the service, on order: each fault carries secrets in everything it says.

`install` puts faults behind two functions of the service: reading an order whose id is in the file
CANARY_FAULTS, and writing the receipt of a payment, where that file says so. The rest of the service is as
it is.
"""

import asyncio
import gc
import json
import logging
import os
import threading
import uuid
import warnings
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from loguru import logger
from prometheus_client import Counter
from sqlalchemy import insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.infrastructure import audit, outbox
from app.infrastructure.database import now
from app.observability.error_tracking import add_breadcrumb, report_warning
from app.observability.tracing import business_span
from app.orders import service as orders
from app.payments import service as payments
from app.users.models import User

Said = dict[str, str]
"""`text` has secrets that can be recognised, `word` is one that cannot, and stays where it is known as
one: under a key, in a local variable, in the parameters of a statement."""

_leaks = Counter("canary_leaks_total", "Deliberate leaks.", ["note"])


async def _raise(_: AsyncSession, said: Said) -> None:
    hidden = said["word"]  # noqa: F841 - a local variable of a frame that every signal shows
    raise RuntimeError(said["text"])


async def _raise_key_error(_: AsyncSession, said: Said) -> None:
    raise KeyError(said["text"])


async def _raise_structure(_: AsyncSession, said: Said) -> None:
    word = said["word"]
    headers = [(b"authorization", word.encode()), (b"cookie", f"session={word}".encode())]
    raise RuntimeError(
        {"password": word.encode(), "tokens": [word, word]},
        headers,
        json.dumps(json.dumps({"secret": word, "cvv": word})),
        f"token='{word}",
    )


async def _raise_chain(_: AsyncSession, said: Said) -> None:
    try:
        raise ValueError(said["text"])  # noqa: TRY301 - the chain is what it is about
    except ValueError as error:
        error.add_note(f"noted: {said['text']}")
        raise RuntimeError(f"again: {said['text']}") from error


async def _raise_group(_: AsyncSession, said: Said) -> None:
    raise ExceptionGroup(said["text"], [ValueError(said["text"]), TypeError(said["text"])])


async def _raise_long(_: AsyncSession, said: Said) -> None:
    # A kind of its own for each: of one kind, only so many are reported a minute.
    raise type(f"Long{said['length']}", (RuntimeError,), {})(
        "x" * int(said["length"]) + said["text"]
    )


async def _fail_in_task(_: AsyncSession, said: Said) -> None:
    async def fail() -> None:
        raise RuntimeError(said["text"])

    task = asyncio.create_task(fail())
    await asyncio.sleep(0.01)
    assert task.done()
    del task
    gc.collect()  # asyncio tells of it when nobody can ask any more


async def _fail_in_thread(_: AsyncSession, said: Said) -> None:
    def fail() -> None:
        raise RuntimeError(said["text"])

    thread = threading.Thread(target=fail)
    thread.start()
    thread.join()


async def _fail_in_finalizer(_: AsyncSession, said: Said) -> None:
    class Ending:
        def __del__(self) -> None:
            raise RuntimeError(said["text"])

    Ending()


async def _warn(_: AsyncSession, said: Said) -> None:
    warnings.warn(said["text"], UserWarning, stacklevel=1)


async def _log(_: AsyncSession, said: Said) -> None:
    library = logging.getLogger("some.library")
    library.warning("told %s and %r", said["text"], {"password": said["word"]})
    library.debug("nobody has looked at this: %s", said["word"])
    library.info("with fields", extra={"token": said["word"], "note": said["text"]})
    logger.bind(
        password=said["word"],
        nested={"headers": [("Authorization", said["word"])], "cards": [said["word"]]},
        note=said["text"],
    ).info("bound")
    logger.debug(said["text"])
    logger.opt(exception=RuntimeError(said["text"])).error("handled")


async def _tell(_: AsyncSession, said: Said) -> None:
    add_breadcrumb("business", said["text"], token=said["word"])
    with business_span("canary", password=said["word"], note=said["text"]) as span:
        span.add_event("told", {"cvv": said["word"], "note": said["text"]})
    report_warning(
        said["text"],
        fingerprint=("canary", "told"),
        contexts={"canary": {"cvv": said["word"], "note": said["text"]}},
        note=said["text"],
    )


async def _tell_audit(session: AsyncSession, said: Said) -> None:
    async with async_sessionmaker(session.bind).begin() as own:
        audit.record(
            own,
            action="configuration",
            actor=audit.SYSTEM,
            record_type="canary",
            record_id="told",
            details={"password": said["word"], "note": said["text"]},
        )


async def _repeat(session: AsyncSession, said: Said) -> None:
    for _ in range(5):
        await session.execute(select(User.id).where(User.name == said["word"]))


def _row(said: Said, **changed: object) -> dict[str, object]:
    return {
        "id": uuid.uuid4(),
        "email": said["known"],
        "name": said["word"],
        "method": "password",
        "source": "web",
        "created_at": now(),
        "failed_logins": 0,
        **changed,
    }


async def _violate_unique(session: AsyncSession, said: Said) -> None:
    await session.execute(insert(User).values(_row(said)))


async def _violate_not_null(session: AsyncSession, said: Said) -> None:
    await session.execute(insert(User).values(_row(said, email=said["word"], method=None)))


async def _send_wrong_type(session: AsyncSession, said: Said) -> None:
    query = text("SELECT id FROM users WHERE created_at = :moment")
    await session.execute(query, {"moment": said["word"]})


async def _send_literal(session: AsyncSession, said: Said) -> None:
    await session.execute(text(f"SELECT id FROM users WHERE name = '{said['word']}'"))


async def _send_wrong_literal(session: AsyncSession, said: Said) -> None:
    await session.execute(text(f"SELECT id FROM users WHERE failed_logins = '{said['word']}'"))


async def _leak(session: AsyncSession, said: Said) -> None:
    """Leak on purpose, into every sink: the search has to find these."""
    for note in json.loads(said["leaks"]):
        logger.bind(note=note).info("leaked")
        with business_span("leak", note=note):
            _leaks.labels(note).inc()
        report_warning("leaked", fingerprint=("canary", note), note=note)
        async with async_sessionmaker(session.bind).begin() as own:
            audit.record(
                own,
                action="configuration",
                actor=audit.SYSTEM,
                record_type="canary",
                record_id=note,
                details={"note": note},
            )
            outbox.publish(own, topic="canary.leaked", payload={"note": note})
        # Shown by /debug/tasks until the process ends.
        _running.append(asyncio.create_task(asyncio.sleep(600), name=note))


_running: list[asyncio.Task[None]] = []

FAULTS: dict[str, Callable[[AsyncSession, Said], Awaitable[None]]] = {
    "raise": _raise,
    "raise_key_error": _raise_key_error,
    "raise_structure": _raise_structure,
    "raise_chain": _raise_chain,
    "raise_group": _raise_group,
    "raise_long": _raise_long,
    "violate_unique": _violate_unique,
    "violate_not_null": _violate_not_null,
    "send_wrong_type": _send_wrong_type,
    "send_wrong_literal": _send_wrong_literal,
    "send_literal": _send_literal,
    "fail_in_task": _fail_in_task,
    "fail_in_thread": _fail_in_thread,
    "fail_in_finalizer": _fail_in_finalizer,
    "warn": _warn,
    "log": _log,
    "tell": _tell,
    "tell_audit": _tell_audit,
    "repeat": _repeat,
    "leak": _leak,
}
ANSWERED_500 = tuple(name for name in FAULTS if name.startswith(("raise", "violate", "send_wrong")))


def install() -> None:
    """Put the faults of CANARY_FAULTS into this process."""
    given = os.environ.get("CANARY_FAULTS")
    if not given:
        return
    ordered: dict[str, Any] = json.loads(Path(given).read_text())
    get_order, write_receipt = orders.get_order, payments.write_receipt

    async def get_order_or_fail(session: AsyncSession, *, order_id: uuid.UUID, **more: Any) -> Any:
        if fault := ordered.get(str(order_id)):
            await FAULTS[fault["name"]](session, fault["said"])
        return await get_order(session, order_id=order_id, **more)

    async def write_receipt_or_fail(session: AsyncSession, **given: Any) -> None:
        if said := ordered.get(f"receipt of {given['amount']}"):
            for note in json.loads(said.pop("leaks", "[]")):
                logger.bind(note=note).info("leaked")
            raise RuntimeError(said["text"])
        await write_receipt(session, **given)

    orders.get_order = get_order_or_fail
    payments.write_receipt = write_receipt_or_fail
