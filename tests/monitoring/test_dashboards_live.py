"""Every query of every dashboard and rule has an answer, from a real Prometheus that scraped the real house.

The customers do everything that customers do, and go on. Variables are filled in as Grafana fills them in.
A panel that is rightly empty while all is well says so (`quiet`), and is asked again while things break.
What runs in containers only is served from recordings (expositions.py). All that has no answer is told at
once, by dashboard and panel.
"""

import math
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx2
import pytest

from tests.monitoring import expositions
from tests.monitoring.load import LIVELY, customers, take_the_tour
from tests.monitoring.metrics_of_others import leave_backup_metrics
from tests.monitoring.queries import (
    Query,
    alert_selectors,
    dashboard_queries,
    selector_text,
)
from tests.monitoring.scenarios import (
    POOL,
    orders_fail,
    passwords_are_guessed,
    the_pool_is_exhausted,
)
from tests.monitoring.stack import LiveStack
from tests.monitoring.substitution import NoValues, Times, filling, shown_seconds

pytestmark = pytest.mark.timeout(900)
"""A minute or two, on machines of any speed."""

SCRAPE_SECONDS: Final = 15.0
"""What Grafana is told of the real one; here it is a second, so that the ranges of panels are well filled."""
LOOK_BACK_SECONDS: Final = 60.0
PATIENCE_SECONDS: Final = 90.0
"""For the last query that has an answer; most have one at once."""
FAULT_SECONDS: Final = 30.0


BORN_LATER: Final = {
    "ALERTS": "of alerts that fire",
    "ALERTS_FOR_STATE": "of alerts that fire",
    "audit_failures_total": "with the first entry that could not be stored",
    "database_n_plus_one_total": "with the first N+1",
    "metrics_label_values_folded_total": "with the first value that is too much",
}
"""Metrics that have no series while all is well, and since when they have some."""
BORN_WITH_A_FAILURE: Final = re.compile(
    r'job="(otel-collector|loki|jaeger)".*(result="err"|status_code=~"5)'
    r"|^otelcol_\w+(failed|refused)|^loki_\w*(failed|failures|errors|dropped|discarded|corruptions)"
)
"""Selectors of other programs' failures: most of these programs count none until there is one."""
NOT_RECORDED: Final = 'job="grafana"'
"""Only a Grafana that runs can answer these: tests/e2e asks it, and a run without one says `not checked`."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What Prometheus is asked, and where it stands."""

    where: str
    text: str
    is_instant: bool = False
    must_answer: bool = True


class Asker:
    """Asks Prometheus as Grafana's panels do."""

    def __init__(self, stack: LiveStack) -> None:
        self._url = stack.prometheus.url
        self._http = httpx2.Client(timeout=30, trust_env=False)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def complaint(self, asked: Asked) -> str:
        """Return what is wrong with the answer; nothing if there is a number in it."""
        now = time.time()
        parameters = {"query": asked.text, "time": f"{now:.3f}"}
        path = "query"
        if not asked.is_instant:
            path = "query_range"
            parameters |= {
                "start": f"{now - LOOK_BACK_SECONDS:.3f}",
                "end": f"{now:.3f}",
                "step": "1",
            }
        answer = self._http.get(f"{self._url}/api/v1/{path}", params=parameters).json()
        if answer["status"] != "success":
            return f"Prometheus refuses it: {answer['error']}"
        if not asked.must_answer:
            return ""
        numbers = [*_numbers(answer["data"])]
        if not numbers:
            return "no data"
        return "" if any(map(math.isfinite, numbers)) else "not a number among its numbers"

    def label_values(self, series: str, label: str) -> list[str]:
        """Return the values of a label in some series, as Grafana asks for them."""
        parameters = {"match[]": series} if series else {}
        answer = self._http.get(
            f"{self._url}/api/v1/label/{label}/values", params=parameters
        ).json()
        assert answer["status"] == "success", answer
        values: list[str] = answer["data"]
        return values

    def unanswered(self, questions: Iterable[Asked], seconds: float) -> Mapping[Asked, str]:
        """Ask again and again; return what has no answer in the end, each with the reason."""
        deadline = time.monotonic() + seconds
        waiting = dict.fromkeys(questions, "")
        while True:
            waiting = {one: why for one in waiting if (why := self.complaint(one))}
            if not waiting or time.monotonic() > deadline:
                return waiting
            time.sleep(1)


def _numbers(data: dict[str, Any]) -> Iterator[float]:
    if data["resultType"] == "scalar":
        yield float(data["result"][1])
        return
    for series in data["result"]:
        for _, value in series.get("values", ()) or [series["value"]]:
            yield float(value)


@dataclass(frozen=True, slots=True)
class House:
    """The stack, and who asks its Prometheus."""

    stack: LiveStack
    asker: Asker


