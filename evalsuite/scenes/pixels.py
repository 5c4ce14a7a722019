"""The one reader of image files, for views and for textures: 8-bit sRGB whatever the file stores, or a refusal.

Pillow turns any mode into any other, some of them wrongly and without a word: 16-bit grey becomes white, float black.
So every mode is either scaled here or refused by name. What is decided:

- Depth: 16-bit grey, and 12-bit TIFF, are scaled by their range and rounded; of 16-bit colour Pillow hands out the high
  byte, at most one step below. Float and 32-bit integers are refused: their range is not in the file.
- Rotation by EXIF or TIFF tag is ignored: COLMAP's poses, and texture coordinates, are of the pixels as stored.
- Colour profiles and gamma chunks are ignored: COLMAP and 3DGS read photographs so, and glTF demands it for textures.
  CMYK is converted without a profile too.
- Premultiplied colours are divided by their alpha.
- A file of several pictures (animation, pages) is refused, but for the previews that cameras append to a JPEG.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.ExifTags import Base
from PIL.Image import Transpose
from PIL.TiffImagePlugin import TiffImageFile

from evalsuite.core.errors import BadDataError

_PLAIN = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "La", "RGBa", "CMYK", "YCbCr", "LAB")
"""Modes that Pillow converts to RGB and RGBA as their format defines it."""

_WIDE_FORMATS = ("PNG", "TIFF", "JPEG2000", "PPM")
"""Formats whose integers beyond 8 bits have a range that is known; Pillow scales those of the last two to 16 bits."""

_PHOTOMETRIC, _BITS_PER_SAMPLE, _PLANAR, _SAMPLE_FORMAT = 262, 258, 284, 339
"""Tags of a TIFF."""

_UNSIGNED = (1, 4)
"""Sample formats of a TIFF: unsigned, and not said."""

_DEEP_GREY = {"L;2": 85, "L;4": 17}
"""Pillow's names for PNG samples below 8 bits to what it multiplies them by; its transparent colour it leaves as is."""

_UNTURNED = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}
"""Undoes what Pillow does to a TIFF with this orientation; it leaves every other format as stored."""

_SWAPS_SIDES = (5, 6, 7, 8)

_FOREIGN: dict[bytes, str] = {
    b"II*\0": "a TIFF of a layout that cannot be read here (or a cut one)",
    b"MM\0*": "a TIFF of a layout that cannot be read here (or a cut one)",
    b"II+\0": "a BigTIFF of a layout that cannot be read here (or a cut one)",
    b"v/1\x01": "an OpenEXR file",
    b"#?RAD": "a Radiance HDR file",
    b"#?RGB": "a Radiance HDR file",
    b"\xabKTX": "a KTX file",
    b"ftypheic": "an HEIC photograph",
    b"ftypheix": "an HEIC photograph",
    b"ftypmif1": "an HEIF photograph",
    b"\xff\x0a": "a JPEG XL file",
    b"P7\n": "a PAM file",
    b"<svg": "an SVG drawing",
    b"version https://git-lfs": "a Git LFS pointer, not the image; run git lfs pull",
}
"""How files begin that are whole, but nothing that is read here, and what they are."""


_Source = Path | bytes


def decode(source: _Source, name: str) -> Image.Image:
    """One picture as ``RGB``, or as ``RGBA`` with straight alpha where the file has transparency.

    Args:
        source: a file, or the bytes of one.
        name: what messages call it.

    Raises:
        BadDataError: the file is truncated or no image, or its values would have to be guessed.
    """
    with _opened(source, name) as image:
        _refuse_guesses(image, name)
        turn = _UNTURNED.get(_tag(image, Base.Orientation, 1))
        inverted = _tag(image, _PHOTOMETRIC, 1) == 0
        top = 2 ** _tag(image, _BITS_PER_SAMPLE, (16,))[0] - 1
        _scale_transparent_grey(image)
        found = _from_wide(image, top, inverted) if image.mode.startswith("I") else _from_plain(image)
        return found if turn is None else found.transpose(turn)


