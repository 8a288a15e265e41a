"""Composes a pipeline of ours from public weights, and takes the parts of one out again for other programs.

A base is MVDream with AnimateDiff's motion modules and IP-Adapter; Animate3D's weights on top make the released model.
Nothing is fetched: every source is a file or folder that is there. What fits together is decided before anything is
built, and the result appears under its name only when it is whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from manifests.errors import InputError
from train.convert import animate3d as animate3d_weights
from train.convert import animatediff as motion_weights
from train.convert import ip_adapter as ip_adapter_weights
from train.convert import mvdream as mvdream_weights
from train.convert.assemble import (
    base_of,
    build_unet,
    check_out,
    image_encoder_of,
    motion_adapter,
    own_unet,
    save_pipeline,
    whole_folder,
)
from train.convert.files import read_config, read_tensors
from train.convert.keys import PARTS, part_of
from train.models.adapter import FACTS, load_adapter, save_adapter

__all__ = ["EXPORTS", "KINDS", "Composed", "compose", "convert", "export", "identify"]

KINDS: dict[str, str] = {
    "mvdream": "MVDream on SD-1.5: sd-v1.5-4view.pt, or the folder in diffusers' form",
    "animatediff": "AnimateDiff's motion modules: v1-5-2 as folder, or mm_sd_v15_v2.ckpt",
    "ip-adapter": "ip-adapter_sd15, .safetensors or .bin",
    "animate3d": "animate3d_motion_modules.ckpt",
    "adapter": "folder of an adapter of ours: the trained weights alone",
    "pipeline": "a pipeline of ours",
}
"""Kind of source -> what it is."""

EXPORTS: dict[str, str] = {
    "animatediff": "folder for diffusers' MotionAdapter; the spatial branch does not fit in and is left out",
    "ip-adapter": "ip-adapter_sd15.safetensors, for diffusers' load_ip_adapter",
    "animate3d": "animate3d_motion_modules.ckpt, for Animate3D's own inference script",
    "adapter": "folder with the trained weights alone, which names the base that it was trained on by its hash",
}
"""Kind of export -> what is written."""


@dataclass(frozen=True)
class Composed:
    """What a pipeline was made of."""

    out: Path
    """Folder of the pipeline."""
    parts: dict[str, str] = field(default_factory=dict)
    """Key of `PARTS` -> the file or folder its weights come from; `new` where they are the start of a training."""
    parameters: dict[str, int] = field(default_factory=dict)
    """Key of `PARTS` -> number of parameters."""


def identify(source: Path) -> str:
    """The key of `KINDS` that a file or folder is, by what is in it.

    Raises:
        InputError: none of them.
    """
    source = Path(source)
    if source.is_dir():
        if (source / FACTS).is_file():
            return "adapter"
        if (source / "unet/config.json").is_file():
            ours = read_config(source / "unet").get("_class_name") == "MVUNetMotionModel"
            return "pipeline" if ours else "mvdream"
        if (source / "config.json").is_file() and read_config(source).get("_class_name") == "MotionAdapter":
            return "animatediff"
        raise InputError(
            f"{source}: found neither unet/config.json nor the config of a MotionAdapter, expected one of"
            f" {', '.join(KINDS)}; name the folder that holds them, or pass --kind"
        )
    names = read_tensors(source)
    checks: dict[str, Callable[[Mapping[str, Any]], bool]] = {
        "mvdream": mvdream_weights.is_mvdream_file,
        "animate3d": animate3d_weights.is_animate3d_file,
        "animatediff": motion_weights.is_motion_file,
        "ip-adapter": ip_adapter_weights.is_ip_adapter_file,
    }
    for kind, check in checks.items():
        if check(names):
            return kind
    shown = ", ".join(list(names)[:3])
    raise InputError(
        f"{source}: found tensors such as {shown}, expected those of {', '.join(checks)}; see `KINDS` for the files"
    )


def convert(
    source: Path,
    *,
    out: Path,
    kind: str = "auto",
    base: Path | None = None,
    motion: Path | None = None,
    ip_adapter: Path | None = None,
    image_encoder: Path | None = None,
    animate3d: Path | None = None,
    adapter: Path | None = None,
    seed: int = 0,
) -> Composed:
    """A pipeline folder from public weights: `compose` with the source in the place that its kind gives it.

    Args:
        source: MVDream, or weights to put into `base`.
        out: folder to make; must not exist yet, or be empty.
        kind: a key of `KINDS`, or `auto` to see from what is in the source.
        base: pipeline of ours that a source other than MVDream goes into.
        motion: as of `compose`.
        ip_adapter: as of `compose`.
        image_encoder: as of `compose`.
        animate3d: as of `compose`.
        adapter: as of `compose`.
        seed: as of `compose`.

    Raises:
        InputError: no base where one is needed; sources that do not fit together.
        StorageError: the disk is full or refuses.
    """
    kind = identify(source) if kind == "auto" else kind
    if kind not in KINDS:
        raise InputError(f'--kind: found "{kind}", expected auto or one of {", ".join(KINDS)}; choose one of them')
    given = {"motion": motion, "ip_adapter": ip_adapter, "animate3d": animate3d, "adapter": adapter}
    if kind in ("mvdream", "pipeline"):
        return compose(source, **given, image_encoder=image_encoder, out=out, seed=seed)
    if base is None:
        raise InputError(
            f"--base: found none for {source} ({kind}), expected the pipeline that it goes into; make one from MVDream"
        )
    place = {"animatediff": "motion", "ip-adapter": "ip_adapter"}.get(kind, kind)
    if given[place] not in (None, source):
        raise InputError(
            f"{given[place]}: found a second source of {kind} beside {source}, expected one; leave one out"
        )
    return compose(base, **{**given, place: source}, image_encoder=image_encoder, out=out, seed=seed)


def compose(
    base: Path,
    *,
    motion: Path | None = None,
    ip_adapter: Path | None = None,
    image_encoder: Path | None = None,
    animate3d: Path | None = None,
    adapter: Path | None = None,
    out: Path,
    seed: int = 0,
) -> Composed:
    """A pipeline folder of MVDream with what is given on top of it.

    Without `motion` or `animate3d` the motion modules are new and begin by changing nothing; without `ip_adapter` there
    is no MV2V-Adapter. The spatial branch is new unless `animate3d` has it.

    Args:
        base: MVDream (file or folder), or a pipeline of ours to put further weights into.
        motion: AnimateDiff's motion modules, file or folder.
        ip_adapter: IP-Adapter's file.
        image_encoder: folder of the CLIP image encoder that goes with it; by default `image_encoder` beside it.
        animate3d: Animate3D's released file; brings motion modules of its own.
        adapter: folder of an adapter of ours, which has to have been trained on just this base.
        out: folder to make; must not exist yet, or be empty.
        seed: of the new layers.

    Raises:
        InputError: a source that is not what it should be; sources that do not fit together.
        StorageError: the disk is full or refuses.
    """
    check_out(out)
    start = base_of(base)
    config, tensors = dict(start.unet_config), dict(start.unet)
    origin = dict.fromkeys(_parts(tensors), str(base))
    readers = (
        (motion, motion_weights.from_path),
        (ip_adapter, ip_adapter_weights.from_file),
        (animate3d, animate3d_weights.from_file),
    )
    for path, read in readers:
        if path is not None:
            fields, taken = read(path, config)
            config |= fields
            tensors |= taken
            origin |= dict.fromkeys(_parts(taken), str(path))
    encoder: dict[str, Any] = {}
    if config["mv2v_adapter"]:
        if "image" not in origin:
            raise InputError(
                f"{animate3d}: found no image attention in it nor in {base}, expected IP-Adapter's weights beside"
                " Animate3D's; pass --ip-adapter"
            )
        encoder = image_encoder_of(image_encoder, ip_adapter, config, start)
    unet = build_unet(config, start.unet, tensors, seed)
    if adapter is not None:
        load_adapter(unet, adapter)
        origin |= dict.fromkeys(_parts(unet.trainable_parameters()), str(adapter))
    save_pipeline(start, unet, encoder, Path(out))
    state = unet.state_dict()
    counts = {part: sum(v.numel() for name, v in state.items() if part_of(name) == part) for part in _parts(state)}
    return Composed(Path(out), {part: origin.get(part, "new") for part in counts}, counts)


def export(model: Path, *, kind: str, out: Path) -> Path:
    """A part of a pipeline of ours, in the form that other programs read.

    Args:
        model: folder of the pipeline.
        kind: a key of `EXPORTS`.
        out: folder to make; must not exist yet, or be empty.

    Returns:
        The file or folder to give to the other program.

    Raises:
        InputError: the pipeline does not have that part.
        StorageError: the disk is full or refuses.
    """
    if kind not in EXPORTS:
        raise InputError(f'--kind: found "{kind}", expected one of {", ".join(EXPORTS)}; choose one of them')
    model, out = Path(model), Path(out)
    check_out(out)
    config, tensors = own_unet(model)
    trained = animate3d_weights.TRAINED
    wanted = {"animatediff": ("motion",), "ip-adapter": ("image",), "animate3d": trained, "adapter": ("motion",)}[kind]
    lacking = [PARTS[part] for part in wanted if part not in _parts(tensors)]
    if lacking:
        raise InputError(
            f"{model}: found no weights of {'; '.join(lacking)}, expected them for {kind}; this model was made without"
        )
    with whole_folder(out) as folder:
        if kind == "animatediff":
            motion_adapter(*motion_weights.to_adapter(tensors, config)).save_pretrained(folder)
            return out
        if kind == "ip-adapter":
            save_file(ip_adapter_weights.to_file(tensors), folder / "ip-adapter_sd15.safetensors")
            return out / "ip-adapter_sd15.safetensors"
        if kind == "adapter":
            save_adapter(build_unet(config, tensors, tensors, 0), folder, base=model.resolve().name)
            return out
        torch.save(animate3d_weights.to_file(tensors), folder / "animate3d_motion_modules.ckpt")
        return out / "animate3d_motion_modules.ckpt"


def _parts(names: Mapping[str, Any]) -> list[str]:
    """The keys of `PARTS` that occur among our names."""
    found = {part_of(name) for name in names}
    return [part for part in PARTS if part in found]
