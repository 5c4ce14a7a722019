"""The log of a training run, and its curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def read_log(out: Path) -> list[dict[str, int | float]]:
    """Entries of a run's ``log.jsonl``, oldest first; none if there is no log."""
    path = out / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def plot_curves(entries: Sequence[dict[str, int | float]], path: Path) -> None:
    """Losses (every entry) and held-out scores (entries that have them) against samples, as a PNG.

    Args:
        entries: log of a run; see `read_log`.
        path: file to write.
    """
    figure = Figure(figsize=(8, 2.6), layout="constrained")
    losses, psnr, iou = figure.subplots(1, 3)
    samples = [entry["samples"] for entry in entries]
    for name in ("rgb", "alpha", "ssim", "surface"):
        losses.semilogy(samples, [entry[name] for entry in entries], label=name, linewidth=1)
    losses.legend(fontsize=7)
    losses.set_ylabel("training losses")
    scored = [entry for entry in entries if "psnr_fg_db" in entry]
    for axes, name, label in ((psnr, "psnr_fg_db", "held-out PSNR, dB"), (iou, "alpha_iou", "held-out alpha IoU")):
        axes.plot([entry["samples"] for entry in scored], [entry[name] for entry in scored], ".-", linewidth=1)
        axes.set_ylabel(label)
    for axes in (losses, psnr, iou):
        axes.set_xlabel("samples")
        axes.grid(alpha=0.3)
    FigureCanvasAgg(figure)
    figure.savefig(path, dpi=100)
