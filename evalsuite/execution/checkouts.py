"""Two checkouts of evalsuite run in turns, each in processes of its own with its own code.

A lap is one process: layout of memory and luck of the allocator differ from process to process by some per cent, so
repeats within a process would agree with each other and be wrong together (Kalibera & Jones 2013).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import evalsuite
from evalsuite.core.errors import NotComparableError, OptionError
from evalsuite.records.schema import Record
from evalsuite.records.store import RecordStore

LAP = ("--suite", "smoke", "--scene", "smoke.blob", "--arm", "b", "--arm", "c", "--steps", "0", "--steps", "200")
"""Forward pass, SfM, photometric steps with density control, rendering: every phase that an asset costs."""

_WARM = ("--suite", "smoke", "--scene", "smoke.blob", "--arm", "mean-colour")
_RECORDS = Path("records/smoke")
_ONE_THREAD = {"NUMBA_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Threads that wait for each other multiply what neighbours on the machine do to a lap."""

_LAP_SECONDS = 1800.0


@dataclass(frozen=True)
class Checkout:
    """A folder with the code of one side, and the interpreter that runs it.

    Attributes:
        name: as the user gave it.
        commit: what is checked out.
    """

    name: str
    root: Path
    python: Path
    commit: str


@contextmanager
def checkout(name: str, scratch: Path) -> Iterator[Checkout]:
    """A folder, or a git revision of the repository here, which lives in a work tree below ``scratch`` meanwhile.

    The interpreter is that of the checkout's own ``.venv``, else the one that runs now.

    Raises:
        OptionError: neither a checkout nor a revision, uncommitted changes, or an environment that cannot import it.
    """
    if Path(name).is_dir():
        yield _opened(name, Path(name))
        return
    commit = _git(Path(), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}")
    if commit is None:
        raise OptionError(f"{name} is neither a folder nor a git revision here; expected a checkout of evalsuite")
    tree = scratch / f"tree-{commit[:12]}-{len(list(scratch.iterdir()))}"
    if _git(Path(), "worktree", "add", "--quiet", "--detach", str(tree), commit) is None:
        raise OptionError(f"git made no work tree of {name} in {scratch}: see `git worktree list`, then prune")
    try:
        yield _opened(name, tree)
    finally:
        _git(Path(), "worktree", "remove", "--force", str(tree))


def laps(
    base: Checkout, head: Checkout, pairs: int, folder: Path, device: str = "cpu"
) -> Iterator[tuple[list[Record], list[Record]]]:
    """Yield (base, head) records of each pair of laps; who goes first alternates: A B, B A, A B ...

    Args:
        folder: of the laps; those that an earlier call has ended there are kept.

    Raises:
        OptionError: a lap failed; the message ends with its last line.
        NotComparableError: the sides follow different protocols; said after the warm lap, before any time is spent.
    """
    # warm: compiles kernels into the checkout's cache
    warm = [_lap(side, _WARM, folder / f"warm-{place}", device) for place, side in enumerate((base, head))]
    protocols = [" and ".join(sorted({record.protocol_hash for record in lap})) for lap in warm]
    if protocols[0] != protocols[1]:
        raise NotComparableError(
            f"{base.name} follows protocol {protocols[0]}, {head.name} {protocols[1]}, expected one: their work "
            "differs, not their speed; a change of protocol is judged by new goldens (evalsuite approve)"
        )
    for pair in range(pairs):
        order = (base, head) if pair % 2 == 0 else (head, base)
        found = _pair(order, folder / f"pair-{pair}", device)
        yield (found[0], found[1]) if pair % 2 == 0 else (found[1], found[0])


def fingerprint(side: Checkout) -> str:
    """Twelve hexadecimal digits over the commit and the environment, every library's installed code included.

    Raises:
        OptionError: the environment lacks a library.
    """
    code = "import sys; from evalsuite.core.machine import libraries; print(sys.version, sorted(libraries().items()))"
    # this code, whatever the side's own age, in the side's environment
    asked = run_python(side.python, Path(evalsuite.__file__).parents[1], ("-c", code))
    if asked.returncode != 0:
        raise OptionError(f"{side.python} lacks what {side.name} needs ({last_line(asked.stderr)}): `make environment`")
    return hashlib.sha256(f"{side.commit} {asked.stdout}".encode()).hexdigest()[:12]


def _opened(name: str, folder: Path) -> Checkout:
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or not (Path(top) / "evalsuite" / "cli.py").is_file():
        raise OptionError(f"{name} is not a git checkout of evalsuite; expected a folder with evalsuite/cli.py in it")
    root = Path(top)
    changed = (_git(root, "status", "--porcelain", "--untracked-files=no") or "").splitlines()
    if changed:
        raise OptionError(
            f"{name} has {len(changed)} changed files (first: {changed[0][2:].strip()}), expected none, or nobody "
            "could repeat the comparison: commit or stash them"
        )
    own = root / ".venv" / "bin" / "python"
    python = own if own.exists() else Path(sys.executable)
    probe = run_python(python, root, ("-c", "import evalsuite.cli; print(evalsuite.cli.__file__)"))
    found = Path(last_line(probe.stdout)).resolve()
    if probe.returncode != 0 or not found.is_relative_to(root.resolve()):
        raise OptionError(
            f"{python} does not import evalsuite from {name} ({last_line(probe.stderr or probe.stdout)}); "
            "run `make environment` there"
        )
    return Checkout(name, root, python, _git(root, "rev-parse", "HEAD") or "")


def _pair(order: Sequence[Checkout], out: Path, device: str) -> list[list[Record]]:
    """Two timed laps. Their folder appears when both have ended: a lap alone has lost its minute of the machine."""
    places = [str(place) for place in range(len(order))]
    if out.is_dir():
        return [list(RecordStore(out / place / _RECORDS)) for place in places]
    running = out.with_suffix(".running")
    shutil.rmtree(running, ignore_errors=True)
    running.mkdir(parents=True)
    found = [_lap(side, LAP, running / place, device) for place, side in zip(places, order, strict=True)]
    running.rename(out)
    return found


def _lap(side: Checkout, arguments: Sequence[str], out: Path, device: str) -> list[Record]:
    command = ("-m", "evalsuite.cli", "run", *arguments, "--workers", "1", "--device", device, "--out", str(out))
    done = run_python(side.python, side.root, command)
    if done.returncode != 0:
        raise OptionError(f"a lap of {side.name} failed: {last_line(done.stderr)}")
    return list(RecordStore(out / _RECORDS))


def environment(root: Path) -> dict[str, str]:
    """Of a process that imports the package of a checkout and has one thread."""
    return {**os.environ, **_ONE_THREAD, "PYTHONPATH": str(root)}


def run_python(python: Path, root: Path, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run an interpreter to its end, with the package of a checkout and one thread.

    Raises:
        OptionError: it cannot be started, or takes longer than a lap may.
    """
    try:
        return subprocess.run(
            [str(python), *arguments],
            cwd=root, env=environment(root), capture_output=True, text=True, check=False, timeout=_LAP_SECONDS,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OptionError(
            f"{python} did not run to its end in {root} ({error}); run `make environment` there"
        ) from None


def _git(folder: Path, *arguments: str) -> str | None:
    done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def last_line(text: str) -> str:
    """What a process said last, which is where errors say what happened."""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no output"
