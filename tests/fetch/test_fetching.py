"""From mirror or publisher into place: whole, checked, the same by every way; and a message where it is not."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest
from mirror_server import Web

from evalsuite.core.errors import (
    BadDataError,
    EvalsuiteError,
    FetchError,
    MissingDataError,
    OptionError,
    SchemaError,
    UnsafeArchiveError,
    WrongHashError,
)
from evalsuite.fetch.fetching import Outcome, Source, fetch
from evalsuite.fetch.ledger import Ledger, content_of, file_sha256
from evalsuite.fetch.manifest import Item

MESH, TEXTURE, THUMBNAIL = "meshes/model.obj", "materials/textures/texture.png", "thumbnails/0.jpg"
FILES = {MESH: b"v 0 0 0\n" * 40_000, TEXTURE: os.urandom(300_000), THUMBNAIL: b"jpg"}
ZIP, FILE = "/toys/duck.zip", "/weights/net.bin"
WEIGHTS = os.urandom(200_000)


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, body in files.items():
            file.writestr(name, body)
    return buffer.getvalue()


ARCHIVE = packed(FILES)


def duck(url: str | None = None, **keys: object) -> Item:
    item = Item(
        "toys/duck", "a duck", "CC0", "us", PurePosixPath("toys/duck"), 2_000_000,
        url=url, archive=PurePosixPath("toys/duck.zip"), keep=("meshes/*", "materials/*"), needs=(MESH, TEXTURE),
        loose=True, max_files=10,
    )  # fmt: skip
    return replace(item, **keys)  # type: ignore[arg-type]


def net(url: str | None = None, **keys: object) -> Item:
    item = Item("weights/net", "a net", "MIT", "us", PurePosixPath("weights/net.bin"), 2_000_000, url=url)
    return replace(item, **keys)  # type: ignore[arg-type]


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, body in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return folder


def good(item: Item, source: Source) -> Outcome:
    result = fetch([item], source)[item.id]
    if isinstance(result, EvalsuiteError):
        raise result
    return result


def in_place(root: Path) -> dict[str, bytes]:
    folder = root / "toys/duck"
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def left_over(root: Path) -> list[str]:
    return sorted(path.name for path in (root / ".fetch").iterdir() if path.name != "lock")


WAYS = ["zip in a folder", "unpacked in a folder", "zip on a server", "loose on a server", "publisher"]


def way_to(way: str, web: Web, tmp_path: Path) -> tuple[Item, Source]:
    """The same duck, behind each of the ways."""
    folder = tmp_path / "mirror"
    source = Source(tmp_path / "data", mirror=web.url if "server" in way else str(folder))
    folder.mkdir()
    if way == "zip in a folder":
        write(folder, {"toys/duck.zip": ARCHIVE})
    elif way == "unpacked in a folder":
        write(folder / "toys/duck", FILES)
    elif way == "zip on a server":
        web.files[ZIP] = ARCHIVE
    elif way == "loose on a server":
        web.files |= {f"/toys/duck/{name}": body for name, body in FILES.items()}
    else:
        web.files["/publisher.zip"] = ARCHIVE
    return duck(web.url + "/publisher.zip"), source


@pytest.mark.parametrize("way", WAYS)
def test_every_way_brings_the_same(way: str, web: Web, tmp_path: Path) -> None:
    item, source = way_to(way, web, tmp_path)
    outcome = good(item, source)
    assert in_place(source.root) == {MESH: FILES[MESH], TEXTURE: FILES[TEXTURE]}
    assert outcome.origin == ("publisher" if way == "publisher" else "mirror")
    assert outcome.rule == "recorded now"
    whole = way in ("zip in a folder", "zip on a server", "publisher")
    assert (outcome.entry.source_sha256 is not None) == whole
    assert (outcome.manifest_line() is not None) == (way == "publisher")
    assert web.count("/publisher.zip") == (1 if way == "publisher" else 0)
    assert left_over(source.root) == []
    again = good(item, source)
    assert (again.origin, again.rule, again.entry) == ("present", "as recorded", outcome.entry)
    shutil.rmtree(source.root / "toys")
    other = good(item, source)  # the same way once more, now against the recorded hash
    assert (other.rule, other.entry) == ("as recorded", outcome.entry)


@pytest.mark.parametrize("place", ["folder", "server", "publisher"])
def test_a_plain_file(place: str, web: Web, tmp_path: Path) -> None:
    if place == "folder":
        write(tmp_path / "mirror", {"weights/net.bin": WEIGHTS})
    web.files["/net" if place == "publisher" else FILE] = WEIGHTS
    mirrors = {"folder": str(tmp_path / "mirror"), "server": web.url + "/", "publisher": None}
    source = Source(tmp_path / "data", mirror=mirrors[place])
    outcome = good(net(web.url + "/net"), source)
    sha256 = file_sha256(source.root / "weights/net.bin")
    assert (source.root / "weights/net.bin").read_bytes() == WEIGHTS
    line = f'net = {{ bytes = 200000, sha256 = "{sha256}" }}' if place == "publisher" else None
    assert outcome.manifest_line() == line
    known = good(net(bytes=len(WEIGHTS), sha256=sha256), source)
    assert (known.origin, known.rule, known.manifest_line()) == ("present", "as in the manifest", None)
    assert left_over(source.root) == []


def test_a_mirror_without_it_leaves_it_to_the_publisher(web: Web, tmp_path: Path) -> None:
    web.files["/publisher.zip"] = ARCHIVE
    outcome = good(duck(web.url + "/publisher.zip"), Source(tmp_path, mirror=web.url))
    assert outcome.origin == "publisher"
    assert [path for path, _ in web.asked] == [ZIP, f"/toys/duck/{MESH}", "/publisher.zip"]


def test_a_hash_is_recorded_then_enforced(web: Web, tmp_path: Path) -> None:
    url = web.url + "/publisher.zip"
    web.files["/publisher.zip"] = ARCHIVE
    source = Source(tmp_path)
    first = good(duck(url), source)
    shutil.rmtree(tmp_path / "toys")
    web.files["/publisher.zip"] = packed({**FILES, THUMBNAIL: b"other"})
    with pytest.raises(WrongHashError) as caught:
        good(duck(url), source)
    assert caught.value.expected == first.entry.source_sha256
    assert "the download from" in str(caught.value)
    assert not (tmp_path / "toys/duck").exists()
    assert left_over(tmp_path) == []
    web.files["/publisher.zip"] = ARCHIVE
    assert good(duck(url), source).rule == "as recorded"


def test_another_content_by_another_way_is_told(web: Web, tmp_path: Path) -> None:
    """A mirror with re-encoded textures and the publisher's archive are not the same data."""
    write(tmp_path / "mirror/toys/duck", {**FILES, TEXTURE: b"smaller"})
    good(duck(), Source(tmp_path / "data", mirror=str(tmp_path / "mirror")))
    shutil.rmtree(tmp_path / "data/toys")
    web.files["/publisher.zip"] = ARCHIVE
    with pytest.raises(
        WrongHashError, match=r"is not what was fetched first; delete it and fetch again, or delete its"
    ):
        good(duck(web.url + "/publisher.zip"), Source(tmp_path / "data"))
    assert not (tmp_path / "data/toys/duck").exists()


