"""The manifest names every file of the study, with licence and source, and nothing that could leave the data folder."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

import pytest

from evalsuite.core.errors import SchemaError, UnknownNameError
from evalsuite.fetch.manifest import Item, load_manifest
from evalsuite.models.lgm.files import PUBLIC_FILES
from evalsuite.scenes.catalogue import MIPNERF360, SUITES
from evalsuite.scenes.sources import SCANS

MANIFEST = load_manifest()

SMALL = """
schema = 1
[sets]
all = ["toys"]
none = []
[groups.toys]
about = "toys"
licence = "CC0"
citation = "us"
url = "https://example.org/{name}.zip"
archive = "toys/{name}.zip"
to = "toys/{name}"
keep = ["*"]
max_bytes = 10
max_files = 3
[groups.toys.items]
duck = { bytes = 5 }
robot = { licence = "MIT" }
"""


def test_every_scan_and_capture_of_the_suites_is_there() -> None:
    assert {f"gso/{name}" for name, _ in SCANS.values()} == {key for key in MANIFEST.items if key.startswith("gso/")}
    captures = {scene.removeprefix("capture.") for scene in SUITES["captures"].scenes}
    assert captures <= {key.removeprefix("captures/") for key in MANIFEST.items}
    assert set(SUITES) <= set(MANIFEST.sets)
    kept = MANIFEST.items["mipnerf360/360_v2"].keep
    assert set(kept) == {f"{name}/{part}/*" for name, images in MIPNERF360.items() for part in (images, "sparse/0")}
    assert MANIFEST.items[f"lgm/{PUBLIC_FILES['lgm-big']}"].to.parent == PurePosixPath("weights/lgm")


@pytest.mark.parametrize("item", MANIFEST.items.values(), ids=lambda item: item.id)
def test_an_item(item: Item) -> None:
    assert item.licence
    assert item.citation
    assert item.url is None or item.url.startswith("https://")
    for path in (item.to, item.in_mirror, *map(PurePosixPath, item.needs)):
        assert not path.is_absolute()
        assert ".." not in path.parts
    assert item.sha256 is None or re.fullmatch("[0-9a-f]{64}", item.sha256)
    assert item.bytes is None or 0 < item.bytes <= item.max_bytes
    assert (item.archive is None) == (item.keep == ())


def test_no_two_items_share_a_place() -> None:
    places = [item.to for item in MANIFEST.items.values()]
    assert len(set(places)) == len(places)


def test_hashes_agree_with_the_digits_that_torchvision_puts_into_the_names() -> None:
    backbones = MANIFEST.select(["lpips"])
    assert len(backbones) == 3
    for item in backbones:
        assert item.sha256 is not None
        assert item.id.endswith(f"-{item.sha256[:8]}.pth")


def test_selection_by_suite_group_and_item(tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    path.write_text(SMALL)
    small = load_manifest(path)
    assert [item.id for item in small.select(["all"])] == ["toys/duck", "toys/robot"]
    assert [item.id for item in small.select(["toys/robot", "toys", "toys/robot"])] == ["toys/duck", "toys/robot"]
    assert small.select(["none"]) == ()
    duck, robot = small.select(["toys"])
    assert (duck.bytes, duck.licence, duck.url) == (5, "CC0", "https://example.org/duck.zip")
    assert (robot.bytes, robot.licence, robot.to) == (None, "MIT", PurePosixPath("toys/robot"))


@pytest.mark.parametrize(("name", "hint"), [("toy", "'toys'"), ("toys/duc", "'toys/duck'")])
def test_an_unknown_name_has_a_hint(name: str, hint: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    path.write_text(SMALL)
    with pytest.raises(UnknownNameError, match=f"Did you mean {hint}"):
        load_manifest(path).select([name])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("schema = 1", "schema = 2", "is of schema 2, expected 1: update evalsuite"),
        ("schema = 1", "", "KeyError: 'schema'"),
        ("licence", "license", "TypeError"),
        ("max_bytes = 10", "", "TypeError"),
        ("{ bytes = 5 }", "{ bytes = 5", "TOMLDecodeError"),
    ],
)
def test_a_broken_manifest(old: str, new: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "manifest.toml"
    path.write_text(SMALL.replace(old, new, 1))
    with pytest.raises(SchemaError, match=re.escape(message)):
        load_manifest(path)
