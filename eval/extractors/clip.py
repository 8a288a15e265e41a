"""OpenAI's CLIP through open_clip: embeddings of frames, references and prompts, in 32-bit floats.

The models are open_clip's ``-quickgelu`` configurations. Under the plain names open_clip computes GELU from 2.29 on,
and with a local file says nothing of it; OpenAI trained with QuickGELU, so the constructor asserts it. Files may be
OpenAI's own (ViT-B-32.pt, ViT-L-14.pt: TorchScript archives), safetensors, or state dicts with the same names.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import open_clip
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock

from eval.extractor import Clip, Compute, Features
from eval.extractors.checkpoints import read_tensors
from eval.extractors.encode import encode_clips
from eval.extractors.passes import full_precision
from eval.extractors.preprocess import CLIP
from manifests.errors import InputError

__all__ = ["ClipB32", "ClipB32Eval", "ClipL14", "ClipL14Eval"]

_SETTINGS = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's archives keep among the tensors."""


class _Clip:
    """An image tower behind VBench's preprocess: features ``frames`` (frame, embedding) float32, not normalised."""

    weights: ClassVar[tuple[str, ...]]
    architecture: ClassVar[str]
    """Name of open_clip's configuration."""

    def __init__(self, checkpoint: Path, *, compute: Compute):
        """Loads the checkpoint.

        Raises:
            InputError: the file is none of the formats above, or of another network.
        """
        network = open_clip.CLIP(**open_clip.get_model_config(self.architecture))
        blocks = [module for module in network.modules() if isinstance(module, ResidualAttentionBlock)]
        assert all(isinstance(block.mlp.gelu, QuickGELU) for block in blocks), f"{self.architecture} without QuickGELU"
        tensors = _torchscript_tensors(checkpoint) if _is_torchscript(checkpoint) else read_tensors(checkpoint)
        try:
            # checkpoints.load_network builds without memory, but the text tower's mask is computed when it is built.
            network.load_state_dict({name: value for name, value in tensors.items() if name not in _SETTINGS})
        except RuntimeError as error:
            raise InputError(
                f"{checkpoint}: found tensors of another network ({' '.join(str(error).split())[:200]} ...), expected"
                f" the weights of {self.architecture}; see `mvv weights list` for the right file"
            ) from error
        self.network = network.eval().requires_grad_(False).to(compute.device)
        self.compute = compute

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """See `Extractor`."""
        return encode_clips(clips, self._frames, None, self.compute.batch_size)

    def _frames(self, images: np.ndarray) -> torch.Tensor:
        return self.network.encode_image(CLIP.floats(images, self.compute.device))


class _ClipEval(_Clip):
    """CLIP's own preprocess for frames and references, and prompts.

    Features ``frames`` (frame, embedding); ``reference`` (embedding,) where the clip has one; ``text`` (embedding,)
    where it has a prompt; ``tokens`` (2,): how many the prompt has and how many CLIP reads. Not normalised.
    """

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """See `Extractor`."""
        found = encode_clips(clips, self._images, self._images, self.compute.batch_size)
        prompts = sorted({clip.prompt for clip in clips if clip.prompt})
        texts = {prompt: self._text(prompt) for prompt in prompts}
        return [features | texts.get(clip.prompt, {}) for features, clip in zip(found, clips, strict=True)]

    def _images(self, images: np.ndarray) -> torch.Tensor:
        return self.network.encode_image(CLIP.eight_bit(images, self.compute.device))

    def _text(self, prompt: str) -> Features:
        tokenizer = open_clip.get_tokenizer(self.architecture)
        with full_precision():
            [embedding] = self.network.encode_text(tokenizer([prompt]).to(self.compute.device)).cpu().numpy()
        # Start and end count; what goes beyond is cut off by the tokenizer without a word.
        tokens = np.array([len(tokenizer.encode(prompt)) + 2, tokenizer.context_length])
        return {"text": embedding, "tokens": tokens}


class ClipB32(_Clip):
    """ViT-B/32 behind VBench's preprocess."""

    name: ClassVar[str] = "clip-b32@224"
    weights = ("openai-clip-vit-b-32",)
    architecture = "ViT-B-32-quickgelu"


class ClipL14(_Clip):
    """ViT-L/14 behind VBench's preprocess."""

    name: ClassVar[str] = "clip-l14@224"
    weights = ("openai-clip-vit-l-14",)
    architecture = "ViT-L-14-quickgelu"


class ClipB32Eval(_ClipEval):
    """ViT-B/32 behind CLIP's own preprocess."""

    name: ClassVar[str] = "clip-b32@eval"
    weights = ClipB32.weights
    architecture = ClipB32.architecture


class ClipL14Eval(_ClipEval):
    """ViT-L/14 behind CLIP's own preprocess."""

    name: ClassVar[str] = "clip-l14@eval"
    weights = ClipL14.weights
    architecture = ClipL14.architecture


def _is_torchscript(path: Path) -> bool:
    # The one member that tells it from a state dict, which is a zip archive as well.
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _torchscript_tensors(path: Path) -> Mapping[str, torch.Tensor]:
    """Parameters of a TorchScript archive; its reader builds no Python objects, and none of its code is called."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "`torch.jit.load` is deprecated", FutureWarning)
            return torch.jit.load(path, map_location="cpu").state_dict()
    except RuntimeError as error:
        raise InputError(
            f"{path}: found a TorchScript archive that does not load ({' '.join(str(error).split())[:100]}), expected"
            " OpenAI's; fetch it again and check it with `mvv weights verify`"
        ) from error
