"""Questions to Prometheus: bounded in time and in size, and never a redirect.

`PROMETHEUS_URL` may carry a user and a password. So what is said about a failure names neither the
address nor what was answered: a stranger may read it.

Must never wait longer than its time-out, and never read more than `max_bytes`.
"""

import asyncio
import math
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx2
import orjson
from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MAX_POINTS: Final = 5_000
"""Of one series in one answer; Prometheus refuses above 11,000."""


class PrometheusError(Exception):
    """Prometheus did not answer a question. The text is half a sentence that goes on after its name."""


class PrometheusSettings(BaseSettings):
    """Where Prometheus is, and how long it may take."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, hide_input_in_errors=True)

    prometheus_url: SecretStr | None = Field(
        None, description="http(s)://[user:password@]host[:port][/prefix] of the Prometheus to ask."
    )
    prometheus_timeout_seconds: float = Field(
        2.0, gt=0, le=30, description="For one answer to /slo, from connecting to its last byte."
    )

    @field_validator("prometheus_url")
    @classmethod
    def _is_an_address(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None or not value.get_secret_value():
            return None
        try:
            url = urlsplit(value.get_secret_value())
            is_one = url.scheme in {"http", "https"} and bool(url.hostname) and url.port != 0
            httpx2.URL(value.get_secret_value())
        except (ValueError, httpx2.InvalidURL):
            is_one = False
        if not is_one or url.query or url.fragment:
            raise ValueError("is no URL such as http://prometheus:9090")
        return value


class Series(NamedTuple):
    """A series of an answer: times are Unix seconds; a value may be NaN or infinite."""

    labels: dict[str, str]
    points: list[tuple[float, float]]

    @property
    def value(self) -> float:
        """The latest value."""
        return self.points[-1][1]


class PrometheusAPI:
    """The two questions of Prometheus' HTTP API that this service asks."""

    def __init__(
        self,
        url: SecretStr,
        *,
        timeout_seconds: float,
        max_bytes: int = 2_000_000,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._timeout_seconds = timeout_seconds
        self._max_bytes = max_bytes
        self._client = httpx2.AsyncClient(
            base_url=f"{url.get_secret_value().rstrip('/')}/api/v1/",
            timeout=timeout_seconds,
            transport=transport,
            follow_redirects=False,
            # What is unpacked cannot be bounded before it is there.
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def query(self, expression: str, *, at: float | None = None) -> list[Series]:
        """Return the vector of an expression, as of now or of a time.

        Raises:
            PrometheusError: There was no such answer in time.
        """
        when = {} if at is None else {"time": f"{at:.3f}"}
        return await self._ask("query", {"query": expression, **when}, "vector")

    async def query_range(
        self, expression: str, *, start: float, end: float, step: float
    ) -> list[Series]:
        """Return the values of an expression from start to end, both included, every `step` seconds.

        Asks several times for a long range, since Prometheus refuses too many points.

        Raises:
            PrometheusError: There was no such answer in time.
        """
        found: dict[tuple[tuple[str, str], ...], Series] = {}
        for first, last in _chunks(start, end, step):
            asked = {
                "query": expression,
                "start": f"{first:.3f}",
                "end": f"{last:.3f}",
                "step": f"{step:g}",
            }
            for series in await self._ask("query_range", asked, "matrix"):
                key = tuple(sorted(series.labels.items()))
                if key in found:
                    found[key].points.extend(series.points)
                else:
                    found[key] = series
        return list(found.values())

    async def _ask(self, path: str, parameters: dict[str, str], kind: str) -> list[Series]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                body = await self._read(path, parameters)
        except (TimeoutError, httpx2.TimeoutException):
            raise PrometheusError(f"gave no answer within {self._timeout_seconds:g} s") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise PrometheusError(f"could not be asked ({type(error).__name__})") from None
        try:
            return [_series(one) for one in _results(body, kind)]
        except (ValueError, TypeError, KeyError, AttributeError):
            raise PrometheusError("answered with something that is no result") from None

    async def _read(self, path: str, parameters: dict[str, str]) -> bytes:
        async with self._client.stream("GET", path, params=parameters) as response:
            if response.status_code != HTTPStatus.OK:
                raise PrometheusError(f"answered with status {response.status_code}")
            if response.headers.get("Content-Encoding", "identity") != "identity":
                raise PrometheusError("answered with something that is packed")
            body = bytearray()
            async for part in response.aiter_raw():
                body += part
                if len(body) > self._max_bytes:
                    raise PrometheusError(f"answered with more than {self._max_bytes} bytes")
            return bytes(body)


def _chunks(start: float, end: float, step: float) -> Iterator[tuple[float, float]]:
    """Yield ranges that together have each point once."""
    points = math.floor((end - start) / step + 1e-9) + 1
    for first in range(0, points, MAX_POINTS):
        last = min(first + MAX_POINTS, points) - 1
        yield start + first * step, start + last * step


def _results(body: bytes, kind: str) -> list[Any]:
    answer = orjson.loads(body)
    if answer["status"] != "success" or answer["data"]["resultType"] != kind:
        raise ValueError(kind)
    results = answer["data"]["result"]
    if not isinstance(results, list):
        raise TypeError(kind)
    return results


def _series(result: dict[str, Any]) -> Series:
    points = result["values"] if "values" in result else [result["value"]]
    return Series(
        {str(name): str(value) for name, value in result["metric"].items()},
        [(float(at), float(value)) for at, value in points],
    )
