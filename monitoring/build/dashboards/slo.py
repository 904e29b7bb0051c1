"""Is what was promised kept, how fast is what may go wrong used up, and which alert is next?

Everything is read from the records that `monitoring/slo/objectives.yml` becomes: one line an objective.
"""

from typing import Final

from app.observability.service_levels.objectives import BURN_WINDOWS, BurnWindow
from monitoring.build.grafana.board import Board, Section
from monitoring.build.grafana.colours import (
    CRITICAL,
    GOOD,
    LIMIT,
    NOTICE,
    WARNING,
    Steps,
    above,
    below,
)
from monitoring.build.grafana.figures import figure
from monitoring.build.grafana.graphs import graph, states
from monitoring.build.grafana.links import explore_logs, explore_traces, from_row
from monitoring.build.grafana.panel import DOWN_OR_UP, Panel
from monitoring.build.grafana.queries import lines, over_time, rows
from monitoring.build.grafana.selectors import NOTEWORTHY, OUR_LOGS
from monitoring.build.grafana.shared import DEPENDENCIES
from monitoring.build.grafana.tables import Column, grid, log_lines
from monitoring.build.grafana.variables import environment, label_values

CHOSEN: Final = 'sloth_service=~"$service",sloth_slo=~"$slo"'
ONE: Final = "sloth_service, sloth_slo"
BUDGET_ALERTS: Final = f'ALERTS{{alertname=~"ErrorBudget.+",alertstate="firing",{CHOSEN}}}'
LOGS: Final = f"{OUR_LOGS} | {NOTEWORTHY}"
BURN: Final[Steps] = [(None, GOOD), (1, NOTICE), (6, WARNING), (14.4, CRITICAL)]


def _of(record: str) -> str:
    """Return a record of the chosen objectives, with the labels that make one."""
    return f"max by ({ONE}) ({record}{{{CHOSEN}}})"


def _burn(window: str) -> str:
    """Return how many times too fast the budget burnt in a window."""
    return f"{_of(f'slo:sli_error:ratio_rate{window}')} / ({_of('slo:error_budget:ratio')} > 0)"


def _nearness(window: BurnWindow) -> str:
    """Return which share of its threshold an alert has reached: both of its windows have to."""
    long, short = _burn(window.long), _burn(window.short)
    return f"(({long}) < ({short}) or ({short})) / {window.factor}"


def _burn_graph(window: BurnWindow) -> Panel:
    is_page = window.severity == "page"
    alert = "ErrorBudgetBurnPage" if is_page else "ErrorBudgetBurnTicket"
    return graph(
        f"Burn over {window.long}",
        over_time(_burn(window.long), "{{sloth_slo}}"),
        shows=f"How many times too fast each error budget burnt over the {window.long} before.",
        normal="Below 1: so fast it may burn, and lasts for 30 days.",
        act=(
            f"Above {window.factor}, and over the last {window.short} as well, {alert} fires: "
            f"{'now, a person is called' if is_page else 'somebody looks at it in working hours'}."
        ),
        unit="suffix:x",
        decimals=1,
        width=12,
        height=7,
        # Beyond, it is all the same; a budget that has just begun burns hundreds of times too fast.
        maximum=float(window.factor) * 2,
        limit=((float(window.factor), CRITICAL if is_page else WARNING),),
    )


