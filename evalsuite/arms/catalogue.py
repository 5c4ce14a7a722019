"""Every arm by name. Names cost nothing: an arm's code, and torch with it, is imported when the arm is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalsuite.core.registry import Registry

if TYPE_CHECKING:
    from evalsuite.arms.arm import Arm

ARMS: Registry[Arm] = Registry("arm")
ARMS.add_target("a", "evalsuite.arms.procedures:feedforward")
ARMS.add_target("b", "evalsuite.arms.procedures:warmstart")
ARMS.add_target("c", "evalsuite.arms.procedures:scratch")
ARMS.add_target("mean-colour", "evalsuite.arms.procedures:mean_colour")
ARMS.add_target("visual-hull", "evalsuite.arms.procedures:visual_hull")

NETWORK_ARMS = ("a", "b")
"""Arms whose result depends on the network's weights."""
