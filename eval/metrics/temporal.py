"""Whether a video runs smoothly, judged by neighbouring frames: LPIPS-F and CLIP-F.

Source: 3to4D, arXiv 2412.20422, whose tables name both under video quality without their formulas. CLIP-F is here from
frame to frame; in Diffusion4D and Track4DGen the same letters mean the front view.
"""

from __future__ import annotations

from functools import partial

from eval.cards import Card
from eval.metric import Metric, Score, Subject
from eval.metrics.backbones import CLIP, CLIP_PILLOW, LPIPS, OPEN_CLIP
from eval.metrics.feature_rows import adjacent_cosines, feature

__all__ = ["METRICS"]

_FPS = "Depends on fps: the same motion at more frames a second scores better."
_LPIPS_F = {
    net: Card(
        id="lpips_f", version=net, title=title, formula="mean_t LPIPS(x_t, x_t+1)",
        preprocess="none: frames at their size, values to -1..1", **LPIPS[net],
        low=0.0, higher_is_better=False, scale=100.0, decimals=1, min_frames=2,
        source="3to4D, arXiv 2412.20422 (formula inferred, net not stated); richzhang/PerceptualSimilarity 082bb24",
        failure_modes=(
            "A static video scores 0, the best: less motion is always better here.",
            "Empty background is alike in every frame, so a small object scores better.",
            _FPS,
        ),
    )
    for net, title in (("alex", "LPIPS-F"), ("vgg", "LPIPS-F VGG"))
}  # fmt: skip
_CLIP_F = {
    net: Card(
        id="clip_f", version=net, title=title, formula="mean_t cos(CLIP(x_t), CLIP(x_t+1))",
        preprocess=CLIP_PILLOW, **CLIP[net],
        low=-1.0, high=1.0, higher_is_better=True, scale=100.0, decimals=1, min_frames=2,
        source=f"3to4D, arXiv 2412.20422 (formula inferred, backbone not stated); {OPEN_CLIP}",
        failure_modes=(
            "A static video scores 1, the best: less motion is always better here.",
            _FPS,
            "Not the CLIP-F of Diffusion4D and Track4DGen, which is the front view's similarity.",
        ),
    )
    for net, title in (("b32", "CLIP-F"), ("l14", "CLIP-F L/14"))
}  # fmt: skip


def _lpips_f(subject: Subject, extractor: str) -> Score:
    distances = feature(subject, extractor, "adjacent", frames=2)
    return Score(value=float(distances.mean()), frames=distances)


def _clip_f(subject: Subject, extractor: str) -> Score:
    alike = adjacent_cosines(feature(subject, extractor, "frames", frames=2))
    return Score(value=float(alike.mean()), frames=alike)


METRICS: tuple[Metric, ...] = (
    *(
        Metric(card=card, extractors=(f"lpips-{net}",), score=partial(_lpips_f, extractor=f"lpips-{net}"))
        for net, card in _LPIPS_F.items()
    ),
    *(
        Metric(card=card, extractors=(f"clip-{net}@eval",), score=partial(_clip_f, extractor=f"clip-{net}@eval"))
        for net, card in _CLIP_F.items()
    ),
)
