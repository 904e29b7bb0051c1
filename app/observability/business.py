"""Business events: counted when they are true, that is after the commit.

Owns `funnel_steps_total{step}`, `feature_usage_total{feature}` and `active_users{window}`; each domain
owns its KPIs in its `kpis.py`. `after_commit` is the mechanism all of them use, so that a rolled-back
transaction never counts as revenue.

A KPI is a `KpiCounter` or a `KpiHistogram`, which is the one place where the monitoring's own doings are
left out: whoever adds a KPI need not think of it. What is sampled from rows leaves out the rows of flagged
accounts instead. Everything else counts them on purpose: security signals, since an attack may come with a
stolen token; database, calls and jobs, since they cost what any customer costs.

Must never take an id or free text as a label value, and never fail a request that has committed.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

from loguru import logger
from prometheus_client import Counter, Gauge, Histogram
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from app.observability.context import is_synthetic

if TYPE_CHECKING:
    from sqlalchemy.orm import SessionTransaction

FunnelStep = Literal["registration", "login", "order", "payment"]
Feature = Literal[
    "data_export", "erasure", "order_cancel", "refund", "idempotent_replay", "pagination"
]
ActivityWindow = Literal["1d", "7d", "30d"]


class KpiCounter(Counter):
    """A counter of what customers do."""

    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        """Count, unless the request or job at hand is the monitoring's."""
        if not is_synthetic():
            super().inc(amount, exemplar)


class KpiHistogram(Histogram):
    """A histogram of what customers do."""

    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        """Observe, unless the request or job at hand is the monitoring's."""
        if not is_synthetic():
            super().observe(amount, exemplar)


funnel_steps = KpiCounter(
    "funnel_steps_total", "Steps completed on the way from visitor to customer.", ["step"]
)
feature_usage = KpiCounter("feature_usage_total", "Uses of an optional feature.", ["feature"])
active_users = Gauge(
    "active_users",
    "Distinct users seen in the trailing window.",
    ["window"],
    multiprocess_mode="livemostrecent",
)
for _step in get_args(FunnelStep):
    funnel_steps.labels(_step)
for _feature in get_args(Feature):
    feature_usage.labels(_feature)


def count_funnel_step(step: FunnelStep) -> None:
    """Count one completed step of the funnel."""
    funnel_steps.labels(step).inc()


def count_feature(feature: Feature) -> None:
    """Count one use of a feature."""
    feature_usage.labels(feature).inc()


def set_active_users(window: ActivityWindow, users: int) -> None:
    """Publish how many distinct users were seen within `window`."""
    active_users.labels(window).set(users)


_PENDING = "after_commit.pending"
_COMMITTED = "after_commit.committed"
_Pending = list[tuple["SessionTransaction", Callable[[], object]]]


def after_commit(session: AsyncSession | Session, callback: Callable[[], object]) -> None:
    """Run `callback` once, after the outermost transaction of `session` has committed.

    It is dropped when that transaction, or the savepoint it was registered in, rolls back. Callbacks
    run in the order of registration; one that raises is logged and the others still run. They run
    while the session is between transactions and must not use it.
    """
    target = session.sync_session if isinstance(session, AsyncSession) else session
    _listen()
    owner = target.get_nested_transaction() or target.get_transaction() or target.begin()
    pending: _Pending = target.info.setdefault(_PENDING, [])
    pending.append((owner, callback))


def _listen() -> None:
    if not event.contains(Session, "after_commit", _on_commit):
        event.listen(Session, "after_commit", _on_commit)
        event.listen(Session, "after_transaction_end", _on_end)


def _on_commit(session: Session) -> None:
    pending: _Pending | None = session.info.get(_PENDING)
    if not pending:
        return
    savepoint = session.get_nested_transaction()
    if savepoint is None:
        session.info[_COMMITTED] = [callback for _, callback in pending]
    else:
        # A released savepoint is as good as the transaction around it, which may still roll back.
        around = _enclosing(savepoint)
        pending[:] = [(around if tx is savepoint else tx, callback) for tx, callback in pending]


def _on_end(session: Session, transaction: "SessionTransaction") -> None:
    pending: _Pending | None = session.info.get(_PENDING)
    if not pending:
        return
    if transaction.parent is not None:
        pending[:] = [entry for entry in pending if entry[0] is not transaction]
        return
    session.info.pop(_PENDING)
    for callback in session.info.pop(_COMMITTED, ()):
        _run(callback)


def _enclosing(savepoint: "SessionTransaction") -> "SessionTransaction":
    around: Any = savepoint.parent
    while around.parent is not None and not around.nested:
        around = around.parent
    result: SessionTransaction = around
    return result


def _run(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception as error:  # noqa: BLE001 - the transaction is committed: the caller must not fail
        logger.bind(type="error", where="after_commit").opt(exception=error).error(
            "Callback after commit failed"
        )
