"""Loads the evalsuite plugin, with the package's shape annotations checked at run time.

Numba kernels (evalsuite.splats.cpu, evalsuite.metrics.kernels, evalsuite.arms.kernels) stay unchecked: Numba cannot
compile a wrapped function.
"""

from jaxtyping import install_import_hook

_CHECKED = ("core", "fetch", "scenes", "models", "records", "execution", "gates", "report")
_CHECKED_ARMS = ("alignment", "arm", "catalogue", "floors", "procedures", "seeding")
_CHECKED_METRICS = ("evaluate", "geometry", "heldout", "image", "perceptual", "spec")
_CHECKED_SPLATS = ("density", "descent", "field", "loss", "optimise", "ply", "rasterise", "recipes", "surface")

install_import_hook(
    [
        *(f"evalsuite.{name}" for name in _CHECKED),
        *(f"evalsuite.arms.{name}" for name in _CHECKED_ARMS),
        *(f"evalsuite.metrics.{name}" for name in _CHECKED_METRICS),
        *(f"evalsuite.splats.{name}" for name in _CHECKED_SPLATS),
    ],
    "beartype.beartype",
)

pytest_plugins = ["evalsuite.plugin", "pytester"]
