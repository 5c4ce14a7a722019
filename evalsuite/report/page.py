"""One static page of a record store: a folder with ``index.html``, plots and copied images; no script, no server."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from jinja2 import Environment, StrictUndefined, Template

from evalsuite.core.cases import BUDGETS
from evalsuite.core.errors import MissingDataError
from evalsuite.core.phases import COST_PHASES, PHASES
from evalsuite.gates.timing import timed_busy
from evalsuite.records.schema import Record
from evalsuite.records.store import RecordStore
from evalsuite.report.costs import cost_cells, training_sentence
from evalsuite.report.crossover import (
    RATE_STEPS,
    Estimate,
    PoolTrade,
    SceneTrade,
    mean_points,
    pool_trades,
    scene_trades,
)
from evalsuite.report.plots import psnr_against_seconds, psnr_against_steps
from evalsuite.report.tables import (
    NOT_RUN,
    Row,
    busy_line,
    busy_settings,
    case_rows,
    check_comparable,
    main_pools,
    marked,
    measured,
    metrics_without_data,
    number,
    pools,
    scene_count,
    stratum_cells,
)


@dataclass(frozen=True)
class Card:
    """One headline number and the sentence that says what it means."""

    value: str
    sentence: str


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are text already."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """An image of the page: relative address (None if the file is not there) and what it shows."""

    href: str | None
    alt: str


@dataclass(frozen=True)
class Entry:
    """One case in a scene's list."""

    row: Row
    name: str
    facts: Sequence[tuple[str, str]]
    pictures: Sequence[Picture]
    ply: str | None
    details: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class SceneSection:
    """A scene: its truth, then its cases by budget."""

    id: str
    stratum: str
    truth: Picture
    groups: Sequence[tuple[str, Sequence[Entry]]]
    failed: int


def write_page(store_root: Path, out: Path, expected: Sequence[str], training_seconds: float | None = None) -> Path:
    """Write the page of a record store.

    Args:
        store_root: folder of records, images and PLY files.
        out: folder to write; everything the page shows is copied into it.
        expected: ids of the cases there should be; those without a record are listed as not run, and other records
            (seeds of a noise run, say) are left out. If empty, the page is of all there is.
        training_seconds: of the network, for the cost table; 0 counts training as sunk, None says that it is unknown.

    Returns:
        Path of ``index.html``.

    Raises:
        MissingDataError: no record and nothing expected.
        NotComparableError: records of two protocols, or B and C of two recipes.
        SchemaError: a record file is malformed.
    """
    records = [record for record in RecordStore(store_root) if not expected or record.case in set(expected)]
    if not records and not expected:
        raise MissingDataError(f"{store_root} holds no records (<scene>/<case>.json); run: pytest tests/ablation")
    check_comparable(records)
    out.mkdir(parents=True, exist_ok=True)
    rows = case_rows(records, expected)
    trades = pool_trades(records, expected)
    busy = _busy_trades(records)
    html = _template().render(
        suites=sorted({record.suite for record in records}),
        counts=Counter(row.status if row.status in ("ok", NOT_RUN) else "failed" for row in rows),
        total=len(rows),
        warnings=_warnings(records, rows),
        headlines=_headlines(trades, main_pools(records), busy),
        tables=[_trade_table(trades, busy), _scene_trade_table(scene_trades(records, expected), busy)],
        strata=[TextTable(title, *stratum_cells(records, key, n, expected)) for key, title, _, n in measured(records)],
        figures=_write_figures(records, out),
        costs=[TextTable(*cells) for cells in cost_cells(records, training_seconds, expected)],
        training=training_sentence(training_seconds),
        not_run=[row for row in rows if row.status == NOT_RUN],
        failed=[row for row in rows if row.status not in ("ok", NOT_RUN)],
        scenes=list(_scenes(rows, {record.case: record for record in records}, store_root, out)),
        provenance=_provenance(records),
    )
    page = out / "index.html"
    page.write_text(html, encoding="utf-8")
    return page


def _template() -> Template:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(resources.files("evalsuite.report").joinpath("page.html").read_text("utf-8"))


