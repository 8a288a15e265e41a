"""Builds networks from tensors that are already checked, and writes a pipeline folder that appears whole or not at all.

What decides which tensors they are is in `train.convert.convert`; nothing here reads a foreign file but configs and the
image encoder. New layers of the UNet start as its own constructor makes them.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from manifests.errors import InputError, StorageError, refusal
from train.config import ObjectiveConfig
from train.convert import mvdream
from train.convert.files import read_config, read_folder
from train.convert.keys import parts_of, shapes_of, take, unet_shapes
from train.models.unet_mv_motion import MVUNetMotionModel

__all__ = [
    "Base",
    "base_of",
    "build_unet",
    "check_out",
    "image_encoder_of",
    "motion_adapter",
    "own_unet",
    "save_pipeline",
    "whole_folder",
]

CAMERA_CONVENTION = "animate3d"
"""Of all public weights that are read here: fronts at +x, MVDream's azimuth 90 and Animate3D's 0."""


@dataclass(frozen=True)
class Base:
    """What a pipeline is composed on.

    `unet_config` is for MVUNetMotionModel; `unet` its weights as far as there are some, our name -> tensor; `pipeline`
    holds the other components under the names that MVAnimatePipeline takes, and `facts` its registered values.
    """

    unet_config: dict[str, Any]
    unet: dict[str, Tensor]
    pipeline: dict[str, Any]
    facts: dict[str, Any]


def base_of(path: Path) -> Base:
    """MVDream, as file or folder, or a pipeline of ours.

    Raises:
        InputError: neither, or damaged.
    """
    path = Path(path)
    if path.is_dir() and (path / "model_index.json").is_file() and _is_own(path):
        return _own_base(path)
    parts = mvdream.from_folder(path) if path.is_dir() else mvdream.from_file(path)
    from diffusers import AutoencoderKL
    from transformers import CLIPTextConfig, CLIPTextModel

    from train.models.build import scheduler_of
    from train.tokenizer import clip_tokenizer

    tokenizer = clip_tokenizer()
    text_config = CLIPTextConfig(**parts.text_config)
    if text_config.vocab_size != len(tokenizer):
        raise InputError(
            f"{path}: found a text encoder for {text_config.vocab_size} tokens, expected CLIP's {len(tokenizer)}; take"
            " MVDream's own"
        )
    components = {
        "vae": _filled(lambda: AutoencoderKL.from_config(parts.vae_config), parts.vae),
        "text_encoder": _filled(lambda: CLIPTextModel(text_config), parts.text),
        "tokenizer": tokenizer,
        "scheduler": scheduler_of(ObjectiveConfig()),
        "image_encoder": None,
        "feature_extractor": None,
    }
    # What no source brings is new: motion modules that change nothing yet, and no adapter.
    config = {**parts.unet_config, "mv2v_adapter": False}
    return Base(config, parts.unet, components, {"camera_convention": CAMERA_CONVENTION})


def own_unet(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """(config, name -> tensor) of the UNet of a pipeline of ours.

    Raises:
        InputError: not one of ours, or damaged.
    """
    config, tensors, path = read_folder(Path(folder) / "unet")
    if config.get("_class_name") != "MVUNetMotionModel":
        raise InputError(
            f"{folder}: found a {config.get('_class_name')}, expected MVUNetMotionModel; name a pipeline of ours"
        )
    config = {name: value for name, value in config.items() if not name.startswith("_")}
    shapes = unet_shapes(config)
    names = {name: name for name in shapes}
    what, hint = f"the {len(shapes)} tensors of its config", "the folder is damaged, make it again"
    return config, take(tensors, names, shapes, where=str(path), what=what, hint=hint)


def build_unet(
    config: Mapping[str, Any], base: Mapping[str, Tensor], tensors: Mapping[str, Tensor], seed: int
) -> MVUNetMotionModel:
    """Our UNet with these weights; what they leave out starts as its constructor and `start_new_layers` have it.

    Args:
        config: of `MVUNetMotionModel`.
        base: weights that new layers start from.
        tensors: all weights there are, those of `base` among them.
        seed: of the new layers.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        unet = MVUNetMotionModel(**config)
    _fill(unet, parts_of(base, "base", "camera"))
    # New queries are copies of the base's, and this call zeroes outputs: it has to come before the other weights.
    unet.start_new_layers()
    return _fill(unet, tensors).eval()


