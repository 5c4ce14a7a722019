"""LGM weights: the package's own ``lgm-mini``, and the public checkpoints in the publisher's layout."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from evalsuite.core.errors import BadWeightsError, MissingDataError
from evalsuite.core.mirror import places
from evalsuite.models.lgm.config import CONFIGS
from evalsuite.models.lgm.network import LGM

MINI_PATH = Path(__file__).with_name("lgm-mini.safetensors")

PUBLIC_FILES = {"lgm-big": "model_fp16_fixrot.safetensors"}
"""Public checkpoint of each model that has one; the hub's other files predate the rotation fix."""

_IGNORED_PREFIX = "lpips_loss."
"""Keys of the loss network that some published files still carry."""

_DTYPES = ("F16", "F32")


def weights_path(name: str) -> Path:
    """Where the weights of a registered model are on this machine.

    Raises:
        UnknownNameError: no such model.
        MissingDataError: no weights for it; the message says where to put them.
    """
    config = CONFIGS[name]
    if name == "lgm-mini":
        candidates: tuple[Path, ...] = (MINI_PATH,)
    elif name in PUBLIC_FILES:
        candidates = places(Path("weights/lgm") / PUBLIC_FILES[name])
    else:
        raise MissingDataError(f"{config.name} has no public weights; use lgm-mini or lgm-big")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    source = "train it with evalsuite train" if name == "lgm-mini" else "the hub's ashawkey/LGM"
    raise MissingDataError(f"no weights of {name} on this machine; put them at {candidates[-1]} (from {source})")


def load_lgm(name: str) -> LGM:
    """A registered network with its weights, float32, on the CPU, in evaluation mode.

    Args:
        name: ``lgm-mini`` (in the package) or ``lgm-big`` (``$EVALSUITE_MIRROR/weights/lgm`` or ``data/weights/lgm``).

    Raises:
        UnknownNameError, MissingDataError, BadWeightsError: see `weights_path` and `load_state`.
    """
    path = weights_path(name)
    with torch.device("meta"):
        model = LGM(CONFIGS[name])
    load_state(model, path)
    return model.eval()


def load_state(model: LGM, path: Path) -> None:
    """Load a safetensors file strictly, as float32 on the CPU.

    ``lpips_loss.*`` is dropped; every other key, shape and dtype must match before the model is touched.

    Raises:
        BadWeightsError: not a whole safetensors file, or a tensor that does not fit; the message names the first
            differing key and both shapes.
    """
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: file.get_slice(key) for key in file.keys() if not key.startswith(_IGNORED_PREFIX)}  # noqa: SIM118
            shapes = {key: tuple(part.get_shape()) for key, part in found.items()}
            _check(model, path, shapes, {key: part.get_dtype() for key, part in found.items()})
            state = {key: file.get_tensor(key).float() for key in found}
    except (SafetensorError, OSError) as error:
        raise BadWeightsError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error
    model.load_state_dict(state, strict=True, assign=True)


def _check(model: LGM, path: Path, shapes: dict[str, tuple[int, ...]], dtypes: dict[str, str]) -> None:
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for key in sorted(expected.keys() | shapes.keys()):
        if expected.get(key) != shapes.get(key):
            raise BadWeightsError(
                f"{path}: {key} is {shapes.get(key, 'absent')} in the file, {expected.get(key, 'absent')} in "
                f"{model.config.name}: use the checkpoint of this configuration"
            )
        if dtypes[key] not in _DTYPES:
            raise BadWeightsError(f"{path}: {key} is {dtypes[key]}; expected {' or '.join(_DTYPES)}: convert the file")
