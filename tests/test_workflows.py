"""The files of CI: one job that answers for all others, pinned actions, commands that exist."""

from __future__ import annotations

import json
import os
import re
import subprocess
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


def verdict(workflow: str, results: dict[str, str], gpu_later: bool = False) -> int:
    environment = {
        **os.environ,
        "RESULTS": json.dumps({name: {"result": result} for name, result in results.items()}),
        "GPU_LATER": "true" if gpu_later else "false",
    }
    return subprocess.run(["bash", "-c", final(workflow)], env=environment, capture_output=True, check=False).returncode


@pytest.mark.parametrize("name", WORKFLOWS)
@pytest.mark.parametrize("result", ["failure", "cancelled", "skipped"])
def test_one_job_that_did_not_succeed_fails_the_last(name: str, result: str) -> None:
    jobs = WORKFLOWS[name]["jobs"]["all-green"]["needs"]
    assert verdict(name, dict.fromkeys(jobs, "success")) == 0
    for job in jobs:
        assert verdict(name, {**dict.fromkeys(jobs, "success"), job: result}) != 0


def test_only_the_gpu_may_wait_for_the_merge_queue() -> None:
    jobs = WORKFLOWS["gate"]["jobs"]["all-green"]["needs"]
    fine = dict.fromkeys(jobs, "success")
    assert verdict("gate", {**fine, "gpu-gate": "skipped"}, gpu_later=True) == 0
    assert verdict("gate", {**fine, "cpu-gate": "skipped"}, gpu_later=True) != 0
