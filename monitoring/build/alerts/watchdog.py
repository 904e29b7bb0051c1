"""The dead man's switch: silence of this one means that no alert would be heard.

Whoever receives it (a service outside, the local page of notifications) raises the alarm when it stops.
"""

from monitoring.build.model import Alert, Fires, Group

_WATCHDOG = Alert(
    name="Watchdog",
    expr="vector(1)",
    severity="none",
    component="watchdog",
    summary="Alerts get from Prometheus to whoever reads this.",
    description="It always fires. When it is not heard any more, no other alert is heard either:"
    " Prometheus, Alertmanager or the way from there is broken.",
    dashboard="overview",
    fires=(Fires(series={}, at="1m"), Fires(series={'up{job="api"}': "0x10"}, at="10m")),
    silent=(),
)

GROUPS: tuple[Group, ...] = (Group("watchdog", (_WATCHDOG,)),)
