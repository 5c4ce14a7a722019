"""One training step on the CPU without an autograd graph: `evalsuite.splats.cpu.descent` over flat parameter arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import Parameter
from torch.optim import Optimizer

from evalsuite.core.types import Cameras
from evalsuite.splats.cpu import compositor, descent, projection
from evalsuite.splats.cpu.blending import Image, TableMemory, blend, gradient_tables, tile_count
from evalsuite.splats.cpu.simd import LANES
from evalsuite.splats.loss import photometric_gradient
from evalsuite.splats.rasterise import RasterSettings

GROUPS = ("means", "scales", "quats", "opacities", "sh0", "sh_rest")
"""In the order of the flat arrays."""

_PIECE = 4096
"""Floats of Adam that a thread takes at a time."""


@dataclass(frozen=True)
class Seen:
    """What one view says of every Gaussian.

    Attributes:
        loss: of the view.
        gradients: of the loss by group, until the next view is asked for; None where nothing leads there.
        screen: length of the gradient in the projected centre, in half-images: what density control adds up.
        visible: whether the view sees it.
    """

    loss: float
    gradients: dict[str, Tensor | None]
    screen: Float[Tensor, "N"]
    visible: Bool[Tensor, "N"]


class FusedDescent:
    """Gradients of single views, and Adam, over the parameters and moments of six optimisers.

    The tensors of the optimisers become views of flat arrays. Whoever replaces them (density control, which makes new
    parameters of another length) may do so at any time between two steps: they are then gathered anew.

    Args:
        params, optimisers: by group, on the CPU: means [N, 3], scales [N, 3] (logarithms), quats [N, 4], opacities [N]
            (logits), sh0 [N, 1, 3], sh_rest [N, K - 1, 3]; of torch's Adam, plain.
        targets: [V, H, W, 3] float32, contiguous.
        settings: without antialiasing, which no recipe uses.
    """

    def __init__(
        self, params: Mapping[str, Parameter], optimisers: Mapping[str, Optimizer], cameras: Cameras,
        targets: Float[Tensor, "V H W 3"], background: Float[Tensor, "3"], settings: RasterSettings,
    ) -> None:  # fmt: skip
        self.params, self.optimisers = params, optimisers
        self.cameras = _camera_rows(cameras, settings)
        self.targets, self.background = targets.numpy(), background.numpy()
        self.absgrad = settings.absgrad
        self.image = Image(np.empty(targets.shape[1:], np.float32), np.empty(targets.shape[1:3], np.float32), None)
        self.memory = TableMemory()
        self._flat: _Flat | None = None

    def gradients(self, view: int, degree: int, ssim_weight: float) -> Seen:
        """The gradient of one view's photometric loss, harmonics up to ``degree``, kept for `move`."""
        flat, target, camera = self._current(), self.targets[view], self.cameras[view]
        flat.uses(degree)
        splats, sums, image = flat.splats, flat.sums, self.image
        descent.splats_forward(flat.values, flat.starts, flat.stride, (degree + 1) ** 2, camera, splats)
        lists = blend(splats, self.background, image)
        loss, v_rgb = photometric_gradient(image.rgb, target, ssim_weight)
        sums[:] = 0
        for offsets, table in gradient_tables(
            splats, self.background, image, Image(v_rgb, image.alpha, None), lists, self.absgrad,
            np.zeros((tile_count(image), 3), np.float32), self.memory,
        ):  # fmt: skip
            descent.add_rows(offsets, table, sums)
        screen = np.empty(flat.room, np.float32)
        descent.splats_backward(
            flat.values, flat.starts, flat.stride, (degree + 1) ** 2, camera, splats, sums, self.absgrad,
            flat.gradients, screen,
        )  # fmt: skip
        visible = splats[: flat.count, projection.HALF_WIDTH] > 0
        found = {name: flat.gradient(name) for name in GROUPS}
        return Seen(loss, found, torch.from_numpy(screen[: flat.count]), torch.from_numpy(visible))

    def move(self) -> bool:
        """One step of every optimiser along the kept gradients; whether all parameters are finite after it."""
        flat = self._current()
        moving = [name for name in GROUPS if flat.gradient(name) is not None]
        torch._foreach_add_([self.optimisers[name].state[self.params[name]]["step"] for name in moving], 1)
        rates = np.full((len(GROUPS), 6), np.nan)
        for name in moving:
            (group,) = self.optimisers[name].param_groups
            flat.taken[name] += 1
            taken, (beta1, beta2) = flat.taken[name], group["betas"]
            rates[GROUPS.index(name)] = (
                group["lr"] / (1 - beta1**taken), (1 - beta2**taken) ** 0.5, 1 - beta1, beta2, 1 - beta2, group["eps"]
            )  # fmt: skip
        broken = np.empty(len(flat.pieces), np.float32)
        descent.adam(
            flat.values, flat.gradients, flat.first, flat.second, flat.pieces, rates.astype(np.float32), broken
        )
        return bool((broken == 0).all())

    def _current(self) -> _Flat:
        if self._flat is None or not self._flat.holds(self.params):
            self._flat = _Flat(self.params, self.optimisers)
        return self._flat


