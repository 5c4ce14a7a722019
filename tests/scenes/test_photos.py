"""What a publisher's name of an image means here."""

from __future__ import annotations

from pathlib import Path

import pytest

from evalsuite.core.errors import BadDataError, MissingDataError
from evalsuite.scenes.photos import portable, present, unique


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("images\\a.png", "images/a.png"),
        ("./images/a.png", "images/a.png"),
        (".\\images\\b\\a.png", "images/b/a.png"),
        ("images/a", "images/a.png"),
        ("images/a", "images/a.jpg"),
        ("images/a", "images/a.JPEG"),
        ("images/frame.0001", "images/frame.0001.png"),
        ("images/a.png", "images/a.PNG"),
        ("images/A.JPG", "images/A.jpg"),
        ("a (402).png", "a (402).png"),
    ],
)
def test_a_name_finds_its_file(tmp_path: Path, name: str, file: str) -> None:
    _touch(tmp_path, file, "images/other.png")
    ours = portable(tmp_path, name)
    assert present(tmp_path, tmp_path, [ours]) == ({ours: tmp_path / file}, ())


def test_an_absolute_name_finds_its_file(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png")
    name = str(tmp_path / "a.png")
    assert present(tmp_path, tmp_path / "elsewhere", [name])[0] == {name: tmp_path / "a.png"}


def test_without_suffix_png_comes_first(tmp_path: Path) -> None:
    """NeRF's synthetic scenes leave out ``.png``."""
    _touch(tmp_path, "a.jpg", "a.png")
    assert present(tmp_path, tmp_path, ["a"])[0] == {"a": tmp_path / "a.png"}


def test_a_name_in_other_letters_must_be_plain(tmp_path: Path) -> None:
    _touch(tmp_path, "a.png", "A.png", "b.png")
    assert present(tmp_path, tmp_path, ["a.PNG", "b.png"]) == (
        {"b.png": tmp_path / "b.png"},
        ("1 of 2 listed frames have no file: a.PNG",),
    )


def test_one_suffix_does_not_stand_for_another(tmp_path: Path) -> None:
    _touch(tmp_path, "a.jpg")
    with pytest.raises(MissingDataError, match=r"expected e\.g\. a\.png in .*: copy the images there"):
        present(tmp_path, tmp_path, ["a.png"])


@pytest.mark.parametrize("name", ["/home/somebody/images/a.png", "C:\\capture\\images\\a.png"])
def test_paths_of_another_machine_are_called_so(tmp_path: Path, name: str) -> None:
    _touch(tmp_path, "images/a.png")
    with pytest.raises(MissingDataError, match="of another machine: write them relative to"):
        present(tmp_path, tmp_path, [portable(tmp_path, name)])


@pytest.mark.parametrize("twin", ["images/a", "images/../images/a.png", "images/A.PNG"])
def test_two_names_of_one_file_are_refused(tmp_path: Path, twin: str) -> None:
    _touch(tmp_path, "images/a.png")
    with pytest.raises(BadDataError, match=r"lists image .* twice, the second time as"):
        present(tmp_path, tmp_path, unique(tmp_path, [twin, "images/a.png"]))


def test_files_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    _touch(tmp_path, "left/a.png", "right/a.png")
    assert len(present(tmp_path, tmp_path, unique(tmp_path, ["right/a.png", "left/a.png"]))[0]) == 2
