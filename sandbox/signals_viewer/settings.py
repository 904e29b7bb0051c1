"""Where the viewer listens: VIEWER_*; how it logs is what the service's LOG_* say."""

from typing import Annotated, Final

from pydantic import Field

from app.observability.logs import LogSettings

HOST: Final = "127.0.0.1"
"""Not a setting: what the viewer shows is open to whoever reaches it."""


class ViewerSettings(LogSettings):
    """The settings of the signals viewer."""

    otel_service_name: Annotated[str, Field(min_length=1)] = Field(
        "glasshouse-signals-viewer", validation_alias="VIEWER_SERVICE_NAME"
    )
    viewer_port: int = Field(4318, ge=1, le=65535)
    """4318 is OTLP/HTTP's own port (OpenTelemetry protocol specification)."""
