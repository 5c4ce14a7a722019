"""Made-up records and goldens for the tests of the gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalsuite.gates.golden import Approved, Golden
from evalsuite.records.schema import Reading, Record

CASE, HASH, SOURCE = "smoke.chair/b-capture-n50", "0123456789ab", "5012ce5012ce"
MACHINE = {"device_class": "cpu-x86-64", "cpu": "a CPU", "gpu": None}
LIBRARIES = {"gsplat": "1.5.3 09f1ab32", "torch": "2.11.0 5ca1ab1e"}


def record(values: Mapping[str, float] | None = None, case: str = CASE, **overrides: Any) -> Record:
    values = {"psnr": 25.0} if values is None else values
    scene, name = case.split("/")
    head, _, tail = name.partition("-n")
    steps, _, seed = tail.partition("-s")
    arm, _, budget = head.partition("-")
    if arm in ("mean", "visual"):
        arm, budget = head, ""
    fields: dict[str, Any] = {
        "case": case,
        "scene": scene,
        "stratum": "thin",
        "arm": arm,
        "budget": budget or None,
        "steps": int(steps or 0),
        "seed": int(seed or 0),
        "suite": "smoke",
        "protocol": "object-128",
        "protocol_hash": HASH,
        "source": SOURCE,
        "machine": MACHINE,
        "libraries": LIBRARIES,
        "metrics": {metric: Reading(value, (value,), 1) for metric, value in values.items()},
    }
    return Record(**{**fields, **overrides})


def golden(
    values: Mapping[str, float] | None = None, sigma: float = 0.0, freedom: float = 12.0, case: str = CASE, **other: Any
) -> Golden:
    """A golden whose noise was measured: as nothing, unless told otherwise. Its values are the mean of many runs."""
    values = {"psnr": 25.0} if values is None else values
    approved = {metric: Approved(value, 1, sigma, freedom, views=1) for metric, value in values.items()}
    fields: dict[str, Any] = {
        "case": case,
        "protocol_hash": HASH,
        "seeds": (0, 1, 2),
        "metrics": approved,
        "comparisons": 1,
    }
    return Golden(**{**fields, **other})
