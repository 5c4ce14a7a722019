"""``doctor``, ``fetch`` and ``prepare``: what is on this machine, and bringing the rest."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn

from evalsuite.commands.study import TABLE_WIDTH
from evalsuite.core.errors import EvalsuiteError, OptionError
from evalsuite.core.mirror import DATA, mirror
from evalsuite.execution.preflight import require_folder
from evalsuite.fetch.manifest import Item, load_manifest
from evalsuite.scenes.catalogue import SUITES

if TYPE_CHECKING:
    from evalsuite.fetch.fetching import Outcome


def doctor(options: argparse.Namespace) -> int:
    """Say what this machine has; 1 if a file is not what it should be."""
    from evalsuite.doctor import data_lines, lpips_acceptance, machine_lines
    from evalsuite.fetch.fetching import Source

    if options.lpips:
        values = lpips_acceptance()
        print(f"LPIPS is right: {', '.join(f'{value:.4f}' for value in values)} for the documented pairs")
        return 0
    for line in machine_lines():
        print(line)
    found = list(data_lines(load_manifest(), Source(DATA, mirror(), offline=True)))
    for line, _ in found:
        print(line)
    return 0 if all(good for _, good in found) else 1


def bring(options: argparse.Namespace) -> int:
    """Bring data, or list it; 1 if something did not come."""
    if not options.what and not options.list:
        raise OptionError("nothing to fetch was named; expected suites, groups or items: see evalsuite fetch --list")
    manifest = load_manifest()
    items = manifest.select(options.what) if options.what else tuple(manifest.items.values())
    from evalsuite.fetch.fetching import Outcome, Source, fetch
    from evalsuite.fetch.listing import listing

    offline = options.offline or os.environ.get("EVALSUITE_OFFLINE", "") not in ("", "0")
    if options.list:
        console = Console()
        console.width = max(console.width, TABLE_WIDTH)
        console.print(listing(items, Source(DATA, mirror(), offline)))
        return 0
    if not items:
        print(f"nothing to fetch: {', '.join(options.what)} needs no data")
        return 0
    columns = ("{task.description}", BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    errors = Console(stderr=True)
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("download", total=None)
        source = Source(DATA, mirror(), offline, lambda done, total: bar.update(task, completed=done, total=total))
        results = fetch(items, source, _tell, lambda: errors.print("another fetch is at work here: waiting for it"))
    done = [result for result in results.values() if isinstance(result, Outcome)]
    lines = [line for outcome in done if (line := outcome.manifest_line())]
    if lines:
        print("hashes that the manifest does not know yet; to hold them for everybody, add:", *lines, sep="\n  ")
    print(f"{len(done)} of {len(items)} items are in {DATA}")
    return 0 if len(done) == len(items) else 1


def _tell(item: Item, result: Outcome | EvalsuiteError) -> None:
    from evalsuite.fetch.listing import size_text

    if isinstance(result, EvalsuiteError):
        print(f"evalsuite: {result}", file=sys.stderr)
        return
    content = result.entry.content
    come = "present" if result.origin == "present" else f"from the {result.origin}"
    digest = (result.entry.source_sha256 or content.sha256)[:12]
    print(f"{item.id}: {come}, {size_text(content.bytes)} in {content.files} files; sha256 {digest} {result.rule}")


def prepare(options: argparse.Namespace) -> int:
    """Prepare the scenes of a suite; 2 if one failed."""
    SUITES.require(options.suite)
    require_folder(options.out, "--out")
    from evalsuite.scenes.preparation import prepare as prepare_suite

    failed = False
    for scene in prepare_suite(options.suite, options.out, options.workers):
        print(f"{scene.scene}: {scene.outcome} in {scene.seconds:.1f} s", flush=True)
        if scene.error:
            failed = True
            print(f"evalsuite: {scene.error}", file=sys.stderr)
    return 2 if failed else 0
