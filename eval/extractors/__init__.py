"""Backbones with their preprocess, by name. Importing this loads no network library; `find` does."""

from __future__ import annotations

from importlib import import_module

from eval.extractor import Extractor
from manifests.errors import InputError

__all__ = ["EXTRACTORS", "find"]

EXTRACTORS: dict[str, str] = {
    "dino@256crop": "eval.extractors.dino:Dino256Crop",
    "dino@256crop-noaa": "eval.extractors.dino:Dino256CropNoAntialias",
    "dino@224": "eval.extractors.dino:Dino224",
    "dino@object": "eval.extractors.dino:DinoObject",
    "clip-b32@224": "eval.extractors.clip:ClipB32",
    "clip-b32@eval": "eval.extractors.clip:ClipB32Eval",
    "clip-l14@224": "eval.extractors.clip:ClipL14",
    "clip-l14@eval": "eval.extractors.clip:ClipL14Eval",
    "aesthetic": "eval.extractors.aesthetic:Aesthetic",
    "lpips-alex": "eval.extractors.lpips:LpipsAlex",
    "lpips-vgg": "eval.extractors.lpips:LpipsVgg",
    "raft-things": "eval.extractors.raft:RaftThings",
    "raft-default": "eval.extractors.raft:RaftDefault",
    "amt-s": "eval.extractors.amt:AmtS",
    "viclip-l14": "eval.extractors.viclip:ViClip",
    "i3d": "eval.extractors.i3d:I3D",
    "flow-dis": "eval.extractors.classical:DisFlow",
}
"""Name -> ``module:class``."""


def find(name: str) -> type[Extractor]:
    """The class of an extractor: ``cls(*weight_files, compute=...)`` loads it, ``cls.weights`` names the files.

    Args:
        name: a key of `EXTRACTORS`.

    Raises:
        InputError: a package that it needs is not installed.
    """
    module, _, cls = EXTRACTORS[name].partition(":")
    try:
        return getattr(import_module(module), cls)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "eval":
            raise
        raise InputError(
            f"{name}: found no package {error.name}, expected the evaluation's packages; run "
            "`pip install 'mvvideo[eval]'`"
        ) from error
