"""What can be done with users. Functions work in the given session and never commit.

`log_in` is the exception: it hashes for a good part of a second and must count a failure although the
request fails, so it takes the database and makes short transactions of its own.
"""

import datetime as dt
import uuid
from collections.abc import Sequence

from loguru import logger
from sqlalchemy import ColumnElement, case, func, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.infrastructure import audit, outbox
from app.infrastructure.database import Database, now
from app.infrastructure.purge import delete_oldest
from app.observability.business import (
    ActivityWindow,
    after_commit,
    count_feature,
)
from app.observability.context import is_synthetic, mark_synthetic
from app.observability.security import count_lockout, record_auth_attempt, record_security_event
from app.users import kpis
from app.users.errors import AccountLocked, EmailTaken, InvalidCredentials, NotAuthenticated
from app.users.models import User, UserSession
from app.users.passwords import hash_password, verify_password
from app.users.schemas import UserCreate, normalise_email
from app.users.tokens import TokenSettings, issue_token

MAX_FAILURES = 5
FAILURE_WINDOW = dt.timedelta(minutes=15)
LOCKOUT = dt.timedelta(minutes=15)
"""Five failures within a quarter of an hour lock log-in for a quarter of an hour."""
SEEN_EVERY = dt.timedelta(minutes=10)
"""`last_seen_at` is this coarse: active users are counted by the day, and each write costs."""

KEEP_SESSIONS = dt.timedelta(days=30)


async def register(session: AsyncSession, *, data: UserCreate) -> User:
    """Create a user; one whom the monitoring creates is its own for good.

    Raises:
        EmailTaken: Another account has the address, also one that is created at this moment.
    """
    # Before the first statement: a transaction must not stay open for the time of a hash.
    password_hash = await hash_password(data.password.get_secret_value())
    insert = sqlite.insert if session.get_bind().dialect.name == "sqlite" else postgresql.insert
    user: User | None = await session.scalar(
        insert(User)
        .values(
            id=uuid.uuid4(),
            email=data.email,
            name=data.name,
            password_hash=password_hash,
            method="password",
            source=data.source,
            synthetic=is_synthetic(),
            created_at=now(),
            failed_logins=0,
        )
        .on_conflict_do_nothing(index_elements=[User.email])
        .returning(User)
    )
    if user is None:
        raise EmailTaken
    method, source = user.method, data.source.value
    outbox.publish(
        session,
        topic="user.registered",
        payload={"user_id": str(user.id), "method": method, "source": source},
    )
    audit.record(
        session,
        action="registration",
        actor=user.id,
        record_type="user",
        record_id=user.id,
        details={"method": method, "source": source},
    )

    def registered() -> None:
        kpis.count_registration(method=method, source=source)
        logger.bind(type="business", user_id=str(user.id), source=source).info("user registered")

    after_commit(session, registered)
    return user


async def log_in(database: Database, *, settings: TokenSettings, email: str, password: str) -> str:
    """Open a session and return its access token.

    Raises:
        InvalidCredentials: Unknown address or wrong password.
        AccountLocked: Too many failures lately; also for the right password.
    """
    address = normalise_email(email)
    async with database.transaction() as session:
        # Without an address nobody is looked for: "IS NULL" would find the erased.
        user = await session.scalar(select(User).where(User.email == address)) if address else None
    if user is not None and user.locked_until is not None and user.locked_until > now():
        record_auth_attempt("locked", user_id=str(user.id))
        await _record_refusal(database, user.id, "denied")
        raise AccountLocked(user.locked_until)
    if not await verify_password(password, user.password_hash if user else None) or user is None:
        record_auth_attempt("failure", user_id=str(user.id) if user else "")
        if user is not None:
            await _count_failure(database, user.id)
        else:
            key = settings.secret_key.get_secret_value()
            await _record_refusal(database, audit.stranger(address or email, key=key), "failure")
        raise InvalidCredentials
    try:
        async with database.transaction() as session:
            return await _open_session(session, settings=settings, user_id=user.id)
    except AccountLocked:
        await _record_refusal(database, user.id, "denied")
        raise
    except InvalidCredentials:
        await _record_refusal(database, user.id, "failure")
        raise


def _record_login(session: AsyncSession, actor: uuid.UUID | str, outcome: audit.Outcome) -> None:
    known = isinstance(actor, uuid.UUID)
    audit.record(
        session,
        action="login",
        actor=actor,
        record_type="user",
        record_id=actor if known else "",
        outcome=outcome,
    )


async def _record_refusal(
    database: Database, actor: uuid.UUID | str, outcome: audit.Outcome
) -> None:
    """Record a log-in that failed, in a transaction that commits although the request fails."""
    async with database.transaction() as session:
        _record_login(session, actor, outcome)


async def _open_session(
    session: AsyncSession, *, settings: TokenSettings, user_id: uuid.UUID
) -> str:
    moment = now()
    user = await session.get_one(User, user_id, with_for_update=True)
    # Guesses that ran side by side all passed the first look; this one is under the row's lock.
    if user.locked_until is not None and user.locked_until > moment:
        record_auth_attempt("locked", user_id=str(user.id))
        raise AccountLocked(user.locked_until)
    if user.erased_at is not None:
        record_auth_attempt("failure")
        raise InvalidCredentials
    if user.synthetic:
        mark_synthetic()  # not before the password was right: a guess is a stranger's
    user.failed_logins = 0
    user.first_failed_at = None
    user.last_seen_at = moment
    opened = UserSession(
        id=uuid.uuid4(),
        user_id=user_id,
        created_at=moment,
        expires_at=moment + dt.timedelta(minutes=settings.access_token_minutes),
    )
    session.add(opened)
    _record_login(session, user_id, "success")

    def logged_in() -> None:
        record_auth_attempt("success", user_id=str(user_id))
        kpis.count_login()

    after_commit(session, logged_in)
    return issue_token(settings, user_id=user_id, session_id=opened.id, synthetic=user.synthetic)


