"""Whether the animation still shows the input object: I2V subject in VBench's versions, LPIPS and CLIP-I to its render.

Sources: VBench-I2V, vbench2_beta_i2v/i2v_subject.py and utils.py at 409bd3e (2024-03-25) and e7f070a (2024-07-12), the
same up to 45e79ec; 3to4D, arXiv 2412.20422, whose tables name LPIPS and CLIP-I without their formulas.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from eval.cards import Card
from eval.metric import Metric, NotScored, Score, Subject
from eval.metrics.backbones import CLIP, CLIP_PILLOW, DINO, DINO_SOURCE, LPIPS, OPEN_CLIP
from eval.metrics.feature_rows import adjacent_cosines, cosines, feature

__all__ = ["METRICS"]

_I2V_TERMS = (
    "s_t = max(0, cos(f_t, r)) of every frame, c_t = max(0, cos(f_t, f_t-1)) from the second on, f and r the"
    " features of frame and reference"
)
_OLD_TORCHVISION = "its requirements.txt asks for torchvision < 0.16, which does not anti-alias tensors"
_FREE_REFERENCE = (
    "A frozen copy of the reference scores 1.",
    "The weight of the best frame is free for a video that starts with the reference.",
)
_SLOW_MORPH = "A slow morph into something else keeps consecutive frames alike and costs little."
_MIDDLE = "What leaves the middle 7/8 of the picture is not seen."

_I2V = Card(
    id="i2v_subject", version="vbench-2024-07", title="I2V",
    formula=f"0.4 max_t s_t + 0.3 mean_t c_t + 0.3 min_t c_t; {_I2V_TERMS}",
    preprocess="shorter side to 256 bicubic, centre crop 224, ImageNet mean and deviation; the reference by Pillow"
    " (anti-aliased, to 8 bits), frames as float tensors with anti-aliasing, not clamped",
    **DINO, low=0.0, high=1.0, higher_is_better=True, needs=("reference",), min_frames=2,
    source="Vchitect/VBench e7f070a (2024-07-12), vbench2_beta_i2v/i2v_subject.py, run with a torchvision of 0.17 or"
    f" later, which anti-aliases; {DINO_SOURCE}",
    failure_modes=(
        *_FREE_REFERENCE, _SLOW_MORPH, _MIDDLE,
        "The source does not say whether to anti-alias; installed as it asked in 2024 it computes the noaa version.",
    ),
)  # fmt: skip
_I2V_NOAA = replace(
    _I2V, version="vbench-2024-07-noaa", title="I2V (no antialias)",
    preprocess="shorter side to 256 bicubic, centre crop 224, ImageNet mean and deviation; the reference by Pillow"
    " (anti-aliased, to 8 bits), frames as float tensors without anti-aliasing, not clamped",
    source=f"Vchitect/VBench e7f070a (2024-07-12), vbench2_beta_i2v/i2v_subject.py; {_OLD_TORCHVISION}; {DINO_SOURCE}",
    failure_modes=(
        *_FREE_REFERENCE, _SLOW_MORPH, _MIDDLE,
        "Frames larger than 256 px alias and the reference does not, so even a frozen copy loses a little.",
    ),
)  # fmt: skip
_I2V_MARCH = replace(
    _I2V, version="vbench-2024-03", title="I2V (2024-03)",
    formula=f"0.5 max_t s_t + 0.5 mean_t c_t; {_I2V_TERMS}",
    preprocess="shorter side to 224 bilinear, no crop, ImageNet mean and deviation; the reference by Pillow"
    " (anti-aliased, to 8 bits), frames as float tensors without anti-aliasing; position codes interpolated where not"
    " square",
    source=f"Vchitect/VBench 409bd3e (2024-03-25), vbench2_beta_i2v/i2v_subject.py; {_OLD_TORCHVISION}; {DINO_SOURCE}",
    failure_modes=(
        *_FREE_REFERENCE, _SLOW_MORPH, "One bad step is averaged away.",
        "Frames larger than 224 px alias and the reference does not, so even a frozen copy loses a little.",
    ),
)  # fmt: skip
_I2V_OBJECT = replace(
    _I2V, id="i2v_object", version="mvvideo-1", title="I2V object",
    preprocess="cut to the square around the object, then as i2v_subject@vbench-2024-07; the square holds every pixel"
    " that is at least half opaque in any frame or in the reference, is a tenth of its longer side wider on every side,"
    " does not move, and shows the background where it leaves the picture",
    needs=("reference", "alpha"), source=f"ours, after Vchitect/VBench e7f070a; {DINO_SOURCE}",
    failure_modes=(
        *_FREE_REFERENCE, _SLOW_MORPH, "An object that travels far makes the square large and itself small in it.",
    ),
)  # fmt: skip
_LPIPS = {
    net: Card(
        id="lpips_reference", version=net, title=title, formula="mean_t LPIPS(x_t, r), r the render at rest",
        preprocess="none: frames and reference at their size, values to -1..1", **LPIPS[net],
        low=0.0, higher_is_better=False, scale=100.0, decimals=1, needs=("reference",),
        source="3to4D, arXiv 2412.20422 (formula inferred, net not stated); richzhang/PerceptualSimilarity 082bb24",
        failure_modes=(
            "A frozen copy of the reference scores 0: every motion costs, also the one that the prompt asks for.",
            "Empty background is alike in every frame, so a small object scores better.",
            "Values of different nets or sizes of image cannot be compared.",
        ),
    )
    for net, title in (("alex", "LPIPS"), ("vgg", "LPIPS VGG"))
}  # fmt: skip
_CLIP_I = {
    net: Card(
        id="clip_i", version=net, title=title, formula="mean_t cos(CLIP(x_t), CLIP(r)), r the render at rest",
        preprocess=CLIP_PILLOW, **CLIP[net],
        low=-1.0, high=1.0, higher_is_better=True, scale=100.0, decimals=1, needs=("reference",),
        source=f"3to4D, arXiv 2412.20422 (formula inferred, backbone not stated); {OPEN_CLIP}",
        failure_modes=(
            "A frozen copy of the reference scores 1.",
            "Says whether it is the same kind of thing more than whether it is the same thing.",
        ),
    )
    for net, title in (("b32", "CLIP-I"), ("l14", "CLIP-I L/14"))
}  # fmt: skip


def _i2v(subject: Subject, extractor: str, weights: tuple[float, float, float]) -> Score:
    frames = feature(subject, extractor, "frames", frames=2)
    alike = np.maximum(cosines(frames, feature(subject, extractor, "reference")), 0.0)
    steps = np.maximum(adjacent_cosines(frames), 0.0)
    parts = {"best": alike.max(), "step_mean": steps.mean(), "step_min": steps.min()}
    value = sum(weight * part for weight, part in zip(weights, parts.values(), strict=True))
    parts["worst"] = alike.min()
    return Score(value=float(value), frames=alike, extra={name: float(part) for name, part in parts.items()})


def _i2v_object(subject: Subject) -> Score:
    if "frames" not in subject.features["dino@object"]:
        found = "no transparency" if subject.clip.alpha is None else "no pixel that is at least half opaque"
        raise NotScored(f"found {found}, expected frames whose alpha shows the object; give RGBA frames")
    return _i2v(subject, "dino@object", (0.4, 0.3, 0.3))


def _lpips(subject: Subject, extractor: str) -> Score:
    distances = feature(subject, extractor, "reference")
    return Score(value=float(distances.mean()), frames=distances)


def _clip_i(subject: Subject, extractor: str) -> Score:
    alike = cosines(feature(subject, extractor, "frames"), feature(subject, extractor, "reference"))
    return Score(value=float(alike.mean()), frames=alike)


METRICS: tuple[Metric, ...] = (
    *(
        Metric(card=card, extractors=(extractor,), score=partial(_i2v, extractor=extractor, weights=weights))
        for card, extractor, weights in (
            (_I2V, "dino@256crop", (0.4, 0.3, 0.3)),
            (_I2V_NOAA, "dino@256crop-noaa", (0.4, 0.3, 0.3)),
            (_I2V_MARCH, "dino@224", (0.5, 0.5, 0.0)),
        )
    ),
    Metric(card=_I2V_OBJECT, extractors=("dino@object",), score=_i2v_object),
    *(
        Metric(card=card, extractors=(f"lpips-{net}",), score=partial(_lpips, extractor=f"lpips-{net}"))
        for net, card in _LPIPS.items()
    ),
    *(
        Metric(card=card, extractors=(f"clip-{net}@eval",), score=partial(_clip_i, extractor=f"clip-{net}@eval"))
        for net, card in _CLIP_I.items()
    ),
)
