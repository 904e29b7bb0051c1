"""The database: one engine, sessions that commit at the end, limits that keep a stall from spreading.

PostgreSQL (asyncpg) in earnest, SQLite (aiosqlite) embedded; the same models and migrations on both.
Nothing here waits for ever: a connection from the pool, a lock and a statement each have a time-out,
and each of them reaches the client as 503 with Retry-After instead of a hang.
Traces of statements are attached to `engine` from outside (observability/tracing.py).
"""

import datetime as dt
import re
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, Request
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import DateTime, Dialect, MetaData, Uuid, event, text
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    ProgrammingError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_sessionmaker,
    create_async_engine,
)
from sqlalchemy.orm import DeclarativeBase, mapped_column
from sqlalchemy.pool import AsyncAdaptedQueuePool, ConnectionPoolEntry, NullPool
from sqlalchemy.types import TypeDecorator
from starlette.responses import Response

from app.errors import ServiceUnavailable, respond_to
from app.observability.exceptions import record_request_error

SQLITE_BUSY_SECONDS = 15.0
"""How long a SQLite writer waits for the other processes: well above any transaction of ours."""

SessionFactory = async_sessionmaker[AsyncSession]


class DatabaseSettings(BaseSettings):
    """Where the database is and how much of it one process may use."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    database_url: str = Field(
        "sqlite+aiosqlite:///var/glasshouse.db",
        repr=False,  # it holds a password
        description="postgresql+asyncpg://user:password@host/name, or sqlite+aiosqlite:///file.",
    )
    database_pool_size: int = Field(10, ge=1, le=200, description="Connections kept open.")
    database_max_overflow: int = Field(5, ge=0, le=200, description="Opened beyond it in a peak.")
    database_pool_timeout_seconds: float = Field(
        3.0, gt=0, le=60, description="Wait for a connection."
    )
    database_connect_timeout_seconds: float = Field(
        3.0, gt=0, le=60, description="Open a connection."
    )
    database_statement_timeout_ms: int = Field(5_000, ge=1, description="PostgreSQL only.")
    database_lock_timeout_ms: int = Field(3_000, ge=1, description="PostgreSQL only.")

    @field_validator("database_url")
    @classmethod
    def _name_the_async_driver(cls, value: str) -> str:
        # SQLAlchemy 2.1 reads a bare postgresql:// as psycopg; people mean "PostgreSQL".
        value = re.sub(r"^postgres(ql)?://", "postgresql+asyncpg://", value)
        value = re.sub(r"^sqlite://", "sqlite+aiosqlite://", value)
        try:
            driver = make_url(value).drivername
        except (ArgumentError, ValueError):  # the latter for a port that is no number
            driver = ""
        if driver not in {"postgresql+asyncpg", "sqlite+aiosqlite"}:
            # The value is not repeated: it holds a password.
            raise ValueError("must be a postgresql:// or a sqlite:/// address")
        return value


class UtcDateTime(TypeDecorator[dt.datetime]):
    """A moment in UTC. SQLite forgets the offset; this puts it back, so code never sees a naive one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> dt.datetime | None:
        """Refuse a naive moment and store in UTC."""
        del dialect
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without an offset cannot be stored")
        return value.astimezone(dt.UTC)

    def process_result_value(
        self, value: dt.datetime | None, dialect: Dialect
    ) -> dt.datetime | None:
        """Return an aware moment whatever the database kept."""
        del dialect
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=dt.UTC)


