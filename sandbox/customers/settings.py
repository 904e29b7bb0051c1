"""Whom the customers visit, how many they are and how fast: CUSTOMERS_*."""

from typing import Annotated

from pydantic import Field, SecretStr, field_validator

from app.observability.logs import LogSettings

EMAIL_DOMAIN = "customers.example"
"""Reserved by RFC 2606, so that no letter can ever reach anybody."""


class CustomersSettings(LogSettings):
    """The settings of the customers."""

    otel_service_name: Annotated[str, Field(min_length=1)] = Field(
        "glasshouse-customers", validation_alias="CUSTOMERS_SERVICE_NAME"
    )
    customers_api_url: str = Field("http://127.0.0.1:8000", description="Base URL of the API.")
    customers_users: int = Field(6, ge=1, le=1_000, description="How many are there at once.")
    customers_pause_seconds: float = Field(
        1.5,
        ge=0,
        le=600,
        allow_inf_nan=False,
        description="Between two requests of one customer, on average and by day.",
    )
    customers_day_seconds: float = Field(
        86_400,
        ge=0,
        allow_inf_nan=False,
        description="How long day and night take together; 0: always day.",
    )
    customers_accounts: int = Field(
        60,
        ge=1,
        le=10_000,
        description="Who comes back: no more than these ever have an account, unless more are there at once.",
    )
    customers_password: SecretStr = Field(
        SecretStr("correct horse battery"), min_length=8, description="Of all of these accounts."
    )
    customers_seed: int | None = Field(None, description="Repeats the same choices.")

    @field_validator("customers_api_url")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not value.startswith(("http://", "https://")):
            raise ValueError("must begin with http:// or https://, such as http://127.0.0.1:8000")
        return value.rstrip("/")
