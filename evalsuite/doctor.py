"""`evalsuite doctor`: what this machine has, and whether its LPIPS gives the value that is documented for it."""

from __future__ import annotations

from collections.abc import Iterator

import numba
import torch

from evalsuite import __version__
from evalsuite.core.errors import BadDataError
from evalsuite.core.machine import fingerprint
from evalsuite.fetch.fetching import Source
from evalsuite.fetch.ledger import Ledger, file_sha256
from evalsuite.fetch.listing import place
from evalsuite.fetch.manifest import Item, Manifest
from evalsuite.metrics.perceptual import SQUEEZE, Backbone, lpips_distance

LPIPS_DOCUMENTED = (0.1024, 0.0938)
"""Per pair, by the example in torchmetrics' documentation of LPIPS (``reduction="none"``), to four digits."""

LPIPS_TOLERANCE = 1e-4


def machine_lines() -> Iterator[str]:
    """Versions, device and threads."""
    found = fingerprint("cuda" if torch.cuda.is_available() else "cpu")
    device = found["gpu"] or found["cpu"]
    yield f"evalsuite {__version__}, Python {found['python']} on {found['system']}"
    yield f"device    {found['device_class']}: {device}, {found['cores']} cores"
    yield f"threads   torch {torch.get_num_threads()}, Numba {numba.get_num_threads()}"
    yield "versions  " + ", ".join(f"{name} {version}" for name, version in found["versions"].items())


def data_lines(manifest: Manifest, source: Source) -> Iterator[tuple[str, bool]]:
    """What of the manifest is here: files with the state of their hash, folders by their number.

    Every plain file that has a known hash is read whole. What is absent is no fault; a wrong hash is: then the second
    value is False.
    """
    groups: dict[str, list[Item]] = {}
    for item in manifest.items.values():
        groups.setdefault(item.id.split("/")[0], []).append(item)
    for name, items in groups.items():
        places = [place(item, source) for item in items]
        here = len(items) - places.count("no")
        step = "" if here == len(items) else f"; run `evalsuite fetch {name}`"
        yield f"{name:9} {here} of {len(items)} here{step}", True
        for item, where in zip(items, places, strict=True):
            if item.archive is None and where != "no":
                state, good = _file_state(item, source)
                yield f"{'':9} {item.id}: {state}", good


def _file_state(item: Item, source: Source) -> tuple[str, bool]:
    root = source.root if place(item, source) == "data" else source.mirror_folder
    assert root is not None
    path = root / item.to
    known = Ledger(source.root).read().get(item.id)
    expected, origin = item.sha256, "manifest"
    if expected is None and known is not None:
        expected, origin = known.source_sha256, "first download"
    if expected is None:
        return f"{path}, no hash is known to hold it against", True
    found = file_sha256(path)
    if found == expected:
        return f"{path}, sha256 as in the {origin}", True
    step = f"delete it, then run `evalsuite fetch {item.id}`"
    return f"{path}, WRONG: sha256 is {found}, expected {expected} (of the {origin}): {step}", False


def lpips_acceptance(backbone: Backbone = SQUEEZE, expected: tuple[float, ...] = LPIPS_DOCUMENTED) -> tuple[float, ...]:
    """Run torchmetrics' documented example on our LPIPS: two pairs of noise from seed 42, 100 px, over SqueezeNet.

    Returns:
        The values, which are the documented ones to `LPIPS_TOLERANCE`.

    Raises:
        MissingDataError, WrongHashError, BadWeightsError: no backbone, or not the right one.
        BadDataError: other values.
    """
    draw = torch.Generator().manual_seed(42)
    first, second = (torch.rand(2, 3, 100, 100, generator=draw).permute(0, 2, 3, 1) for _ in range(2))
    found = tuple(lpips_distance(backbone, first, second).tolist())
    if max(abs(value - wanted) for value, wanted in zip(found, expected, strict=True)) > LPIPS_TOLERANCE:
        raise BadDataError(
            f"LPIPS of the documented pairs is {', '.join(f'{value:.4f}' for value in found)}, expected "
            f"{', '.join(f'{value:.4f}' for value in expected)}: install what requirements.lock says"
        )
    return found
