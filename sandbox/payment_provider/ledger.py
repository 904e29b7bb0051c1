"""What is true: each charge, refund and cancellation takes effect at most once.

Every decision (is the key new, does the refund fit, which came first, the charge or its cancellation)
is taken inside one transaction of the store: of any number of concurrent requests exactly one decides,
and the others are told what was decided. When a method returns, its line is on disk.
"""

import hashlib
from pathlib import Path

from sandbox.payment_provider.problems import ChargeNotRefundable, KeyReused, RefundTooLarge
from sandbox.payment_provider.schemas import (
    DECLINE_REASONS,
    NO_CURRENCY,
    Charge,
    ChargeRequest,
    Kind,
    LedgerEntry,
    Refund,
    RefundRequest,
)
from sandbox.payment_provider.store import Entry, Store, Transaction

_ANY_REQUEST = ""
"""The fingerprint of a cancellation that came before its request."""


class Ledger:
    """The provider's books in the file `path`. Methods block: call them from a thread."""

    def __init__(self, path: Path) -> None:
        self._store = Store(path)
        self.open = self._store.open
        self.close = self._store.close

    def record_charge(self, key: str, request: ChargeRequest) -> tuple[Charge, bool]:
        """Charge (or decline) once under `key`; return the charge and whether this call made it.

        Raises:
            KeyReused: `key` was used with another body.
        """
        fingerprint = _fingerprint(request)
        decline_reason = DECLINE_REASONS.get(request.token)
        with self._store.transaction() as transaction:
            known = _replay(transaction, "charge", key, fingerprint)
            entry = known or transaction.append(
                "charge",
                key,
                status="declined" if decline_reason else "succeeded",
                amount=request.amount,
                currency=request.currency,
                reference=request.reference,
                fingerprint=fingerprint,
                decline_reason=decline_reason,
            )
            return _charge(transaction, entry), known is None

    def replay_charge(self, key: str, request: ChargeRequest) -> Charge | None:
        """Return the charge that `request` led to before, as it stands now.

        Raises:
            KeyReused: `key` was used with another body.
        """
        with self._store.transaction() as transaction:
            entry = _replay(transaction, "charge", key, _fingerprint(request))
            return _charge(transaction, entry) if entry else None

    def find_charge(self, key: str) -> Charge | None:
        """Return the charge, or its cancellation, under `key`."""
        with self._store.transaction() as transaction:
            entry = transaction.find("charge", key)
            return _charge(transaction, entry) if entry else None

    def cancel_charge(self, key: str) -> tuple[Charge, bool]:
        """See to it that `key` never charges; return a charge that came before unchanged."""
        with self._store.transaction() as transaction:
            entry, created = _cancel(transaction, "charge", key)
            return _charge(transaction, entry), created

    def record_refund(self, key: str, request: RefundRequest) -> tuple[Refund, bool]:
        """Refund once under `key`; return the refund and whether this call made it.

        Raises:
            KeyReused: `key` was used with another body.
            ChargeNotRefundable: there is no such charge, or it took no money.
            RefundTooLarge: the charge would be refunded more than it took.
        """
        fingerprint = _fingerprint(request)
        with self._store.transaction() as transaction:
            known = _replay(transaction, "refund", key, fingerprint)
            if known:
                return _refund(known), False
            charge = transaction.find("charge", request.charge)
            if charge is None or charge.status != "succeeded":
                raise ChargeNotRefundable
            if transaction.refunded(charge.key) + request.amount > charge.amount:
                raise RefundTooLarge
            entry = transaction.append(
                "refund",
                key,
                status="succeeded",
                amount=request.amount,
                currency=charge.currency,
                reference=charge.key,
                fingerprint=fingerprint,
            )
            return _refund(entry), True

    def find_refund(self, key: str) -> Refund | None:
        """Return the refund, or its cancellation, under `key`."""
        with self._store.transaction() as transaction:
            entry = transaction.find("refund", key)
            return _refund(entry) if entry else None

    def cancel_refund(self, key: str) -> tuple[Refund, bool]:
        """See to it that `key` never refunds; return a refund that came before unchanged."""
        with self._store.transaction() as transaction:
            entry, created = _cancel(transaction, "refund", key)
            return _refund(entry), created

    def entries(self) -> list[LedgerEntry]:
        """Return every line, oldest first."""
        with self._store.transaction() as transaction:
            entries = transaction.all()
        return [LedgerEntry.model_validate(entry, from_attributes=True) for entry in entries]


def _fingerprint(request: ChargeRequest | RefundRequest) -> str:
    return hashlib.sha256(request.model_dump_json().encode()).hexdigest()


def _replay(transaction: Transaction, kind: Kind, key: str, fingerprint: str) -> Entry | None:
    entry = transaction.find(kind, key)
    if entry is not None and entry.fingerprint not in {_ANY_REQUEST, fingerprint}:
        raise KeyReused
    return entry


def _cancel(transaction: Transaction, kind: Kind, key: str) -> tuple[Entry, bool]:
    entry = transaction.find(kind, key)
    if entry is not None:
        return entry, False
    tombstone = transaction.append(
        kind,
        key,
        status="canceled",
        amount=0,
        currency=NO_CURRENCY,
        reference="",
        fingerprint=_ANY_REQUEST,
    )
    return tombstone, True


def _charge(transaction: Transaction, entry: Entry) -> Charge:
    return Charge(
        id=entry.id,
        idempotency_key=entry.key,
        status=entry.status,
        amount=entry.amount,
        currency=entry.currency,
        decline_reason=entry.decline_reason,
        refunded_amount=transaction.refunded(entry.key),
    )


def _refund(entry: Entry) -> Refund:
    return Refund(
        id=entry.id,
        idempotency_key=entry.key,
        status="canceled" if entry.status == "canceled" else "succeeded",
        amount=entry.amount,
        charge=entry.reference,
    )
