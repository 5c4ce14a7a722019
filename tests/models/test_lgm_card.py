"""Export writes weights that load, curves, and a card that says where they come from."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from evalsuite.core.errors import MissingDataError
from evalsuite.models.lgm.card import export
from evalsuite.models.lgm.config import TRAINABLE, LGMConfig
from evalsuite.models.lgm.files import training_seconds
from evalsuite.models.lgm.network import LGM
from evalsuite.models.lgm.training import TrainSettings, save, start
from evalsuite.models.lgm.weights import load_state

TOY = LGMConfig("toy", 32, (32,), (False,), False, (32,), (False,), "hull", layers=1, heads=2, stem="hull")
SETTINGS = TrainSettings(model="toy", steps=4, batch=2)


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TRAINABLE._items, "toy", TOY)
    monkeypatch.setattr(
        "evalsuite.models.lgm.card.score", lambda model, objects: {"psnr_fg_db": 20.5, "alpha_iou": 0.9}
    )


def a_run(out: Path, procedural: int, psnr_fg_db: float) -> None:
    """The files of a run that has taken four steps."""
    out.mkdir()
    run = start(SETTINGS, out)
    run.done = replace(run.done, steps=4, samples=8, cpu_seconds=1234.5)
    save(run, out)
    facts = {
        "settings": asdict(SETTINGS),
        "scans": 3,
        "procedural": procedural,
        "processes": 2,
        "hardware": "an abacus",
    }
    (out / "run.json").write_text(json.dumps(facts))
    losses = dict.fromkeys(("rgb", "alpha", "ssim", "surface"), 0.1)
    entry = {"samples": 8, "steps": 4, "psnr_fg_db": psnr_fg_db, "alpha_iou": 0.8, **losses}
    (out / "log.jsonl").write_text(json.dumps(entry) + "\n")


def test_export_writes_weights_curves_and_card(tmp_path: Path) -> None:
    a_run(tmp_path / "run", 4, 20.5)
    a_run(tmp_path / "scans", 0, 19.25)
    target = tmp_path / "toy.safetensors"
    export(tmp_path / "run", [], target, [tmp_path / "run", tmp_path / "scans"])
    load_state(LGM(TOY), target)
    assert training_seconds(target) == 2 * 1234.5, "over both processes"
    again = tmp_path / "again.safetensors"
    export(tmp_path / "run", [], again)
    assert again.read_bytes() == target.read_bytes()
    assert target.with_suffix(".png").read_bytes()[1:4] == b"PNG"
    card = target.with_suffix(".md").read_text()
    for line in (
        "| data | 3 scanned and 4 procedural objects, ray-traced (36 views each, 128 px) |",
        "| steps, samples | 4, 8 |",
        "| seconds | 1,234 of processor time in each of 2 processes |",
        "| hardware | an abacus |",
        "| held-out foreground PSNR | 20.50 dB |",
        "| weights on disk | float16 |",
        "| toy | 20.50 | 0.800 |",
        "| toy, scans alone | 19.25 | 0.800 |",
        "![Losses and held-out scores against samples](toy.png)",
    ):
        assert line in card.splitlines()
    assert "CC BY 4.0" in card
    assert str(tmp_path) not in card


def test_nothing_to_export(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="train first"):
        export(tmp_path, [], tmp_path / "toy.safetensors")
    a_run(tmp_path / "run", 4, 20.5)
    with pytest.raises(MissingDataError, match="nowhere"):
        export(tmp_path / "run", [], tmp_path / "toy.safetensors", [tmp_path / "nowhere"])
    assert not (tmp_path / "toy.safetensors").exists()
