"""One of our datasets: clips in tars, read by position.

    DATASET/dataset.json, clips.parquet, index/, shards/      (docs/format.md)

An object is an asset where the asset has one accepted clip, else a clip; its prompt is the clip's caption. Views carry
their camera, and depth where the dataset has it. The content's hash comes from the index, so nothing is decoded.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.inputs.importer import Importer, InputOptions
from eval.inputs.tree import Tree
from eval.items import Item, Video, view_name
from manifests.dataset import Dataset
from manifests.errors import DatasetError, InputError

__all__ = ["IMPORTER", "Clipped", "read_dataset"]

_COLUMNS = ("clip_id", "asset_id", "asset_sha256", "fps", "frames", "views", "caption", "shard")


@dataclass(frozen=True)
class Clipped:
    """An item with what the dataset knows of its clip and asset."""

    item: Item
    clip_id: str
    asset_id: str
    asset_sha256: str
    frames: int


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads one view of a clip; see `Video.read` and `Video.read_depth`."""

    dataset: Dataset
    clip_id: str
    view: int
    depth: bool = False

    def __call__(self) -> np.ndarray:
        try:
            read = self.dataset.depth if self.depth else self.dataset.frames
            return read(self.clip_id, [self.view])[0]
        except DatasetError as error:
            raise InputError(str(error)) from error


def read_dataset(tree: Tree) -> list[Clipped]:
    """Every accepted clip, sorted by object.

    Raises:
        DatasetError: a dataset that does not agree with itself.
        InputError: no accepted clip.
    """
    dataset = Dataset.open(tree.root)
    rows = list(dataset.clips(columns=_COLUMNS))
    if not rows:
        raise InputError(f"{tree.root}: found no accepted clip, expected at least one; see `mvv inspect`")
    clips = Counter(row["asset_id"] for row in rows)
    found = []
    for row in rows:
        object_id = row["asset_id"] if clips[row["asset_id"]] == 1 else row["clip_id"]
        ids = {name: row[name] for name in ("clip_id", "asset_id", "asset_sha256", "frames")}
        found.append(Clipped(item=_item(dataset, object_id, row), **ids))
    return sorted(found, key=lambda entry: entry.item.object_id)


def _item(dataset: Dataset, object_id: str, row: Mapping[str, Any]) -> Item:
    key, has_depth = row["clip_id"], "depth" in dataset.modalities
    cameras = dataset.sample(key)["cameras"]
    videos: dict[str, Video] = {}
    for view in range(row["views"]):
        video = _video(dataset, object_id, row, cameras, view, has_depth)
        if video.view in videos:
            raise InputError(
                f"{dataset.folder}: found two cameras of {key} at {video.view}, expected them a degree apart; render"
                " with fewer views"
            )
        videos[video.view] = video
    series = ["", "depth"] if has_depth else [""]
    hashes = [dataset.index(row["shard"], name)[key].sha256 for name in series]
    content = hashlib.sha256(json.dumps([object_id, row["fps"], *hashes]).encode()).hexdigest()
    return Item(object_id=object_id, videos=tuple(videos.values()), prompt=row["caption"], content=content)


def _video(
    dataset: Dataset, object_id: str, row: Mapping[str, Any], cameras: dict[str, Any], view: int, has_depth: bool
) -> Video:
    c2w = np.array(cameras["c2w"][view], np.float64)
    still = c2w.ndim == 2  # a camera that moves has one matrix a frame, and no one direction
    azimuth = (cameras["azimuth_deg"][view] - cameras["front_azimuth_deg"]) % 360 if still else None
    elevation = cameras["elevation_deg"][view] if still else None
    key = row["clip_id"]
    return Video(
        object_id=object_id, view=view_name(azimuth, elevation) if still else f"v{view:02d}", azimuth_deg=azimuth,
        elevation_deg=elevation, fps=row["fps"], source=f"{row['shard']}.tar: {key} view {view}", has_alpha=True,
        read=_Reader(dataset, key, view), c2w=c2w if still else None,
        K=np.array(cameras["K"][view], np.float64) if still else None,
        read_depth=_Reader(dataset, key, view, depth=True) if has_depth else None,
    )  # fmt: skip


def _read(tree: Tree, options: InputOptions) -> list[Item]:
    return [entry.item for entry in read_dataset(tree)]


IMPORTER = Importer(
    name="dataset",
    layout="dataset.json of a dataset made by `mvv build`",
    uses=frozenset(),
    find=lambda tree: "dataset.json" if "dataset.json" in tree.branches[tree.root].files else "",
    read=_read,
)
"""Our datasets."""
