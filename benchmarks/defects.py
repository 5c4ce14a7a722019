"""Defects to put into a checkout, and what must notice them: see `benchmarks.mutants`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from evalsuite.core.machine import device_class
from evalsuite.metrics.spec import ENGINE
from evalsuite.plugin.verdict import NO_VERDICT

PASSED, FAILED = map(int, (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED))

GATE = ("tests/ablation",)
ENGINE_ALONE = (*GATE, "--suite", ENGINE)


@dataclass(frozen=True)
class Edit:
    """One change of one file.

    Attributes:
        before: text that occurs exactly once; empty: the whole file.
        after: what takes its place; None deletes the file.
    """

    path: str
    before: str
    after: str | None

    def apply(self, root: Path) -> None:
        """Change the file below a folder.

        Raises:
            ValueError: the text does not occur exactly once: the mutant is older than the code.
        """
        path = root / self.path
        if self.after is None:
            path.unlink()
            return
        text = path.read_text(encoding="utf-8")
        if text.count(self.before) != 1:
            raise ValueError(
                f"{self.path} has {text.count(self.before)} times {self.before!r}, expected 1: mend the mutant"
            )
        path.write_text(text.replace(self.before, self.after), encoding="utf-8")


@dataclass(frozen=True)
class Mutant:
    """A defect, and the runs that must notice it.

    Attributes:
        quick: arguments of pytest, each a run that fails by itself; what CI does.
        full: arguments of the run that the table is made from, which shows what the study sees without the probes;
            empty if ``quick`` says it all.
        exit_code: of every quick run; of the full one, too, where nothing is wrong.
        says: text that the output of every quick run has: the verdict's own line, not a word of the counts.
        in_ci: whether CI does the quick runs; else something else does nearly the same there.
    """

    name: str
    edits: tuple[Edit, ...]
    quick: tuple[tuple[str, ...], ...]
    full: tuple[str, ...] = ()
    exit_code: int = FAILED
    says: str = ""
    in_ci: bool = True


def _scenes(*scenes: str) -> tuple[str, ...]:
    return tuple(option for scene in scenes for option in ("--scene", scene))


def _arms(*arms: str) -> tuple[str, ...]:
    return tuple(option for arm in arms for option in ("--arm", arm))


def _steps(*steps: int) -> tuple[str, ...]:
    return tuple(option for n in steps for option in ("--steps", str(n)))


_PAIRS = (("blob", "chair"), ("castle", "creature"), ("truck", "wheel"))
_TWO = _scenes(*(f"smoke.{kind}" for kind in _PAIRS[0]))
_FEEDFORWARD = (*GATE, *_TWO, *_arms("a"))
_WARMSTART = (*GATE, *_TWO, *_arms("b"), *_steps(50))
_FLOOR = (*GATE, *_scenes("smoke.blob"), *_arms("mean-colour"))
_FORWARD_TABLE = (*GATE, *_arms("a", "b", "c"), *_steps(0, 200))
_LEARNING_TABLE = (*GATE, *_arms("b", "c"), *_steps(50, 200))
_GOLDEN = f"golden/smoke/{device_class('cpu')}/smoke.blob/mean-colour.json"


def _seen_by_probes(name: str, probe: str, path: str, before: str, after: str, in_ci: bool = False) -> Mutant:
    """A defect that the probes alone must call ``worse`` or ``failed``, in one of them by name."""
    return Mutant(name, (Edit(path, before, after),), (ENGINE_ALONE,), says=f" engine/{probe}: ", in_ci=in_ci)


def _seen_by_study(name: str, arguments: tuple[str, ...], path: str, before: str, after: str) -> Mutant:
    """A defect of what no probe looks at: network, metrics, split."""
    return Mutant(name, (Edit(path, before, after),), (arguments,), says=f"{'worse':12} ", in_ci=False)


_RASTERISE = "evalsuite/splats/rasterise.py"
"""What CI's mutants of the renderer edit: an edit below ``cpu`` compiles every kernel anew."""

