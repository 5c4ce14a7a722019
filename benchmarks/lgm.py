"""Figures of the published network at full size: seconds, memory, and what bfloat16 costs.

    python -m benchmarks.lgm [--model lgm-big] [--json FILE]

Weights are random and lie in a file of the published layout (float16), so loading is measured too. Every dtype runs in
a process of its own, since peak memory only rises. Run it on an otherwise idle machine, or on a CUDA one.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import save_file
from torch import Tensor

from evalsuite.core.memory import peak_bytes
from evalsuite.execution.local import fix_threads
from evalsuite.models.lgm.config import CONFIGS
from evalsuite.models.lgm.network import LGM
from evalsuite.models.lgm.weights import load_lgm

THREADS = 2
REPEATS = 3
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def random_checkpoint(name: str, path: Path) -> None:
    """A float16 file of the published layout; weights are scaled so that activations keep their size."""
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in LGM(CONFIGS[name]).state_dict().items()}

    def made(key: str, shape: torch.Size) -> Tensor:
        if len(shape) > 1:
            return torch.randn(shape, generator=generator).mul_((1.5 / shape[1:].numel()) ** 0.5).half()
        return torch.ones(shape).half() if key.endswith("weight") else torch.zeros(shape).half()

    save_file({key: made(key, shape) for key, shape in shapes.items()}, path)


def measure(name: str, path: Path, dtype: str, device: str) -> tuple[dict[str, Any], Tensor]:
    """Load, then run: seconds and peak memory, and the raw output for comparison."""
    fix_threads(THREADS)
    began = time.perf_counter()
    model = load_lgm(name, path, DTYPES[dtype]).to(device)
    loading = time.perf_counter() - began
    size = CONFIGS[name].input_size
    x = torch.randn(1, 4, 9, size, size, generator=torch.Generator().manual_seed(1)).to(device)
    times = []
    with torch.no_grad():
        for _ in range(1 + REPEATS):
            began = time.perf_counter()
            raw = model(x)
            if device == "cuda":
                torch.cuda.synchronize()
            times.append(time.perf_counter() - began)
    figures = {
        "load_seconds": round(loading, 2),
        "first_seconds": round(times[0], 3),
        "forward_seconds": round(statistics.median(times[1:]), 3),
        "peak_gb": round(peak_bytes() / 1e9, 2),
    }
    return figures, raw.float().cpu()


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lgm", description=main.__doc__)
    parser.add_argument("--model", default="lgm-big", choices=sorted(CONFIGS))
    parser.add_argument("--json", type=Path, help="write the figures here too")
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    figures: dict[str, Any] = {"model": options.model, "device": device, "threads": THREADS}
    outputs = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.safetensors"
        random_checkpoint(options.model, path)
        figures["file_bytes"] = path.stat().st_size
        for dtype in DTYPES:
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
                figures[dtype], outputs[dtype] = pool.submit(measure, options.model, path, dtype, device).result()
    error = (outputs["bfloat16"] - outputs["float32"]).norm() / outputs["float32"].norm()
    figures["bfloat16"]["relative_error"] = round(float(error), 5)
    table = Table("dtype", "load s", "first s", "forward s", "peak GB", title=f"{options.model}, {device}")
    for dtype in DTYPES:
        row = figures[dtype]
        cells = (row[key] for key in ("load_seconds", "first_seconds", "forward_seconds", "peak_gb"))
        table.add_row(dtype, *map(str, cells))
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
