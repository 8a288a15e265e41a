"""`Recorded`: a clip of one of our datasets as a prior; its frames are the film, through its own cameras.

It knows nothing between its views, so it can be followed but not asked from elsewhere. The clip also says how the
subject has to be placed and posed to be the one that was filmed: `clip_placement`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from animate.priors.known import Known, Placement
from animate.shot import Footage, Shot
from manifests.dataset import Dataset, composite, find_clip
from manifests.errors import InputError

__all__ = ["Recorded", "clip_placement", "locate_clip"]

_SAME = 1e-3
"""Entries of cameras (units of the sphere) and of intrinsics (shares of the focal length) that count as one."""


def locate_clip(text: str) -> tuple[Dataset, str]:
    """The clip that ``DATASET/CLIP_ID`` or ``DATASET:CLIP_ID`` names, by its id, the beginning of one, or as the only.

    Raises:
        InputError: no dataset there, or no such clip.
        DatasetError: a dataset of another version.
    """
    path, (head, colon, tail) = Path(text), text.rpartition(":")
    places = [(path, ""), (path.parent, path.name), *([(Path(head), tail)] if colon and head else [])]
    for folder, clip in places:
        if (folder / "dataset.json").is_file():
            dataset = Dataset.open(folder)
            if not clip and len(dataset) != 1:
                raise InputError(
                    f"--prior clip:{text}: found {len(dataset)} clips, expected one; name it as clip:{text}/CLIP_ID,"
                    " `mvv inspect` lists them"
                )
            return dataset, find_clip(dataset, clip) if clip else next(dataset.clips(columns=["clip_id"]))["clip_id"]
    raise InputError(
        f"--prior clip:{text}: found no dataset.json there, expected clip:DATASET/CLIP_ID; `mvv inspect DATASET` lists"
        " clips"
    )


def clip_placement(dataset: Dataset, clip_id: str) -> Placement:
    """How the subject has to rest to be what frame 0 of a clip shows."""
    sample = dataset.sample(clip_id)
    return Placement(
        animation=sample["animation"]["index"],
        start_s=float(sample["times_s"][0]),
        center=np.asarray(sample["normalization"]["center"], np.float64),
        scale=float(sample["normalization"]["scale"]),
        front_azimuth_deg=float(sample["cameras"]["front_azimuth_deg"]),
    )


class Recorded(Known):
    """A recorded clip.

    Args:
        dataset: that it lies in.
        clip_id: which.
        name: as the user gave it.
        factor: pixels a latent position, in each direction.

    Raises:
        InputError: an object at rest, images that are not square, or cameras that move.
    """

    any_camera: ClassVar[bool] = False
    fps_free: ClassVar[bool] = False

    def __init__(self, dataset: Dataset, clip_id: str, *, name: str = "", factor: int = 1) -> None:
        super().__init__(name or f"clip:{clip_id}", factor=factor)
        self.dataset, self.clip_id = dataset, clip_id
        sample = dataset.sample(clip_id)
        cameras = sample["cameras"]
        self.clip_frames, self.fps = len(sample["times_s"]), float(sample["fps"])
        c2w, self._width = np.asarray(cameras["c2w"], np.float64), int(cameras["width"])
        for good, found, rule in (
            (self.clip_frames > 1, "an object at rest", "a clip of at least 2 frames"),
            (self._width == cameras["height"], f"{self._width} x {cameras['height']} pixels", "square images"),
            (c2w.ndim == 3, "cameras that move", "cameras that stand still"),
        ):
            if not good:
                raise InputError(f"--prior {self.name}: found {found}, expected {rule}; choose another clip")
        self.c2w = torch.from_numpy(c2w).float()
        self._K = torch.tensor(cameras["K"], dtype=torch.float64)

    def check(self, *, prompt: str, views: int, frames: int, size: int) -> None:
        """Also refuses more frames than the clip has, and a number of views that cannot be evenly spaced."""
        super().check(prompt=prompt, views=views, frames=frames, size=size)
        self._views(views)
        if frames > self.clip_frames:
            raise InputError(
                f"--prior {self.name}: found {frames} frames asked for, expected at most {self.clip_frames}, which the"
                " clip has; set the frames in the config"
            )

    def film(self, shot: Shot, *, seed: int, told: Any = None) -> Footage:
        """The clip's own frames through evenly spaced ones of its own cameras.

        Frames are those at the shot's times where the clip has them, else its first ones, at its own times. Only the
        number of views, the size, times and background of the shot count.
        """
        footage = self._read(self._views(shot.num_views), shot)
        if told is not None:
            told(1, 1)
        return footage

    def frames_at(self, times_s: Tensor) -> np.ndarray:
        """(F,) int64 frames of the clip for times from its frame 0: at these times where it has them, else the first.

        Raises:
            InputError: more times than the clip has frames.
        """
        count = len(times_s)
        if count > self.clip_frames:
            raise InputError(
                f"--prior {self.name}: found {count} frames asked for, expected at most {self.clip_frames}, which the"
                " clip has; set the frames in the config"
            )
        exact = times_s.cpu().numpy().astype(np.float64) * self.fps
        frames = np.rint(exact).astype(np.int64)
        there = np.abs(exact - frames).max() < _SAME and frames.min() >= 0 and frames.max() < self.clip_frames
        return frames if there else np.arange(count)

    def _filmed(self, shot: Shot) -> Footage:
        return self._read([self._nearest(c2w, K, shot.size) for c2w, K in zip(shot.c2w, shot.K, strict=True)], shot)

    def _views(self, count: int) -> list[int]:
        have = len(self.c2w)
        if not 0 < count <= have or have % count:
            raise InputError(
                f"--prior {self.name}: found {count} views asked for, expected a number that divides {have}, so that"
                " they are evenly spaced; set the views in the config"
            )
        return list(range(0, have, have // count))

    def _nearest(self, c2w: Tensor, K: Tensor, size: int) -> int:
        """The clip's view that is this camera.

        Raises:
            InputError: none is.
        """
        off = (self.c2w - c2w.cpu().float()).abs().amax((1, 2))
        focal = self._K * (size / self._width) - K.cpu().double()
        off = torch.maximum(off, (focal.abs().amax((1, 2)) / K[0, 0].item()).float())
        view = int(off.argmin())
        if off[view] > _SAME:
            raise InputError(
                f"--prior {self.name}: found a camera that the clip was not filmed through, expected one of its"
                f" {len(off)}; a recorded clip can be followed, but not refined from new views: leave that stage out,"
                " or take another prior"
            )
        return view

    def _read(self, views: list[int], shot: Shot) -> Footage:
        frames = self.frames_at(shot.times_s)
        rgba = self.dataset.frames(self.clip_id, views, frames.tolist())
        size, device = (shot.size, shot.size), shot.c2w.device
        images = composite(rgba, shot.background, size=size)
        # Coverage goes through the same filter as the colours do: white where it is opaque, on black.
        white = np.concatenate([np.full_like(rgba[..., :3], 255), rgba[..., 3:]], -1)
        masks = composite(white, (0.0, 0.0, 0.0), size=size)[..., :1]
        K = self._K[views].clone()
        K[:, :2] *= shot.size / self._width

        def tensor(pixels: np.ndarray) -> Tensor:
            return torch.from_numpy(pixels).to(device).movedim(-1, -3).float() / 255

        return Footage(
            images=tensor(images),
            masks=tensor(masks),
            c2w=self.c2w[views].to(device),
            K=K.float().to(device),
            times_s=torch.from_numpy(frames / self.fps),
            background=shot.background,
        )
