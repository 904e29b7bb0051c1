"""The comparison: starts every variant, measures them in turns, ends them, checks that they worked."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing

from bench import cpu, footprint, proof, rate
from bench.agenda import STOP_SECONDS, Agenda
from bench.interruption import run
from bench.machine import Steal, busy_share, look
from bench.process import ServerProcess
from bench.processors import one_kept_free
from bench.progress import Progress
from bench.results import Results
from bench.stage import Customer, Stage, customer, open_stage
from bench.stalls import Stalls
from bench.variants import VARIANTS


def compare(
    agenda: Agenda,
    database_url: str | None,
    progress: Progress,
    keep: Callable[[Results], None] = lambda _: None,
) -> Results:
    """Measure what the agenda says.

    Args:
        keep: Is given the results before anything is in them, for whoever wants them after Ctrl-C, too.

    Raises:
        NotMeasurable: Something did not start or did not answer as it must.
    """
    began = time.monotonic()
    progress("looking whether the machine is quiet")
    results = Results(look())
    keep(results)
    with closing(Stalls()) as stalls:
        steal = Steal(stalls)
        try:
            progress.begin(agenda.start_seconds)
            progress("preparing a database")
            with one_kept_free() as processor, open_stage(database_url) as stage:
                results.on_postgres = stage.on_postgres
                _measure(agenda, stage, progress, results, began, stalls, processor)
        finally:
            results.stolen = steal.share()
            results.seconds = time.monotonic() - began
    progress("looking whether the machine is quiet")
    results.others_after = busy_share()
    results.image_bytes = footprint.image_bytes()
    results.test_seconds = footprint.last_test_seconds()
    results.seconds = time.monotonic() - began
    results.complete = True
    return results


def _measure(
    agenda: Agenda,
    stage: Stage,
    progress: Progress,
    results: Results,
    began: float,
    stalls: Stalls,
    processor: int | None,
) -> None:
    environments = {name: VARIANTS[name].environment for name in agenda.variants}
    with stage.servers(agenda.variants, environments, progress) as servers:
        for name, server in servers.items():
            results.footprints[name] = footprint.at_rest(server)
            if processor is not None:
                server.keep_to(processor)
        progress("making a customer with orders")
        who = customer(servers[agenda.variants[0]].port)
        _in_turns(agenda, servers, who, progress, results, began, stalls)
        progress.begin(STOP_SECONDS)
        progress("checking that everything worked")
        for name, server in servers.items():
            server.thaw()
            footprint.after_the_run(results.footprints[name], server)
        counted = {name: proof.counted_requests(server) for name, server in servers.items()}
        progress("ending everything")
    found = proof.evidence(servers, counted, stage.received())
    for name, left in found.items():
        results.complaints += proof.complaints(name, left)


def _in_turns(
    agenda: Agenda,
    servers: dict[str, ServerProcess],
    who: Customer,
    progress: Progress,
    results: Results,
    began: float,
    stalls: Stalls,
) -> None:
    progress.begin(agenda.cpu_seconds)
    for asked, rounds, until in (
        (agenda.asked, agenda.rounds, math.inf),
        (agenda.asked_closely, agenda.closer_rounds, began + agenda.closer_until),
    ):
        bursts = cpu.measure(
            servers,
            asked,
            who,
            rounds=rounds,
            seconds=agenda.burst,
            progress=progress,
            into=results.measured,
            until=until,
            stalls=stalls,
        )
        run(bursts)
    progress.begin(agenda.latency_seconds)
    turns = rate.measure(
        servers,
        _rates(agenda, servers, who, results),
        agenda.latency_variants,
        who,
        rounds=agenda.latency_rounds,
        seconds=agenda.latency_turn,
        progress=progress,
        into=results.at_rates,
        stalls=stalls,
    )
    run(turns, to_the_microsecond=True)


def _rates(
    agenda: Agenda, servers: Mapping[str, ServerProcess], who: Customer, results: Results
) -> dict[str, float]:
    """Return the rate of each operation: the one that is given, or one that keeps the slowest a bit busy."""
    if not agenda.latency_variants:
        return {}
    if agenda.rate is not None:
        return dict.fromkeys(agenda.latency_operations, agenda.rate)
    found = {}
    for operation in agenda.latency_operations:
        highest, slowest = min(
            (statistics.median(results.measured[operation][variant].rates), variant)
            for variant in agenda.latency_variants
        )
        busy = rate.for_busy(servers[slowest], operation, who, highest=highest)
        found[operation] = run(busy, to_the_microsecond=True)
    return found
