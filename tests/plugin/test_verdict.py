"""The session's verdict: of everything, whichever tests were picked; of a part, none."""

from __future__ import annotations

import importlib
import shutil
from dataclasses import replace

import pytest
from tiny_study import TINY, Changes, golden_store, record_of, run

from evalsuite.core.machine import device_class
from evalsuite.core.suites import Suite
from evalsuite.execution.probes import PROBE_CASES
from evalsuite.gates.timing import MIN_SHARE, golden_of, timing_path, write_timing
from evalsuite.metrics.spec import ENGINE
from evalsuite.plugin.verdict import NO_VERDICT
from evalsuite.records.schema import Record
from evalsuite.scenes.catalogue import SCENES, SUITES

PASSED, FAILED, USAGE = pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.USAGE_ERROR
PROBES = len(PROBE_CASES)
WHOLE = sum(len(t.cases) for t in TINY.trajectories()) + len(PROBE_CASES)
CASE = "smoke.chair/b-capture-n200"
PARTIAL = "partial: {} of " + f"{WHOLE} cases, claims not judged: no verdict"
ELSEWHERE = [
    ("--benchmark-only",),
    ("-k", "test_case"),
    ("-k", "complete"),
    ("--deselect", "test_ablation.py::test_claim"),
]


def summary(project: pytest.Pytester) -> str:
    return (project.path / "out/summary.md").read_text()


def last_lines(result: pytest.RunResult, count: int) -> list[str]:
    """Lines of the verdict: what stands before pytest's closing line."""
    return [line for line in result.outlines if line][-count - 1 : -1]


def impossible(project: pytest.Pytester) -> None:
    """No order of arms is ahead by 50 dB."""
    claims = project.path / "claims.toml"
    text = claims.read_text()
    assert "margin = 0.1\n" in text
    claims.write_text(text.replace("margin = 0.1\n", "margin = -50.0\n", 1))


# --- judged by the session, whichever tests were picked


@pytest.mark.parametrize("picked", ELSEWHERE, ids=" ".join)
def test_a_required_claim_is_judged_without_its_test(tiny: pytest.Pytester, picked: tuple[str, ...]) -> None:
    impossible(tiny)
    result = run(tiny, *picked)
    assert result.parseoutcomes().get("failed") is None
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["evalsuite: claim scratch-over-warmstart-over-feedforward-capture does not hold"])
    assert "fails" in summary(tiny).splitlines()[0]


def test_a_claim_that_cannot_be_judged_blocks(tiny: pytest.Pytester, changes: Changes) -> None:
    changes.by_case["smoke.wheel/a"] = lambda r: replace(r, protocol_hash="ba9876543210")
    result = run(tiny, "-k", "test_case")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["*inconclusive*not judged: records of protocols*", "*1 of * cases block"])


def test_a_broken_list_of_claims_is_a_usage_error(tiny: pytest.Pytester) -> None:
    (tiny.path / "claims.toml").write_text("claim = 1\n")
    result = run(tiny, "-k", "test_case")
    assert result.ret in (USAGE, pytest.ExitCode.INTERRUPTED)
    assert "does not list claims" in result.stdout.str() + result.stderr.str()
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


@pytest.mark.parametrize("picked", [("-k", "test_case"), ("-k", "test_warmstart"), ()], ids=" ".join)
def test_the_warm_start_is_a_by_law(tiny: pytest.Pytester, changes: Changes, picked: tuple[str, ...]) -> None:
    changes.psnr("smoke.chair/b-inputs-n0", -1e-9)  # far within the tolerance
    result = run(tiny, *picked)
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(
        ["evalsuite: 1 warm starts do not begin at A (first: smoke.chair/b-inputs-n0 is not *psnr*"]
    )
    assert ("claims not judged: fails" in result.stdout.str()) is (picked == ("-k", "test_warmstart"))