class Base(DeclarativeBase):
    """All tables. Constraints are named by rule, so that a migration can drop one on any database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {dt.datetime: UtcDateTime, uuid.UUID: Uuid}  # noqa: RUF012 - SQLAlchemy's


PrimaryKey = Annotated[uuid.UUID, mapped_column(primary_key=True, default=uuid.uuid4)]


def now() -> dt.datetime:
    """Return the present moment in UTC."""
    return dt.datetime.now(dt.UTC)


class DatabaseUnavailable(ServiceUnavailable):
    """The database cannot be reached, or answers too slowly."""

    code = "database_unavailable"
    title = "The database cannot answer right now"


class Database:
    """The engine of this process and its sessions. Opens nothing until it is first used."""

    def __init__(self, settings: DatabaseSettings) -> None:
        self.is_sqlite = settings.database_url.startswith("sqlite")
        self.engine = (_sqlite_engine if self.is_sqlite else _postgresql_engine)(settings)
        self.sessions: SessionFactory = async_sessionmaker(self.engine, expire_on_commit=False)
        event.listen(self.engine.sync_engine, "do_connect", _connect_or_unavailable)
        # SQLite in memory lives in its one pool.
        self._beside = self.engine if self.is_sqlite else _engine_without_pool(settings)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[AsyncSession]:
        """Yield a session that commits when the block ends and rolls back when it raises."""
        async with self.sessions.begin() as session:
            yield session

    async def ping(self) -> None:
        """Ask the database for one row. Raises what the driver raises when it cannot."""
        async with self.beside_the_pool() as connection:
            await connection.execute(text("SELECT 1"))

    @asynccontextmanager
    async def beside_the_pool(self) -> AsyncIterator[AsyncConnection]:
        """Yield a connection of its own, for health checks.

        A pool that is exhausted must not look like a database that is down: that would take every
        process out of service at once, and send whoever is called to the wrong place.
        """
        async with self._beside.connect() as connection:
            yield connection

    async def dispose(self) -> None:
        """Close every connection."""
        await self.engine.dispose()
        await self._beside.dispose()


def _postgresql_engine(settings: DatabaseSettings) -> AsyncEngine:
    return create_async_engine(
        settings.database_url,
        hide_parameters=True,  # SQLAlchemy's errors would quote them
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        pool_timeout=settings.database_pool_timeout_seconds,
        pool_recycle=1800,
        pool_pre_ping=True,  # a restarted server costs one reconnect, not one failed request
        connect_args=_connect_arguments(settings),
    )


def _engine_without_pool(settings: DatabaseSettings) -> AsyncEngine:
    return create_async_engine(
        settings.database_url,
        poolclass=NullPool,
        hide_parameters=True,
        connect_args=_connect_arguments(settings),
    )


def _connect_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    return {
        "timeout": settings.database_connect_timeout_seconds,
        "server_settings": {
            "application_name": "glasshouse",
            "statement_timeout": str(settings.database_statement_timeout_ms),
            "lock_timeout": str(settings.database_lock_timeout_ms),
            # A process that dies between two statements must not keep its locks.
            "idle_in_transaction_session_timeout": "30000",
        },
    }


def prepare_directory(database_url: str) -> None:
    """Make the directory that an SQLite file is to lie in."""
    url = make_url(database_url)
    if url.drivername.startswith("sqlite") and url.database not in {None, "", ":memory:"}:
        Path(str(url.database)).parent.mkdir(parents=True, exist_ok=True)


def _sqlite_engine(settings: DatabaseSettings) -> AsyncEngine:
    prepare_directory(settings.database_url)
    engine = create_async_engine(
        settings.database_url,
        poolclass=AsyncAdaptedQueuePool,
        hide_parameters=True,
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_max_overflow,
        pool_timeout=settings.database_pool_timeout_seconds,
        connect_args={"timeout": SQLITE_BUSY_SECONDS},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: DBAPIConnection, record: ConnectionPoolEntry) -> None:
        del record
        connection.isolation_level = None  # we send BEGIN ourselves
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        # A transaction that reads, then writes, fails at once when another one wrote in between:
        # no busy time-out helps. Taking the write lock first makes SQLite wait instead.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def _connect_or_unavailable(
    dialect: Dialect, record: ConnectionPoolEntry, arguments: list[Any], options: dict[str, Any]
) -> DBAPIConnection:
    """Open a connection; a refused or unanswered one is said in our own words."""
    del record
    try:
        return dialect.connect(*arguments, **options)
    except (OSError, TimeoutError) as error:
        raise DatabaseUnavailable from error


async def _on_database_error(request: Request, error: Exception) -> Response:
    # SQLAlchemy has no DataError for asyncpg: class 22 of SQLSTATE says the same.
    is_data_error = str(getattr(getattr(error, "orig", None), "sqlstate", "")).startswith("22")
    if is_data_error or isinstance(error, IntegrityError | ProgrammingError | DataError):
        raise error  # this program is wrong, not the database away: a 500
    record_request_error(error, request.scope, handled=True)
    return respond_to(DatabaseUnavailable(), path=request.url.path)


def install_database_errors(app: FastAPI) -> None:
    """Answer 503 with Retry-After when the database is away, too slow or out of connections."""
    app.add_exception_handler(PoolTimeoutError, _on_database_error)
    app.add_exception_handler(DBAPIError, _on_database_error)
