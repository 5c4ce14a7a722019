"""LPIPS: the `lpips` package over torchvision's backbones, which are taken from files of known SHA-256 or not at all.

Nothing here opens a connection. A backbone that is not on this machine is `MissingDataError`; a file of another hash,
whatever it holds, is `WrongHashError`: look-alike or random weights give plausible numbers that mean nothing.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from evalsuite.core.errors import BadWeightsError, MissingDataError, UnsupportedError, WrongHashError
from evalsuite.core.mirror import places
from evalsuite.metrics.image import require_pair

FOLDER = Path("weights/torchvision")
"""In a mirror, or in ``data/``."""

MOST_BYTES = 8 << 30
"""Most that the features of a pair of views may take."""


@dataclass(frozen=True)
class Backbone:
    """A network whose features LPIPS compares.

    Attributes:
        net: its name in the `lpips` package.
        file: torchvision's file of its weights.
        sha256: of that file, 64 hexadecimal digits.
        smallest_px: the shortest image side that gives every layer a feature.
        bytes_per_pixel: peak of all features of a pair of views.
    """

    net: Literal["alex", "vgg", "squeeze"]
    file: str
    sha256: str
    smallest_px: int
    bytes_per_pixel: int


_ALEX_SHA256 = "7be5be791159472b1fbf3c69796f7cb30dca7ad8466c2df70058c37116cdee02"
_VGG_SHA256 = "397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"
_SQUEEZE_SHA256 = "b8a52dc049b60e4b6ab68ad0df457362afab8b6304b2febdc1650a5dab4d7e7b"

ALEX = Backbone("alex", "alexnet-owt-7be5be79.pth", _ALEX_SHA256, smallest_px=31, bytes_per_pixel=260)
VGG = Backbone("vgg", "vgg16-397923af.pth", _VGG_SHA256, smallest_px=16, bytes_per_pixel=2800)
SQUEEZE = Backbone("squeeze", "squeezenet1_1-b8a52dc0.pth", _SQUEEZE_SHA256, smallest_px=17, bytes_per_pixel=800)

BACKBONES: Mapping[str, Backbone] = {"lpips-alex": ALEX, "lpips-vgg": VGG}
"""Metric id to backbone; ``SQUEEZE`` serves the acceptance test only."""


def find_backbone(backbone: Backbone) -> Path:
    """The backbone's file, in the mirror or in ``data/``, once its hash is known to be right.

    Raises:
        MissingDataError: there is none; the message ends with the command that brings it.
        WrongHashError: the first one found is another file.
    """
    found = next((path for path in places(FOLDER / backbone.file) if path.is_file()), None)
    if found is None:
        raise MissingDataError(
            f"no {backbone.file} on this machine, expected torchvision's weights in data/{FOLDER}: "
            "run `evalsuite fetch lpips`"
        )
    state = found.stat()
    digest = _sha256(found, state.st_size, state.st_mtime_ns)
    if digest != backbone.sha256:
        raise WrongHashError(
            backbone.file, digest, backbone.sha256, f"delete {found}, then run `evalsuite fetch lpips`"
        )
    return found


def refuse_wrong_backbones() -> None:
    """Find out before hours of work, not after them, that a backbone's file is not the right one.

    Raises:
        WrongHashError: see `find_backbone`; one that is not there is no error here.
    """
    for backbone in BACKBONES.values():
        with suppress(MissingDataError):
            find_backbone(backbone)


@lru_cache(maxsize=4)
def load_network(backbone: Backbone, path: Path, device: torch.device) -> nn.Module:
    """The `lpips` network with the linear layers of its package over a backbone's weights, in evaluation mode.

    Args:
        path: from `find_backbone`.

    Raises:
        BadWeightsError: the file is not a state dictionary of that backbone.
    """
    import lpips  # torchvision takes seconds to start, and most processes measure no LPIPS

    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        # the package asks torchvision for random weights, by a name that torchvision has deprecated
        warnings.filterwarnings("ignore", category=UserWarning, module="torchvision")
        network = lpips.LPIPS(net=backbone.net, pnet_rand=True, verbose=False)
    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
        # slice2.3.weight is torchvision's features.3.weight
        state = {name: weights[f"features.{name.split('.', 1)[1]}"] for name in network.net.state_dict()}
        network.net.load_state_dict(state, strict=True)
    except (KeyError, TypeError, RuntimeError, UnpicklingError) as error:
        raise BadWeightsError(
            f"{path} does not fit {backbone.net} ({type(error).__name__}: {str(error).split(chr(10))[0]}); expected "
            "torchvision's state dictionary: delete it, then run `evalsuite fetch lpips`"
        ) from error
    return network.requires_grad_(False).eval().to(device)


@torch.no_grad()
def lpips_distance(
    backbone: Backbone, pred: Float[Tensor, "V H W 3"], true: Float[Tensor, "V H W 3"]
) -> Float[Tensor, "V"]:
    """LPIPS 0.1 of each view (Zhang et al. 2018, eq. 1), >= 0, in float32; one view at a time.

    Images are sRGB in [0, 1] and mapped to the [-1, 1] that the networks were calibrated in.

    Raises:
        ShapeError, NonFiniteError: see `evalsuite.metrics.image`.
        UnsupportedError: views too small for the backbone, or too large for `MOST_BYTES`.
        MissingDataError, WrongHashError, BadWeightsError: see `find_backbone` and `load_network`.
    """
    require_pair(pred, true)
    height, width = true.shape[1:3]
    require_size(backbone, width, height)
    network = load_network(backbone, find_backbone(backbone), true.device)
    first, second = (2 * image.permute(0, 3, 1, 2) - 1 for image in (pred, true))
    return torch.cat([network(p[None], t[None]).flatten() for p, t in zip(first, second, strict=True)]).double()


def require_size(backbone: Backbone, width: int, height: int) -> None:
    """Refuse views that a backbone cannot see, or whose features do not fit into memory.

    Raises:
        UnsupportedError: see above.
    """
    needed = width * height * backbone.bytes_per_pixel
    if min(width, height) < backbone.smallest_px:
        raise UnsupportedError(
            f"views of {width} x {height} px, expected at least {backbone.smallest_px} px for lpips-{backbone.net}: "
            "raise the protocol's resolution"
        )
    if needed > MOST_BYTES:
        raise UnsupportedError(
            f"lpips-{backbone.net} of {width} x {height} px would take {needed / 2**30:.0f} GiB, expected at most "
            f"{MOST_BYTES / 2**30:.0f}: lower the protocol's resolution"
        )


@lru_cache(maxsize=8)
def _sha256(path: Path, size: int, modified_ns: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
