"""The further groups of measurements, each `python -m bench NAME`: the one place that knows of them.

A group is a module with

    async def measure(stage: Stage, progress: Callable[[str], None], ...) -> Result
    def show(result: Result) -> str
    def as_json(result: Result) -> dict[str, object]

where further parameters of `measure` are numbers, or tuples of them, with defaults: `--set NAME=NUMBER`.
"""

import importlib.util
import inspect
import math
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from bench.process import NotMeasurable


@dataclass(frozen=True, slots=True)
class Group:
    """One group."""

    name: str
    help: str
    needs_stage: bool = True
    """Whether it needs a database and a receiver of telemetry."""

    @property
    def module(self) -> ModuleType:
        """Return the module that measures it, which is loaded only for that.

        Raises:
            NotMeasurable: There is none.
        """
        path = f"bench.{self.name}"
        if importlib.util.find_spec(path) is None:
            raise NotMeasurable(f"there is no {path} to measure {self.name} with")
        return importlib.import_module(path)


GROUPS: Final = {
    group.name: group
    for group in (
        Group("redaction", "What redaction costs a log line.", needs_stage=False),
        Group("scrapes", "What a scrape of /metrics costs, and what others notice of it."),
        Group("growth", "What a request costs as concurrency, routes, lines and tables grow."),
        Group("soak", "Memory over time: ten minutes by default."),
        Group(
            "throughput", "Events a second through outbox and worker, and the lag after a burst."
        ),
    )
}


def arguments(module: ModuleType, options: list[str]) -> dict[str, Any]:
    """Return `NAME=NUMBER` and `NAME=NUMBER,NUMBER` options as the keywords of the module's `measure`.

    Raises:
        ValueError: It has no such keyword, or what is given is no number; the text says so.
    """
    parameters = inspect.signature(module.measure).parameters.values()
    known = {one.name: one.default for one in parameters if one.default is not one.empty}
    given: dict[str, Any] = {}
    for option in options:
        name, _, text = option.partition("=")
        if name not in known:
            has = f"there are {', '.join(known)}" if known else "there are none"
            raise ValueError(f"there is no option {name!r}; {has}")
        given[name] = _number(name, text, known[name])
    return given


def _number(name: str, text: str, default: object) -> object:
    """Return what was given as the kind of number, or numbers, that the default is."""
    if isinstance(default, tuple):
        return tuple(_number(name, one, default[0]) for one in text.split(","))
    try:
        number = int(text) if isinstance(default, int) else float(text)
    except ValueError:
        raise ValueError(f"{name} must be a number, not {text!r}") from None
    if not 0 < number < math.inf:
        raise ValueError(f"{name} must be more than nothing, not {text}")
    return number
