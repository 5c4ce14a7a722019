"""`evalsuite fetch`: what is missing, from the mirror, else from the publisher, checked, and in place in one move.

Everything is made in ``<data>/.fetch`` and renamed into place when it is whole and has the right hash; a process that
dies leaves at most a part there, from which the next one goes on. A lock on the folder lets one process work at a time.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from evalsuite.core.errors import (
    BadDataError,
    EvalsuiteError,
    FetchError,
    MissingDataError,
    OptionError,
    WrongHashError,
)
from evalsuite.core.mirror import VARIABLE, is_web
from evalsuite.fetch.archives import kept, unpack
from evalsuite.fetch.download import Watch, discard, download
from evalsuite.fetch.ledger import Content, Entry, Ledger, content_of, file_sha256
from evalsuite.fetch.manifest import Item

WORK = ".fetch"

Origin = Literal["present", "mirror", "publisher"]

HashRule = Literal["as in the manifest", "as recorded", "recorded now"]


@dataclass(frozen=True)
class Source:
    """From where, and to where.

    Attributes:
        root: the data folder.
        mirror: a folder or the address of a web server, asked first; None: there is none.
        offline: open no connection, not even to a mirror.
        watch: told the bytes of every download.
    """

    root: Path
    mirror: str | None = None
    offline: bool = False
    watch: Watch = lambda done, total: None

    @property
    def mirror_folder(self) -> Path | None:
        """The mirror, if it is a folder."""
        return Path(self.mirror) if self.mirror and not is_web(self.mirror) else None

    @property
    def web_mirror(self) -> str | None:
        """The mirror, if it is a web server and may be asked."""
        return self.mirror.rstrip("/") if self.mirror and is_web(self.mirror) and not self.offline else None


@dataclass(frozen=True)
class Outcome:
    """One item that is there now.

    Attributes:
        origin: where it was.
        rule: whether its hash was known before, and from where.
        entry: what the ledger holds of it.
    """

    item: Item
    origin: Origin
    rule: HashRule
    entry: Entry

    def manifest_line(self) -> str | None:
        """What a maintainer adds to the manifest after a download from the publisher; None: nothing to add."""
        if self.item.sha256 or self.origin != "publisher":
            return None
        name = self.item.id.split("/", 1)[1]
        key = name if name.replace("_", "").replace("-", "").isalnum() else f'"{name}"'
        return f'{key} = {{ bytes = {self.entry.source_bytes}, sha256 = "{self.entry.source_sha256}" }}'


@dataclass(frozen=True)
class _Found:
    """What a source gave: a file or folder to move into place, and the publisher's file behind it."""

    path: Path
    origin: Origin
    source_sha256: str | None = None
    source_bytes: int | None = None


def fetch(
    items: Sequence[Item],
    source: Source,
    told: Callable[[Item, Outcome | EvalsuiteError], None] = lambda item, result: None,
    waiting: Callable[[], None] = lambda: None,
) -> dict[str, Outcome | EvalsuiteError]:
    """Bring items that are not there and check those that are; one that fails does not stop the others.

    Args:
        items: from `Manifest.select`.
        source: from where and to where.
        told: called after each item.
        waiting: called if another process has to finish first.

    Returns:
        The outcome of each item by id, or the error it ended with.

    Raises:
        OptionError: the mirror is no folder.
    """
    folder = source.mirror_folder
    if folder is not None and not folder.is_dir():
        raise OptionError(
            f"the mirror {folder} is no folder, expected one, or an http(s) address: set {VARIABLE} right"
        )
    results: dict[str, Outcome | EvalsuiteError] = {}
    with _alone(source.root, waiting):
        for item in items:
            try:
                results[item.id] = _fetch_one(item, source, Ledger(source.root))
            except EvalsuiteError as error:
                results[item.id] = error
            except OSError as error:
                results[item.id] = FetchError(
                    f"{item.id}: {error}; expected a folder to write {item.bytes or 'its'} bytes to: make room there, "
                    "or work in another folder"
                )
            told(item, results[item.id])
    return results


