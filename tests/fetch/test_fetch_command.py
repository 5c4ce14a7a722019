"""`evalsuite fetch` by its exit codes: 0 all there, 1 something is not, 2 a mistake in the command."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from mirror_server import Web

from evalsuite.cli import main
from evalsuite.commands import data
from evalsuite.core.protocol import Protocol
from evalsuite.fetch.fetching import Source, fetch
from evalsuite.fetch.listing import size_text
from evalsuite.fetch.manifest import Item, Manifest, load_manifest
from evalsuite.scenes.catalogue import SCENES
from evalsuite.scenes.colmap import read_model
from evalsuite.scenes.gso import locate
from evalsuite.scenes.meshes import load_mesh

DINO = {"meshes/model.obj": b"v 0 0 0\n", "materials/textures/texture.png": b"png", "model.sdf": b"sdf"}


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, body in files.items():
            file.writestr(name, body)
    return buffer.getvalue()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("EVALSUITE_MIRROR", raising=False)
    monkeypatch.delenv("EVALSUITE_OFFLINE", raising=False)
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fetch",), "nothing to fetch was named; expected suites, groups or items: see evalsuite fetch --list"),
        (
            ("fetch", "scna"),
            "unknown data 'scna'; known: captures, gso, lgm, lpips, mipnerf360, paper, quality, scan, smoke",
        ),
        (("fetch", "gso/Dino_4"), "Did you mean 'gso/Dino_3'?"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(
    arguments: tuple[str, ...], message: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.count("\n") == 1


def test_the_embedded_study_needs_nothing(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "smoke"]) == 0
    assert "smoke needs no data" in capsys.readouterr().out
    assert not list(here.iterdir())


@pytest.mark.parametrize("switch", ["option", "variable"])
def test_offline_says_what_is_missing_and_ends_with_1(
    switch: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    if switch == "variable":
        monkeypatch.setenv("EVALSUITE_OFFLINE", "1")
    assert main(["fetch", "lpips", *(["--offline"] if switch == "option" else [])]) == 1
    printed = capsys.readouterr()
    assert printed.err.count("run `evalsuite fetch lpips/") == 3
    assert printed.out == "0 of 3 items are in data\n"


def test_from_a_web_mirror(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, web: Web
) -> None:
    web.files["/gso/Dino_3.zip"] = packed(DINO)
    web.faults["/gso/Dino_3.zip"] = [503]
    monkeypatch.setenv("EVALSUITE_MIRROR", web.url)
    assert main(["fetch", "gso/Dino_3"]) == 0
    printed = capsys.readouterr().out
    sha256 = json.loads(Path("data/fetched.json").read_text())["items"]["gso/Dino_3"]["source_sha256"]
    assert f"gso/Dino_3: from the mirror, 11 B in 2 files; sha256 {sha256[:12]} recorded now\n" in printed
    assert "to hold them for everybody" not in printed
    assert locate("Dino_3") == Path("data/gso/Dino_3")
    assert main(["fetch", "gso/Dino_3"]) == 0
    assert "gso/Dino_3: present, 11 B in 2 files; sha256" in capsys.readouterr().out


SCENE_360 = (
    *("images/_DSC1.JPG", "images_2/_DSC1.JPG", "images_4/_DSC1.JPG", "images_8/_DSC1.JPG", "poses_bounds.npy"),
    *(f"sparse/0/{part}.bin" for part in ("cameras", "images", "points3D")),
)
"""One scene as the publisher of Mip-NeRF 360 packs it."""


def test_of_mip_nerf_360_only_the_studys_part_is_unpacked(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, web: Web
) -> None:
    scenes = ("bicycle", "bonsai", "counter", "garden", "kitchen", "room", "stump")
    files = {f"{scene}/{name}": f"{scene} {name}".encode() for scene in scenes for name in SCENE_360}
    web.files["/mipnerf360/360_v2.zip"] = packed({"flowers.txt": b"see the other archive", **files})
    web.faults["/mipnerf360/360_v2.zip"] = [-700, 503]
    monkeypatch.setenv("EVALSUITE_MIRROR", web.url)
    assert main(["fetch", "mipnerf360"]) == 0
    assert "mipnerf360/360_v2: from the mirror" in capsys.readouterr().out
    root = Path("data/mipnerf360")
    found = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    indoors = {f"{scene}/images_2/_DSC1.JPG" for scene in ("bonsai", "counter", "kitchen", "room")}
    models = {f"{scene}/{name}" for scene in set(scenes) - {"bicycle", "stump"} for name in SCENE_360[5:]}
    assert found == indoors | models | {"garden/images_4/_DSC1.JPG"}
    assert all((root / name).read_bytes() == files[name] for name in found)


def test_from_the_publisher_with_the_hash_to_commit(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, web: Web
) -> None:
    web.files["/net.v2"] = b"weights"
    item = Item("toys/net.v2", "a net", "CC0", "us", PurePosixPath("toys/net.v2"), 1000, url=web.url + "/net.v2")
    monkeypatch.setattr(data, "load_manifest", lambda: Manifest({item.id: item}, {}))
    assert main(["fetch", "toys"]) == 0
    sha256 = hashlib.sha256(b"weights").hexdigest()
    assert f'\n  "net.v2" = {{ bytes = 7, sha256 = "{sha256}" }}\n1 of 1 items' in capsys.readouterr().out


def test_the_list_says_what_is_here(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "mirror/gso/Android_Lego").mkdir(parents=True)
    (here / "data/gso/Dino_3").mkdir(parents=True)
    monkeypatch.setenv("EVALSUITE_MIRROR", "mirror")
    assert main(["fetch", "--list"]) == 0
    printed = capsys.readouterr().out
    rows = {words[0]: words for line in printed.splitlines() if (words := line.split())}
    assert rows["gso/Dino_3"][1:] == ["?", "data", "CC", "BY", "4.0"]
    assert rows["gso/Android_Lego"][1:3] == ["?", "mirror"]
    assert rows["lgm/model_fp16_fixrot.safetensors"][1:] == ["830", "MB", "no", "MIT"]
    assert "Downs et al. 2022" in printed
    assert main(["fetch", "--list", "lgm"]) == 0
    assert "gso" not in capsys.readouterr().out
    assert not (here / "data/.fetch").exists()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.00 kB"), (9_960, "10.0 kB"), (999_499, "999 kB"), (999_500, "1.00 MB"),
     (830_126_160, "830 MB"), (12_345_678_901, "12.3 GB"), (10**15, "1000000 GB")],
)  # fmt: skip
def test_sizes(count: int, text: str) -> None:
    assert size_text(count) == text


@pytest.mark.data
def test_a_real_scan_and_a_real_capture_come_over_http_as_from_a_folder(
    web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut connections and a busy server on the way; the same bytes, by hash, as copied from the mirror's folder.

    So a scene is prepared from what came over HTTP as it is from the mirror: its origin is the same.
    """
    mirror = Path(os.environ["EVALSUITE_MIRROR"])
    items = load_manifest().select(["gso/Dino_3", "captures/beer"])
    by_folder = fetch(items, Source(tmp_path / "copied", mirror=str(mirror)))
    for item in items:
        root = mirror / item.to
        files = {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}
        if item.id == "gso/Dino_3":
            web.files |= {f"/{item.to}/{name}": body for name, body in files.items()}
        else:
            web.files[f"/{item.in_mirror}"] = packed(files)
    web.faults = {"/gso/Dino_3/meshes/model.obj": [500, -200_000], "/captures/beer.zip": [-3_000_000, -3_000_000]}
    by_http = fetch(items, Source(tmp_path / "served", mirror=web.url))
    for item in items:
        served, copied = by_http[item.id], by_folder[item.id]
        assert not isinstance(served, Exception)
        assert not isinstance(copied, Exception)
        assert served.entry.content == copied.entry.content
    assert web.count("/captures/beer.zip") == 3
    scenes = ("gso.dino-3", "capture.beer")
    in_mirror = [SCENES[scene].origin(Protocol("p")) for scene in scenes]
    monkeypatch.setenv("EVALSUITE_MIRROR", str(tmp_path / "served"))
    assert [SCENES[scene].origin(Protocol("p")) for scene in scenes] == in_mirror
    assert all(origin.source for origin in in_mirror)
    assert len(load_mesh(tmp_path / "served/gso/Dino_3/meshes/model.obj").faces) > 1000
    assert len(read_model(tmp_path / "served/captures/beer/sparse/0").images) == 71
