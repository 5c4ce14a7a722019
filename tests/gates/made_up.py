"""Made-up records and goldens for the tests of the gates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from evalsuite.gates.golden import Golden
from evalsuite.records.schema import Reading, Record

CASE, HASH = "smoke.chair/b-capture-n50", "0123456789ab"


def record(values: Mapping[str, float] | None = None, case: str = CASE, **overrides: Any) -> Record:
    values = {"psnr": 25.0} if values is None else values
    scene, name = case.split("/")
    fields: dict[str, Any] = {
        "case": case,
        "scene": scene,
        "stratum": "thin",
        "arm": name.split("-")[0],
        "budget": "capture" if "capture" in name else None,
        "steps": 50,
        "seed": 0,
        "suite": "smoke",
        "protocol": "object-128",
        "protocol_hash": HASH,
        "metrics": {metric: Reading(value, (value,), 1) for metric, value in values.items()},
    }
    return Record(**{**fields, **overrides})


def golden(values: Mapping[str, float] | None = None, noise: float = 0.0, case: str = CASE, **overrides: Any) -> Golden:
    values = {"psnr": 25.0} if values is None else values
    fields: dict[str, Any] = {
        "case": case,
        "protocol_hash": HASH,
        "metric_versions": dict.fromkeys(values, 1),
        "values": values,
        "noise": dict.fromkeys(values, noise),
        "seeds": 1,
    }
    return Golden(**{**fields, **overrides})