def test_what_was_put_there_by_hand_is_recorded_and_then_held(tmp_path: Path) -> None:
    write(tmp_path / "toys/duck", FILES)
    assert good(duck(), Source(tmp_path)).rule == "recorded now"
    (tmp_path / "toys/duck" / TEXTURE).write_bytes(b"edited")
    with pytest.raises(WrongHashError, match="toys/duck is not what was fetched first"):
        good(duck(), Source(tmp_path))


def test_the_ledger_reads_what_sha256sum_writes(tmp_path: Path) -> None:
    write(tmp_path / "d", {"b/c": b"1", "a": b"2", "b.txt": b"3"})
    listing = subprocess.run(
        "find . -type f | sed s,./,, | LC_ALL=C sort | xargs sha256sum | sha256sum", shell=True, cwd=tmp_path / "d",
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    content = content_of(tmp_path / "d")
    assert listing.split()[0] == content.sha256
    assert (content.files, content.bytes) == (3, 3)


@pytest.mark.parametrize("text", ["{", "[]", '{"schema": 1}', '{"schema": 1, "items": {"a": {}}}', '{"schema": 9}'])
def test_a_broken_ledger_is_named(text: str, tmp_path: Path) -> None:
    (tmp_path / "fetched.json").write_text(text)
    with pytest.raises(SchemaError, match=r"fetched\.json"):
        good(duck(), Source(tmp_path))


def test_one_that_fails_does_not_stop_the_others(web: Web, tmp_path: Path) -> None:
    web.files[FILE] = WEIGHTS
    told: list[str] = []
    results = fetch([duck(), net(web.url + FILE)], Source(tmp_path), lambda item, result: told.append(item.id))
    assert isinstance(results["toys/duck"], MissingDataError)
    assert isinstance(results["weights/net"], Outcome)
    assert told == ["toys/duck", "weights/net"]
    assert list(json.loads((tmp_path / "fetched.json").read_text())["items"]) == ["weights/net"]


def test_offline_opens_no_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    write(tmp_path / "mirror/toys/duck", FILES)
    source = Source(tmp_path / "data", mirror=str(tmp_path / "mirror"), offline=True)
    assert good(duck("https://example.org/duck.zip"), source).origin == "mirror"
    item = net("https://example.org/net")
    with pytest.raises(MissingDataError, match="run `evalsuite fetch weights/net`, then set EVALSUITE_MIRROR to"):
        good(item, source)
    web = replace(source, mirror="http://127.0.0.1:9")
    with pytest.raises(MissingDataError, match=r"127\.0\.0\.1:9 \(not asked: the network is switched off\)"):
        good(item, web)
    with pytest.raises(MissingDataError, match=r"\(not asked: the network is switched off\), and its publisher has no"):
        good(net(), web)


Set = Callable[[Web], Item]
BROKEN: dict[str, tuple[Set, dict[str, bytes], type[EvalsuiteError], str]] = {
    "gone": (lambda w: duck(w.url + "/gone"), {}, MissingDataError, "/gone answers 404, expected the file: look for"),
    "forbidden": (lambda w: duck(w.url + "/403"), {}, FetchError, "/403 answers 403, expected the file"),
    "failing": (lambda w: duck(w.url + "/500"), {}, FetchError, "answer 500, 5 times in a row"),
    "wrong hash": (lambda w: duck(w.url + "/good", sha256="0" * 64), {}, WrongHashError,
                   f"expected {'0' * 64}: the download from"),
    "wrong size": (lambda w: duck(w.url + "/good", bytes=7), {}, BadDataError, f"has {len(ARCHIVE)} bytes, expected 7"),
    "too large": (lambda w: duck(w.url + "/good", max_bytes=1000), {}, FetchError, "or more, expected at most 1000"),
    "bomb": (lambda w: duck(w.url + "/bomb"), {}, UnsafeArchiveError, "unpacks to 3000000 bytes, expected at most"),
    "escape": (lambda w: duck(w.url + "/escape"), {}, UnsafeArchiveError, "has an entry '../../evil', expected plain"),
    "no zip": (lambda w: duck(w.url + "/page"), {}, BadDataError, "cannot be unpacked (File is not a zip file)"),
    "incomplete": (lambda w: duck(w.url + "/half"), {}, BadDataError,
                   f"what the publisher gave has no {TEXTURE}, expected 2 such files (1 are not there)"),
    "mirror's hash": (lambda w: duck(sha256="0" * 64), {"mirror/toys/duck.zip": ARCHIVE}, WrongHashError,
                      "is not the publisher's file; correct the mirror"),
    "mirror's zip": (lambda w: duck(), {"mirror/toys/duck.zip": b"PK"}, BadDataError, "cannot be unpacked"),
    "mirror's half": (lambda w: duck(), {f"mirror/toys/duck/{MESH}": b"v"}, BadDataError,
                      f"what the mirror gave has no {TEXTURE}"),
    "mirror only": (lambda w: duck(), {}, MissingDataError,
                    "its publisher has no file of it; expected toys/duck or toys/duck.zip in a mirror"),
    "half in place": (lambda w: duck(), {f"data/toys/duck/{MESH}": b"v"}, BadDataError, f"toys/duck has no {TEXTURE}"),
    "cut in place": (lambda w: net(bytes=9), {"data/weights/net.bin": b"12345"}, BadDataError,
                     "weights/net has 5 bytes, expected 9: delete"),
    "other in place": (lambda w: net(sha256="0" * 64), {"data/weights/net.bin": b"1"}, WrongHashError, "fetch again"),
    "file in the way": (lambda w: duck(w.url + "/good"), {"data/toys": b"a file"}, FetchError, "expected a folder"),
}  # fmt: skip


@pytest.mark.parametrize("name", BROKEN)
def test_broken_inputs(name: str, web: Web, tmp_path: Path) -> None:
    make, files, kind, message = BROKEN[name]
    write(tmp_path, files)
    (tmp_path / "mirror").mkdir(exist_ok=True)
    web.files |= {
        "/good": ARCHIVE, "/403": ARCHIVE, "/500": ARCHIVE, "/page": b"<html>",
        "/bomb": zip_of_zeros(), "/escape": packed({**FILES, "../../evil": b"x"}), "/half": packed({MESH: b"v"}),
    }  # fmt: skip
    web.faults |= {"/403": [403], "/500": [500] * 5}
    item = make(web)
    there = (tmp_path / "data" / item.to).exists()
    with pytest.raises(kind) as caught:
        good(item, Source(tmp_path / "data", mirror=str(tmp_path / "mirror")))
    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (tmp_path / "data" / item.to).exists() == there
    assert Ledger(tmp_path / "data").read() == {}
    assert not (tmp_path / "evil").exists()
    assert not [left for left in left_over(tmp_path / "data") if left.startswith("new-")]


def zip_of_zeros() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("meshes/zeros", bytes(3_000_000))
    return buffer.getvalue()


@pytest.mark.parametrize("bad", ["/half", "/page", "/escape"])
def test_bytes_that_proved_wrong_are_not_gone_on_with(bad: str, web: Web, tmp_path: Path) -> None:
    web.files |= {"/page": b"<html>", "/escape": packed({"../evil": b"x"}), "/half": packed({MESH: b"v"})}
    with pytest.raises(BadDataError):
        good(duck(web.url + bad), Source(tmp_path))
    assert left_over(tmp_path) == []
    web.files[bad] = ARCHIVE
    assert good(duck(web.url + bad), Source(tmp_path)).origin == "publisher"


def test_a_mirror_that_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match=r"nowhere is no folder, expected one, or an http\(s\) address"):
        fetch([duck()], Source(tmp_path, mirror=str(tmp_path / "nowhere")))