def _estimated(found: Estimate, digits: int, unit: str = "") -> str:
    """``6.10 dB [5.00, 7.20]``, followed by ``(4 of 5)`` where not every scene gave a value."""
    text = number(found.mean, digits) + (unit if found.mean is not None else "")
    if found.interval:
        text += f" [{number(found.interval[0], digits)},\u00a0{number(found.interval[1], digits)}]"
    return text if found.scenes == found.of else f"{text} ({found.scenes}\u00a0of\u00a0{found.of})"


def _busy_trades(records: Sequence[Record]) -> set[tuple[str, str]]:
    """Budget and scene, and budget and pool, of trades some seconds of which were taken on a busy machine."""
    scenes = {(setting.budget, scene) for setting, scene in busy_settings(records) if setting.budget}
    found = {(budget, pool) for pool, names in pools(records).items() for budget, scene in scenes if scene in names}
    return {(budget, name) for budget, name in (*scenes, *found) if budget}


def _headlines(
    trades: Sequence[PoolTrade], shown: Container[str], busy: Container[tuple[str, str]]
) -> list[tuple[str, list[Card]]]:
    """Three cards per budget for each pool shown."""
    return [
        (
            f"Budget {trade.budget}, {trade.pool}, {scene_count(trade.penalty_db.of)}",
            [
                _penalty_card(trade),
                _warm_start_card(trade, (trade.budget, trade.pool) in busy),
                _rate_card(trade, (trade.budget, trade.pool) in busy),
            ],
        )
        for trade in trades
        if trade.pool in shown
    ]


def _penalty_card(trade: PoolTrade) -> Card:
    penalty = trade.penalty_db
    if penalty.mean is None:
        return Card("—", f"Feed-forward penalty: no scene has both A and C at N = {trade.final_steps:,}.")
    side = "below" if penalty.mean >= 0 else "above"
    return Card(
        f"{penalty.mean:.2f} dB",
        f"Feed-forward penalty: A lies {_estimated(_absolute(penalty), 2, ' dB')} {side} "
        f"C at N = {trade.final_steps:,}.",
    )


def _absolute(found: Estimate) -> Estimate:
    """The same estimate with a positive mean, for a sentence that names the side."""
    if found.mean is None or found.mean >= 0:
        return found
    interval = (-found.interval[1], -found.interval[0]) if found.interval else None
    return Estimate(-found.mean, interval, found.scenes, found.of)


def _warm_start_card(trade: PoolTrade, busy: bool) -> Card:
    of = trade.steps.of
    missing = _missing(trade)
    lacking = f" {scene_count(missing)} without the checkpoints it takes." if missing else ""
    if not trade.reached:
        value = "not reached" if trade.not_reached else "—"
        where = f"in 0 of {scene_count(of)}"
        return Card(value, f"Warm-start value: B reaches C's PSNR at N = {trade.final_steps:,} {where}.{lacking}")
    return Card(
        f"{trade.steps.mean:,.0f} steps",
        f"Warm-start value: B reaches C's PSNR at N = {trade.final_steps:,} in {trade.reached} of {scene_count(of)}; "
        f"in those, after {_estimated(_all(trade.steps), 0)} steps, which saves "
        f"{_estimated(_all(trade.steps_saved), 0)} steps and "
        f"{marked(_estimated(_all(trade.seconds_saved), 1, ' s'), busy)}.{lacking}",
    )


def _missing(trade: PoolTrade) -> int:
    """Scenes in which the crossover cannot be told."""
    return trade.steps.of - trade.reached - trade.not_reached


def _all(found: Estimate) -> Estimate:
    """The same estimate without its count, for a sentence that gives the count itself."""
    return Estimate(found.mean, found.interval, found.scenes, found.scenes)


def _rate_card(trade: PoolTrade, busy: bool) -> Card:
    low, high = (f"{steps:,}" for steps in RATE_STEPS)
    rate = trade.db_per_1000_steps
    if rate.mean is None:
        return Card("—", f"Exchange rate: no scene has B at N = {low} and at N = {high}.")
    return Card(
        f"{rate.mean:.2f} dB / 1,000 steps",
        f"Exchange rate: from N = {low} to {high}, B gains {_estimated(rate, 2, ' dB')} per 1,000 steps, "
        f"{marked(_estimated(trade.db_per_second, 3, ' dB'), busy)} per second.",
    )


