"""Names and shapes of our network's weights, which part each belongs to, and the one way tensors are taken by name.

The names come from the network itself, built without memory; the parts are those of the four public sources. Sources
of the names: diffusers' UNet2DConditionModel and UNetMotionModel, whose names `train.models.unet_mv_motion` keeps.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from manifests.errors import InputError

__all__ = ["PARTS", "part_of", "parts_of", "renamed", "shapes_of", "take", "unet_shapes"]

PARTS: dict[str, str] = {
    "base": "SD-1.5's UNet, as MVDream trained it further",
    "camera": "MVDream's camera embedding",
    "image": "IP-Adapter: image projection and image keys and values",
    "frame0": "MV2V-Adapter: attention to frame 0",
    "motion": "AnimateDiff's motion modules",
    "spatial": "Animate3D's spatial branch and its blend",
}
"""Part -> what it is and who it comes from."""

Shapes = Mapping[str, Sequence[int]]
Rules = Iterable[tuple[str, str | Callable[[re.Match[str]], str]]]


def part_of(name: str) -> str:
    """The key of `PARTS` that one of our names belongs to."""
    if name.startswith("camera_embedding."):
        return "camera"
    if name.startswith("image_projection.") or name.endswith((".to_k_ip.weight", ".to_v_ip.weight")):
        return "image"
    if ".to_q_i2v." in name or ".to_out_i2v." in name:
        return "frame0"
    if "motion_modules." in name:
        return "spatial" if re.search(r"\.(to_(q|k|v|out)_sp|blender)\.", name) else "motion"
    return "base"


def parts_of(shapes: Mapping[str, Any], *parts: str) -> dict[str, Any]:
    """The entries whose names belong to these parts, in the same order."""
    assert set(parts) <= set(PARTS), f"parts {parts} are not among {tuple(PARTS)}"
    return {name: value for name, value in shapes.items() if part_of(name) in parts}


def shapes_of(make: Callable[[], nn.Module]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of everything in a network's state; `make` is called without memory for parameters."""
    with torch.device("meta"):
        network = make()
    return {name: tuple(value.shape) for name, value in network.state_dict().items()}


def unet_shapes(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape of our UNet's weights for a config of it; absent fields take its defaults."""
    return dict(_unet_shapes(json.dumps(dict(config), sort_keys=True)))


@functools.lru_cache(maxsize=32)
def _unet_shapes(config: str) -> dict[str, tuple[int, ...]]:
    # Even without memory the real size takes seconds, and a conversion asks for it several times.
    from train.models.unet_mv_motion import MVUNetMotionModel

    return shapes_of(lambda: MVUNetMotionModel(**json.loads(config)))


def renamed(name: str, rules: Rules) -> str:
    """What the rules make of a name: each pattern that is found is replaced, in order.

    Args:
        name: to be renamed.
        rules: (pattern, replacement as for `re.sub`).
    """
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


def take(
    source: Mapping[str, Tensor],
    names: Mapping[str, str],
    shapes: Shapes,
    *,
    where: str,
    what: str,
    hint: str,
    dropped: Iterable[str] = (),
    flatten_convolutions: bool = False,
) -> dict[str, Tensor]:
    """The tensors of a source under our names; every name of the source must be spoken for.

    Args:
        source: name -> tensor, as read.
        names: our name -> the source's.
        shapes: our name -> shape.
        where: the source, for messages.
        what: what was expected of it, for messages.
        hint: what to do when it is something else, for messages.
        dropped: names that the source may have and that hold no weights.
        flatten_convolutions: whether (out, in, 1, 1) may stand for (out, in).

    Returns:
        Our name -> float32 tensor, all of `names` and no others.

    Raises:
        InputError: names missing or left over, another shape, no floating-point numbers, NaN or infinity; the first
            three of them are named.
    """
    known = set(names.values())
    assert names.keys() <= shapes.keys(), "a shape is needed for every name"
    assert len(known) == len(names), "two of our names stand for the same tensor"
    wrong = [f"no {theirs}" for theirs in sorted(known - source.keys())]
    wrong += [f"{theirs}, for which there is no rule" for theirs in sorted(source.keys() - known - set(dropped))]
    taken: dict[str, Tensor] = {}
    for ours, theirs in names.items():
        if theirs not in source:
            continue
        value, shape = source[theirs], tuple(shapes[ours])
        if flatten_convolutions and tuple(value.shape) == (*shape, 1, 1):
            value = value.reshape(shape)
        if tuple(value.shape) != shape:
            wrong.append(f"{theirs} of shape {tuple(value.shape)} for {shape}")
        elif not value.is_floating_point():
            wrong.append(f"{theirs} of {value.dtype}")
        elif not value.isfinite().all():
            wrong.append(f"NaN or infinity in {theirs}")
        else:
            taken[ours] = value.float().contiguous()
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise InputError(f"{where}: found {', '.join(wrong[:3])}{more}, expected {what}; {hint}")
    return taken
