"""Asks one address at a steady rate and notes how long each answer took: `probe.py PORT PATH SECONDS`.

A process of its own with nothing but the standard library, so that neither the load nor pytest stands
in its way. Ends when its input ends, then writes `{"seconds": [...], "failures": [...]}`.

A question is due every SECONDS, whether or not the one before was answered: what a stall of 2 s does to
those who would have asked meanwhile counts for each of them. (Source: Gil Tene on coordinated omission.)
"""

import json
import selectors
import socket
import sys
import time

LONGEST_SECONDS = 20.0


def main(port: int, path: str, every: float) -> None:
    """Ask until standard input ends."""
    seconds: list[float] = []
    failures: list[str] = []
    question = f"GET {path} HTTP/1.1\r\nHost: probe\r\n\r\n".encode()
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    connection: socket.socket | None = None
    due = time.monotonic()
    over = False
    while not over:
        pause = due - time.monotonic()
        if pause > 0:
            over = bool(selector.select(pause))
            due = time.monotonic()  # this process woke up late itself: nobody else's fault
        elif selector.select(0):
            over = True
        if over:
            break
        try:
            if connection is None:
                connection = socket.create_connection(("127.0.0.1", port), LONGEST_SECONDS)
            connection.sendall(question)
            over = not _answered(connection, selector, failures)
        except OSError as error:
            failures.append(repr(error))
            connection = None
        seconds.append(time.monotonic() - due)
        due += every
    # Those that were due while the last answer did not come.
    seconds.extend(time.monotonic() - due - late * every for late in range(_missed(due, every)))
    json.dump({"seconds": seconds, "failures": failures}, sys.stdout)


def _missed(due: float, every: float) -> int:
    return max(0, int((time.monotonic() - due) / every))


def _answered(
    connection: socket.socket, selector: selectors.BaseSelector, failures: list[str]
) -> bool:
    """Wait for a whole answer; False when the time is over before it comes."""
    answer = b""
    key = selector.register(connection, selectors.EVENT_READ)
    try:
        while not _is_whole(answer):
            ready = [found.fileobj for found, _ in selector.select(LONGEST_SECONDS)]
            if connection not in ready:
                if ready:
                    return False
                raise TimeoutError("no answer")
            part = connection.recv(65536)
            if not part:
                raise ConnectionError("closed")
            answer += part
    finally:
        selector.unregister(key.fileobj)
    if not answer.startswith(b"HTTP/1.1 200 "):
        failures.append(answer.partition(b"\r\n")[0].decode("latin-1"))
    return True


def _is_whole(answer: bytes) -> bool:
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"content-length":
            return len(body) >= int(value)
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
