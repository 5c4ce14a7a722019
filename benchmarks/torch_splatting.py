"""The peer: the same splatting in plain float32 torch ops and autograd, tile by tile.

It is given the engine's own tile lists, the parameterisation and the loss in plain torch, and as many threads.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from benchmarks.workloads import WHITE, Listed
from evalsuite.core.conventions import rgb_from_sh0
from evalsuite.core.types import Cameras, Gaussians
from evalsuite.splats.cpu.tiles import TILE


def _rotations(quats: Tensor) -> Tensor:
    w, x, y, z = normalize(quats, dim=1).unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=1).view(-1, 3, 3)


def render(gaussians: Gaussians, camera: Cameras, listed: Listed) -> Tensor:
    """Image [H, W, 3] over white of degree-0 Gaussians, none of them behind the camera."""
    pose, focal = camera.cam_from_world[0], camera.focal_px[0]
    points = gaussians.means @ pose[:3, :3].T + pose[:3, 3]
    x, y, z = points.unbind(1)
    zero = torch.zeros_like(z)
    jacobian = torch.stack([focal[0] / z, zero, -focal[0] * x / z**2, zero, focal[1] / z, -focal[1] * y / z**2], 1)
    axes = jacobian.view(-1, 2, 3) @ pose[:3, :3] @ _rotations(gaussians.quats) * gaussians.scales[:, None]
    covariance = axes @ axes.transpose(1, 2) + 0.3 * torch.eye(2)
    conics = torch.linalg.inv(covariance)
    means2d = focal * points[:, :2] / z[:, None] + camera.centre_px[0]
    colours = rgb_from_sh0(gaussians.sh[:, 0]).clamp_min(0)
    starts, entries = listed.lists[:2]
    across = -(-camera.width // TILE)
    rows: list[Tensor] = []
    for t in range(len(starts) - 1):
        ids = torch.from_numpy(entries[starts[t] : starts[t + 1]].astype("int64"))
        left, top = t % across * TILE + 0.5, t // across * TILE + 0.5
        py, px = torch.meshgrid(top + torch.arange(TILE), left + torch.arange(TILE), indexing="ij")
        d = torch.stack([px, py], dim=-1).view(1, -1, 2) - means2d[ids][:, None]
        a, b, c = conics[ids][:, 0, 0, None], conics[ids][:, 0, 1, None], conics[ids][:, 1, 1, None]
        sigma = 0.5 * (a * d[..., 0] ** 2 + c * d[..., 1] ** 2) + b * d[..., 0] * d[..., 1]
        alpha = (gaussians.opacities[ids, None] * torch.exp(-sigma)).clamp_max(0.999)
        alpha = torch.where(alpha >= 1 / 255, alpha, 0.0)
        after = torch.cumprod(1 - alpha, dim=0)
        alpha = torch.where(after > 1e-4, alpha, 0.0)
        after = torch.cumprod(1 - alpha, dim=0)
        before = torch.cat([torch.ones(1, TILE**2), after])
        rows.append((alpha * before[:-1]).T @ colours[ids] + before[-1][:, None] * WHITE)
    tiles = torch.stack(rows).view(-1, across, TILE, TILE, 3)
    return tiles.transpose(1, 2).reshape(-1, across * TILE, 3)[: camera.height, : camera.width]
