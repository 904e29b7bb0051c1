"""What a request costs is what the table says: nothing is timed, so there is no noise to hide in."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.cost.applications import DEFECTS
from tests.cost.measure import measure, probe
from tests.cost.table import AGAIN, RATIOS, Table, differences, explain, load, tabulate


def test_a_request_costs_what_the_table_says() -> None:
    bare, services = measure()
    found = tabulate(bare, services)
    expected = load()
    differing = differences(expected, found, bare, services)
    if differing:
        pytest.fail(explain(expected, differing), pytrace=False)
    assert found.keys() == expected.keys()


def test_each_way_to_cost_more_is_noticed_and_named() -> None:
    expected = load()
    noticed: dict[str, set[str]] = {}
    said: dict[str, str] = {}
    with ThreadPoolExecutor(2) as pool:
        running = {
            name: pool.submit(probe, "service", _ratio(name), "--only", "ping", "--defect", name)
            for name in DEFECTS
        }
        bare = pool.submit(probe, "bare", 0.0, "--only", "ping").result()
        for name, one in running.items():
            services = {_ratio(name): one.result()}
            differing = differences(expected, tabulate(bare, services), bare, services)
            noticed[name] = {difference.kind for difference in differing}
            said[name] = explain(expected, differing)
    # The calls of each of them are counted, those of the wrapper around the handler included.
    assert noticed == {
        "layer": {"calls"},
        "span": {"calls", "spans"},
        "line": {"calls", "lines"},
        "label": {"calls", "series", "memory"},
        "leak": {"calls", "memory"},
        "thread": {"calls", "at rest"},
    }
    assert "tests.cost.applications:_Layer.__call__" in said["layer"]
    assert "spans: expected {'SERVER': 1}, counted {'INTERNAL': 1, 'SERVER': 1}" in said["span"]
    assert "series: expected {}, counted {'one_more': 1}" in said["label"]
    assert "memory: expected 0, counted" in said["leak"]
    assert "one-more" in said["thread"]
    assert all(AGAIN in text for text in said.values())


def _ratio(defect: str) -> float:
    return 1.0 if defect == "span" else 0.0


# What no new table may say, whoever makes it ----------------------------------------------------------


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("name", ["live", "metrics"])
def test_probes_leave_nothing_behind(name: str, ratio: float) -> None:
    expected = load()
    section = expected[f"{name} at {ratio}"]
    assert all(section[what] == {} for what in ("spans", "lines", "statements", "series"))
    assert expected["at rest"]["spans_of_no_request"] == {}


@pytest.mark.parametrize("ratio", RATIOS)
def test_nothing_grows_with_requests_or_routes(ratio: float) -> None:
    expected = load()
    requests = [values for name, values in expected.items() if name.endswith(f" at {ratio}")]
    assert requests
    assert all(values["series"] == {} for values in requests)
    assert [values["memory"] for values in requests if "memory" in values] == [0, 0]
    assert expected["a new route"]["further"] == {}
    assert set(expected["more routes"].values()) == {0}


@pytest.mark.parametrize(("added", "is_too_much"), [(110, False), (120, True)])
def test_another_version_of_python_may_call_a_little_more(added: int, is_too_much: bool) -> None:
    def section(added: int) -> Table:
        return {"added_calls": added, "added": {"app.main": added}}

    expected = {"made with": {"python": "3.11"}, "ping at 0.0": section(100)}
    found = {"made with": {"python": "3.99"}, "ping at 0.0": section(added)}
    bare: Table = {"calls": {"ping": {}}}
    services: dict[float, Table] = {0.0: {"calls": {"ping": {"app.main:f": added}}}}
    assert bool(differences(expected, found, bare, services)) is is_too_much
    found["made with"] = expected["made with"]
    assert differences(expected, found, bare, services)
