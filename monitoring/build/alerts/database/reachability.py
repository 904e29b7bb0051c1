"""Whether the database can be used: as the service sees it, as its exporter sees it, and its schema."""

from typing import Final

from monitoring.build.model import Alert, Fires, Silent

_SERVER: Final = 'pg_up{job="postgres",instance="postgres-exporter:9187"}'


def _seen(dependency: str, **values: str) -> dict[str, str]:
    """Return what processes see, by name: the first letter says whether API or worker."""
    jobs = {"a": "api", "w": "worker"}
    return {
        f'dependency_up{{job="{jobs[name[0]]}",instance="{name}",dependency="{dependency}"}}': value
        for name, value in values.items()
    }


ALERTS: Final = (
    Alert(
        # One alert, however many processes notice: the job that sees it worst counts, and of its
        # processes the one that sees it best. What a single process does not see is ApiNotReady.
        name="DatabaseDown",
        expr="""
        min by (dependency) (job_dependency:dependency_up:max{dependency="database"}) == 0
        """,
        wait="1m",
        keep_firing="5m",
        severity="critical",
        component="database",
        summary="The database cannot be reached: nothing can be read or stored.",
        description=(
            "{{ $value }} of the processes of the API or of the worker have reached the"
            " {{ $labels.dependency }} for <1m>; all should."
        ),
        dashboard="database",
        logs='{service_name=~"glasshouse.*"} | type="health" | dependency="database"',
        fires=(
            Fires(
                _seen("database", a1="1x4 0x20", a2="1x4 0x20", w1="1x4 0x20"),
                "8m",
                {"dependency": "database"},
                "0",
            ),
            Fires(
                _seen("database", a1="1x4 0x20", w1="1x30"), "8m", {"dependency": "database"}, "0"
            ),
            Fires(_seen("database", a1="0x5 1x20"), "10m", {"dependency": "database"}, "0"),
        ),
        silent=(
            Silent("one of two instances lost it", _seen("database", a1="0x20", a2="1x20"), "10m"),
            Silent("one check failed", _seen("database", a1="1x4 0 1x20"), "330s"),
            Silent("another dependency is down", _seen("cache", a1="0x20"), "10m"),
            Silent("it came back 7 minutes ago", _seen("database", a1="0x5 1x20"), "13m"),
        ),
    ),
    Alert(
        name="DatabaseServerDown",
        expr='min by (instance) (pg_up{job="postgres"}) == 0',
        wait="2m",
        severity="warning",
        component="database",
        depends_on=("database",),
        summary="The exporter of PostgreSQL cannot ask the server, though the service can.",
        description=(
            "{{ $labels.instance }} has had no answer from PostgreSQL for <2m>"
            " (pg_up is {{ $value }}, not 1)."
        ),
        dashboard="database",
        variables=("server=instance",),
        fires=(Fires({_SERVER: "1x4 0x20"}, "8m", {"instance": "postgres-exporter:9187"}, "0"),),
        silent=(
            Silent("it restarted within 2 minutes", {_SERVER: "1x4 0 1x20"}, "6m"),
            Silent("all is well", {_SERVER: "1x20"}, "10m"),
        ),
    ),
    Alert(
        name="MigrationsPending",
        expr="""
        min by (job) (dependency_up{job=~"api|worker",dependency="migrations"}) == 0
        unless on (job)
        min by (job) (dependency_up{job=~"api|worker",dependency="database"}) == 0
        """,
        wait="5m",
        severity="warning",
        component="database",
        depends_on=("database",),
        summary="The schema is not the one this version was built for: such processes are not ready.",
        description=(
            "A process of {{ $labels.job }} has found another schema than its own for <5m>"
            " (dependency_up is {{ $value }}, not 1)."
        ),
        dashboard="database",
        logs='{service_name=~"glasshouse.*"} | type="health" | dependency="migrations"',
        fires=(
            Fires(
                _seen("migrations", a1="1x4 0x20", a2="1x30") | _seen("database", a1="1x30"),
                "12m",
                {"job": "api"},
                "0",
            ),
        ),
        silent=(
            Silent(
                "the database is away, so nobody knows",
                _seen("migrations", a1="0x20") | _seen("database", a1="0x20"),
                "10m",
            ),
            Silent(
                "the migration ran within 5 minutes",
                _seen("migrations", a1="1x4 0x3 1x20") | _seen("database", a1="1x30"),
                "9m",
            ),
        ),
    ),
)