_HEALTH: Final = Section(
    "Is it healthy? What was promised, and what is left of what may go wrong",
    (
        figure(
            "Promises broken",
            over_time(
                f"sum(slo:period_error_budget_remaining:ratio{{{CHOSEN}}} <= bool 0)", "broken"
            ),
            shows="Objectives whose error budget of 30 days is spent.",
            normal="None of them.",
            act=(
                "ErrorBudgetExhausted fires: what burns it is fixed before anything new is "
                "deployed."
            ),
            unit="short",
            steps=above(critical=1),
        ),
        figure(
            "Least budget left",
            over_time(f"min(slo:period_error_budget_remaining:ratio{{{CHOSEN}}})", "left"),
            shows="Error budget of 30 days that is left to the objective that has least of it.",
            normal="Above 20 %; a new stack has few events, and one failure weighs much.",
            act="The table says which objective it is, the graphs below since when.",
            unit="percentunit",
            decimals=0,
            steps=below(warning=0.2, critical=0),
        ),
        figure(
            "Fastest burn, 5 min",
            over_time(f"max(slo:current_burn_rate:ratio{{{CHOSEN}}})", "burn"),
            shows="How many times too fast the fastest budget burnt in the last five minutes.",
            normal="Below 1; a single failure is a peak that is gone after five minutes.",
            act="It stays: look at the longer windows, below, and at what fires.",
            unit="suffix:x",
            decimals=1,
            steps=BURN,
        ),
        figure(
            "Fastest burn, 1 h",
            over_time(f"max({_burn('1h')})", "burn"),
            shows="How many times too fast the fastest budget burnt in the last hour.",
            normal="Below 1.",
            act=(
                "Above 14.4, two percent of the 30 days' budget are gone in this hour: somebody is "
                "called."
            ),
            unit="suffix:x",
            decimals=1,
            steps=BURN,
        ),
        figure(
            "Budget alerts",
            over_time(
                f"count({BUDGET_ALERTS}) or on () (0 * max(slo:objective:ratio{{{CHOSEN}}}))",
                "fire",
            ),
            shows="Alerts about error budgets that fire now.",
            normal="None of them.",
            act=(
                "The table of what is near says which windows burn; the alert's runbook what to do."
            ),
            unit="short",
            steps=above(warning=1),
        ),
        figure(
            "No events, 1 h",
            over_time(
                f"count({_of('sloth_slo_info')} unless on ({ONE}) {_of('slo:events:increase1h')} > 0)"
                f" or on () (0 * max(sloth_slo_info{{{CHOSEN}}}))",
                "silent",
            ),
            shows="Objectives about which nothing was seen for an hour: neither good nor bad.",
            normal="None of them while there are customers.",
            act="Silence is no success: is its target up, and are there customers? See Overview.",
            unit="short",
            steps=above(warning=1),
        ),
        grid(
            "Objectives",
            rows(_of("slo:objective:ratio")),
            rows(f"1 - {_of('slo:sli_error:ratio_rate30d')}"),
            rows(_of("slo:period_error_budget_remaining:ratio")),
            rows(_burn("5m")),
            rows(_burn("1h")),
            rows(_burn("6h")),
            rows(_burn("3d")),
            rows(_of("slo:bad_events:increase30d")),
            rows(_of("slo:events:increase30d")),
            shows=(
                "What is promised, what was kept in 30 days, what is left, and how fast it burns."
            ),
            normal="Budget left above 20 %, burns below 1.",
            act=(
                "Click an objective to see it alone. Burn of 1 h says what is going on, 3 d what "
                "wears on."
            ),
            labels={"sloth_service": "Service", "sloth_slo": "Objective"},
            columns=[
                Column("Promised", "percentunit", decimals=1),
                Column("Good in 30 d", "percentunit", decimals=3, width=115),
                Column(
                    "Budget left",
                    "percentunit",
                    below(warning=0.2, critical=0),
                    decimals=1,
                    width=110,
                ),
                Column("Burn 5 min", "suffix:x", above(warning=6, critical=14.4), decimals=1),
                Column("Burn 1 h", "suffix:x", above(warning=6, critical=14.4), decimals=1),
                Column("Burn 6 h", "suffix:x", above(warning=1, critical=6), decimals=1),
                Column("Burn 3 d", "suffix:x", above(warning=1), decimals=1),
                Column("Bad in 30 d", "locale", decimals=0, width=110),
                Column("Events in 30 d", "locale", decimals=0, width=130),
            ],
            sorted_by="Budget left",
            ascending=True,
            width=24,
            height=11,
            links=[
                from_row("slo", "Only this objective", {"service": "Service", "slo": "Objective"})
            ],
        ),
    ),
)

