"""What decides a training run: one frozen, validated config, two presets of it, and what may change when it goes on.

Light on purpose: the command line reads it without torch. Sources of the defaults: the released trainer of Animate3D
(learning rate, optimiser, noise schedule, 4 views x 16 frames x 256 px, stride 3, text dropped one time in ten); where
we differ from it the field says so.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_type_hints

from manifests.errors import InputError

__all__ = [
    "FREE_ON_RESUME",
    "PRESETS",
    "ComputeConfig",
    "DataConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "SaveConfig",
    "TrainConfig",
    "from_dict",
    "preset",
    "to_dict",
]


def _check(good: bool, name: str, found: Any, expected: str) -> None:
    if not good:
        raise InputError(f"--{name.replace('_', '-')}: found {found}, expected {expected}")


def _check_choices(config: Any) -> None:
    hints = get_type_hints(type(config))
    for entry in dataclasses.fields(config):
        choices = get_args(hints[entry.name])
        if choices and all(isinstance(choice, str) for choice in choices):
            _check(getattr(config, entry.name) in choices, entry.name, getattr(config, entry.name), f"one of {choices}")


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which clips a model sees, in which order, and which part of each."""

    split: str = "train"
    """Split of the dataset."""
    source: Literal["rgb", "latents"] = "rgb"
    """`rgb` encodes images on the way; `latents` reads the series that `mvv latents` wrote."""
    views: int = 4
    """Views of a sample, evenly spaced among those of the clip."""
    frames: int = 16
    """Frames of a sample."""
    strides: tuple[int, ...] = (3,)
    """A sample takes every n-th frame, n drawn from these; what is longer than the clip is left out."""
    size: int = 256
    """Height and width of an image, pixels."""
    background: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Behind the object, sRGB-encoded 0 to 1; the public weights want 0.5 grey."""
    background_random: float = 0.0
    """Share of samples with a random colour behind the object instead."""
    captions: Literal["name", "none"] = "name"
    """Text of a clip that has no caption: the words of its asset's and animation's names, or none."""
    order_seed: int = 0
    """Of the order and of every draw about a clip."""
    block_shards: int = 8
    """Clips are shuffled within blocks of that many shards; bounds how far reads jump."""
    on_damage: Literal["raise", "skip"] = "raise"
    """A clip that does not decode ends the run, or is replaced by the next one and counted."""

    def __post_init__(self) -> None:
        _check_choices(self)
        for name in ("views", "frames", "block_shards"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _check(bool(self.strides) and min(self.strides) >= 1, "strides", self.strides, "one or more, each at least 1")
        _check(8 <= self.size <= 2048, "size", self.size, "8 to 2048 pixels")
        good = len(self.background) == 3 and all(0 <= value <= 1 for value in self.background)
        _check(good, "background", self.background, "three values from 0 to 1")
        _check(0 <= self.background_random <= 1, "background_random", self.background_random, "0 to 1")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Where the model comes from, and the switches of the paper's ablations."""

    base: str = ""
    """Folder of a pipeline to start from (`mvv model convert` makes one); empty starts from random weights."""
    scale: Literal["tiny", "sd15"] = "sd15"
    """Size of a model that starts from random weights: a few million parameters on pixels, or that of SD-1.5."""
    spatial_branch: bool = True
    """The spatiotemporal block's branch over all views of a frame; without it, AnimateDiff's temporal one alone."""
    mv2v_adapter: bool = True
    """Attention to frame 0 in every multi-view self-attention, and image tokens in every cross-attention."""
    train_all: bool = False
    """Train every weight of the UNet, not only the motion modules and the adapter."""
    init_seed: int = 0
    """Of random weights."""

    def __post_init__(self) -> None:
        _check_choices(self)


@dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """Noise, target and weights of the loss; frame 0 is clean and never in it."""

    prediction: Literal["epsilon", "v_prediction", "sample"] = "epsilon"
    """What the network predicts: noise, v, or the clean latents, which suits small networks on pixels."""
    beta_schedule: Literal["linear", "scaled_linear"] = "linear"
    """Betas from 0.00085 to 0.012; `linear` is AnimateDiff's and Animate3D's."""
    zero_terminal_snr: bool = False
    """Rescale the schedule so that the last step is pure noise (arXiv 2305.08891); not with epsilon."""
    min_snr_gamma: float = 0.0
    """Min-SNR weights (arXiv 2303.09556), usually 5; 0 is the plain mean."""
    drop_text: float = 0.1
    """Share of samples without their text, for guidance."""
    drop_image: float = 0.1
    """Share without image tokens; the released trainer has 0, although its sampler guides with dropped ones."""
    frame0_time_zero: bool = False
    """Give the clean frame 0 the timestep 0 instead of the others' one."""

    def __post_init__(self) -> None:
        _check_choices(self)
        for name in ("drop_text", "drop_image"):
            _check(0 <= getattr(self, name) < 1, name, getattr(self, name), "0 or more and less than 1")
        _check(0 <= self.min_snr_gamma < math.inf, "min_snr_gamma", self.min_snr_gamma, "0 or more")
        _check(
            not self.zero_terminal_snr or self.prediction != "epsilon",
            "zero_terminal_snr",
            f"together with {self.prediction}",
            "v_prediction or sample: pure noise says nothing about its own noise, and min-SNR would divide by 0",
        )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW, its schedule, and the batch."""

    batch_size: int = 32
    """Samples a step, over all ranks and accumulation steps."""
    micro_batch: int = 1
    """Samples a rank takes at a time; the gradient is accumulated over the rest."""
    learning_rate: float = 1e-4
    """Of AdamW."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of AdamW."""
    weight_decay: float = 1e-2
    """Of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients longer than this are shortened to it."""
    ema_decay: float = 0.9999
    """Of the moving average of the trained weights, with a warm-up; 0 is none. What is saved to sample from is it."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "micro_batch"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _check(
            self.batch_size % self.micro_batch == 0,
            "batch_size",
            self.batch_size,
            f"a multiple of --micro-batch, which is {self.micro_batch}",
        )
        _check(0 < self.learning_rate < math.inf, "learning_rate", self.learning_rate, "more than 0")
        _check(self.warmup_steps >= 0, "warmup_steps", self.warmup_steps, "0 or more")
        good = len(self.betas) == 2 and all(0 <= beta < 1 for beta in self.betas)
        _check(good, "betas", self.betas, "two values, 0 or more and less than 1")
        _check(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more")
        _check(0 < self.max_grad_norm < math.inf, "max_grad_norm", self.max_grad_norm, "more than 0")
        _check(0 <= self.ema_decay < 1, "ema_decay", self.ema_decay, "0 or more and less than 1")


@dataclass(frozen=True, kw_only=True)
class ComputeConfig:
    """How the work is done; a change may round differently, and is allowed when a run goes on."""

    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of the forward pass; trained weights stay fp32. `auto` is bf16 on a GPU."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass, motion blocks included: less memory, a third more time."""
    compile: bool = False
    """torch.compile on the repeated blocks."""
    attention: str = "native"
    """Attention backend by diffusers' name: native (SDPA), flash, _native_cudnn, flex, sage, xformers ..."""
    channels_last: bool = False
    """Memory layout of the convolutions."""
    fused_optimizer: bool = True
    """One kernel for the whole update, on a GPU."""
    loader_workers: int = 2
    """Processes that read and decode; 0 is this one. Changes no batch."""
    peak_tflops: float = 0.0
    """Of the device at this precision, for the logged MFU; 0 looks it up by the device's name."""

    def __post_init__(self) -> None:
        _check_choices(self)
        _check(self.loader_workers >= 0, "loader_workers", self.loader_workers, "0 or more")
        _check(self.peak_tflops >= 0, "peak_tflops", self.peak_tflops, "0 or more")


