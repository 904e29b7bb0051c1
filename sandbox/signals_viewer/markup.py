"""HTML that cannot be broken into: what is not markup is escaped, always.

    element("td", name, class_="name")    ->    <td class="name">&lt;script&gt;</td>

Text becomes HTML in this file only; the pages never write an angle bracket of their own around a value.
"""

from collections.abc import Iterable
from html import escape
from typing import Final, TypeAlias

_EMPTY_ELEMENTS: Final = frozenset({"br", "input", "line", "link", "meta", "rect"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child: TypeAlias = "str | Iterable[Child] | None"
Attribute: TypeAlias = str | int | float | bool | None


def fragment(*children: Child) -> Markup:
    """Return the children one after the other; None is nothing."""
    return Markup("".join(_render(child) for child in children))


def element(tag: str, *children: Child, **attributes: Attribute) -> Markup:
    """Return an element. `class_` and `for_` stand for the Python keywords, an underscore for a hyphen;
    an attribute that is True stands without a value, one that is None or False is left out.
    """
    written = "".join(
        f" {name.rstrip('_').replace('_', '-')}"
        + ("" if value is True else f'="{escape(str(value))}"')
        for name, value in attributes.items()
        if value is not None and value is not False
    )
    if tag in _EMPTY_ELEMENTS:
        return Markup(f"<{tag}{written}>" if tag not in {"line", "rect"} else f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{fragment(*children)}</{tag}>")


def _render(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return child
    if isinstance(child, str):
        return escape(child)
    return fragment(*child)
