"""The file behind an oracle: which animation is meant, and its vertices in the space of the subject.

Where in that file the motion begins also decides how the subject has to rest. Nothing here draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from animate.config import SubjectConfig
from animate.subject.mesh import RestMesh, open_mesh
from manifests.errors import InputError, Rejected
from manifests.gltf import Asset, Limits, read
from manifests.gltf.rest import parse_pose

__all__ = ["PointsAt", "open_truth", "truth_points", "truth_pose"]

PointsAt = Callable[[np.ndarray], np.ndarray]
"""(F,) float64 seconds from frame 0 -> (F, M, 3) float32 points, normalised."""


def truth_pose(path: str | Path, animation: str = "", *, limits: Limits = Limits()) -> tuple[int, float]:  # noqa: B008 (frozen)
    """Which animation of a file is meant, and when it begins.

    Args:
        path: a .glb or .gltf file.
        animation: its name or index, or ``ANIMATION@SECONDS`` to begin later; "" is the first.
        limits: of the reader.

    Returns:
        the animation's index, and the time of frame 0 inside it in seconds.

    Raises:
        InputError: no such file, nothing that moves in it, or no such animation.
    """
    path = Path(path)
    if path.suffix.lower() not in (".glb", ".gltf") or not path.is_file():
        raise InputError(
            f"--prior oracle:{path}: found no .glb or .gltf file there, expected one with an animation; check the path"
        )
    try:
        asset = read(path, limits=limits)
    except Rejected as rejected:
        raise InputError(
            f"{path.name}: {rejected.detail} ({rejected.reason}); mend the file or export it anew"
        ) from rejected
    return _chosen(asset, animation, path)


def open_truth(
    path: str | Path,
    animation: str = "",
    *,
    config: SubjectConfig,
    center: np.ndarray,
    scale: float,
    box: np.ndarray | None = None,
    tolerance: float = 0.05,
) -> RestMesh:
    """The animated file in the subject's normalised space, at rest where the motion begins.

    Args:
        path: a .glb or .gltf file.
        animation: see `truth_pose`.
        config: of the subject; its up axis and limits hold here too.
        center: of the subject's normalisation, world, z up.
        scale: of the subject's normalisation.
        box: (2, 3) lower and upper corner of the subject at rest, normalised; None does not compare.
        tolerance: how far the corners may be from the truth's at frame 0, as a share of the diagonal.

    Raises:
        InputError: as `truth_pose`, or the subject does not rest where the motion begins.
    """
    index, start_s = truth_pose(path, animation)
    truth = open_mesh(path, pose=f"{index}@{start_s!r}", config=config, normalization=(center, scale))
    if box is not None:
        found = np.stack([truth.vertices.min(0), truth.vertices.max(0)])
        off = float(np.abs(found - box).max() / np.linalg.norm(box[1] - box[0]))
        if not (math.isfinite(off) and off <= tolerance):
            raise InputError(
                f"--prior oracle:{Path(path).name}: found the object at rest {off:.1%} of its size away from the first"
                f" frame of the motion, expected the same pose and place within {tolerance:.0%}; give --pose"
                f" {index}@{start_s:g}, or the file that this model was made of"
            )
    return truth


def truth_points(truth: RestMesh) -> PointsAt:
    """Where a truth's welded points are: (F,) float64 seconds from frame 0 -> (F, M, 3) float32, normalised."""
    animation = truth.animation
    assert animation is not None, "the truth has no motion"
    _, first = np.unique(truth.weld, return_index=True)
    return lambda times_s: truth.posed(animation, truth.time_s + times_s)[:, first]


def _chosen(asset: Asset, animation: str, path: Path) -> tuple[int, float]:
    known = {a.name: a for a in reversed(asset.animations)} | {str(a.index): a for a in asset.animations}
    if asset.animations and not animation:
        return 0, asset.animations[0].start_s
    if animation in known:
        return known[animation].index, known[animation].start_s
    try:
        index, start_s = parse_pose(asset, animation)
    except Rejected:
        index, start_s = None, 0.0
    if index is None:
        options = ", ".join(f'{a.index} "{a.name}"' for a in asset.animations[:20]) or "none"
        raise InputError(
            f'--prior oracle:{path.name}: found animation "{animation}", expected one of those that the file has:'
            f" {options}; write it as oracle:FILE#ANIMATION"
        )
    return index, start_s