@contextmanager
def _alone(root: Path, waiting: Callable[[], None]) -> Iterator[None]:
    work = root / WORK
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(work / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        for stale in work.glob("new-*"):  # of a process that died: whoever works on one holds the lock
            shutil.rmtree(stale)
        yield
    finally:
        lock.release()


def _fetch_one(item: Item, source: Source, ledger: Ledger) -> Outcome:
    target, known = source.root / item.to, ledger.read().get(item.id)
    if target.exists():
        _require(item, target, str(target))
        return _recorded(item, "present", _entry_of_present(item, target, known), known, ledger)
    with tempfile.TemporaryDirectory(prefix="new-", dir=source.root / WORK) as folder:
        found = _find(item, source, known, Path(folder))
        _require(item, found.path, f"what the {found.origin} gave")
        entry = Entry(content_of(found.path), found.source_sha256, found.source_bytes)
        target.parent.mkdir(parents=True, exist_ok=True)
        outcome = _recorded(item, found.origin, entry, known, ledger)
        os.replace(found.path, target)
    return outcome


def _entry_of_present(item: Item, target: Path, known: Entry | None) -> Entry:
    if item.archive is None:
        sha256, size = _verified(item, target, known, f"delete {target} and fetch again")
        return Entry(Content(sha256, 1, size), sha256, size)
    return Entry(content_of(target), known.source_sha256 if known else None, known.source_bytes if known else None)


def _recorded(item: Item, origin: Origin, entry: Entry, known: Entry | None, ledger: Ledger) -> Outcome:
    """Compare what is kept with what was recorded; record what is new.

    Raises:
        WrongHashError: it is not what was fetched the first time.
    """
    in_manifest = item.sha256 is not None and entry.source_sha256 == item.sha256
    if known and entry.content.sha256 != known.content.sha256 and not (in_manifest and item.archive is None):
        raise WrongHashError(
            item.id, entry.content.sha256, known.content.sha256,
            f"{item.to} is not what was fetched first; delete it and fetch again, or delete its entry in "
            f"{ledger.path} to accept it",
        )  # fmt: skip
    if entry != known:
        ledger.record(item.id, entry)
    rule: HashRule = "as in the manifest" if in_manifest else "as recorded" if known else "recorded now"
    return Outcome(item, origin, rule, entry)


def _require(item: Item, path: Path, where: str) -> None:
    lacking = [name for name in item.needs if not (path / name).is_file()]
    if lacking:
        raise BadDataError(
            f"{item.id}: {where} has no {lacking[0]}, expected {len(item.needs)} such files ({len(lacking)} are not "
            "there): delete it and fetch again, or fetch from another mirror"
        )


def _find(item: Item, source: Source, known: Entry | None, into: Path) -> _Found:
    """The first of mirror folder, web mirror and publisher that has the item."""
    found = _from_folder(item, source, known, into) or _from_web_mirror(item, source, known, into)
    if found:
        return found
    if source.offline or item.url is None:
        raise MissingDataError(_missing(item, source))
    return _downloaded(item, item.url, "publisher", source, known, into)


def _missing(item: Item, source: Source) -> str:
    tried = str(source.root / item.to)
    if source.mirror:
        unasked = " (not asked: the network is switched off)" if source.offline and is_web(source.mirror) else ""
        tried += f" nor in the mirror {source.mirror}{unasked}"
    if item.url is None:
        return (
            f"{item.id} is not in {tried}, and its publisher has no file of it; expected {item.to} or {item.in_mirror} "
            "in a mirror: set EVALSUITE_MIRROR to one"
        )
    return (
        f"{item.id} is not in {tried}, and the network is switched off; expected it there: where there is a network, "
        f"run `evalsuite fetch {item.id}`, then set EVALSUITE_MIRROR to the data folder it filled"
    )


def _from_folder(item: Item, source: Source, known: Entry | None, into: Path) -> _Found | None:
    folder = source.mirror_folder
    if folder is None:
        return None
    file = folder / item.in_mirror
    if file.is_file():
        sha256, size = _verified(item, file, known, f"{file} is not the publisher's file; correct the mirror")
        if item.archive is None:
            shutil.copyfile(file, into / "file")
            return _Found(into / "file", "mirror", sha256, size)
        return _Found(_unpacked(item, file, into), "mirror", sha256, size)
    unpacked = folder / item.to
    if not unpacked.is_dir():
        return None
    copy = into / "folder"
    copy.mkdir()
    for path in sorted(unpacked.rglob("*")):
        name = path.relative_to(unpacked).as_posix()
        if path.is_file() and kept(name, item.keep):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy / name)
    return _Found(copy, "mirror")


def _from_web_mirror(item: Item, source: Source, known: Entry | None, into: Path) -> _Found | None:
    base = source.web_mirror
    if base is None:
        return None
    with suppress(MissingDataError):
        return _downloaded(item, f"{base}/{item.in_mirror}", "mirror", source, known, into)
    if not item.loose:
        return None
    copy = into / "folder"
    with suppress(MissingDataError):
        for name in item.needs:
            part = _part(f"{base}/{item.to}/{name}", source)
            download(f"{base}/{item.to}/{name}", part, max_bytes=item.max_bytes, watch=source.watch)
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, copy / name)
            discard(part)
        return _Found(copy, "mirror")
    return None


def _downloaded(item: Item, url: str, origin: Origin, source: Source, known: Entry | None, into: Path) -> _Found:
    """Download the publisher's file and open it. Bytes that prove wrong are removed: a retry must not find them."""
    part = _part(url, source)
    download(url, part, max_bytes=item.max_bytes, watch=source.watch)
    try:
        sha256, size = _verified(
            item, part, known, f"the download from {url} was removed; fetch again, from elsewhere if it comes so again"
        )
        if item.archive is None:
            os.replace(part, into / "file")
            return _Found(into / "file", origin, sha256, size)
        return _Found(_unpacked(item, part, into), origin, sha256, size)
    finally:
        discard(part)


def _verified(item: Item, file: Path, known: Entry | None, next_step: str) -> tuple[str, int]:
    """SHA-256 and size of the publisher's file, held against the manifest, else against the first download.

    Raises:
        BadDataError: wrong size.
        WrongHashError: wrong hash.
    """
    size = file.stat().st_size
    if item.bytes not in (None, size):
        raise BadDataError(f"{item.id} has {size} bytes, expected {item.bytes}: {next_step}")
    sha256 = file_sha256(file)
    expected = item.sha256 or (known.source_sha256 if known else None)
    if expected not in (None, sha256):
        raise WrongHashError(item.id, sha256, expected, next_step)
    return sha256, size


def _unpacked(item: Item, file: Path, into: Path) -> Path:
    copy = into / "folder"
    copy.mkdir()
    unpack(file, copy, item.keep, max_bytes=item.max_bytes, max_files=item.max_files)
    return copy


def _part(url: str, source: Source) -> Path:
    """Where the bytes of one address gather."""
    return source.root / WORK / (hashlib.sha256(url.encode()).hexdigest()[:16] + ".part")