@dataclass(frozen=True, kw_only=True)
class SaveConfig:
    """How long to train, and what to write on the way."""

    steps: int = 100_000
    """Steps in all."""
    checkpoint_every: int = 1000
    """Steps between checkpoints; the last step always is one."""
    keep_checkpoints: int = 2
    """Newest checkpoints to keep."""
    log_every: int = 10
    """Steps between lines of the log."""
    validate_every: int = 1000
    """Steps between validations: loss and samples of fixed clips, as playing images; 0 is never."""
    validate_split: str = ""
    """Split of the validation clips; empty takes `val` where the dataset has it, else the trained split."""
    validate_clips: int = 2
    """Clips to sample from."""
    validate_sampling_steps: int = 25
    """Denoising steps of those samples."""
    guidance: float = 7.5
    """Classifier-free guidance of those samples, and by default of all that the saved pipeline makes; 1 is none."""
    wandb: bool = False
    """Also log to Weights & Biases, if it is installed."""

    def __post_init__(self) -> None:
        for name in ("steps", "checkpoint_every", "keep_checkpoints", "log_every", "validate_sampling_steps"):
            _check(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        _check(0 <= self.guidance <= 100, "guidance", self.guidance, "0 to 100")
        for name in ("validate_every", "validate_clips"):
            _check(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a training run."""

    preset: str = "base"
    """The preset this config began as."""
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    save: SaveConfig = field(default_factory=SaveConfig)

    def micro_batches(self, world_size: int) -> int:
        """Accumulation steps of each rank.

        Raises:
            InputError: the batch does not divide.
        """
        size, micro = self.optimizer.batch_size, self.optimizer.micro_batch
        _check(
            size % (world_size * micro) == 0,
            "batch_size",
            size,
            f"a multiple of ranks x --micro-batch, {world_size} x {micro}",
        )
        return size // (world_size * micro)


FREE_ON_RESUME = frozenset({"compute", "save", "optimizer.batch_size", "optimizer.micro_batch", "data.on_damage"})
"""Groups and fields that may differ when a run goes on; everything else makes it another run."""

PRESETS: dict[str, TrainConfig] = {
    "base": TrainConfig(),
    "tiny": TrainConfig(
        preset="tiny",
        data=DataConfig(frames=8, strides=(2,), size=32, block_shards=64),
        model=ModelConfig(scale="tiny", train_all=True),
        objective=ObjectiveConfig(prediction="sample", beta_schedule="scaled_linear", zero_terminal_snr=True),
        optimizer=OptimizerConfig(batch_size=4, micro_batch=4, learning_rate=2e-3, warmup_steps=50, ema_decay=0.99),
        compute=ComputeConfig(precision="fp32"),
        save=SaveConfig(steps=800, checkpoint_every=200, validate_every=200, validate_sampling_steps=20, guidance=1.0),
    ),
}
"""Name -> config. `base` is Animate3D's protocol; `tiny` learns something on two CPU cores in minutes."""


def preset(name: str) -> TrainConfig:
    """The preset of that name.

    Raises:
        InputError: unknown name, with the nearest one.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, 1)
        hint = f"; did you mean {near[0]}?" if near else "; choose one of them"
        raise InputError(f'--preset: found "{name}", expected one of {", ".join(sorted(PRESETS))}{hint}')
    return PRESETS[name]


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Plain JSON values, tuples as lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: dict[str, Any]) -> TrainConfig:
    """Inverse of `to_dict`.

    Raises:
        InputError: unknown or missing fields, or values out of range.
    """
    kinds = get_type_hints(TrainConfig)
    try:
        groups = {
            name: kinds[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in value.items()})
            if isinstance(value, dict) else value
            for name, value in values.items()
        }  # fmt: skip
        return TrainConfig(**groups)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"config: found {error}, expected the fields of this version; start a new run") from error
