"""The API of users: registration, log-in and log-out, profile, data export and erasure."""

from typing import Annotated

from fastapi import APIRouter, Depends, Response
from fastapi.security import OAuth2PasswordRequestForm

from app.errors import problem_responses
from app.infrastructure import audit
from app.infrastructure.dependencies import DatabaseDep, Session
from app.infrastructure.rate_limit import rate_limit
from app.observability.business import after_commit, count_feature
from app.observability.security import record_security_event
from app.users import service
from app.users.authentication import CurrentUser, SessionCache, TokenSettingsDep, forget_session
from app.users.export import ExportSections
from app.users.models import User
from app.users.schemas import SessionRead, Token, UserCreate, UserExport, UserRead

router = APIRouter(prefix="/v1", tags=["users"])


@router.post(
    "/users",
    status_code=201,
    responses=problem_responses(409, 429),
    dependencies=[rate_limit("registration")],
)
async def register(body: UserCreate, session: Session) -> UserRead:
    """Create an account."""
    return UserRead.model_validate(await service.register(session, data=body))


@router.post(
    "/auth/token",
    responses=problem_responses(401, 429),
    dependencies=[rate_limit("login")],
)
async def log_in(
    form: Annotated[OAuth2PasswordRequestForm, Depends()],
    database: DatabaseDep,
    settings: TokenSettingsDep,
    response: Response,
) -> Token:
    """Exchange an e-mail address (as `username`) and a password for an access token."""
    token = await service.log_in(
        database, settings=settings, email=form.username, password=form.password
    )
    response.headers["Cache-Control"] = "no-store"  # RFC 6749, section 5.1
    return Token(access_token=token, expires_in=settings.access_token_minutes * 60)


@router.post("/auth/logout", status_code=204, responses=problem_responses(401))
async def log_out(user: CurrentUser, database: DatabaseDep, cache: SessionCache) -> None:
    """End this session; its token is refused from now on."""
    async with database.transaction() as session:
        await service.revoke_session(session, session_id=user.session_id)
    await forget_session(cache, user.session_id)


@router.get("/users/me", responses=problem_responses(401))
async def read_profile(user: CurrentUser, session: Session) -> UserRead:
    """Return the caller's profile."""
    return UserRead.model_validate(await service.get_active_user(session, user_id=user.user_id))


@router.delete("/users/me", status_code=204, responses=problem_responses(401))
async def erase_account(user: CurrentUser, database: DatabaseDep, cache: SessionCache) -> None:
    """Erase the caller's personal data and end all sessions; orders stay, anonymous."""
    async with database.transaction() as session:
        ended = await service.erase(session, user_id=user.user_id)
    for session_id in ended:
        await forget_session(cache, session_id)


@router.get("/users/me/export", responses=problem_responses(401))
async def export_data(user: CurrentUser, session: Session, sections: ExportSections) -> UserExport:
    """Return everything that is stored about the caller."""
    person: User = await service.get_active_user(session, user_id=user.user_id)
    sessions = await service.list_sessions(session, user_id=user.user_id)
    collected = {name: await collect(session, user.user_id) for name, collect in sections.items()}
    audit.record(
        session,
        action="data_export",
        actor=user.user_id,
        record_type="user",
        record_id=user.user_id,
    )

    def exported() -> None:
        count_feature("data_export")
        record_security_event("data_exported")

    after_commit(session, exported)
    return UserExport(
        user=UserRead.model_validate(person),
        sessions=[SessionRead.model_validate(one) for one in sessions],
        orders=collected["orders"],
        payments=collected["payments"],
    )