@pytest.fixture
def house() -> Iterator[House]:
    """The whole house, with everything that customers do behind it, and with customers in it."""
    with (
        expositions.served() as recorded,
        LiveStack(settings=LIVELY | POOL, recorded=recorded) as stack,
        ExitStack() as rest,
    ):
        leave_backup_metrics(stack)
        take_the_tour(stack)
        rest.enter_context(customers(stack))
        # On a machine that is too busy for a scrape a second, nothing below would mean anything.
        stack.wait_for_query("min(avg_over_time(up[10s])) == 1")
        asker = Asker(stack)
        rest.callback(asker.close)
        yield House(stack, asker)


def filled_in(
    queries: Iterable[Query], asker: Asker
) -> tuple[list[tuple[Query, Asked]], list[str]]:
    """Return the PromQL with its variables filled in, and the variables that have no values."""
    found: list[tuple[Query, Asked]] = []
    empty: list[str] = []
    boards = {query.board.name: query.board for query in queries}
    fillings = {}
    for name, board in boards.items():
        times = Times(shown_seconds(board), SCRAPE_SECONDS)
        try:
            fillings[name] = filling(board, times, asker.label_values)
        except NoValues as error:
            empty.append(str(error))
    for query in queries:
        if (
            query.language == "promql"
            and query.place != "variable"
            and query.board.name in fillings
        ):
            text = fillings[query.board.name].fill(query.text)
            if NOT_RECORDED in text:
                continue
            # An annotation may mark nothing: then nothing happened.
            asked = Asked(str(query), text, query.is_instant, query.place == "panel")
            found.append((query, asked))
    return found, empty


def told(what: Mapping[Asked, str]) -> str:
    """Return all complaints, by dashboard and panel."""
    return "\n".join(
        f"- {asked.where}: {why}\n    {' '.join(asked.text.split())}"
        for asked, why in sorted(what.items(), key=lambda one: one[0].where)
    )


def test_every_query_has_an_answer(house: House, subtests: pytest.Subtests) -> None:
    stack, asker = house.stack, house.asker
    questions, empty = filled_in(dashboard_queries(), asker)

    with subtests.test("what has no answer is found out"):
        assert asker.complaint(Asked("", "nobody_counts_this")) == "no data"
        assert asker.complaint(Asked("", "vector(0) / 0")) == "not a number among its numbers"
        assert asker.complaint(Asked("", "rate(up")).startswith("Prometheus refuses it")

    with subtests.test("every variable has something to choose from"):
        assert not empty, "\n".join(empty)

    with subtests.test("every panel and annotation has an answer while all is well"):
        assert len(questions) > 100
        wanted = [asked for query, asked in questions if not query.quiet]
        if missing := asker.unanswered(wanted, PATIENCE_SECONDS):
            pytest.fail(f"{len(missing)} of {len(wanted)} queries:\n{told(missing)}", pytrace=False)

    with subtests.test("every record has data"):
        names = {rule["name"] for rule in stack.rules() if rule["type"] == "recording"}
        records = [Asked(f"record {name}", name) for name in names]
        if missing := asker.unanswered(records, PATIENCE_SECONDS):
            pytest.fail(told(missing), pytrace=False)

    with subtests.test("every selector of an alert means series that there are"):
        selected = {
            f"count(last_over_time({selector_text(one)}[5m]))": f"alert {name}"
            for name, one in alert_selectors()
            if one.metric not in BORN_LATER
            and not BORN_WITH_A_FAILURE.search(selector_text(one))
            and NOT_RECORDED not in selector_text(one)
        }
        asked = [Asked(where, text, is_instant=True) for text, where in selected.items()]
        if missing := asker.unanswered(asked, PATIENCE_SECONDS / 3):
            pytest.fail(told(missing), pytrace=False)

    with subtests.test("no rule fails"):
        assert stack.rule_errors() == []

    with subtests.test("panels that are quiet while all is well speak when something breaks"):
        quiet = [asked for query, asked in questions if query.quiet]
        missing = asker.unanswered(quiet, 0)
        for fault in (
            the_provider_fails,
            orders_fail,
            passwords_are_guessed,
            the_pool_is_exhausted,
        ):
            if missing:
                with stack.customers() as somebody, fault(stack, somebody):
                    missing = asker.unanswered(missing, FAULT_SECONDS)
        if missing:
            pytest.fail(told(missing), pytrace=False)


@contextmanager
def the_provider_fails(stack: LiveStack, somebody: object) -> Iterator[None]:
    """The provider answers every charge with 503."""
    del somebody
    stack.provider.behave(failure_rate=1)
    try:
        yield
    finally:
        stack.provider.behave()
