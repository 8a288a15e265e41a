"""VBench's aesthetic quality: LAION's linear predictor on every frame.

Source: VBench, vbench/aesthetic_quality.py at 45e79ec (2026-03-23).
"""

from __future__ import annotations

from eval.cards import Card
from eval.metric import Metric, Score, Subject
from eval.metrics.backbones import CLIP, CLIP_FLOATS, OPEN_CLIP
from eval.metrics.feature_rows import feature

__all__ = ["METRICS"]

_AESTHETIC = Card(
    id="aesthetic_quality", version="vbench", title="Aesthetic",
    formula="mean_t (w . g_t + b) / 10, g_t the normalised embedding of frame t",
    preprocess=CLIP_FLOATS, backbone=f"{CLIP['l14']['backbone']}, and LAION's first linear head",
    weights=(*CLIP["l14"]["weights"], "laion-aesthetic-vit-l-14-linear"), higher_is_better=True,
    source="Vchitect/VBench 45e79ec, vbench/aesthetic_quality.py (CLIP in half precision on a GPU);"
    f" LAION-AI/aesthetic-predictor 6d122ad; {OPEN_CLIP}",
    failure_modes=(
        "Trained on pictures of the web: a render on a plain background is far from them, and the colour behind the"
        " object moves the score.",
        "Judges frames alone; motion and identity count for nothing.",
        "Not bounded; about 0.3 to 0.7 in practice.",
    ),
)  # fmt: skip


def _mean(subject: Subject) -> Score:
    scores = feature(subject, "aesthetic", "scores") / 10.0
    return Score(value=float(scores.mean()), frames=scores)


METRICS: tuple[Metric, ...] = (Metric(card=_AESTHETIC, extractors=("aesthetic",), score=_mean),)
