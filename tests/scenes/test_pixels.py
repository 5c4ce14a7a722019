"""Every mode of an image is scaled or refused: one row per kind of file."""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from evalsuite.core.errors import BadDataError
from evalsuite.scenes.images import image_size, read_layers, read_rgb
from evalsuite.scenes.pixels import decode

WIDE = np.array([[0, 30000, 32800, 65535]], dtype=np.uint16)
GREY = [0, 117, 128, 255]
"""WIDE / 257, rounded."""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(colour: int, depth: int, row: bytes, width: int, clear: bytes | None = None) -> bytes:
    """One row of samples in any of PNG's types, with its tRNS chunk."""
    header = struct.pack(">IIBBBBB", width, 1, depth, colour, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", _chunk(b"IHDR", header)]
    if clear is not None:
        parts.append(_chunk(b"tRNS", clear))
    return b"".join([*parts, _chunk(b"IDAT", zlib.compress(b"\0" + row)), _chunk(b"IEND", b"")])


def _tiff(row: bytes, width: int, bits: int, order: str = "<", **tags: int) -> bytes:
    """One row of samples in an uncompressed TIFF, written tag by tag."""
    samples = tags.get("samples", 1)
    values = {256: (4, width), 257: (4, 1), 258: (3, bits), 259: (3, 1), 262: (3, tags.get("photometric", 1))}
    values |= {273: (4, 200), 277: (3, samples), 278: (4, 1), 279: (4, len(row))}
    values |= {code: (3, tags[name]) for code, name in ((284, "planar"), (338, "extra"), (339, "kind")) if name in tags}
    fields, after = [], b""
    for code, (kind, value) in sorted(values.items()):
        count = samples if code in (258, 339) else 1
        if count > 2:
            packed = struct.pack(order + "I", 300 + len(after))
            after += struct.pack(order + f"{count}H", *[value] * count)
        else:
            packed = struct.pack(order + ("I" if kind == 4 else f"{count}H"), *[value] * count).ljust(4, b"\0")
        fields.append(struct.pack(order + "HHI", code, kind, count) + packed)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    directory = struct.pack(order + "H", len(fields)) + b"".join(fields) + bytes(4)
    return (head + directory).ljust(200, b"\0") + row.ljust(100, b"\0") + after


def _saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _big(values: list[int]) -> bytes:
    return np.array(values, ">u2").tobytes()


PALETTE = Image.fromarray(np.array([[0, 1, 2, 1]], np.uint8), "P")
PALETTE.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
FLAT = Image.new("RGB", (4, 1), (200, 100, 50))

GREYS: dict[str, Callable[[], bytes]] = {
    "PNG 16": lambda: _saved(Image.fromarray(WIDE), "PNG"),
    "TIFF 16": lambda: _saved(Image.fromarray(WIDE), "TIFF"),
    "TIFF 16 deflated": lambda: _saved(Image.fromarray(WIDE), "TIFF", compression="tiff_adobe_deflate"),
    "TIFF 16 big endian": lambda: _tiff(_big(WIDE[0].tolist()), 4, 16, ">"),
    "TIFF 16, white is zero": lambda: _tiff((65535 - WIDE).tobytes(), 4, 16, photometric=0),
    "JPEG 2000 16": lambda: _saved(Image.fromarray(WIDE), "JPEG2000"),
    "PGM 16": lambda: b"P5 4 1 65535\n" + _big(WIDE[0].tolist()),
    "PGM of 10 bits": lambda: b"P5 4 1 1023\n" + _big([0, 468, 512, 1023]),
    "TIFF of 12 bits": lambda: _tiff(bytes([0x00, 0x07, 0x52, 0x80, 0x1F, 0xFF]), 4, 12),
    "PNG 16 colour": lambda: _png(2, 16, _big(np.repeat(WIDE[0], 3).tolist()), 4),
    "TIFF 16 colour": lambda: _tiff(np.repeat(WIDE[0], 3).tobytes(), 4, 16, samples=3, photometric=2),
}


@pytest.mark.parametrize("kind", GREYS)
def test_deep_grey_is_scaled_by_its_range(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(GREYS[kind]())
    found = read_rgb(tmp_path / "a").astype(int)
    assert np.ptp(found, axis=2).max() == 0
    assert np.abs(found[0, :, 0] - GREY).max() <= (1 if "bits" in kind or "colour" in kind else 0)


@given(value=st.integers(0, 65535))
def test_sixteen_bits_are_rounded(value: int) -> None:
    found = decode(_saved(Image.fromarray(np.full((1, 1), value, np.uint16)), "PNG"), "x")
    assert np.array(found).ravel().tolist() == [round(value / 257)] * 3


RGBA: list[tuple[str, Callable[[], bytes], list[list[int]]]] = [
    ("palette, one clear", lambda: _saved(PALETTE, "PNG", transparency=1), [[10, 20, 30, 255], [40, 50, 60, 0]]),
    (
        "palette, alpha for each",
        lambda: _saved(PALETTE, "PNG", transparency=bytes([9, 128, 255])),
        [[10, 20, 30, 9], [40, 50, 60, 128]],
    ),
    ("grey 8, one clear", lambda: _png(0, 8, bytes([7, 9]), 2, b"\0\x09"), [[7, 7, 7, 255], [9, 9, 9, 0]]),
    ("grey 4, one clear", lambda: _png(0, 4, bytes([0x31]), 2, b"\0\x01"), [[51, 51, 51, 255], [17, 17, 17, 0]]),
    ("grey 2, one clear", lambda: _png(0, 2, bytes([0xB0]), 2, b"\0\x03"), [[170] * 3 + [255], [255, 255, 255, 0]]),
    ("grey 1, one clear", lambda: _png(0, 1, bytes([0x80]), 2, b"\0\x00"), [[255, 255, 255, 255], [0, 0, 0, 0]]),
    (
        "grey 16, one clear",
        lambda: _png(0, 16, _big([30000, 30001]), 2, struct.pack(">H", 30001)),
        [[117, 117, 117, 255], [117, 117, 117, 0]],
    ),
    ("colour 8, one clear", lambda: _png(2, 8, bytes([1, 2, 3, 4, 5, 6]), 2, b"\0\x04\0\x05\0\x06"),
     [[1, 2, 3, 255], [4, 5, 6, 0]]),
    ("grey and alpha 8", lambda: _png(4, 8, bytes([9, 255, 80, 40]), 2), [[9, 9, 9, 255], [80, 80, 80, 40]]),
    ("grey and alpha 16", lambda: _png(4, 16, _big([30000, 65535, 65535, 0]), 2), [[117] * 3 + [255], [255] * 3 + [0]]),
    ("colour and alpha 16", lambda: _png(6, 16, _big([0, 30000, 65535, 30000, 1, 1, 1, 1]), 2),
     [[0, 117, 255, 117], [0, 0, 0, 0]]),
    (
        "TIFF premultiplied colour",
        lambda: _tiff(bytes([100, 50, 25, 127, 10, 20, 30, 255]), 2, 8, samples=4, photometric=2, extra=1),
        [[200, 100, 50, 127], [10, 20, 30, 255]],
    ),
    (
        "TIFF premultiplied grey",
        lambda: _tiff(bytes([100, 127, 9, 255]), 2, 8, samples=2, extra=1),
        [[200, 200, 200, 127], [9, 9, 9, 255]],
    ),
    ("TIFF straight grey", lambda: _tiff(bytes([100, 127, 9, 255]), 2, 8, samples=2, extra=2),
     [[100, 100, 100, 127], [9, 9, 9, 255]]),
]  # fmt: skip


@pytest.mark.parametrize(("content", "expected"), [row[1:] for row in RGBA], ids=[row[0] for row in RGBA])
def test_transparency_is_straight_alpha(content: Callable[[], bytes], expected: list[list[int]]) -> None:
    image = decode(content(), "x")
    assert image.mode == "RGBA"
    assert np.abs(np.array(image).astype(int)[0, :2] - expected).max() <= 1
    assert np.array(image)[0, :2, 3].tolist() == [colour[3] for colour in expected]


def test_coverage_of_a_palette_with_alpha(tmp_path: Path) -> None:
    PALETTE.save(tmp_path / "a.png", transparency=bytes([0, 255, 51]))
    rgb, coverage = read_layers(tmp_path / "a.png")
    assert coverage[0, :, 0].tolist() == [0, 255, 51, 255]
    assert rgb[0].tolist() == [[0, 0, 0], [40, 50, 60], [14, 16, 18], [40, 50, 60]]


REFUSED: list[tuple[str, Callable[[], bytes], str]] = [
    ("TIFF float", lambda: _saved(Image.fromarray(WIDE / np.float32(65535)), "TIFF"), "TIFF of mode F"),
    ("PFM", lambda: b"Pf\n2 1\n-1.0\n" + struct.pack("<2f", 0, 0.5), "PPM of mode F"),
    ("TIFF int 32", lambda: _saved(Image.fromarray(WIDE.astype(np.int32)), "TIFF"), "TIFF of mode I"),
    ("TIFF signed 16", lambda: _tiff(WIDE.tobytes(), 4, 16, kind=2), "TIFF of mode I"),
    ("TIFF signed 8", lambda: _tiff(bytes(4), 4, 8, kind=2), "TIFF of mode L"),
    ("TIFF float 64", lambda: _tiff(bytes(32), 4, 64, kind=3), "a TIFF of a layout"),
    (
        "TIFF 16 in planes",
        lambda: _tiff(bytes(24), 4, 16, samples=3, photometric=2, planar=2),
        "separate planes|a TIFF of a layout",
    ),
    ("PNG 16, one colour clear", lambda: _png(2, 16, bytes(6), 1, bytes(6)), "16-bit PNG with a transparent colour"),
    ("GIF, animated", lambda: _saved(FLAT, "GIF", save_all=True, append_images=[Image.new("RGB", (4, 1))]),
     "it holds 2 pictures"),
    ("TIFF of pages", lambda: _saved(FLAT, "TIFF", save_all=True, append_images=[FLAT]), "it holds 2 pictures"),
    ("PNG, animated", lambda: _saved(FLAT, "PNG", save_all=True, append_images=[Image.new("RGB", (4, 1))]),
     "it holds 2 pictures"),
    ("OpenEXR", lambda: b"v/1\x01" + bytes(40), "it is an OpenEXR file"),
    ("HEIC", lambda: b"\0\0\0\x18ftypheic" + bytes(40), "it is an HEIC photograph"),
    ("KTX2", lambda: b"\xabKTX 20\xbb\r\n\x1a\n" + bytes(40), "it is a KTX file"),
    ("Git LFS", lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run git lfs pull"),
]  # fmt: skip


@pytest.mark.parametrize(("content", "message"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_would_be_guessed_is_refused_by_name(content: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    (tmp_path / "a.img").write_bytes(content())
    with pytest.raises(BadDataError, match=message) as caught:
        read_rgb(tmp_path / "a.img")
    assert re.fullmatch(r".+a\.img cannot be used \(.+\); expected .+: .+", str(caught.value))
    assert "fetch" not in str(caught.value)


def test_a_photograph_with_previews_behind_it_is_read(tmp_path: Path) -> None:
    FLAT.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (4, 1))], quality=100)
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - (200, 100, 50)).max() <= 3


@pytest.mark.parametrize("kind", ["TIFF", "PNG", "JPEG"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_rotation_by_tag_is_ignored_as_colmap_does(kind: str, turn: int, tmp_path: Path) -> None:
    pixels = np.repeat(np.arange(0, 240, 10, dtype=np.uint8).reshape(4, 6)[..., None], 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = turn
    Image.fromarray(pixels).save(tmp_path / "a", kind, exif=exif, quality=100)
    assert image_size(tmp_path / "a") == (6, 4)
    assert np.abs(read_rgb(tmp_path / "a").astype(int) - pixels).max() <= (3 if kind == "JPEG" else 0)


def test_colour_profiles_are_ignored_as_colmap_and_gltf_do(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    FLAT.save(tmp_path / "a.png", icc_profile=profile)
    with Image.open(tmp_path / "a.png") as image:
        assert image.info["icc_profile"] == profile
    assert read_rgb(tmp_path / "a.png")[0, 0].tolist() == [200, 100, 50]


def test_cmyk_is_ink(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    assert np.abs(read_rgb(tmp_path / "a.jpg").astype(int) - (255, 0, 0)).max() <= 3


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_eight_bits_are_what_pillow_gives(mode: str, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8))
    content = _saved(noise.convert(mode).convert("RGB" if (mode, kind) == ("P", "JPEG") else mode), kind)
    np.testing.assert_array_equal(decode(content, "x"), Image.open(io.BytesIO(content)).convert("RGB"))


def test_a_huge_picture_is_refused_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(BadDataError, match="save it smaller"):
        decode(_saved(FLAT, "PNG"), "x")
