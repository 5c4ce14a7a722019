"""Both sides under the same seeds: what they are asked to run, what is refused, what a killed run leaves."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from evalsuite.core.errors import NotComparableError, OptionError
from evalsuite.execution.checkouts import Checkout
from evalsuite.execution.paired_seeds import Sides, require_one_suite, run_seeds

CATALOGUE = """from types import SimpleNamespace as Made
class Trajectory:
    cases = [Made(id=name) for name in {cases!r}]
SUITES = {{{name!r}: Made(protocol=Made(hash={protocol!r}), trajectories=lambda: [Trajectory])}}
"""

CLI = """import json, pathlib, sys
out = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
with (out / "asked.json").open("a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
"""

LAP = ["run", "--suite", "quality", "--steps", "200"]


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., Checkout]:
    """Makes a checkout of a small package that knows its suite and writes down what it is asked to run."""

    def made(
        side: str, cli: str = CLI, name: str = "quality", protocol: str = "p", cases: tuple[str, ...] = ("x/a",)
    ) -> Checkout:
        package = tmp_path / side / "evalsuite"
        (package / "scenes").mkdir(parents=True)
        for folder in (package, package / "scenes"):
            (folder / "__init__.py").touch()
        (package / "cli.py").write_text(cli)
        (package / "scenes/catalogue.py").write_text(CATALOGUE.format(name=name, protocol=protocol, cases=cases))
        return Checkout(side, tmp_path / side, Path(sys.executable), "commit")

    return made


def asked(sides: Sides, name: str) -> list[list[str]]:
    return [json.loads(line) for line in (sides.out(name) / "asked.json").read_text().splitlines()]


def test_both_sides_run_the_same_seeds_and_keep_what_they_have(make: Callable[..., Checkout], tmp_path: Path) -> None:
    sides = Sides(make("old"), make("new"), tmp_path / "kept")
    assert run_seeds(sides, range(2), ["b-inputs-n200", "b-capture-n200"], print) == ([], [])
    run_seeds(sides, [7], ["c-capture-n200", "b-inputs-n200"], print)
    first = [*LAP, "--arm", "b", "--seed", "0", "--seed", "1", "--workers", "1", "--resume", "--device", "cpu"]
    second = [*LAP, "--arm", "b", "--arm", "c", "--seed", "7", "--workers", "1", "--resume", "--device", "cpu"]
    for name in ("base", "head"):
        assert asked(sides, name) == [[*lap, "--out", str(tmp_path / "kept/quality" / name)] for lap in (first, second)]


def test_a_lap_that_fails_ends_both_with_its_last_line(make: Callable[..., Checkout], tmp_path: Path) -> None:
    failing = "import sys\nprint('0 of 2 cases')\nsys.exit('first line\\ncrashed: x/a: no such kernel')"
    slow = f"import pathlib, time\ntime.sleep(60)\npathlib.Path({str(tmp_path / 'ended')!r}).touch()"
    sides = Sides(make("old", slow), make("new", failing), tmp_path / "kept")
    with pytest.raises(OptionError, match=r"a lap of new failed \(1\): crashed: x/a: no such kernel") as caught:
        run_seeds(sides, range(3), ["b-inputs-n200"], print)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "ended").exists()


def test_a_lap_that_is_killed_is_no_result(make: Callable[..., Checkout], tmp_path: Path) -> None:
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with pytest.raises(OptionError, match=r"a lap of old failed \(-9\)"):
        run_seeds(Sides(make("old", killed), make("new"), tmp_path / "kept"), [0], ["b-inputs-n200"], print)


def test_one_suite_on_both_sides_is_no_error(make: Callable[..., Checkout]) -> None:
    require_one_suite(make("old"), make("new"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"name": "smoke"}, "new knows no suite 'quality', expected newer code on both sides"),
        ({"protocol": "q"}, "old follows protocol p in suite 'quality', new q, expected one"),
        ({"cases": ("x/a", "y/a")}, r"has 1 cases in old and 2 in new \(first on one side only: y/a\)"),
    ],
)
def test_another_suite_or_protocol_is_refused(make: Callable[..., Checkout], other: dict, message: str) -> None:
    with pytest.raises(NotComparableError, match=message) as caught:
        require_one_suite(make("old"), make("new", **other))
    assert "\n" not in str(caught.value)


def test_a_side_that_cannot_be_asked_is_named(make: Callable[..., Checkout]) -> None:
    broken = make("new")
    (broken.root / "evalsuite/scenes/catalogue.py").write_text("import nothing_of_this_name\n")
    with pytest.raises(OptionError, match=r"new does not tell its suites: .*No module named 'nothing_of_this_name'"):
        require_one_suite(make("old"), broken)
