"""Speed and memory of the image metrics, and the table of docs/metrics.md.

    python -m benchmarks.metrics [--threads 1 2] [--large] [--json FILE]   # times, in turns with torchmetrics
    python -m benchmarks.metrics --reference                               # each metric beside another package

Run the first on an otherwise idle machine. LPIPS appears where its weights are (`evalsuite fetch lpips`).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import flip_evaluator
import torch
from rich.console import Console
from rich.table import Table
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torch.nn.functional import interpolate
from torchmetrics.functional.classification import binary_jaccard_index
from torchmetrics.functional.image import structural_similarity_index_measure
from torchmetrics.functional.image.lpips import _LPIPS

from evalsuite.core.errors import MissingDataError
from evalsuite.core.memory import peak_bytes, reset_peak
from evalsuite.execution.local import fix_threads
from evalsuite.metrics.image import alpha_iou, flip, psnr, psnr_fg, ssim
from evalsuite.metrics.perceptual import BACKBONES, find_backbone, load_network, lpips_distance

VIEWS, SIZE = 20, 128
REPEATS = 9
LARGE = (3286, 4946)
"""Height and width of the largest photographs of Mip-NeRF 360."""


def pair(size: tuple[int, int] = (SIZE, SIZE), views: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    """A blurry truth on white and a noisy render of it, on the 8-bit grid, [V, H, W, 3]."""
    draw = torch.Generator().manual_seed(seed)
    blocks = torch.rand(views, 3, 6, 6, generator=draw)
    true = interpolate(blocks, size, mode="bilinear").permute(0, 2, 3, 1) * silhouette(size)[..., None]
    true = true + 1 - silhouette(size)[..., None]
    pred = true + 0.1 * torch.randn(true.shape, generator=draw) * silhouette(size)[..., None]
    first, second = ((image.clamp(0, 1) * 255).round() / 255 for image in (pred, true))
    return first.contiguous(), second.contiguous()


def silhouette(size: tuple[int, int], shift: float = 0.0) -> Tensor:
    """A disc over a quarter of the image, 1 inside."""
    y, x = (torch.arange(n).add(0.5).div(n).sub(0.5 + shift) for n in size)
    return (y[:, None] ** 2 + x[None] ** 2 < 0.08).float()


def planes(image: Tensor) -> Tensor:
    """As torchmetrics has images: [V, 3, H, W]."""
    return image.permute(0, 3, 1, 2).contiguous()


def in_turns(ways: dict[str, Callable[[], object]], repeats: int = REPEATS) -> dict[str, float]:
    """Median milliseconds of each, measured one after the other in every round."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats + 1):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            times[name].append(1e3 * (time.perf_counter() - began))
    return {name: statistics.median(found[1:]) for name, found in times.items()}


def speed(threads: int) -> Iterator[tuple[str, float]]:
    """Figures by name: milliseconds, ratios."""
    fix_threads(threads)
    pred, true = pair(views=VIEWS)
    views = [(pred[[k]], true[[k]]) for k in range(VIEWS)]
    found = in_turns(
        {name: lambda m=metric: [m(*view) for view in views] for name, metric in METRICS.items()},  # type: ignore[misc]
    )
    for name, milliseconds in found.items():
        yield f"{name}, {VIEWS} views of {SIZE} px, {threads} threads, ms", milliseconds
    yield f"the three together, {threads} threads, s", sum(found.values()) / 1e3
    for size in (128, 256, 800):
        pred, true = pair((size, size))
        first, second = planes(pred), planes(true)
        ours = in_turns(
            {
                "ours": lambda p=pred, t=true: ssim(p, t),  # type: ignore[misc]
                "torchmetrics": lambda p=first, t=second: structural_similarity_index_measure(p, t, data_range=1.0),  # type: ignore[misc]
            }
        )
        yield f"ssim of {size} px, {threads} threads, ms", ours["ours"]
        yield f"ssim of {size} px, {threads} threads, torchmetrics' time over ours", ours["torchmetrics"] / ours["ours"]


METRICS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"psnr": psnr, "ssim": ssim, "flip-67": flip}


