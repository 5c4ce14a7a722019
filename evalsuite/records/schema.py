"""The record of one case.

``SCHEMA`` rises when a field's meaning or shape changes; then add a step to ``_UPGRADES`` that lifts the older
dictionary. A file with a newer schema than this code knows is refused. NaN and infinity never reach a file.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evalsuite.core.cases import BUDGETS, Case, Trajectory
from evalsuite.core.errors import NonFiniteError, SchemaError, Status
from evalsuite.core.phases import COST_PHASES

SCHEMA = 4


def _name_the_model(tree: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 had the hash of the weights only."""
    return {**tree, "model": "", "schema": 2}


def _part_the_memory(tree: dict[str, Any]) -> dict[str, Any]:
    """Schema 2 had one peak, the device's where there was one, and neither frames nor anchor."""
    rest = {name: value for name, value in tree.items() if name != "peak_bytes"}
    peak = tree["peak_bytes"] or None
    on_device = str(tree["machine"].get("device_class", "")).startswith("cuda")
    return {
        **rest,
        "peak_host_bytes": None if on_device else peak,
        "peak_device_bytes": peak if on_device else 0,
        "frames_per_second": None,
        "frame_px": None,
        "anchor_seconds": None,
        "anchor_share": None,
        "schema": 3,
    }


def _name_the_scene(tree: dict[str, Any]) -> dict[str, Any]:
    """Schema 3 said of a scene no more than its name, and of libraries no more than their numbers."""
    return {**tree, "scene_hash": "", "scene_source": "", "libraries": {}, "base_host_bytes": None, "schema": 4}


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: _name_the_model,
    2: _part_the_memory,
    3: _name_the_scene,
}


@dataclass(frozen=True)
class Reading:
    """One metric of one case.

    Attributes:
        value: mean over views, in the metric's unit; None if it could not be computed.
        per_view: values per held-out view, in the scene's order.
        version: version of the metric's definition.
        status: why there is no value, or ``ok``.
        reason: the same in words; empty where there is a value.
    """

    value: float | None
    per_view: tuple[float, ...]
    version: int
    status: Status = "ok"
    reason: str = ""


