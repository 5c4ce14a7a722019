"""What must not change a bit of the engine's results, and where its compiled kernels may live."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_rasterise import picture_and_gradients

import evalsuite
from evalsuite.splats.loss import photometric_loss

_PACKAGE = Path(evalsuite.__file__).parent
_DIGEST = "import test_kernels; print(test_kernels.digest())"
_COMPILE = """
import numpy as np
from evalsuite.splats.cpu.tiles import depth_order
depth_order(np.zeros((1, 12), np.float32))
print(sum(depth_order.stats.cache_hits.values()))
"""
_LOSS = """
import torch
from evalsuite.splats.cpu import photometric
from evalsuite.splats.loss import photometric_loss
a, b = torch.rand(2, 24, 24, 3, generator=torch.Generator().manual_seed(0))
print(photometric_loss(a, b, 0.2).item(), sum(photometric.blur_rows.stats.cache_hits.values()))
"""


def digest() -> str:
    """Hash of pictures, gradients and losses of one scene."""
    draw = torch.Generator().manual_seed(0)
    image, target = torch.rand(2, 50, 70, 3, generator=draw)
    image.requires_grad_()
    loss = photometric_loss(image, target, 0.2)
    torch.autograd.backward(loss)
    results = hashlib.sha256()
    for values in [*picture_and_gradients(), loss.detach(), image.grad]:
        results.update(values.detach().contiguous().numpy().tobytes())
    return results.hexdigest()


def test_the_compiler_changes_no_bit(tmp_path: Path) -> None:
    """Kernels compiled just now with another optimisation level compute what those in the cache do."""
    folders = os.pathsep.join([str(_PACKAGE.parent), str(Path(__file__).parent)])
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "NUMBA_OPT": "1", "PYTHONPATH": folders}
    done = subprocess.run([sys.executable, "-c", _DIGEST], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest()


@pytest.mark.parametrize("home", ["home", "nowhere"])
def test_copies_of_the_package_share_the_users_kernels(home: str, tmp_path: Path) -> None:
    """The second copy finds what the first compiled in the user's cache; kernels work where nothing can be written."""
    copies = [tmp_path / "first", tmp_path / "second"]
    for copy in copies:
        shutil.copytree(_PACKAGE, copy / "evalsuite", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"))
        (copy / "evalsuite/splats/cpu/__pycache__").write_text("not a folder: nothing can be written, even by root")
    (tmp_path / "home").mkdir()
    (tmp_path / "nowhere").write_text("not a folder either")
    environment = {k: v for k, v in os.environ.items() if k not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    environment |= {"HOME": str(tmp_path / home)}
    hits = []
    for copy in copies:
        there = environment | {"PYTHONPATH": str(copy)}
        done = subprocess.run(
            [sys.executable, "-c", _COMPILE], env=there, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        hits.append(done.stdout.strip())
    assert hits == (["0", "1"] if home == "home" else ["0", "0"])


def test_a_changed_intrinsic_is_compiled_into_every_kernel(tmp_path: Path) -> None:
    """Numba alone would go on with the machine code of before: the kernel's own file has not changed."""
    shutil.copytree(_PACKAGE, tmp_path / "evalsuite", ignore=shutil.ignore_patterns("*.safetensors", "*.nb?"))
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def loss() -> str:
        done = subprocess.run(
            [sys.executable, "-c", _LOSS], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True
        )
        return done.stdout

    compiled, loaded = loss(), loss()
    simd = tmp_path / "evalsuite/splats/cpu/simd.py"
    right = '"llvm.fma.v16f32", arguments)'
    assert right in simd.read_text()
    simd.write_text(simd.read_text().replace(right, '"llvm.fma.v16f32", [*arguments[:2], arguments[1]])'))
    assert compiled.split()[1] == "0"
    assert loaded.split() == [compiled.split()[0], "1"]
    broken = loss().split()
    assert broken[1] == "0"
    assert broken[0] != compiled.split()[0]
