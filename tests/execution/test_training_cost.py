"""What training took is taken from the very weights that the records were made with, or is unknown."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from evalsuite.core.suites import Suite
from evalsuite.execution.training_cost import training_cost
from evalsuite.models.lgm.files import MINI_PATH, training_seconds, weights_digest
from evalsuite.records.schema import Record

RECORD = Record("s/a", "s", "thin", "a", None, 0, 0, "made", "p", "0" * 12)


def weights_file(path: Path, metadata: dict[str, str] | None) -> Path:
    save_file({"w": np.zeros(1, dtype=np.float32)}, path, metadata)
    return path


def run_of(**facts: object) -> dict[str, str]:
    return {"run": json.dumps(facts)}


def test_weights_say_what_their_training_took(tmp_path: Path) -> None:
    path = weights_file(tmp_path / "w.safetensors", run_of(training_seconds=12.5, steps=3))
    suite = Suite("made", ("s",), weights=path)
    made = replace(RECORD, weights=weights_digest(path)[:12])
    without = replace(RECORD, arm="c", weights="")
    assert training_cost(suite, [made, without]) == 12.5
    assert training_cost(suite, [made, replace(made, weights="f" * 12)]) is None, "two networks"
    assert training_cost(suite, [replace(made, weights="f" * 12)]) is None, "another network than the file's"
    assert training_cost(suite, [without]) is None
    assert training_cost(replace(suite, weights=tmp_path / "gone"), [made]) is None


@pytest.mark.parametrize(
    "metadata",
    [None, {"format": "pt"}, {"run": "{"}, {"run": "[]"}, run_of(steps=3), run_of(training_seconds="soon"),
     run_of(training_seconds=None), run_of(training_seconds=-1), run_of(training_seconds=float("nan"))],
)  # fmt: skip
def test_weights_that_do_not_say_are_unknown(tmp_path: Path, metadata: dict[str, str] | None) -> None:
    assert training_seconds(weights_file(tmp_path / "w.safetensors", metadata)) is None


def test_what_is_no_weights_file_is_unknown(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no weights")
    assert training_seconds(tmp_path / "text") is None
    assert training_seconds(tmp_path / "gone") is None


def test_the_packages_network_says_what_its_card_says() -> None:
    card = MINI_PATH.with_suffix(".md").read_text(encoding="utf-8")
    line = next(line for line in card.splitlines() if line.startswith("| seconds |"))
    each, processes = (int(word) for word in line.replace(",", "").split() if word.isdigit())
    assert training_seconds(MINI_PATH) == pytest.approx(each * processes, abs=processes / 2)