_PROJECTION, _STEP = "evalsuite/splats/cpu/projection.py", "evalsuite/splats/cpu/descent.py"
_OPTIMISE, _DENSITY, _LOSS = (f"evalsuite/splats/{name}.py" for name in ("optimise", "density", "loss"))
_INPUTS, _IMAGE = "evalsuite/models/lgm/inputs.py", "evalsuite/metrics/image.py"

_OF_THE_ENGINE = (
    _seen_by_probes(
        "sign-of-a-quaternion-gradient",
        "slopes",
        _RASTERISE,
        "        return *grads, None, None",
        "        v_quats[:, 1] *= -1\n        return *grads, None, None",
        in_ci=True,
    ),
    _seen_by_probes(
        "scale-gradients-swapped",
        "slopes",
        _PROJECTION,
        "v_scales[n, 0] += va0 * t00 + vb0 * t10\n        v_scales[n, 1] +=",
        "v_scales[n, 1] += va0 * t00 + vb0 * t10\n        v_scales[n, 0] +=",
    ),
    _seen_by_probes(
        "sign-of-a-quaternion-gradient-in-the-step",
        "slopes",
        _STEP,
        "(gx - along * x) * norm",
        "(along * x - gx) * norm",
    ),
    _seen_by_probes(
        "half-a-pixel-in-the-step",
        "slopes",
        _STEP,
        "inverse, splat(camera[CENTRE_X]))",
        "inverse, splat(camera[CENTRE_X] + _HALF))",
    ),
    _seen_by_probes(
        "harmonics-never-move",
        "late-steps",
        "evalsuite/splats/descent.py",
        "self.degree < 1 else",
        "self.degree < 4 else",
        in_ci=True,
    ),
    _seen_by_probes("position-rate-never-decays", "schedules", _OPTIMISE, " * self.decay**step", "", in_ci=True),
    _seen_by_probes(
        "density-threshold-doubled", "density", _DENSITY, "grow_grad2d=recipe", "grow_grad2d=2 * recipe", in_ci=True
    ),
    _seen_by_probes("scale-rate-0.9", "steps", _OPTIMISE, '"scales": recipe', '"scales": 0.9 * recipe'),
    _seen_by_probes(
        "half-the-dssim-weight",
        "slopes",
        _OPTIMISE,
        "(view, degree, self.recipe.ssim_weight)",
        "(view, degree, 0.5 * self.recipe.ssim_weight)",
    ),
    _seen_by_probes("adam-eps-1e-6", "steps", _OPTIMISE, "eps=1e-15", "eps=1e-6"),
    _seen_by_probes("one-step-less", "steps", _OPTIMISE, "while step < n:", "while step < n - 1:"),
    _seen_by_probes(
        "alpha-cut-1/128",
        "forward",
        "evalsuite/splats/cpu/compositor.py",
        "np.float32(1.0 / 255.0)",
        "np.float32(1.0 / 128.0)",
    ),
    _seen_by_probes(
        "sorted-by-distance",
        "forward",
        _PROJECTION,
        "out[DEPTH] = z\n",
        "out[DEPTH] = math.sqrt(x * x + y * y + z * z)\n",
    ),
    # from here on nobody had tried them when the probes were made
    _seen_by_probes(
        "dssim-halved-in-the-value-alone",
        "loss",
        _LOSS,
        "l1 + weight * (1 - ssim), gradient",
        "l1 + weight * (1 - ssim) / 2, gradient",
    ),
    _seen_by_probes("harmonics-50-steps-early", "schedules", _OPTIMISE, "min(step // ", "min((step + 50) // "),
    _seen_by_probes(
        "views-drawn-with-replacement",
        "steps",
        _OPTIMISE,
        "torch.randperm(len(self.cameras), generator",
        "torch.randint(len(self.cameras), (len(self.cameras),), generator",
    ),
    _seen_by_probes("opacity-reset-to-the-threshold", "density", _DENSITY, "value=2 * self", "value=self"),
    _seen_by_probes(
        "weakest-kept-at-the-cap", "density", _DENSITY, "max(room, 0)).indices", "max(room, 0), largest=False).indices"
    ),
    _seen_by_probes(
        "softplus-for-scales",
        "slopes",
        _OPTIMISE,
        'torch.exp(p["scales"])',
        'torch.nn.functional.softplus(p["scales"])',
    ),
    _seen_by_probes(
        "low-pass-0.1", "forward", "evalsuite/splats/rasterise.py", "eps2d: float = 0.3", "eps2d: float = 0.1"
    ),
    _seen_by_probes(
        "screen-gradient-of-one-axis", "steps", _STEP, "splat(_HALF * camera[WIDTH])", "splat(_HALF * camera[HEIGHT])"
    ),
    _seen_by_probes(
        "positions-not-scaled-by-the-extent", "schedules", _OPTIMISE, "recipe.lr_means * extent", "recipe.lr_means"
    ),
    _seen_by_probes(
        "direction-not-free-of-length",
        "slopes",
        _PROJECTION,
        "v_quats[n, 3] += (gz - along * qz) * norm",
        "v_quats[n, 3] += gz * norm",
    ),
)

