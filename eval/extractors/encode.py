"""Images through a network, each distinct one once, in batches across all clips of an object.

A frozen copy repeats one frame, a copy of the first frame another, and every variant of a view has the same reference:
of an object's images often fewer than half are distinct.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from crc32c import crc32c

from eval.extractor import Clip, Features
from eval.extractors.passes import batches, full_precision

__all__ = ["distinct_images", "encode", "encode_clips"]

Encoder = Callable[[np.ndarray], torch.Tensor]
"""(image, height, width, 3) uint8 -> (image, feature)."""


def distinct_images(images: Sequence[np.ndarray]) -> tuple[list[np.ndarray], np.ndarray]:
    """Images without repetition, in order of first appearance.

    Args:
        images: arrays of any shapes, compared by shape and values.

    Returns:
        The distinct ones; and for each image given its place among them, (image,).
    """
    found: list[np.ndarray] = []
    alike: dict[tuple[tuple[int, ...], int], list[int]] = {}
    places = np.empty(len(images), int)
    for k, image in enumerate(images):
        # The checksum only finds candidates. It costs a twentieth of a hash that needs no comparison: at 1024 px
        # hashing the frames would take longer than the network does on a GPU.
        image = np.ascontiguousarray(image)
        candidates = alike.setdefault((image.shape, crc32c(image.reshape(-1).data)), [])
        place = next((j for j in candidates if np.array_equal(found[j], image)), None)
        if place is None:
            place = len(found)
            candidates.append(place)
            found.append(image)
        places[k] = place
    return found, places


def encode(images: Sequence[np.ndarray], encoder: Encoder, batch_size: int) -> np.ndarray:
    """Features of images, (image, feature) float32.

    Args:
        images: (height, width, 3) uint8 each; sizes may differ.
        encoder: is given images of one size at a time.
        batch_size: images a call.
    """
    found, places = distinct_images(images)
    by_shape: dict[tuple[int, ...], list[int]] = {}
    for k, image in enumerate(found):
        by_shape.setdefault(image.shape, []).append(k)
    features: dict[int, np.ndarray] = {}
    for members in by_shape.values():
        for batch in batches(members, batch_size=batch_size):
            with full_precision():
                rows = encoder(np.stack([found[k] for k in batch])).float().cpu().numpy()
            features.update(zip(batch, rows, strict=True))
    return np.stack([features[k] for k in places])


def encode_clips(
    clips: Sequence[Clip], frame_encoder: Encoder, reference_encoder: Encoder | None, batch_size: int
) -> list[Features]:
    """Of each clip ``frames`` (frame, feature), and ``reference`` (feature,) where there is one and its encoder."""
    frames = [frame for clip in clips for frame in clip.frames]
    shown = [k for k, clip in enumerate(clips) if clip.reference is not None and reference_encoder is not None]
    references = [clips[k].reference for k in shown]
    if reference_encoder == frame_encoder:
        # A frozen copy's frame is its reference: one pass serves both.
        both = encode([*frames, *references], frame_encoder, batch_size)
        frame_rows, reference_rows = both[: len(frames)], both[len(frames) :]
    else:
        frame_rows = encode(frames, frame_encoder, batch_size)
        reference_rows = encode(references, reference_encoder, batch_size) if shown else ()
    ends = np.cumsum([clip.num_frames for clip in clips])
    found: list[Features] = [{"frames": rows} for rows in np.split(frame_rows, ends[:-1])]
    for k, row in zip(shown, reference_rows, strict=True):
        found[k]["reference"] = row
    return found
