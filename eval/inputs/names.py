"""Names of views and files: the direction that a folder's name states, and names that every file system takes."""

from __future__ import annotations

import hashlib
import re

from eval.items import Video

__all__ = ["apart", "near", "parse_view", "safe_name"]

_NUMBER = r"([+-]?\d+(?:\.\d+)?)"
_AZIMUTH, _ELEVATION = r"(?:azimuth|azi|az|a)_?", r"(?:elevation|elev|elv|el|e)_?"
_BOTH = re.compile(f"{_AZIMUTH}{_NUMBER}_?{_ELEVATION}{_NUMBER}")
_TURNED = re.compile(f"{_ELEVATION}{_NUMBER}_?{_AZIMUTH}{_NUMBER}")
_ALONE = re.compile(f"(?:{_AZIMUTH})?{_NUMBER}")


def parse_view(name: str) -> tuple[float, float | None] | None:
    """The camera that the name of a view states: (azimuth from the front, elevation), degrees.

    Read are, in any case: azimuth with elevation in either order (``a090e+15``, ``elv_15_azi_90``, ``az90_el-5``), and
    an azimuth alone (``090``, ``-45``, ``azimuth_90``), whose elevation is then None and for the protocol to say. Any
    other name (``view_0``, ``front``) states none, since a number of a view is no direction: None.

    >>> parse_view("elv_0_azi_-45")
    (315.0, 0.0)
    """
    text = name.strip().lower()
    if match := _BOTH.fullmatch(text):
        azimuth, elevation = float(match[1]), float(match[2])
    elif match := _TURNED.fullmatch(text):
        azimuth, elevation = float(match[2]), float(match[1])
    elif match := _ALONE.fullmatch(text):
        return float(match[1]) % 360, None
    else:
        return None
    return (azimuth % 360, elevation) if -90 <= elevation <= 90 else None


def apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    """How far two directions lie apart: the larger of the differences in azimuth (round the circle) and elevation."""
    azimuth = abs(one[0] - other[0]) % 360
    return max(min(azimuth, 360 - azimuth), abs(one[1] - other[1]))


def near(video: Video, direction: tuple[float, float], degrees: float = 1.0) -> bool:
    """Whether a video is seen from a direction; False where its own is not known."""
    if video.azimuth_deg is None or video.elevation_deg is None:
        return False
    return apart((video.azimuth_deg, video.elevation_deg), direction) <= degrees


def safe_name(text: str) -> str:
    """A name for a file or folder: letters, digits and ``. _ + -`` alone.

    Ids that are such a name stay as they are; others are rewritten and marked by their hash after a ``~``, so that two
    ids do not meet in one name.
    """
    plain = re.sub(r"[^A-Za-z0-9._+-]+", "_", text)[:80]
    if plain == text and plain and plain[0] not in ".-" and plain[-1] != ".":
        return plain
    return f"{plain.strip('._-') or 'x'}~{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:10]}"
