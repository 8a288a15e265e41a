"""Samples for training: a map-style dataset over positions, reading only the members that a sample needs.

`order` says which clip is at a position, `draws` which part of it; here the part is read, checked, decoded and put on
its background. The same position gives the same sample in any process. Noise is not added here.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from manifests.clip import from_json
from manifests.errors import DatasetError, InputError, MvvError
from manifests.images import composite, decode_frame
from train.cameras import CONVENTIONS, camera_vectors
from train.config import DataConfig, ObjectiveConfig
from train.data.captions import words_of_names
from train.data.draws import Draw, draw, fitting_strides
from train.data.members import Damaged, Member, Place, Split
from train.data.order import Batches, Order
from train.data.ranges import Reader, Tables, is_remote

__all__ = ["ClipDataset", "collate", "loader"]


class ClipDataset(Dataset):
    """The clips of a split by position: ``dataset[position]`` is a sample, whatever process asks.

    A sample is a dict:

        position, epoch: int; position is -1 from `sample_of`.
        clip_id, caption: str; the caption is "" where it was dropped or there is none.
        drop_image: bool, train without image tokens.
        noise_seed: int, 63 bits, for the generator of timestep and noise.
        pixels: source rgb: (view, frame, 3, size, size) uint8 on the background, sRGB-encoded.
        moments: source latents: (view, frame, 2C, latent_h, latent_w), mean and log variance, as stored, unscaled.
        frame0: source latents: (view, 3, size, size) uint8, the first frames.
        camera: (view, 16) float32, see `train.cameras`; of the first frame where the camera moves.
        views, frames: int64, what was drawn of the clip.
        times_s: (frame,) float64, seconds inside the animation.
        skipped: ids of damaged clips that this one stands for; empty unless ``on_damage`` is skip.

    Args:
        dataset: folder, or URL of one that fsspec opens.
        config: which clips, which part of each, how read.
        objective: how often text and image are dropped.
        camera_convention: a key of `train.cameras.CONVENTIONS`.
        join_gap: see `train.data.ranges.Reader`.
        cache_dir: see `train.data.ranges.Tables`.

    Attributes:
        order: where each position leads.
        fingerprint: of the clips, their order and captions, see `train.data.members.Split`.
        num_views, num_frames: of the clips in the dataset.
        width: height and width of the stored images, pixels.
        modality: entry of dataset.json of what is read: rgb or latents.
        reader: what counts requests and bytes.

    Raises:
        InputError: another schema, a split without clips, too few views or frames, no camera convention of that name,
            or latents that are absent or were made for another size or background.
        DatasetError: tables that do not agree.
    """

    def __init__(
        self,
        dataset: str | Path,
        config: DataConfig,
        objective: ObjectiveConfig,
        *,
        camera_convention: str = "animate3d",
        join_gap: int | None = None,
        cache_dir: Path | None = None,
    ) -> None:
        if camera_convention not in CONVENTIONS:
            raise InputError(
                f'camera convention: found "{camera_convention}", expected one of {", ".join(CONVENTIONS)}; choose the'
                " one the weights were trained with"
            )
        self.config, self.objective, self.camera_convention = config, objective, camera_convention
        self.reader = Reader(join_gap)
        series = ["latents"] if config.source == "latents" else []
        # The clips of a block lie in that many shards; twice, because two blocks meet.
        cached = max(16, 2 * config.block_shards)
        self.split = Split(Tables(dataset, cache_dir), config.split, series=series, cached_indexes=cached)
        self.num_views, self.num_frames, self.width = self.split.num_views, self.split.num_frames, self.split.width
        self.fingerprint, self.modality = self.split.fingerprint, self.split.modalities[config.source]
        fitting_strides(config, num_views=self.num_views, num_frames=self.num_frames)
        if series:
            _check_latents(self.modality, config)
        self.order = Order(self.split.counts, seed=config.order_seed, block_shards=config.block_shards)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, position: int) -> dict[str, Any]:
        """The sample at a position, 0 or more, over any number of epochs.

        Raises:
            DatasetError: damaged bytes, naming tar, member and offset; or with ``on_damage`` skip no clip that reads.
            StorageError: storage does not answer.
        """
        epoch, index = self.order.locate(int(position))
        skipped: list[str] = []
        while True:
            clip_id = self.split.clip_id(index)
            try:
                return self._sample(index, epoch, int(position), self.draw(clip_id, epoch), skipped)
            except Damaged:
                skipped.append(clip_id)
                if self.config.on_damage == "raise" or len(skipped) == len(self):
                    raise
            index = (index + 1) % len(self)

    def draw(self, clip_id: str, epoch: int = 0) -> Draw:
        """What chance decides about a clip in an epoch."""
        shape = {"num_views": self.num_views, "num_frames": self.num_frames}
        return draw(self.config, self.objective, epoch=epoch, clip_id=clip_id, **shape)

    def sample_of(self, clip_id: str, epoch: int = 0, *, draw: Draw | None = None) -> dict[str, Any]:
        """The sample of one clip, for validation; damage always raises.

        Args:
            clip_id: a clip of the split.
            epoch: decides the draw.
            draw: what to take instead.

        Raises:
            InputError: no such clip.
            DatasetError, StorageError: as for a position.
        """
        return self._sample(self.split.find(clip_id), epoch, -1, draw or self.draw(clip_id, epoch), [])

    def _sample(self, index: int, epoch: int, position: int, drawn: Draw, skipped: list[str]) -> dict[str, Any]:
        place = self.split.place(index)
        latents = self.config.source == "latents"
        wanted = [(view, frame) for view in drawn.views for frame in (drawn.frames[:1] if latents else drawn.frames)]
        members = [place.sample(), *(place.frame(*image) for image in wanted)]
        data = self._read(place, members)
        told = from_json(data[0], members[0].where)
        size = self.config.size
        images = np.empty((len(wanted), 3, size, size), np.uint8)
        for image, member, encoded in zip(images, members[1:], data[1:], strict=True):
            image[:] = _on_background(_decoded(member, encoded, self.width), drawn.background, size)
        grid = torch.from_numpy(images).unflatten(0, (len(drawn.views), -1))
        content = {"moments": self._moments(index, drawn), "frame0": grid[:, 0]} if latents else {"pixels": grid}
        caption, name = self.split.texts(index)
        if not caption and self.config.captions == "name":
            caption = words_of_names(name, told["source"], told["animation"]["name"])
        return {
            "position": position,
            "epoch": epoch,
            "clip_id": place.clip_id,
            "caption": "" if drawn.drop_text else caption,
            "drop_image": drawn.drop_image,
            "noise_seed": drawn.noise_seed,
            **content,
            "camera": torch.from_numpy(self._camera(told["cameras"], drawn)),
            "views": torch.tensor(drawn.views),
            "frames": torch.tensor(drawn.frames),
            "times_s": torch.tensor([told["times_s"][frame] for frame in drawn.frames], dtype=torch.float64),
            "skipped": list(skipped),
        }

    def _read(self, place: Place, members: Sequence[Member]) -> list[bytes]:
        data = self.reader.read(place.path, [(member.offset, member.size) for member in members])
        for member, found in zip(members, data, strict=True):
            member.check(found)
        return data

    def _moments(self, index: int, drawn: Draw) -> torch.Tensor:
        place = self.split.place(index, "latents")
        members = [place.frame(view, frame) for view in drawn.views for frame in drawn.frames]
        grid = [_array(member, data) for member, data in zip(members, self._read(place, members), strict=True)]
        # Stored as images are, channels last.
        moments = torch.from_numpy(np.stack(grid)).permute(0, 3, 1, 2).contiguous()
        return moments.unflatten(0, (len(drawn.views), -1))

    def _camera(self, cameras: dict[str, Any], drawn: Draw) -> np.ndarray:
        c2w = np.array([cameras["c2w"][view] for view in drawn.views])
        still = c2w[:, drawn.frames[0]] if c2w.ndim == 4 else c2w
        return camera_vectors(still, cameras["front_azimuth_deg"], self.camera_convention)


def collate(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One batch of samples: tensors stacked, numbers and switches as tensors, text as a list.

    Returns:
        position, epoch, noise_seed: (batch,) int64; drop_image: (batch,) bool; clip_id, caption: lists of str;
        skipped: list of str, over the batch; all else (batch, ...) of the samples' types.
    """
    batch: dict[str, Any] = {}
    for name, first in samples[0].items():
        values = [sample[name] for sample in samples]
        if isinstance(first, torch.Tensor):
            batch[name] = torch.stack(values)
        elif name == "skipped":
            batch[name] = [clip_id for skipped in values for clip_id in skipped]
        else:
            batch[name] = values if isinstance(first, str) else torch.tensor(values)
    return batch


