"""LGM weights: the package's own ``lgm-mini``, and the public checkpoints in the publisher's layout."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open

from evalsuite.core.errors import BadWeightsError
from evalsuite.models.lgm.config import CONFIGS, LGMConfig
from evalsuite.models.lgm.files import weights_path
from evalsuite.models.lgm.network import LGM

_IGNORED_PREFIX = "lpips_loss."
"""Keys of the loss network that some published files still carry."""

_DTYPES = ("F16", "F32")

_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
"""First bytes of what ``torch.save`` writes: a zip archive, or a bare pickle."""

Shapes = dict[str, tuple[int, ...]]


def load_lgm(name: str, path: Path | None = None, dtype: torch.dtype = torch.float32) -> LGM:
    """A registered network with its weights on the CPU, in evaluation mode.

    Args:
        name: ``lgm-mini`` (in the package) or another of `CONFIGS`.
        path: file of the weights; None looks for them, see `weights_path`.
        dtype: what the network computes in: float32, or bfloat16 for half the time (`LGM.in_dtype`).

    Raises:
        UnknownNameError, MissingDataError, BadWeightsError: see `weights_path` and `load_state`.
    """
    path = weights_path(name, path)
    model = _on_meta(CONFIGS[name]).in_dtype(dtype)
    load_state(model, path)
    return model.eval()


def load_state(model: LGM, path: Path) -> None:
    """Load a safetensors file strictly, in the dtypes the model has, on the CPU.

    ``lpips_loss.*`` is dropped; every other key, shape and dtype must match before the model is touched. Tensors are
    converted one by one out of the mapped file, so memory never holds the weights twice.

    Raises:
        BadWeightsError: not a whole safetensors file, or a tensor that does not fit; the message names the first
            differing key and both shapes.
    """
    _refuse_pickle(path)
    targets = {key: value.dtype for key, value in model.state_dict().items()}
    try:
        with safe_open(path, framework="pt") as file:
            found = {key: file.get_slice(key) for key in file.keys() if not key.startswith(_IGNORED_PREFIX)}  # noqa: SIM118
            shapes = {key: tuple(part.get_shape()) for key, part in found.items()}
            _check(model, path, shapes, {key: part.get_dtype() for key, part in found.items()})
            state = {key: file.get_tensor(key).to(targets[key]) for key in found}
    except (SafetensorError, OSError) as error:
        raise BadWeightsError(f"{path}: not a whole safetensors file ({error}); fetch it again") from error
    model.load_state_dict(state, strict=True, assign=True)


def _refuse_pickle(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(4)
    if start.startswith(_PICKLES):
        raise BadWeightsError(
            f"{path}: a pickle, which can run code when it is read; expected safetensors: take the publisher's "
            ".safetensors file"
        )


def _check(model: LGM, path: Path, shapes: Shapes, dtypes: Mapping[str, str]) -> None:
    expected = _shapes(model)
    for key in sorted(expected.keys() | shapes.keys()):
        if expected.get(key) != shapes.get(key):
            raise BadWeightsError(
                f"{path}: {key} is {shapes.get(key, 'absent')} in the file, {expected.get(key, 'absent')} in "
                f"{model.config.name}: {_advice(shapes)}"
            )
        if dtypes[key] not in _DTYPES:
            raise BadWeightsError(f"{path}: {key} is {dtypes[key]}; expected {' or '.join(_DTYPES)}: convert the file")


def _advice(shapes: Shapes) -> str:
    for name in CONFIGS:
        if _shapes(_on_meta(CONFIGS[name])) == shapes:
            return f"these are weights of {name}, load them as that"
    return "use the checkpoint of this configuration"


def _shapes(model: LGM) -> Shapes:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


def _on_meta(config: LGMConfig) -> LGM:
    """Names and shapes without memory."""
    with torch.device("meta"):
        return LGM(config)
