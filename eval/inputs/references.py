"""What videos are compared with: the object at rest, a camera that circles it, and the true clip.

References are stills (`mvv still`) matched by asset and direction, or pictures in folders, or, where the method's own
first frame is taken for the object at rest, frame 0. Nothing is guessed: what does not match within a degree is absent,
and a metric that needs it says so.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from eval.inputs.dataset import IMPORTER as DATASET
from eval.inputs.dataset import Clipped, read_dataset
from eval.inputs.folders import IMPORTER as FOLDERS
from eval.inputs.importer import InputOptions, content_hash
from eval.inputs.names import apart, near, parse_view
from eval.inputs.tree import Branch, Tree
from eval.items import Item, Video
from eval.pictures import PICTURE_SUFFIXES, read_image
from manifests.errors import InputError

__all__ = ["FirstFrame", "Ring", "first_frame_references", "open_references", "open_truths"]

Read = Callable[[], np.ndarray]
MATCH_DEG = 1.0
"""How far a reference may look from another direction than the video."""
RING_VIEWS = 8
RING_STEP_DEG = 24.0
"""A ring of at least so many views, at most so far apart, serves as the camera that circles the object."""


@dataclass(frozen=True)
class FirstFrame:
    """Reads frame 0 of a video: (height, width, 4) uint8. Whoever has decoded ``video`` already takes that instead."""

    video: Read

    def __call__(self) -> np.ndarray:
        return self.video()[0]


@dataclass(frozen=True)
class Ring:
    """Reads one picture from each of several views: (frame, height, width, 4) uint8, in the order of their azimuths."""

    views: tuple[Read, ...]

    def __call__(self) -> np.ndarray:
        return np.stack([read()[0] for read in self.views])


def first_frame_references(items: Iterable[Item]) -> list[Item]:
    """Items whose references are frame 0 of each of their own videos."""
    return [
        _with(item, "first frame", references={video.view: FirstFrame(video.read) for video in item.videos})
        for item in items
    ]


def open_references(
    paths: Sequence[Path | str], items: Sequence[Item], *, sha256: Mapping[str, str] | None = None
) -> list[Item]:
    """Items with the pictures of their objects at rest.

    A path is a dataset of stills or a folder OBJECT/VIEW.png (png, jpg or webp; VIEW as the video's view or a direction
    with elevation). A still is an object's by equal object id, asset id or clip id, or by the asset's hash where
    ``sha256`` has the object. A ring of views on one elevation becomes the object's ``orbit``. Where two paths have the
    same, the first counts.

    Args:
        paths: where to look, in this order.
        items: of the method.
        sha256: object id -> SHA-256 of the asset, as the evaluation set has it.

    Returns:
        the items in their order, those without a match as they were; ``content`` also covers the references.

    Raises:
        InputError: a path without any match, or with a dataset that is not one of stills.
    """
    found = list(items)
    for path in paths:
        tree = Tree(path)
        attach = _stills(tree, sha256 or {}) if DATASET.find(tree) else _pictures(tree)
        attached = [attach(item) for item in found]
        if all(new is old for new, old in zip(attached, found, strict=True)):
            raise _no_match(tree, "reference", found)
        found = attached
    return found


def open_truths(path: Path | str, items: Sequence[Item], *, sha256: Mapping[str, str] | None = None) -> list[Item]:
    """Items with their ground-truth clips, matched as references are.

    Args:
        path: a dataset of ours, or folders OBJECT/VIEW/ or OBJECT/VIEW.mp4.
        items: of the method.
        sha256: object id -> SHA-256 of the asset.

    Raises:
        InputError: no object matches.
    """
    tree = Tree(path)
    if DATASET.find(tree):
        find = _Table(read_dataset(tree), sha256 or {}, tree).find
    else:
        find = {item.object_id: item for item in FOLDERS.read(tree, InputOptions())}.get
    out = []
    for item in items:
        truth = find(item.object_id)
        truths = {v.view: m.read for v in item.videos if (m := _match(v, truth.videos))} if truth else {}
        out.append(_with(item, truth.content, truths={**truths, **item.truths}) if truth and truths else item)
    if all(new is old for new, old in zip(out, items, strict=True)):
        raise _no_match(tree, "ground-truth clip", items)
    return out


class _Table:
    """Clips of a dataset by everything that may name their object."""

    def __init__(self, clips: Sequence[Clipped], sha256: Mapping[str, str], tree: Tree) -> None:
        self._sha256, self._tree = sha256, tree
        self._keys: list[dict[str, list[Clipped]]] = [{}, {}, {}, {}]
        for clip in clips:
            names = (clip.item.object_id, clip.clip_id, clip.asset_sha256, clip.asset_id)
            for keys, name in zip(self._keys, names, strict=True):
                keys.setdefault(name, []).append(clip)

    def find(self, object_id: str) -> Item | None:
        """The only clip of an object; several are refused."""
        clip = re.fullmatch(r"(.+)-(?:\d{3,}|still)-\d{2,}", object_id)
        names = (object_id, object_id, self._sha256.get(object_id, ""), clip[1] if clip else object_id)
        for keys, name in zip(self._keys, names, strict=True):
            if len(found := keys.get(name, [])) > 1:
                ids = " and ".join(entry.clip_id for entry in found[:2])
                raise InputError(
                    f"{self._tree.root}: found {ids} for {object_id}, expected one clip an object; keep one of them"
                )
            if found:
                return found[0].item
        return None


def _stills(tree: Tree, sha256: Mapping[str, str]) -> Callable[[Item], Item]:
    """A function that gives an item the stills of its object."""
    clips = read_dataset(tree)
    if moving := next((clip for clip in clips if clip.frames > 1), None):
        raise InputError(
            f"{tree.root}: found {moving.clip_id} of {moving.frames} frames, expected objects at rest; make them with"
            " `mvv still`"
        )
    table = _Table(clips, sha256, tree)

    def attach(item: Item) -> Item:
        still = table.find(item.object_id)
        if still is None:
            return item
        matches = {video.view: _match(video, still.videos) for video in item.videos}
        references = {view: FirstFrame(match.read) for view, match in matches.items() if match}
        orbit = item.orbit or _ring(still.videos)
        if not references and orbit is item.orbit:
            return item
        return _with(item, still.content, references={**references, **item.references}, orbit=orbit)

    return attach


def _pictures(tree: Tree) -> Callable[[Item], Item]:
    """A function that gives an item the pictures in the folder of its object."""
    places = {branch.path.name: branch for branch in tree.below(tree.root)}

    def attach(item: Item) -> Item:
        files = _matched(item, places[item.object_id]) if item.object_id in places else {}
        if not files:
            return item
        references = {view: partial(read_image, path) for view, path in files.items()}
        content = content_hash(tree, list(files.values()), {view: path.name for view, path in files.items()})
        return _with(item, content, references={**references, **item.references})

    return attach


def _matched(item: Item, place: Branch) -> dict[str, Path]:
    """View -> picture, by the view's own name or by direction."""
    pictures = place.with_suffix(PICTURE_SUFFIXES)
    found = {}
    for video in item.videos:
        same = [path for path in pictures if path.stem == video.view]
        near_by = [path for path in pictures if _states(path.stem, video)]
        if len(same or near_by) > 1:
            names = " and ".join(path.name for path in (same or near_by)[:2])
            raise InputError(f"{place.path}: found {names} for view {video.view}, expected one picture; remove one")
        if same or near_by:
            found[video.view] = (same or near_by)[0]
    return found


