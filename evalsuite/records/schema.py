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

from evalsuite.core.errors import NonFiniteError, SchemaError, Status

SCHEMA = 2


def _name_the_model(tree: dict[str, Any]) -> dict[str, Any]:
    """Schema 1 had the hash of the weights only."""
    return {**tree, "model": "", "schema": 2}


_UPGRADES: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {1: _name_the_model}


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
        case, scene, stratum, arm, budget, steps, seed: identity (see `evalsuite.core.cases`).
        suite, protocol, protocol_hash: what the numbers may be compared with.
        recipe, recipe_hash: how B and C were optimised; empty for other arms.
        model, weights: name of the network and hash of its weights, for arms A and B.
        status, reason: ``ok``, or why there are no metrics.
        metrics: readings by metric id.
        seconds: by phase, cumulative up to this checkpoint; evaluation is in no phase.
        gaussians, asset_bytes: size of the result.
        peak_bytes: peak memory of the arm up to this checkpoint: resident on CPU, allocated by torch on CUDA.
        notes: what a reader must know: what arm C started from, fallbacks, missing frames.
        machine, git, source: provenance: hardware and versions, commit, hash of the package's sources.
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
    model: str = ""
    weights: str = ""
    metrics: Mapping[str, Reading] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    gaussians: int = 0
    asset_bytes: int = 0
    peak_bytes: int = 0
    notes: tuple[str, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    git: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    images: tuple[str, ...] = ()
    schema: int = SCHEMA

    def value(self, metric: str) -> float | None:
        """Value of a metric, None where the case or the metric has none."""
        reading = self.metrics.get(metric)
        return reading.value if reading and reading.status == "ok" else None

    @property
    def total_seconds(self) -> float:
        """Seconds of all phases."""
        return sum(self.seconds.values(), 0.0)

    def dumps(self) -> str:
        """JSON with sorted keys and shortest round-trip floats.

        Raises:
            NonFiniteError: a number in the record is NaN or infinite.
        """
        tree = dataclasses.asdict(self)
        _refuse_non_finite(tree, self.case)
        return json.dumps(tree, sort_keys=True, indent=1) + "\n"


def loads(text: str, source: str) -> Record:
    """Parse a record; ``source`` names the file in error messages.

    Raises:
        SchemaError: not a record, or one of a newer schema.
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
    while schema < SCHEMA:
        tree = _UPGRADES[schema](tree)
        schema += 1
    try:
        metrics = {
            name: Reading(**{**reading, "per_view": tuple(reading["per_view"])})
            for name, reading in tree.pop("metrics").items()
        }
        notes, images = tuple(tree.pop("notes")), tuple(tree.pop("images"))
        return Record(metrics=metrics, notes=notes, images=images, **tree)
    except (KeyError, TypeError, AttributeError) as error:
        raise SchemaError(f"{source} is a malformed record ({error}); delete it and run the case again") from None


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