def test_a_mean_is_judged_without_its_test(tiny: pytest.Pytester, changes: Changes) -> None:
    for scene in TINY.scenes:
        changes.psnr(f"{scene}/a", -0.019)  # within the tolerance of a case
        for budget in ("capture", "inputs"):
            changes.psnr(f"{scene}/b-{budget}-n0", -0.019)
    result = run(tiny, "-k", "test_case")
    assert result.parseoutcomes().get("failed") is None
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(["evalsuite: * means over scenes are worse (first: a: psnr *"])


def timed(record: Record, by: float = 1.0) -> Record:
    """Seconds by so much longer, with an anchor that is as it was and got the core."""
    seconds = {name: value * by for name, value in record.seconds.items()}
    return replace(
        record, seconds=seconds, anchor_seconds=0.01, anchor_share=1.0, machine={**record.machine, "threads": 1}
    )


@pytest.mark.parametrize(("by", "code"), [(1.0, PASSED), (1.6, FAILED)])
@pytest.mark.parametrize("picked", [(), ("-k", "test_case")], ids=["all", "cases"])
def test_a_declared_machine_that_became_slower_fails(
    tiny: pytest.Pytester, changes: Changes, picked: tuple[str, ...], by: float, code: int
) -> None:
    declared = [timed(record_of(t, case.id, case.steps)) for t in TINY.trajectories() for case in t.cases]
    write_timing(
        timing_path(tiny.path / "golden", TINY.name, device_class("cpu")), golden_of([declared, declared, declared])
    )
    for record in declared:
        changes.by_case[record.case] = lambda found: timed(found, by)
    result = run(tiny, *picked)
    assert result.ret == code
    if code:
        result.stdout.fnmatch_lines(
            ["worse * optimise: +60.0% *", "evalsuite: * quantities of time or memory are worse"]
        )


def test_a_case_that_is_lost_on_the_way_blocks(tiny: pytest.Pytester) -> None:
    (tiny.path / "conftest.py").write_text(
        "import pytest\nfrom evalsuite.plugin.hooks import _STUDY\n"
        'pytest_plugins = ["evalsuite.plugin"]\n\n\n'
        "@pytest.hookimpl(trylast=True)\ndef pytest_collection_finish(session):\n"
        "    study = session.config.stash[_STUDY]\n"
        f"    study.expected = tuple(case for case in study.expected if case != {CASE!r})\n"
    )
    result = run(tiny, "-k", "complete")
    assert result.parseoutcomes()["failed"] == 1
    assert run(tiny, "-k", "claim").ret == FAILED
    result.stdout.fnmatch_lines([f"evalsuite: 1 cases of the suite have no verdict (first: {CASE})"])


# --- a part is no verdict


