"""What `mvv sample` animates, as the first frames of evenly spaced views with their cameras.

An object is a clip or still of a dataset, whose frame 0 is taken, or a model file, which is rendered at rest. Nothing
here needs a network.
"""

from __future__ import annotations

import dataclasses
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manifests.cameras import angles_of
from manifests.dataset import Dataset, composite, find_clip
from manifests.errors import InputError

__all__ = ["MODEL_SUFFIXES", "ObjectViews", "open_object"]

MODEL_SUFFIXES = (".glb", ".gltf", ".obj")
ELEVATION_DEG = 15.0
"""Of the cameras around a model file: the middle of what `mv-video` draws from."""


@dataclass(frozen=True, kw_only=True)
class ObjectViews:
    """One object at rest.

    Attributes:
        name: clip id, or the model file's stem.
        source: where it came from, for the record.
        images: (view, 3, size, size) uint8, composited, sRGB-encoded.
        c2w: (view, 4, 4), normalised space.
        front_azimuth_deg: of the object in that space.
    """

    name: str
    source: str
    images: np.ndarray
    c2w: np.ndarray
    front_azimuth_deg: float

    def directions(self) -> list[tuple[float, float]]:
        """(azimuth relative to the front in [0, 360), elevation) of each camera, degrees."""
        found = [angles_of(c2w) for c2w in self.c2w]
        return [((azimuth - self.front_azimuth_deg) % 360, elevation) for azimuth, elevation, _ in found]


def open_object(text: str, *, views: int, size: int, background: tuple[float, float, float]) -> ObjectViews:
    """The object that ``--object`` names.

    Args:
        text: a model file; DATASET/CLIP or DATASET:CLIP with a clip id or the beginning of one; a dataset of one clip.
        views: how many, evenly spaced.
        size: height and width, pixels.
        background: sRGB-encoded 0 to 1.

    Raises:
        InputError: nothing of the kind is there, the clip has no such views, or the model cannot be rendered.
        DatasetError: a dataset that is not finished or is damaged.
    """
    path = Path(text)
    if path.suffix.lower() in MODEL_SUFFIXES and path.is_file():
        return _rendered(path, views, size, background)
    head, colon, tail = text.rpartition(":")
    places = [(path, ""), (path.parent, path.name), *([(Path(head), tail)] if colon and head else [])]
    for folder, clip in places:
        if (folder / "dataset.json").is_file():
            return _from_dataset(folder, clip, views, size, background)
    found = "a folder without a dataset.json" if path.is_dir() else "a file" if path.exists() else "nothing"
    raise InputError(
        f"--object: found {found} at {text}, expected a model ({', '.join(MODEL_SUFFIXES)}), DATASET/CLIP_ID, or a "
        "dataset of one clip; `mvv inspect DATASET` lists clips"
    )


def _from_dataset(
    folder: Path, clip: str, views: int, size: int, background: tuple[float, float, float]
) -> ObjectViews:
    dataset = Dataset.open(folder)
    if not clip and len(dataset) != 1:
        raise InputError(
            f"--object: found {len(dataset)} clips in {folder}, expected one; name one as {folder}/CLIP_ID, "
            "`mvv inspect` lists them"
        )
    clip_id = find_clip(dataset, clip) if clip else next(dataset.clips(columns=["clip_id"]))["clip_id"]
    sample = dataset.sample(clip_id)
    cameras = sample["cameras"]
    c2w = np.asarray(cameras["c2w"], float)
    if len(c2w) % views:
        raise InputError(
            f"--views: found {views} for {clip_id} with {len(c2w)}, expected a number that divides them, so that they "
            "are evenly spaced; give another one, or a model file, whose views are rendered"
        )
    chosen = range(0, len(c2w), len(c2w) // views)
    rgba = dataset.frames(clip_id, chosen, [0])[:, 0]
    return ObjectViews(
        name=clip_id,
        source=f"{folder.name}/{clip_id}",
        images=np.ascontiguousarray(composite(rgba, background, size=(size, size)).transpose(0, 3, 1, 2)),
        c2w=(c2w[:, 0] if c2w.ndim == 4 else c2w)[chosen],
        front_azimuth_deg=cameras["front_azimuth_deg"],
    )


def _rendered(path: Path, views: int, size: int, background: tuple[float, float, float]) -> ObjectViews:
    """A model file at rest, from a ring that begins at its front."""
    from manifests.config import CameraConfig, preset
    from pipelines.build import RunOptions, build

    demo = preset("demo")
    azimuths, elevations = tuple(k * 360 / views for k in range(views)), (ELEVATION_DEG,) * views
    camera = CameraConfig(views=views, size=size, azimuths_deg=azimuths, elevations_deg=elevations)
    config = dataclasses.replace(demo, camera=camera, motion=dataclasses.replace(demo.motion, frames=1))
    with tempfile.TemporaryDirectory(prefix="mvv-sample-") as folder:
        build(path, folder, config, RunOptions(workers=0), pose="bind")
        dataset = Dataset.open(folder)
        if len(dataset) != 1:
            rows = [*dataset.assets(), *dataset.clips(status=None)]
            why = next((f"{row['reason']}: {row['detail']}" for row in rows if row["reason"]), "no clip")
            raise InputError(f"--object: found {path} refused ({why}), expected a model that renders; mend the file")
        found = _from_dataset(Path(folder), "", views, size, background)
    return dataclasses.replace(found, name=path.stem, source=path.name)
