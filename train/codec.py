"""The part of a pipeline that turns images into latents and back, taken alone: loaded and hashed.

A codec is diffusers' `AutoencoderKL` or our `PixelCodec`; nothing else is loaded, from local folders and safetensors
files only. The hash is over what it computes with and not over its files, so that saving it again changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from manifests.errors import InputError
from train.saved_pipeline import check_weights

__all__ = ["CODECS", "codec_sha256", "load_codec"]

CODECS = ("AutoencoderKL", "PixelCodec")
"""Classes by the name in their config.json."""

_DECIDES = ("latent_channels", "block_out_channels", "patch_size", "norm_num_groups", "scaling_factor", "shift_factor")
"""Fields of a config that change latents beside the weights; others are spelled out by the weights' names and shapes,
and newer versions of diffusers add fields with defaults, which must not look like another codec."""


def load_codec(folder: Path | str) -> nn.Module:
    """The codec in a folder, or in the folder ``vae`` of a pipeline's folder; in float32, for inference.

    Raises:
        InputError: nothing there, another class, no safetensors file, or a damaged one.
    """
    folder = Path(folder)
    place = folder / "vae" if (folder / "model_index.json").exists() else folder
    path = place / "config.json"
    try:
        name = json.loads(path.read_bytes()).get("_class_name")
    except OSError as error:
        raise InputError(
            f"{path}: found {error.strerror}, expected the config of a VAE; give the folder of one, or of a pipeline"
        ) from error
    except (ValueError, AttributeError) as error:
        raise InputError(f"{path}: found {error}, expected the config of a VAE; convert or save it again") from error
    if name not in CODECS:
        raise InputError(f"{path}: found the class {name!r}, expected {' or '.join(CODECS)}; give the folder of a VAE")
    if name == "PixelCodec":
        from train.models.pixel_codec import PixelCodec as kind
    else:
        from diffusers import AutoencoderKL as kind
    check_weights(place)
    try:
        # Not memory-mapped and not on meta first: a small model, and errors come here instead of later.
        codec, report = kind.from_pretrained(
            place, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False, torch_dtype=torch.float32,
            output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        told = " ".join(str(error).split())[:200]
        raise InputError(f"{place}: found {told}, expected a whole {name}; convert or save it again") from error
    # diffusers fills up what the file lacks at random, with no more than a line in its log.
    wrong = [
        *(f"no {key}" for key in report["missing_keys"]),
        *(f"{key} too many" for key in report["unexpected_keys"]),
    ]
    if wrong:
        raise InputError(
            f"{place}: found {', '.join(sorted(wrong)[:3])}, expected the weights of its config; convert it again"
        )
    return codec.eval().requires_grad_(False)


def codec_sha256(codec: nn.Module) -> str:
    """SHA-256 (hex) of a codec: its class, the fields of its config that matter, and its weights in float32.

    Equal for the same codec in a folder, in memory, and saved again.
    """
    config: dict[str, Any] = dict(codec.config)
    facts = {name: config[name] for name in _DECIDES if config.get(name) is not None}
    digest = hashlib.sha256(json.dumps([type(codec).__name__, facts], sort_keys=True).encode())
    for name, tensor in sorted(codec.state_dict().items()):
        values = tensor.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name} {tuple(values.shape)}\n".encode())
        digest.update(values.numpy().tobytes())
    return digest.hexdigest()
