"""The two protocols: cameras, size, frames, fps, background and metrics that a row of the leaderboard must have.

Cameras are those of the presets of the same name (``eval-animate3d``: Animate3D's visualize_testset_frame_16.yaml;
``eval-3to4d``: 3to4D v2, section 4). What a paper does not state is a choice of ours and said in the field's comment.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from difflib import get_close_matches

from eval.items import Video, view_name
from manifests.config import PRESETS
from manifests.errors import InputError

__all__ = ["PROTOCOLS", "Protocol", "protocol"]


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """What all rows of one table have in common."""

    name: str
    version: str
    preset: str
    """The preset of `mvv build` and `mvv still` that renders for it."""
    cameras: tuple[tuple[float, float], ...]
    """(azimuth from the front, elevation) of every view, degrees."""
    size: int
    """Width and height, pixels."""
    frames: int
    fps: float
    background: tuple[int, int, int]
    """Put behind frames and references alike, 0..255."""
    metrics: tuple[str, ...]
    """Names of the cards that a complete row has, in the order of the table."""
    beside: tuple[str, ...]
    """Names of the cards that are computed beside them where the input allows; a row is complete without."""

    @property
    def views(self) -> tuple[str, ...]:
        """Names of the views."""
        return tuple(view_name(*camera) for camera in self.cameras)

    @property
    def hash(self) -> str:
        """SHA-256 of everything here."""
        return hashlib.sha256(json.dumps(dataclasses.asdict(self), sort_keys=True).encode()).hexdigest()

    def departures(self, video: Video, shape: tuple[int, ...]) -> list[str]:
        """Why this video is not as the protocol asks; empty where it is.

        Args:
            video: the video.
            shape: (frame, height, width, ...) of what was decoded.
        """
        found = [
            ("view", video.view, video.view in self.views, "one of " + " ".join(self.views)),
            ("size", f"{shape[2]}x{shape[1]}", shape[1:3] == (self.size, self.size), f"{self.size}x{self.size}"),
            ("frames", shape[0], shape[0] == self.frames, self.frames),
            ("fps", video.fps, video.fps is not None and abs(video.fps - self.fps) < 1e-6, self.fps),
        ]
        return [f"{what} {value}, protocol {self.name} has {rule}" for what, value, good, rule in found if not good]


def _cameras(preset: str) -> tuple[tuple[float, float], ...]:
    camera = PRESETS[preset].camera
    return tuple(zip(camera.azimuths_deg, camera.elevations_deg, strict=True))


PROTOCOLS: dict[str, Protocol] = {
    entry.name: entry
    for entry in (
        Protocol(
            name="animate3d", version="1", preset="eval-animate3d", cameras=_cameras("eval-animate3d"),
            size=1024, frames=16, fps=8.0, background=(127, 127, 127),
            metrics=(
                "i2v_subject@vbench-2024-07", "motion_smoothness@vbench", "dynamic_degree@vbench-0.1.5",
                "aesthetic_quality@vbench",
            ),
            beside=(
                "i2v_subject@vbench-2024-03", "subject_consistency@vbench", "background_consistency@vbench",
                "dynamic_margin@mvvideo-1", "i2v_object@mvvideo-1", "motion_smoothness_object@mvvideo-1",
                "dynamic_object@mvvideo-1",
            ),
        ),
        Protocol(
            name="threetofour", version="1", preset="eval-3to4d", cameras=_cameras("eval-3to4d"),
            size=256, frames=16, fps=8.0, background=(255, 255, 255),
            metrics=(
                "lpips_reference@alex", "clip_i@b32", "temporal_style@viclip", "clip_t@b32",
                "motion_smoothness@vbench", "lpips_f@alex", "clip_f@b32", "dynamic_degree@vbench-0.1.5",
            ),
            beside=(
                "dynamic_margin@mvvideo-1", "motion_smoothness_object@mvvideo-1", "dynamic_object@mvvideo-1",
            ),
        ),
    )
}  # fmt: skip
"""Name -> protocol."""


def protocol(name: str) -> Protocol:
    """The protocol of that name.

    Raises:
        InputError: unknown name.
    """
    if name not in PROTOCOLS:
        near = get_close_matches(name, PROTOCOLS, 1)
        hint = f"; did you mean {near[0]}?" if near else "; choose one of them"
        raise InputError(f"--protocol: found {name!r}, expected one of {', '.join(PROTOCOLS)}{hint}")
    return PROTOCOLS[name]