class _Flat:
    """All parameters, gradients and moments of one number of Gaussians.

    Attributes:
        count, room: Gaussians, and the next multiple of 16.
        values, gradients, first, second: [floats] float32.
        starts: of the groups within them.
        stride: floats of ``sh_rest`` a Gaussian has.
        degree: of the harmonics that ``gradients`` is of.
        taken: steps of every group.
        splats, sums: [room, 12] and [room, SUMS] float32, of the view at hand.
    """

    def __init__(self, params: Mapping[str, Parameter], optimisers: Mapping[str, Optimizer]) -> None:
        self.count = len(params["means"])
        self.room = -(-self.count // LANES) * LANES
        sizes = [params[name][0].numel() if self.count else 0 for name in GROUPS]
        bounds = np.cumsum([0, *(self.room * size for size in sizes)])
        self.starts, self.stride, self.degree = bounds[:-1], sizes[-1], -1
        self.values, self.gradients, self.first, self.second = (np.zeros(bounds[-1], np.float32) for _ in range(4))
        self.pieces = _pieces(bounds)
        self.splats = np.empty((self.room, projection.COLUMNS), np.float32)
        self.sums = np.empty((self.room, compositor.SUMS), np.float32)
        self.taken: dict[str, int] = {}
        self._params = dict(params)
        self._gradients = {name: self._view(self.gradients, name) for name in GROUPS}
        begin = int(bounds[descent.OPACITIES])
        self.values[begin + self.count : begin + self.room] = descent.UNSEEN_LOGIT
        for name in GROUPS:
            self._adopt(name, params[name], optimisers[name])

    def _adopt(self, name: str, parameter: Parameter, optimiser: Optimizer) -> None:
        """Copy a group in, and let its tensors be views of the copies."""
        state = optimiser.state[parameter]
        first, second = self._view(self.first, name), self._view(self.second, name)
        if "step" in state:
            first.copy_(state["exp_avg"])
            second.copy_(state["exp_avg_sq"])
        value = self._view(self.values, name)
        value.copy_(parameter.detach())
        parameter.data = value
        taken = state.get("step", torch.zeros(()))
        self.taken[name] = int(taken)
        optimiser.state[parameter] = {"step": taken, "exp_avg": first, "exp_avg_sq": second}

    def _view(self, flat: np.ndarray, name: str) -> Tensor:
        shape, start = self._params[name].shape, int(self.starts[GROUPS.index(name)])
        return torch.from_numpy(flat[start : start + shape.numel()]).view(shape)

    def holds(self, params: Mapping[str, Parameter]) -> bool:
        """Whether these are the parameters that were copied in."""
        return all(params[name] is parameter for name, parameter in self._params.items())

    def uses(self, degree: int) -> None:
        """Gradients of harmonics above the degree are 0."""
        if degree != self.degree:
            self.gradients[self.starts[descent.SH_REST] :] = 0
            self.degree = degree

    def gradient(self, name: str) -> Tensor | None:
        """Of a group; None before the first degree of view-dependent colour."""
        return None if name == "sh_rest" and self.degree < 1 else self._gradients[name]


def _pieces(bounds: np.ndarray) -> np.ndarray:
    """[P, 3] first and last + 1 of at most `_PIECE` floats of one group, and the group."""
    return np.array(
        [
            (first, min(first + _PIECE, stop), group)
            for group, (start, stop) in enumerate(pairwise(bounds.tolist()))
            for first in range(start, stop, _PIECE)
        ],
        np.int64,
    ).reshape(-1, 3)


def _camera_rows(cameras: Cameras, settings: RasterSettings) -> Float[np.ndarray, "V C"]:
    """Cameras as the kernels read them (see `evalsuite.splats.cpu.descent`)."""
    rows = np.zeros((len(cameras), descent.CAMERA))
    views = cameras.cam_from_world.double().numpy()
    rows[:, : descent.FOCAL_X] = views[:, :3].reshape(-1, descent.FOCAL_X)
    focal, centre = cameras.focal_px.double().numpy(), cameras.centre_px.double().numpy()
    size = np.array([cameras.width, cameras.height])
    rows[:, descent.FOCAL_X : descent.CENTRE_X], rows[:, descent.CENTRE_X : descent.WIDTH] = focal, centre
    rows[:, descent.WIDTH : descent.POSITION] = size
    rows[:, descent.POSITION : descent.U_LOW] = -np.einsum("vji,vj->vi", views[:, :3, :3], views[:, :3, 3])
    margin = projection.FOV_MARGIN * 0.5 * size / focal
    rows[:, [descent.U_LOW, descent.V_LOW]] = -(centre / focal + margin)
    rows[:, [descent.U_HIGH, descent.V_HIGH]] = (size - centre) / focal + margin
    rows[:, descent.NEAR :] = settings.near_plane, settings.far_plane, settings.eps2d
    return rows.astype(np.float32)
