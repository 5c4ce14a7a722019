"""Structure-from-motion points over views whose cameras are known: the seed of arm C.

COLMAP's parts (Schoenberger and Frahm, "Structure-from-Motion Revisited", CVPR 2016) through pycolmap: SIFT, matching
of neighbouring views, verification against the *known* epipolar geometry, triangulation with fixed poses and
intrinsics. Exact poses allow what COLMAP's defaults cannot: pairs with few matches, two-view tracks, and errors of a
pixel or two. Against the defaults this doubles the points of a 128-pixel object scene at the same median distance to
the true surface.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pycolmap
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from scipy.spatial import cKDTree
from torch import Tensor

from evalsuite.core.types import Cameras, Points, Views

UPSAMPLE_BELOW_PX = 300
"""Images with a shorter longer side are doubled first: four times the points at 128 and at 256 px. Captures are larger:
at 320 px the doubling costs a minute, for points that are plenty already."""

MAX_FEATURES = 1536
"""Features kept per image, the coarsest first: bounds the time of matching, which grows with its square."""

NEIGHBOURS = 12
"""Views that each view is matched with, the nearest by position: as many points as from all pairs of 96 views on a
sphere (3,454 of 3,475, and 4,894 of 4,855, at the same distance from the true surface), in two thirds of the time."""

MIN_PAIR_MATCHES = 4
MIN_ANGLE_DEG = 3.0
MAX_ERROR_PX = 1.5
"""Epipolar and reprojection error allowed, in pixels of the image that SIFT sees."""

_SEED = 0  # of COLMAP's random generators: a structure is part of the scene, not of a run's noise


@dataclass(frozen=True)
class SfmResult:
    """Triangulated points, in the frame of the cameras.

    Attributes:
        points: positions and colours; may be empty.
        mean_track_length: views per point; 0 without points.
        reprojection_error_px: mean, in pixels of the views; 0 without points.
        seconds: wall-clock time of the whole call.
    """

    points: Points
    mean_track_length: float
    reprojection_error_px: float
    seconds: float


def triangulate(views: Views, background: Float[Tensor, "3"]) -> SfmResult:
    """Triangulate SIFT matches between views with known cameras.

    The same views give the same points, whatever the number of cores.

    Args:
        views: at least two, or nothing can match.
        background: sRGB colour behind views with alpha.

    Returns:
        As many points as were found; too few matches give none, not an error.
    """
    start = time.perf_counter()
    images = pictures(views, background)
    factor = 2 if max(images.shape[1:3]) < UPSAMPLE_BELOW_PX else 1
    with tempfile.TemporaryDirectory(prefix="evalsuite-sfm-") as folder, _quiet():
        pycolmap.set_random_seed(_SEED)
        model = _matched(Path(folder), images, views.cameras, factor)
        with pycolmap.Database.open(Path(folder) / "database.db") as database:
            matched = database.num_inlier_matches() > 0
        if matched:
            model = _triangulated(Path(folder), model)
    found = [model.points3D[key] for key in sorted(model.points3D)]
    xyz = np.array([point.xyz for point in found], dtype=np.float32).reshape(-1, 3)
    rgb = np.array([point.color for point in found], dtype=np.float32).reshape(-1, 3) / 255
    return SfmResult(
        points=Points(torch.from_numpy(xyz), torch.from_numpy(rgb)),
        mean_track_length=model.compute_mean_track_length(),
        reprojection_error_px=model.compute_mean_reprojection_error() / factor,
        seconds=time.perf_counter() - start,
    )


def pictures(views: Views, background: Float[Tensor, "3"]) -> UInt8[np.ndarray, "V H W 3"]:
    """What SIFT sees, but for the doubling: the views over the background in 8 bits."""
    return (views.over(background).clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


def _matched(
    folder: Path, images: UInt8[np.ndarray, "V H W 3"], cameras: Cameras, factor: int
) -> pycolmap.Reconstruction:
    """Write images, features and verified matches below ``folder``; returns the model of the known cameras."""
    database, image_folder = folder / "database.db", folder / "images"
    image_folder.mkdir()
    size = cameras.width * factor, cameras.height * factor
    for i, image in enumerate(images):
        enlarged = Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)
        enlarged.save(image_folder / _name(i), compress_level=1)
    model = _known(database, image_folder, cameras, factor)
    extraction = pycolmap.FeatureExtractionOptions(use_gpu=False)
    extraction.sift.max_num_features = MAX_FEATURES
    extraction.sift.peak_threshold = 0.003
    extraction.sift.edge_threshold = 20.0  # edges of an object are often all there is; epipolar lines sort them out
    pycolmap.extract_features(database, image_folder, extraction_options=extraction, device=pycolmap.Device.cpu)
    verification = pycolmap.TwoViewGeometryOptions(min_num_inliers=MIN_PAIR_MATCHES)
    verification.ransac.max_error = MAX_ERROR_PX
    # one thread: the order of pairs in the database steers the triangulation
    matching = pycolmap.FeatureMatchingOptions(use_gpu=False, num_threads=1, skip_geometric_verification=True)
    pairs = folder / "pairs.txt"
    pairs.write_text("".join(f"{_name(i)} {_name(j)}\n" for i, j in neighbouring(cameras)))
    pycolmap.match_image_pairs(
        database,
        matching_options=matching,
        pairing_options=pycolmap.ImportedPairingOptions(match_list_path=pairs),
        verification_options=verification,
        device=pycolmap.Device.cpu,
    )
    pycolmap.guided_geometric_verification(model, database, two_view_geometry_options=verification, num_threads=1)
    return model


def neighbouring(cameras: Cameras) -> list[tuple[int, int]]:
    """Pairs of views to match, each once and in order: every view with its `NEIGHBOURS` nearest by position."""
    positions = cameras.positions.double().cpu().numpy()
    count = min(NEIGHBOURS + 1, len(positions))
    _, near = cKDTree(positions).query(positions, k=range(1, count + 1))
    return sorted({(min(i, j), max(i, j)) for i, row in enumerate(near.tolist()) for j in row if i != j})


def _name(view: int) -> str:
    return f"{view:06d}.png"


def _known(database: Path, image_folder: Path, cameras: Cameras, factor: int) -> pycolmap.Reconstruction:
    """Register images and their cameras in a new database, in view order, and the same as a posed model."""
    pycolmap.Database.open(database).close()
    reader = pycolmap.ImageReaderOptions(camera_model="PINHOLE")
    pycolmap.import_images(database, image_folder, camera_mode=pycolmap.CameraMode.PER_IMAGE, options=reader)
    lenses = torch.cat([cameras.focal_px, cameras.centre_px], dim=1).double().cpu().numpy() * factor
    poses = cameras.cam_from_world.double().cpu().numpy()
    model = pycolmap.Reconstruction()
    with pycolmap.Database.open(database) as opened:
        for image in sorted(opened.read_all_images(), key=lambda image: image.name):
            view = int(Path(image.name).stem)
            camera = opened.read_camera(image.camera_id)
            camera.params = lenses[view]
            opened.update_camera(camera)
            model.add_camera_with_trivial_rig(camera)
            posed = pycolmap.Image(name=image.name, camera_id=image.camera_id, image_id=image.image_id)
            model.add_image_with_trivial_frame(posed, pycolmap.Rigid3d(poses[view, :3]))
    return model


def _triangulated(folder: Path, model: pycolmap.Reconstruction) -> pycolmap.Reconstruction:
    options = pycolmap.IncrementalPipelineOptions(min_num_matches=MIN_PAIR_MATCHES, num_threads=1, random_seed=_SEED)
    options.mapper.num_threads, options.mapper.random_seed = 1, _SEED
    options.mapper.filter_max_reproj_error = MAX_ERROR_PX
    options.mapper.filter_min_tri_angle = MIN_ANGLE_DEG
    options.triangulation.min_angle = MIN_ANGLE_DEG
    options.triangulation.ignore_two_view_tracks = False
    options.triangulation.random_seed = _SEED
    output = folder / "model"
    output.mkdir()
    return pycolmap.triangulate_points(model, folder / "database.db", folder / "images", output, options=options)


@contextmanager
def _quiet() -> Iterator[None]:
    """Errors only from COLMAP's logger, which is global to the process."""
    level = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.ERROR)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = level
