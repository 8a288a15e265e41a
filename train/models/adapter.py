"""The trained weights of MV-VDM alone, in a folder that says on which base they belong.

Animate3D trains 643 M of 1.53 G parameters; a checkpoint of these (1.3 GB in bf16) is what is worth publishing, and
the frozen base is named by its hash instead of copied. diffusers' own `MotionAdapter` has no place for the spatial
branch and the MV2V-Adapter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from manifests.errors import InputError
from manifests.publish import attempt, write_bytes
from train.models.unet_mv_motion import MVUNetMotionModel

__all__ = ["FACTS", "base_sha256", "load_adapter", "save_adapter"]

SCHEMA = "mvvideo.adapter/1"
WEIGHTS = "adapter.safetensors"
FACTS = "adapter.json"
"""The file that tells an adapter's folder."""


def base_sha256(unet: MVUNetMotionModel) -> str:
    """SHA-256 (hex) of the weights that are not in an adapter: names, shapes and values in float32."""
    digest = hashlib.sha256()
    trained = unet.trainable_parameters()
    for name, value in sorted(unet.state_dict().items()):
        if name not in trained:
            digest.update(f"{name} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_adapter(
    unet: MVUNetMotionModel, folder: Path | str, *, base: str = "", dtype: torch.dtype | None = None
) -> None:
    """Writes the trained weights and what they belong to.

    Args:
        unet: the network.
        folder: created; adapter.safetensors and adapter.json.
        base: name of the base for people, e.g. where it can be had.
        dtype: of the stored weights; None keeps theirs.
    """
    folder = Path(folder)
    weights = {
        name: value.detach().to("cpu", dtype or value.dtype).contiguous()
        for name, value in unet.trainable_parameters().items()
    }
    facts = {
        "schema": SCHEMA,
        "base": base,
        "base_sha256": base_sha256(unet),
        "unet": _plain_config(unet),
        "parameters": sum(value.numel() for value in weights.values()),
    }
    with attempt(folder / WEIGHTS) as trial:
        save_file(weights, trial)
    write_bytes(folder / FACTS, (json.dumps(facts, indent=1, sort_keys=True) + "\n").encode())


def load_adapter(unet: MVUNetMotionModel, folder: Path | str, *, any_base: bool = False) -> None:
    """Puts an adapter's weights into a network, all or none.

    Args:
        unet: on the same base, of the same config.
        folder: as `save_adapter` wrote it.
        any_base: accept another base, e.g. the same one rounded to half precision.

    Raises:
        InputError: not an adapter, a damaged file, another config, another base.
    """
    folder = Path(folder)
    facts = _read_facts(folder / FACTS)
    ours = _plain_config(unet)
    other = sorted(name for name in ours.keys() | facts["unet"].keys() if ours.get(name) != facts["unet"].get(name))
    if other:
        found = ", ".join(f"{name}={facts['unet'].get(name)}" for name in other[:3])
        expected = ", ".join(f"{name}={ours.get(name)}" for name in other[:3])
        raise InputError(f"{folder}: found an adapter for {found}, expected {expected}; take the base it was made on")
    if not any_base and facts["base_sha256"] != base_sha256(unet):
        raise InputError(
            f"{folder}: found an adapter for base {facts['base_sha256'][:12]} ({facts['base'] or 'unnamed'}), expected"
            f" {base_sha256(unet)[:12]}; load it on its own base, or pass any_base to try"
        )
    weights, wanted = _read_weights(folder / WEIGHTS), unet.trainable_parameters()
    wrong = [f"no {name}" for name in sorted(wanted.keys() - weights.keys())]
    wrong += [f"{name} too many" for name in sorted(weights.keys() - wanted.keys())]
    wrong += [
        f"{name} of shape {tuple(weights[name].shape)}"
        for name in sorted(wanted.keys() & weights.keys())
        if weights[name].shape != wanted[name].shape
    ]
    if wrong:
        raise InputError(
            f"{folder / WEIGHTS}: found {', '.join(wrong[:3])}, expected the adapter's own; fetch it again"
        )
    with torch.no_grad():
        for name, value in weights.items():
            wanted[name].copy_(value)


def _plain_config(unet: MVUNetMotionModel) -> dict[str, Any]:
    kept = {name: value for name, value in unet.config.items() if not name.startswith("_") and name != "blend_init"}
    return json.loads(json.dumps(kept))


def _read_facts(path: Path) -> Mapping[str, Any]:
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: found {error}, expected the adapter.json of an adapter folder") from error
    if not isinstance(facts, dict) or facts.get("schema") != SCHEMA:
        raise InputError(f"{path}: found another schema, expected {SCHEMA}; make it with `mvv model convert`")
    return facts


def _read_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: found {error}, expected a whole safetensors file; fetch it again") from error