def loader(dataset: ClipDataset, batches: Batches, workers: int) -> DataLoader:
    """Batches in order, read ahead by worker processes.

    Args:
        dataset: the clips.
        batches: what this rank takes; one entry is one micro-batch.
        workers: processes; 0 reads in this one. Changes no batch.

    Returns:
        a `DataLoader` of `collate`'s dicts. It draws nothing from torch's global generator. Errors of ours come out of
        a worker with their own text.
    """
    how: dict[str, Any] = {}
    if workers:
        # Forking is safe while no thread of the parent holds a lock that a worker needs, and takes milliseconds.
        # Asynchronous backends of fsspec run a thread; theirs start anew, which takes seconds a worker.
        how = {"multiprocessing_context": "spawn" if _has_threads(dataset) else "fork", "prefetch_factor": 2}
    return _Loader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=collate,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else making an iterator would advance the global one
        **how,
    )


class _Loader(DataLoader):
    def __iter__(self) -> Iterator[dict[str, Any]]:
        try:
            yield from super().__iter__()
            return
        except MvvError as error:
            # torch puts the worker's traceback before the text; ours is complete without it.
            kind, told = type(error), str(error).rpartition(f"{type(error).__qualname__}: ")[2].strip()
            # Torch's error holds itself by its traceback, and with it the workers until some later garbage collection,
            # which then waits five seconds for each.
            error.__traceback__ = None
        raise kind(told)


