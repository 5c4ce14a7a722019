"""Tables: order, counts, statuses in place of numbers, refusal to mix protocols."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from report_factories import FLOORS, STEPS_B, STEPS_C, expected_cases, record, scene_records, study
from rich.console import Console
from rich.table import Table

from evalsuite.core.cases import BUDGETS, Trajectory
from evalsuite.core.errors import NotComparableError, OptionError
from evalsuite.gates.timing import MIN_SHARE, timed_busy
from evalsuite.records.schema import Reading, Record
from evalsuite.report.tables import (
    BUSY,
    NOT_RUN,
    Setting,
    busy_line,
    case_rows,
    case_table,
    mean_over,
    means_tables,
    metrics_without_data,
    outcomes,
    parse_case,
    pools,
    show_whole,
    stratum_cells,
    stratum_table,
)

STRATA = {"s.one": "thin", "s.two": "thin", "s.three": "organic", "s.room": "unbounded"}


def shown(table: Table) -> str:
    console = Console(file=io.StringIO(), width=400)
    console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


@given(
    st.from_regex(r"[a-z][a-z0-9.-]{0,8}", fullmatch=True),
    st.sampled_from(["a", "b", "c", *FLOORS]),
    st.sampled_from([None, *BUDGETS]),
    st.integers(0, 30_000),
    st.integers(0, 9),
)
def test_a_case_id_is_parsed_back(scene: str, arm: str, budget: str | None, steps: int, seed: int) -> None:
    steps = steps if budget else 0
    case = Trajectory(scene, arm, budget, (steps,), seed).cases[0]  # type: ignore[arg-type]
    assert parse_case(case.id) == (scene, Setting(arm, budget, steps), seed)


@pytest.mark.parametrize("text", ["", "chair", "/b", "a/b/c", "chair/"])
def test_what_is_no_case_id_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match="is not a case id"):
        parse_case(text)


def test_rows_come_floors_first_then_by_arm_budget_and_n() -> None:
    rows = case_rows(reversed(scene_records("s.one")))
    order = [(row.setting.arm, row.setting.budget, row.setting.steps) for row in rows]
    ladder = [("b", budget, n) for budget in BUDGETS for n in STEPS_B]
    ladder += [("c", budget, n) for budget in BUDGETS for n in STEPS_C]
    assert order == [("mean-colour", None, 0), ("visual-hull", None, 0), ("a", None, 0), *ladder]


def test_failed_and_expected_cases_stay_as_rows_without_numbers() -> None:
    failed = record("s.one", "b", "capture", 50, None, status="oom", reason="24 GiB asked")
    rows = case_rows([record("s.one"), failed], ["s.one/c-capture-n50", "s.two/a", failed.case])
    assert [(row.case, row.status, row.stratum) for row in rows] == [
        ("s.one/a", "ok", "thin"),
        ("s.one/b-capture-n50", "oom", "thin"),
        ("s.one/c-capture-n50", NOT_RUN, "thin"),
        ("s.two/a", NOT_RUN, ""),
    ]
    assert all(row.psnr is None and row.seconds is None and row.gaussians is None for row in rows[1:])
    text = shown(case_table([record("s.one"), failed], ["s.two/a"]))
    assert "oom: 24 GiB asked" in text
    assert "not-run: no record of this case" in text


def test_text_of_a_record_is_no_markup_in_the_terminal() -> None:
    assert "[red]x[/]" in shown(case_table([record(psnr=None, status="crashed", reason="[red]x[/]")]))


def test_pools_keep_the_order_of_strata_and_leave_unbounded_out_of_objects() -> None:
    found = pools(study(STRATA))
    assert list(found) == ["thin", "organic", "objects", "unbounded"]
    assert found["objects"] == ("s.one", "s.three", "s.two")
    assert found["unbounded"] == ("s.room",)


def test_a_mean_counts_the_scenes_and_names_what_is_missing() -> None:
    mean = mean_over({"x": 20.0, "y": 30.0, "z": "oom"}, ["x", "y", "z", "w"])
    assert (mean.value, mean.scenes, mean.of) == (25.0, 2, 4)
    assert mean.text(2) == "25.00 (2 of 4 scenes; 1 not-run, 1 oom)"
    assert mean_over({"x": 20.0}, ["x"]).text(1) == "20.0"
    assert mean_over({"x": "oom"}, ["x"]).text(1) == "— (0 of 1 scenes; 1 oom)"


def test_seeds_are_averaged_and_one_failed_seed_takes_the_value_away() -> None:
    good = [record(psnr=20.0), record(psnr=24.0, seed=1)]
    assert outcomes(good, "psnr") == {Setting("a", None, 0): {"smoke.chair": 22.0}}
    bad = record(psnr=None, seed=2, status="timeout")
    assert outcomes([*good, bad], "psnr") == {Setting("a", None, 0): {"smoke.chair": "timeout"}}
    assert outcomes(good, "psnr", ["smoke.chair/a-s3"]) == {Setting("a", None, 0): {"smoke.chair": NOT_RUN}}


def test_a_metric_without_a_value_gives_its_own_status() -> None:
    lacking = record(metrics={"lpips": Reading(None, (), 1, "unsupported")})
    assert outcomes([lacking], "lpips")[Setting("a", None, 0)] == {"smoke.chair": "unsupported"}
    assert outcomes([lacking], "flip")[Setting("a", None, 0)] == {"smoke.chair": "missing-data"}
    assert outcomes([lacking], "gaussians")[Setting("a", None, 0)] == {"smoke.chair": 4096.0}


def test_a_metric_that_lacks_data_is_named_once_below_the_table() -> None:
    reason = "no vgg16.pth on this machine: run `evalsuite fetch lpips`"
    lacking = {"psnr": Reading(22.0, (22.0,), 1), "lpips-vgg": Reading(None, (), 1, "missing-data", reason)}
    records = [record("s.one", metrics=lacking), record("s.two", metrics=lacking), record("s.three")]
    line = f"lpips-vgg is missing-data in 2 of 3 cases: {reason}"
    assert metrics_without_data(records) == [line]
    assert metrics_without_data(records[2:]) == []
    assert shown(case_table(records)).count("missing-data") == 1
    assert line in shown(case_table(records))
    _, rows = stratum_cells(records[:2], "lpips-vgg")
    assert rows[0][3] == "— (0 of 2 scenes; 2 missing-data)"


def test_flip_and_lpips_stand_in_the_table() -> None:
    metrics = {"flip-67": Reading(0.0613, (0.0613,), 1), "lpips-vgg": Reading(0.1271, (0.1271,), 1)}
    text = shown(case_table([record(metrics=metrics)]))
    assert "0.0613" in text
    assert "0.1271" in text


def test_records_of_two_protocols_or_of_two_recipes_are_refused() -> None:
    with pytest.raises(NotComparableError, match="2 protocol hashes"):
        stratum_table([record(), record("s.two", protocol_hash="other")])
    # unbounded scenes have a protocol of their own in suite `paper`, and no table pools them with objects
    rooms = [record("s.room", stratum="unbounded", protocol_hash="other"), record("s.hall", stratum="unbounded")]
    assert len(case_rows([record(), rooms[0]])) == 2
    with pytest.raises(NotComparableError, match="2 protocol hashes"):
        case_rows(rooms)
    b, c = record("s.one", "b", "capture", 50), record("s.one", "c", "capture", 50, recipe_hash="other")
    with pytest.raises(NotComparableError, match="2 recipe hashes"):
        case_rows([b, c])
    assert len(case_rows([b, replace(c, budget="inputs", case="s.one/c-inputs-n50")])) == 2


def test_strata_means_by_hand() -> None:
    records = [r for r in study(STRATA) if r.case != "s.two/c-capture-n3000"]
    header, rows = stratum_cells(records)
    assert header[3:] == ["thin (2 scenes)", "organic (1 scene)", "objects (3 scenes)", "unbounded (1 scene)"]
    cells = {tuple(row[:3]): row[3:] for row in rows}
    assert cells["A feed-forward", "", ""] == ["22.45", "23.20", "22.70", "23.70"]
    assert cells["C scratch", "capture", "3,000"][0] == "31.60 (1 of 2 scenes; 1 not-run)"
    assert cells["C scratch", "capture", "3,000"][2] == "32.10 (2 of 3 scenes; 1 not-run)"


def test_the_terminal_holds_every_cell() -> None:
    records = study(STRATA)
    _, rows = stratum_cells(records)
    assert len(rows) == len(expected_cases("s"))
    text = shown(stratum_table(records))
    assert all(cell in text for row in rows for cell in row)


@pytest.mark.parametrize("width", [20, 120, 400])
def test_no_cell_is_cut_however_long_the_ids_and_narrow_the_console(width: int) -> None:
    long = "s." + "long-name-" * 12
    records = [replace(found, gaussians=123_456_789) for found in scene_records(long)]
    failed = record("s.two", "b", "capture", 50, None, status="oom", reason="24 GiB asked " * 20)
    console = Console(file=io.StringIO(), width=width)
    show_whole(console, case_table([*records, failed]), stratum_table(records), *means_tables(records))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert long in text
    assert text.count("123,456,789") == 2 * len(records)
    assert console.width == width


def busy(found: Record) -> Record:
    return replace(found, anchor_share=MIN_SHARE / 2)


def test_seconds_of_a_busy_machine_are_marked_wherever_they_are_shown() -> None:
    records = study(STRATA)
    slow = [busy(found) if found.scene == "s.two" and found.arm == "a" else found for found in records]
    assert BUSY not in shown(case_table(records)) + "".join(shown(table) for table in means_tables(records))
    lines = [line for line in shown(case_table(slow)).splitlines() if BUSY in line]
    assert len(lines) == 2, "the case, and what the mark means"
    assert "s.two" in lines[0]
    assert f"{BUSY}1.0" in lines[0]
    assert f"in 1 of {len(records)} cases" in lines[1]
    objects, rooms = ([line for line in shown(t).splitlines() if BUSY in line] for t in means_tables(slow))
    assert [line.split()[0] for line in objects] == ["A"], "the mean has it in it"
    assert not rooms
    _, rows = stratum_cells(slow, "seconds", 1)
    assert [cell for row in rows for cell in row if BUSY in cell] == [f"{BUSY}1.0", f"{BUSY}1.0"], "thin, and objects"
    assert not any(BUSY in cell for row in stratum_cells(slow)[1] for cell in row)


def test_a_share_at_the_bound_is_not_busy_and_none_is_unknown() -> None:
    assert not timed_busy(replace(record(), anchor_share=MIN_SHARE))
    assert not timed_busy(record())
    assert timed_busy(busy(record()))
    assert busy_line([record()]) == []


def test_means_show_what_was_measured_per_pool() -> None:
    chamfer, lpips = "chamfer.100k-s0", Reading(None, (), 1, "missing-data")
    records = [
        record(
            scene,
            "a",
            psnr=20.0 + i,
            stratum=stratum,
            metrics={
                "psnr": Reading(20.0 + i, (20.0 + i,), 1),
                chamfer: Reading(0.01 * (i + 1), (), 1),
                "lpips-vgg": lpips,
            },
        )
        for i, (scene, stratum) in enumerate([("s.one", "thin"), ("s.two", "blocky"), ("r.room", "unbounded")])
    ]
    objects, rooms = (shown(table) for table in means_tables(records))
    assert "Means over objects (2 scenes)" in objects
    assert "20.50" in objects
    assert "0.0150" in objects
    assert "LPIPS" not in objects
    assert "Means over unbounded (1 scene)" in rooms
    assert "22.00" in rooms
    assert means_tables([]) == []