def _trade_table(trades: Iterable[PoolTrade], busy: Container[tuple[str, str]]) -> TextTable:
    header = (
        *("budget", "scenes", "A below C, dB", "B reaches C in", "at N", "steps saved", "seconds saved"),
        *("dB per 1,000 steps", "dB per second"),
    )
    rows = [
        (
            trade.budget,
            f"{trade.pool} ({trade.steps.of})",
            _estimated(trade.penalty_db, 2),
            f"{trade.reached} of {trade.steps.of}" + (f", {missing} missing" if (missing := _missing(trade)) else ""),
            _estimated(_all(trade.steps), 0),
            _estimated(_all(trade.steps_saved), 0),
            marked(_estimated(_all(trade.seconds_saved), 1), (trade.budget, trade.pool) in busy),
            _estimated(trade.db_per_1000_steps, 2),
            marked(_estimated(trade.db_per_second, 3), (trade.budget, trade.pool) in busy),
        )
        for trade in trades
    ]
    return TextTable("By stratum and budget", header, rows)


def _scene_trade_table(trades: Iterable[SceneTrade], busy: Container[tuple[str, str]]) -> TextTable:
    header = (
        *("budget", "scene", "stratum", "A below C, dB", "B reaches C", "on the ladder at N", "between at N"),
        *("steps saved", "seconds saved", "dB per 1,000 steps", "dB per second"),
    )
    rows = [
        (
            trade.budget,
            trade.scene,
            trade.stratum,
            number(trade.penalty_db, 2),
            trade.warm_start.status,
            number(trade.warm_start.ladder_steps, 0),
            number(trade.warm_start.steps, 0),
            number(trade.warm_start.steps_saved, 0),
            marked(number(trade.warm_start.seconds_saved, 1), (trade.budget, trade.scene) in busy),
            number(trade.db_per_1000_steps, 2),
            marked(number(trade.db_per_second, 3), (trade.budget, trade.scene) in busy),
        )
        for trade in trades
    ]
    return TextTable("By scene", header, rows)


def _write_figures(records: Sequence[Record], out: Path) -> list[Picture]:
    """Save every plot beside the page."""
    budgets = [budget for budget in BUDGETS if any(record.budget == budget for record in records)]
    pictures = []
    for pool, scenes in main_pools(records).items():
        for against, draw in (("steps", psnr_against_steps), ("seconds", psnr_against_seconds)):
            for budget in budgets:
                name = f"psnr-{against}-{budget}-{pool}.png"
                draw(records, budget, pool).savefig(out / name)
                means = "; ".join(f"{p.setting.label}: {p.psnr:.1f} dB" for p in mean_points(records, budget, scenes))
                alt = f"Plot of held-out PSNR against {against}, budget {budget}, {pool}. Means: {means}."
                pictures.append(Picture(quote(name), alt))
    return pictures


def _scenes(rows: Sequence[Row], records: dict[str, Record], store_root: Path, out: Path) -> Iterator[SceneSection]:
    for scene in dict.fromkeys(row.scene for row in rows):
        members = [row for row in rows if row.scene == scene]
        entries = [_entry(row, records.get(row.case), store_root, out) for row in members]
        truth = Picture(_copied(f"{scene}/truth.png", store_root, out), f"{scene}: true held-out views")
        budgets = dict.fromkeys([None, *BUDGETS, *(row.setting.budget for row in members)])
        groups = [
            (
                f"budget {budget}" if budget else "no steps",
                [entry for entry in entries if entry.row.setting.budget == budget],
            )
            for budget in budgets
        ]
        yield SceneSection(
            scene,
            members[0].stratum,
            truth,
            [(name, found) for name, found in groups if found],
            sum(row.status != "ok" for row in members),
        )


