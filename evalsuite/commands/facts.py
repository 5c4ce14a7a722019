"""``scenes``, ``weights`` and ``machine``: files that say what a run hangs on, for the stages of dvc.yaml."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from evalsuite.commands.chosen import chosen_suite
from evalsuite.core.machine import fingerprint, libraries
from evalsuite.core.protocol import Protocol
from evalsuite.execution.preflight import require_device, require_folder
from evalsuite.models.lgm.files import weights_digest, weights_path
from evalsuite.scenes.catalogue import SCENES


def scenes(options: argparse.Namespace) -> int:
    """Load every scene; writes what it holds to ``scenes.json``."""
    suite = chosen_suite(options)
    require_folder(options.out, "--out")
    for name in suite.scenes:
        SCENES[name].require_at_hand(suite.of(name).protocol)
    held = {name: _contents(name, suite.of(name).protocol) for name in suite.scenes}
    _write_json(options.out / "scenes.json", held)
    for name, contents in held.items():
        notes = "".join(f"; {note}" for note in contents["notes"])
        print(f"{name}: {contents['capture']} capture and {contents['heldout']} held-out views{notes}")
    return 0


def _contents(name: str, protocol: Protocol) -> dict[str, Any]:
    from evalsuite.scenes.contents import content_hash

    scene = SCENES[name].load(protocol)
    return {
        "protocol_hash": protocol.hash,
        "stratum": scene.stratum,
        "capture": len(scene.capture),
        "heldout": len(scene.heldout),
        "notes": list(scene.notes),
        "hash": content_hash(scene),
        "source": scene.source,
    }


def weights(options: argparse.Namespace) -> int:
    """Write the hash of the suite's network to ``weights.json``."""
    require_folder(options.out, "--out")
    model = chosen_suite(options).model
    digest = weights_digest(weights_path(model))
    _write_json(options.out / "weights.json", {"model": model, "sha256": digest})
    return 0


def machine(options: argparse.Namespace) -> int:
    """Write this machine's fingerprint to ``machine.json``."""
    require_folder(options.out, "--out")
    require_device(options.device)
    _write_json(options.out / "machine.json", {**fingerprint(options.device), "libraries": libraries()})
    return 0


def _write_json(path: Path, tree: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree, sort_keys=True, indent=1) + "\n", encoding="utf-8")