_OF_THE_STUDY = (
    _seen_by_study(
        "inputs-reversed", _FEEDFORWARD, _INPUTS, "images, alpha, plucker(", "images.flip(0), alpha, plucker("
    ),
    _seen_by_study(
        "moment-the-other-way-round",
        _FEEDFORWARD,
        _INPUTS,
        "cross(origin, direction), direction]",
        "cross(direction, origin), direction]",
    ),
    _seen_by_study(
        "splats-not-turned-into-the-scene",
        _FEEDFORWARD,
        _INPUTS,
        "_quaternion_product(_quaternion(frame.rotation.T), gaussians.quats)",
        "gaussians.quats",
    ),
    replace(
        _seen_by_study("ssim-window-7", _FLOOR, _IMAGE, "_WINDOW, _SIGMA = 11, 1.5", "_WINDOW, _SIGMA = 7, 1.5"),
        exit_code=NO_VERDICT,  # missed: the mean colour's SSIM moves less than its floor
        says="0 worse",
    ),
    _seen_by_study(
        "foreground-psnr-of-all-pixels",
        _FLOOR,
        _IMAGE,
        "torch.where(mask[:, rows], error, 0.0)",
        "error",
    ),
    _seen_by_study(
        "budgets-mixed-up",
        _WARMSTART,
        "evalsuite/core/types.py",
        'whole = budget == "capture"',
        'whole = budget != "capture"',
    ),
)

