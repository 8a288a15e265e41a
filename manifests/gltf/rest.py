"""What `--pose` says: the pose in which an asset counts as being at rest.

`render.probe` takes stills by it and `animate` its subjects; the text is the user's, so what it asks for may not exist.
"""

from __future__ import annotations

import math

from manifests.errors import Rejected
from manifests.gltf.scene import Asset

__all__ = ["parse_pose"]


def parse_pose(asset: Asset, text: str) -> tuple[int | None, float]:
    """The animation and time that a pose means.

    Args:
        asset: whose animations may be named.
        text: ``bind``, or ``ANIMATION@SECONDS`` where ANIMATION is an index or a name.

    Returns:
        The animation's index, None for bind, and the time inside it in seconds.

    Raises:
        Rejected: no-such-pose.
    """
    if text == "bind":
        return None, 0.0
    name, _, seconds = text.rpartition("@")
    try:
        time_s = float(seconds)
    except ValueError:
        time_s = float("nan")
    known = {a.name: a.index for a in reversed(asset.animations)} | {str(a.index): a.index for a in asset.animations}
    if name not in known or not math.isfinite(time_s):
        options = ", ".join(f'{a.index} "{a.name}"' for a in asset.animations[:20]) or "none"
        raise Rejected(
            "no-such-pose",
            f'--pose: found "{text}", expected bind or ANIMATION@SECONDS with one of the animations {options}',
        )
    return known[name], time_s
