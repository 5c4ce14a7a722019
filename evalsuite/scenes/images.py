"""Photographs from disk to pinhole images of a given size: decode, undistort, crop, area-average.

pycolmap removes the lens distortion; the reduction is an exact area average, which Pillow's and torch's "box" and
"area" filters are only at whole-number ratios. pycolmap needs 0.1 s per megapixel, so distorted photographs are first
block-averaged to about twice the size wanted (`block_size`): fifty of 1080 x 1920 then take 2 s, not 9.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
import pycolmap
from jaxtyping import UInt8
from PIL import Image
from scipy import sparse

from evalsuite.core.errors import BadDataError

_NO_BLANKS = pycolmap.UndistortCameraOptions(blank_pixels=0.0)

Box = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the source image; pixel corners are whole numbers."""


def image_size(path: Path) -> tuple[int, int]:
    """Width and height in pixels, from the file's header only.

    Raises:
        BadDataError: no image format is recognised.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def block_size(camera: pycolmap.Camera, long_side: int | None) -> int:
    """Side in pixels of the blocks a photograph may be averaged over before undistortion; 1 for a pinhole camera."""
    if long_side is None or _is_pinhole(camera):
        return 1
    return max(1, max(camera.width, camera.height) // (2 * long_side))


def block_camera(camera: pycolmap.Camera, block: int) -> pycolmap.Camera:
    """Camera of an image averaged over blocks; incomplete blocks at the right and bottom are cut off."""
    reduced = pycolmap.Camera(camera.todict())
    reduced.width, reduced.height = camera.width - camera.width % block, camera.height - camera.height % block
    reduced.rescale(reduced.width // block, reduced.height // block)
    return reduced


def read_rgb(path: Path, block: int = 1) -> UInt8[np.ndarray, "H W 3"]:
    """Decode one image file; transparency is laid over black. EXIF rotation is ignored, as COLMAP does.

    Args:
        path: any format Pillow knows.
        block: average over blocks of this side (see `block_camera`).

    Raises:
        BadDataError: the file is truncated, or no image.
    """
    return read_layers(path, block)[0]


def read_layers(path: Path, block: int = 1) -> tuple[UInt8[np.ndarray, "H W 3"], UInt8[np.ndarray, "H W 3"]]:
    """As `read_rgb`, and the coverage as a grey image: 255 throughout a file without transparency."""
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            whole = 0, 0, file.width - file.width % block, file.height - file.height % block
            if not file.has_transparency_data:
                rgb = np.array(file.convert("RGB").reduce(block, whole))
                return rgb, np.broadcast_to(np.uint8(255), rgb.shape)
            image = file.convert("RGBA")
            over = Image.alpha_composite(Image.new("RGBA", file.size, (0, 0, 0, 255)), image)
            coverage = image.getchannel("A").convert("RGB")
            return np.array(over.convert("RGB").reduce(block, whole)), np.array(coverage.reduce(block, whole))
    except (OSError, ValueError, SyntaxError) as error:  # Pillow reports broken PNG chunks as SyntaxError
        raise _unreadable(path, error) from error


def pinhole_camera(camera: pycolmap.Camera) -> pycolmap.Camera:
    """Camera of the image that `pinhole` makes: focal lengths kept, size reduced until no pixel is blank.

    Raises:
        BadDataError: the lens cannot be undistorted (a panorama, or senseless parameters).
    """
    if _is_pinhole(camera):
        return camera
    try:
        return pycolmap.undistort_camera(_NO_BLANKS, camera)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise BadDataError(
            f"camera {camera.model_name} {list(camera.params)} cannot be undistorted ({reason}); "
            "expected a perspective or fisheye lens: calibrate it again"
        ) from error


def pinhole(image: UInt8[np.ndarray, "H W 3"], camera: pycolmap.Camera) -> UInt8[np.ndarray, "h w 3"]:
    """Image without lens distortion, bilinearly resampled, as `pinhole_camera` sees it; any COLMAP camera model."""
    if _is_pinhole(camera):
        return image
    bitmap, _ = pycolmap.undistort_image(_NO_BLANKS, pycolmap.Bitmap.from_array(image), camera)
    return bitmap.to_array()


def centred_box(width: int, height: int, aspect: float) -> Box:
    """Largest centred box of the given width / height ratio inside an image."""
    w, h = min(width, height * aspect), min(height, width / aspect)
    return (width - w) / 2, (height - h) / 2, (width + w) / 2, (height + h) / 2


def area_average(image: UInt8[np.ndarray, "H W 3"], box: Box, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Mean of the source over the footprint of each target pixel, fractions of pixels included, rounded to 8 bits.

    Args:
        image: the source.
        box: part of the source to show.
        size: target width and height; no larger than the box, or the result is nearest-neighbour like.
    """
    if size == (image.shape[1], image.shape[0]) and np.allclose(box, (0, 0, *size)):
        return image
    left, top, right, bottom = box
    rows = _overlaps(image.shape[0], top, bottom, size[1])
    columns = _overlaps(image.shape[1], left, right, size[0])
    by_rows = rows @ image.reshape(image.shape[0], -1)
    by_rows = by_rows.reshape(size[1], image.shape[1], 3).transpose(1, 0, 2).reshape(image.shape[1], -1)
    mean = (columns @ by_rows).reshape(size[0], size[1], 3).transpose(1, 0, 2)
    return np.ascontiguousarray(np.rint(mean).clip(0, 255).astype(np.uint8))


def _is_pinhole(camera: pycolmap.Camera) -> bool:
    """By model: COLMAP calls a fisheye lens without coefficients undistorted too."""
    return camera.model_name in ("PINHOLE", "SIMPLE_PINHOLE")


def _overlaps(source: int, start: float, stop: float, target: int) -> sparse.csr_array:
    """Share of source pixel j in target pixel i along one axis; rows sum to 1."""
    edges = np.linspace(start, stop, target + 1)[:, None]
    corner = np.arange(source)
    share = np.minimum(edges[1:], corner + 1) - np.maximum(edges[:-1], corner)
    return sparse.csr_array((share.clip(0) * target / (stop - start)).astype(np.float32))


def _unreadable(path: Path, error: Exception) -> BadDataError:
    return BadDataError(f"{path} cannot be decoded ({error}); expected a whole image file: fetch it again")


def transparency(path: Path) -> Literal["none", "opaque", "used"]:
    """What a file says of coverage: nothing, that all is covered, or that something is not.

    Only files with an alpha channel (or a transparent colour) are decoded.

    Raises:
        BadDataError: the file is truncated, or no image.
    """
    try:
        with warnings.catch_warnings(), Image.open(path) as file:
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            if not file.has_transparency_data:
                return "none"
            return "opaque" if file.convert("RGBA").getchannel("A").getextrema() == (255, 255) else "used"
    except (OSError, ValueError, SyntaxError) as error:
        raise _unreadable(path, error) from error
