"""Textured objects made from code and seeds: the embedded suite's scenes and an endless supply for training.

Modules in the order data flows: `randomness` (noise, random items), `shapes` (surfaces as sets of patches), `patterns`
(colour as a function of points), `baking` (painted patches into one mesh with an atlas), `objects` (the six kinds) and
`random_objects` (the endless supply).
"""

from evalsuite.scenes.procedural.objects import procedural_mesh
from evalsuite.scenes.procedural.random_objects import random_mesh
from evalsuite.scenes.sources import KINDS

__all__ = ["KINDS", "procedural_mesh", "random_mesh"]
