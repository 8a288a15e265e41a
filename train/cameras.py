"""Cameras of a clip as the 16 numbers that MVDream's family of models is told: c2w at unit distance, row by row.

Numbers only, no torch. The public models share one space (z up); what differs is where in it the front of an object is
put, and a pipeline's `camera_convention` says it. Sources: the camera functions of MVDream and of Animate3D's sampler.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from manifests.cameras import to_animate3d, to_mvdream
from manifests.errors import InputError

__all__ = ["CONVENTIONS", "camera_vectors"]

CONVENTIONS: dict[str, str] = {
    "mvdream": "the front at -y, where MVDream's camera function has its azimuth 0",
    "animate3d": "the front at +x, where Animate3D's sampler has its azimuth 0 and MVDream's function its 90",
}
"""Convention -> where in the model's space the front of an object is put; a quarter turn about z lies between the two.

The released weights of both, MVDream's as well, show fronts at +x: MVDream's own script samples from azimuth 90, and
Animate3D keeps MVDream's layers as they are. Weights from elsewhere may take either; `train.pipeline` stores which.
"""

_TURNS: dict[str, Callable[[np.ndarray, float], np.ndarray]] = {"mvdream": to_mvdream, "animate3d": to_animate3d}


def camera_vectors(c2w: np.ndarray, front_azimuth_deg: float, convention: str = "animate3d") -> np.ndarray:
    """What a model is told about the cameras of a clip.

    Args:
        c2w: (..., 4, 4), camera to world in normalised space, z up; x right, y up, looking down -z.
        front_azimuth_deg: azimuth of the object's front in that space, as the clip records it.
        convention: a key of `CONVENTIONS`.

    Returns:
        (..., 16) float32: c2w row by row, turned about z until the front lies where the convention has it, the position
        moved to distance 1. Distance, field of view and image size are not in it.

    Raises:
        InputError: another shape or convention, a value that is no number, or a camera at the origin.

    Source: `get_camera` of MVDream (camera_utils.py) and of Animate3D (pipelines/pipeline.py).
    """
    c2w = np.asarray(c2w, float)
    if convention not in _TURNS:
        raise InputError(
            f'camera convention: found "{convention}", expected one of {", ".join(CONVENTIONS)}; choose the one the'
            " weights were trained with"
        )
    if c2w.ndim < 2 or c2w.shape[-2:] != (4, 4):
        raise InputError(f"c2w: found shape {c2w.shape}, expected (..., 4, 4); pass one matrix for each camera")
    if not (np.isfinite(c2w).all() and np.isfinite(front_azimuth_deg)):
        raise InputError("c2w: found NaN or infinity, expected numbers; render or record the cameras again")
    cameras = c2w.reshape(-1, 4, 4)
    distances = np.linalg.norm(cameras[:, :3, 3], axis=1)
    if not (distances > 0).all():
        raise InputError(
            f"c2w: found camera {int(np.argmin(distances))} at the origin, expected one away from the object;"
            " a view from there has no direction"
        )
    vectors = np.empty((len(cameras), 16), np.float32)
    for vector, camera in zip(vectors, cameras, strict=True):
        turned = _TURNS[convention](camera, front_azimuth_deg).reshape(4, 4)
        turned[:3, 3] /= np.linalg.norm(turned[:3, 3])
        vector[:] = turned.reshape(16)
    return vectors.reshape(*c2w.shape[:-2], 16)
