"""`mvv sample`: one object animated by a trained pipeline, as files that people and `mvv eval run` read.

    OUT/OBJECT/a000e+15/000.png ...   the frames of each view; the folder's name is the camera, relative to the front
    OUT/OBJECT.png  OUT/OBJECT.webp   views x frames; the views side by side, playing
    OUT/OBJECT.json                   what it was made of

Frame 0 is the object as it was given, through the VAE and back.
"""

from __future__ import annotations

import io
import json
import shutil
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from manifests.errors import InputError
from manifests.publish import write_bytes
from mvv.objects import ObjectViews, open_object
from mvv.pictures import contact_sheet

if TYPE_CHECKING:
    from pipelines.progress import Progress

__all__ = ["SampleOptions", "SampleSummary", "playing", "quiet", "sample"]

_SEEN_PX = 128


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """How a model is sampled from; 0 views or frames are those that it was trained with."""

    steps: int = 25
    """Denoising steps."""
    guidance: float | None = None
    """Classifier-free guidance; 1 is none. By default the model's own."""
    seed: int = 0
    """Of the noise."""
    views: int = 0
    """Views, evenly spaced; 0 is the model's own number."""
    frames: int = 0
    """Frames, the first one given; 0 is the model's own number."""
    free_init: int = 0
    """Rounds of FreeInit (arXiv 2312.07537), which smooths the start and multiplies the time; Animate3D takes 3."""
    negative_prompt: str = ""
    """What to keep away from."""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto takes a GPU where there is one, and works in bf16 there."""

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("views", 0), ("frames", 0), ("free_init", 0)):
            if getattr(self, name) < least:
                raise InputError(f"--{name.replace('_', '-')}: found {getattr(self, name)}, expected {least} or more")
        if self.views > 100 or self.frames > 1000:
            raise InputError(f"--views, --frames: found {self.views}, {self.frames}, expected at most 100 and 1000")
        if self.frames == 1:
            raise InputError("--frames: found 1, expected 2 or more: the first one is given")
        if self.guidance is not None and not 0 <= self.guidance <= 100:
            raise InputError(f"--guidance: found {self.guidance}, expected 0 to 100")


@dataclass(frozen=True)
class SampleSummary:
    """What was sampled."""

    out: Path
    name: str
    """Folder of the frames in `out`."""
    views: int
    frames: int
    seconds: float
    """Of the sampling alone."""


def sample(
    model: Path | str, object: str, prompt: str, out: Path | str, options: SampleOptions, *,
    progress: Progress | None = None,
) -> SampleSummary:  # fmt: skip
    """Animates one object.

    Args:
        model: folder of a pipeline, or of the run that trained it.
        object: see `mvv.objects.open_object`.
        prompt: what it should do; may be empty.
        out: folder to write to; an earlier sample of the object is replaced, other objects' samples stay.
        options: steps, guidance, shape.
        progress: told what happens.

    Raises:
        InputError: bad arguments, no pipeline or object there, or other files where the frames would be.
        DatasetError: a damaged dataset.
    """
    from eval.inputs.names import safe_name
    from pipelines.progress import Progress
    from train.models.build import load_pipeline

    told, folder = progress or Progress(), Path(out)
    quiet()
    pipeline = load_pipeline(_model_folder(Path(model)))
    config = pipeline.config
    num_views, num_frames = options.views or config.num_views, options.frames or config.num_frames
    views = open_object(object, views=num_views, size=config.size, background=tuple(config.background))
    name = safe_name(views.name)
    if (folder / name).exists() and not (folder / f"{name}.json").exists():
        raise InputError(
            f"--out: found {folder / name}, which is no sample of ours, expected none; choose another --out"
        )
    if cut := _tokens_cut(pipeline.tokenizer, prompt):
        told.note(f"--prompt: found {cut} tokens more than the model reads, they are left out; shorten the prompt")
    told.stage("sample", options.steps * max(1, options.free_init))
    began = time.monotonic()
    frames = _run(pipeline, views, prompt, num_frames, options, told)
    seconds = time.monotonic() - began
    record = {
        "model": str(model),
        "object": {"name": views.name, "source": views.source, "folder": name},
        "prompt": prompt,
        "prompt_tokens_cut": cut,
        "options": {entry: getattr(options, entry) for entry in options.__dataclass_fields__},
        "fps": float(config.fps),
        "size": config.size,
        "background": list(config.background),
        "seconds": round(seconds, 3),
        "device": str(pipeline.device),
        "versions": {package: version(package) for package in ("mvvideo", "torch", "diffusers")},
    }
    _write(folder, name, frames, views, record)
    return SampleSummary(folder, name, num_views, num_frames, seconds)


def _run(
    pipeline: Any, views: ObjectViews, prompt: str, num_frames: int, options: SampleOptions, told: Any
) -> np.ndarray:
    """(view, frame, height, width, 3) uint8."""
    import torch

    from train.cameras import camera_vectors

    device = options.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        pipeline.to(device)
    except (RuntimeError, AssertionError) as error:
        text = str(error).splitlines()[0]
        raise InputError(f"--device: found {device} ({text}), expected one that is there; see `mvv doctor`") from error
    if options.free_init:
        pipeline.enable_free_init(num_iters=options.free_init)
    pipeline.set_progress_bar_config(disable=True)
    vectors = None
    if pipeline.unet.config.camera_embed_dim:
        cameras = camera_vectors(views.c2w, views.front_azimuth_deg, pipeline.config.camera_convention)
        vectors = torch.from_numpy(cameras)[None]

    def step(_pipeline: Any, _step: int, _timestep: Any, kept: dict[str, Any]) -> dict[str, Any]:
        told.advance()
        return kept

    with warnings.catch_warnings(), torch.autocast("cuda", torch.bfloat16, enabled=device.startswith("cuda")):
        warnings.filterwarnings("ignore", "(?s)text .* tokens")  # told already
        made = pipeline(
            prompt,
            torch.from_numpy(views.images)[None],
            vectors,
            num_frames=num_frames,
            num_inference_steps=options.steps,
            guidance_scale=options.guidance,
            negative_prompt=options.negative_prompt,
            generator=torch.Generator("cpu").manual_seed(options.seed),
            callback_on_step_end=step,
        )
    return made.frames[0].permute(0, 1, 3, 4, 2).cpu().numpy()


def _write(folder: Path, name: str, frames: np.ndarray, views: ObjectViews, record: dict[str, Any]) -> None:
    from eval.items import view_name

    directions = views.directions()
    names = [view_name(*direction) for direction in directions]
    if len(set(names)) < len(names):
        raise InputError(
            f"--object: found two cameras of {views.name} at {max(names, key=names.count)}, expected directions that "
            "differ by a degree; give fewer --views"
        )
    record["cameras"] = [
        {"folder": view, "azimuth_deg": round(azimuth, 6), "elevation_deg": round(elevation, 6), "c2w": c2w.tolist()}
        for view, (azimuth, elevation), c2w in zip(names, directions, views.c2w, strict=True)
    ]
    # From now on the frames are ours, should anything below be cut short.
    write_bytes(folder / f"{name}.json", b"{}\n")
    shutil.rmtree(folder / name, ignore_errors=True)
    for view, images in zip(names, frames, strict=True):
        for number, image in enumerate(images):
            write_bytes(folder / name / view / f"{number:03d}.png", _encoded(image))
    frames = _enlarged(frames)
    sheet = contact_sheet(_reader(frames), *frames.shape[:2], frames.shape[3], frames.shape[2])
    write_bytes(folder / f"{name}.png", _saved(sheet, "PNG"))
    write_bytes(folder / f"{name}.webp", playing(frames, record["fps"]))
    write_bytes(folder / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())


def playing(frames: np.ndarray, fps: float) -> bytes:
    """An animated WebP with the views side by side.

    Args:
        frames: (view, frame, height, width, 3) uint8.
        fps: frames a second.
    """
    pictures = [Image.fromarray(np.concatenate(list(row), 1)) for row in frames.swapaxes(0, 1)]
    how = {"save_all": True, "append_images": pictures[1:], "duration": round(1000 / fps), "loop": 0, "quality": 90}
    return _saved(pictures[0], "WEBP", **how)


def _enlarged(frames: np.ndarray) -> np.ndarray:
    """Small images in whole multiples, for pictures that are looked at; the frames' own files keep their size."""
    times = max(1, _SEEN_PX // frames.shape[2])
    return frames.repeat(times, 2).repeat(times, 3)


def _reader(frames: np.ndarray) -> Any:
    def read(view: int, wanted: Sequence[int]) -> np.ndarray:
        chosen = frames[view, list(wanted)]
        return np.concatenate([chosen, np.full_like(chosen[..., :1], 255)], -1)

    return read


def _encoded(image: np.ndarray) -> bytes:
    return _saved(Image.fromarray(np.ascontiguousarray(image)), "PNG")


def _saved(image: Image.Image, kind: str, **how: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def quiet() -> None:
    """No bars of the libraries about parts of a second; ours tell of the work itself."""
    import diffusers.utils.logging
    import transformers.utils.logging

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()


def _model_folder(model: Path) -> Path:
    """The pipeline in a run's folder, else the folder itself."""
    return model / "model" if (model / "model" / "model_index.json").is_file() else model


def _tokens_cut(tokenizer: Any, prompt: str) -> int:
    found = len(tokenizer(prompt, verbose=False).input_ids)
    return max(0, found - tokenizer.model_max_length)
