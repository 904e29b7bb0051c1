"""How fast time passes: one definition of every rule, rendered for production or for a demonstration.

In the demonstration a minute is a second: a page that needs an hour of errors comes after one minute.
Durations are marked where they stand, and only those change: ranges (`[5m]`, `[1h:1m]`), `offset 1d`,
`$seconds(15m)` for a number of seconds in an expression (`$seconds(5m, 20s)` is never below 20, for what
the service does at its own pace), `<15m>` in texts for people, and whatever is handed to
`Profile.duration`. Names keep production's durations, so that dashboards work for both.
"""

import re
from dataclasses import dataclass
from typing import Final

from app.observability.service_levels.objectives import seconds

SHORTEST_RANGE_SECONDS: Final = 5.0
"""A rate needs two samples, and a demonstration is scraped once a second, on a machine that is busy."""

_DURATION: Final = r"\d+[smhdw]"
_RANGE: Final = re.compile(rf"\[({_DURATION})(?::({_DURATION})?)?\]")
_OFFSET: Final = re.compile(rf"\boffset (-?)({_DURATION})")
_SECONDS: Final = re.compile(rf"\$seconds\(({_DURATION})(?:, *({_DURATION}))?\)")
_TEXT: Final = re.compile(rf"<({_DURATION})>")
_WORDS: Final = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


@dataclass(frozen=True, slots=True)
class Profile:
    """A rendering: `divisor` is how many times faster than in production time passes."""

    name: str
    divisor: int = 1

    def seconds(self, duration: str, *, floor: float = 0.0) -> float:
        """Return the seconds of a duration in this profile, not below `floor` unless it was before."""
        asked = seconds(duration)
        return max(asked / self.divisor, min(floor, asked))

    def duration(self, duration: str, *, floor: float = 0.0) -> str:
        """Return a duration as Prometheus and Alertmanager write it, exactly."""
        milliseconds = round(self.seconds(duration, floor=floor) * 1000)
        for unit, size in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)):
            if milliseconds and milliseconds % size == 0:
                return f"{milliseconds // size}{unit}"
        return f"{milliseconds}ms"

    def promql(self, expression: str) -> str:
        """Return an expression with its durations changed."""
        text = _RANGE.sub(self._range, expression)
        text = _OFFSET.sub(lambda found: f"offset {found[1]}{self.duration(found[2])}", text)
        return _SECONDS.sub(self._number, text)

    def text(self, text: str) -> str:
        """Return a text for people with its durations changed and spelt out."""
        return _TEXT.sub(lambda found: self._words(found[1]), text)

    def _range(self, found: re.Match[str]) -> str:
        span = self.duration(found[1], floor=SHORTEST_RANGE_SECONDS)
        if ":" not in found[0]:
            return f"[{span}]"
        step = self.duration(found[2], floor=1.0) if found[2] else ""
        return f"[{span}:{step}]"

    def _number(self, found: re.Match[str]) -> str:
        floor = seconds(found[2]) if found[2] else 0
        # Not :g, which writes a million and more in scientific notation, rounded.
        number = self.seconds(found[1], floor=floor)
        return str(int(number)) if number == int(number) else str(number)

    def _words(self, duration: str) -> str:
        number = self.seconds(duration)
        size, word = next((entry for entry in _WORDS if number >= entry[0]), (1, "second"))
        amount = f"{number / size:g}"
        return f"{amount} {word}" if amount == "1" else f"{amount} {word}s"


PRODUCTION: Final = Profile("production")
DEMO: Final = Profile("demo", divisor=60)
PROFILES: Final = {profile.name: profile for profile in (PRODUCTION, DEMO)}
