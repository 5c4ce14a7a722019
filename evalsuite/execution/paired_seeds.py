"""The cases of suite ``quality`` in two checkouts, side by side: one process of one thread for each side.

What a seed gives does not depend on the minute it runs in, so sides need no turns, and a lap has all the seeds that are
asked for: a scene is made once for them. Cases that a side has finished before stay (``--resume``).
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from evalsuite.core.errors import NotComparableError, OptionError
from evalsuite.execution.checkouts import Checkout, environment, last_line, run_python
from evalsuite.records.schema import Record
from evalsuite.records.store import RecordStore

SUITE = "quality"
STEPS = 200

_LOG = "log.txt"
_POLL_SECONDS, _LOG_EVERY_SECONDS = 0.5, 60.0
_ASK = f"""import json
from evalsuite.scenes.catalogue import SUITES
suite = SUITES[{SUITE!r}] if {SUITE!r} in list(SUITES) else None
cases = suite and sorted(case.id for trajectory in suite.trajectories() for case in trajectory.cases)
print(json.dumps(suite and [suite.protocol.hash, cases]))
"""


@dataclass(frozen=True)
class Sides:
    """Base and head of a comparison, with the folder of what they have run.

    Attributes:
        folder: absolute; each side's records lie below, whichever seeds they are of.
    """

    base: Checkout
    head: Checkout
    folder: Path
    device: str = "cpu"

    def stores(self) -> tuple[RecordStore, RecordStore]:
        """Records of base and head."""
        base, head = (RecordStore(self.out(name) / "records" / SUITE) for name in ("base", "head"))
        return base, head

    def out(self, name: str) -> Path:
        """Where a side, ``base`` or ``head``, writes."""
        return self.folder / SUITE / name


def require_one_suite(base: Checkout, head: Checkout) -> None:
    """Refuse sides that would not run the same cases under the same protocol, before they run any.

    Raises:
        NotComparableError: a side without the suite, another protocol, other cases.
        OptionError: a side that cannot be asked.
    """
    said = []
    for side in (base, head):
        asked = run_python(side.python, side.root, ("-c", _ASK))
        if asked.returncode != 0:
            raise OptionError(f"{side.name} does not tell its suites: {last_line(asked.stderr)}")
        said.append(json.loads(last_line(asked.stdout)))
        if said[-1] is None:
            raise NotComparableError(
                f"{side.name} knows no suite {SUITE!r}, expected newer code on both sides: compare speed with "
                "--only time"
            )
    (protocol, cases), (other, others) = said
    if protocol != other:
        raise NotComparableError(
            f"{base.name} follows protocol {protocol} in suite {SUITE!r}, {head.name} {other}, expected one: a change "
            "of protocol is judged by new goldens (evalsuite approve)"
        )
    if cases != others:
        odd = sorted(set(cases) ^ set(others))
        raise NotComparableError(
            f"suite {SUITE!r} has {len(cases)} cases in {base.name} and {len(others)} in {head.name} (first on one "
            f"side only: {odd[0]}), expected the same: a change of suite is judged by new goldens (evalsuite approve)"
        )


def run_seeds(
    sides: Sides, seeds: Sequence[int], settings: Collection[str], tell: Callable[[str], None]
) -> tuple[list[Record], list[Record]]:
    """Run both sides under these seeds; the records of base and head.

    Args:
        settings: case names without the scene, of seed 0; a lap runs their arms whole, the rest is not returned.
        tell: is told now and then how far the laps are.

    Raises:
        OptionError: a lap failed; the message ends with its last line.
    """
    arms = sorted({setting.split("-")[0] for setting in settings})
    arguments = [part for arm in arms for part in ("--arm", arm)]
    arguments += [part for seed in seeds for part in ("--seed", str(seed))]
    _run_both(sides, arguments, tell)
    base, head = (
        [r for r in store if r.seed in seeds and f"{r.arm}-{r.budget}-n{r.steps}" in settings]
        for store in sides.stores()
    )
    return base, head


def _run_both(sides: Sides, arguments: Sequence[str], tell: Callable[[str], None]) -> None:
    running: list[subprocess.Popen[bytes]] = []
    try:
        running += [_started(sides, name, arguments) for name in ("base", "head")]
        codes = _ended(running, sides, tell)
    finally:  # one lap alone is of no use, nor are both once nobody waits for them
        for process in running:
            process.kill()
            process.wait()
    for code, name, side in zip(codes, ("base", "head"), (sides.base, sides.head), strict=True):
        if code:
            said = (sides.out(name) / _LOG).read_text(errors="replace")
            raise OptionError(f"a lap of {side.name} failed ({code}): {last_line(said)}")


def _started(sides: Sides, name: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    side, out = sides.base if name == "base" else sides.head, sides.out(name)
    command = (
        *(str(side.python), "-m", "evalsuite.cli", "run", "--suite", SUITE, "--steps", str(STEPS), *arguments),
        *("--workers", "1", "--resume", "--device", sides.device, "--out", str(out)),
    )
    out.mkdir(parents=True, exist_ok=True)
    with (out / _LOG).open("wb") as log:
        return subprocess.Popen(
            command, cwd=side.root, env=environment(side.root), stdout=subprocess.DEVNULL, stderr=log
        )


def _ended(running: Sequence[subprocess.Popen[bytes]], sides: Sides, tell: Callable[[str], None]) -> list[int | None]:
    """Exit codes when both have ended well, or one has not; None for one that still runs."""
    start = last = time.monotonic()
    while True:
        codes = [process.poll() for process in running]
        if any(codes) or None not in codes:
            return codes
        time.sleep(_POLL_SECONDS)
        if time.monotonic() - last > _LOG_EVERY_SECONDS:
            last = time.monotonic()
            done = [sum(1 for _ in store.root.glob("*/*.json")) for store in sides.stores()]
            tell(f"quality: {done[0]} cases of base, {done[1]} of head, {last - start:.0f} s")
