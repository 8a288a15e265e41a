"""Pictures as exact RGBA arrays: single ones, folders of frames, and the frames of gif, animated webp and png.

Pillow reads them, but for 16 bits a channel, where it would clip or drop bits. Colour profiles are not applied. What a
file claims is checked against limits before it is decoded, and every fault is one error that names the file.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from manifests.errors import InputError

__all__ = [
    "LIMITS",
    "PICTURE_SUFFIXES",
    "Animation",
    "DecodeLimits",
    "Decoded",
    "check_size",
    "damaged",
    "frame_files",
    "ordered",
    "picture_alpha",
    "read_frames",
    "read_image",
]

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
"""Of the frames in a folder."""


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What is read at most, so that memory stays bounded whatever a file claims."""

    frames: int = 1000
    """Most frames of a video."""
    side: int = 8192
    """Largest width and height, pixels."""
    pixels: int = 2**28
    """Most pixels of all frames of a video together; decoded each takes four bytes."""


LIMITS = DecodeLimits()
"""The default."""


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """A video in memory.

    Attributes:
        rgba: (frame, height, width, 4) uint8, straight alpha, sRGB-encoded; alpha is 255 where there is none.
        fps: frames a second; None where nothing says it.
        has_alpha: the file carries transparency.
    """

    rgba: np.ndarray
    fps: float | None
    has_alpha: bool


def damaged(path: Path, found: object) -> InputError:
    """The error for a file that is not what it should be from end to end."""
    return InputError(f"{path}: found {found}, expected a whole file; it is damaged or cut off, write it again")


def check_size(path: Path, frames: int, width: int, height: int, limits: DecodeLimits) -> None:
    """Refuses what would not fit in memory, before it is decoded.

    Raises:
        InputError: no pixel, or more than the limits.
    """
    if width < 1 or height < 1:
        raise damaged(path, f"pictures of {width}x{height}")
    if frames > limits.frames:
        raise InputError(f"{path}: found {frames} frames, expected at most {limits.frames}; cut the video")
    if max(width, height) > limits.side or frames * width * height > limits.pixels:
        raise InputError(
            f"{path}: found {frames} frames of {width}x{height}, expected sides of at most {limits.side} and at most"
            f" {limits.pixels} pixels together; render smaller or fewer frames"
        )


def read_image(path: Path | str, limits: DecodeLimits = LIMITS) -> np.ndarray:
    """One picture: grey, palette, RGB or RGBA, 8 or 16 bits a channel (16 are rounded to 8).

    Returns:
        (height, width, 4) uint8, straight alpha.

    Raises:
        InputError: empty, damaged, not a picture, or beyond the limits.
    """
    return _read(Path(path), limits)[0]


def picture_alpha(path: Path | str, limits: DecodeLimits = LIMITS) -> bool:
    """Whether a picture carries transparency, from its header; errors as `read_image`."""
    with _named(Path(path)), Image.open(path) as image:
        check_size(Path(path), 1, image.width, image.height, limits)
        return _alpha(image)


def read_frames(
    frames: Path | str | Sequence[Path], *, fps: float | None = None, limits: DecodeLimits = LIMITS
) -> Decoded:
    """Decodes a folder of frames.

    Args:
        frames: the folder, or the files in their order.
        fps: frames a second, which no picture says.
        limits: what is refused.

    Raises:
        InputError: as `frame_files` and `read_image`; pictures of different sizes.
    """
    files = frame_files(frames) if isinstance(frames, str | Path) else list(frames)
    first, has_alpha = _read(files[0], limits)
    check_size(files[0], len(files), first.shape[1], first.shape[0], limits)
    rgba = np.empty((len(files), *first.shape), np.uint8)
    rgba[0] = first
    for k, path in enumerate(files[1:], 1):
        picture, alpha = _read(path, limits)
        if picture.shape != first.shape:
            raise InputError(
                f"{path}: found {picture.shape[1]}x{picture.shape[0]}, expected {first.shape[1]}x{first.shape[0]} as"
                f" {files[0].name}; render all frames in one size"
            )
        rgba[k], has_alpha = picture, has_alpha or alpha
    return Decoded(rgba=rgba, fps=fps, has_alpha=has_alpha)


def frame_files(folder: Path | str) -> list[Path]:
    """The pictures of a folder, hidden files left out, in the order of `ordered`.

    Raises:
        InputError: no such folder, or no picture in it; as `ordered`.
    """
    folder = Path(folder)
    try:
        found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES and path.name[0] != "."]
    except OSError as error:
        raise InputError(f"{folder}: found {error.strerror}, expected a folder of frames; check the path") from error
    if not found:
        expected = f"frames as {' '.join(PICTURE_SUFFIXES)}"
        raise InputError(f"{folder}: found no picture, expected {expected}; check the path")
    return ordered(found)


def ordered(files: Sequence[Path]) -> list[Path]:
    """Frames in the order of the numbers in their names: ``2.png`` before ``10.png``.

    Raises:
        InputError: two files of one number, or a number missing where the others are evenly spaced.
    """
    keyed = sorted((_numbers(path.stem), path) for path in files)
    for (one, a), (other, b) in itertools.pairwise(keyed):
        if one == other:
            raise InputError(f"{a.parent}: found both {a.name} and {b.name}, expected one frame a number; remove one")
    _check_even([key for key, _ in keyed], [path for _, path in keyed])
    return [path for _, path in keyed]


