"""Certificates, as the blackbox exporter meets them: they end on a day that is known long before.

Presumes https addresses in monitoring/prometheus/targets/tls.yml; without them there are no series, and
nothing fires. Days are real ones in the demonstration, too: a certificate knows no other time.
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Group, Silent

_DAY: Final = 86_400
_SOON: Final = 21 * _DAY
"""Automatic renewal happens 30 days before the end: nine days of failures are no accident."""
_VERY_SOON: Final = 3 * _DAY
_EXPIRY: Final = 'min by (instance) (probe_ssl_earliest_cert_expiry{job="blackbox"}) - time()'
_SHOP: Final = 'probe_ssl_earliest_cert_expiry{job="blackbox",probe="tls",instance="https://shop"}'
_PROBE: Final = 'probe_success{job="blackbox",probe="tls",instance="https://shop"}'

_EXPIRES_SOON: Final = Alert(
    name="CertificateExpiresSoon",
    expr=f"{_EXPIRY} < {_SOON} >= {_VERY_SOON}",
    severity="warning",
    component="certificate",
    wait="1h",
    summary="A certificate ends in less than 21 days, and should have been renewed.",
    description="The certificate of {{ $labels.instance }}, or one in its chain, ends in"
    " {{ $value | humanizeDuration }}; it is renewed 30 days before.",
    dashboard="infrastructure",
    variables=("instance",),
    fires=(
        Fires(
            series={_SHOP: f"{20 * _DAY + 3600}x70"},
            at="1h",
            labels={"instance": "https://shop"},
            value="20d 0h 0m 0s",
        ),
        Fires(
            series={_SHOP: f"{7 * _DAY // 2 + 3600}x70"},
            at="1h",
            labels={"instance": "https://shop"},
            value="3d 12h 0m 0s",
        ),
    ),
    silent=(
        Silent(why="22 days are enough", series={_SHOP: f"{22 * _DAY}x70"}, at="65m"),
        Silent(
            why="2.5 days are told as critical", series={_SHOP: f"{5 * _DAY // 2}x70"}, at="65m"
        ),
        Silent(
            why="it may be renewed within the hour",
            series={_SHOP: f"{20 * _DAY}x70"},
            at="50m",
        ),
    ),
)

_EXPIRES_VERY_SOON: Final = Alert(
    name="CertificateExpiresVerySoon",
    expr=f"{_EXPIRY} < {_VERY_SOON}",
    severity="critical",
    component="certificate",
    wait="10m",
    summary="A certificate ends in less than 3 days; then nobody can reach the shop.",
    description="The certificate of {{ $labels.instance }}, or one in its chain, ends in"
    " {{ $value | humanizeDuration }}.",
    dashboard="infrastructure",
    variables=("instance",),
    fires=(
        Fires(
            series={_SHOP: f"{5 * _DAY // 2 + 1200}x30"},
            at="20m",
            labels={"instance": "https://shop"},
            value="2d 12h 0m 0s",
        ),
    ),
    silent=(
        Silent(why="4 days are told as a warning", series={_SHOP: f"{4 * _DAY}x30"}, at="20m"),
        Silent(why="it may be renewed at once", series={_SHOP: f"{2 * _DAY}x30"}, at="5m"),
    ),
)

_PROBE_FAILING: Final = Alert(
    name="CertificateProbeFailing",
    expr='probe_success{job="blackbox",probe="tls"} == 0',
    severity="critical",
    component="certificate",
    wait="5m",
    depends_on=("api",),
    summary="An https address cannot be reached, or its certificate is not accepted.",
    description="{{ $labels.instance }} has not been reached over TLS with a valid certificate for <5m>"
    " (probe_success is {{ $value }}; 1 is good).",
    dashboard="infrastructure",
    variables=("instance",),
    fires=(
        Fires(
            series={_PROBE: "1x5 0x20"},
            at="15m",
            labels={"job": "blackbox", "probe": "tls", "instance": "https://shop"},
            value="0",
        ),
    ),
    silent=(
        Silent(why="it has been away for four minutes", series={_PROBE: "1x5 0x20"}, at="10m"),
        Silent(
            why="another probe fails",
            series={_PROBE: "1x20", _PROBE.replace('"tls"', '"home"'): "0x20"},
            at="15m",
        ),
    ),
)

GROUPS: tuple[Group, ...] = (
    Group("certificate", (_EXPIRES_SOON, _EXPIRES_VERY_SOON, _PROBE_FAILING)),
)
