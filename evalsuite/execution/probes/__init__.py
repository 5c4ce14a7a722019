"""Probes: what renderer, loss, optimiser and density control do to small fixed inputs. Seconds in all, no scene.

A golden of a whole run sees a change of the engine through the noise of an optimisation. These see it bare: each number
repeats but for the last bits of the hardware, so tolerances are a thousand times tighter. Two inputs (`stage`): a crowd
of small Gaussians, which meets tiles, cuts and culling, and a few veils, on which the loss is smooth, so that finite
differences tell what its gradient has to be.
"""

from evalsuite.execution.probes.running import PROBE_CASES, PROTOCOL, probe

__all__ = ["PROBE_CASES", "PROTOCOL", "probe"]