def _has_threads(dataset: ClipDataset) -> bool:
    if not is_remote(dataset.split.tables.root):
        return False
    import fsspec

    return bool(fsspec.core.url_to_fs(dataset.split.tables.root)[0].async_impl)


def _check_latents(modality: dict[str, Any], config: DataConfig) -> None:
    made = modality["size"], tuple(map(float, modality["background"]))
    if made != (config.size, tuple(map(float, config.background))) or config.background_random:
        random = f" and --background-random {config.background_random}" if config.background_random else ""
        raise InputError(
            f"--source latents: found latents of {made[0]} px on {made[1]}, expected {config.size} px on"
            f" {config.background}{random}, as the config has it; set --size and --background to what they were made"
            " with and no random background, make others with `mvv latents`, or train with --source rgb"
        )


def _decoded(member: Member, data: bytes, width: int) -> np.ndarray:
    try:
        rgba = decode_frame(data, member.where)
    except DatasetError as error:
        raise Damaged(str(error)) from error
    if rgba.shape != (width, width, 4):
        raise Damaged(
            f"{member.where}: found an image {rgba.shape}, expected {(width, width, 4)} as clips.parquet says"
        )
    return rgba


def _array(member: Member, data: bytes) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise Damaged(f"{member.where}: found {error}, expected an npy array; make the latents again") from error


def _on_background(rgba: np.ndarray, background: Sequence[float], size: int) -> np.ndarray:
    """(3, size, size) uint8: the pixels of `composite`, computed only where an object's edge is.

    `composite` alone takes three times as long as the decoding.
    """
    if rgba.shape[:2] != (size, size):
        return composite(rgba, background, size=(size, size)).transpose(2, 0, 1)
    pixels = rgba.reshape(-1, 4).copy()
    behind = composite(np.zeros((1, 1, 4), np.uint8), background)[0, 0]
    alpha = pixels[:, 3].copy()
    np.copyto(pixels.view(np.uint32)[:, 0], np.append(behind, np.uint8(0)).view(np.uint32), where=alpha == 0)
    edge = np.flatnonzero((alpha > 0) & (alpha < 255))
    if edge.size:
        pixels[edge, :3] = composite(pixels[edge][None], background)[0]
    return pixels[:, :3].T.reshape(3, size, size)
