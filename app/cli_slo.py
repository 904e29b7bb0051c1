"""The commands `python -m app slo ...`: how service levels stand now, and the report of some days."""

import asyncio
import datetime as dt
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal, NoReturn

import httpx2
import typer
from pydantic import SecretStr, ValidationError
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from app.observability.service_levels.assessment import BurnRate, ObjectiveStatus, ServiceLevels
from app.observability.service_levels.objectives import ObjectivesError
from app.observability.service_levels.prometheus_api import PrometheusAPI, PrometheusError
from app.observability.service_levels.recorded_levels import ALL_LEVELS, read_levels
from app.observability.service_levels.report import Report, make_report
from app.observability.service_levels.report_markdown import markdown, percent, whole_percent
from app.observability.slo import read_objectives, recorded_levels
from app.settings import Settings

REPORT_TIMEOUT_SECONDS: Final = 30.0
"""For one question about weeks: a person waits for it, no caller of the API."""
REPORT_MAX_BYTES: Final = 50_000_000
_SERVICE_TIMEOUT_SECONDS: Final = 10.0
_COLOURS: Final = {"ok": "green", "burning": "red", "exhausted": "red", "no_data": "dim"}
_ANY_WIDTH: Final = 1_000
_SHOWN_WINDOWS: Final = ("1h", "6h", "3d")

Url = Annotated[str, typer.Option(help="Of the service to ask, such as http://127.0.0.1:8000.")]
Output = Annotated[Path | None, typer.Option(help="A file to write instead of printing.")]
Format = Annotated[Literal["markdown", "json"], typer.Option("--format")]


def slo_commands(
    load_settings: Callable[[], Settings], fail: Callable[[str], NoReturn]
) -> typer.Typer:
    """Return the commands; `fail` says on the terminal what is wrong, and ends the process."""
    app = typer.Typer(no_args_is_help=True, help="Tell how service levels stand.")

    @app.command("status")
    def status(
        url: Url = "",
        as_json: Annotated[bool, typer.Option("--json", help="As /slo answers.")] = False,
    ) -> None:
        """Show each objective, from PROMETHEUS_URL or, without it, from the service on PORT."""
        settings = load_settings()
        try:
            if settings.prometheus_url is not None and not url:
                levels = asyncio.run(_ask_prometheus(settings, settings.prometheus_url))
            else:
                levels = _ask_service(url or f"http://127.0.0.1:{settings.port}")
        except (ObjectivesError, PrometheusError) as error:
            fail(str(error))
        except _ServiceError as error:
            fail(f"the service {error}; is it running, or should PROMETHEUS_URL be set?")
        if as_json:
            typer.echo(levels.model_dump_json(indent=2))
        else:
            _print(levels)

    @app.command("report")
    def report(
        days: Annotated[int, typer.Option(min=1, max=90)] = 7,
        output: Output = None,
        kind: Format = "markdown",
    ) -> None:
        """Tell what the last days were like: kept or missed, budget, alerts, gaps."""
        settings = load_settings()
        if settings.prometheus_url is None:
            fail("set PROMETHEUS_URL: one process does not know what happened for days")
        try:
            made = asyncio.run(_report(settings, settings.prometheus_url, days=days))
        except (ObjectivesError, PrometheusError) as error:
            fail(str(error))
        text = markdown(made) if kind == "markdown" else made.model_dump_json(indent=2) + "\n"
        if output is None:
            typer.echo(text, nl=False)
            return
        try:
            output.write_text(text, "utf-8")
        except OSError as error:
            fail(f"{output}: {error.strerror}")

    return app


class _ServiceError(Exception):
    """The service did not tell: half a sentence that goes on after its name."""


