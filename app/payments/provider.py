"""The payment provider, as this domain speaks with it.

Charges and refunds carry our id as the provider's idempotency key, so repeating one is safe, and what
became of it can be asked by the same key. Every answer is checked: what cannot be understood counts as
"unknown", never as "not charged".
"""

import math
import uuid
from http import HTTPStatus
from typing import Any, Literal, TypeVar

import httpx2
from pydantic import AnyHttpUrl, BaseModel, ValidationError, field_validator

from app.infrastructure.http_client import ExternalClient, HttpClientSettings
from app.infrastructure.http_effect import ExternalError, NotSent, OutcomeUnknown
from app.payments.states import DeclineReason

DEFAULT_PROVIDER_URL = "http://127.0.0.1:8001"
DEPENDENCY = "payment_provider"


class ProviderSettings(HttpClientSettings):
    """Where the payment provider is."""

    payment_provider_url: str = DEFAULT_PROVIDER_URL

    @field_validator("payment_provider_url")
    @classmethod
    def _be_an_address(cls, value: str) -> str:
        AnyHttpUrl(value)
        return value.rstrip("/")


class ProviderCharge(BaseModel):
    """The provider's word on a charge. `canceled`: nothing was charged, and never will be."""

    status: Literal["succeeded", "declined", "canceled"]
    decline_reason: DeclineReason | None = None

    @field_validator("decline_reason", mode="before")
    @classmethod
    def _know_the_reason(cls, value: object) -> object:
        # A reason that the provider invents tomorrow must not become a new label value.
        known = {reason.value for reason in DeclineReason}
        return value if value is None or value in known else DeclineReason.OTHER


class ProviderRefund(BaseModel):
    """The provider's word on a refund. `canceled`: nothing was given back, and never will be."""

    status: Literal["succeeded", "canceled"]


class ProviderOutcomeUnknown(Exception):
    """The provider may or may not have acted."""


class ProviderNotReached(Exception):
    """The provider has not been asked: it did not act because of this call."""

    def __init__(self, retry_after_seconds: int) -> None:
        super().__init__("the payment provider was not reached")
        self.retry_after_seconds = retry_after_seconds


class ProviderRefused(Exception):
    """The provider understood, refused, and did not act."""


Word = TypeVar("Word", ProviderCharge, ProviderRefund)


class PaymentProvider:
    """Speaks with the provider over HTTP. All methods may raise ProviderNotReached and
    ProviderOutcomeUnknown."""

    def __init__(
        self, settings: ProviderSettings, *, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        self._client = ExternalClient(
            DEPENDENCY, settings.payment_provider_url, settings, transport=transport
        )

    async def charge(
        self, *, key: uuid.UUID, amount: int, currency: str, token: str, reference: uuid.UUID
    ) -> ProviderCharge:
        """Charge `amount` minor units, once for `key`.

        Raises:
            ProviderRefused: The provider does not accept the token; nothing was charged.
        """
        body = {
            "amount": amount,
            "currency": currency,
            "token": token,
            "reference": str(reference),
        }
        response = await self._call("POST", "/v1/charges", key=key, json=body)
        return _read(ProviderCharge, response)

    async def find_charge(self, key: uuid.UUID) -> ProviderCharge | None:
        """Return what became of the charge with `key`, or None where the provider has none."""
        response = await self._call("GET", f"/v1/charges/{key}")
        if response.status_code == HTTPStatus.NOT_FOUND:
            return None
        return _read(ProviderCharge, response)

    async def cancel_charge(self, key: uuid.UUID) -> ProviderCharge:
        """See to it that `key` never charges, unless it has; return what stands."""
        return _read(ProviderCharge, await self._call("POST", f"/v1/charges/{key}/cancel"))

    async def refund(self, *, key: uuid.UUID, charge: uuid.UUID, amount: int) -> ProviderRefund:
        """Give back `amount` minor units of the charge, once for `key`.

        Raises:
            ProviderRefused: The provider does not accept the refund; nothing was given back.
        """
        body = {"charge": str(charge), "amount": amount}
        return _read(ProviderRefund, await self._call("POST", "/v1/refunds", key=key, json=body))

    async def find_refund(self, key: uuid.UUID) -> ProviderRefund | None:
        """Return what became of the refund with `key`, or None where the provider has none."""
        response = await self._call("GET", f"/v1/refunds/{key}")
        if response.status_code == HTTPStatus.NOT_FOUND:
            return None
        return _read(ProviderRefund, response)

    async def cancel_refund(self, key: uuid.UUID) -> ProviderRefund:
        """See to it that `key` never gives back, unless it has; return what stands."""
        return _read(ProviderRefund, await self._call("POST", f"/v1/refunds/{key}/cancel"))

    async def ping(self) -> None:
        """Ask whether the provider is there. Raises httpx2.HTTPError when it is not."""
        await self._client.ping("/health")

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _call(
        self,
        method: str,
        path: str,
        *,
        key: uuid.UUID | None = None,
        json: dict[str, Any] | None = None,
    ) -> httpx2.Response:
        headers = {"Idempotency-Key": str(key)} if key else None
        try:
            # Cancelling is idempotent by its meaning, the other calls by their key.
            return await self._client.call(
                method, path, json=json, headers=headers, idempotent=True
            )
        except NotSent as error:
            raise ProviderNotReached(_retry_after(error)) from error
        except OutcomeUnknown as error:
            raise ProviderOutcomeUnknown from error


def _retry_after(error: ExternalError) -> int:
    return max(1, math.ceil(error.retry_after or 0))


def _read(kind: type[Word], response: httpx2.Response) -> Word:
    if response.status_code == HTTPStatus.UNPROCESSABLE_ENTITY:
        raise ProviderRefused
    if response.is_success:
        try:
            return kind.model_validate_json(response.content)
        except ValidationError as error:
            raise ProviderOutcomeUnknown from error
    raise ProviderOutcomeUnknown
