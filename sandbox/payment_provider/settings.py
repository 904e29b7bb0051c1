"""Where the provider listens, where its ledger is, and how it behaves at the start: PROVIDER_*.

It reads the environment that the service reads (log level, exporter, environment), except the name:
OTEL_SERVICE_NAME names the service under test, and a trace must tell the two apart.
"""

from pathlib import Path
from typing import Annotated

from pydantic import Field

from app.observability.logs import LogSettings
from app.observability.metrics import MetricsSettings
from app.observability.tracing import TracingSettings
from sandbox.payment_provider.behaviour import Behaviour, Milliseconds, Seconds, Share


class ProviderSettings(LogSettings, MetricsSettings, TracingSettings):
    """The settings of the payment provider simulator."""

    otel_service_name: Annotated[str, Field(min_length=1)] = Field(
        "glasshouse-payment-provider", validation_alias="PROVIDER_SERVICE_NAME"
    )
    provider_host: str = "127.0.0.1"
    provider_port: int = Field(8001, ge=1, le=65535)
    provider_database: Path = Path("var/payment_provider.db")
    provider_latency_ms: Milliseconds = 20
    provider_latency_jitter_ms: Milliseconds = 0
    provider_failure_rate: Share = 0
    provider_slow_seconds: Seconds = 2
    provider_timeout_seconds: Seconds = 30

    def behaviour(self) -> Behaviour:
        """Return the behaviour to start with."""
        return Behaviour(
            latency_ms=self.provider_latency_ms,
            latency_jitter_ms=self.provider_latency_jitter_ms,
            failure_rate=self.provider_failure_rate,
            slow_seconds=self.provider_slow_seconds,
            timeout_seconds=self.provider_timeout_seconds,
        )
