"""Small videos and pictures on disk, written by PyAV and Pillow. For tests of what reads them."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["make_clip", "write_frames", "write_video"]


def make_clip(frames: int = 6, height: int = 32, width: int = 48, seed: int = 0) -> np.ndarray:
    """(frame, height, width, 4) uint8: a moving disc of smooth colours, straight alpha, black where alpha is 0."""
    y, x = np.mgrid[:height, :width]
    out = np.zeros((frames, height, width, 4), np.uint8)
    for t in range(frames):
        inside = (x - width / 2 - t) ** 2 + (y - height / 2) ** 2 < (min(height, width) / 2.5) ** 2
        colors = [128 + 90 * np.sin(x / 9 + t + seed), 128 + 90 * np.cos(y / 7 + seed), 60 + 20 * t + 0 * x]
        out[t, ..., :3] = np.stack(colors, -1)
        out[t, ..., 3] = np.where(inside, 255, 0)
        out[t][~inside] = 0
    return out


def write_video(
    path: Path, rgba: np.ndarray, fps: float | Fraction = 8, codec: str = "libx264rgb", pix_fmt: str = "rgb24",
    options: dict[str, str] | None = None, times: list[int] | None = None, container: dict[str, str] | None = None,
) -> Path:  # fmt: skip
    """Writes frames; the default is lossless RGB in mp4 or mkv.

    Args:
        path: where; its suffix says the container.
        rgba: (frame, height, width, 4); alpha is dropped where the format has none.
        fps: frames a second.
        codec, pix_fmt, options: of the encoder.
        times: place of every frame in units of 1 / fps, for uneven ones.
        container: options of the container.
    """
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    alpha = "a" in pix_fmt.replace("argb", "a")
    with av.open(str(path), "w", options=container or {}) as out:
        rate = Fraction(fps).limit_denominator(100_000)
        stream = out.add_stream(codec, rate=rate, options=options if options is not None else {"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = rgba.shape[2], rgba.shape[1], pix_fmt
        for k, picture in enumerate(rgba):
            pixels = np.ascontiguousarray(picture if alpha else picture[..., :3])
            frame = av.VideoFrame.from_ndarray(pixels, format="rgba" if alpha else "rgb24")
            frame.pts, frame.time_base = k if times is None else times[k], 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def write_frames(folder: Path, rgba: np.ndarray, name: str = "{:03d}.png", mode: str = "RGBA") -> Path:
    """Writes frames as files of their own."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, picture in enumerate(rgba):
        image = Image.fromarray(picture).convert(mode)
        path = folder / name.format(k)
        lossless = {"lossless": True, "exact": True} if path.suffix == ".webp" else {}
        image.save(path, **lossless)
    return folder