PROGRAM = """
import sys
from pathlib import Path
from evalsuite.fetch.fetching import Source, fetch
from evalsuite.fetch.manifest import load_manifest
items = load_manifest(Path(sys.argv[1])).select(["toys"])
results = fetch(items, Source(Path(sys.argv[2])), waiting=lambda: print("waiting", flush=True))
print(results["toys/duck"].origin, flush=True)
"""


def program(web: Web, tmp_path: Path) -> subprocess.Popen[str]:
    manifest = tmp_path / "manifest.toml"
    manifest.write_text(
        f'schema = 1\n[sets]\n[groups.toys]\nabout = ""\nlicence = ""\ncitation = ""\nurl = "{web.url}{ZIP}"\n'
        f'archive = "toys/{{name}}.zip"\nto = "toys/{{name}}"\nkeep = ["*"]\nneeds = ["{MESH}"]\n'
        "max_bytes = 2_000_000\nmax_files = 10\n[groups.toys.items]\nduck = {}\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(manifest), str(tmp_path / "data")], stdout=subprocess.PIPE, text=True
    )


def test_two_processes_bring_it_once(web: Web, tmp_path: Path) -> None:
    web.files[ZIP], web.held[ZIP] = ARCHIVE, threading.Event()
    with program(web, tmp_path) as first:
        assert web.reached.wait(60)
        with program(web, tmp_path) as second:
            assert second.stdout is not None
            assert second.stdout.readline() == "waiting\n"
            web.held[ZIP].set()
            assert first.communicate(timeout=60)[0] == "publisher\n"
            assert second.communicate(timeout=60)[0] == "present\n"
    assert web.count(ZIP) == 1
    assert in_place(tmp_path / "data") == FILES


def test_a_killed_process_leaves_nothing_that_looks_whole(web: Web, tmp_path: Path) -> None:
    web.files[ZIP], web.held[ZIP] = ARCHIVE, threading.Event()
    with program(web, tmp_path) as first:
        assert web.reached.wait(60)
        first.send_signal(signal.SIGKILL)
    assert not (tmp_path / "data/toys").exists()
    (tmp_path / "data/.fetch/new-dead").mkdir()
    web.held.pop(ZIP).set()
    with program(web, tmp_path) as second:
        assert second.communicate(timeout=60)[0] == "publisher\n"
    assert in_place(tmp_path / "data") == FILES
    assert left_over(tmp_path / "data") == []
