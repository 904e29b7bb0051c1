"""Looks for canaries in whatever came out, in every spelling that a leak may have."""

import base64
import html
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_plus

from tests.contract.canary.canaries import Canary

_BASE64 = ("base64", "base64 for URLs")


def spellings(text: str) -> dict[str, str]:
    """Return the ways in which `text` may be written, by name."""
    once = quote(text, safe="")
    return {
        "plain": text,
        "upper case": text.upper(),
        "percent-encoded": once,
        "percent-encoded, blanks as +": quote_plus(text),
        "percent-encoded twice": quote(once, safe=""),
        "percent-encoded altogether": "".join(f"%{byte:02X}" for byte in text.encode()),
        "JSON": json.dumps(text)[1:-1],
        "JSON, escaped": "".join(
            one if one.isascii() and one.isalnum() else f"\\u{ord(one):04x}" for one in text
        ),
        "Python": repr(text)[1:-1],
        "HTML": html.escape(text),
        "hexadecimal": text.encode().hex(),
        "base64": base64.b64encode(text.encode()).decode(),
        "base64 for URLs": base64.urlsafe_b64encode(text.encode()).decode(),
    }


def _needles(text: str) -> Iterable[tuple[str, bytes, bool]]:
    """Yield name, bytes to look for, and whether capitals count."""
    for name, spelled in spellings(text).items():
        if name not in _BASE64:
            yield name, _one_backslash(spelled.encode().lower()), False
    for shift in range(3):  # the text may begin at any of the three bytes of a group
        encoded = base64.b64encode(b"\0" * shift + text.encode())
        # Without the characters that depend on what stands before and behind.
        inner = encoded[(0, 2, 3)[shift] : -4 if encoded.endswith(b"=") else None]
        yield "base64", inner, True
        yield "base64 for URLs", inner.translate(bytes.maketrans(b"+/", b"-_")), True


def _one_backslash(text: bytes) -> bytes:
    """Return `text` as if it had been escaped once, however often it was."""
    return re.sub(rb"\\+", rb"\\", text)


@dataclass(frozen=True, slots=True)
class Leak:
    """A canary that was found, with what stands around it."""

    canary: Canary
    sink: str
    spelling: str
    around: str

    def __str__(self) -> str:
        return (
            f"{self.canary.kind:18} put into {self.canary.place:42} "
            f"found in {self.sink:28} {self.spelling}: {self.around}"
        )


class Haystack:
    """Everything that came out, by the name of where: prepared once, searched often."""

    def __init__(self, sinks: Mapping[str, bytes]) -> None:
        exact = {name: _one_backslash(content) for name, content in sinks.items()}
        self._views = {name: (content, content.lower()) for name, content in exact.items()}
        self._all = tuple(b"\0".join(parts) for parts in zip(*self._views.values(), strict=True))

    def find(self, canaries: Iterable[Canary]) -> list[Leak]:
        """Return all canaries where they must not be."""
        leaks = []
        for canary in canaries:
            parts = {canary.value, canary.core} - {""}
            possible = {found for part in parts for found in self._possible(part)}
            there = {
                (needle, capitals_count)
                for needle, capitals_count in {found[1:] for found in possible}
                if needle in self._all[0 if capitals_count else 1]
            }
            needles = {found for found in possible if found[1:] in there}
            if not needles:
                continue
            for sink, (exact, lowered) in self._views.items():
                if sink.removeprefix("database ") in canary.stored_in:
                    continue
                for name, needle, capitals_count in needles:
                    content = exact if capitals_count else lowered
                    at = content.find(needle)
                    if at >= 0:
                        around = _around(content, at, needle)
                        leaks.append(Leak(canary, sink, name, around))
        return sorted(leaks, key=str)

    def _possible(self, text: str) -> Iterable[tuple[str, bytes, bool]]:
        """Yield the needles of `text` without those that cannot be there: there are a thousand texts."""
        longest = max(re.findall(r"[A-Za-z0-9]+", text), key=len).lower().encode()
        is_there = longest in self._all[1]
        for name, needle, capitals_count in _needles(text):
            if is_there or longest not in needle:
                yield name, needle, capitals_count


def _around(content: bytes, at: int, needle: bytes) -> str:
    before = content[max(0, at - 90) : at]
    behind = content[at + len(needle) : at + len(needle) + 30]
    return ascii(f"{before.decode('utf-8', 'replace')}<IT>{behind.decode('utf-8', 'replace')}")


def table(leaks: Iterable[Leak]) -> str:
    """Return one line for each canary and sink."""
    lines: dict[tuple[Canary, str], Leak] = {}
    for leak in leaks:
        lines.setdefault((leak.canary, leak.sink), leak)
    return "\n".join(map(str, lines.values()))
