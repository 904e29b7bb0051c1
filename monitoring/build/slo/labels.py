"""Labels of series for tests of an objective: of an event that counts, of a bad one, of one not meant."""

from collections.abc import Iterable, Iterator, Mapping

from app.observability.service_levels.objectives import (
    FreshnessIndicator,
    LatencyIndicator,
    Matcher,
    ProbeIndicator,
    RatioIndicator,
)

Kind = RatioIndicator | LatencyIndicator | ProbeIndicator | FreshnessIndicator


def good_labels(indicator: Kind) -> dict[str, str]:
    """Return labels of an event that counts and is not bad."""
    job = Matcher("job", "=", indicator.job)
    bad = parse_bad(indicator)
    for labels in _candidates((job, *indicator.selection, *bad)):
        if _all(indicator.selection, labels) and not (bad and _all(bad, labels)):
            return labels | {"job": indicator.job}
    raise ValueError(f"no labels found that {indicator.where!r} selects")


def bad_labels(indicator: RatioIndicator) -> dict[str, str]:
    """Return labels of a bad event."""
    for labels in _candidates(indicator.bad_selection):
        if _all(indicator.bad_selection, labels):
            return labels | {"job": indicator.job}
    raise ValueError(f"no labels found that {indicator.bad!r} selects")


def parse_bad(indicator: Kind) -> tuple[Matcher, ...]:
    """Return the matchers that make an event bad, where labels do."""
    if not isinstance(indicator, RatioIndicator):
        return ()
    return indicator.bad_selection[len(indicator.selection) :]


def strangers(indicator: Kind) -> Iterator[dict[str, str]]:
    """Yield labels of events that are not meant: each differs in one thing from a bad one.

    Where that is the thing that makes it bad, it would make the bad ones look rare.
    """
    like = (
        bad_labels(indicator) if isinstance(indicator, RatioIndicator) else good_labels(indicator)
    )
    yield like | {"job": "stranger"}
    for matcher in indicator.selection:
        for value in (*_values(matcher), "stranger"):
            if not matcher.matches({matcher.label: value}):
                yield like | {matcher.label: value}
                break


def _all(matchers: Iterable[Matcher], labels: Mapping[str, str]) -> bool:
    return all(matcher.matches(labels) for matcher in matchers)


def _candidates(matchers: Iterable[Matcher]) -> Iterator[dict[str, str]]:
    """Yield sets of labels to try: what stands in the matchers, and something that stands in none."""
    tried: dict[str, list[str]] = {}
    for matcher in matchers:
        values = tried.setdefault(matcher.label, [])
        values += [value for value in _values(matcher) if value not in values]
    sets: list[dict[str, str]] = [{}]
    for label, values in tried.items():
        other = "200" if any(value[:1].isdigit() for value in values) else "other"
        sets = [one | {label: value} for value in (other, *values) for one in sets]
    yield from sets


def _values(matcher: Matcher) -> list[str]:
    if matcher.operator in {"=", "!="}:
        return [matcher.value]
    return [part.replace(".", "0") for part in matcher.value.split("|")]
