"""What every importer has: the layout it knows, how it recognises it, and the way from files to items.

An importer only says which files are which view of which object (`Source`); headers, hashes and readers are the same
for all and made here. Nothing is decoded before an item's `read` is called.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eval.decode import cut_tile, peek, read_frames, read_video
from eval.inputs.tree import Tree
from eval.items import Item, Video, view_name
from eval.pictures import picture_alpha
from manifests.errors import InputError
from manifests.publish import sha256_file

__all__ = ["FileReader", "FramesReader", "Importer", "InputOptions", "Source", "content_hash", "items_of", "straighten"]


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """What a layout on disk cannot say itself."""

    fps: float | None = None
    """Frames a second of folders of frames; a video file says its own."""
    tiles: tuple[int, int] | None = None
    """Rows and columns of a tiled video."""
    cameras: tuple[tuple[float, float], ...] = ()
    """Azimuth from the front and elevation of every tile, row by row, degrees."""
    elevation_deg: float | None = None
    """Elevation of views whose name or layout states only an azimuth, degrees."""


@dataclass(frozen=True, kw_only=True)
class Importer:
    """One layout.

    Attributes:
        name: as the command line has it.
        layout: what it looks for, one line for messages.
        uses: names of the `InputOptions` that mean something here.
        find: what of the layout a tree has, a few words; "" where it has nothing of it.
        read: the objects of a tree.
    """

    name: str
    layout: str
    uses: frozenset[str]
    find: Callable[[Tree], str]
    read: Callable[[Tree, InputOptions], list[Item]]


@dataclass(frozen=True, kw_only=True)
class Source:
    """Files that are one video.

    Attributes:
        name: of the view, where it has no direction.
        direction: (azimuth from the front, elevation), degrees; None where not known.
        files: the frames in their order, or one video file.
        is_frames: which of the two.
        fps: of frames, where the layout fixes it.
        frames: of the video file only these; None is all.
        tiles, tile: rows and columns, and which tile is the view; columns 0 are as many squares as the width holds.
        mixed_with: grey level, 0..255, that was put behind frames whose alpha was kept beside it (`straighten`).
    """

    name: str
    direction: tuple[float, float] | None
    files: tuple[Path, ...]
    is_frames: bool
    fps: float | None = None
    frames: range | None = None
    tiles: tuple[int, int] = (1, 1)
    tile: int = 0
    mixed_with: float | None = None

    @property
    def view(self) -> str:
        """The view's name."""
        return self.name if self.direction is None else view_name(*self.direction)


@dataclass(frozen=True)
class FramesReader:
    """Reads frames that are files of their own; see `Video.read`."""

    files: tuple[Path, ...]
    mixed_with: float | None = None

    def __call__(self) -> np.ndarray:
        rgba = read_frames(self.files).rgba
        return rgba if self.mixed_with is None else straighten(rgba, self.mixed_with)


