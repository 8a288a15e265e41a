"""One object scored: each video decoded once, one pass per backbone over its views and controls, all metrics on top.

Views are taken in groups whose pixels fit a budget, so that memory is bounded by one group, not by the object; what a
group gives does not depend on how groups were cut.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image

from eval import guards
from eval.controls import describe, make_controls
from eval.extractor import Clip, Extractor, Features
from eval.inputs import FirstFrame
from eval.items import Item, Video
from eval.metric import Metric, NotScored, Score, Subject
from eval.protocols import Protocol
from eval.runs import METHOD
from manifests.errors import DatasetError, InputError
from manifests.images import composite

__all__ = ["MEDIA_SIZE", "Scored", "Scorer", "set_rows"]

MEDIA_SIZE = 192
"""Longer side of a frame in the strips that pages show, pixels."""
_GROUP_BYTES = 768 << 20
_FLOW = "flow-dis"
"""Guards read it whatever the metrics."""
_BACKGROUND_TOLERANCE = 12
_OBJECT_VARIANTS = (METHOD, "frozen", "first_frame")
"""What object-level metrics are computed for: the other controls differ from view to view by design."""


@dataclass(kw_only=True)
class Scored:
    """What came of one object; merged by `eval.run`.

    Attributes:
        rows: table name of `eval.runs` -> rows.
        media: view -> bytes of the strip of small frames.
        features: (view, variant) -> extractor name -> features that set-level metrics read.
        controls: control -> what it was made of, one sentence.
        seconds: extractor name (and ``decode``, ``controls``, ``metrics``, ``guards``) -> seconds.
    """

    rows: dict[str, list[dict[str, Any]]] = field(
        default_factory=lambda: {"videos": [], "frames": [], "guards": [], "inputs": []}
    )
    media: dict[str, bytes] = field(default_factory=dict)
    features: dict[tuple[str, str], dict[str, Features]] = field(default_factory=dict)
    controls: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """Scores objects with loaded extractors.

    Attributes:
        rules: the protocol.
        background: behind frames and references, 0..255; the protocol's unless the user chose another.
        metrics: to compute.
        extractors: name -> loaded, all that the metrics and the guards read.
        seed: of the noisy control.
        controls: also score the controls.
    """

    rules: Protocol
    background: tuple[int, int, int]
    metrics: Sequence[Metric]
    extractors: Mapping[str, Extractor]
    seed: int = 0
    controls: bool = True

    def score(self, item: Item) -> Scored:
        """Everything about one object. Videos that cannot be read become rows with the reason."""
        out = Scored()
        kept: dict[str, list[Subject]] = {variant: [] for variant in _OBJECT_VARIANTS}
        whole = [metric for metric in self.metrics if metric.card.level == "object"]
        sets = {name for m in self.metrics if m.card.level == "set" for name in m.extractors}
        orbit = item.orbit() if item.orbit is not None and self.controls else None
        for group in self._groups(item, out):
            subjects = self._subjects([clip for _, clip in group], orbit, out)
            for (place, variant), subject in subjects.items():
                video = group[place][0]
                on_protocol = not _departures(out, video.view)
                began = time.perf_counter()
                for metric in self.metrics:
                    if metric.card.level == "video":
                        self._row(out, video.view, variant, metric, subject, on_protocol, item.object_id)
                out.seconds["metrics"] += time.perf_counter() - began
                self._guards(out, video, variant, subject, item.object_id)
                if whole and variant in kept:
                    kept[variant].append(subject)
                if sets:
                    out.features[video.view, variant] = {name: subject.features[name] for name in sets}
        for metric in whole:
            for variant, subjects_of in kept.items():
                if subjects_of:
                    good = all(not row["departures"] for row in out.rows["inputs"])
                    self._row(out, "", variant, metric, subjects_of, good, item.object_id)
        return out

    # -- decoding -------------------------------------------------------------------------------------------------

    def _groups(self, item: Item, out: Scored) -> Iterator[list[tuple[Video, Clip]]]:
        """Decoded videos, in groups within the budget."""
        group: list[tuple[Video, Clip]] = []
        size = 0
        for video in item.videos:
            began = time.perf_counter()
            clip = self._decode(item, video, out)
            out.seconds["decode"] += time.perf_counter() - began
            if clip is None:
                continue
            # The method, its noisy control and its orbit hold pixels of their own; the frozen ones repeat one frame.
            cost = clip.frames.nbytes * (3 if self.controls else 1) + (0 if clip.alpha is None else clip.alpha.nbytes)
            if group and size + cost > _GROUP_BYTES:
                yield group
                group, size = [], 0
            group.append((video, clip))
            size += cost
        if group:
            yield group

    def _decode(self, item: Item, video: Video, out: Scored) -> Clip | None:
        row = {"object_id": item.object_id, "view": video.view, "source": video.source, "sha256": "", "frames": 0,
               "height": 0, "width": 0, "fps": video.fps, "departures": [], "reason": ""}  # fmt: skip
        out.rows["inputs"].append(row)
        try:
            rgba = video.read()
            reference = _reference(item, video, rgba)
            truth = item.truths[video.view]() if video.view in item.truths else None
            depth = video.read_depth() if video.read_depth is not None else None
        except (InputError, DatasetError) as error:
            row["reason"] = str(error)
            for metric in self.metrics:
                if metric.card.level == "video":
                    out.rows["videos"].append(
                        _video_row(
                            item.object_id, video.view, METHOD, metric, None, f"could not be read: {error}", False
                        )
                    )
            return None
        count, height, width = rgba.shape[:3]
        digest = hashlib.sha256(np.array(rgba.shape, np.int64).tobytes())
        digest.update(np.ascontiguousarray(rgba).data)
        row |= {"sha256": digest.hexdigest(), "frames": count, "height": height, "width": width}
        frames = self._put_on(rgba, None)
        row["departures"] = self.rules.departures(video, rgba.shape) + self._background_departures(video, frames)
        out.media[video.view] = _strip(frames)
        size = (height, width)
        return Clip(
            frames=frames,
            alpha=np.ascontiguousarray(rgba[..., 3]) if video.has_alpha else None,
            reference=None if reference is None else self._put_on(reference, size),
            reference_alpha=None if reference is None else _resized_alpha(reference, size),
            truth=None if truth is None else self._put_on(truth, size),
            truth_alpha=None if truth is None else _resized_alpha(truth, size),
            depth=depth, prompt=item.prompt, fps=video.fps, background=self.background, c2w=video.c2w, K=video.K,
            azimuth_deg=video.azimuth_deg, elevation_deg=video.elevation_deg, object_id=item.object_id, view=video.view,
        )  # fmt: skip

    def _put_on(self, rgba: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
        return composite(rgba, np.array(self.background) / 255, size=size)

    def _background_departures(self, video: Video, frames: np.ndarray) -> list[str]:
        found = []
        if self.background != self.rules.background:
            found.append(f"background {self.background}, protocol {self.rules.name} has {self.rules.background}")
        if not video.has_alpha:
            edge = np.concatenate([frames[0, 0], frames[0, -1], frames[0, :, 0], frames[0, :, -1]])
            seen = tuple(int(v) for v in np.median(edge, axis=0))
            if max(abs(a - b) for a, b in zip(seen, self.rules.background, strict=True)) > _BACKGROUND_TOLERANCE:
                found.append(
                    f"background {seen} in the picture, protocol {self.rules.name} has {self.rules.background}"
                )
        return found

    # -- features and values --------------------------------------------------------------------------------------

    def _subjects(self, group: Sequence[Clip], orbit: np.ndarray | None, out: Scored) -> dict[tuple[int, str], Subject]:
        """(place in the group, variant) -> subject."""
        clips: dict[tuple[int, str], Clip] = {}
        began = time.perf_counter()
        for place, clip in enumerate(group):
            clips[place, METHOD] = clip
            if self.controls:
                out.controls = describe(clip, orbit=orbit)
                for variant, control in make_controls(clip, orbit=orbit, seed=self.seed).items():
                    clips[place, variant] = control
        out.seconds["controls"] += time.perf_counter() - began
        features: dict[tuple[int, str], dict[str, Features]] = {key: {} for key in clips}
        for name, extractor in self.extractors.items():
            began = time.perf_counter()
            for key, found in zip(clips, extractor.extract(list(clips.values())), strict=True):
                features[key][name] = found
            out.seconds[name] += time.perf_counter() - began
        return {key: Subject(clip=clip, features=features[key]) for key, clip in clips.items()}

    def _row(
        self, out: Scored, view: str, variant: str, metric: Metric, subject: Any, on_protocol: bool, object_id: str
    ) -> None:
        score, reason = _score_one(metric, subject)
        out.rows["videos"].append(_video_row(object_id, view, variant, metric, score, reason, on_protocol))
        if score is not None and score.frames is not None:
            who = {"object_id": object_id, "view": view, "variant": variant, "metric": metric.card.name}
            out.rows["frames"] += [
                who | {"frame": place, "value": float(value)} for place, value in enumerate(score.frames)
            ]

    def _guards(self, out: Scored, video: Video, variant: str, subject: Subject, object_id: str) -> None:
        began = time.perf_counter()
        who = {"object_id": object_id, "view": video.view, "variant": variant}
        found = guards.check(subject.clip, subject.features[_FLOW])
        out.rows["guards"] += [who | guard.row() for guard in found]
        out.seconds["guards"] += time.perf_counter() - began


def _score_one(metric: Metric, subject: Any) -> tuple[Score | None, str]:
    """The score, or None with the reason.

    Raises:
        AssertionError: the metric gave something that is not finite, which is a bug of ours.
    """
    clips = [subject.clip] if isinstance(subject, Subject) else [entry.clip for entry in subject]
    short = [clip for clip in clips if clip.num_frames < metric.card.min_frames]
    if metric.card.level != "set" and short:
        return None, f"found {short[0].num_frames} frames, needs at least {metric.card.min_frames}; give longer videos"
    try:
        score = metric.score(subject)
    except NotScored as error:
        return None, str(error)
    assert np.isfinite(score.value), f"{metric.card.name} gave {score.value}"
    return score, ""


def set_rows(
    metrics: Sequence[Metric], features: Mapping[tuple[str, str, str], Mapping[str, Features]]
) -> list[dict[str, Any]]:
    """Rows of the set-level metrics.

    Args:
        metrics: those of level ``set`` are used.
        features: (object, view, variant) -> extractor name -> features.
    """
    rows = []
    for metric in (metric for metric in metrics if metric.card.level == "set"):
        for variant in sorted({key[2] for key in features}):
            keys = sorted(key for key in features if key[2] == variant)
            empty = Clip(frames=np.zeros((0, 1, 1, 3), np.uint8))
            subjects = [
                Subject(clip=replace(empty, object_id=key[0], view=key[1]), features=features[key]) for key in keys
            ]
            score, reason = _score_one(metric, subjects)
            rows.append(_video_row("", "", variant, metric, score, reason, True))
    return rows


def _departures(out: Scored, view: str) -> list[str]:
    """Departures of a view that was decoded."""
    return next(row["departures"] for row in out.rows["inputs"] if row["view"] == view)


def _reference(item: Item, video: Video, rgba: np.ndarray) -> np.ndarray | None:
    """(height, width, 4) of the object at rest; a first frame is not decoded a second time."""
    read = item.references.get(video.view)
    if isinstance(read, FirstFrame) and read.video == video.read:
        return rgba[0]
    return None if read is None else read()


def _video_row(
    object_id: str, view: str, variant: str, metric: Metric, score: Score | None, reason: str, on_protocol: bool
) -> dict[str, Any]:
    extra = {} if score is None else {name: float(value) for name, value in sorted(score.extra.items())}
    return {
        "object_id": object_id, "view": view, "variant": variant, "metric": metric.card.name,
        "value": None if score is None else float(score.value), "reason": reason, "on_protocol": on_protocol,
        "extra": json.dumps(extra),
    }  # fmt: skip


def _resized_alpha(rgba: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Alpha at another size, by the same filter as the colours: that of white on black."""
    alpha = rgba[..., 3:]
    if rgba.shape[-3:-1] == size:
        return np.ascontiguousarray(alpha[..., 0])
    mask = np.concatenate([np.full_like(alpha, 255).repeat(3, axis=-1), alpha], axis=-1)
    return np.ascontiguousarray(composite(mask, (0.0, 0.0, 0.0), size=size)[..., 0])


def _strip(frames: np.ndarray) -> bytes:
    """Small frames one above the other, WebP."""
    height, width = frames.shape[1:3]
    scale = min(1.0, MEDIA_SIZE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    # WebP ends at 16383 pixels; longer clips are thinned evenly.
    keep = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), 16383 // size[1])).round().astype(int))
    small = [np.asarray(Image.fromarray(frames[k]).resize(size, Image.Resampling.LANCZOS)) for k in keep]
    out = io.BytesIO()
    Image.fromarray(np.concatenate(small)).save(out, "WEBP", quality=82, method=4)
    return out.getvalue()
