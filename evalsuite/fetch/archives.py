"""Zip archives from elsewhere, opened without trust in what they say."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from evalsuite.core.errors import BadDataError, UnsafeArchiveError

_REFETCH = "do not use it; fetch from another mirror, or tell the publisher"


def kept(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether one of the patterns takes a path in; ``*`` matches ``/`` too."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def unpack(archive: Path, into: Path, patterns: tuple[str, ...], *, max_bytes: int, max_files: int) -> None:
    """Unpack what the patterns keep. The whole archive is refused, before a byte is written, for one bad entry.

    Args:
        archive: a zip file.
        into: an empty folder.
        patterns: see `kept`.
        max_bytes: cap on the bytes written.
        max_files: cap on the entries of the archive, kept or not.

    Raises:
        UnsafeArchiveError: an absolute path, ``..``, a link or device, two entries of one name, or beyond a cap.
        BadDataError: not a whole zip, or one that Python cannot read.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            entries = _checked(archive, file.infolist(), max_files)
            wanted = [(entry, path) for entry, path in entries if not entry.is_dir() and kept(str(path), patterns)]
            total = sum(entry.file_size for entry, _ in wanted)
            if total > max_bytes:
                raise _unsafe(archive, f"unpacks to {total} bytes", f"at most {max_bytes}")
            for entry, path in wanted:
                target = into / path
                target.parent.mkdir(parents=True, exist_ok=True)
                # a reader stops at the declared size, and then compares the checksum: no entry grows beyond it
                with file.open(entry) as source, target.open("xb") as sink:
                    shutil.copyfileobj(source, sink, 1 << 20)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, FileExistsError) as error:
        raise BadDataError(
            f"{archive.name} cannot be unpacked ({error}); expected a whole zip archive: {_REFETCH}"
        ) from error


def _checked(
    archive: Path, entries: list[zipfile.ZipInfo], max_files: int
) -> list[tuple[zipfile.ZipInfo, PurePosixPath]]:
    if len(entries) > max_files:
        raise _unsafe(archive, f"has {len(entries)} entries", f"at most {max_files}")
    seen: set[str] = set()
    for entry in entries:
        name = entry.orig_filename
        path = PurePosixPath(name)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or not name.isprintable():
            raise _unsafe(archive, f"has an entry {name!r}", "plain relative paths")
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _unsafe(archive, f"has an entry {name!r} that is a link or device", "files and folders")
        if str(path) in seen:
            raise _unsafe(archive, f"has two entries {name!r}", "one")
        seen.add(str(path))
    return [(entry, PurePosixPath(entry.orig_filename)) for entry in entries]


def _unsafe(archive: Path, found: str, expected: str) -> UnsafeArchiveError:
    return UnsafeArchiveError(f"{archive.name} {found}, expected {expected}: {_REFETCH}")
