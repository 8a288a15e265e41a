"""Motion smoothness: does a network that draws the frame halfway between two others draw the one that is there?"""

from __future__ import annotations

import numpy as np

from eval.cards import Card
from eval.metric import Metric, NotScored, Score, Subject

__all__ = ["METRICS", "drawn_errors", "smoothness"]


def drawn_errors(subject: Subject, name: str) -> np.ndarray:
    """A feature of ``amt-s``, (odd frames,) in grey levels; None of the values is missing.

    Raises:
        NotScored: fewer than three frames, frames too small for the network, or no alpha where the feature needs it.
    """
    clip, features = subject.clip, subject.features["amt-s"]
    if clip.num_frames < 3:
        raise NotScored(f"found {clip.num_frames} frames, expected at least 3; give a longer video")
    if "error" not in features:
        height, width = clip.size
        raise NotScored(
            f"found frames of {width}x{height}, expected at least 113 pixels a side, below which the network divides by"
            " zero; give larger frames"
        )
    if name not in features:
        raise NotScored(
            "found no transparency that tells the object from the background, expected alpha; give frames with alpha"
        )
    errors = features[name]
    if np.isnan(errors).any():
        raise NotScored(
            f"found no object in {np.isnan(errors).sum()} of {len(errors)} triples of frames, expected opaque pixels"
            " throughout; see the guard subject-lost"
        )
    return errors


def smoothness(errors: np.ndarray) -> Score:
    """1 - mean error / 255."""
    frames = 1 - errors / 255
    return Score(value=float(frames.mean()), frames=frames)


def _motion_smoothness(subject: Subject) -> Score:
    return smoothness(drawn_errors(subject, "error"))


_CARD = Card(
    id="motion_smoothness", version="vbench", title="Smooth",
    formula="1 - mean_k mean_pixels,channels |floor(255 * AMT(x_2k, x_2k+2)) - x_2k+1| / 255",
    preprocess="divided by 255; sides padded by repetition, centred, to a multiple of 16; full size on every machine",
    backbone="AMT-S, time 1/2, float32", weights=("amt-s",), low=0.0, high=1.0, higher_is_better=True, decimals=4,
    min_frames=3, source="Vchitect/VBench 45e79ec, motion_smoothness.py; MCG-NKU/AMT 70f988f",
    failure_modes=(
        "A static video scores as high as anything can.",
        "Cutting to 8 bits costs about 0.002 even where the prediction is perfect, so 0.998 is a ceiling.",
        "Background is drawn almost without error: the smaller the object, the higher the score.",
        "With an even number of frames the last one is never looked at.",
    ),
)  # fmt: skip

METRICS: tuple[Metric, ...] = (Metric(card=_CARD, score=_motion_smoothness, extractors=("amt-s",)),)