_CHANGED: Final = Section(
    "What changed? How fast budgets burn, and which alert is next",
    (
        *(_burn_graph(window) for window in BURN_WINDOWS),
        grid(
            "How near each alert is",
            *(rows(_nearness(window)) for window in BURN_WINDOWS),
            shows=(
                "Share of each alert's threshold that is reached, in both of its windows: 100 % "
                "fires."
            ),
            normal="Far below 100 %.",
            act=(
                "At 100 % it fires after 2 minutes, if there were also enough bad events: 5, or 3 of the "
                "synthetic journey. Page calls somebody, ticket waits for the morning."
            ),
            labels={"sloth_service": "Service", "sloth_slo": "Objective"},
            columns=[
                Column(
                    f"{window.severity.capitalize()} {window.long}",
                    "percentunit",
                    above(warning=0.5, critical=1),
                    decimals=0,
                    width=80,
                )
                for window in BURN_WINDOWS
            ],
            sorted_by="Page 1h",
            width=12,
            height=11,
        ),
        states(
            "Which alerts fired",
            over_time(
                f"clamp_max(count by ({ONE}) ({BUDGET_ALERTS}) or"
                f" 0 * {_of('slo:objective:ratio')}, 1)",
                "{{sloth_slo}}",
            ),
            shows=(
                "When an alert about the budget of each objective fired: page, ticket or exhausted."
            ),
            normal="Green throughout.",
            act="Compare with deployments (dashed lines elsewhere), and with dependencies, below.",
            texts={"0": ("quiet", GOOD), "1": ("fires", CRITICAL)},
            width=12,
            height=11,
        ),
        graph(
            "Budget left",
            over_time(_of("slo:period_error_budget_remaining:ratio"), "{{sloth_slo}}"),
            shows=(
                "How much of the 30 days' error budget is left, over time. Below 0 it is overspent."
            ),
            normal="Flat, or rising as bad times pass out of the 30 days.",
            act=(
                "A step down was an outage; a slope is wear. Zoom in on its begin: what was "
                "deployed?"
            ),
            unit="percentunit",
            minimum=-1,  # a new stack is soon far below it, and would hide all others
            maximum=1,
            width=12,
            limit=((0, LIMIT),),
        ),
        graph(
            "Good events over 30 days",
            over_time(f"1 - {_of('slo:sli_error:ratio_rate30d')}", "{{sloth_slo}}"),
            shows=(
                "Share of the events of the last 30 days that were good, each event counting the "
                "same."
            ),
            normal="Above what the table says is promised: 99.9 %, 99.5 %, 99 % or 95 %.",
            act="Below it the budget is gone: ErrorBudgetExhausted.",
            unit="percentunit",
            minimum=None,
            maximum=1,
            decimals=2,
            width=12,
        ),
    ),
)

_WHY: Final = Section(
    "Why? What was bad, and what we stand on",
    (
        graph(
            "Bad events in 5 minutes",
            over_time(_of("slo:bad_events:increase5m"), "{{sloth_slo}}"),
            shows="How many events of each objective were bad in the five minutes before.",
            normal="0, but for a slow request now and then.",
            act="Zoom in on the first ones, then open the logs and traces of that minute.",
            unit="short",
            decimals=0,
        ),
        graph(
            "Events in 5 minutes",
            over_time(_of("slo:events:increase5m"), "{{sloth_slo}}"),
            shows="How many events of each objective there were: what a bad one weighs.",
            normal=(
                "As many as customers make; moments of probes and jobs are as many as the scrapes."
            ),
            act="Few events: one failure is a large share, and alerts wait for five of them.",
            unit="short",
            decimals=0,
        ),
        states(
            "Dependencies",
            over_time(DEPENDENCIES, "{{dependency}}"),
            shows="Whether all processes that need a dependency reach it.",
            normal="Green throughout.",
            act=(
                "Red explains burns of the same time. For 35 minutes after an outage, "
                "DependencyRecentlyDown holds back alerts about what still burns of it."
            ),
            texts=DOWN_OR_UP,
            height=8,
        ),
        log_lines(
            "Warnings and errors",
            lines(LOGS),
            shows="What services of ours say at WARNING and above.",
            normal="Little; refused log-ins burn no budget.",
            act="Read those of the time of the bad events; `trace_id` leads to the trace.",
        ),
    ),
)

BOARD: Final = Board(
    name="slo",
    title="SLO",
    asks="Is what was promised kept, and for how long will it last?",
    reading=(
        "The table says what is promised and what is left; burn rates how fast it goes (1 lasts for 30 "
        "days, the lines are where alerts are); the last row what was bad, and what was down meanwhile."
    ),
    sections=(_HEALTH, _CHANGED, _WHY),
    variables=(
        environment(),
        label_values(
            "service",
            "Service",
            "sloth_slo_info",
            of="sloth_service",
            description="Whose promises.",
        ),
        label_values(
            "slo",
            "Objective",
            'sloth_slo_info{sloth_service=~"$service"}',
            of="sloth_slo",
            description="One promise.",
        ),
    ),
    neighbours=(
        ("overview", "Overview"),
        ("api", "API"),
        ("business", "Business"),
        ("worker", "Worker"),
    ),
    explore=(explore_logs(LOGS), explore_traces("glasshouse")),
    time_from="now-6h",
)
