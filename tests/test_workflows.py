"""The files of CI: one job that answers for all others, pinned actions, commands that exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[1]
WORKFLOWS = {path.stem: YAML(typ="safe").load(path) for path in sorted((ROOT / ".github/workflows").glob("*.yml"))}
TARGETS = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def steps(workflow: Any) -> list[Any]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def final(workflow: str) -> str:
    """The script of the last job."""
    return str(WORKFLOWS[workflow]["jobs"]["all-green"]["steps"][-1]["run"])


def test_there_are_workflows() -> None:
    assert set(WORKFLOWS) == {"gate", "nightly"}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_last_job_answers_for_every_other(name: str) -> None:
    jobs = WORKFLOWS[name]["jobs"]
    assert set(jobs["all-green"]["needs"]) == set(jobs) - {"all-green"}
    assert jobs["all-green"]["if"] == "always()"


@pytest.mark.parametrize("name", WORKFLOWS)
def test_actions_are_pinned_by_commit(name: str) -> None:
    used = [step["uses"] for step in steps(WORKFLOWS[name]) if "uses" in step]
    assert used
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40}", action) for action in used)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_command_is_a_target_of_the_makefile(name: str) -> None:
    commands = [step["run"] for step in steps(WORKFLOWS[name]) if "run" in step and "<<" not in step["run"]]
    assert commands
    for command in commands:
        program, target = command.split()
        assert program == "make"
        assert target in TARGETS


def test_pull_requests_and_the_merge_queue_are_gated() -> None:
    gate = WORKFLOWS["gate"]
    triggers = gate.get("on", gate.get(True))
    assert {"pull_request", "merge_group"} <= set(triggers)
    assert "labeled" in triggers["pull_request"]["types"]
    assert gate["jobs"]["gpu-gate"]["runs-on"] == ["self-hosted", "gpu"]


def test_no_job_may_write_or_approve() -> None:
    for workflow in WORKFLOWS.values():
        assert workflow["permissions"] == {"contents": "read"}
        assert "approve" not in json.dumps(workflow["jobs"])


def verdict(workflow: str, results: dict[str, str], **given: str) -> subprocess.CompletedProcess[str]:
    """What the last job says, in the merge queue of a repository with a GPU runner unless told otherwise."""
    environment = {
        **os.environ,
        "RESULTS": json.dumps({name: {"result": result} for name, result in results.items()}),
        "EVENT": "merge_group",
        "LABELS": "null",
        "GPU_RUNNER": "true",
        **given,
    }
    command = ["bash", "-c", final(workflow)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", WORKFLOWS)
@pytest.mark.parametrize("event", ["pull_request", "merge_group", "push"])
@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped"])
def test_one_job_that_did_not_succeed_fails_the_last(name: str, event: str, result: str) -> None:
    jobs = WORKFLOWS[name]["jobs"]["all-green"]["needs"]
    given = {"EVENT": event, "LABELS": '["gpu"]' if event == "pull_request" else "null"}
    assert verdict(name, dict.fromkeys(jobs, "success"), **given).returncode == 0
    for job in set(jobs) - ({"speed"} if event != "pull_request" and result == "skipped" else set()):
        assert verdict(name, {**dict.fromkeys(jobs, "success"), job: result}, **given).returncode != 0


PULL = {"EVENT": "pull_request", "LABELS": "[]"}


@pytest.mark.parametrize(
    ("name", "job", "given", "said"),
    [
        ("gate", "gpu-gate", PULL, "it runs in the merge queue"),
        ("gate", "gpu-gate", {"GPU_RUNNER": ""}, "NOTHING ran on a GPU"),
        ("nightly", "gpu-noise", {"GPU_RUNNER": ""}, "NOTHING ran on a GPU"),
        ("gate", "speed", {}, "judged on the pull request"),
        ("gate", "speed", {**PULL, "LABELS": '["slower-on-purpose"]'}, "NOBODY compared its speed"),
    ],
)
def test_a_job_that_may_be_skipped_is_named_and_may_not_fail(
    name: str, job: str, given: dict[str, str], said: str
) -> None:
    fine = dict.fromkeys(WORKFLOWS[name]["jobs"]["all-green"]["needs"], "success")
    skipped = verdict(name, {**fine, job: "skipped"}, **given)
    assert skipped.returncode == 0
    assert f"::warning title={job} was skipped::" in skipped.stdout
    assert said in skipped.stdout
    assert verdict(name, {**fine, job: "failure"}, **given).returncode != 0
    other = next(one for one in fine if one not in (job, "gpu-gate"))
    assert verdict(name, {**fine, job: "skipped", other: "skipped"}, **given).returncode != 0
    assert "::warning" not in verdict(name, fine, **given).stdout


def test_a_pull_request_that_asks_for_a_gpu_gets_one_or_fails() -> None:
    fine = dict.fromkeys(WORKFLOWS["gate"]["jobs"]["all-green"]["needs"], "success")
    asked = {**PULL, "LABELS": '["gpu"]', "GPU_RUNNER": ""}
    assert verdict("gate", {**fine, "gpu-gate": "skipped"}, **asked).returncode != 0


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_variable_of_the_repository_switches_every_job_on_a_gpu(name: str) -> None:
    jobs = WORKFLOWS[name]["jobs"]
    on_gpu = [job for job in jobs.values() if "gpu" in job["runs-on"]]
    assert on_gpu
    assert all("vars.EVALSUITE_GPU_RUNNER == 'true'" in job["if"] for job in on_gpu)
    assert jobs["all-green"]["steps"][-1]["env"]["GPU_RUNNER"] == "${{ vars.EVALSUITE_GPU_RUNNER }}"


def test_pull_requests_are_held_to_the_speed_of_their_base() -> None:
    job = WORKFLOWS["gate"]["jobs"]["speed"]
    fetching, *_, running = job["steps"]
    assert fetching["with"]["fetch-depth"] == 0, "a merge base needs the history"
    assert running["run"] == "make speed"
    assert running["env"] == {"BASE": "${{ github.event.pull_request.base.sha }}"}
    assert "speed" in WORKFLOWS["gate"]["jobs"]["all-green"]["needs"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_job_ends_and_keeps_no_credentials(name: str) -> None:
    assert all(job["timeout-minutes"] <= 600 for job in WORKFLOWS[name]["jobs"].values())
    taken = [step for step in steps(WORKFLOWS[name]) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"]["persist-credentials"] is False for step in taken)


RECORDER = """#!/bin/sh
echo "$(basename "$0") $*" >> "$LOG"
echo "addopts=$PYTEST_ADDOPTS" >> "$LOG"
"""


@pytest.fixture
def made(tmp_path: Path) -> Callable[..., list[str]]:
    """Run a target of the Makefile in a folder of its own, with programs that write down how they were called."""

    def run(target: str, **given: str) -> list[str]:
        for program in ("pytest", "evalsuite"):
            path = tmp_path / ".venv/bin" / program
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(RECORDER)
            path.chmod(0o755)
        for name in ("requirements.lock", "pyproject.toml", ".venv/.installed"):
            (tmp_path / name).touch()
        environment = {**os.environ, "LOG": str(tmp_path / "log"), **given}
        command = ["make", "--silent", "-C", str(tmp_path), "-f", str(ROOT / "Makefile"), target]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        return (tmp_path / "log").read_text().splitlines()

    return run


@pytest.mark.parametrize(("target", "suite"), [("gate", "smoke"), ("gate-gpu", "scan")])
def test_no_variable_narrows_a_gate(made: Callable[..., list[str]], target: str, suite: str) -> None:
    called, addopts = made(target, PYTEST_ADDOPTS="--scene smoke.blob")
    assert addopts == "addopts="
    assert f"--suite {suite} --require-approved" in called
    assert ("--require-gpu" in called) == (target == "gate-gpu")
    assert not any("PYTEST_ADDOPTS" in json.dumps(workflow) for workflow in WORKFLOWS.values())


def test_a_run_of_ones_own_takes_options_and_asks_for_no_approval(made: Callable[..., list[str]]) -> None:
    called, addopts = made("ablation", PYTEST_ADDOPTS="--scene smoke.blob")
    assert addopts == "addopts=--scene smoke.blob"
    assert "--require-approved" not in called


@pytest.mark.parametrize(("target", "only"), [("speed", "time"), ("quality", "quality")])
def test_a_branch_is_compared_with_where_it_left_its_base(
    target: str, only: str, made: Callable[..., list[str]], tmp_path: Path
) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
        command = ["git", "-C", str(tmp_path), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--initial-branch", "trunk")
    git("commit", "--allow-empty", "--message", "where it left")
    left = git("rev-parse", "HEAD")
    git("branch", "topic")
    git("commit", "--allow-empty", "--message", "moved on")
    git("checkout", "topic")
    git("commit", "--allow-empty", "--message", "a change")
    assert made(target, BASE="trunk")[0] == f"evalsuite compare {left} HEAD --only {only}"
