"""All settings of the service: each module owns its own, this composes them and looks at the whole.

Read from the environment, from `.env` in development, and from secrets that are files: in SECRETS_DIR
(/run/secrets, where containers have them), each named as its variable in lower case. The environment
overrules both. `load_settings` turns every mistake into one sentence that names the variable and never
repeats a value, which may be a secret.
"""

import os
from pathlib import Path
from typing import Final

from pydantic import Field, ValidationError, model_validator
from pydantic_settings import SettingsConfigDict
from pydantic_settings import SettingsError as SettingsSourceError

from app.infrastructure.audit_chain import AuditSettings
from app.infrastructure.broker import BrokerSettings
from app.infrastructure.cache import CacheSettings
from app.infrastructure.database import DatabaseSettings
from app.infrastructure.rate_limit import RateLimitSettings
from app.infrastructure.shutdown import ShutdownSettings
from app.infrastructure.web import WebSettings
from app.observability.context import SyntheticSettings
from app.observability.database import DatabaseInsightSettings
from app.observability.error_tracking import ErrorTrackingSettings
from app.observability.health import HealthSettings
from app.observability.logs import LogSettings
from app.observability.metrics import MetricsSettings
from app.observability.query_plans import QueryPlanSettings
from app.observability.slo import SLOSettings
from app.observability.tracing import TracingSettings
from app.payments.provider import DEFAULT_PROVIDER_URL, ProviderSettings
from app.users.tokens import DEFAULT_SECRET_KEY, TokenSettings

MIN_TOKEN = 16
DEFAULT_SECRETS_DIR: Final = Path("/run/secrets")
"""Where Docker, Compose and Kubernetes charts put them. It may be missing; one that is named may not."""


class SettingsError(Exception):
    """The environment asks for something that cannot be: one sentence for each mistake."""


class Settings(
    AuditSettings,
    BrokerSettings,
    CacheSettings,
    DatabaseInsightSettings,
    DatabaseSettings,
    ErrorTrackingSettings,
    HealthSettings,
    LogSettings,
    MetricsSettings,
    ProviderSettings,
    QueryPlanSettings,
    RateLimitSettings,
    SLOSettings,
    ShutdownSettings,
    SyntheticSettings,
    TokenSettings,
    TracingSettings,
    WebSettings,
):
    """Everything that can be set, by environment variables of the same names in upper case."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        extra="ignore",
        frozen=True,
        hide_input_in_errors=True,
    )

    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=1, le=65535, description="Port of the API.")
    web_concurrency: int = Field(
        1, ge=1, le=64, description="Processes that serve the API on its one port."
    )
    worker_metrics_port: int = Field(
        8002, ge=1, le=65535, description="Port of the worker's metrics."
    )

    @model_validator(mode="after")
    def _be_safe_in_production(self) -> "Settings":
        if self.environment != "production":
            return self
        unsafe = []
        if self.secret_key.get_secret_value() == DEFAULT_SECRET_KEY:
            unsafe.append("SECRET_KEY is the public default, so anybody could sign access tokens")
        if self.database_url.startswith("sqlite"):
            unsafe.append("DATABASE_URL is SQLite, which serves one machine; name a PostgreSQL")
        if self.redis_url is None:
            unsafe.append("REDIS_URL is unset, so each process would have rate limits of its own")
        if self.payment_provider_url == DEFAULT_PROVIDER_URL:
            unsafe.append("PAYMENT_PROVIDER_URL is the sandbox, which accepts any card")
        unsafe += [
            f"{name} has less than {MIN_TOKEN} characters, so it can be guessed"
            for name, token in (
                ("OPERATIONS_TOKEN", self.operations_token),
                ("SYNTHETIC_TOKEN", self.synthetic_token),
            )
            if token is not None and len(token.get_secret_value()) < MIN_TOKEN
        ]
        if "*" in self.cors_origins:
            unsafe.append(
                "CORS_ORIGINS is *, so every web site could call the API for its visitors"
            )
        if unsafe:
            raise ValueError("; ".join(unsafe))
        return self


def load_settings() -> Settings:
    """Return the settings of this environment.

    Raises:
        SettingsError: Something is wrong with it; the text is fit for a terminal.
    """
    try:
        return Settings(_secrets_dir=_secrets_directory())
    except SettingsSourceError as error:
        cause = error.__cause__
        if isinstance(cause, OSError):
            reason = f"SECRETS_DIR: {cause.filename} cannot be read ({cause.strerror})"
        else:
            reason = str(error)
        raise SettingsError(reason) from None
    except ValidationError as error:
        sentences = []
        for found in error.errors(include_input=False, include_url=False):
            name = "_".join(str(part) for part in found["loc"]).upper()
            message = found["msg"].removeprefix("Value error, ")
            sentences.append(f"{name}: {message}" if name else f"unsafe in production: {message}")
        raise SettingsError("; ".join(sentences)) from None


def _secrets_directory() -> Path | None:
    named = os.environ.get("SECRETS_DIR")
    if named:
        directory = Path(named)
        if not directory.is_dir():
            raise SettingsError(f"SECRETS_DIR: {directory} is no directory") from None
        return directory
    return DEFAULT_SECRETS_DIR if DEFAULT_SECRETS_DIR.is_dir() else None
