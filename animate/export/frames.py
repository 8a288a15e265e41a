"""The animation as pictures: an orbit for people, and the views of the protocols as `mvv eval run` reads them.

    OUT/frames/PRESET/NAME/VIEW/000.png    RGBA, straight alpha; give OUT/frames/PRESET to `mvv eval run`
    OUT/frames/orbit/000.png
    OUT/videos/PRESET/VIEW.mp4, OUT/videos/orbit.mp4    on the background

PRESET is ``eval-animate3d`` or ``eval-3to4d``, whose cameras are those of `manifests.config`; VIEW is ``a090e+15``. The
renderer is the caller's. Videos lie apart from the frames, beside which they would count as views twice.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from manifests.cameras import intrinsics, look_at_origin
from manifests.config import PRESETS
from manifests.images import composite
from manifests.publish import attempt, write_bytes

__all__ = ["EVALUATIONS", "FrameOptions", "Render", "view_name", "write_evaluation", "write_orbit", "write_video"]

EVALUATIONS = ("eval-animate3d", "eval-3to4d")
"""Presets whose cameras the protocols score from."""

Render = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]
"""(frames (I,) int64, c2w (I, 4, 4), K (I, 3, 3), size) -> (I, size, size, 4) uint8: image i shows frame i through
camera i; straight alpha, sRGB-encoded."""


@dataclass(frozen=True, kw_only=True)
class FrameOptions:
    """How the pictures are made."""

    fps: float = 8.0
    """Frames a second of the videos; the protocols have 8."""
    front_azimuth_deg: float = 270.0
    """Of the object's front in normalised space; the views' azimuths count from it."""
    background: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Behind the videos, sRGB-encoded 0 to 1; the frames have none."""
    size: int = 0
    """Height and width, pixels; 0 takes the protocol's, and 512 for the orbit."""
    orbit_plays: int = 3
    """How often the animation plays in one orbit."""
    orbit_elevation_deg: float = 15.0
    """Of the orbit's camera."""
    pixels_at_a_time: int = 1 << 22
    """Rendered in one call; decides memory, not the result."""


def view_name(azimuth_deg: float, elevation_deg: float) -> str:
    """``a090e+15``: a camera by its azimuth from the object's front and its elevation, whole degrees."""
    return f"a{round(azimuth_deg) % 360:03d}e{round(elevation_deg):+03d}"


def write_evaluation(
    out_dir: str | Path,
    name: str,
    render: Render,
    num_frames: int,
    *,
    preset: str,
    options: FrameOptions = FrameOptions(),
) -> list[str]:
    """Frames and videos of every view of a protocol.

    Args:
        out_dir: see the module.
        name: of the object; a leading dot is dropped, since such folders are not looked into.
        render: the renderer.
        num_frames: of the animation.
        preset: one of `EVALUATIONS`.
        options: how.

    Returns:
        names of the views.
    """
    assert preset in EVALUATIONS, f"preset {preset!r}, expected one of {EVALUATIONS}"
    camera = PRESETS[preset].camera
    size = options.size or camera.size
    out_dir, names = Path(out_dir), []
    for azimuth, elevation in zip(camera.azimuths_deg, camera.elevations_deg, strict=True):
        c2w = look_at_origin(options.front_azimuth_deg + azimuth, elevation, camera.distance)
        rgba = _rendered(
            render, np.arange(num_frames), np.repeat(c2w[None], num_frames, 0), size, camera.fov_y_deg, options
        )
        view = view_name(azimuth, elevation)
        pictures = _write_frames(out_dir / "frames" / preset / (name.lstrip(".") or "object") / view, rgba)
        write_video(out_dir / "videos" / preset / f"{view}.mp4", pictures, options.fps, options.background)
        names.append(view)
    return names


def write_orbit(
    out_dir: str | Path,
    render: Render,
    num_frames: int,
    *,
    options: FrameOptions = FrameOptions(),
) -> Path:
    """A camera that circles the object once, from its front, while the animation plays `orbit_plays` times.

    Returns:
        the video.
    """
    plays, camera = options.orbit_plays, PRESETS["eval-3to4d"].camera
    count = plays * num_frames
    azimuths = options.front_azimuth_deg + 360 * np.arange(count) / count
    c2w = np.stack([look_at_origin(azimuth, options.orbit_elevation_deg, camera.distance) for azimuth in azimuths])
    rgba = _rendered(render, np.tile(np.arange(num_frames), plays), c2w, options.size or 512, camera.fov_y_deg, options)
    pictures = _write_frames(Path(out_dir) / "frames" / "orbit", rgba)
    path = Path(out_dir) / "videos" / "orbit.mp4"
    write_video(path, pictures, options.fps, options.background)
    return path


def write_video(path: Path, pictures: Sequence[np.ndarray], fps: float, background: Sequence[float]) -> None:
    """An mp4 (H.264, yuv420p, which every player takes) of pictures on a background.

    Args:
        path: the file; replaced whole, its folder is created.
        pictures: (height, width, 4) uint8 each, at least one; odd sides grow by a row or column of background.
        fps: frames a second.
        background: sRGB-encoded 0 to 1.
    """
    import av

    height, width = (side + side % 2 for side in pictures[0].shape[:2])
    rate = Fraction(fps).limit_denominator(100_000)
    with attempt(path) as trial, av.open(str(trial), "w", format="mp4", options={"movflags": "+faststart"}) as out:
        stream = out.add_stream("libx264", rate=rate, options={"crf": "16", "threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for index, rgba in enumerate(pictures):
            padded = np.zeros((height, width, 4), np.uint8)
            padded[: rgba.shape[0], : rgba.shape[1]] = rgba
            frame = av.VideoFrame.from_ndarray(composite(padded, background), format="rgb24")
            frame.pts, frame.time_base = index, 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def _rendered(
    render: Render, frames: np.ndarray, c2w: np.ndarray, size: int, fov_y_deg: float, options: FrameOptions
) -> Iterator[np.ndarray]:
    """(size, size, 4) uint8 of each image, rendered a few at a time; no colour where alpha is 0."""
    K = intrinsics(fov_y_deg, size, size)
    step = max(1, options.pixels_at_a_time // size**2)
    for start in range(0, len(frames), step):
        some = slice(start, start + step)
        rgba = render(frames[some], c2w[some], np.repeat(K[None], len(frames[some]), 0), size)
        wanted = (len(frames[some]), size, size, 4)
        assert (rgba.dtype, rgba.shape) == (np.uint8, wanted), f"{rgba.dtype} {rgba.shape}, expected uint8 {wanted}"
        yield from rgba * (rgba[..., 3:] > 0)


def _write_frames(folder: Path, pictures: Iterator[np.ndarray]) -> list[np.ndarray]:
    kept = []
    for index, rgba in enumerate(pictures):
        out = io.BytesIO()
        Image.fromarray(rgba).save(out, "PNG", compress_level=4)
        write_bytes(folder / f"{index:03d}.png", out.getvalue())
        kept.append(rgba)
    for left in folder.glob("*.png"):  # of an earlier, longer animation
        if left.stem.isdigit() and int(left.stem) >= len(kept):
            left.unlink()
    return kept
