"""Command line of evalsuite: doctor, data, runs, noise, approval, comparison, report, training.

Only what parses a command line is imported here; what a command does lies in `evalsuite.commands`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evalsuite import __version__
from evalsuite.core.errors import EvalsuiteError
from evalsuite.core.registry import resolve
from evalsuite.models.lgm.config import TRAINABLE
from evalsuite.models.lgm.files import MINI_PATH
from evalsuite.models.lgm.settings import TrainSettings
from evalsuite.scenes.catalogue import PREPARED, SUITES

INTERRUPTED, BROKEN_PIPE = 130, 141
"""Exit codes of shells for programs that ended by SIGINT and SIGPIPE."""

_DEVICES = ("cpu", "cuda")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code. User errors are one line on stderr and code 2."""
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()
    except EvalsuiteError as error:
        return _refused(str(error))
    except KeyboardInterrupt:
        print("evalsuite: interrupted; what was finished is kept", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except OSError as error:
        if error.filename is None:
            raise
        return _refused(
            f"{error.filename}: {error.strerror}; expected a file or folder that can be read and written: free it, or "
            "name another"
        )


def _run(arguments: Sequence[str] | None) -> int:
    parser = build_parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    return int(resolve(f"evalsuite.commands.{options.command}")(options))


def _refused(reason: str) -> int:
    print(f"evalsuite: {reason}", file=sys.stderr)
    return 2


def build_parser() -> argparse.ArgumentParser:
    """Every command with its options; ``options.command`` is ``module:function`` below `evalsuite.commands`."""
    parser = argparse.ArgumentParser(prog="evalsuite", description=__doc__.splitlines()[0])
    parser.add_argument("--version", action=_Version, help="say which version this is, and of which commit")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", help="`evalsuite COMMAND --help` says more")
    _add_doctor(commands)
    _add_fetch(commands)
    _add_run(commands)
    _add_noise(commands)
    _add_approve(commands)
    _add_diff(commands)
    _add_report(commands)
    _add_prepare(commands)
    _add_facts(commands)
    _add_compare(commands)
    _add_train(commands)
    return parser


class _Version(argparse.Action):
    """As argparse's own, but git is asked for the commit only when somebody wants to know."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from evalsuite.core.machine import commit

        found = commit()
        changed = ", with uncommitted changes" if found["dirty"] else ""
        print(f"evalsuite {__version__}" + (f" (commit {found['commit'][:12]}{changed})" if found["commit"] else ""))
        parser.exit()


def _command(commands: Any, name: str, target: str, text: str) -> argparse.ArgumentParser:
    """A command; argparse names no public type for sub-parsers."""
    sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    sub.set_defaults(command=target)
    return sub


def _add_suite(sub: argparse.ArgumentParser) -> None:
    """What every command about a suite's records has."""
    sub.add_argument("--suite", default="smoke", help=f"one of {', '.join(SUITES)} (default: smoke)")
    sub.add_argument("--model", help="network of arms A and B instead of the suite's, e.g. lgm-big")
    sub.add_argument("--out", default="out", type=Path, help="folder of records and page (default: out)")


def _add_execution(sub: argparse.ArgumentParser) -> None:
    """How trajectories are run."""
    sub.add_argument("--workers", type=_at_least_one, help="processes (default: one per core; 1 on a GPU)")
    sub.add_argument("--weights", type=Path, help="file of the network's weights (default: the mirror's, or data/)")
    _add_device(sub)
    sub.add_argument("--resume", action="store_true", help="keep cases that this very code has finished")


def _add_device(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--device", choices=_DEVICES, default="cpu", help="what computes (default: cpu)")


def _add_run(commands: Any) -> None:
    run = _command(commands, "run", "study:run", "run a suite and write its records, without judging them")
    _add_suite(run)
    run.add_argument("--scene", action="append", default=[], help="run this scene only; may be repeated")
    run.add_argument("--arm", action="append", default=[], help="run this arm only; may be repeated")
    run.add_argument("--steps", action="append", default=[], type=int, help="run this N only; may be repeated")
    run.add_argument("--seed", action="append", default=[], type=_seed, help="run this seed; may be repeated")
    _add_execution(run)


def _add_noise(commands: Any) -> None:
    noise = _command(commands, "noise", "study:noise", "repeat the optimised arms with other seeds")
    _add_suite(noise)
    noise.add_argument(
        "--seeds", nargs="*", type=_seed, default=[1, 2, 3, 4], help="none: do nothing (default: 1 2 3 4)"
    )
    _add_execution(noise)


def _add_approve(commands: Any) -> None:
    text = "make the records the goldens, where they moved beyond tolerance"
    approval = _command(commands, "approve", "goldens:check_and_approve", text)
    _add_suite(approval)
    approval.add_argument("--reason", required=True, help="goes into golden/CHANGES.md")
    approval.add_argument("--seeds", nargs="*", type=_seed, default=[], help="seeds that `noise` has run")
    approval.add_argument("--noise", type=Path, help="folder that `noise` had as --out (default: that of --out)")
    approval.add_argument("--golden", default="golden", type=Path, help="folder of the goldens (default: golden)")
    approval.add_argument(
        "--claims",
        type=Path,
        help="claims to seal the terms of (default: tests/ablation/claims.toml, if it is there)",
    )
    approval.add_argument("--prune", action="store_true", help="delete goldens of cases that the suite does not have")
    approval.add_argument(
        "--new-machine", action="store_true", help="this machine takes the place of the one the goldens came from"
    )
    approval.add_argument("--timing", action="store_true", help="also declare this machine: its speed becomes a golden")


def _add_diff(commands: Any) -> None:
    text = "show what moved against the goldens; judges and writes nothing"
    difference = _command(commands, "diff", "goldens:diff", text)
    _add_suite(difference)
    difference.add_argument("--golden", default="golden", type=Path, help="folder of the goldens (default: golden)")
    _add_device(difference)


def _add_report(commands: Any) -> None:
    report = _command(commands, "report", "study:report", "print the tables and write the page from records")
    _add_suite(report)
    report.add_argument("--weights", type=Path, help="file of the network's weights, which says what training took")
    report.add_argument("--numbers", type=Path, help="folder for means and Pareto curve, in files that DVC shows")


def _add_prepare(commands: Any) -> None:
    text = "bring every scene of a suite into its prepared form"
    preparation = _command(commands, "prepare", "data:prepare", text)
    preparation.add_argument("suite", help=f"one of {', '.join(SUITES)}")
    preparation.add_argument(
        "--out", default=Path("data") / PREPARED, type=Path, help="folder of prepared scenes (default: data/prepared)"
    )
    preparation.add_argument("--workers", type=_at_least_one, help="processes (default: one per core)")


def _add_facts(commands: Any) -> None:
    for name, text in (
        ("scenes", "load every scene of a suite and write what it holds to scenes.json"),
        ("weights", "write the hash of the suite's network weights to weights.json"),
        ("machine", "write this machine's fingerprint to machine.json"),
    ):
        sub = _command(commands, name, f"facts:{name}", text)
        _add_suite(sub)
        if name == "machine":
            _add_device(sub)


def _add_compare(commands: Any) -> None:
    text = "is HEAD worse or slower than BASE? Runs both and judges paired differences; exit code 1 if it is"
    comparison = _command(commands, "compare", "comparison:compare", text)
    comparison.add_argument("base", help="folder of a checkout, or a git revision")
    comparison.add_argument("head", help="folder of a checkout, or a git revision")
    comparison.add_argument("--only", choices=("quality", "time"), help="judge only this (default: both)")
    comparison.add_argument("--pairs", type=int, default=12, help="timed laps of each, at least 10 (default: 12)")
    comparison.add_argument("--threshold", type=float, default=0.05, help="slowdown that counts (default: 0.05, 5 %%)")
    comparison.add_argument("--out", default="out", type=Path, help="folder of what has been run (default: out)")
    _add_device(comparison)


def _add_train(commands: Any) -> None:
    text = "train lgm-mini on ray-traced views of meshes; started again, a run goes on from its checkpoint"
    train = _command(commands, "train", "training:train", text)
    train.add_argument("--data", type=Path, required=True, help="folder of *.glb scans (the mirror's train_meshes)")
    train.add_argument("--out", type=Path, required=True, help="folder of the run")
    train.add_argument("--cache", type=Path, help="folder of ray-traced views (default: cache/ in the run's folder)")
    model, steps = TrainSettings.model, TrainSettings.steps
    train.add_argument("--model", choices=tuple(TRAINABLE), default=model, help=f"what to train (default: {model})")
    train.add_argument(
        "--steps", type=int, default=steps, help=f"length of the run and its schedule (default: {steps})"
    )
    train.add_argument(
        "--procedural", type=_seed, default=500, help="procedural objects beside the scans (default: 500)"
    )
    _add_device(train)
    train.add_argument("--export", type=Path, nargs="?", const=MINI_PATH, help="no training: write weights and card")
    train.add_argument("--ablation", type=Path, action="append", default=[], help="run to compare in the card")


def _add_doctor(commands: Any) -> None:
    text = "say what this machine has: versions, threads, data and weights with the state of their hash"
    doctor = _command(commands, "doctor", "data:doctor", text)
    doctor.add_argument("--lpips", action="store_true", help="hold LPIPS against a value documented elsewhere, instead")


def _add_fetch(commands: Any) -> None:
    text = "bring data that is not in the repository: from $EVALSUITE_MIRROR, else from its publisher"
    fetching = _command(commands, "fetch", "data:bring", text)
    fetching.add_argument("what", nargs="*", help="suites, groups or items, as --list names them")
    fetching.add_argument("--list", action="store_true", help="say what there is, its licence, and whether it is here")
    fetching.add_argument("--offline", action="store_true", help="open no connection (also: EVALSUITE_OFFLINE=1)")


def _at_least_one(text: str) -> int:
    return _bounded(text, 1)


def _seed(text: str) -> int:
    return _bounded(text, 0)


def _bounded(text: str, least: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise argparse.ArgumentTypeError(f"{text!r}, expected a whole number of at least {least}")
    return number


if __name__ == "__main__":
    sys.exit(main())