@pytest.mark.parametrize(
    ("picked", "cases"),
    [
        (("--scene", "smoke.chair"), 19),
        (("--arm", "a"), 5),
        (("--steps", "50"), 20),
        (("-k", "mean-colour"), 5),
        (("-k", "warmstart and chair"), 3),
        (("-k", "test_engine"), 0),
        (("-m", "no_such_mark or not no_such_mark", "-k", CASE), 1),
        ((f"test_ablation.py::test_case[{CASE}]",), 1),
        (("--deselect", f"test_ablation.py::test_case[{CASE}]", "-k", "test_case"), WHOLE - len(PROBE_CASES) - 1),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_part_says_so_and_has_a_code_of_its_own(tiny: pytest.Pytester, picked: tuple[str, ...], cases: int) -> None:
    result = run(tiny, *picked)
    assert result.ret == NO_VERDICT
    line = PARTIAL.format(cases + len(PROBE_CASES))
    assert line in last_lines(result, 3)[0]
    assert summary(tiny).splitlines()[0] == line
    assert "## evalsuite `tiny`: no verdict" in summary(tiny)
    found = [path for path in (tiny.path / "out/records/tiny").glob("*/*.json")]
    assert len(found) == cases, "nothing else was run"


@pytest.mark.parametrize(
    "picked", [("-k", "test_case"), ("-k", "claim"), ("-k", "speed or means"), ("--benchmark-only",)], ids=" ".join
)
def test_what_needs_every_case_is_whole(tiny: pytest.Pytester, picked: tuple[str, ...]) -> None:
    result = run(tiny, *picked)
    assert result.ret == PASSED
    assert "partial" not in result.stdout.str()
    assert summary(tiny).startswith("## evalsuite `tiny`: passes\n")


def test_the_probes_alone_are_whole(tiny: pytest.Pytester) -> None:
    assert run(tiny, "--suite", ENGINE).ret == PASSED
    assert run(tiny, "--suite", ENGINE, "-k", "forward").ret == PASSED, "all of them run, whichever was picked"


def test_the_probes_are_judged_in_every_part(tiny: pytest.Pytester) -> None:
    golden_store(tiny, ENGINE).path("engine/backward").unlink()
    assert run(tiny, "--scene", "smoke.chair").ret == FAILED
    result = run(tiny, "-k", "mean-colour")
    assert result.ret == FAILED
    result.stdout.fnmatch_lines(
        [
            f"partial: {5 + PROBES} of {WHOLE} cases, claims not judged: fails",
            f"evalsuite: 1 of {5 + PROBES} cases block",
        ]
    )


def test_what_a_part_computed_is_judged_whichever_of_it_was_picked(tiny: pytest.Pytester, changes: Changes) -> None:
    changes.psnr("smoke.chair/a", -3.0)
    changes.psnr("smoke.chair/b-capture-n0", -3.0)
    result = run(tiny, "-k", "warmstart and chair and capture")
    assert result.ret == FAILED, "the law holds, and A is worse"
    result.stdout.fnmatch_lines([f"evalsuite: 2 of {2 + PROBES} cases block"])


def test_the_last_failed_cases_are_a_part(tiny: pytest.Pytester, changes: Changes) -> None:
    tiny.makeini("[pytest]\naddopts = -m 'not gpu'\nfilterwarnings = error")
    changes.by_case[CASE] = lambda _: None
    assert run(tiny).parseoutcomes()["failed"] == 2, "the case, and a claim about it"
    changes.by_case.clear()
    result = run(tiny, "--lf")
    assert result.ret == NO_VERDICT
    result.stdout.fnmatch_lines([PARTIAL.format(1 + len(PROBE_CASES))])


def test_the_verdict_comes_after_the_benchmarks_and_the_short_summary(tiny: pytest.Pytester, changes: Changes) -> None:
    changes.psnr(CASE, -5.0)
    result = run(tiny, "--benchmark-columns=mean")
    lines = result.outlines
    last = max(index for index, line in enumerate(lines) if "short test summary" in line or "benchmark: " in line)
    verdict = next(index for index, line in enumerate(lines) if line.startswith("evalsuite tiny: "))
    assert verdict > last
    assert [line for line in lines[verdict:] if line][1].startswith("records: ")
    assert len([line for line in lines[verdict:] if line]) == 3, "records, and pytest's own closing line"


# --- gains


@pytest.mark.parametrize(
    ("options", "code"), [((), PASSED), (("--require-approved",), FAILED)], ids=["speaks", "required"]
)
def test_a_gain_that_nobody_approved_asks_for_it(
    tiny: pytest.Pytester, changes: Changes, options: tuple[str, ...], code: int
) -> None:
    changes.psnr("smoke.chair/mean-colour", 3.0)
    result = run(tiny, *options)
    assert result.ret == code
    result.stdout.fnmatch_lines(
        ["evalsuite: 1 cases and 1 means over scenes are better than approved*evalsuite approve --reason*"]
    )
    assert "evalsuite approve --reason" in summary(tiny)


# --- what is at hand


def test_a_suite_without_any_data_is_refused_at_once(tiny: pytest.Pytester) -> None:
    result = tiny.runpytest_inprocess("--suite", "scan")
    assert result.ret == USAGE
    found = [line for line in result.errlines if line]
    assert len(found) == 1
    assert "evalsuite fetch" in found[0]
    assert not (tiny.path / "out").exists()
    assert tiny.runpytest_inprocess("--suite", "scan", "--collect-only", "-q").ret == PASSED


def test_a_scene_is_not_run_where_another_of_its_suite_has_its_data(
    tiny: pytest.Pytester, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SUITES._items, "mixed", Suite("mixed", ("smoke.blob", "gso.dino-3")))
    for options in ((), ("--scene", "gso.dino-3"), ("-k", "dino")):
        result = tiny.runpytest_inprocess("--suite", "mixed", *options)
        assert result.ret == FAILED, "it began"
        result.stdout.fnmatch_lines(["*no-golden*gso.dino-3/a*"])
    assert tiny.runpytest_inprocess("--suite", "scan", "--scene", "gso.dino-3").ret == USAGE


def test_missing_weights_are_told_at_once(tiny: pytest.Pytester) -> None:
    result = run(tiny, "--model", "lgm-big")
    assert result.ret == USAGE
    result.stderr.fnmatch_lines(["ERROR: *no weights of lgm-big*evalsuite fetch lgm*"])
    assert run(tiny, "--model", "lgm-big", "--arm", "c").ret == FAILED, "which needs none: no goldens"


# --- pytest's own options


def test_help_names_every_option_and_the_code(tiny: pytest.Pytester) -> None:
    result = tiny.runpytest_inprocess("--help")
    assert result.ret == PASSED
    text = result.stdout.str()
    part = text[text.index("feed-forward or per-scene optimisation:") :]
    part = part[: part.index("\n\n")]
    for option in (
        "suite",
        "model",
        "weights",
        "scene",
        "arm",
        "steps",
        "out",
        "workers",
        "resume",
        "require-gpu",
        "require-approved",
    ):
        assert f"--{option}" in part
    assert f"exit code {NO_VERDICT}" in " ".join(part.split())


@pytest.mark.parametrize(
    "options",
    [
        ("-p", "no:capture"),
        ("-p", "no:terminal"),
        ("-p", "no:cacheprovider"),
        ("-p", "no:xdist"),
        ("-s",),
        ("-x",),
        ("-q", "-q"),
        ("--maxfail", "1"),
    ],
    ids=" ".join,
)
def test_other_options_of_pytest_change_no_verdict(tiny: pytest.Pytester, options: tuple[str, ...]) -> None:
    tiny.makeini("[pytest]\naddopts = -m 'not gpu'\nfilterwarnings = error")
    assert run(tiny, *options).ret == PASSED
    golden_store(tiny).path(CASE).unlink()
    assert run(tiny, "-k", "test_claim", *options).ret == FAILED
    assert summary(tiny).startswith("## evalsuite `tiny`: fails\n")


@pytest.mark.parametrize("option", ["--collect-only", "--co", "--fixtures", "--fixtures-per-test", "--setup-plan"])
def test_who_only_looks_runs_nothing(tiny: pytest.Pytester, option: str) -> None:
    result = run(tiny, option)
    assert result.ret == PASSED
    assert not (tiny.path / "out").exists()


@pytest.mark.parametrize(("plugin", "package"), [("syrupy", "syrupy"), ("benchmark", "pytest-benchmark")])
def test_a_plugin_that_is_missing_is_named(tiny: pytest.Pytester, plugin: str, package: str) -> None:
    result = run(tiny, "-p", f"no:{plugin}")
    assert result.ret == USAGE
    assert [line for line in result.errlines if line] == [line for line in result.errlines if f"{package}" in line]
    result.stderr.fnmatch_lines([f"ERROR: *{package}*leave out -p no:{plugin}*"])
    assert "INTERNALERROR" not in result.stdout.str() + result.stderr.str()


# --- what differs, and what to do


def test_a_failing_case_says_what_differs_and_what_to_do(
    tiny: pytest.Pytester, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module("evalsuite.plugin.study")
    plain = module.compare
    differs = ("weights 3f2a -> 9c1b", "commit 1111 -> 2222")
    monkeypatch.setattr(module, "compare", lambda *arguments: replace(plain(*arguments), differs=differs))
    changes.psnr(CASE, -5.0)
    changes.psnr("smoke.blob/a", -5.0)
    result = run(tiny)
    lines = result.outlines
    joined = "; ".join(differs)
    assert lines.count(f"differs      all 2 failing cases from the golden: {joined}") == 1
    assert lines.count(f"differs      {joined}") == 2, "in each failed test"
    result.stdout.fnmatch_lines(
        [
            "next *approve --seeds 1 2 3 4 --reason*docs/gate.md",
            "alone        pytest tests/ablation --suite tiny --scene smoke.chair --arm b --steps 200",
            "next         worse: *docs/gate.md; one alone: pytest tests/ablation --suite tiny --scene smoke.*",
        ]
    )
    assert f"- differs all 2 failing cases from the golden: {joined}" in summary(tiny)
    assert "- next worse: " in summary(tiny)


# --- seconds of a busy machine, long names


def test_seconds_of_a_busy_machine_are_marked(tiny: pytest.Pytester, changes: Changes) -> None:
    changes.by_case[CASE] = lambda r: replace(r, anchor_seconds=0.02, anchor_share=MIN_SHARE / 2)
    result = run(tiny)
    marked = [line for line in result.outlines if "~" in line]
    assert any("smoke.chair" in line and "200" in line for line in marked)
    assert any(line.startswith("~ marks seconds") or "~ marks seconds" in line for line in marked)
    assert f"~ marks seconds taken on a busy machine, in 1 of {WHOLE - len(PROBE_CASES)} cases" in summary(tiny)


def test_no_number_is_cut_beside_a_long_id(
    tiny: pytest.Pytester, changes: Changes, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = "smoke." + "very-long-name-" * 6 + "chair"
    monkeypatch.setitem(SCENES._items, long, replace(SCENES["smoke.chair"], id=long))
    monkeypatch.setitem(SUITES._items, TINY.name, replace(TINY, scenes=(long,)))
    result = run(tiny)
    assert "…" not in result.stdout.str()
    assert long in result.stdout.str()


# --- what nobody approved


def edit_a_golden(project: pytest.Pytester, old: str, new: str, case: str = "smoke.chair/a") -> None:
    path = golden_store(project).path(case)
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))


def test_a_golden_edited_by_hand_is_named_and_blocks_where_all_must_be_approved(tiny: pytest.Pytester) -> None:
    edit_a_golden(tiny, '"sigma": 0.0', '"sigma": 1.0')
    result = run(tiny)
    assert result.ret == 0
    result.stdout.fnmatch_lines(
        ["by hand: golden of smoke.chair/a was edited", "evalsuite: * changes by hand (first:*"]
    )
    text = (tiny.path / "out/summary.md").read_text()
    assert "### Changed without an approval" in text
    assert "psnr of smoke.chair/a has sigma 1, its samples give 0" in text
    assert run(tiny, "--require-approved").ret == 1


def test_a_claim_in_easier_terms_is_named_and_blocks_where_all_must_be_approved(tiny: pytest.Pytester) -> None:
    claims = tiny.path / "claims.toml"
    claims.write_text(claims.read_text().replace("margin = 0.1", "margin = 5.0", 1))
    result = run(tiny)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["by hand: claim *: margin 0.1 -> 5.0"])
    assert run(tiny, "--require-approved").ret == 1


def test_a_class_without_goldens_is_one_verdict_with_its_command(tiny: pytest.Pytester) -> None:
    shutil.rmtree(golden_store(tiny).folder)
    result = run(tiny)
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["evalsuite: no goldens for cpu-* yet (tiny has none on any class): run `evalsuite run*"]
    )
    text = summary(tiny)
    assert text.count("no goldens for cpu-") == 1
    assert "| no-golden |" not in text
