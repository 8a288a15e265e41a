"""Video files as exact RGBA arrays, or one error that names the file.

A lossless RGB file decodes to exactly the pixels written. Where a codec stores luma and chroma, the conversion is
swscale's own, by the file's colour tags; without tags bit for bit what OpenCV's reader gives, with which VBench reads.
(Interpolating chroma as well came 1 grey level closer to a test clip, but 3 away from what the sources' metrics see.)
Nothing is resampled in time: a video of varying frame rate is refused. Formats: mp4, mov, webm, mkv (PyAV, with the
alpha of VP8, VP9, ProRes and png); gif, animated webp and png, jpeg (`eval.pictures`, which also reads folders).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.pictures import (
    LIMITS,
    PICTURE_SUFFIXES,
    Animation,
    Decoded,
    DecodeLimits,
    check_size,
    damaged,
    frame_files,
    read_frames,
    read_image,
)
from manifests.errors import InputError

__all__ = [
    "PICTURE_SUFFIXES",
    "VIDEO_SUFFIXES",
    "DecodeLimits",
    "Decoded",
    "Header",
    "cut_tile",
    "frame_files",
    "peek",
    "read_frames",
    "read_image",
    "read_video",
]

VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv", ".gif", ".webp", ".apng")
"""Of files that are a whole video."""

_CONTAINERS = ("mov", "matroska")
"""Demuxers of FFmpeg, named and not probed: its playlist formats open other files, which no video brought in may do."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a file says of itself before anything is decoded.

    Attributes:
        frames: how many.
        fps: frames a second; None where the file does not say it.
        has_alpha: the pictures carry transparency.
        height, width: pixels.
    """

    frames: int
    fps: float | None
    has_alpha: bool
    height: int
    width: int


def peek(path: Path | str, limits: DecodeLimits = LIMITS) -> Header:
    """Reads a video's header and the times of its frames.

    Raises:
        InputError: empty, damaged, cut off, of another format, beyond the limits, or of varying frame rate.
    """
    path = Path(path)
    if (kind := _kind(path)) in _CONTAINERS:
        with _stream(path, kind) as (container, stream):
            return _examine(path, container, stream, limits)
    with Animation(path, limits) as animation:
        return Header(
            frames=len(animation.numbers), fps=_rate(path, *animation.times(), stated=()),
            has_alpha=animation.has_alpha, height=animation.height, width=animation.width,
        )  # fmt: skip


def read_video(path: Path | str, frames: range | None = None, limits: DecodeLimits = LIMITS) -> Decoded:
    """Decodes a video file.

    Args:
        path: mp4, mov, webm, mkv, gif, animated webp or png; what counts is the content, not the name.
        frames: only these, one after the other; None is all.
        limits: what is refused.

    Returns:
        the frames in the order in which they are shown.

    Raises:
        InputError: as `peek`; fewer frames than asked for.
    """
    path = Path(path)
    header = peek(path, limits)
    wanted = range(header.frames) if frames is None else frames
    if wanted.stop > header.frames:
        raise InputError(f"{path}: found {header.frames} frames, expected {wanted.stop}; write the video again")
    rgba = np.empty((len(wanted), header.height, header.width, 4), np.uint8)
    decoded = 0
    with contextlib.closing(_pictures(path, limits)) as pictures:
        for picture in pictures:
            if decoded in wanted:
                rgba[decoded - wanted.start] = picture
            decoded += 1
            if frames is not None and decoded == wanted.stop:
                break
    if decoded != wanted.stop:
        raise damaged(path, f"{decoded} frames that decode of {header.frames}")
    return Decoded(rgba=rgba, fps=header.fps, has_alpha=header.has_alpha)


def cut_tile(rgba: np.ndarray, tiles: tuple[int, int], index: int) -> np.ndarray:
    """One view out of frames that show several side by side.

    Args:
        rgba: (frame, height, width, channels).
        tiles: (rows, columns).
        index: row by row from the top left, from 0.

    Returns:
        (frame, height / rows, width / columns, channels), a view of the same memory.

    Raises:
        InputError: sizes that do not divide, or no such tile.
    """
    rows, columns = tiles
    height, width = rgba.shape[1:3]
    if rows < 1 or columns < 1 or height % rows or width % columns:
        raise InputError(
            f"tiles: found frames of {width}x{height}, expected a size that {rows} rows and {columns} columns divide;"
            " give the rows and columns that the video has"
        )
    if not 0 <= index < rows * columns:
        raise InputError(f"tiles: found tile {index}, expected 0 to {rows * columns - 1} of {rows} x {columns}")
    row, column = divmod(index, columns)
    high, wide = height // rows, width // columns
    return rgba[:, row * high : (row + 1) * high, column * wide : (column + 1) * wide]


def _kind(path: Path) -> str:
    """Which reader a file needs, by its first bytes."""
    try:
        with open(path, "rb") as file:
            head = file.read(16)
    except OSError as error:
        raise InputError(f"{path}: found {error.strerror}, expected a video; check the path") from error
    if not head:
        raise InputError(f"{path}: found 0 bytes, expected a video; write it again")
    if head[4:8] in (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide"):
        return "mov"
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return "matroska"
    starts = (b"GIF8", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")
    if head.startswith(starts) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP"):
        return "picture"
    raise InputError(
        f"{path}: found a file that begins with {head[:8].hex()}, expected mp4, mov, webm, mkv, gif, webp, png or jpeg;"
        " write it as one of them"
    )


def _pictures(path: Path, limits: DecodeLimits) -> Iterator[np.ndarray]:
    """(height, width, 4) uint8 of every frame."""
    if (kind := _kind(path)) in _CONTAINERS:
        with _stream(path, kind) as (container, stream):
            yield from _decode(path, container, stream)
    else:
        with Animation(path, limits) as animation:
            yield from animation.frames()


@contextlib.contextmanager
def _stream(path: Path, kind: str) -> Iterator[tuple[Any, Any]]:
    """The open container and its only video stream; errors of FFmpeg in the block name the file."""
    try:
        import av
    except ImportError as error:
        raise InputError(f"{path}: found no PyAV, expected it for videos; pip install 'mvvideo[eval]'") from error
    try:
        # A file object and not a name: FFmpeg takes some names for addresses.
        with open(path, "rb") as file, av.open(file, format=kind, metadata_errors="replace") as container:
            if len(container.streams.video) != 1:
                found = len(container.streams.video)
                raise InputError(f"{path}: found {found} video streams, expected one; write the video again with one")
            stream = container.streams.video[0]
            if stream.codec_context is None or stream.codec_context.format is None or not stream.time_base:
                raise damaged(path, "a codec that nothing here reads")
            stream.thread_type = "AUTO"
            yield container, stream
    except av.FFmpegError as error:
        raise damaged(path, error.strerror or type(error).__name__) from error


def _examine(path: Path, container: Any, stream: Any, limits: DecodeLimits) -> Header:
    """Times and number of frames from the packets; refuses what is cut off."""
    codec = stream.codec_context
    check_size(path, 1, codec.width, codec.height, limits)
    packets, pts = 0, []
    for packet in container.demux(stream):
        if packet.size == 0:  # PyAV's end mark
            continue
        if packet.is_corrupt:
            raise damaged(path, f"a broken packet after {packets} frames")
        packets += 1
        if not packet.is_discard:
            pts.append(packet.pts)
        check_size(path, len(pts), codec.width, codec.height, limits)
    if not pts or None in pts:
        raise damaged(path, "frames without a time" if pts else "no frame")
    tick = float(stream.time_base)
    times = [tick * time for time in sorted(pts)]
    fps = _rate(path, times, tick, [float(rate) for rate in (stream.average_rate, stream.guessed_rate) if rate])
    expected = stream.frames
    if not expected and fps and container.duration and len(container.streams) == 1:
        # mp4 counts its frames; webm and mkv state how long they are.
        expected = round((container.duration / 1e6 - times[0]) * fps)
    if packets < expected:
        raise damaged(path, f"{packets} of {expected} frames")
    has_alpha = any(part.is_alpha for part in codec.format.components) or _second_stream(stream)
    return Header(frames=len(pts), fps=fps, has_alpha=has_alpha, height=codec.height, width=codec.width)


def _second_stream(stream: Any) -> bool:
    """webm keeps alpha as a second VP8 or VP9 stream beside the first, which only libvpx decodes."""
    return stream.metadata.get("alpha_mode") == "1" and stream.codec_context.name in ("vp8", "vp9")


def _rate(path: Path, times: Sequence[float], tick: float, stated: Sequence[float]) -> float | None:
    """Frames a second of evenly spaced times.

    Args:
        path: for the error.
        times: of every frame, seconds, rounded to ticks.
        tick: what the file counts time in, seconds.
        stated: rates that the file gives; the first that fits the times is taken, since it is exact.

    Raises:
        InputError: times that no constant rate fits.
    """
    if len(times) < 2:
        return stated[0] if stated else None
    step = (times[-1] - times[0]) / (len(times) - 1)
    # Rounding moves each time by half a tick; a coarse tick must not hide a frame that is missing.
    tolerance = min(1.5 * tick, 0.25 * step)
    for fps in (*stated, *((round(1 / step), 1 / step) if step > 0 else ())):
        if fps > 0 and max(abs(time - times[0] - k / fps) for k, time in enumerate(times)) <= tolerance:
            return float(fps)
    gaps = [1000 * (b - a) for a, b in itertools.pairwise(times)]
    raise InputError(
        f"{path}: found frames {min(gaps):.0f} to {max(gaps):.0f} ms apart, expected a constant frame rate; write the"
        " video again at one rate, nothing is resampled here"
    )


def _decode(path: Path, container: Any, stream: Any) -> Iterator[np.ndarray]:
    """(height, width, 4) uint8 of every frame."""
    import av
    from av.video.reformatter import Interpolation as Filter

    same = Filter.BICUBIC | Filter.BITEXACT  # on every processor
    decoder = stream.codec_context
    size = decoder.width, decoder.height
    if _second_stream(stream):
        decoder = av.CodecContext.create({"vp8": "libvpx", "vp9": "libvpx-vp9"}[decoder.name], "r")
    for packet in container.demux(stream):
        for frame in decoder.decode(packet):
            if frame.is_corrupt:
                raise damaged(path, "a frame that does not decode")
            if (frame.width, frame.height) != size:
                raise InputError(
                    f"{path}: found a frame of {frame.width}x{frame.height}, expected {size[0]}x{size[1]} as at the"
                    " start; write the video again in one size"
                )
            yield frame.reformat(format="rgba", interpolation=same, threads=1).to_ndarray()
