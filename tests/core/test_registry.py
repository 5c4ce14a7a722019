"""Names are registered once, and a wrong one is answered with the right ones."""

from __future__ import annotations

import sys

import pytest

from evalsuite.core.errors import OptionError, UnknownNameError
from evalsuite.core.registry import Registry


@pytest.fixture
def fruit() -> Registry[int]:
    registry: Registry[int] = Registry("fruit")
    registry.add("pear", 1)
    registry.add("apple", 2)
    return registry


def test_values_come_back(fruit: Registry[int]) -> None:
    assert fruit["pear"] == 1
    assert fruit.add("fig", 3) == 3
    assert list(fruit) == ["pear", "apple", "fig"]
    assert len(fruit) == 3
    assert "fig" in fruit
    assert "plum" not in fruit


def test_a_collision_is_refused_and_changes_nothing(fruit: Registry[int]) -> None:
    with pytest.raises(OptionError, match="fruit 'pear' is registered twice"):
        fruit.add("pear", 9)
    assert fruit["pear"] == 1


def test_an_unknown_name_is_answered_with_the_known(fruit: Registry[int]) -> None:
    with pytest.raises(UnknownNameError) as caught:
        _ = fruit["xyzzy"]
    assert str(caught.value) == "unknown fruit 'xyzzy'; known: apple, pear."
    assert (caught.value.kind, caught.value.name, caught.value.known) == ("fruit", "xyzzy", ["apple", "pear"])


def test_a_near_miss_is_guessed(fruit: Registry[int]) -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean 'apple'\?"):
        _ = fruit["aple"]


def test_registries_are_apart() -> None:
    one: Registry[int] = Registry("one")
    other: Registry[int] = Registry("other")
    one.add("x", 1)
    assert not len(other)


def test_a_target_is_imported_when_it_is_asked_for_and_not_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "evalsuite.core.phases", raising=False)
    late: Registry[object] = Registry("late")
    late.add_target("phases", "evalsuite.core.phases:PHASES")
    late.require("phases")
    assert list(late) == ["phases"]
    with pytest.raises(UnknownNameError, match="unknown late 'phase'; known: phases"):
        late.require("phase")
    with pytest.raises(OptionError, match="registered twice"):
        late.add_target("phases", "evalsuite.core.phases:Phase")
    assert "evalsuite.core.phases" not in sys.modules
    assert "forward" in late["phases"]  # type: ignore[operator]
    assert late["phases"] is late["phases"]