def stored_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels of what `decode` gives, from the file's header only.

    Raises:
        BadDataError: no image format is recognised.
    """
    with _opened(path, str(path)) as image:
        width, height = image.size
        return (height, width) if _tag(image, Base.Orientation, 1) in _SWAPS_SIDES else (width, height)


def transparency(path: Path) -> Literal["none", "opaque", "used"]:
    """What a file says of coverage: nothing, that all is covered, or that something is not.

    Only files with an alpha channel or a transparent colour are decoded.

    Raises:
        BadDataError: as `decode`.
    """
    with _opened(path, str(path)) as image:
        if not image.has_transparency_data:
            return "none"
    alpha = decode(path, str(path)).getchannel("A")
    return "opaque" if alpha.getextrema() == (255, 255) else "used"


@contextmanager
def _opened(source: _Source, name: str) -> Iterator[Image.Image]:
    """The image, lazily; what Pillow raises at it becomes a `BadDataError` that says whether fetching can help."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                yield image
    except Image.DecompressionBombError as error:
        raise _refused(name, str(error), "an image of at most 178 megapixels", "save it smaller") from error
    except UnidentifiedImageError as error:
        kind = _foreign_kind(source)
        if kind is not None:
            raise _refused(name, f"it is {kind}", "an image as of a camera", "save it as an 8-bit PNG") from error
        raise BadDataError(
            f"{name} cannot be decoded (no image format fits); expected a whole image file: fetch it again"
        ) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:  # Pillow reports broken PNG chunks as SyntaxError
        raise BadDataError(
            f"{name} cannot be decoded ({error}); expected a whole image file: fetch it again"
        ) from error


def _foreign_kind(source: _Source) -> str | None:
    if isinstance(source, bytes):
        head = source[:32]
    else:
        with source.open("rb") as file:
            head = file.read(32)
    return next((kind for start, kind in _FOREIGN.items() if start in (head[: len(start)], head[4:12])), None)


def _refused(name: str, found: str, expected: str, step: str) -> BadDataError:
    return BadDataError(f"{name} cannot be used ({found}); expected {expected}: {step}")


def _tag(image: Image.Image, tag: int, default: Any) -> Any:
    """A TIFF's tag; the default for other formats."""
    return image.tag_v2.get(tag, default) if isinstance(image, TiffImageFile) else default


def _raw_mode(image: Image.Image) -> str:
    """Pillow's name for the samples of a file as they are stored; not known for every format."""
    arguments = image.tile[0].args if isinstance(image, ImageFile.ImageFile) and image.tile else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def _refuse_guesses(image: Image.Image, name: str) -> None:
    """Refuse what Pillow would hand out wrongly, or at a scale that the file does not say."""
    pages = getattr(image, "n_frames", 1)
    if pages > 1 and image.format != "MPO":  # a camera's JPEG with previews behind the photograph
        raise _refused(name, f"it holds {pages} pictures", "one", "save the one that is meant on its own")
    wide = image.mode.startswith("I")
    unsigned = all(kind in _UNSIGNED for kind in _tag(image, _SAMPLE_FORMAT, (1,)))
    integer = max(_tag(image, _BITS_PER_SAMPLE, (8,))) <= 16 and unsigned
    if not (image.mode in _PLAIN or (wide and image.format in _WIDE_FORMATS)) or not integer:
        found = f"{image.format} of mode {image.mode}, values without a known range"
        raise _refused(name, found, "unsigned integers of 8 or 16 bits", "scale it and save it as an 8-bit PNG")
    if _tag(image, _PLANAR, 1) == 2 and max(_tag(image, _BITS_PER_SAMPLE, (8,))) > 8:
        raise _refused(name, "16-bit TIFF in separate planes", "pixels side by side", "save it as an 8-bit PNG")
    if "transparency" in image.info and _raw_mode(image) == "RGB;16B":
        raise _refused(name, "16-bit PNG with a transparent colour", "an alpha channel", "save it with alpha")


def _scale_transparent_grey(image: Image.Image) -> None:
    """Pillow scales grey of 2 and 4 bits to 8, but not the grey that a PNG calls transparent."""
    factor = _DEEP_GREY.get(_raw_mode(image))
    if factor is not None and image.format == "PNG" and "transparency" in image.info:
        image.info["transparency"] *= factor


def _from_wide(image: Image.Image, top: int, inverted: bool) -> Image.Image:
    """Grey beyond 8 bits: ``top`` is white, or black if ``inverted``."""
    values = np.asarray(image).astype(np.float64)
    clear = image.info.get("transparency")
    grey = np.rint((top - values if inverted else values) * (255 / top)).astype(np.uint8)
    if clear is None:
        return Image.fromarray(grey).convert("RGB")
    return Image.fromarray(np.dstack([grey, np.where(values == clear, 0, 255).astype(np.uint8)])).convert("RGBA")


def _from_plain(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        return image.convert("LA").convert("RGBA")
    return image.convert("RGBA" if image.has_transparency_data else "RGB")
