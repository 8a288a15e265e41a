"""A moving Gaussian scene as one PLY a frame, which viewers of Gaussian scenes play as a sequence.

There is no common format for Gaussians that move. Colours keep the directions that they had at rest, as they had while
the motion was learnt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from animate.subject.placement import Placement, StoredGaussians, as_array
from animate.subject.ply import write_ply

__all__ = ["write_sequence"]


def write_sequence(
    folder: str | Path, gaussians: Any, means: Any, placement: Placement, *, quats_wxyz: Any = None, scales: Any = None
) -> list[Path]:
    """Writes ``folder/000.ply`` and so on, in the object's own space.

    Args:
        folder: created where it is not there.
        gaussians: `Gaussians` at rest, N of them, in normalised space.
        means: (F, N, 3) array or tensor, normalised.
        placement: of the object; its own space is that of the files.
        quats_wxyz: (N, 4) or (F, N, 4), where they are not those at rest.
        scales: (N, 3) or (F, N, 3), where they are not those at rest.

    Returns:
        the files, in the order of the frames.
    """
    means = as_array(means)
    quats = as_array(gaussians.quats_wxyz if quats_wxyz is None else quats_wxyz)
    sizes = as_array(gaussians.scales if scales is None else scales)
    paths = []
    for frame, center in enumerate(means):
        moved = StoredGaussians(
            means=center, quats_wxyz=quats if quats.ndim == 2 else quats[frame],
            scales=sizes if sizes.ndim == 2 else sizes[frame], opacities=as_array(gaussians.opacities),
            colors=as_array(gaussians.colors), sh=None if gaussians.sh is None else as_array(gaussians.sh),
        )  # fmt: skip
        paths.append(Path(folder) / f"{frame:03d}.ply")
        write_ply(paths[-1], placement.to_own(moved))
    return paths