def image_encoder_of(folder: Path | None, beside: Path | None, config: Mapping[str, Any], base: Base) -> dict[str, Any]:
    """The CLIP image encoder that image tokens are made with, and its feature extractor, as components.

    Args:
        folder: that holds it; None takes `image_encoder` beside the adapter's file, else the base's own.
        beside: the adapter's file.
        config: of our UNet.
        base: may have an encoder.

    Raises:
        InputError: none found, damaged, or of another width.
    """
    from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

    if folder is None and beside is not None and (Path(beside).parent / "image_encoder").is_dir():
        folder = Path(beside).parent / "image_encoder"
    if folder is None:
        if base.pipeline.get("image_encoder") is not None:
            return {}
        raise InputError(
            "--image-encoder: found none, expected the folder of the CLIP image encoder that goes with IP-Adapter"
            " (h94/IP-Adapter, models/image_encoder); pass it, or put it beside the adapter's file"
        )
    found, tensors, path = read_folder(Path(folder))
    vision = CLIPVisionConfig(**{name: value for name, value in found.items() if name != "model_type"})
    if vision.projection_dim != config["image_embed_dim"]:
        raise InputError(
            f"{folder}: found embeddings of {vision.projection_dim} channels, expected {config['image_embed_dim']} as"
            " the adapter has; take the encoder that goes with it (ViT-H/14 for ip-adapter_sd15)"
        )
    shapes = shapes_of(lambda: CLIPVisionModelWithProjection(vision))
    names = {name: name for name in shapes}
    weights = take(
        tensors,
        names,
        shapes,
        where=str(path),
        what=f"the {len(names)} tensors of a CLIPVisionModelWithProjection",
        hint="fetch the folder again",
        dropped=("vision_model.embeddings.position_ids",),
    )
    size = vision.image_size
    return {
        "image_encoder": _filled(lambda: CLIPVisionModelWithProjection(vision), weights),
        "feature_extractor": CLIPImageProcessor(
            size={"shortest_edge": size}, crop_size={"height": size, "width": size}
        ),
    }


def motion_adapter(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> nn.Module:
    """diffusers' MotionAdapter with these weights."""
    from diffusers import MotionAdapter

    return _fill(MotionAdapter(**config), tensors)


def save_pipeline(base: Base, unet: MVUNetMotionModel, encoder: Mapping[str, Any], out: Path) -> None:
    """Writes the pipeline folder.

    Args:
        base: the components beside the UNet.
        unet: the network.
        encoder: components that replace the base's.
        out: the folder.
    """
    from train.pipeline import MVAnimatePipeline

    pipeline = MVAnimatePipeline(unet=unet, **{**base.pipeline, **encoder}, **base.facts)
    with whole_folder(out) as folder:
        pipeline.save_pretrained(folder, safe_serialization=True)


def check_out(out: Path) -> None:
    """That nothing is overwritten.

    Raises:
        InputError: a file, or a folder that is not empty.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise InputError(f"--out: found {out}, expected a folder that is empty or not there yet; choose another one")


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A fresh folder beside `out` that takes its name when the block ends without error, and is removed otherwise.

    Raises:
        StorageError: the disk is full or refuses.
    """
    out = Path(out)
    trial = out.with_name(f".{out.name}.{os.getpid()}-{secrets.token_hex(6)}.attempt")
    try:
        trial.mkdir(parents=True)
        yield trial
        os.replace(trial, out)  # an empty folder in its place is replaced
    except OSError as error:
        shutil.rmtree(trial, ignore_errors=True)
        if (told := refusal(error)) is not None:
            raise told from error
        raise
    except (RuntimeError, SafetensorError) as error:
        shutil.rmtree(trial, ignore_errors=True)
        # Neither torch.save nor safetensors passes the system's error on; only their text says that writing failed.
        if any(words in str(error) for words in ("No space left", "PytorchStreamWriter", "quota")):
            raise StorageError(
                f"{out}: found a disk that took no more ({str(error).splitlines()[0][:80]}), expected free space; free"
                " some and repeat the same command"
            ) from error
        raise
    except BaseException:
        shutil.rmtree(trial, ignore_errors=True)
        raise


def _is_own(folder: Path) -> bool:
    return read_config(folder / "unet").get("_class_name") == "MVUNetMotionModel"


def _own_base(folder: Path) -> Base:
    from train.models.build import load_pipeline

    pipeline = load_pipeline(folder)
    components = {name: value for name, value in pipeline.components.items() if name != "unet"}
    facts = {name: value for name, value in pipeline.config.items() if name not in pipeline.components}
    config = {name: value for name, value in pipeline.unet.config.items() if not name.startswith("_")}
    facts = {name: value for name, value in facts.items() if not name.startswith("_")}
    return Base(config, pipeline.unet.state_dict(), components, facts)


def _filled(make: Callable[[], nn.Module], tensors: Mapping[str, Tensor]) -> nn.Module:
    """A network built without memory, with these weights in it; all of them, under exactly its names."""
    with torch.device("meta"):
        network = make()
    network.load_state_dict(dict(tensors), strict=True, assign=True)
    for name, buffer in network.named_buffers():
        if buffer.is_meta:  # transformers' CLIP counts positions in a buffer that is not saved
            assert name.endswith("position_ids"), f"nothing says what is in the buffer {name}"
            owner = network.get_submodule(name.rpartition(".")[0])
            owner.position_ids = torch.arange(buffer.shape[-1]).expand(1, -1)
    return network.eval()


def _fill(network: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Replaces some of a network's weights; all of the tensors have a place in it."""
    state = network.state_dict()
    assert tensors.keys() <= state.keys(), f"{sorted(tensors.keys() - state.keys())[:3]} are not in the network"
    network.load_state_dict({**state, **tensors}, strict=True, assign=True)
    return network
