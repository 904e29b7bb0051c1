"""The comparison: starts every variant, measures them in turns, ends them, checks that they worked."""

import math
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass

from bench import cpu, footprint, proof, rate
from bench.agenda import STOP_SECONDS, Agenda
from bench.garbage import no_collection
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
                _Run(agenda, progress, results, stalls, began).measure(stage, processor)
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


@dataclass(frozen=True, slots=True)
class _Run:
    """One comparison, while its servers are up."""

    agenda: Agenda
    progress: Progress
    results: Results
    stalls: Stalls
    began: float

    def measure(self, stage: Stage, processor: int | None) -> None:
        """Start the servers, on `processor` if they have one, ask them, end them, see what they left."""
        agenda, progress, results = self.agenda, self.progress, self.results
        environments = {name: VARIANTS[name].environment for name in agenda.variants}
        with stage.servers(agenda.variants, environments, progress) as servers:
            for name, server in servers.items():
                results.footprints[name] = footprint.at_rest(server)
                if processor is not None:
                    server.keep_to(processor)
            progress("making a customer with orders")
            who = customer(servers[agenda.variants[0]].port)
            with no_collection():
                self._in_turns(servers, who)
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

    def _in_turns(self, servers: Mapping[str, ServerProcess], who: Customer) -> None:
        agenda, progress = self.agenda, self.progress
        progress.begin(agenda.cpu_seconds)
        for asked, rounds, until in (
            (agenda.asked, agenda.rounds, math.inf),
            (agenda.asked_closely, agenda.closer_rounds, self.began + agenda.closer_until),
        ):
            bursts = cpu.measure(
                servers,
                asked,
                who,
                rounds=rounds,
                seconds=agenda.burst,
                progress=progress,
                into=self.results.measured,
                until=until,
                stalls=self.stalls,
            )
            run(bursts)
        progress.begin(agenda.latency_seconds)
        turns = rate.measure(
            servers,
            self._rates(servers, who),
            agenda.latency_variants,
            who,
            rounds=agenda.latency_rounds,
            seconds=agenda.latency_turn,
            progress=progress,
            into=self.results.at_rates,
            stalls=self.stalls,
        )
        run(turns, to_the_microsecond=True)

    def _rates(self, servers: Mapping[str, ServerProcess], who: Customer) -> dict[str, float]:
        """Return the rate of each operation: the one that was asked for, or what keeps the slowest busy."""
        agenda = self.agenda
        if not agenda.latency_variants:
            return {}
        if agenda.rate is not None:
            return dict.fromkeys(agenda.latency_operations, agenda.rate)
        found = {}
        for operation in agenda.latency_operations:
            measured = self.results.measured[operation]
            highest, slowest = min(
                (statistics.median(measured[variant].rates), variant)
                for variant in agenda.latency_variants
            )
            busy = rate.for_busy(servers[slowest], operation, who, highest=highest)
            found[operation] = run(busy, to_the_microsecond=True)
        return found
