"""What `--prior` names: told apart by looking, and only the backend that is meant is imported.

Nothing is downloaded, and nothing of a folder is run. A prior that holds a known motion also says how the subject has
to rest for it: `placement_of`, to be asked before the subject is opened.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from animate.config import SubjectConfig
from animate.priors.prior import Prior
from manifests.errors import InputError

if TYPE_CHECKING:
    from animate.priors.known import Placement

__all__ = ["open_prior", "placement_of"]

_KINDS = (
    "the folder of an MV-VDM pipeline (`mvv train` or `mvv model convert`)",
    "the folder of a diffusers pipeline: I2VGen-XL, Stable Video Diffusion or AnimateDiff",
    "a DynamiCrafter checkpoint (.ckpt, .safetensors, or the folder of one)",
    "clip:DATASET/CLIP_ID",
    "oracle:FILE.glb[#ANIMATION]",
)
_INDEX = "model_index.json"
_WEIGHTS = (".ckpt", ".safetensors", ".pt", ".pth", ".bin")


def placement_of(text: str) -> Placement | None:
    """How the subject has to rest for a prior that holds a known motion; None where any pose will do.

    A file of the subject that lacks the animation (it was exported at rest) is to be taken in its bind pose instead.

    Args:
        text: what `--prior` says.

    Raises:
        InputError: no such clip, file or animation.
        DatasetError: a damaged dataset.
    """
    if text.startswith("clip:"):
        from animate.priors.recorded import clip_placement, locate_clip

        return clip_placement(*locate_clip(text.removeprefix("clip:")))
    if text.startswith("oracle:"):
        from animate.priors.known import Placement
        from animate.priors.true_motion import truth_pose

        animation, start_s = truth_pose(*_file_and_animation(text))
        return Placement(animation=animation, start_s=start_s)
    return None


def open_prior(
    text: str,
    *,
    config: SubjectConfig = SubjectConfig(),  # noqa: B008 (frozen)
    center: np.ndarray | None = None,
    scale: float | None = None,
    box: np.ndarray | None = None,
    err_on_background: float = 0.0,
    device: torch.device | str = "cpu",
) -> Prior:
    """The prior that a text names.

    Args:
        text: what `--prior` says; see the kinds in the error of an unknown one.
        config: of the subject.
        center: (3,) of the subject's normalisation, world, z up; only an oracle needs it.
        scale: of the subject's normalisation; only an oracle needs it.
        box: (2, 3) lower and upper corner of the subject at rest, normalised, for an oracle to compare with its own.
        err_on_background: of an oracle, see there.
        device: of networks.

    Raises:
        InputError: nothing of the kind there, or it is damaged; lists the kinds.
        DatasetError: a damaged dataset.
    """
    if text.startswith("clip:"):
        from animate.priors.recorded import Recorded, locate_clip

        return Recorded(*locate_clip(text.removeprefix("clip:")), name=text)
    if text.startswith("oracle:"):
        from animate.priors.oracle import Oracle, raycast_truth
        from animate.priors.true_motion import open_truth

        assert center is not None, "an oracle is told how the subject was normalised"
        assert scale is not None, "an oracle is told how the subject was normalised"
        truth = open_truth(*_file_and_animation(text), config=config, center=center, scale=scale, box=box)
        render = raycast_truth(truth)
        return Oracle(render, name=text, err_on_background=err_on_background, keeps_look=True)
    return _network(text, device)


def _network(text: str, device: torch.device | str) -> Prior:
    if not text.strip():
        raise _unknown(text, "nothing")
    path = Path(text)
    folder = path / "model" if (path / "model" / _INDEX).is_file() else path
    if (folder / _INDEX).is_file():
        return _pipeline(folder, text, device)
    suffixes = {file.suffix for file in path.iterdir()} if path.is_dir() else {path.suffix} if path.is_file() else set()
    if suffixes & set(_WEIGHTS):
        from animate.priors.dynamicrafter.prior import DynamiCrafter

        return DynamiCrafter.from_folder(path, str(device))
    if path.is_dir():
        raise _unknown(text, f"a folder with neither {_INDEX} nor a checkpoint")
    raise _unknown(text, f"a file of type {path.suffix or 'none'}" if path.exists() else "no such file or folder")


def _pipeline(folder: Path, text: str, device: torch.device | str) -> Prior:
    try:
        index = json.loads((folder / _INDEX).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder / _INDEX}: found {error}, expected JSON; copy the folder again") from error
    kind = index.get("_class_name") if isinstance(index, dict) else None
    if kind == "MVAnimatePipeline":
        from animate.priors.mv_vdm import MultiView

        return MultiView.from_folder(folder, device)
    if kind == "I2VGenXLPipeline":
        from animate.priors.i2vgen_xl import I2VGenXL

        return I2VGenXL.from_folder(folder, str(device))
    if kind == "StableVideoDiffusionPipeline":
        from animate.priors.stable_video import StableVideo

        return StableVideo.from_folder(folder, str(device))
    if kind == "AnimateDiffPipeline":
        from animate.priors.animatediff import AnimateDiff

        return AnimateDiff.from_folder(folder, str(device))
    raise _unknown(text, f"a pipeline of class {kind}")


def _file_and_animation(text: str) -> tuple[str, str]:
    """A file may have # in its name: then it wins."""
    name = text.removeprefix("oracle:")
    path, sign, animation = name.rpartition("#")
    return (path, animation) if sign and not Path(name).is_file() else (name, "")


def _unknown(text: str, found: str) -> InputError:
    return InputError(f"--prior {text}: found {found}, expected one of: {'; '.join(_KINDS)}; nothing is downloaded")