@dataclass(frozen=True)
class FileReader:
    """Reads a video file, or some frames or one tile of it; see `Video.read`."""

    path: Path
    frames: range | None = None
    tiles: tuple[int, int] = (1, 1)
    tile: int = 0

    def __call__(self) -> np.ndarray:
        rgba = read_video(self.path, self.frames).rgba
        rows, columns = self.tiles
        if columns == 0:
            columns = max(1, rgba.shape[2] // rgba.shape[1])
        try:
            return cut_tile(rgba, (rows, columns), self.tile)
        except InputError as error:
            raise InputError(f"{self.path}: {error}") from error


def straighten(rgba: np.ndarray, grey: float) -> np.ndarray:
    """Takes a grey out of pictures that were stored on it, with their alpha beside: straight alpha, as everywhere here.

    Pictures that show another colour where alpha is 0 were not stored so and stay as they are.

    Args:
        rgba: (frame, height, width, 4) uint8, RGB = alpha * colour + (1 - alpha) * grey.
        grey: 0..255.
    """
    behind = rgba[rgba[..., 3] == 0][:, :3]
    if behind.size and np.abs(behind.astype(np.float32) - grey).max() > 1.5:
        return rgba
    straight = rgba.copy()
    for frame in straight:  # one at a time: the float copy is four times the size
        alpha = frame[..., 3:].astype(np.float32) / 255
        color = grey + (frame[..., :3] - grey) / np.maximum(alpha, 1 / 255)
        frame[..., :3] = np.where(alpha > 0, np.clip(np.rint(color), 0, 255), 0)
    return straight


def content_hash(tree: Tree, files: Sequence[Path], facts: object = None) -> str:
    """SHA-256 over the names and bytes of files and anything else that decides what is read."""
    try:
        hashes = [(tree.relative(path), sha256_file(path)) for path in sorted(set(files))]
    except OSError as error:
        found = f"{error.filename}: found {error.strerror}"
        raise InputError(f"{found}, expected a file that can be read; mend its permissions") from error
    return hashlib.sha256(json.dumps([hashes, facts]).encode()).hexdigest()


def items_of(tree: Tree, objects: Mapping[str, Sequence[Source]], options: InputOptions) -> list[Item]:
    """Items from their files, sorted by id.

    Raises:
        InputError: no object, an object without a video, two videos of one view, or a frame rate that contradicts
            what a file says.
    """
    if not objects:
        raise InputError(f"{tree.root}: found no object, expected at least one; check the path")
    return [_item(tree, object_id, objects[object_id], options) for object_id in sorted(objects)]


def _item(tree: Tree, object_id: str, sources: Sequence[Source], options: InputOptions) -> Item:
    if not sources:
        raise InputError(
            f"{tree.root}: found no video of {object_id}, expected at least one view; add it or remove the folder"
        )
    videos: dict[str, Video] = {}
    for source in sources:
        if source.view in videos:
            both = f"{videos[source.view].source} and {_where(tree, source)}"
            raise InputError(
                f"{tree.root}: found {both} as view {source.view} of {object_id}, expected one; remove one"
            )
        videos[source.view] = _video(tree, object_id, source, options)
    ordered = tuple(videos[name] for name in sorted(videos))
    facts = [(*_facts(tree, source), videos[source.view].fps) for source in sorted(sources, key=lambda s: s.view)]
    files = [path for source in sources for path in source.files]
    return Item(object_id=object_id, videos=ordered, content=content_hash(tree, files, facts))


def _facts(tree: Tree, source: Source) -> tuple[object, ...]:
    """All that decides what a source gives beside the bytes of its files; nothing of where the tree lies."""
    frames = source.frames and (source.frames.start, source.frames.stop)
    names = [tree.relative(path) for path in source.files]
    return source.view, source.direction, names, frames, source.tiles, source.tile, source.mixed_with


def _video(tree: Tree, object_id: str, source: Source, options: InputOptions) -> Video:
    azimuth, elevation = (None, None) if source.direction is None else source.direction
    fps, has_alpha = _header(source, options)
    if source.is_frames:
        read: FramesReader | FileReader = FramesReader(source.files, source.mixed_with)
    else:
        read = FileReader(source.files[0], source.frames, source.tiles, source.tile)
    return Video(
        object_id=object_id, view=source.view, azimuth_deg=None if azimuth is None else azimuth % 360,
        elevation_deg=elevation, fps=fps, source=_where(tree, source), has_alpha=has_alpha, read=read,
    )  # fmt: skip


def _header(source: Source, options: InputOptions) -> tuple[float | None, bool]:
    """(fps, has_alpha); a file that cannot be read says so when it is read, so that the others are still scored."""
    path = source.files[0]
    try:
        if source.is_frames:
            return options.fps or source.fps, picture_alpha(path)
        header = peek(path)
    except InputError:
        return None, False
    if options.fps and header.fps and abs(options.fps - header.fps) > 1e-6:
        raise InputError(
            f"{path}: found {header.fps:g} frames a second, expected the {options.fps:g} of --fps; leave --fps out, or"
            " write the video again at the right rate"
        )
    return header.fps or options.fps, header.has_alpha


def _where(tree: Tree, source: Source) -> str:
    """For messages and tables: the video file, or the folder of the frames."""
    return tree.relative(source.files[0].parent if source.is_frames else source.files[0])