@dataclass(frozen=True)
class Record:
    """What is known of one case once it has ended, well or badly.

    Attributes:
        case, scene, stratum, arm, budget, steps, seed: identity (see `evalsuite.core.cases`); the id says the same as
            the other five, which both ends of a file check.
        suite, protocol, protocol_hash: what the numbers may be compared with.
        recipe, recipe_hash: how B and C were optimised; empty for other arms.
        scene_hash: hash of what the scene holds: images, cameras, points, truth; empty if it could not be loaded.
        scene_source: hash of the files that it was read from; empty for procedural scenes, or if nobody knows them.
        model, weights: name of the network and hash of its weights, for arms A and B.
        status, reason: ``ok``, or why there are no metrics.
        metrics: readings by metric id.
        seconds: by phase (`evalsuite.core.phases`), cumulative up to this checkpoint; ``render`` and ``evaluate`` are
            those of this checkpoint alone.
        gaussians, asset_bytes: size of the result: primitives, and bytes of the exported PLY.
        peak_host_bytes: peak resident memory of the process while the arm worked, up to this checkpoint, all that the
            process had loaded before included; None if not measured.
        base_host_bytes: resident memory of the process when the arm began, garbage collected and freed memory returned:
            the peak less this is the arm's own; None where the kernel cannot forget an earlier peak.
        peak_device_bytes: peak device memory that torch allocated meanwhile; 0 on CPU, None if not measured.
        frames_per_second: held-out frames rendered one at a time, 1 / median seconds of a frame, warm, with nothing but
            the rendering in the clock; None if not measured.
        frame_px: width and height of those frames.
        anchor_seconds, anchor_share: median seconds of the anchor workload (`evalsuite.execution.anchor`), measured in
            turns with the arm's stretches, and its processor seconds per second; None if not measured.
        notes: what a reader must know: what arm C started from, fallbacks, missing frames.
        machine, git, source: provenance: hardware and versions, commit, hash of the sources that make numbers.
        libraries: version and hash of the installed code of each library that can move a number.
        images: strips of rendered held-out views, files relative to the record store.
    """

    case: str
    scene: str
    stratum: str
    arm: str
    budget: str | None
    steps: int
    seed: int
    suite: str
    protocol: str
    protocol_hash: str
    status: Status = "ok"
    reason: str = ""
    recipe: str = ""
    recipe_hash: str = ""
    scene_hash: str = ""
    scene_source: str = ""
    model: str = ""
    weights: str = ""
    metrics: Mapping[str, Reading] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    gaussians: int = 0
    asset_bytes: int = 0
    peak_host_bytes: int | None = None
    base_host_bytes: int | None = None
    peak_device_bytes: int | None = None
    frames_per_second: float | None = None
    frame_px: tuple[int, int] | None = None
    anchor_seconds: float | None = None
    anchor_share: float | None = None
    notes: tuple[str, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    git: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    libraries: Mapping[str, str] = field(default_factory=dict)
    images: tuple[str, ...] = ()
    schema: int = SCHEMA

    def value(self, metric: str) -> float | None:
        """Value of a metric, None where the case or the metric has none."""
        reading = self.metrics.get(metric)
        return reading.value if reading and reading.status == "ok" else None

    @property
    def total_seconds(self) -> float:
        """Seconds that one more asset costs: the phases of `COST_PHASES`."""
        return sum((self.seconds.get(phase, 0.0) for phase in COST_PHASES), 0.0)

    @property
    def costs(self) -> dict[str, float]:
        """Seconds of each phase that an asset costs, and of one rendered ``frame``; what is unknown is left out."""
        seconds: dict[str, float] = {phase: self.seconds.get(phase, 0.0) for phase in COST_PHASES}
        seconds["frame"] = 1 / self.frames_per_second if self.frames_per_second else 0.0
        return {name: value for name, value in seconds.items() if value > 0}

    def _refuse_contradiction(self, source: str) -> None:
        if self.budget not in (None, *BUDGETS):
            raise SchemaError(f"{source} has budget {self.budget!r}, expected none or one of {', '.join(BUDGETS)}")
        named = Case(Trajectory(self.scene, self.arm, self.budget, (), self.seed), self.steps)
        if named.id != self.case:
            raise SchemaError(
                f"{source} says case {self.case}, but its scene, arm, budget, steps and seed are those of {named.id}; "
                "expected one case: delete it and run the case again"
            )

    def dumps(self) -> str:
        """JSON with sorted keys and shortest round-trip floats.

        Raises:
            NonFiniteError: a number in the record is NaN or infinite.
            SchemaError: its id and its other fields name different cases.
        """
        self._refuse_contradiction("a record that was to be written")
        tree = dataclasses.asdict(self)
        _refuse_non_finite(tree, self.case)
        return json.dumps(tree, sort_keys=True, indent=1) + "\n"


def loads(text: str, source: str) -> Record:
    """Parse a record; ``source`` names the file in error messages.

    Raises:
        SchemaError: not a record, one of a newer schema, or one that names two cases.
    """
    try:
        tree = json.loads(text, parse_constant=_refuse_constant)
        schema = tree["schema"]
        if not isinstance(schema, int) or schema < 1:
            raise ValueError(f"schema is {schema!r}")
    except (ValueError, KeyError, TypeError) as error:
        raise SchemaError(f"{source} is not an evalsuite record ({error}); delete it and run the case again") from None
    if schema > SCHEMA:
        raise SchemaError(f"{source} has schema {schema}, this evalsuite reads up to {SCHEMA}; upgrade evalsuite")
    try:
        while schema < SCHEMA:
            tree = _UPGRADES[schema](tree)
            schema += 1
        metrics = {
            name: Reading(**{**reading, "per_view": tuple(reading["per_view"])})
            for name, reading in tree.pop("metrics").items()
        }
        notes, images = tuple(tree.pop("notes")), tuple(tree.pop("images"))
        frame = tree.pop("frame_px")
        frame_px = None if frame is None else (int(frame[0]), int(frame[1]))
        record = Record(metrics=metrics, notes=notes, images=images, frame_px=frame_px, **tree)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise SchemaError(f"{source} is a malformed record ({error}); delete it and run the case again") from None
    record._refuse_contradiction(source)
    return record


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} in place of a number")


def _refuse_non_finite(tree: Any, where: str) -> None:
    if isinstance(tree, float) and not math.isfinite(tree):
        raise NonFiniteError(f"{where} is {tree}, expected a finite number: give the reading a status instead")
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            _refuse_non_finite(value, f"{where}.{key}")
    elif isinstance(tree, list | tuple):
        for value in tree:
            _refuse_non_finite(value, where)
