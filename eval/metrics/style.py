"""Style of 3to4D, VBench's temporal style: how well a clip as a whole fits its prompt."""

from __future__ import annotations

from eval.cards import Card
from eval.metric import Metric, Score, Subject
from eval.metrics.feature_rows import cosines, feature

__all__ = ["METRICS"]


def _temporal_style(subject: Subject) -> Score:
    text = feature(subject, "viclip-l14", "text", frames=2)
    tokens, read = feature(subject, "viclip-l14", "tokens")
    value = float(cosines(feature(subject, "viclip-l14", "video"), text))
    return Score(value=value, extra={"prompt_tokens": float(tokens), "prompt_tokens_read": float(min(tokens, read))})


_CARD = Card(
    id="temporal_style", version="viclip", title="Style", formula="cos(ViCLIP(8 frames), ViCLIP(prompt))",
    preprocess="middle frames of 8 equal intervals, filled up with the last frame; in 8 bits: shorter side to 224"
    " bicubic without anti-aliasing, centre crop 224; CLIP mean and deviation; the prompt as it is, its first 30"
    " tokens between start and end",
    backbone="ViCLIP-L/14 (InternVid-10M-FLT), float32", weights=("viclip-l14",), low=-1.0, high=1.0,
    higher_is_better=True, scale=100.0, decimals=1, needs=("prompt",), min_frames=2,
    source="Vchitect/VBench 45e79ec, temporal_style.py; OpenGVLab/InternVideo 3965eef, Data/InternVid/viclip;"
    " as Style in 3to4D, arXiv 2412.20422",
    failure_modes=(
        "The object of the prompt scores well in any style and without the motion that the prompt asks for.",
        "Typical values lie between 0.15 and 0.25 whatever the video; differences are small.",
        "What a prompt says after about 20 words is not read; extra.prompt_tokens tells.",
    ),
)  # fmt: skip

METRICS: tuple[Metric, ...] = (Metric(card=_CARD, score=_temporal_style, extractors=("viclip-l14",)),)