MUTANTS: Mapping[str, Mutant] = {
    mutant.name: mutant
    for mutant in (
        Mutant(
            "half-of-one-conic-gradient",
            (
                Edit(
                    "evalsuite/splats/cpu/projection.py",
                    "np.float64(v_splats[n, SHEAR])",
                    "0.5 * np.float64(v_splats[n, SHEAR])",
                ),
            ),
            (ENGINE_ALONE,),
            _LEARNING_TABLE,
            says=" engine/backward: ",
            in_ci=False,
        ),
        Mutant(
            "blue-and-red-swapped",
            (
                Edit(
                    "evalsuite/splats/rasterise.py",
                    "return Raster(rgb, alpha, depth / ",
                    "return Raster(rgb.flip(-1), alpha, depth / ",
                ),
            ),
            (ENGINE_ALONE, _FEEDFORWARD),
            _FORWARD_TABLE,
            says=f"{'worse':12} ",
            in_ci=False,
        ),
        Mutant(
            "half-a-pixel",
            (
                Edit(
                    _RASTERISE,
                    "array(cameras.centre_px), cameras.width",
                    "array(cameras.centre_px) + 0.5, cameras.width",
                ),
            ),
            (ENGINE_ALONE, _FEEDFORWARD),
            _FORWARD_TABLE,
            says=f"{'worse':12} ",
        ),
        Mutant(
            "held-out-view-dropped",
            (
                Edit(
                    "evalsuite/metrics/evaluate.py",
                    "in enumerate(truth):",
                    "in enumerate(list(truth)[:-1]):",
                ),
            ),
            (_FLOOR,),
            says="over 20 views in golden, 19 now",
        ),
        Mutant(
            "harmonics-band-ignored",
            (
                Edit(
                    "evalsuite/splats/cpu/harmonics.py",
                    "for k in range(count):\n                value +=",
                    "for k in range(min(count, 9)):\n                value +=",
                ),
            ),
            (ENGINE_ALONE,),
            (*GATE, *_TWO, *_arms("b", "c"), *_steps(1000, 3000)),
            says=f"{'worse':12} engine/forward",
            in_ci=False,
        ),
        Mutant(
            "half-the-opacities-learning-rate",
            (
                Edit(
                    "evalsuite/splats/optimise.py",
                    '"opacities": recipe.lr_opacities',
                    '"opacities": 0.5 * recipe.lr_opacities',
                ),
            ),
            (ENGINE_ALONE, _WARMSTART),
            _LEARNING_TABLE,
            says=f"{'worse':12} ",
        ),
        Mutant(
            "unsynchronised-clock",
            (Edit("evalsuite/core/clock.py", "self._wait()\n        now = self._now()", "now = self._now()"),),
            (("tests/core/test_clock.py", "-p", "no:cacheprovider"),),
            says="test_work_of_the_device_belongs_to_the_phase_that_queued_it",
        ),
        Mutant(
            "renamed-case",
            (
                Edit(
                    "evalsuite/core/cases.py",
                    "parts = [t.arm]\n",
                    'parts = [t.arm.replace("mean-colour", "average")]\n',
                ),
            ),
            (_FLOOR,),
            says=f"{'no-golden':12} ",
            in_ci=False,
        ),
        Mutant("deleted-golden", (Edit(_GOLDEN, "", None),), (_FLOOR,), says=f"{'no-golden':12} ", in_ci=False),
        Mutant(
            "not-a-number",
            (
                Edit(
                    _IMAGE,
                    "return _decibels(total / true[0, ..., 0].numel())",
                    "return _decibels(total * math.nan)",
                ),
            ),
            (_FLOOR,),
            says=f"{'failed':12} smoke.blob/mean-colour: ",
        ),
        Mutant(
            "no-cases",
            (
                Edit(
                    "evalsuite/execution/selection.py",
                    "return tuple(case for trajectory in self.trajectories for case in trajectory.cases)",
                    "return ()",
                ),
            ),
            (_FLOOR,),
            says="0 of 0 cases were compared",
            in_ci=False,
        ),
        Mutant(
            "every-gpu-case-skipped",
            (),
            ((*GATE, "--suite", "smoke", "-m", "gpu"), (*GATE, "--suite", "smoke", "-m", "gpu", "--require-gpu")),
            says="cases were compared: nothing is known to be as good as it was",
        ),
        *_OF_THE_ENGINE,
        *_OF_THE_STUDY,
        Mutant(
            "supervised-by-held-out-views",
            (Edit("evalsuite/core/types.py", "supervision=self.capture if", "supervision=self.heldout if"),),
            (_WARMSTART,),
            exit_code=NO_VERDICT,
            says="0 worse",
            in_ci=False,
        ),
    )
}
"""Every defect that the gate must catch, by name; the last one is known to pass: it makes every number better."""


def other_seed(by: int) -> Mutant:
    """No defect: every optimisation draws its views and splits from another seed. The gate must pass.

    Seeds take turns with the scenes, two at a time.
    """
    edit = Edit(
        "evalsuite/execution/trajectory.py",
        "trajectory.steps, trajectory.stream, ",
        f"trajectory.steps, trajectory.stream + {by}, ",
    )
    scenes = _scenes(*(f"smoke.{kind}" for kind in _PAIRS[by % len(_PAIRS)]))
    return Mutant(
        f"seed-{by}", (edit,), (_WARMSTART,), (*GATE, *scenes, *_arms("b", "c"), *_steps(50, 200)), NO_VERDICT
    )


def more_threads() -> Mutant:
    """No defect: one process with all threads, where goldens were made with one thread in each of more processes."""
    runs = (*GATE, *_TWO, *_arms("a", "b"), *_steps(0, 50), "--workers", "1")
    return Mutant("more-threads", (), (runs,), (), NO_VERDICT)
