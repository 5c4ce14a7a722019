"""Records grouped by arm, budget and N, and the tables of cases and of strata.

A case that gave no number stays in every table as its status, and a mean says over how many scenes it runs.
Unbounded scenes are never pooled with objects.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import get_args

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape, render
from rich.measure import Measurement
from rich.table import Table

from evalsuite.core.cases import BUDGETS, Stratum
from evalsuite.core.errors import NotComparableError, OptionError
from evalsuite.core.protocol import GeometryRule
from evalsuite.gates.timing import MIN_SHARE, timed_busy
from evalsuite.metrics.spec import geometry_metrics
from evalsuite.records.schema import Record

ARM_NAMES = {
    "mean-colour": "mean colour",
    "visual-hull": "visual hull",
    "a": "A feed-forward",
    "b": "B warm start",
    "c": "C scratch",
}
"""Names shown for the arms, in the order of every table; floors first."""

STUDY_ARMS = ("a", "b", "c")
OBJECTS = "objects"
"""The pool of all object scenes."""

UNBOUNDED: Stratum = "unbounded"
NOT_RUN = "not-run"

_GEOMETRY = {quantity: spec.id for quantity, spec in geometry_metrics(GeometryRule()).items()}

QUANTITIES = (
    ("psnr", "PSNR, dB", "PSNR", 2),
    ("psnr-fg", "PSNR on the foreground, dB", "PSNR fg", 2),
    ("ssim", "SSIM", "SSIM", 4),
    ("flip-67", "FLIP (lower is better)", "FLIP", 4),
    ("lpips-vgg", "LPIPS, VGG16 (lower is better)", "LPIPS-V", 4),
    ("lpips-alex", "LPIPS, AlexNet (lower is better)", "LPIPS-A", 4),
    ("alpha-iou", "alpha IoU", "IoU", 3),
    (_GEOMETRY["chamfer"], "Chamfer, diagonals (lower is better)", "Chamfer", 4),
    (_GEOMETRY["f-score-1"], "F-score at 1 %", "F 1 %", 3),
    (_GEOMETRY["normals"], "normal consistency", "normals", 3),
    ("seconds", "seconds per asset", "seconds", 1),
    ("gaussians", "Gaussians", "splats", 0),
)
"""What tables show of each setting: quantity (see `outcomes`), title, short title, digits."""

BUSY = "~"
"""Stands before seconds that were taken while others had the machine."""

_WIDEST = 100_000

Outcome = float | str
"""A value, or the status that stands in its place."""

_CASE_ID = re.compile(
    r"(?P<scene>[^/]+)/(?P<arm>[^/]+?)(?:-(?P<budget>inputs|capture)-n(?P<steps>\d+))?(?:-s(?P<seed>\d+))?"
)


@dataclass(frozen=True)
class Setting:
    """One arm under one budget after N steps: what is averaged over scenes."""

    arm: str
    budget: str | None
    steps: int

    @property
    def label(self) -> str:
        """``B warm start, N = 200``; the budget is left to the heading."""
        name = arm_name(self.arm)
        return f"{name}, N = {self.steps:,}" if self.budget else name

    @property
    def order(self) -> tuple[int, str, int, int]:
        """Sort key: floors, A, then B and C, each by budget and N."""
        names, budgets = list(ARM_NAMES), list(BUDGETS)
        rank = names.index(self.arm) if self.arm in names else len(names)
        return rank, self.arm, budgets.index(self.budget) if self.budget in budgets else -1, self.steps


@dataclass(frozen=True)
class Row:
    """One case as the table shows it; numbers are None unless ``status`` is ``ok``.

    Attributes:
        stratum: empty for a case without a record in a scene without any.
        status: as in the record, or ``not-run`` for an expected case without one.
        psnr, psnr_fg: dB.
        flip, lpips_vgg: lower is better.
        seconds: of one more asset (`Record.total_seconds`).
        busy: whether they were taken on a busy machine.
    """

    case: str
    scene: str
    stratum: str
    setting: Setting
    seed: int
    status: str
    reason: str
    psnr: float | None = None
    psnr_fg: float | None = None
    ssim: float | None = None
    flip: float | None = None
    lpips_vgg: float | None = None
    alpha_iou: float | None = None
    seconds: float | None = None
    gaussians: int | None = None
    busy: bool = False


def arm_name(arm: str) -> str:
    """Name shown for an arm; an arm of another study keeps its own."""
    return ARM_NAMES.get(arm, arm)


def parse_case(case_id: str) -> tuple[str, Setting, int]:
    """Scene, setting and seed of a case id (`evalsuite.core.cases`).

    Raises:
        OptionError: not a case id.
    """
    match = _CASE_ID.fullmatch(case_id)
    if match is None:
        raise OptionError(f"{case_id!r} is not a case id; expected <scene>/<arm>[-<budget>-n<steps>][-s<seed>]")
    return (
        match["scene"],
        Setting(match["arm"], match["budget"], int(match["steps"] or 0)),
        int(match["seed"] or 0),
    )


def setting_of(record: Record) -> Setting:
    """Arm, budget and N of a record."""
    return Setting(record.arm, record.budget, record.steps)


def check_comparable(records: Iterable[Record]) -> None:
    """Refuse records that must not stand side by side.

    Raises:
        NotComparableError: two protocols among objects or among unbounded scenes (the two are never pooled), or two
            recipes under one scene and budget.
    """
    protocols: dict[bool, dict[str, str]] = {}
    recipes: dict[tuple[str, str | None], dict[str, str]] = {}
    for record in records:
        protocols.setdefault(record.stratum == UNBOUNDED, {}).setdefault(record.protocol_hash, record.case)
        if record.arm in ("b", "c"):
            recipes.setdefault((record.scene, record.budget), {}).setdefault(record.recipe_hash, record.case)
    groups = [("protocol", found) for found in protocols.values()] + [("recipe", found) for found in recipes.values()]
    for kind, seen in groups:
        if len(seen) > 1:
            found = ", ".join(f"{key} ({case})" for key, case in seen.items())
            raise NotComparableError(
                f"records of {len(seen)} {kind} hashes: {found}; expected one: run the older again"
            )


def pools(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    """Scenes by stratum, in the study's order, with all objects pooled before the unbounded ones."""
    scenes: dict[str, set[str]] = {}
    for record in records:
        scenes.setdefault(record.stratum, set()).add(record.scene)
    objects = [stratum for stratum in get_args(Stratum) if stratum in scenes and stratum != UNBOUNDED]
    others = sorted(set(scenes) - set(get_args(Stratum)))
    found = {stratum: scenes[stratum] for stratum in objects}
    if objects:
        found[OBJECTS] = set().union(*found.values())
    found |= {stratum: scenes[stratum] for stratum in (UNBOUNDED, *others) if stratum in scenes}
    return {name: tuple(sorted(members)) for name, members in found.items()}


