"""How much a counter has grown whose series begin with what they count first: such a series begins at 1.

`increase()` sees how much a series has grown, never that it began. What cannot begin at 0, since nobody
knows its label values before, is counted here with its first value.
"""


def growth(metric: str, *labels: str, jobs: str, window: str, young: str = "") -> str:
    """Return the growth within a window, by job, instance and labels.

    A series that was not there a window ago counts as it stands, but only if its process was watched then
    or is younger than that: to a Prometheus that is new, or was away, everything seems to have just begun.

    Args:
        metric: The counter.
        labels: Those that tell its series of one process apart.
        jobs: Which processes, as a matcher of `job`.
        window: Such as `1h`.
        young: Which processes are younger, where they do not say when they started.
    """
    series = f"{metric}{{{jobs}}}"
    young = young or f"process_start_time_seconds{{{jobs}}} > time() - $seconds({window})"
    key = ", ".join(("job", "instance", *labels))
    return f"""(
  (
    {series}
    unless on ({key}) {series} offset {window}
    and on (job, instance)
    (
      up{{{jobs}}} offset {window} == 1
      or on (job, instance)
      {young}
    )
  )
  or on ({key})
  increase({series}[{window}])
)"""
