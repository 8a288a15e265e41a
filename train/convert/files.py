"""Weights from files and folders, tensors only: safetensors, or what torch.save wrote and unpickles without code."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from manifests.errors import InputError

__all__ = ["read_config", "read_folder", "read_tensors"]

WEIGHTS = (
    "diffusion_pytorch_model.safetensors",
    "model.safetensors",
    "diffusion_pytorch_model.fp16.safetensors",
    "model.fp16.safetensors",
    "diffusion_pytorch_model.bin",
    "pytorch_model.bin",
)
"""Names under which diffusers and transformers keep weights in a folder, the one to prefer first."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Name -> tensor of a file, on the CPU.

    A trainer's checkpoint gives what lies under its `state_dict`; groups of tensors are flattened with points between
    the names, and the `module.` that distributed training puts before every name is taken away.

    Args:
        path: safetensors, or what `torch.save` wrote; told apart by content.

    Raises:
        InputError: a file that cannot be read, or holds more than tensors.
    """
    path = Path(path)
    content = _read(path)
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise InputError(f"{path}: found a {type(content).__name__}, expected name -> tensor; take the weights file")
    tensors = _flat(content, path)
    if tensors and all(name.startswith("module.") for name in tensors):
        tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    return tensors


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor], Path]:
    """(config.json, name -> tensor, the weights file) of a folder that diffusers or transformers saved.

    Raises:
        InputError: no such folder, no config, no weights.
    """
    config = read_config(folder)
    path = next((path for name in WEIGHTS if (path := Path(folder) / name).is_file()), None)
    if path is None:
        raise InputError(
            f"{folder}: found no weights, expected one of {', '.join(WEIGHTS)}; fetch the folder again, and join"
            " weights that were split over several files by loading and saving them once"
        )
    return config, read_tensors(path), path


def read_config(folder: Path) -> dict[str, Any]:
    """config.json of a folder.

    Raises:
        InputError: not there, or no JSON object.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(
            f"{path}: found {error.strerror or error}, expected the config of a model; fetch the whole folder"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: found {error}, expected JSON; fetch the file again") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: found a {type(config).__name__}, expected an object; fetch the file again")
    return config


def _read(path: Path) -> Any:
    try:
        with path.open("rb") as file:
            is_safetensors = file.read(9)[8:] == b"{"
        if is_safetensors:
            return load_file(path)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol")  # loads or not, and is told either way
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: found {error.strerror or error}, expected a weights file; check the path") from error
    except (pickle.UnpicklingError, RuntimeError, ValueError, LookupError, EOFError, SafetensorError) as error:
        raise InputError(_unreadable(path, error)) from error


def _flat(content: Mapping[Any, Any], path: Path, prefix: str = "") -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for key, value in content.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found |= _flat(value, path, f"{name}.")
        elif isinstance(value, Tensor):
            found[name] = value
        else:
            raise InputError(
                f"{path}: found a {type(value).__name__} under {name}, expected tensors only; take the file of the"
                " weights alone, or save its tensors into a new one"
            )
    return found


def _unreadable(path: Path, error: Exception) -> str:
    """Says whether the file is broken, or has objects that only code could rebuild."""
    text = str(error)
    if "nsupported global" not in text and "TorchScript" not in text:
        first = (text.splitlines() or [type(error).__name__])[0][:80]
        return (
            f"{path}: found what does not load ({first}), expected safetensors or what torch.save wrote; the file is"
            " cut short or another one, fetch it again"
        )
    return (
        f"{path}: found Python objects beside the tensors, expected tensors only, since rebuilding objects can run any"
        " code; if you trust where it came from, rewrite it once in a container without network: python -c 'import"
        f' torch; torch.save(torch.load("{path.name}", weights_only=False)["state_dict"], "tensors.pt")\''
    )