async def _count_failure(database: Database, user_id: uuid.UUID) -> None:
    """Count a failure in one statement, so that guesses side by side are all counted."""
    moment = now()
    stale = (User.first_failed_at.is_(None)) | (User.first_failed_at < moment - FAILURE_WINDOW)
    failures = case((stale, 1), else_=User.failed_logins + 1)
    async with database.transaction() as session:
        locked_until = await session.scalar(
            update(User)
            .where(User.id == user_id, (User.locked_until.is_(None)) | (User.locked_until < moment))
            .values(
                failed_logins=case((failures >= MAX_FAILURES, 0), else_=failures),
                first_failed_at=case((stale, moment), else_=User.first_failed_at),
                locked_until=case((failures >= MAX_FAILURES, moment + LOCKOUT), else_=None),
            )
            .returning(User.locked_until)
            .execution_options(synchronize_session=False)
        )
        _record_login(session, user_id, "failure")
        if locked_until is not None:
            audit.record(
                session,
                action="lockout",
                actor=audit.SYSTEM,
                record_type="user",
                record_id=user_id,
                details={"until": locked_until.isoformat(timespec="seconds")},
            )
    if locked_until is not None:
        count_lockout(str(user_id))


async def get_active_user(session: AsyncSession, *, user_id: uuid.UUID) -> User:
    """Return a user who has not been erased.

    Raises:
        NotAuthenticated: There is none (any more).
    """
    user = await session.get(User, user_id)
    if user is None or user.erased_at is not None:
        raise NotAuthenticated
    return user


async def is_session_good(session: AsyncSession, *, session_id: uuid.UUID) -> bool:
    """Return whether the session exists and is neither over nor revoked; notes that it was seen."""
    moment = now()
    user_id = await session.scalar(
        select(UserSession.user_id).where(
            UserSession.id == session_id,
            UserSession.revoked_at.is_(None),
            UserSession.expires_at > moment,
        )
    )
    if user_id is None:
        return False
    await session.execute(
        update(User)
        .where(User.id == user_id, User.last_seen_at < moment - SEEN_EVERY)
        .values(last_seen_at=moment)
        .execution_options(synchronize_session=False)
    )
    return True


async def revoke_session(session: AsyncSession, *, session_id: uuid.UUID) -> None:
    """End a session: its token is refused from the commit on."""
    user_id = await session.scalar(
        update(UserSession)
        .where(UserSession.id == session_id, UserSession.revoked_at.is_(None))
        .values(revoked_at=now())
        .returning(UserSession.user_id)
    )
    if user_id is not None:  # else another request has ended it, and recorded that
        audit.record(
            session, action="logout", actor=user_id, record_type="session", record_id=session_id
        )
    after_commit(session, lambda: record_security_event("logout"))


async def list_sessions(session: AsyncSession, *, user_id: uuid.UUID) -> Sequence[UserSession]:
    """Return the sessions of a user, newest first."""
    found = await session.scalars(
        select(UserSession)
        .where(UserSession.user_id == user_id)
        .order_by(UserSession.created_at.desc())
    )
    return found.all()


async def erase(session: AsyncSession, *, user_id: uuid.UUID) -> list[uuid.UUID]:
    """Make a user anonymous (GDPR, article 17) and end all sessions; orders stay for the books.

    Returns:
        The ids of the sessions that ended, whose cached state the caller must overwrite.
    """
    user = await session.get_one(User, user_id, with_for_update=True)
    user.email = user.name = user.password_hash = None
    user.erased_at = moment = now()
    ended = await session.scalars(
        update(UserSession)
        .where(UserSession.user_id == user_id, UserSession.revoked_at.is_(None))
        .values(revoked_at=moment)
        .returning(UserSession.id)
    )
    audit.record(session, action="erasure", actor=user_id, record_type="user", record_id=user_id)

    def erased() -> None:
        record_security_event("account_erased")
        count_feature("erasure")

    after_commit(session, erased)
    return list(ended.all())


async def count_active(session: AsyncSession) -> tuple[dict[ActivityWindow, int], int]:
    """Return active users by window, and sessions that are good now.

    Users are customers only. Sessions are of all accounts: they are a matter of security.
    """
    moment = now()
    days: dict[ActivityWindow, int] = {"1d": 1, "7d": 7, "30d": 30}
    counts = (
        await session.execute(
            select(
                *(
                    func.count().filter(User.last_seen_at > moment - dt.timedelta(days=length))
                    for length in days.values()
                )
            ).where(
                User.last_seen_at > moment - dt.timedelta(days=max(days.values())),
                ~User.synthetic,
            )
        )
    ).one()
    sessions = await session.scalar(
        select(func.count()).where(
            UserSession.revoked_at.is_(None), UserSession.expires_at > moment
        )
    )
    return dict(zip(days, counts, strict=True)), sessions or 0


def of_synthetic(user_id: InstrumentedAttribute[uuid.UUID]) -> ColumnElement[bool]:
    """Return the condition that the row with this column belongs to an account of the monitoring."""
    return select(User.id).where(User.id == user_id, User.synthetic).exists()


async def purge_sessions(session: AsyncSession) -> int:
    """Delete sessions that ended a month ago, a portion (purge.PURGE_BATCH) at most; return how many."""
    ended = UserSession.expires_at
    return await delete_oldest(session, ended, ended < now() - KEEP_SESSIONS)
