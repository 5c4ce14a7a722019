"""Archives that try to escape or to fill the disk: refused as a whole, before anything is written."""

from __future__ import annotations

import io
import stat
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evalsuite.core.errors import BadDataError, UnsafeArchiveError
from evalsuite.fetch.archives import unpack

LINK, DEVICE, PIPE = stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO


def zipped(*entries: tuple[str, bytes], kind: int = stat.S_IFREG) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, body in entries:
            info = zipfile.ZipInfo(name)
            info.external_attr = (kind | 0o644) << 16
            info.compress_type = zipfile.ZIP_DEFLATED
            file.writestr(info, body)
    return buffer.getvalue()


def flipped(archive: bytes, old: bytes, new: bytes) -> bytes:
    assert old in archive
    return archive.replace(old, new)


def opened(archive: bytes, tmp_path: Path, patterns: tuple[str, ...] = ("*",)) -> Path:
    (tmp_path / "a.zip").write_bytes(archive)
    into = tmp_path / "deep" / "into"
    into.mkdir(parents=True)
    unpack(tmp_path / "a.zip", into, patterns, max_bytes=1_000_000, max_files=10)
    return into


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_only_what_is_kept_is_unpacked(tmp_path: Path) -> None:
    archive = zipped(("meshes/model.obj", b"v"), ("thumbnails/0.jpg", b"j"), ("meshes/deep/a", b"a"), ("meshes/", b""))
    into = opened(archive, tmp_path, ("meshes/*",))
    assert files(into) == ["meshes/deep/a", "meshes/model.obj"]
    assert (into / "meshes/model.obj").read_bytes() == b"v"


GOOD = ("good.txt", b"good")

BROKEN = {
    "parent": (zipped(GOOD, ("../evil", b"x")), UnsafeArchiveError, "has an entry '../evil', expected plain relative"),
    "inner parent": (zipped(GOOD, ("a/../../../evil", b"x")), UnsafeArchiveError, "'a/../../../evil'"),
    "absolute": (zipped(GOOD, ("/tmp/evil", b"x")), UnsafeArchiveError, "has an entry '/tmp/evil'"),
    "drive": (zipped(GOOD, ("C:/evil", b"x")), UnsafeArchiveError, "has an entry 'C:/evil'"),
    "backslash": (zipped(GOOD, ("..\\evil", b"x")), UnsafeArchiveError, "has an entry"),
    "null": (flipped(zipped(("a#b", b"x")), b"a#b", b"a\0b"), UnsafeArchiveError, r"has an entry 'a\x00b'"),
    "link": (zipped(("link", b"/etc/passwd"), kind=LINK), UnsafeArchiveError, "'link' that is a link or device"),
    "device": (zipped(("dev", b""), kind=DEVICE), UnsafeArchiveError, "expected files and folders"),
    "pipe": (zipped(("pipe", b""), kind=PIPE), UnsafeArchiveError, "'pipe' that is a link or device"),
    "twice": (zipped(("a", b"1"), ("./a", b"2")), UnsafeArchiveError, "has two entries './a', expected one"),
    "bomb": (zipped(GOOD, ("zeros", bytes(2_000_000))), UnsafeArchiveError, "unpacks to 2000004 bytes, expected"),
    "many": (zipped(*((str(n), b"") for n in range(11))), UnsafeArchiveError, "has 11 entries, expected at most 10"),
    "truncated": (zipped(GOOD)[:-30], BadDataError, "a.zip cannot be unpacked (File is not a zip file)"),
    "not a zip": (b"<html>please log in</html>", BadDataError, "cannot be unpacked (File is not a zip file)"),
    "empty": (b"", BadDataError, "cannot be unpacked"),
    "file as folder": (zipped(("a", b"1"), ("a/b", b"2")), BadDataError, "cannot be unpacked"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_archives(name: str, tmp_path: Path) -> None:
    archive, kind, message = BROKEN[name]
    with pytest.raises(kind) as caught:
        opened(archive, tmp_path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    written = {"a.zip"} | ({"deep/into/a"} if name == "file as folder" else set())
    assert set(files(tmp_path)) == written


def test_a_damaged_entry_is_found(tmp_path: Path) -> None:
    body = bytes(range(256)) * 8
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as file:
        file.writestr("a", body)
    with pytest.raises(BadDataError, match="Bad CRC-32"):
        opened(flipped(buffer.getvalue(), body[:32], bytes(32)), tmp_path)


def test_an_entry_that_lies_about_its_size_stays_within_it(tmp_path: Path) -> None:
    archive = zipped(("zeros", bytes(3_000_000)))
    lying = flipped(archive, (3_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    with pytest.raises(BadDataError):
        opened(lying, tmp_path)
    assert sum(path.stat().st_size for path in (tmp_path / "deep").rglob("*") if path.is_file()) <= 1000


@given(st.lists(st.sampled_from(["a", "b", "..", ".", "/", "\\", "", "é", "C:"]), min_size=1, max_size=6))
def test_nothing_is_ever_written_outside(parts: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            into = opened(zipped(("/".join(parts) or "x", b"x")), Path(folder))
        except BadDataError:
            into = Path(folder) / "deep" / "into"
        outside = [path for path in Path(folder).rglob("*") if path.is_file() and into not in path.parents]
        assert [path.name for path in outside] == ["a.zip"]
