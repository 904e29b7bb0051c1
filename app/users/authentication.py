"""Who is calling: the bearer token, and whether its session is still good.

Every authenticated request asks that, so the answer is cached for CACHE_SECONDS. A log-out or an
erasure overwrites the cached answer after its commit; a reader that was slower puts nothing over it,
since it only adds where nothing stands (see infrastructure/cache.py). Should the cache be down at that
moment, a revoked session may be taken for good for at most CACHE_SECONDS.
"""

import uuid
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import OAuth2PasswordBearer

from app.infrastructure.cache import Cache
from app.infrastructure.database import Database
from app.infrastructure.dependencies import DatabaseDep
from app.observability.context import current_context
from app.observability.security import record_auth_attempt
from app.users import service
from app.users.errors import NotAuthenticated
from app.users.tokens import TokenSettings, read_token

CACHE_SECONDS = 30.0

_scheme = OAuth2PasswordBearer(tokenUrl="/v1/auth/token", auto_error=False)


@dataclass(frozen=True, slots=True)
class Principal:
    """The authenticated caller."""

    user_id: uuid.UUID
    session_id: uuid.UUID


def get_token_settings(request: Request) -> TokenSettings:
    """Return the token settings of this application."""
    settings: TokenSettings = request.app.state.settings
    return settings


TokenSettingsDep = Annotated[TokenSettings, Depends(get_token_settings)]


def get_session_cache(request: Request) -> Cache:
    """Return the cache of session states of this application."""
    cache: Cache = request.app.state.session_cache
    return cache


SessionCache = Annotated[Cache, Depends(get_session_cache)]


async def authenticate(
    token: Annotated[str | None, Depends(_scheme)],
    settings: TokenSettingsDep,
    database: DatabaseDep,
    cache: SessionCache,
) -> Principal:
    """Return the caller.

    Raises:
        NotAuthenticated: No token, or a forged, expired or revoked one.
    """
    if not token:
        raise NotAuthenticated
    claims = read_token(settings, token)
    if not await _is_good(database, cache, claims.session_id):
        record_auth_attempt("revoked")
        raise NotAuthenticated
    if context := current_context():
        context.user_id = str(claims.user_id)
        context.synthetic = context.synthetic or claims.synthetic
    return Principal(claims.user_id, claims.session_id)


async def _is_good(database: Database, cache: Cache, session_id: uuid.UUID) -> bool:
    async def load() -> bool:
        # A transaction of its own: the handler may wait for the provider, holding no connection.
        async with database.transaction() as session:
            return await service.is_session_good(session, session_id=session_id)

    return bool(await cache.get_or_load(str(session_id), load, ttl_seconds=CACHE_SECONDS))


async def forget_session(cache: Cache, session_id: uuid.UUID) -> None:
    """Put "not good" over whatever is cached. To be called after the commit that revoked it."""
    await cache.set(str(session_id), False, ttl_seconds=CACHE_SECONDS)


CurrentUser = Annotated[Principal, Depends(authenticate)]
