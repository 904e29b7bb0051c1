"""The runbooks as HTML: docs/runbooks/<Name>.md, which the links of every notification lead to.

Raw HTML in a page is shown and not obeyed, images are left out (they would come from elsewhere), and a name
is a name: nothing but a file of the folder is ever read.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

from sandbox.notifications.shown import is_web_address
from sandbox.signals_viewer.markup import Markup

_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
_SIBLING: Final = re.compile(r"(?:\./)?([A-Za-z0-9][A-Za-z0-9_-]{0,99})\.md(#[\w-]*)?")
MAX_BYTES: Final = 512 * 1024

_markdown: Final = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")


class Runbooks:
    """The pages of a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def names(self) -> list[str]:
        """Return the names of all pages, in order."""
        return sorted(path.stem for path in self._folder.glob("*.md") if _is_name(path.stem))

    def page(self, name: str) -> Markup | None:
        """Return a page as HTML; None if there is none of this name."""
        path = self._folder / f"{name}.md"
        if not _is_name(name) or path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            text = file.read(MAX_BYTES).decode("utf-8", "replace")
        tokens = _markdown.parse(text)
        _prepare(tokens)
        return Markup(_markdown.renderer.render(tokens, _markdown.options, {}))


def _is_name(name: str) -> bool:
    return _NAME.fullmatch(name) is not None


def _prepare(tokens: list[Token]) -> None:
    taken: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if token.type == "heading_open":
            token.attrSet("id", _anchor(tokens[index + 1].content, taken))
        for child in token.children or ():
            if child.type == "link_open":
                _lead(child)


def _anchor(heading: str, taken: dict[str, int]) -> str:
    """Return the anchor that GitHub gives a heading, so that links work there and here."""
    slug = "".join(re.findall(r"[\w -]", heading.lower())).replace(" ", "-")
    number = taken[slug] = taken.get(slug, -1) + 1
    return f"{slug}-{number}" if number else slug


def _lead(link: Token) -> None:
    """Let a link to another runbook lead to its page here; other files of the project are not here."""
    target = str(link.attrs.get("href", ""))
    sibling = _SIBLING.fullmatch(target)
    if sibling:
        link.attrs["href"] = f"/runbooks/{sibling[1]}{sibling[2] or ''}"
    elif not is_web_address(target) and not target.startswith("#"):
        link.attrs.pop("href", None)


def names_after(names: Iterable[str]) -> list[tuple[str, list[str]]]:
    """Return the names by kind: alerts, and the objectives that several alerts share a page for."""
    objectives = [name for name in names if name.startswith("slo-")]
    alerts = [name for name in names if not name.startswith("slo-")]
    return [
        (title, kind) for title, kind in (("Alerts", alerts), ("Objectives", objectives)) if kind
    ]
