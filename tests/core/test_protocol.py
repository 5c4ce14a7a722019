"""The hash of a protocol changes with everything that changes a number, and with nothing else."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from typing import Any

import pytest

from evalsuite.core.protocol import PROTOCOLS, CaptureRule, GeometryRule, Protocol, Rig
from evalsuite.metrics.spec import IMAGE_METRICS, METRICS

BASE = Protocol("base")


def changed(value: Any) -> Any:
    """A neighbouring value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, tuple):
        return (*value[:-1], changed(value[-1]))
    return dataclasses.replace(value, **{(first := dataclasses.fields(value)[0].name): changed(getattr(value, first))})


def names(kind: type) -> list[str]:
    return [field.name for field in dataclasses.fields(kind)]


def test_the_hash_is_short_hexadecimal() -> None:
    assert re.fullmatch(r"[0-9a-f]{12}", BASE.hash)


def test_the_name_is_not_in_the_hash() -> None:
    assert dataclasses.replace(BASE, name="other").hash == BASE.hash


@pytest.mark.parametrize("name", [name for name in names(Protocol) if name != "name"])
def test_every_other_field_is_in_the_hash(name: str) -> None:
    assert dataclasses.replace(BASE, **{name: changed(getattr(BASE, name))}).hash != BASE.hash


@pytest.mark.parametrize("name", names(Rig))
def test_every_field_of_the_rig_is_in_the_hash(name: str) -> None:
    rig = dataclasses.replace(BASE.rig, **{name: changed(getattr(BASE.rig, name))})
    assert dataclasses.replace(BASE, rig=rig).hash != BASE.hash


@pytest.mark.parametrize("name", names(CaptureRule))
def test_every_field_of_the_capture_rule_is_in_the_hash(name: str) -> None:
    rule = dataclasses.replace(BASE.capture, **{name: changed(getattr(BASE.capture, name))})
    assert dataclasses.replace(BASE, capture=rule).hash != BASE.hash


@pytest.mark.parametrize("name", names(GeometryRule))
def test_every_field_of_the_geometry_rule_is_in_the_hash(name: str) -> None:
    assert BASE.geometry is not None
    rule = dataclasses.replace(BASE.geometry, **{name: changed(getattr(BASE.geometry, name))})
    assert dataclasses.replace(BASE, geometry=rule).hash != BASE.hash


def test_the_hash_is_the_same_in_another_process() -> None:
    code = "from evalsuite.core.protocol import Protocol; print(Protocol('elsewhere').hash)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == BASE.hash


@pytest.mark.parametrize("name", list(PROTOCOLS))
def test_registered_protocols(name: str) -> None:
    protocol = PROTOCOLS[name]
    assert protocol.name == name
    measured = METRICS if protocol.geometry else IMAGE_METRICS
    assert dict(protocol.metric_versions) == {metric: METRICS[metric].version for metric in measured}
    for ladder in (protocol.steps_b, protocol.steps_c):
        assert list(ladder) == sorted(set(ladder))
    assert protocol.steps_b[0] == 0, "B starts as A"
