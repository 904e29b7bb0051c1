"""An https address on loopback whose certificate a test may renew, and an authority that vouches for it.

Programs trust the authority when SSL_CERT_FILE names it, as Go's and OpenSSL's do: the configuration of
what asks stays the one that is deployed.
"""

import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Self

from tests.tools import require_tool

_EC: Final = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Handler(BaseHTTPRequestHandler):
    """Answers 200 to whatever is asked."""

    def do_HEAD(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD  # noqa: N815 - the name is http.server's

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


class HttpsAddress:
    """Listens on a free loopback port; answers while `running`.

    Args:
        directory: Where keys and certificates are; is made.
        days: How long the first certificate is valid.
    """

    def __init__(self, directory: Path, *, days: int = 90) -> None:
        directory.mkdir()
        self._directory = directory
        self.authority = directory / "authority.pem"
        """The certificate to trust."""
        self._make_authority()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.renew(days=days)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # The handshake is for the thread of a connection: it must not keep others from being accepted.
        self._server.socket = self._context.wrap_socket(
            self._server.socket, server_side=True, do_handshake_on_connect=False
        )
        self.url = f"https://127.0.0.1:{self._server.server_port}"

    def renew(self, *, days: int) -> None:
        """Have a new certificate from now on, valid for so many days."""
        (self._directory / "names").write_text("subjectAltName=IP:127.0.0.1")
        self._openssl(
            *("req", *_EC, "-keyout", "key.pem", "-out", "request.pem", "-subj", "/CN=127.0.0.1")
        )
        self._openssl(
            *("x509", "-req", "-in", "request.pem", "-out", "certificate.pem", "-days", str(days)),
            *("-CA", "authority.pem", "-CAkey", "authority-key.pem", "-CAcreateserial"),
            *("-extfile", "names"),
        )
        self._context.load_cert_chain(
            self._directory / "certificate.pem", self._directory / "key.pem"
        )

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Answer for the time of the block."""
        thread = threading.Thread(target=self._server.serve_forever, name="HttpsAddress")
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()

    def _make_authority(self) -> None:
        self._openssl(
            *("req", "-x509", *_EC, "-keyout", "authority-key.pem", "-out", "authority.pem"),
            *("-subj", "/CN=authority of the tests", "-days", "365"),
        )

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(
            [require_tool("openssl"), *arguments],
            cwd=self._directory,
            check=True,
            capture_output=True,
        )