def memory() -> Iterator[tuple[str, float]]:
    """Megabytes beyond the images themselves, and seconds, for one photograph of the largest size."""
    pred, true = torch.rand(2, 1, *LARGE, 3, generator=torch.Generator().manual_seed(0))
    for name, metric in METRICS.items():
        metric(pred[:, :64, :64], true[:, :64, :64])
        reset_peak()
        before, began = peak_bytes(), time.perf_counter()
        metric(pred, true)
        yield f"{name} of {LARGE[1]} x {LARGE[0]} px, s", time.perf_counter() - began
        yield f"{name} of {LARGE[1]} x {LARGE[0]} px, MB", (peak_bytes() - before) / 1e6


Row = tuple[str, str, float, float, float]


def line(row: Row) -> str:
    """One row of the table, in Markdown."""
    name, settings, ours, theirs, tolerance = row
    return f"| `{name}` | {settings} | {ours:.5f} | {theirs:.5f} | {tolerance:g} |"


def reference() -> Iterator[Row]:
    """Metric, the other package with its settings, our value, its value, tolerance; on `pair`."""
    pred, true = pair()
    p, t = (image[0].double().numpy() for image in (pred, true))
    mask = silhouette((SIZE, SIZE))[None] > 0.5
    inside = mask[0].numpy()
    skimage_psnr = peak_signal_noise_ratio(t, p, data_range=1)  # type: ignore[no-untyped-call]
    skimage_fg = peak_signal_noise_ratio(t[inside], p[inside], data_range=1)  # type: ignore[no-untyped-call]
    yield "psnr", "scikit-image, data_range=1", psnr(pred, true).item(), skimage_psnr, 1e-6
    yield (
        "psnr-fg",
        "scikit-image, masked pixels, data_range=1",
        psnr_fg(pred, true, mask).item(),
        skimage_fg,
        1e-6,
    )
    mean = structural_similarity(  # type: ignore[no-untyped-call]
        t, p, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2, data_range=1
    )
    settings = "scikit-image, gaussian_weights, sigma=1.5, use_sample_covariance=False, data_range=1"
    yield "ssim", settings, ssim(pred, true).item(), mean, 1e-6
    field = structural_similarity_index_measure(planes(pred), planes(true), data_range=1.0, return_full_image=True)[1]
    cropped = field[..., 5:-5, 5:-5].mean().item()  # its mean counts reflected borders too
    yield "ssim", "torchmetrics, data_range=1, full image less 5 px", ssim(pred, true).item(), cropped, 1e-4
    theirs = flip_evaluator.evaluate(
        true[0].numpy(), pred[0].numpy(), "LDR", applyMagma=False, parameters={"vc": [0.7, 3840, 0.7]}
    )[1]
    yield (
        "flip-67",
        "flip-evaluator 1.7, LDR, vc=[0.7, 3840, 0.7]",
        flip(pred, true).item(),
        theirs,
        1e-6,
    )
    moved = silhouette((SIZE, SIZE), 0.02)[None]
    theirs = binary_jaccard_index(moved, mask.int()).item()
    yield "alpha-iou", "torchmetrics, binary_jaccard_index", alpha_iou(moved, mask.float()).item(), theirs, 1e-6
    for name, backbone in BACKBONES.items():
        try:
            ours = lpips_distance(backbone, pred, true).item()
        except MissingDataError:
            continue
        network = _LPIPS(pretrained=True, net=backbone.net, pnet_rand=True)  # its own way would open a connection
        state = load_network(backbone, find_backbone(backbone), torch.device("cpu")).net.state_dict()
        network.net.load_state_dict(dict(zip(network.net.state_dict(), state.values(), strict=True)))
        theirs = network(planes(pred), planes(true), normalize=True).item()
        yield name, f"torchmetrics, net_type={backbone.net}, normalize=True", ours, theirs, 1e-5


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--large", action="store_true", help="also time and memory of one photograph of 16 megapixels")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2], help="default: 1 2")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    parser.add_argument("--reference", action="store_true", help="the table of docs/metrics.md, in Markdown")
    options = parser.parse_args()
    if options.reference:
        print("| metric | the other package and its settings | ours | its | tolerance |\n|---|---|---:|---:|---:|")
        for row in reference():
            print(line(row))
        return
    figures = dict(figure for threads in options.threads for figure in speed(threads))
    if options.large:
        figures |= dict(memory())
    table = Table("figure", "value")
    for name, value in figures.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, sort_keys=True, indent=1) + "\n")


if __name__ == "__main__":
    main()
