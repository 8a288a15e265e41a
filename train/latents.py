"""The cache of latents: a parallel series of a dataset with what a VAE makes of every frame, encoded once.

Members are ``KEY.v00_f000.npy``, float16 (height, width, 2C): the mean and then the log variance of each latent, not
scaled, so that training can still draw. What was encoded (VAE, size, background) stands in dataset.json. A worker makes
one shard at a time; who runs the workers is not decided here. A shard is made again until its row is committed.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from manifests import clip as clips
from manifests.config import differences
from manifests.dataset import Dataset, read_manifest
from manifests.errors import DatasetError, InputError, MvvError, refusal
from manifests.finish import seal
from manifests.images import composite
from manifests.publish import write_bytes
from manifests.shards import commit, index_path, read_shards, shard_path, write_shard
from manifests.tables import iter_rows
from manifests.tar import write_part
from train.codec import codec_sha256, load_codec
from train.conditions import encode_moments, spatial_factor

__all__ = ["SERIES", "WORK", "LatentsWorker", "begin", "describe", "encode_frames", "end", "waiting"]

SERIES = "latents"
"""Name of the series and of the modality."""
WORK = ".latents"
"""Folder in the dataset for what is only needed while the series is being made."""

_DECIDES = ("vae_sha256", "size", "background", "channels", "height", "width", "scaling_factor")


def describe(codec: nn.Module, size: int, background: Sequence[float]) -> dict[str, Any]:
    """The modality's entry in dataset.json.

    Args:
        codec: see `train.codec.load_codec`.
        size: height and width that the images are resized to, pixels.
        background: behind the object, sRGB-encoded 0 to 1.

    Raises:
        InputError: a size that the codec does not take, or no colour.
    """
    import diffusers

    factor = spatial_factor(codec)
    if size < factor or size % factor:
        raise InputError(f"--size: found {size}, expected a multiple of {factor}, which this VAE makes one latent of")
    if len(background) != 3 or not all(0 <= value <= 1 for value in background):
        raise InputError(f"--background: found {tuple(background)}, expected three values from 0 to 1")
    return {
        "series": SERIES,
        "suffix": "npy",
        "dtype": "float16",
        "channels": 2 * codec.config.latent_channels,
        "unit": "mean, then log variance of the VAE's latents; not scaled",
        "height": size // factor,
        "width": size // factor,
        "size": size,
        "background": [float(value) for value in background],
        "vae": type(codec).__name__,
        "vae_sha256": codec_sha256(codec),
        "scaling_factor": float(codec.config.scaling_factor),
        "tools": {"torch": torch.__version__, "diffusers": diffusers.__version__},
    }


def encode_frames(codec: nn.Module, rgba: np.ndarray, size: int, background: Sequence[float]) -> np.ndarray:
    """What a codec makes of images over a background.

    Args:
        codec: see `train.codec.load_codec`; on the device to work on.
        rgba: (frame, height, width, 4) uint8, straight alpha, sRGB-encoded.
        size: height and width to resize to, pixels; premultiplied and antialiased.
        background: sRGB-encoded 0 to 1.

    Returns:
        (frame, latent_h, latent_w, 2C) float16: mean, log variance.

    Raises:
        InputError: values that float16 does not hold, or images of another shape.
    """
    images = torch.from_numpy(composite(rgba, background, size=(size, size))).permute(0, 3, 1, 2)
    # By the size alone: how many are encoded at a time may change the last bits.
    moments = encode_moments(codec, images, chunk=min(64, max(1, 2**20 // size**2)))
    result = moments.permute(0, 2, 3, 1).to(torch.float16).cpu().numpy()
    if not np.isfinite(result).all():
        raise InputError(
            f"VAE: found {(~np.isfinite(result)).sum()} values that are no number or do not fit float16, expected none;"
            " check the VAE, latents are usually within +-30"
        )
    return result


class LatentsWorker:
    """Encodes shards of one dataset; made cheaply, the VAE is loaded by the first call. Holds no process.

    On a CPU it works on one thread, because the number of threads changes the last bits; use several workers instead.

    Args:
        folder: the dataset, as the worker's machine sees it; read, and written to.
        vae: folder of the VAE.
        modality: what `describe` said when the work was planned.
        device: cpu, cuda, cuda:1 ..., or auto.
    """

    def __init__(self, folder: str, vae: str, modality: dict[str, Any], device: str = "auto") -> None:
        self._folder, self._vae, self._modality, self._device = Path(folder), vae, modality, device
        self._codec: nn.Module | None = None
        self._dataset: Dataset | None = None

    def call(self, method: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Encodes one shard: ``arguments`` has its name as ``shard``.

        Returns:
            ``{"ok": {"row", "images"}}``, the row for `manifests.shards.commit`, or ``{"error": exception}``.
        """
        assert method == "encode", f"a worker for latents was asked for {method!r}"
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return {"ok": self._encode(**arguments)}
        except MvvError as error:
            return {"error": error}
        except OSError as error:
            told = refusal(error)
            if told is None:
                raise
            return {"error": told}
        finally:
            torch.set_num_threads(threads)

    def close(self) -> None:
        """Lets go of the VAE."""
        self._codec = None

    def pids(self) -> tuple[int | None, ...]:
        """Of the worker."""
        return (os.getpid(),)

    def _open(self) -> tuple[Dataset, nn.Module]:
        if self._codec is None or self._dataset is None:
            device = self._device
            if device == "auto":
                device = "cuda" if torch.cuda.is_available() else "cpu"
            codec = load_codec(self._vae)
            found = codec_sha256(codec)
            if found != self._modality["vae_sha256"]:
                expected = self._modality["vae_sha256"][:12]
                raise InputError(
                    f"{self._vae}: found a VAE of SHA-256 {found[:12]}, expected {expected}, which the work began with;"
                    " every machine has to see the same folder"
                )
            self._codec, self._dataset = codec.to(device), Dataset.open(self._folder)
        return self._dataset, self._codec

    def _encode(self, shard: str) -> dict[str, Any]:
        dataset, codec = self._open()
        images = 0
        (self._folder / WORK).mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder / WORK, prefix=f"{shard}-") as staging:
            parts = []
            for number, clip_id in enumerate(dataset.index(shard)):
                parts.append(Path(staging) / f"{number:05d}.part")
                members = list(self._members(dataset, codec, clip_id))
                write_part(parts[-1], members)
                images += len(members)
            return {"row": write_shard(self._folder, shard, parts, series=SERIES), "images": images}

    def _members(self, dataset: Dataset, codec: nn.Module, clip_id: str) -> Iterator[tuple[str, bytes]]:
        size, background = self._modality["size"], self._modality["background"]
        for view in range(clips.num_views(dataset.sample(clip_id))):
            moments = encode_frames(codec, dataset.frames(clip_id, [view])[0], size, background)
            for frame, values in enumerate(moments):
                out = io.BytesIO()
                np.save(out, np.ascontiguousarray(values), allow_pickle=False)
                yield clips.frame_name(clip_id, view, frame, "npy"), out.getvalue()


