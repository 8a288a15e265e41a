"""One clip from pose to staged part: every frame of every view, encoded, measured and written in tar order.

Frames are rendered frame-major (another view of the same pose costs no new geometry) and stored view-major (the tar's
order); encoded images wait in a spooled file, so a clip's memory is bounded. Runs only inside the child process.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from manifests.clip import frame_name, json_name, to_json, validate
from manifests.config import BuildConfig
from manifests.gltf import Poser
from manifests.images import encode_frame, encoder_version
from manifests.seeds import integer
from manifests.tar import write_part
from render.quality import Quality
from render.scene import Scene, bpy_version
from render.series import SERIES, encode_depth, encode_normals

__all__ = ["render_clip"]

_SPOOL_BYTES = 64 << 20


def render_clip(
    poser: Poser,
    sample: dict[str, Any],
    animation: int | None,
    offsets: list[list[float]],
    config: BuildConfig,
    *,
    scene: Scene | None,
    threads: int,
    folder: Path,
    out: dict[str, Path],
    progress: Callable[[str], None],
) -> Scene:
    """Render a clip and write its parts.

    Args:
        poser: the asset.
        sample: the clip's JSON as planned; ``quality`` and the versions in ``render`` are filled in.
        animation: which one poses it; None for the nodes at rest.
        offsets: (F, 3) root travel to take out, or empty.
        config: of the build.
        scene: what the last clip of this asset left, under the same lights, or None.
        threads: of the renderer.
        folder: private temporary folder.
        out: series ("" for RGB, ``depth``, ``normals``) -> part to write; RGB is written last.
        progress: told the phase before each piece of work that has a deadline.

    Returns:
        the scene, for the next clip of the asset.
    """
    cameras, render = sample["cameras"], sample["render"]
    width, height = cameras["width"], cameras["height"]
    c2w, K = np.array(cameras["c2w"]), np.array(cameras["K"])
    num_views, num_frames = len(K), len(sample["times_s"])
    quality, wanted = Quality(), [series for series in SERIES if series in out]
    with _Spools(["", *wanted]) as spools:
        for frame in range(num_frames):
            positions, normals = _posed(poser, sample, animation, offsets, frame)
            if scene is None:
                scene = Scene(poser, positions, normals, config.render, threads=threads, folder=folder)
                scene.light(render["lights"], render["world"])
            else:
                scene.pose(positions, normals)
            for view in range(num_views):
                progress(f"frame {frame}")
                camera = c2w[view] if c2w.ndim == 3 else c2w[view, frame]
                rgba = scene.image(camera, K[view], width, height, integer(render["seed"], view, frame))
                quality.add(view, rgba)
                spools.put("", view, frame, encode_frame(rgba, method=config.pack.webp_method))
                if wanted:
                    depth, normal = scene.geometry(camera, K[view], width, height)
                    if "depth" in out:
                        spools.put("depth", view, frame, encode_depth(depth))
                    if "normals" in out:
                        spools.put("normals", view, frame, encode_normals(normal))
        progress("write")
        sample["quality"] = quality.figures()
        render["bpy"], render["encoder"] = bpy_version(), encoder_version()
        validate(sample)
        key = sample["clip_id"]
        for series in wanted:
            suffix = SERIES[series]["suffix"]
            write_part(out[series], spools.members(series, key, suffix, num_views, num_frames))
        write_part(out[""], _with_json(sample, spools.members("", key, "webp", num_views, num_frames)))
    assert scene is not None
    return scene


def _posed(
    poser: Poser, sample: dict[str, Any], animation: int | None, offsets: list[list[float]], frame: int
) -> tuple[list[np.ndarray], list[np.ndarray | None]]:
    """Positions in normalised space and unit normals of one frame."""
    normalization, time_s = sample["normalization"], np.array([sample["times_s"][frame]])
    shift = np.array(normalization["center"]) + (np.array(offsets[frame]) if offsets else 0.0)
    scale = normalization["scale"]
    positions = [
        ((part[0].astype(np.float64) - shift) * scale).astype(np.float32) for part in poser.positions(animation, time_s)
    ]
    return positions, [None if part is None else part[0] for part in poser.normals(animation, time_s)]


def _with_json(sample: dict[str, Any], frames: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, bytes]]:
    yield json_name(sample["clip_id"]), to_json(sample)
    yield from frames


class _Spools:
    """Encoded images by (view, frame), on disk once they are many."""

    def __init__(self, series: list[str]) -> None:
        self._files = {name: tempfile.SpooledTemporaryFile(_SPOOL_BYTES) for name in series}  # noqa: SIM115
        self._places: dict[tuple[str, int, int], tuple[int, int]] = {}

    def __enter__(self) -> _Spools:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def put(self, series: str, view: int, frame: int, data: bytes) -> None:
        file = self._files[series]
        file.seek(0, io.SEEK_END)
        self._places[series, view, frame] = (file.tell(), len(data))
        file.write(data)

    def members(self, series: str, key: str, suffix: str, views: int, frames: int) -> Iterator[tuple[str, bytes]]:
        """(name, bytes), view-major."""
        for view in range(views):
            for frame in range(frames):
                offset, size = self._places[series, view, frame]
                self._files[series].seek(offset)
                yield frame_name(key, view, frame, suffix), self._files[series].read(size)
