"""Whom the journey asks, how often and how patiently: SYNTHETIC_*.

It reads the environment that the service reads (log level, exporter, SYNTHETIC_TOKEN), except the name:
OTEL_SERVICE_NAME names the service under test, and a trace must tell the two apart.
"""

from typing import Annotated

from pydantic import Field, field_validator

from app.observability.context import SyntheticSettings
from app.observability.logs import LogSettings
from app.observability.metrics import MetricsSettings
from app.observability.tracing import TracingSettings

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]


class JourneySettings(LogSettings, MetricsSettings, TracingSettings, SyntheticSettings):
    """The settings of the synthetic journey."""

    otel_service_name: Annotated[str, Field(min_length=1)] = Field(
        "glasshouse-synthetic", validation_alias="SYNTHETIC_SERVICE_NAME"
    )
    otel_traces_sampler_arg: float | None = Field(
        1.0,
        ge=0,
        le=1,
        validation_alias="SYNTHETIC_TRACES_SAMPLER_ARG",
        description="All of them: they are few, and the trace of a failed one is what one wants to see.",
    )
    synthetic_host: str = "127.0.0.1"
    synthetic_port: int = Field(8004, ge=1, le=65535)
    synthetic_api_url: str = Field("http://127.0.0.1:8000", description="Base URL of the API.")
    synthetic_interval_seconds: Seconds = Field(60, description="From one start to the next.")
    synthetic_jitter_seconds: float = Field(
        5,
        ge=0,
        le=3_600,
        allow_inf_nan=False,
        description="Each start is later by up to this, so that several instances spread out.",
    )
    synthetic_step_timeout_seconds: Seconds = 10
    synthetic_timeout_seconds: Seconds = Field(
        30, description="For all steps but the clean-up, which has a step's time of its own."
    )
    synthetic_email_domain: str = Field(
        "synthetic.example",
        pattern=r"^[A-Za-z0-9.-]+\.[A-Za-z]+$",
        description="Reserved by RFC 2606, so that no letter can ever reach anybody.",
    )
    synthetic_payment_token: str = Field(
        "tok_ok", min_length=1, repr=False, description="A test card for which no money moves."
    )

    @field_validator("synthetic_api_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://, such as http://127.0.0.1:8000")
        return value.rstrip("/")
