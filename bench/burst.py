"""A burst of captured payments, and how it is watched on its way through outbox and workers."""

import asyncio
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from bench.process import ServerProcess

CONSUMERS: Final = ("fulfil_order", "write_receipt")
"""Of each event: so many deliveries."""
_LOOK_SECONDS: Final = 0.5
_LOOKS_A_SCRAPE: Final = 4

_BURST: Final = (
    """
    INSERT INTO users (id, email, name, method, source, created_at, failed_logins, synthetic)
    SELECT gen_random_uuid(), 'burst@example.com', 'B', 'email', 'web', now(), 0, false
    """,
    """
    CREATE TEMPORARY TABLE captured ON COMMIT DROP AS
    SELECT n, users.id AS user_id, gen_random_uuid() AS order_id, gen_random_uuid() AS payment_id
    FROM users, generate_series(1, cast(:number AS bigint)) AS n
    """,
    """
    INSERT INTO orders
        (id, user_id, status, payment_in_progress, currency, total_amount, created_at, updated_at)
    SELECT order_id, user_id, 'paid', false, 'EUR', 2500, now(), now() FROM captured
    """,
    """
    INSERT INTO payments
        (id, order_id, user_id, status, amount, refunded_amount, currency, created_at, settled_at)
    SELECT payment_id, order_id, user_id, 'captured', 2500, 0, 'EUR', now(), now() FROM captured
    """,
    # One of a hundred was traced, as at the sampling of production.
    """
    INSERT INTO outbox_messages (id, topic, payload, headers, created_at)
    SELECT gen_random_uuid(), 'payment.captured',
           json_build_object('payment_id', payment_id, 'order_id', order_id, 'user_id', user_id,
                             'amount', 2500, 'currency', 'EUR'),
           json_build_object('request_id', order_id, 'traceparent',
               '00-' || md5(n :: text) || '-' || left(md5('s' || n), 16)
               || CASE WHEN n % 100 = 0 THEN '-01' ELSE '-00' END),
           now()
    FROM captured
    """,
)
_STATE: Final = """
    SELECT (SELECT count(*) FROM outbox_messages WHERE published_at IS NULL),
           (SELECT count(*) FROM outbox_deliveries WHERE state = 'done')
"""


async def write_burst(engine: AsyncEngine, number: int) -> None:
    """Commit so many events, with the payments and the orders that they are about."""
    async with engine.begin() as connection:
        for statement in _BURST:
            given = {"number": number} if ":number" in statement else {}
            await connection.execute(text(statement), given)


class Watch:
    """Looks at the rows and at the workers' metrics from outside, seldom enough not to be in the way."""

    def __init__(
        self,
        engine: AsyncEngine,
        workers: Sequence[ServerProcess],
        events: int,
        patience_seconds: float,
    ) -> None:
        self._engine = engine
        self._workers = workers
        self._wanted = events * len(CONSUMERS)
        self._patience = patience_seconds
        self.oldest_age_max = 0.0
        self.resident_max = 0
        """Bytes, of the worker that held most."""

    async def until_empty(self, progress: Callable[[str], None]) -> tuple[float, int]:
        """Return how long it took, and how many deliveries are done."""
        began, looks = time.monotonic(), 0
        while True:
            async with self._engine.connect() as connection:
                waiting, done = (await connection.execute(text(_STATE))).one()
            passed = time.monotonic() - began
            if looks % _LOOKS_A_SCRAPE == 0:
                progress(f"{passed:.0f} s: {waiting} wait for the relay, {done} deliveries done")
                await self._scrape()
            if done >= self._wanted or passed > self._patience:
                return passed, done
            looks += 1
            await asyncio.sleep(_LOOK_SECONDS)

    async def _scrape(self) -> Sequence[Mapping[str, Any]]:
        pages = [await asyncio.to_thread(_read, worker.port) for worker in self._workers]
        self.resident_max = max(
            self.resident_max, *(worker.resident_bytes() for worker in self._workers)
        )
        families = [
            {family.name: family for family in text_string_to_metric_families(page)}
            for page in pages
        ]
        for found in families:
            for sample in found["outbox_oldest_age_seconds"].samples:
                self.oldest_age_max = max(self.oldest_age_max, sample.value)
        return families

    async def outcomes(self) -> dict[str, int]:
        """Return the runs of all consumers, by status."""
        counts: dict[str, int] = {}
        for families in await self._scrape():
            for sample in families["jobs_processed"].samples:
                if sample.labels["task"] in CONSUMERS and sample.value:
                    status = sample.labels["status"]
                    counts[status] = counts.get(status, 0) + int(sample.value)
        return counts


def _read(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as page:
        said: str = page.read().decode()
    return said
