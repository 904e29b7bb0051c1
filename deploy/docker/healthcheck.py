"""The image's HEALTHCHECK: exit code 0 when the process in the container answers 200.

It asks HEALTHCHECK_URL, by default the API's liveness probe; a container with another process sets it
(the worker: http://127.0.0.1:8002/health/live). Standard library only and no import of the application: it
starts every few seconds. Must never ask for readiness: a dead dependency is no reason to restart.
"""

import http.client
import os
import sys
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 2.0


def main() -> int:
    """Ask once; return the exit code, and leave a word for `docker inspect` when it is not 0."""
    port = os.environ.get("PORT") or "8000"
    url = os.environ.get("HEALTHCHECK_URL") or f"http://127.0.0.1:{port}/health/live"
    address = urlsplit(url)
    # Not urllib.request: it would ask a proxy that the environment names.
    connection = http.client.HTTPConnection(
        address.hostname or "127.0.0.1", address.port, timeout=TIMEOUT_SECONDS
    )
    try:
        connection.request("GET", address.path or "/")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        sys.stderr.write(f"{url}: status {status}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