def begin(folder: Path | str, modality: dict[str, Any]) -> dict[str, Any]:
    """Notes what a series is made of, or compares with what it was begun with; call it holding the dataset's lock.

    Returns:
        the modality to go on with: that of the series where it was begun before.

    Raises:
        InputError: the series is there, or was begun, with another VAE, size or background, naming what differs.
    """
    folder = Path(folder)
    path = folder / WORK / "state.json"
    before = read_manifest(folder)["modalities"].get(SERIES)
    if before is None and path.exists() and any(row["series"] == SERIES for row in read_shards(folder)):
        before = json.loads(path.read_bytes())
    _sweep(folder)
    if before is None:
        write_bytes(path, json.dumps(modality, indent=1, sort_keys=True).encode())
        return modality
    changed = differences(*({name: entry.get(name, "absent") for name in _DECIDES} for entry in (modality, before)))
    if changed:
        raise InputError(
            f"{folder}: found the series {SERIES} made otherwise ({'; '.join(changed)}), expected the same; give the "
            "same options, or --out another folder"
        )
    return before


def waiting(folder: Path | str) -> list[tuple[str, int]]:
    """(shard, clips) of the shards whose latents are not committed, were removed, or are of other clips by now."""
    folder = Path(folder)
    rows = read_shards(folder)
    done = {row["shard"] for row in rows if row["series"] == SERIES and _is_whole(folder, row)}
    return [(row["shard"], row["clips"]) for row in rows if row["series"] == "" and row["shard"] not in done]


def end(folder: Path | str, modality: dict[str, Any], rows: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
    """Commits the last rows, describes the series in dataset.json, seals the dataset and clears up.

    Raises:
        DatasetError: a shard without its latents.
    """
    folder = Path(folder)
    commit(folder, list(rows))
    if left := waiting(folder):
        raise DatasetError(f"{folder}: found no latents of {left[0][0]}, expected those of every shard; go on with it")
    manifest = read_manifest(folder)
    manifest["modalities"] = {**manifest["modalities"], SERIES: modality}
    sealed = seal(folder, manifest)
    (folder / WORK / "state.json").unlink(missing_ok=True)
    return sealed


def _is_whole(folder: Path, row: dict[str, Any]) -> bool:
    shard = row["shard"]
    tar, index = shard_path(folder, shard, SERIES), index_path(folder, shard, SERIES)
    there = tar.exists() and tar.stat().st_size == row["bytes"] and index.exists()
    return there and _clip_ids(folder, shard, SERIES) == _clip_ids(folder, shard, "")


def _clip_ids(folder: Path, shard: str, series: str) -> list[str]:
    return [row["clip_id"] for row in iter_rows(index_path(folder, shard, series), ["clip_id"])]


def _sweep(folder: Path) -> None:
    """What killed workers left."""
    for path in (folder / WORK).glob("*-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
