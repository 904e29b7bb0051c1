"""What all clients have in common: one connection pool, bounded waiting, and errors that are sentences."""

import socket
from collections.abc import Generator
from typing import Any, ClassVar, Final, Self

import httpx2

from deploy.stack.backends.addresses import Access, Addresses
from deploy.stack.backends.errors import Denied, NoAnswer, UnknownHost, WrongAnswer

TIMEOUT_SECONDS: Final = 8.0
_SHOWN: Final = 160
"""Characters of an answer that are shown."""


class WhenAsked(httpx2.Auth):
    """Basic authentication for who asks for it: the login is told to nobody else."""

    def __init__(self, user: str, password: str) -> None:
        self._basic = httpx2.BasicAuth(user, password)

    def auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Send the request, and again with the login where the answer asks for one."""
        response = yield request
        challenge = response.headers.get("WWW-Authenticate", "")
        if response.status_code == httpx2.codes.UNAUTHORIZED and "basic" in challenge.lower():
            yield from self._basic.auth_flow(request)


class Backend:
    """One backend at one address. Subclasses say which, and offer what it can be asked."""

    variable: ClassVar[str]
    """What gives its address."""
    name: ClassVar[str]
    service: ClassVar[str]
    """What the compose file calls it."""
    health_path: ClassVar[str]
    """Answers 200 when it can do its work."""

    def __init__(self, url: str, access: Access) -> None:
        self.url = url
        self.access = access
        self.http = httpx2.Client(
            base_url=url,
            auth=self.authentication(access),
            timeout=TIMEOUT_SECONDS,
            # Without TLS nobody is asked for a certificate, and to read all authorities takes 40 ms.
            verify=access.trust or url.startswith("https:"),
            trust_env=False,  # these are our own: no proxy stands between
            headers={"User-Agent": "glasshouse-doctor"},
        )

    @classmethod
    def at(cls, addresses: Addresses) -> Self | None:
        """Return the client, or None where the address is not known."""
        url = addresses.urls.get(cls.variable)
        return None if url is None else cls(url, addresses.access)

    def authentication(self, access: Access) -> httpx2.Auth | None:
        """Return how to log in."""
        return WhenAsked(access.user, access.password) if access.password else None

    def close(self) -> None:
        """Close every connection."""
        self.http.close()

    def check_health(self) -> None:
        """Return when it can do its work. Raises BackendError otherwise."""
        self.send("GET", self.health_path)

    def send(self, method: str, path: str, **content: Any) -> httpx2.Response:
        """Return the answer to one request if it is a success.

        Raises:
            NoAnswer, UnknownHost, Denied, WrongAnswer: see there.
        """
        response = self.exchange(method, path, **content)
        if response.status_code in {httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN}:
            given = "was refused" if self.access.password else "was not given"
            raise Denied(
                f"{self.name} at {self.url} wants a login ({response.status_code}), "
                f"and that of STACK_USER and STACK_PASSWORD {given}."
            )
        if response.headers.get("Location", "").startswith("https:") and self.url.startswith(
            "http:"
        ):
            raise WrongAnswer(
                f"{self.name} at {self.url} speaks TLS: give its address with https://, and its authority as "
                "STACK_CA.",
                response.status_code,
            )
        if not response.is_success:
            raise WrongAnswer(
                f"{method} {path} at {self.name} answered {response.status_code}: "
                f"{_shown(response.text)}",
                response.status_code,
            )
        return response

    def exchange(self, method: str, path: str, **content: Any) -> httpx2.Response:
        """Return the answer to one request, whatever it is.

        Raises:
            NoAnswer, UnknownHost: see there.
        """
        try:
            return self.http.request(method, path, **content)
        except httpx2.TransportError as error:
            reason = _reason(error)
            kind = UnknownHost if isinstance(reason, socket.gaierror) else NoAnswer
            said = str(reason) or "no answer in time"
            raise kind(f"{self.name} does not answer at {self.url}: {_shown(said)}.") from error

    def get(self, path: str, **parameters: Any) -> Any:
        """Return the JSON document at `path`. Raises BackendError."""
        return self.read(self.send("GET", path, params=parameters))

    def post(self, path: str, document: Any) -> Any:
        """Send a JSON document and return the one that is answered. Raises BackendError."""
        return self.read(self.send("POST", path, json=document))

    def read(self, response: httpx2.Response) -> Any:
        """Return the document of an answer; None of an empty one. Raises WrongAnswer."""
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError:
            path = response.request.url.path
            raise WrongAnswer(
                f"{path} at {self.name} answered something that is not JSON: "
                f"{_shown(response.text)} Is it {self.name} that listens at {self.url}?",
                response.status_code,
            ) from None


def _reason(error: BaseException) -> BaseException:
    """Return the innermost cause: the library's own words are the name of a class."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return error


def _shown(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}..."
