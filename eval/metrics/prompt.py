"""Whether frames show what the prompt says: CLIP-T.

Source: 3to4D, arXiv 2412.20422, whose tables name CLIP-T without its formula; cosine of frame and prompt as is usual.
"""

from __future__ import annotations

from functools import partial

from eval.cards import Card
from eval.metric import Metric, NotScored, Score, Subject
from eval.metrics.backbones import CLIP, CLIP_PILLOW, OPEN_CLIP
from eval.metrics.feature_rows import cosines, feature

__all__ = ["METRICS"]

_CLIP_T = {
    net: Card(
        id="clip_t", version=net, title=title, formula="mean_t cos(CLIP(x_t), CLIP(prompt))",
        preprocess=f"{CLIP_PILLOW}; the prompt as it is, without a template, refused beyond 77 tokens", **CLIP[net],
        low=-1.0, high=1.0, higher_is_better=True, scale=100.0, decimals=1, needs=("prompt",),
        source=f"3to4D, arXiv 2412.20422 (formula inferred, backbone not stated); {OPEN_CLIP}",
        failure_modes=(
            "Sees single frames: the object of the prompt scores high whether or not it does what the prompt says.",
            "Values of different backbones cannot be compared.",
        ),
    )
    for net, title in (("b32", "CLIP-T"), ("l14", "CLIP-T L/14"))
}  # fmt: skip


def _clip_t(subject: Subject, extractor: str) -> Score:
    text = feature(subject, extractor, "text")
    tokens, most = subject.features[extractor]["tokens"]
    if tokens > most:
        raise NotScored(f"found a prompt of {tokens} tokens, expected at most {most}, all that CLIP reads; shorten it")
    alike = cosines(feature(subject, extractor, "frames"), text)
    return Score(value=float(alike.mean()), frames=alike)


METRICS: tuple[Metric, ...] = tuple(
    Metric(card=card, extractors=(f"clip-{net}@eval",), score=partial(_clip_t, extractor=f"clip-{net}@eval"))
    for net, card in _CLIP_T.items()
)