def _entry(row: Row, record: Record | None, store_root: Path, out: Path) -> Entry:
    name = row.setting.label + (f", seed {row.seed}" if row.seed else "")
    if record is None:
        return Entry(row, name, (), (), None, ())
    numbers = (
        ("PSNR", row.psnr, 2),
        ("PSNR fg", row.psnr_fg, 2),
        ("SSIM", row.ssim, 4),
        ("FLIP", row.flip, 4),
        ("seconds", row.seconds, 1),
        ("Gaussians", row.gaussians, 0),
    )
    facts = [
        (label, marked(number(value, digits), row.busy and label == "seconds"))
        for label, value, digits in numbers
        if value is not None
    ]
    about = f"{row.scene}: held-out views rendered by {name}"
    pictures = [Picture(_copied(image, store_root, out), about) for image in record.images]
    ply = _copied(f"{record.case}.ply", store_root, out)
    return Entry(row, name, facts, pictures, ply, _details(record))


def _details(record: Record) -> list[tuple[str, str]]:
    """Everything else a record says, as pairs of text."""
    metrics = [
        (name, number(reading.value, 4) if reading.status == "ok" else reading.status)
        for name, reading in sorted(record.metrics.items())
    ]
    busy = timed_busy(record)
    phases = [
        (
            f"seconds, {phase}",
            marked(f"{record.seconds[phase]:.2f}", busy) + ("" if phase in COST_PHASES else " (not in the cost)"),
        )
        for phase in PHASES
        if phase in record.seconds
    ]
    sizes = [("asset, MB", f"{record.asset_bytes / 1e6:.2f}")]
    for place, peak in (("host", record.peak_host_bytes), ("device", record.peak_device_bytes)):
        if peak:
            sizes.append((f"peak {place} memory, MB", f"{peak / 1e6:,.0f}"))
    if record.frames_per_second and record.frame_px:
        width, height = record.frame_px
        rate = marked(f"{record.frames_per_second:,.0f}", busy)
        sizes.append((f"frames per second, {width} x {height}", rate))
    return [*metrics, *phases, *sizes, *(("note", note) for note in record.notes)]


def _copied(relative: str, store_root: Path, out: Path) -> str | None:
    """Copy a file of the store beside the page; its relative address, None if it is not in the store."""
    path = PurePosixPath(relative)
    if path.is_absolute() or ".." in path.parts or not (store_root / path).is_file():
        return None
    target = out / "files" / path
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(store_root / path, target)
    return quote(f"files/{path}")


def _warnings(records: Sequence[Record], rows: Sequence[Row]) -> list[str]:
    """What makes numbers on the page less comparable than they look."""
    machines = sorted({_machine(record) for record in records})
    unknown = sorted({row.scene for row in rows if not row.stratum})
    found = [f"{line}." for line in (*metrics_without_data(records), *busy_line(records))]
    if unknown:
        found.append(f"{scene_count(len(unknown))} without any record, so of no stratum here: {', '.join(unknown)}.")
    if len(machines) > 1:
        found.append(f"Timed on {len(machines)} kinds of machine, so seconds do not compare: {'; '.join(machines)}.")
    if any(record.git.get("dirty") for record in records):
        found.append("Some records come from a checkout with uncommitted changes.")
    commits = {str(record.git.get("commit")) for record in records}
    if len(commits) > 1:
        found.append(f"Records come from {len(commits)} commits.")
    return found


def _machine(record: Record) -> str:
    named = (record.machine.get(key) for key in ("device_class", "gpu", "cpu"))
    return ", ".join(str(value) for value in named if value) or "not recorded"


def _provenance(records: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """What the numbers hang on, each as its distinct values."""

    def versions(record: Record) -> str:
        return ", ".join(f"{name} {version}" for name, version in sorted(record.machine.get("versions", {}).items()))

    columns = {
        "protocol": [f"{record.protocol} {record.protocol_hash}" for record in records],
        "recipe": [f"{record.recipe} {record.recipe_hash}" for record in records if record.recipe_hash],
        "weights": [record.weights for record in records if record.weights],
        "machine": [_machine(record) for record in records],
        "versions": [versions(record) for record in records],
        "commit": [
            f"{record.git.get('commit')}{' with uncommitted changes' if record.git.get('dirty') else ''}"
            for record in records
        ],
    }
    return [(name, sorted({value for value in values if value})) for name, values in columns.items()]
