"""What may lie in a pipeline's folder: its components' classes, and that their files are there and whole.

Looked at before anything is loaded, because the libraries' own errors seldom name a file, and because a folder from
elsewhere must not choose which classes are made or bring pickles. Loads nothing itself.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from manifests.errors import InputError

__all__ = ["check_saved_pipeline", "check_weights", "weight_names"]

_INDEX = "model_index.json"
_CLASSES: dict[str, set[tuple[str, str]]] = {
    "vae": {("diffusers", "AutoencoderKL"), ("train.models.pixel_codec", "PixelCodec")},
    "text_encoder": {("transformers", "CLIPTextModel")},
    "tokenizer": {("transformers", "CLIPTokenizer"), ("transformers", "CLIPTokenizerFast")},
    "unet": {("train.models.unet_mv_motion", "MVUNetMotionModel")},
    "scheduler": {("diffusers", "DDIMScheduler")},
    "image_encoder": {("transformers", "CLIPVisionModelWithProjection")},
    "feature_extractor": {("transformers", "CLIPImageProcessor"), ("transformers", "CLIPImageProcessorFast")},
}
"""Component -> (library, class) that it may be."""
_OPTIONAL = {"image_encoder", "feature_extractor"}
_WITH_WEIGHTS = {"vae", "text_encoder", "unet", "image_encoder"}
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl"}


def check_saved_pipeline(folder: Path | str) -> dict[str, str]:
    """Component -> name of its class, of a folder that holds one of our pipelines with every file it needs.

    Raises:
        InputError: another folder, another class, a file that is missing or cut short, or pickles only; names the file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: found no folder, expected a pipeline that was saved; check the path")
    index = _object(folder / _INDEX, "; `mvv model convert` makes such folders, and RUN/model of a training run is one")
    if index.get("_class_name") != "MVAnimatePipeline":
        raise InputError(
            f"{folder / _INDEX}: found a {index.get('_class_name')}, expected an MVAnimatePipeline; `mvv model convert`"
            " makes one of public weights"
        )
    found = {}
    for name, allowed in _CLASSES.items():
        pair = index.get(name)
        if name in _OPTIONAL and pair in (None, [None, None]):
            continue
        if not isinstance(pair, list) or tuple(pair) not in allowed:
            choices = " or ".join(sorted(".".join(choice) for choice in allowed))
            raise InputError(f"{folder / _INDEX}: found {pair} for {name}, expected {choices}; convert it again")
        _check_component(folder / name, name)
        found[name] = pair[1]
    return found


def weight_names(folder: Path) -> set[str]:
    """Names of the tensors in a component's safetensors files."""
    names: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            names |= set(file.keys())
    return names


def _check_component(folder: Path, name: str) -> None:
    if not folder.is_dir() or not any(folder.iterdir()):
        raise InputError(f"{folder}: found nothing, expected the {name} of the pipeline; copy the whole folder again")
    for path in sorted(folder.glob("*.json")):
        _object(path)
    if name not in _WITH_WEIGHTS:
        return
    _object(folder / "config.json")
    check_weights(folder)


def check_weights(folder: Path) -> None:
    """A component's safetensors files are there and open.

    Raises:
        InputError: none, or one that is damaged; names the file.
    """
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        others = ", ".join(sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES))
        raise InputError(
            f"{folder}: found {others or 'no weights'}, expected a .safetensors file; pickles are never loaded, since"
            " they can run any code: copy the folder again, or save it as safetensors where you trust it"
        )
    for path in files:
        try:
            with safe_open(path, framework="pt"):
                pass
        except (SafetensorError, OSError) as error:
            raise InputError(
                f"{path}: found {os.path.getsize(path)} bytes that do not open ({error}), expected a whole safetensors"
                " file; it was cut off or damaged, copy it again"
            ) from error


def _object(path: Path, hint: str = "; it was cut off or damaged, copy the folder again") -> dict[str, Any]:
    try:
        value = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: found {error.strerror}, expected a JSON file of a saved pipeline{hint}") from error
    except ValueError as error:
        raise InputError(f"{path}: found {error}, expected JSON{hint}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: found a {type(value).__name__}, expected a JSON object{hint}")
    return value
