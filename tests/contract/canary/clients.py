"""A client that puts a secret into every place of a request where one fits."""

import http.client
import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, urlencode

from tests.contract.canary.canaries import Aviary


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: Mapping[str, str]

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """Speaks to one process; what it asked and what it was told are remembered."""

    name: str
    port: int
    aviary: Aviary
    told: list[str] = field(default_factory=list)
    """Answers that are not as they were expected to be."""

    def ask(
        self,
        method: str,
        target: str,
        *,
        expect: int,
        body: bytes | str | None = None,
        json_body: Any = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        noise: bool = False,
    ) -> Answer:
        """Send one request; with `noise`, secrets are in all of its headers and in its query."""
        sent = {"Content-Type": "application/json", "User-Agent": "canary/1.0"}
        if noise:
            sent |= self._noisy_headers(target)
            target += ("&" if "?" in target else "?") + self._noisy_query(target)
        sent |= headers or {}
        if json_body is not None:
            body = json.dumps(json_body)
        if form is not None:
            body = urlencode(form)
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.putrequest(method, target, skip_accept_encoding=True)
            for name, value in sent.items():
                connection.putheader(name, value.encode("latin-1", "replace"))
            content = body.encode() if isinstance(body, str) else body
            if content is not None:
                connection.putheader("Content-Length", str(len(content)))
            connection.endheaders(content)
            response = connection.getresponse()
            answer = Answer(response.status, response.read(), dict(response.getheaders()))
        finally:
            connection.close()
        if answer.status != expect:
            self.told.append(
                f"{self.name}: {method} {target[:60]} was answered {answer.status} and not {expect}: "
                f"{answer.body[:300]!r}"
            )
        return answer

    def break_off(self, sent: bytes) -> None:
        """Send something that is no whole request, and leave."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):
                pass

    def _noisy_headers(self, where: str) -> dict[str, str]:
        def new(kind: str, place: str) -> str:
            return self.aviary.new(kind, f"{place} of {where[:24]}")

        jwt = new("JWT", "X-Request-ID")
        return {
            "User-Agent": f"canary/1.0 (+mailto:{new('e-mail', 'User-Agent')}) "
            f"{quote(quote(new('e-mail', 'User-Agent, encoded twice')))} "
            f"{new('card with dashes', 'User-Agent')}",
            "Cookie": f"session={new('opaque token', 'Cookie')}; mail={new('e-mail', 'Cookie')}",
            "Referer": f"https://shop.example/reset?token={new('opaque token', 'Referer')}"
            f"#{new('e-mail', 'Referer')}",
            "Origin": f"https://{new('word', 'Origin')}.example",
            "Host": f"{new('word', 'Host')}.example",
            "X-Forwarded-For": new("IPv6 address", "X-Forwarded-For"),
            "X-Request-ID": secrets.choice(
                [
                    jwt,
                    f"id of {new('e-mail', 'X-Request-ID')}",
                    new("card with dashes", "X-Request-ID"),
                ]
            ),
            "X-Api-Key": new("opaque token", "X-Api-Key"),
            "X-Synthetic-Token": new("opaque token", "a wrong X-Synthetic-Token"),
            "Proxy-Authorization": f"Basic {new('Basic', 'Proxy-Authorization')}",
            "Traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01",
            "Tracestate": f"shop={new('e-mail', 'tracestate')},card={new('card', 'tracestate')}",
            "Baggage": f"mail={quote(new('e-mail', 'baggage'))},"
            f"card={quote(new('card with blanks', 'baggage'))},token={new('opaque token', 'baggage')}",
            "X-Padding": new("word", "an unknown header"),
        }

    def _noisy_query(self, where: str) -> str:
        def new(kind: str) -> str:
            return self.aviary.new(kind, f"query of {where[:24]}")

        plain = {
            "email": new("tagged e-mail"),
            "token": new("opaque token"),
            "card": new("card with blanks"),
            "q": new("word"),
            "next": f"/login?password={new('word')}",
            new("e-mail"): "as a name",
        }
        return f"{urlencode(plain)}&twice={quote(quote(new('e-mail')))}&{new('telephone number')}"