def _numbers(stem: str) -> tuple[tuple[int, int | str], ...]:
    parts = (part for part in re.split(r"(\d+)", stem) if part)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)


def _check_even(keys: list[tuple[tuple[int, int | str], ...]], files: list[Path]) -> None:
    """A frame that is missing changes the frame rate in one place, which no metric could know."""
    if len({len(key) for key in keys}) != 1:
        return
    columns = [column for column in zip(*keys, strict=True) if len(set(column)) > 1]
    if len(columns) != 1 or not all(isinstance(value, int) for _, value in columns[0]):
        return
    steps = [b[1] - a[1] for a, b in itertools.pairwise(columns[0])]
    if len(set(steps)) > 1:
        k = max(range(len(steps)), key=steps.__getitem__)
        raise InputError(
            f"{files[k].parent}: found {files[k + 1].name} after {files[k].name}, expected numbers {min(steps)} apart;"
            " a frame is missing, render it"
        )


class Animation:
    """The frames of an open gif, webp, png or jpeg. A context manager; errors inside name the file.

    Attributes:
        numbers: of the frames, as Pillow seeks them.
        width, height: pixels.
        has_alpha: the first frame carries transparency.
    """

    def __init__(self, path: Path, limits: DecodeLimits = LIMITS) -> None:
        self.path, self._limits, self._stack = path, limits, contextlib.ExitStack()

    def __enter__(self) -> Animation:
        with contextlib.ExitStack() as stack:
            stack.enter_context(_named(self.path))
            self._image = image = stack.enter_context(Image.open(self.path))
            _check_end(self.path, image.format or "")
            self.width, self.height = image.size
            check_size(self.path, 1, *image.size, self._limits)
            # An animated PNG may begin with a picture for readers that show no animation.
            first = 1 if getattr(image, "default_image", False) else 0
            self.numbers = range(first, getattr(image, "n_frames", 1))
            check_size(self.path, len(self.numbers), *image.size, self._limits)
            image.seek(first)
            self.has_alpha = _alpha(image)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> bool | None:
        return self._stack.__exit__(*error)

    def times(self) -> tuple[list[float], float]:
        """Times of the frames and of the end in seconds, empty where the file gives none; and the unit it counts in."""
        times, image = [0.0], self._image
        for k in self.numbers:
            image.seek(k)
            if image.format == "WEBP":
                image.load()  # only then the duration is known
            times.append(times[-1] + float(image.info.get("duration") or 0.0) / 1000)
        return times if times[-1] > 0 else [], 0.01 if image.format == "GIF" else 0.001

    def frames(self) -> Iterator[np.ndarray]:
        """(height, width, 4) uint8 of every frame, composed by the file's own rules."""
        if len(self.numbers) == 1:
            yield _read(self.path, self._limits)[0]
            return
        for k in self.numbers:
            self._image.seek(k)
            picture = np.asarray(self._image.convert("RGBA"))
            if picture.shape[:2] != (self.height, self.width):  # Pillow lets a frame enlarge the canvas
                raise damaged(self.path, f"a frame of {picture.shape[1]}x{picture.shape[0]}")
            yield picture


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Errors of Pillow in the block name the file."""
    try:
        yield
    except InputError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(f"{path}: found {error}, expected a smaller picture; render it smaller") from error
    except (OSError, ValueError, SyntaxError, EOFError, IndexError, KeyError, OverflowError) as error:
        raise damaged(path, getattr(error, "strerror", None) or error or type(error).__name__) from error


def _alpha(image: Image.Image) -> bool:
    return image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info


def _check_end(path: Path, kind: str) -> None:
    """Pillow takes an animation that is cut off between two frames for a shorter one."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        head = file.read(12)
        file.seek(max(0, size - 64))
        tail = file.read()
    whole = {
        "GIF": tail.rstrip(b"\0").endswith(b";"),
        "PNG": b"IEND\xaeB`\x82" in tail,
        "WEBP": size >= int.from_bytes(head[4:8], "little") + 8,
    }
    if not whole.get(kind, True):
        raise damaged(path, f"{size} bytes without the end of a {kind}")


def _read(path: Path, limits: DecodeLimits) -> tuple[np.ndarray, bool]:
    """(height, width, 4) and whether the file carries transparency."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: found {error.strerror}, expected a picture; check the path") from error
    if not data:
        raise InputError(f"{path}: found 0 bytes, expected a picture; write it again")
    with _named(path), Image.open(io.BytesIO(data)) as image:
        check_size(path, 1, *image.size, limits)
        if image.format == "PNG" and data[24] == 16:
            return _sixteen_bits(path, data), _alpha(image)
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise InputError(f"{path}: found pixels of mode {image.mode}, expected 8 bits a channel; write it as PNG")
        return np.asarray(image.convert("RGBA")), _alpha(image)


def _sixteen_bits(path: Path, data: bytes) -> np.ndarray:
    """Pillow clips 16 bits of grey and drops the low byte of colours; here 65535 becomes 255 and all is rounded."""
    import cv2

    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if stored is None or stored.dtype != np.uint16:
        raise damaged(path, "16 bits a channel that do not decode")
    values = ((stored.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8)
    if values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=2)
    alpha = values[..., 3:] if values.shape[2] == 4 else np.full_like(values[..., :1], 255)
    return np.concatenate([values[..., 2::-1], alpha], axis=2)
