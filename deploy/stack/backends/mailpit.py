"""Mailpit: the e-mails that would have been sent."""

from typing import Any, ClassVar

from deploy.stack.backends.errors import WrongAnswer
from deploy.stack.backends.http import Backend


class Mailpit(Backend):
    """The API at MAILPIT_URL."""

    variable: ClassVar = "MAILPIT_URL"
    name: ClassVar = "Mailpit"
    service: ClassVar = "mailpit"
    health_path: ClassVar = "/readyz"

    def total(self) -> int:
        """Return how many e-mails it holds."""
        return int(self._list("/api/v1/messages", limit="1")["total"])

    def search(self, words: str) -> list[dict[str, Any]]:
        """Return the e-mails whose subject has these words, newest first, without their text."""
        found: list[dict[str, Any]] = self._list("/api/v1/search", query=f'subject:"{words}"')[
            "messages"
        ]
        return found

    def message(self, number: str) -> dict[str, Any]:
        """Return an e-mail with its text."""
        found: dict[str, Any] = self.get(f"/api/v1/message/{number}")
        return found

    def _list(self, path: str, **parameters: str) -> dict[str, Any]:
        document = self.get(path, **parameters)
        if not isinstance(document, dict) or not {"total", "messages"} <= document.keys():
            raise WrongAnswer(f"{path} at {self.url} is no answer of Mailpit.", 200)
        return document
