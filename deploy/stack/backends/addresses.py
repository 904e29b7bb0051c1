"""Where the backends are and how one may ask them, from the environment.

The variables are those of `make e2e`. Where none of the addresses is given, the names of the compose file
count, as they are known inside of the stack; as soon as one is given, only what is given is asked, so that a
backend that is somewhere else is not asked by accident.

STACK_CA (or SSL_CERT_FILE) is the authority of the stack's own certificates. A secret NAME is also read
from the file that NAME_FILE names, or from SECRETS_DIR/name (/run/secrets).
"""

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import httpx2

INSIDE: Final = {
    "APP_URL": "http://app:8000",
    "PROMETHEUS_URL": "http://prometheus:9090",
    "ALERTMANAGER_URL": "http://alertmanager:9093",
    "NOTIFICATIONS_URL": "http://notifications:8003",
    "MAILPIT_URL": "http://mailpit:8025",
    "LOKI_URL": "http://loki:3100",
    "JAEGER_URL": "http://jaeger:16686",
    "BUGSINK_URL": "http://bugsink:8000",
    "GRAFANA_URL": "http://grafana:3000",
}
"""Each backend by its variable, with its address inside of the stack."""


class NotUsable(Exception):
    """A setting is wrong: the message names the variable and says what it has to be."""


@dataclass(frozen=True)
class Access:
    """How one may ask. What is empty was not given."""

    user: str = ""
    password: str = field(default="", repr=False)
    operations_token: str = field(default="", repr=False)
    synthetic_token: str = field(default="", repr=False)
    bugsink_user: str = ""
    bugsink_token: str = field(default="", repr=False)
    bugsink_key: str = ""
    """The public key of the project's DSN; not a secret."""
    bugsink_project: str = "1"
    trust: ssl.SSLContext | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Addresses:
    """The addresses that are known, by variable, and how to ask there."""

    urls: Mapping[str, str]
    access: Access
    is_inside: bool
    """Whether they are the compose file's own."""

    @property
    def missing(self) -> tuple[str, ...]:
        """The variables of the backends that were not given."""
        return tuple(variable for variable in INSIDE if variable not in self.urls)

    @classmethod
    def read(cls, environment: Mapping[str, str]) -> "Addresses":
        """Read the environment.

        Raises:
            NotUsable: An address or the certificate cannot be one.
        """
        given = {name: environment[name].strip() for name in INSIDE if environment.get(name)}
        urls = {name: _address(name, value) for name, value in given.items() if value}
        return cls(urls or INSIDE, _access(environment), is_inside=not urls)


def _address(variable: str, value: str) -> str:
    try:
        url = httpx2.URL(value)
    except httpx2.InvalidURL:
        url = httpx2.URL()
    if url.scheme not in {"http", "https"} or not url.host:
        raise NotUsable(f"{variable} must begin with http:// or https:// and name a host.")
    if url.userinfo:
        raise NotUsable(
            f"{variable} must have no login in it: it goes to STACK_USER, STACK_PASSWORD."
        )
    return value.rstrip("/")


def _access(environment: Mapping[str, str]) -> Access:
    user = _secret(environment, "STACK_USER") or "admin"
    key, project = environment.get("BUGSINK_KEY") or "", "1"
    if dsn := environment.get("SENTRY_DSN"):
        parsed = httpx2.URL(dsn)
        key, project = parsed.username or key, parsed.path.rpartition("/")[2] or project
    return Access(
        user=user,
        password=_secret(environment, "STACK_PASSWORD"),
        operations_token=_secret(environment, "OPERATIONS_TOKEN"),
        synthetic_token=_secret(environment, "SYNTHETIC_TOKEN"),
        bugsink_user=environment.get("BUGSINK_USER") or f"{user}@glasshouse.localhost",
        bugsink_token=_secret(environment, "BUGSINK_TOKEN"),
        bugsink_key=key,
        bugsink_project=project,
        trust=_trust(environment.get("STACK_CA") or environment.get("SSL_CERT_FILE") or ""),
    )


def _secret(environment: Mapping[str, str], name: str) -> str:
    if value := environment.get(name):
        return value
    directory = Path(environment.get("SECRETS_DIR") or "/run/secrets")
    path = Path(environment.get(f"{name}_FILE") or directory / name.lower())
    try:
        return path.read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _trust(authority: str) -> ssl.SSLContext | None:
    if not authority:
        return None
    if not os.access(authority, os.R_OK):
        raise NotUsable(f"STACK_CA: the file {authority} cannot be read.")
    try:
        return ssl.create_default_context(cafile=authority)
    except ssl.SSLError:
        raise NotUsable(f"STACK_CA: there is no certificate in {authority}.") from None
