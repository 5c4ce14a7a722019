"""Backbone files in torchvision's layout: its names and shapes, random weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import alexnet, squeezenet1_1, vgg16

from evalsuite.metrics.perceptual import FOLDER, Backbone

MODELS: dict[str, Callable[[], nn.Module]] = {"alex": alexnet, "vgg": vgg16, "squeeze": squeezenet1_1}


def random_state(net: str, seed: int = 0) -> dict[str, Tensor]:
    """A state dictionary with features of the size that training leaves; the classifier is all zeros, held once."""
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in MODELS[net]().state_dict().items()}
    draw = torch.Generator().manual_seed(seed)

    def tensor(name: str, shape: torch.Size) -> Tensor:
        if not name.startswith("features."):
            return torch.zeros(1).expand(shape)
        fan_in = shape[1:].numel()
        return torch.randn(shape, generator=draw) * ((2 / fan_in) ** 0.5 if len(shape) > 1 else 0.05)

    return {name: tensor(name, shape) for name, shape in shapes.items()}


def write_backbone(root: Path, backbone: Backbone, *, old_format: bool = False, seed: int = 0) -> Backbone:
    """Write a file where a mirror at ``root`` would have it; returns the backbone that has this file's hash.

    Args:
        old_format: as `torch.save` wrote before torch 1.6, which is what the publisher's VGG16 still is.
    """
    path = root / FOLDER / backbone.file
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(random_state(backbone.net, seed), path, _use_new_zipfile_serialization=not old_format)
    return replace(backbone, sha256=hashlib.sha256(path.read_bytes()).hexdigest())