def main_pools(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    """Pools of headlines, plots, costs and metrics: all objects, and every stratum outside them."""
    found = pools(records)
    names = list(found)
    return {name: found[name] for name in (names[names.index(OBJECTS) :] if OBJECTS in names else names)}


def outcomes(
    records: Iterable[Record], quantity: str, expected: Sequence[str] = ()
) -> dict[Setting, dict[str, Outcome]]:
    """A quantity by setting and scene: the mean over seeds, or the first status that keeps a seed from a value.

    Args:
        records: of one protocol.
        quantity: metric id, ``seconds`` (`Record.total_seconds`) or ``gaussians``.
        expected: ids of the cases there should be; those without a record are ``not-run``.

    Raises:
        NotComparableError: see `check_comparable`.
    """
    records = list(records)
    check_comparable(records)
    seeds: dict[tuple[Setting, str], list[Outcome]] = {}
    for record in records:
        seeds.setdefault((setting_of(record), record.scene), []).append(_outcome(record, quantity))
    for case_id in sorted(set(expected) - {record.case for record in records}):
        scene, setting, _ = parse_case(case_id)
        seeds.setdefault((setting, scene), []).append(NOT_RUN)
    table: dict[Setting, dict[str, Outcome]] = {}
    for setting, scene in sorted(seeds, key=lambda key: (key[0].order, key[1])):
        values = seeds[setting, scene]
        failures = [value for value in values if isinstance(value, str)]
        numbers = [value for value in values if not isinstance(value, str)]
        table.setdefault(setting, {})[scene] = failures[0] if failures else fmean(numbers)
    return table


def _outcome(record: Record, quantity: str) -> Outcome:
    if record.status != "ok":
        return record.status
    if quantity == "seconds":
        return record.total_seconds
    if quantity == "gaussians":
        return float(record.gaussians)
    value = record.value(quantity)
    if value is not None:
        return float(value)
    return record.metrics[quantity].status if quantity in record.metrics else "missing-data"


def measured(records: Iterable[Record]) -> list[tuple[str, str, str, int]]:
    """Those of `QUANTITIES` that some record has a value of."""
    records = list(records)
    return [entry for entry in QUANTITIES if any(not isinstance(_outcome(r, entry[0]), str) for r in records)]


@dataclass(frozen=True)
class Mean:
    """A mean over the scenes that gave a value.

    Attributes:
        value: None if no scene gave one.
        scenes, of: scenes that gave a value, scenes in the pool.
        failures: how often each status stands in place of a value.
    """

    value: float | None
    scenes: int
    of: int
    failures: Mapping[str, int]

    def text(self, digits: int) -> str:
        """``27.31``; with the count of scenes and the failures where some are missing."""
        shown = number(self.value, digits)
        if self.scenes == self.of:
            return shown
        causes = ", ".join(f"{count} {status}" for status, count in sorted(self.failures.items()))
        return f"{shown} ({self.scenes} of {self.of} scenes; {causes})"


def mean_over(by_scene: Mapping[str, Outcome], scenes: Sequence[str]) -> Mean:
    """Mean of one setting over the scenes of a pool; a scene without an entry counts as ``not-run``."""
    found = [by_scene.get(scene, NOT_RUN) for scene in scenes]
    values = [value for value in found if not isinstance(value, str)]
    failures = Counter(value for value in found if isinstance(value, str))
    return Mean(fmean(values) if values else None, len(values), len(scenes), failures)


def case_rows(records: Iterable[Record], expected: Sequence[str] = ()) -> list[Row]:
    """One row per record and per expected case without one, by scene, then floors, A, B, C.

    Raises:
        NotComparableError: see `check_comparable`.
    """
    records = list(records)
    check_comparable(records)
    strata = {record.scene: record.stratum for record in records}
    rows = [_row(record) for record in records]
    for case_id in set(expected) - {record.case for record in records}:
        scene, setting, seed = parse_case(case_id)
        rows.append(Row(case_id, scene, strata.get(scene, ""), setting, seed, NOT_RUN, "no record of this case"))
    return sorted(rows, key=lambda row: (row.scene, row.setting.order, row.seed))


def _row(record: Record) -> Row:
    row = Row(record.case, record.scene, record.stratum, setting_of(record), record.seed, record.status, record.reason)
    if record.status != "ok":
        return row
    return replace(
        row,
        psnr=record.value("psnr"),
        psnr_fg=record.value("psnr-fg"),
        ssim=record.value("ssim"),
        flip=record.value("flip-67"),
        lpips_vgg=record.value("lpips-vgg"),
        alpha_iou=record.value("alpha-iou"),
        seconds=record.total_seconds,
        gaussians=record.gaussians,
        busy=timed_busy(record),
    )


def busy_line(records: Iterable[Record]) -> list[str]:
    """What `BUSY` means, and in how many cases; one line, or none."""
    busy = [timed_busy(record) for record in records]
    if not any(busy):
        return []
    return [
        f"{BUSY} marks seconds taken on a busy machine, in {sum(busy)} of {len(busy)} cases (the anchor got less than "
        f"{MIN_SHARE:.0%} of a core): longer than the work takes, nothing to compare with"
    ]


def busy_settings(records: Iterable[Record]) -> set[tuple[Setting, str]]:
    """Setting and scene of every record whose seconds were taken on a busy machine."""
    return {(setting_of(record), record.scene) for record in records if timed_busy(record)}


def marked(text: str, busy: bool) -> str:
    """The text of a number with `BUSY` before it, if so."""
    return f"{BUSY}{text}" if busy and text != number(None, 0) else text


def show_whole(console: Console, *tables: Table) -> None:
    """Print tables with every cell whole that must not wrap, in lines longer than the console's where need be."""
    width = console.width
    for table in tables:
        for column in table.columns:
            if column.no_wrap:
                column.min_width = max(cell_len(render(str(cell)).plain) for cell in (column.header, *column.cells))
        console.width = max(width, Measurement.get(console, console.options.update(width=_WIDEST), table).minimum)
        console.print(table)
    console.width = width


def number(value: float | int | None, digits: int) -> str:
    """Fixed digits with thousands separated; a dash for None."""
    return "—" if value is None else f"{value:,.{digits}f}"


def scene_count(count: int) -> str:
    """``1 scene``, ``3 scenes``."""
    return f"{count} scene" if count == 1 else f"{count} scenes"


def metrics_without_data(records: Iterable[Record]) -> list[str]:
    """A line per metric that some cases lack for want of data, and why: nothing is blocked, and nothing silent."""
    records = [record for record in records if record.status == "ok"]
    reasons: dict[str, list[str]] = {}
    for record in records:
        for name, reading in sorted(record.metrics.items()):
            if reading.status == "missing-data":
                reasons.setdefault(name, []).append(reading.reason)
    return [
        f"{name} is missing-data in {len(found)} of {len(records)} cases: {found[0]}" for name, found in reasons.items()
    ]


def case_table(records: Iterable[Record], expected: Sequence[str] = ()) -> Table:
    """`case_rows` for the terminal; the last column is the status where it is not ``ok``.

    Metrics that lack data are named once, below the table, and what marks seconds is explained.
    """
    records = list(records)
    rows = case_rows(records, expected)
    perceptual = any(row.lpips_vgg is not None for row in rows)
    missing = [escape(line) for line in (*metrics_without_data(records), *busy_line(records))]
    table = Table(title="Cases (held-out views)", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    table.caption = "\n".join(missing) or None
    for name in ("scene", "arm", "budget"):
        table.add_column(name, no_wrap=True)
    for name in ("N", "PSNR", "PSNR fg", "SSIM", "FLIP", *["LPIPS"] * perceptual, "alpha IoU", "seconds", "Gaussians"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("status", style="red")
    for row in rows:
        setting = row.setting
        table.add_row(
            escape(row.scene),
            escape(arm_name(setting.arm) + (f" (seed {row.seed})" if row.seed else "")),
            setting.budget or "",
            f"{setting.steps:,}" if setting.budget else "",
            number(row.psnr, 2),
            number(row.psnr_fg, 2),
            number(row.ssim, 4),
            number(row.flip, 4),
            *[number(row.lpips_vgg, 4)] * perceptual,
            number(row.alpha_iou, 3),
            marked(number(row.seconds, 1), row.busy),
            number(row.gaussians, 0),
            "" if row.status == "ok" else escape(f"{row.status}: {row.reason}" if row.reason else row.status),
        )
    return table


def stratum_cells(
    records: Iterable[Record], metric: str = "psnr", digits: int = 2, expected: Sequence[str] = ()
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of strata: a row per arm, budget and N, a column per stratum and pool.

    Raises:
        NotComparableError: see `check_comparable`.
    """
    records = list(records)
    columns = pools(records)
    busy = busy_settings(records) if metric == "seconds" else set()
    header = ["arm", "budget", "N", *(f"{name} ({scene_count(len(scenes))})" for name, scenes in columns.items())]
    rows = [
        [
            arm_name(setting.arm),
            setting.budget or "",
            f"{setting.steps:,}" if setting.budget else "",
            *(
                marked(mean_over(by_scene, scenes).text(digits), any((setting, scene) in busy for scene in scenes))
                for scenes in columns.values()
            ),
        ]
        for setting, by_scene in outcomes(records, metric, expected).items()
    ]
    return header, rows


def stratum_table(records: Iterable[Record], expected: Sequence[str] = ()) -> Table:
    """Mean held-out PSNR in dB per stratum and over all objects, for the terminal."""
    header, rows = stratum_cells(records, expected=expected)
    table = Table(title="Mean held-out PSNR, dB", box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        table.add_column(name, justify="left" if index < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    return table


def means_tables(records: Iterable[Record], expected: Sequence[str] = ()) -> list[Table]:
    """Means of every `measured` quantity per arm, budget and N, for the terminal: a table per main pool."""
    records = list(records)
    shown = measured(records)
    found = [outcomes(records, quantity, expected) for quantity, *_ in shown]
    busy = busy_settings(records)
    tables = []
    for pool, scenes in main_pools(records).items():
        title = f"Means over {pool} ({scene_count(len(scenes))})"
        table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for name in ("arm", "budget"):
            table.add_column(name, no_wrap=True)
        for name in ("N", *(short for _, _, short, _ in shown)):
            table.add_column(name, justify="right", no_wrap=True)
        for setting in found[0] if found else ():
            if set(found[0][setting]) & set(scenes):
                means = [mean_over(by_setting[setting], scenes) for by_setting in found]
                timed_so = any((setting, scene) in busy for scene in scenes)
                cells = [
                    marked(mean.text(digits) if mean.scenes else number(None, 0), quantity == "seconds" and timed_so)
                    for mean, (quantity, *_, digits) in zip(means, shown, strict=True)
                ]
                steps = f"{setting.steps:,}" if setting.budget else ""
                table.add_row(*map(escape, (arm_name(setting.arm), setting.budget or "", steps, *cells)))
        tables.append(table)
    return tables
