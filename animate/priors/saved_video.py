"""Loads a saved image-to-video or text-to-video pipeline of diffusers: its known classes, all of their weights.

A folder from elsewhere chooses no class, brings no code and no pickles: each component is named in a table here and
loaded by its own class from safetensors. Why not the pipeline's own loading: it fills weights that are missing with
noise, and only warns. Source: the constructors of diffusers' pipelines.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers

from manifests.errors import InputError
from train.saved_pipeline import check_weights

__all__ = ["load_video_pipeline"]

_CLIP_TEXT = {
    "text_encoder": ("CLIPTextModel",),
    "tokenizer": ("CLIPTokenizer", "CLIPTokenizerFast"),
}
_CLIP_IMAGE = {
    "image_encoder": ("CLIPVisionModelWithProjection",),
    "feature_extractor": ("CLIPImageProcessor", "CLIPImageProcessorFast", "CLIPImageProcessorPil"),
}
_CLASSES: dict[str, dict[str, tuple[str, ...]]] = {
    "I2VGenXLPipeline": _CLIP_TEXT
    | _CLIP_IMAGE
    | {"vae": ("AutoencoderKL",), "unet": ("I2VGenXLUNet",), "scheduler": ("DDIMScheduler",)},
    "StableVideoDiffusionPipeline": _CLIP_IMAGE
    | {
        "vae": ("AutoencoderKLTemporalDecoder",),
        "unet": ("UNetSpatioTemporalConditionModel",),
        "scheduler": ("EulerDiscreteScheduler",),
    },
    "AnimateDiffPipeline": _CLIP_TEXT
    | {
        "vae": ("AutoencoderKL",),
        "unet": ("UNetMotionModel", "UNet2DConditionModel"),
        "motion_adapter": ("MotionAdapter",),
        "scheduler": (
            "DDIMScheduler",
            "PNDMScheduler",
            "LMSDiscreteScheduler",
            "EulerDiscreteScheduler",
            "EulerAncestralDiscreteScheduler",
            "DPMSolverMultistepScheduler",
        ),
    },
}
"""Pipeline -> component -> classes that it may be."""
_WITHOUT_WEIGHTS = {"tokenizer", "feature_extractor", "scheduler"}
_LOADING = (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError, ImportError)


def load_video_pipeline(folder: Path, kind: str) -> Any:
    """A pipeline in float32 on the CPU, frozen, with every weight from the folder.

    Args:
        folder: as `save_pretrained` of diffusers writes it, or a downloaded repository of that form.
        kind: name of its class.

    Raises:
        InputError: another pipeline, another class of a component, pickles only, weights that are missing or damaged.
    """
    index = _json(folder / "model_index.json")
    if index.get("_class_name") != kind:
        raise InputError(
            f"{folder / 'model_index.json'}: found a {index.get('_class_name')}, expected a {kind}; give the folder of"
            " such a pipeline"
        )
    parts: dict[str, Any] = {}
    for name, allowed in _CLASSES[kind].items():
        if name == "motion_adapter" and index.get("unet", ["", ""])[1:] == ["UNetMotionModel"]:
            parts[name] = None  # this network has the adapter's weights in it
            continue
        library = "transformers" if name in _CLIP_TEXT | _CLIP_IMAGE else "diffusers"
        found = index.get(name)
        if not isinstance(found, list) or found not in [[library, choice] for choice in allowed]:
            choices = " or ".join(f"{library}.{choice}" for choice in allowed)
            raise InputError(
                f"{folder / 'model_index.json'}: found {found} for {name}, expected {choices}; no other code is run"
            )
        parts[name] = _component(
            folder / name, getattr(diffusers if library == "diffusers" else transformers, found[1])
        )
    # I2VGen-XL's pipeline is frozen upstream and says so on every construction, which is no concern of a user's.
    with _quiet():
        return getattr(diffusers, kind)(**parts)


def _component(folder: Path, kind: Any) -> Any:
    if not folder.is_dir():
        raise InputError(f"{folder}: found no folder, expected the pipeline's {kind.__name__}; copy it again")
    options: dict[str, Any] = {"local_files_only": True}
    if folder.name not in _WITHOUT_WEIGHTS:
        _json(folder / "config.json")
        _only_safetensors(folder)
        options |= {"use_safetensors": True, "output_loading_info": True, "torch_dtype": torch.float32}
        if not any(".fp16." not in path.name for path in folder.glob("*.safetensors")):
            options["variant"] = "fp16"
        if issubclass(kind, diffusers.ModelMixin):
            options["low_cpu_mem_usage"] = False
    try:
        with _quiet():
            loaded = kind.from_pretrained(folder, **options)
    except _LOADING as error:
        told = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(f"{folder}: found {told}, expected a whole {kind.__name__}; copy the folder again") from error
    if folder.name in _WITHOUT_WEIGHTS:
        return loaded
    network, told = loaded
    absent = [*told["missing_keys"], *(entry[0] for entry in told["mismatched_keys"])]
    if absent:
        raise InputError(
            f"{folder}: found {len(absent)} weights missing or of another shape, among them"
            f" {', '.join(sorted(absent)[:3])}, expected all that config.json declares; copy the whole folder again"
        )
    return network.float().eval().requires_grad_(False)


def _only_safetensors(folder: Path) -> None:
    check_weights(folder)
    for path in folder.glob("*.safetensors*.json"):
        files = set(_json(path).get("weight_map", {}).values())
        if odd := sorted(
            str(name) for name in files if Path(str(name)).name != name or not name.endswith(".safetensors")
        ):
            raise InputError(
                f"{path}: found {odd[0]} among its files, expected .safetensors beside it; take another copy"
            )


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: found {error.strerror}, expected a file of a saved pipeline; copy it again"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: found {error}, expected JSON; it was cut off or damaged, copy it again") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: found a {type(value).__name__}, expected a JSON object; copy it again")
    return value


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps notes and bars of both libraries back while something is read."""
    logs = (diffusers.logging, transformers.logging)
    levels, bars = [log.get_verbosity() for log in logs], transformers.logging.is_progress_bar_enabled()
    for log in logs:
        log.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.set_verbosity(level)
        if bars:
            transformers.logging.enable_progress_bar()
