"""Where the receiver listens, what it keeps and which runbooks it serves: NOTIFICATIONS_*."""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from app.observability.logs import LogSettings
from app.observability.metrics import MetricsSettings


class NotificationsSettings(LogSettings, MetricsSettings):
    """The settings of the receiver of notifications."""

    otel_service_name: Annotated[str, Field(min_length=1)] = Field(
        "glasshouse-notifications", validation_alias="NOTIFICATIONS_SERVICE_NAME"
    )
    notifications_host: str = "127.0.0.1"
    notifications_port: int = Field(8003, ge=1, le=65535)
    notifications_database: Path = Path("var/notifications.db")
    notifications_runbooks: Path = Path("docs/runbooks")
