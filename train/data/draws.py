"""What chance decides about a clip in an epoch: views, frames, background, what is dropped, and the seed of its noise.

Every draw is keyed by (order seed, epoch, clip id, name of the draw) and by nothing else, so that a step is the same on
any number of ranks and workers, and no draw shifts another. Views and frames as in Animate3D's loader: evenly spaced
views from a drawn group, every n-th frame from a drawn phase.
"""

from __future__ import annotations

from dataclasses import dataclass

from manifests.errors import InputError
from manifests.seeds import digest, uniform
from train.config import DataConfig, ObjectiveConfig

__all__ = ["Draw", "draw", "fitting_strides"]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """What was drawn for one clip in one epoch.

    Attributes:
        views: camera indices in the clip, evenly spaced, rising.
        frames: time indices in the clip, evenly spaced, rising; the first is frame 0 of the sample.
        background: behind the object, sRGB-encoded, 0 to 1.
        drop_text: train without the caption.
        drop_image: train without the image tokens.
        noise_seed: 63 bits, for the generator of timestep and noise.
    """

    views: tuple[int, ...]
    frames: tuple[int, ...]
    background: tuple[float, float, float]
    drop_text: bool
    drop_image: bool
    noise_seed: int


def draw(
    config: DataConfig, objective: ObjectiveConfig, *, epoch: int, clip_id: str, num_views: int, num_frames: int
) -> Draw:
    """The draw of a clip in an epoch; equal arguments give an equal draw.

    Args:
        config: which part of a clip makes a sample, and the seed.
        objective: how often text and image are dropped.
        epoch: 0 or more.
        clip_id: the clip.
        num_views: views of the clip, a multiple of ``config.views``.
        num_frames: frames of the clip.

    Raises:
        InputError: too few views or frames, or views that do not divide.
    """
    strides = fitting_strides(config, num_views=num_views, num_frames=num_frames)
    key = (config.order_seed, epoch, clip_id)
    step = num_views // config.views
    first_view = _choice(step, *key, "views")
    stride = strides[_choice(len(strides), *key, "stride")]
    span = (config.frames - 1) * stride
    phase = _choice(num_frames - span, *key, "phase")
    background = config.background
    if uniform(0.0, 1.0, *key, "background") < config.background_random:
        red, green, blue = (uniform(0.0, 1.0, *key, "background", channel) for channel in ("red", "green", "blue"))
        background = (red, green, blue)
    return Draw(
        views=tuple(range(first_view, num_views, step)),
        frames=tuple(range(phase, phase + span + 1, stride)),
        background=background,
        drop_text=uniform(0.0, 1.0, *key, "text") < objective.drop_text,
        drop_image=uniform(0.0, 1.0, *key, "image") < objective.drop_image,
        noise_seed=int.from_bytes(digest(*key, "noise")[:8], "big") >> 1,
    )


def fitting_strides(config: DataConfig, *, num_views: int, num_frames: int) -> tuple[int, ...]:
    """The strides of the config that a clip of that many frames has room for.

    Raises:
        InputError: none of them, or views that cannot be spaced evenly.
    """
    if num_views % config.views or num_views < config.views:
        possible = [number for number in range(1, num_views + 1) if num_views % number == 0]
        raise InputError(
            f"--views: found {config.views}, expected a number that divides the {num_views} views of a clip, one of"
            f" {', '.join(map(str, possible))}; choose one of them or render more views"
        )
    strides = tuple(stride for stride in config.strides if (config.frames - 1) * stride < num_frames)
    if not strides:
        least = min(config.strides)
        longest = (num_frames - 1) // least + 1
        room = f"set --frames {longest} or less"
        if 1 < config.frames <= num_frames:
            room += f", or --strides {(num_frames - 1) // (config.frames - 1)}"
        raise InputError(
            f"--frames: found {config.frames} at --strides {' '.join(map(str, config.strides))}, which need"
            f" {(config.frames - 1) * least + 1} frames, expected at most the {num_frames} of a clip; {room}, or render"
            " more frames"
        )
    return strides


def _choice(number: int, *key: object) -> int:
    """An int in [0, number); the modulus leans by less than 2**-50 for any number here."""
    return int.from_bytes(digest(*key)[:8], "big") % number
