"""The small files that git and DVC compare: a row per case, a curve, the same bytes for the same records."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from report_factories import expected_cases, record, scene_records, study
from ruamel.yaml import YAML

from evalsuite.report.numbers import COLUMNS, write_numbers

ROOT = Path(__file__).parents[2]
STRATA = {"s.one": "thin", "s.two": "organic", "s.room": "unbounded"}
DVC = Path(sys.executable).parent / "dvc"


def metrics(folder: Path, pool: str = "objects") -> dict[str, dict[str, float]]:
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / "metrics" / pool).iterdir())}


def curve(folder: Path) -> list[dict[str, str]]:
    with (folder / "pareto.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_means_by_hand(tmp_path: Path) -> None:
    write_numbers(study(STRATA), tmp_path)
    assert {path.name for path in (tmp_path / "metrics").iterdir()} == {"objects", "unbounded"}
    found = metrics(tmp_path)
    assert {"a", "mean-colour", "b-capture-n0", "b-inputs-n1000", "c-capture-n3000"} <= set(found)
    assert len(found) == 2 + 1 + 4 * 4
    # 24.6 dB and half a decibel more in the second scene; 0.05 s a step after 1 s of forward pass
    assert found["b-capture-n50"] == {"gaussians": 4146, "psnr": 24.85, "scenes": 2, "seconds": 3.5, "ssim": 0.62125}
    assert metrics(tmp_path, "unbounded")["b-capture-n50"]["psnr"] == 25.6


def test_a_scene_without_a_value_lowers_the_count_and_is_no_zero(tmp_path: Path) -> None:
    records = [r for r in study(STRATA) if r.case != "s.two/b-capture-n50"]
    failed = next(r for r in records if r.case == "s.one/c-capture-n50")
    records[records.index(failed)] = replace(failed, status="oom", metrics={})
    write_numbers(records, tmp_path, expected_cases("s.one") + expected_cases("s.two"))
    found = metrics(tmp_path)
    assert (found["b-capture-n50"]["scenes"], found["b-capture-n50"]["psnr"]) == (1, 24.6)
    assert (found["c-capture-n50"]["scenes"], found["c-capture-n50"]["psnr"]) == (1, 21.8)
    write_numbers([replace(record(), status="oom", metrics={}), record("s.two", psnr=None)], tmp_path)
    assert "psnr" not in metrics(tmp_path)["a"]


def test_the_curve_marks_the_front(tmp_path: Path) -> None:
    write_numbers(study(STRATA), tmp_path)
    rows = curve(tmp_path)
    assert tuple(rows[0]) == COLUMNS
    capture = [row for row in rows if (row["pool"], row["budget"]) == ("objects", "capture")]
    assert len(capture) == 2 + 1 + 4 + 4
    front = [(row["arm"], row["n"]) for row in capture if row["front"] == "yes"]
    assert front == [("A feed-forward", "0"), *(("B warm start", n) for n in ("0", "50", "200", "1000"))]
    assert all(float(row["seconds"]) > 0 for row in rows), "the time axis is logarithmic"


def test_the_same_records_give_the_same_bytes_and_nothing_stays(tmp_path: Path) -> None:
    write_numbers(study(STRATA), tmp_path / "one")
    write_numbers(study(STRATA)[::-1], tmp_path / "two")
    for path in sorted(p for p in (tmp_path / "one").rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
    write_numbers(scene_records("s.one")[:3], tmp_path / "one")
    assert set(metrics(tmp_path / "one")) == {"a", "mean-colour", "visual-hull"}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A committed DVC project whose metrics and plots are declared as in the real `dvc.yaml`."""
    monkeypatch.chdir(tmp_path)
    declared = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["report"]
    stage = {"cmd": "report", "metrics": declared["metrics"], "plots": declared["plots"]}
    YAML().dump({"stages": {"report": stage}}, Path("dvc.yaml"))
    Path("params.yaml").write_text("suite: smoke\n")
    write_numbers(study(STRATA), Path("results/smoke"))
    Path(".dvc").mkdir()
    for name in ("config", "plots/pareto.json"):
        (tmp_path / ".dvc" / name).parent.mkdir(exist_ok=True)
        (tmp_path / ".dvc" / name).write_bytes((ROOT / ".dvc" / name).read_bytes())
    run("git", "init", "--quiet")
    run("git", "add", ".")
    run("git", "-c", "user.name=x", "-c", "user.email=x@y", "commit", "--quiet", "--message", "before")
    return tmp_path


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dvc_shows_the_numbers_and_what_moved(project: Path) -> None:
    shown = run(DVC, "metrics", "show")
    name = "results/smoke/metrics/objects/b-capture-n50.json"
    row = next(line for line in shown.splitlines() if line.startswith(name))
    assert row.split()[1:] == ["4146.0", "24.85", "2", "3.5", "0.62125"]
    write_numbers(study({**STRATA, "s.two": "unbounded"}), Path("results/smoke"))
    moved = [" ".join(line.split()) for line in run(DVC, "metrics", "diff").splitlines()]
    assert f"{name} psnr 24.85 24.6 -0.25" in moved


def test_dvc_draws_the_curve(project: Path) -> None:
    plot = json.loads(run(DVC, "plots", "show", "--show-vega", "results/smoke/pareto.csv"))
    assert "<DVC_METRIC" not in json.dumps(plot)
    assert plot["spec"]["encoding"]["x"]["field"] == "seconds"
    assert plot["spec"]["encoding"]["y"] | {"scale": None} == {
        "field": "psnr", "type": "quantitative", "title": "held-out PSNR, dB", "scale": None
    }  # fmt: skip
    assert len(plot["data"]["values"]) == len(curve(Path("results/smoke")))
