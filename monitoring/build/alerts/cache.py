"""Redis, as the cache of the API and as a server. Without it the service works, slower and less guarded.

The broker is in the same Redis: that it cannot be reached is the worker's to tell (BrokerDown).
"""

from typing import Final

from monitoring.build.model import Alert, Fires, Group, Silent

_SESSIONS: Final = {"cache": "sessions"}
_EXPORTER: Final = {"instance": "redis-exporter:9121"}
_SERVER: Final = 'job="redis",instance="redis-exporter:9121"'
_HEALTH: Final = '{service_name=~"glasshouse.*"} | type="health" | dependency=~"cache|broker"'


def _seen(**values: str) -> dict[str, str]:
    return {
        f'dependency_up{{job="api",instance="{name}:8000",dependency="cache"}}': value
        for name, value in values.items()
    }


def _reads(*, hit: float, miss: float = 0, error: float = 0) -> dict[str, str]:
    """Return reads a minute by result."""
    of = 'job="api",instance="a:8000",cache="sessions"'
    return {
        f'cache_requests_total{{{of},result="{result}"}}': f"0+{count:g}x90"
        for result, count in (("hit", hit), ("miss", miss), ("error", error))
    }


def _memory(used: int, limit: int = 100) -> dict[str, str]:
    return {
        f"redis_memory_used_bytes{{{_SERVER}}}": f"{used}x60",
        f"redis_memory_max_bytes{{{_SERVER}}}": f"{limit}x60",
    }


_CACHE: Final = (
    Alert(
        name="CacheDown",
        expr='max by (dependency) (dependency_up{job="api",dependency="cache"}) == 0',
        wait="1m",
        keep_firing="5m",
        severity="warning",
        component="cache",
        summary="The cache cannot be reached: each request asks the database, and rate limits are off.",
        description=(
            "{{ $value }} of the API's instances have reached the {{ $labels.dependency }} for <1m>;"
            " all should."
        ),
        dashboard="infrastructure",
        logs=_HEALTH,
        fires=(
            Fires(_seen(a="1x4 0x20", b="1x4 0x20"), "8m", {"dependency": "cache"}, "0"),
            Fires(_seen(a="0x5 1x20"), "10m", {"dependency": "cache"}, "0"),
        ),
        silent=(
            Silent("one of two instances lost it", _seen(a="0x20", b="1x20"), "10m"),
            Silent("one check failed", _seen(a="1x4 0 1x20"), "330s"),
            Silent("it came back 7 minutes ago", _seen(a="0x5 1x20"), "13m"),
        ),
    ),
    Alert(
        name="CacheErrors",
        expr="""
        cache:cache_requests_failed:ratio_rate5m > 0.05
        and on (cache)
        sum by (cache) (increase(cache_requests_total{job="api",result="error"}[5m])) >= 10
        """,
        wait="5m",
        severity="warning",
        component="cache",
        depends_on=("cache",),
        summary="Reads of a cache fail, though Redis answers its health checks.",
        description=(
            "{{ $value | humanizePercentage }} of the reads of the cache {{ $labels.cache }} in the"
            " last <5m> failed; at most 5% should."
        ),
        dashboard="infrastructure",
        variables=("cache",),
        logs=_HEALTH,
        fires=(Fires(_reads(hit=90, error=10), "14m", _SESSIONS, "10%"),),
        silent=(
            Silent("5% exactly", _reads(hit=95, error=5), "20m"),
            Silent("few reads", _reads(hit=1, error=1), "20m"),
        ),
    ),
    Alert(
        name="CacheHitRatioLow",
        expr="""
        sum by (cache) (rate(cache_requests_total{job="api",result="hit"}[30m]))
        / sum by (cache) (rate(cache_requests_total{job="api",result=~"hit|miss"}[30m])) < 0.5
        and on (cache)
        sum by (cache) (increase(cache_requests_total{job="api",result=~"hit|miss"}[30m])) >= 100
        """,
        wait="15m",
        severity="info",
        component="cache",
        depends_on=("cache",),
        summary="A cache finds less than half of what it is asked for.",
        description=(
            "{{ $value | humanizePercentage }} of the reads of the cache {{ $labels.cache }} in the"
            " last <30m> found something; 50% is the least at which it is worth its cost."
        ),
        dashboard="infrastructure",
        variables=("cache",),
        fires=(Fires(_reads(hit=2, miss=8), "60m", _SESSIONS, "20%"),),
        silent=(
            Silent("50% exactly", _reads(hit=5, miss=5), "60m"),
            Silent("few reads", _reads(hit=1, miss=2), "60m"),
            Silent("it was filled just now", _reads(hit=2, miss=8), "14m"),
        ),
    ),
)

_REDIS: Final = (
    Alert(
        name="RedisDown",
        expr='min by (instance) (redis_up{job="redis"}) == 0',
        wait="2m",
        severity="warning",
        component="cache",
        depends_on=("cache", "broker"),
        summary="The exporter of Redis cannot ask the server, though the service can.",
        description=(
            "{{ $labels.instance }} has had no answer from Redis for <2m> (redis_up is {{ $value }},"
            " not 1)."
        ),
        dashboard="infrastructure",
        variables=("instance",),
        logs=_HEALTH,
        fires=(Fires({f"redis_up{{{_SERVER}}}": "1x4 0x20"}, "8m", _EXPORTER, "0"),),
        silent=(
            Silent("it restarted at once", {f"redis_up{{{_SERVER}}}": "1x4 0 1x20"}, "6m"),
            Silent("all is well", {f"redis_up{{{_SERVER}}}": "1x20"}, "10m"),
        ),
    ),
    Alert(
        name="RedisMemoryHigh",
        expr="instance:redis_memory_used:ratio > 0.9",
        wait="5m",
        severity="warning",
        component="cache",
        depends_on=("cache", "broker"),
        summary="Redis has used up almost all memory that it may use.",
        description=(
            "{{ $value | humanizePercentage }} of maxmemory of {{ $labels.instance }} are used; at"
            " 100% it throws keys out, or refuses writes, as its maxmemory-policy says."
        ),
        dashboard="infrastructure",
        variables=("instance",),
        fires=(Fires(_memory(95), "12m", _EXPORTER, "95%"),),
        silent=(
            Silent("90% exactly", _memory(90), "20m"),
            Silent("there is no limit", _memory(95, limit=0), "20m"),
        ),
    ),
)

GROUPS: Final[tuple[Group, ...]] = (Group("cache_reads", _CACHE), Group("cache_server", _REDIS))