def _ask_service(url: str) -> ServiceLevels:
    try:
        answer = httpx2.get(
            f"{url.rstrip('/')}/slo", timeout=_SERVICE_TIMEOUT_SECONDS, trust_env=False
        )
        answer.raise_for_status()
        return ServiceLevels.model_validate_json(answer.content)
    except httpx2.HTTPStatusError as error:
        raise _ServiceError(f"answered with status {error.response.status_code}") from None
    except (httpx2.HTTPError, httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
        raise _ServiceError(f"could not be asked ({type(error).__name__})") from None
    except ValidationError:
        raise _ServiceError("answered with something that are no service levels") from None


async def _ask_prometheus(settings: Settings, url: SecretStr) -> ServiceLevels:
    declared = read_objectives(settings)
    prometheus = PrometheusAPI(url, timeout_seconds=settings.prometheus_timeout_seconds)
    try:
        return recorded_levels(declared, read_levels(await prometheus.query(ALL_LEVELS)))
    except PrometheusError as error:
        raise PrometheusError(f"Prometheus {error}") from None
    finally:
        await prometheus.aclose()


async def _report(settings: Settings, url: SecretStr, *, days: int) -> Report:
    declared = read_objectives(settings)
    prometheus = PrometheusAPI(
        url, timeout_seconds=REPORT_TIMEOUT_SECONDS, max_bytes=REPORT_MAX_BYTES
    )
    try:
        return await make_report(
            prometheus, declared, days=days, end=dt.datetime.now(dt.UTC).replace(microsecond=0)
        )
    except PrometheusError as error:
        raise PrometheusError(f"Prometheus {error}") from None
    finally:
        await prometheus.aclose()


def _print(levels: ServiceLevels) -> None:
    """Show all of a table, and below it what needs a sentence.

    A pipe has no width; a terminal that is too narrow for the table gets two lines for each objective.
    """
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
    table.add_column("Objective", no_wrap=True)
    for name in ("Target", "SLI", "Budget", *(f"Burn {window}" for window in _SHOWN_WINDOWS)):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("State", no_wrap=True)
    reasons: dict[str, list[str]] = defaultdict(list)
    for one in levels.objectives:
        table.add_row(*_row(one))
        if one.reason:
            reasons[one.reason].append(one.name)
    console = Console()
    needed = console.measure(table, options=console.options.update(max_width=_ANY_WIDTH)).maximum
    if console.is_terminal and needed > console.width:
        for one in levels.objectives:
            console.print(_lines(one), highlight=False, soft_wrap=True)
    else:
        Console(width=max(needed, console.width)).print(table)
    told = [f"{', '.join(names)}: {reason}" for reason, names in reasons.items()]
    for sentence in (*told, _origin(levels)):
        console.print(sentence, highlight=False, markup=False, soft_wrap=True)


def _row(one: ObjectiveStatus) -> tuple[str, ...]:
    burns = {rate.window: rate for rate in one.burn_rates}
    colour = _COLOURS[one.state]
    return (
        one.name,
        f"{one.target_percent} %",
        "-" if one.sli is None else percent(one.sli, one.target_percent),
        "-" if one.sli is None else whole_percent(one.error_budget_remaining),
        *(_burn(burns.get(window)) for window in _SHOWN_WINDOWS),
        f"[{colour}]{one.state.replace('_', ' ')}[/]",
    )


def _lines(one: ObjectiveStatus) -> str:
    """Return a row of the table as short lines."""
    name, target, sli, budget, *burns, state = _row(one)
    told = ", ".join(f"{window} {burn}" for window, burn in zip(_SHOWN_WINDOWS, burns, strict=True))
    return f"{name}: {state}, burn {told}\n  target {target}, SLI {sli}, budget {budget}"


def _burn(rate: BurnRate | None) -> str:
    return "-" if rate is None or rate.burn_rate is None else f"{rate.burn_rate:.1f}x"


def _origin(levels: ServiceLevels) -> str:
    """Say in one line where the numbers come from and how good they are."""
    source = "Prometheus"
    if levels.source == "process":
        since = f", since {levels.since:%Y-%m-%d %H:%M:%S} UTC" if levels.since else ""
        source = f"the counters of one process{since}"
    periods = ", ".join(sorted({one.period for one in levels.objectives}))
    told = f"SLI and budget of {periods}; source: {source}; {levels.age_seconds:.0f} s old."
    return f"{told} Degraded: {levels.reason}" if levels.degraded else told