def _states(name: str, video: Video) -> bool:
    stated = parse_view(name)
    return stated is not None and stated[1] is not None and near(video, (stated[0], stated[1]), MATCH_DEG)


def _match(video: Video, others: Sequence[Video]) -> Video | None:
    """The view nearest in direction, within `MATCH_DEG`; for an unknown direction the one of the same name."""
    if video.azimuth_deg is None or video.elevation_deg is None:
        return next((other for other in others if other.azimuth_deg is None and other.view == video.view), None)
    here = (video.azimuth_deg, video.elevation_deg)
    close = [(apart(here, where), k) for k, other in enumerate(others) if (where := _direction(other)) is not None]
    return others[min(close)[1]] if close and min(close)[0] <= MATCH_DEG else None


def _direction(video: Video) -> tuple[float, float] | None:
    if video.azimuth_deg is None or video.elevation_deg is None:
        return None
    return video.azimuth_deg, video.elevation_deg


def _ring(videos: Sequence[Video]) -> Ring | None:
    """The views on one elevation as frames of a camera that circles; None where there is no such ring."""
    known = [(where, video.read) for video in videos if (where := _direction(video)) is not None]
    rings = [[entry for entry in known if abs(entry[0][1] - middle[1]) <= MATCH_DEG] for middle, _ in known]
    views = sorted(max(rings, key=len, default=[]), key=lambda entry: entry[0][0])
    if len(views) < RING_VIEWS:
        return None
    azimuths = [where[0] for where, _ in views]
    gaps = [(b - a) % 360 for a, b in zip(azimuths, [*azimuths[1:], azimuths[0]], strict=True)]
    # An open arc is a ring with one wide gap; the camera then starts behind it.
    widest = max(range(len(gaps)), key=gaps.__getitem__)
    if max(gaps[:widest] + gaps[widest + 1 :]) > RING_STEP_DEG:
        return None
    start = (widest + 1) % len(views) if gaps[widest] > RING_STEP_DEG else 0
    return Ring(tuple(read for _, read in views[start:] + views[:start]))


def _with(item: Item, content: str, **fields: object) -> Item:
    both = hashlib.sha256(f"{item.content} {content}".encode()).hexdigest()
    return dataclasses.replace(item, content=both, **fields)


def _no_match(tree: Tree, what: str, items: Sequence[Item]) -> InputError:
    sample = items[0] if items else None
    views = " ".join(video.view for video in sample.videos[:4]) if sample else ""
    wanted = f"{sample.object_id} ({views})" if sample else "any object"
    return InputError(
        f"{tree.root}: found no {what} for any of {len(items)} objects, expected some for e.g. {wanted}; objects match"
        f" by id or asset hash, views within {MATCH_DEG:g} degree"
    )
