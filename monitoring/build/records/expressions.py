"""The shapes that rules and dashboards have in common: a rate, a share that survives silence, a quantile.

`by` are labels ("handler, status"), none for one figure; `where` are matchers; over `window`, five minutes
in rules, what is zoomed to in dashboards.

Counters begin at 0 where the code knows their labels; of those that first appear with an event (a status,
a table), Prometheus never sees the step from nothing to 1. A rate over minutes can live with that,
an alert on single events cannot: it has to look at what was absent before.
"""


def rate(metric: str, by: str = "", *, where: str, window: str = "5m") -> str:
    """Return the events of a counter per second, summed to the labels `by`."""
    return _sum(f"rate({metric}{{{where}}}[{window}])", by)


def increase(metric: str, by: str = "", *, where: str, window: str = "5m") -> str:
    """Return the events of a counter in a window, summed to the labels `by`."""
    return _sum(f"increase({metric}{{{where}}}[{window}])", by)


def _sum(series: str, by: str) -> str:
    return f"sum by ({by}) ({series})" if by else f"sum({series})"


def or_zero(part: str, whole: str, by: str = "") -> str:
    """Return `part`, and 0 where there is a `whole` without it."""
    return f"{part} or on ({by}) 0 * {whole}"


def share(part: str, whole: str, by: str = "") -> str:
    """Return which share of `whole` is `part`: 0 where no part exists, nothing where there is no whole.

    0/0 would be NaN, which poisons every average over it; an absent part would hide that all is well.
    """
    return f"({or_zero(part, whole, by)}) / on ({by}) ({whole} > 0)"


def quantile(rank: float, metric: str, by: str = "", *, where: str, window: str = "5m") -> str:
    """Return a quantile of a histogram from its buckets' sums: quantiles cannot be averaged."""
    buckets = rate(f"{metric}_bucket", f"{by}, le" if by else "le", where=where, window=window)
    return f"histogram_quantile({rank:g}, {buckets})"


def mean(metric: str, by: str = "", *, where: str, window: str = "5m") -> str:
    """Return the mean of what a histogram observed, nothing where it observed nothing."""
    total = rate(f"{metric}_sum", by, where=where, window=window)
    count = rate(f"{metric}_count", by, where=where, window=window)
    return f"{total} / ({count} > 0)"
