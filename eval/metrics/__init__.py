"""All metrics by name, ``id@version``. Importing this loads no network library."""

from __future__ import annotations

from eval.metric import Metric
from eval.metrics import (
    aesthetic,
    classical_motion,
    consistency,
    crossview,
    dynamic,
    fvd,
    identity,
    masks,
    object_motion,
    pixels,
    prompt,
    smoothness,
    style,
    temporal,
    truth,
)

__all__ = ["METRICS"]

_MODULES = (
    identity, consistency, prompt, style, smoothness, dynamic, object_motion, temporal, aesthetic, pixels,
    classical_motion, masks, truth, crossview, fvd,
)  # fmt: skip
METRICS: dict[str, Metric] = {metric.card.name: metric for module in _MODULES for metric in module.METRICS}
"""Name -> metric, in the order of tables."""
