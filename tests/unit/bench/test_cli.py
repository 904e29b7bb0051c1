"""The command line: arguments, exit codes, and what is said when it does not work."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from bench import cli
from bench.agenda import Agenda
from bench.groups import GROUPS, Group, arguments
from bench.process import NotMeasurable
from bench.progress import Progress
from bench.results import Results
from tests.unit.bench.measured import PING, measured, results


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, arguments)


@pytest.fixture
def measures(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Lets the comparison have these results, and then end as it is told."""

    def set_up(told: Results | None, end: BaseException | None = None) -> None:
        def compare(
            agenda: Agenda, url: str | None, progress: Progress, keep: Callable[[Results], None]
        ) -> None:
            if told is not None:
                keep(told)
            if end is not None:
                raise end

        monkeypatch.setattr(cli, "compare", compare)

    return set_up


def test_a_run_prints_its_report_and_writes_its_numbers(
    measures: Callable[..., None], tmp_path: Path
) -> None:
    measures(results())

    done = run("--quick", "--json", str(tmp_path / "told.json"))

    assert done.exit_code == 0
    assert "ping: a handler that does nothing" in done.stdout
    assert "ping" in json.loads((tmp_path / "told.json").read_text())


def test_what_is_no_number_is_null_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / "told.json"
    cli._write(file, {"slope": (1.5, float("nan")), "rates": [{"p99": float("inf"), "of": "ping"}]})

    told = json.loads(file.read_text(), parse_constant=pytest.fail)
    assert told == {"slope": [1.5, None], "rates": [{"p99": None, "of": "ping"}]}


@pytest.mark.parametrize(
    ("told", "options", "code"),
    [
        (results(), ["--check"], 0),  # a stretch target is missed
        (results(measured=measured(PING | {"typical": 150.0})), [], 0),
        (results(measured=measured(PING | {"typical": 150.0})), ["--check"], 4),
        (results(others_after=0.5), ["--check"], 3),
        (results(complaints=["bare has logged"], others_after=0.5), [], 1),
    ],
)
def test_the_exit_code_tells_what_came_of_it(
    measures: Callable[..., None], told: Results, options: list[str], code: int
) -> None:
    measures(told)

    assert run(*options).exit_code == code


def test_ctrl_c_prints_what_was_measured_so_far(measures: Callable[..., None]) -> None:
    measures(results(complete=False, measured=measured(read={})), KeyboardInterrupt())

    done = run()

    assert done.exit_code == 130
    assert "ping: a handler that does nothing" in done.stdout
    assert "ended before it was complete" in done.stdout
    assert "interrupted" in done.stderr


def test_ctrl_c_before_anything_was_measured_says_so(measures: Callable[..., None]) -> None:
    measures(results(complete=False, measured={}), KeyboardInterrupt())

    done = run()

    assert done.exit_code == 130
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == "nothing was measured"


def test_what_cannot_be_measured_is_one_sentence(measures: Callable[..., None]) -> None:
    measures(None, NotMeasurable("typical did not start: exit 1"))

    done = run()

    assert done.exit_code == 1
    assert done.stderr.splitlines() == [
        "error: typical did not start: exit 1",
        "nothing was measured",
    ]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--variants", "none"], "there is no variant 'none'"),
        (["--operations", "none"], "there is no operation 'none'"),
        (["--rounds", "0"], "at least one round"),
        (["--json", "/nowhere/told.json"], "cannot write /nowhere/told.json: No such file"),
        (
            ["redaction", "--set", "colour=1"],
            "there is no option 'colour'; there are lines, rounds",
        ),
        (["redaction", "--set", "lines=many"], "lines must be a number, not 'many'"),
        (["redaction", "--set", "lines=0"], "lines must be more than nothing, not 0"),
        (["soak", "--set", "rate=nan"], "rate must be more than nothing, not nan"),
        (["soak", "--set", "minutes=inf"], "minutes must be more than nothing, not inf"),
        (["nothing"], "No such command 'nothing'"),
    ],
)
def test_a_wrong_argument_is_refused_before_anything_starts(options: list[str], said: str) -> None:
    done = run(*options)

    assert done.exit_code == 2
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_a_group_measures_shows_and_writes(tmp_path: Path) -> None:
    file = tmp_path / "told.json"

    done = run("redaction", "--set", "lines=2", "--set", "rounds=1", "--json", str(file))

    assert done.exit_code == 0
    assert done.stdout.startswith("microseconds a line")
    assert json.loads(file.read_text())["redaction"]["access line"]["whole_us"] > 0


@pytest.mark.parametrize("name", GROUPS)
def test_every_group_has_what_the_command_line_calls(name: str) -> None:
    module = GROUPS[name].module

    assert arguments(module, []) == {}
    assert callable(module.show)
    assert callable(module.as_json)


def test_a_group_whose_module_is_not_there_is_one_sentence() -> None:
    with pytest.raises(NotMeasurable, match=r"there is no bench\.nothing"):
        _ = Group("nothing", "Nothing.").module


def test_an_option_of_a_group_is_a_number_of_the_kind_that_it_has() -> None:
    async def measure(
        stage: object, *, minutes: float = 1.0, rounds: int = 3, sizes: tuple[int, ...] = (1, 2)
    ) -> None:
        pass

    module = SimpleNamespace(measure=measure)
    given = arguments(module, ["minutes=2", "rounds=4", "sizes=5,6,7"])  # type: ignore[arg-type]

    assert given == {"minutes": 2.0, "rounds": 4, "sizes": (5, 6, 7)}
    assert [type(one) for one in given.values()] == [float, int, tuple]
