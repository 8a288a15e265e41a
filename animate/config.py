"""What decides an animation: one frozen, validated config, and its presets for each method.

Light on purpose: the command line reads it without torch. Numbers of `released` are those of the code that Animate3D
released and of 3to4D's paper; where they are silent, of the code that 3to4D grew from (Animate124's threestudio
branch). `small` is for two CPU cores.
"""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from manifests.errors import InputError

__all__ = [
    "METHODS",
    "PRESETS",
    "AnimateConfig",
    "DeformationConfig",
    "DynamicConfig",
    "NerfConfig",
    "ReconstructionConfig",
    "RefinementConfig",
    "StaticConfig",
    "SubjectConfig",
    "from_dict",
    "preset",
    "to_dict",
]

Method = Literal["animate3d", "animate3d-mesh", "threetofour"]
METHODS: tuple[str, ...] = get_args(Method)
PRESETS = ("released", "small")


def _check(good: bool, name: str, found: Any, expected: str) -> None:
    if not good:
        raise InputError(f"--{name.replace('_', '-')}: found {found}, expected {expected}")


def _is(value: Any, hint: Any) -> bool:
    """Whether a value is what its field's type says; whole numbers count as fractions, truth values not as numbers."""
    inside = get_args(hint)
    if get_origin(hint) is tuple:
        kinds = inside[:1] * len(value) if isinstance(value, tuple) and Ellipsis in inside else inside
        return isinstance(value, tuple) and len(value) == len(kinds) and all(map(_is, value, kinds))
    if inside:
        return value in inside
    if hint in (int, float):
        return isinstance(value, int if hint is int else int | float) and not isinstance(value, bool)
    return isinstance(value, hint)


def _told(hint: Any) -> str:
    """A field's type, for people."""
    inside = get_args(hint)
    if get_origin(hint) is tuple:
        return "whole numbers" if Ellipsis in inside else f"{len(inside)} numbers"
    if inside:
        return f"one of {', '.join(inside)}"
    return {int: "a whole number", float: "a number", bool: "true or false", str: "words"}.get(hint, hint.__name__)


class _Checked:
    """Holds every field to its type, numbers to being finite, ranges to rise, and what `_AT_LEAST` says."""

    _AT_LEAST: dict[str, float] = {}  # noqa: RUF012 (a table of the class, no field)
    _UNDER = ""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]
            name = self._UNDER + entry.name
            value, hint = getattr(self, entry.name), hints[entry.name]
            _check(_is(value, hint), name, value, _told(hint))
            for number in value if isinstance(value, tuple) else (value,):
                if isinstance(number, int | float):
                    _check(math.isfinite(number), name, number, "a finite number")
            if "_range" in entry.name:
                _check(value[0] <= value[1], name, value, "two rising numbers")
            least = self._AT_LEAST.get(entry.name, 0 if entry.name.startswith("learning_rate") else -math.inf)
            if least > -math.inf:
                _check(value >= least, name, value, f"at least {least:g}")


@dataclass(frozen=True, kw_only=True)
class SubjectConfig(_Checked):
    """How the object at rest is brought into the space of the cameras, and its Gaussians."""

    front_azimuth_deg: float = 270.0
    """Azimuth of the object's front in its own world, z up; 270 is glTF's +Z."""
    up: Literal["auto", "y", "z"] = "auto"
    """Axis that points up in the file; auto: as glTF says for models, -y for Gaussian scenes as trainers write them."""
    radius: float = 0.4
    """Radius of the object at rest; the cameras see 0.5, the rest is room to move in."""
    gaussians: Literal["vertices", "surface"] = "vertices"
    """One Gaussian a vertex as released, or points spread over the surface that follow their triangles."""
    surface_points: int = 4000
    """Gaussians spread over the surface."""
    fit_steps: int = 0
    """Steps that fit a mesh's Gaussians to renders of it at rest, so that what differs later is motion; 0: none."""
    max_vertices: int = 200_000
    """A larger model is refused with an estimate of the memory that it would need."""

    _UNDER = "subject."
    _AT_LEAST = {"radius": 0.05, "surface_points": 16, "fit_steps": 0, "max_vertices": 3}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True)
class DeformationConfig(_Checked):
    """The HexPlane field that moves points, and how fast it learns."""

    space: tuple[int, ...] = (50, 100)
    """Cells along x, y and z of each scale."""
    time: tuple[int, ...] = (8, 16)
    """Cells along time of each scale."""
    channels: int = 16
    """Features of each scale."""
    hidden: int = 32
    """Width of the heads."""
    rigid: bool = True
    """A global rotation and translation beside the field."""
    learning_rate_planes: float = 1e-2
    """Of Adam, for the planes."""
    learning_rate_heads: float = 1e-4
    """Of Adam, for position, rotation and scale."""
    learning_rate_rigid: float = 1e-3
    """Of Adam, for the rigid motion."""

    _UNDER = "deformation."
    _AT_LEAST = {"channels": 1, "hidden": 1}  # noqa: RUF012

    def __post_init__(self) -> None:
        super().__post_init__()
        good = len(self.space) == len(self.time) >= 1 and min(*self.space, *self.time) >= 2
        _check(
            good,
            "deformation.space",
            (self.space, self.time),
            "as many scales in --space as in --time, each at least 2",
        )


@dataclass(frozen=True, kw_only=True)
class ReconstructionConfig(_Checked):
    """Animate3D, stage 1: the motion that a clip of a few fixed views shows."""

    steps: int = 800
    """Optimiser steps."""
    views: int = 4
    """Views of the target clip, evenly spaced."""
    frames: int = 16
    """Frames of the target clip, the object at rest among them as frame 0."""
    fps: float = 8.0
    """Frames a second of the target clip."""
    size: int = 256
    """Height and width of the images, pixels."""
    elevation_deg: float = 15.0
    """Of the target cameras."""
    distance: float = 1.5
    """Of the target cameras from the centre; the object's sphere has radius 0.5."""
    fov_y_deg: float = 40.0
    """Vertical field of view of the target cameras."""
    curriculum_steps: int = 50
    """A further frame joins every so many steps; 0: all from the start."""
    frames_per_step: int = 0
    """Frames drawn for a step from those that have joined; 0: all."""
    rgb_weight: float = 100.0
    """Of the mean squared error of colour, on the background."""
    mask_weight: float = 100.0
    """Of the mean squared error of coverage."""
    arap_weight: float = 12.0
    """Of the as-rigid-as-possible energy, summed over points, neighbours and frames."""
    arap_points: int = 512
    """Points drawn for that energy in a step; 0: all."""
    arap_neighbors: int = 3
    """Neighbours of a point in that energy; 0: all that share an edge with it (meshes)."""
    arap_unit: Literal["sphere", "edge"] = "sphere"
    """Unit of length in that energy: the object's radius, as released, or the edges, which suits coarse meshes too."""
    rest_relative: bool = False
    """Compare how images differ from frame 0: what the Gaussians get wrong at rest then does not look like motion."""
    visible_gradient: float = 0.1
    """Share of the Gaussians, drawn for each image, that its gradient reaches; 1: all."""
    blur_px: float = 0.0
    """Images are compared blurred by that much at first, sharp from half of the steps on; reaches larger motion."""
    fit_colors: int = 0
    """Steps that fit the Gaussians' colours to the target's frame 0; for priors whose images have light in them."""
    chunk: int = 16
    """Images rendered at a time; decides memory, not the result."""

    _UNDER = "recon."
    _AT_LEAST = {  # noqa: RUF012
        "steps": 0, "views": 1, "frames": 2, "fps": 0.01, "size": 8, "distance": 0.6, "fov_y_deg": 1,
        "curriculum_steps": 0, "frames_per_step": 0, "rgb_weight": 0, "mask_weight": 0, "arap_weight": 0,
        "arap_points": 0, "arap_neighbors": 0, "blur_px": 0, "fit_colors": 0, "chunk": 1, "visible_gradient": 0.001,
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(self.visible_gradient <= 1, "visible_gradient", self.visible_gradient, "at most 1")


@dataclass(frozen=True, kw_only=True)
class RefinementConfig(_Checked):
    """Animate3D, stage 2: the motion as the prior would have it from any side."""

    steps: int = 200
    """Optimiser steps; 0 leaves the stage out."""
    views: int = 4
    """Orthogonal views of a step; their common start is drawn."""
    size: int = 256
    """Height and width of the images, pixels."""
    sds_weight: float = 0.01
    """Of the distillation term."""
    sds_form: Literal["clean", "noise"] = "clean"
    """Distance to the predicted clean latents, as released, or the noise residual of DreamFusion."""
    timestep_range: tuple[float, float] = (0.02, 0.2)
    """Noise levels drawn, as shares of the prior's schedule."""
    guidance_scale: float = 6.0
    """Of classifier-free guidance; the released 5 is added on top of the conditional prediction."""
    guidance_rescale: float = 0.25
    """How far the guided prediction is brought back to the spread of the conditional one."""
    elevation_range_deg: tuple[float, float] = (0.0, 30.0)
    """Of the drawn cameras."""
    fov_range_deg: tuple[float, float] = (15.0, 60.0)
    """Of the drawn cameras."""
    distance_range: tuple[float, float] = (0.8, 1.0)
    """Of the drawn cameras: times the sphere's diameter, divided by twice tan(fov/2)."""
    reconstruction_size: int = 1024
    """Height and width of the renders of stage 1 that the motion is held to, pixels."""
    rgb_weight: float = 100.0
    """Of the colour error against these renders."""
    mask_weight: float = 100.0
    """Of the coverage error against these renders."""
    arap_weight: float = 12.0
    """Of the as-rigid-as-possible energy."""
    deform_scale: bool = True
    """The sizes of Gaussians may change (Gaussian scenes only)."""

    _UNDER = "refine."
    _AT_LEAST = {"steps": 0, "views": 1, "size": 8, "sds_weight": 0, "reconstruction_size": 8}  # noqa: RUF012

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.timestep_range
        _check(0 <= low <= high <= 1, "refine.timestep_range", self.timestep_range, "two shares from 0 to 1, rising")


@dataclass(frozen=True, kw_only=True)
class NerfConfig(_Checked):
    """The hash-grid field of 3to4D: a static grid and one of space and time, summed."""

    levels: int = 16
    """Resolutions of a grid."""
    features: int = 2
    """Features of a level."""
    log2_table: int = 19
    """Entries of a level's table, as a power of two."""
    base: int = 16
    """Cells along an axis of the coarsest level."""
    growth: float = 1.4473
    """From one level to the next."""
    hidden: int = 64
    """Width of the one hidden layer."""
    samples: int = 256
    """Points along a ray."""
    rays_chunk: int = 8192
    """Rays rendered at a time; decides memory, not the result."""
    learning_rate_static: float = 1e-2
    """Of the static grid while the object is learnt."""
    learning_rate_static_dynamic: float = 1e-4
    """Of the static grid while it learns to move."""
    learning_rate_time: float = 1e-2
    """Of the grid of space and time."""
    learning_rate_heads: float = 1e-3
    """Of the layers behind the grids."""

    _UNDER = "nerf."
    _AT_LEAST = {  # noqa: RUF012
        "levels": 1, "features": 1, "log2_table": 4, "base": 2, "growth": 1, "hidden": 1, "samples": 2,
        "rays_chunk": 1,
    }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class StaticConfig(_Checked):
    """3to4D, stage 1: the object as a field that stands still at all times."""

    steps: int = 5000
    """Optimiser steps, one random camera and time each."""
    size: int = 256
    """Height and width of the renders, pixels."""
    depth_weight: float = 1.0
    """Of the depth error; the paper prints equal weights."""
    normal_weight: float = 1.0
    """Of the normal error; the paper prints equal weights."""
    mask_weight: float = 1.0
    """Of the coverage error, which the paper leaves to the background's colour."""
    elevation_range_deg: tuple[float, float] = (-45.0, 45.0)
    """Of the drawn cameras."""

    _UNDER = "static."
    _AT_LEAST = {"steps": 1, "size": 8, "depth_weight": 0, "normal_weight": 0, "mask_weight": 0}  # noqa: RUF012


@dataclass(frozen=True, kw_only=True)
class DynamicConfig(_Checked):
    """3to4D, stage 2: motion by distillation from an image-to-video model. Its switches are the paper's ablations."""

    steps: int = 20_000
    """Optimiser steps."""
    frames: int = 16
    """Frames of a rendered video; the first is at time 0."""
    size: int = 256
    """Height and width of the frames, pixels."""
    image_to_video: bool = True
    """Condition on the object's render; off: text alone, as the first ablation."""
    viewpoints: Literal["incremental", "uniform", "four-views", "sweep"] = "incremental"
    """How a step's camera is chosen; uniform is the second ablation."""
    masked: bool = True
    """Weigh the gradient by the attention map of the object's word; off: the third ablation."""
    word: str = ""
    """The object's word in the prompt; empty: the first noun-like word of it."""
    mask_map: Literal["text", "image"] = "text"
    """Which cross-attention: of the prompt's word, or of the image tokens."""
    mask_normalization: Literal["max", "minmax", "mean", "none"] = "max"
    """How a frame's map becomes a weight: over its maximum, stretched to 0..1, over its mean, or as it is."""
    consistent_noise: bool = False
    """Noise painted on a sphere around the object, as in the paper's later version."""
    sds_weight: float = 1.0
    """Of the distillation term."""
    sds_form: Literal["clean", "noise"] = "noise"
    """The noise residual as the paper prints it, or the distance to the predicted clean latents."""
    static_weight: float = 1000.0
    """Of the error at time 0 against the object's render: the paper's lambda, not given there; Animate124 has 1000."""
    timestep_range: tuple[float, float] = (0.02, 0.98)
    """Noise levels drawn, as shares of the prior's schedule."""
    timestep_schedule: Literal["uniform", "decrease"] = "uniform"
    """Draw from the whole range throughout, or from an upper end that falls."""
    guidance_scale: float = 7.5
    """Of classifier-free guidance."""
    time_jitter: float = 0.5
    """How far a frame's time may stray, as a share of half the distance between frames; keeps their order."""
    elevation_range_deg: tuple[float, float] = (0.0, 30.0)
    """Of the drawn cameras."""
    distance: float = 1.5
    """Of the cameras from the centre."""
    fov_y_deg: float = 40.0
    """Of the cameras."""

    _UNDER = "dynamic."
    _AT_LEAST = {"steps": 0, "frames": 2, "size": 8, "sds_weight": 0, "static_weight": 0, "distance": 0.6}  # noqa: RUF012

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.timestep_range
        _check(0 <= low <= high <= 1, "dynamic.timestep_range", self.timestep_range, "two shares from 0 to 1, rising")
        _check(0 <= self.time_jitter <= 1, "dynamic.time_jitter", self.time_jitter, "0 to 1")


@dataclass(frozen=True, kw_only=True)
class AnimateConfig(_Checked):
    """Everything that decides a result, beside the model, the prompt and the prior."""

    method: Method = "animate3d-mesh"
    """`animate3d` moves Gaussians, `animate3d-mesh` the vertices, `threetofour` learns a moving field."""
    seed: int = 0
    """Of every draw."""
    device: str = "auto"
    """auto: CUDA where it is, else the CPU."""
    background: tuple[float, float, float] = (0.5, 0.5, 0.5)
    """Behind the object in every image, sRGB-encoded 0 to 1; a prior that was trained on another one overrides it."""
    subject: SubjectConfig = field(default_factory=SubjectConfig)
    deformation: DeformationConfig = field(default_factory=DeformationConfig)
    recon: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    refine: RefinementConfig = field(default_factory=RefinementConfig)
    nerf: NerfConfig = field(default_factory=NerfConfig)
    static: StaticConfig = field(default_factory=StaticConfig)
    dynamic: DynamicConfig = field(default_factory=DynamicConfig)
    frame_size: int = 0
    """Height and width of the exported pictures, pixels; 0: those of each protocol."""
    checkpoint_s: float = 60.0
    """Seconds between checkpoints; a run that was killed goes on from the last one."""
    preview_s: float = 20.0
    """Seconds between previews."""

    _AT_LEAST = {"seed": 0, "frame_size": 0, "checkpoint_s": 0, "preview_s": 0}  # noqa: RUF012

    def __post_init__(self) -> None:
        super().__post_init__()
        _check(all(0 <= value <= 1 for value in self.background), "background", self.background, "0 to 1 each")


def preset(name: str, method: str = "animate3d-mesh") -> AnimateConfig:
    """The preset of that name for a method.

    Args:
        name: one of `PRESETS`.
        method: one of `METHODS`.

    Raises:
        InputError: an unknown name, with the nearest one.
    """
    for option, found, known in (("--preset", name, PRESETS), ("--method", method, METHODS)):
        if found not in known:
            near = get_close_matches(found, known, 1)
            hint = f"; did you mean {near[0]}?" if near else "; choose one of them"
            raise InputError(f'{option}: found "{found}", expected one of {", ".join(known)}{hint}')
    return _small(method) if name == "small" else _released(method)


def _released(method: Any) -> AnimateConfig:
    # The mesh path draws three neighbours anew from those that share an edge, weighs ARAP with 4 and has no stage 2.
    if method != "animate3d-mesh":
        return AnimateConfig(method=method)
    return AnimateConfig(
        method=method, recon=ReconstructionConfig(arap_weight=4.0), refine=RefinementConfig(steps=0, arap_weight=4.0)
    )


def _small(method: Any) -> AnimateConfig:
    return AnimateConfig(
        method=method,
        subject=SubjectConfig(gaussians="surface", surface_points=3000, fit_steps=100),
        deformation=DeformationConfig(space=(8, 24), time=(8, 16), learning_rate_planes=2e-2, learning_rate_heads=5e-3),
        recon=ReconstructionConfig(
            steps=225 if method == "threetofour" else 450,  # which has half the frames
            size=64,
            curriculum_steps=15,
            frames_per_step=4,
            arap_weight=0.5,
            arap_unit="edge",
            arap_neighbors=0 if method == "animate3d-mesh" else 6,
            rest_relative=True,
            visible_gradient=1.0,
            blur_px=4.0,
        ),
        refine=RefinementConfig(
            steps=0 if method == "animate3d-mesh" else 60, size=64, reconstruction_size=64, arap_weight=0.5
        ),
        nerf=NerfConfig(levels=8, log2_table=14, base=8, growth=1.4, hidden=32, samples=48),
        static=StaticConfig(steps=300, size=48),
        dynamic=DynamicConfig(steps=300, frames=8, size=32),
    )


def to_dict(config: AnimateConfig) -> dict[str, Any]:
    """Plain JSON values, tuples as lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: dict[str, Any]) -> AnimateConfig:
    """Inverse of `to_dict`.

    Raises:
        InputError: unknown or missing fields, or values out of range.
    """
    return _build(AnimateConfig, values, "config")


def _build(kind: Any, values: Any, where: str) -> Any:
    entries = {entry.name for entry in dataclasses.fields(kind)}
    if not isinstance(values, dict) or set(values) != entries:
        odd = sorted(entries ^ set(values)) if isinstance(values, dict) else type(values).__name__
        raise InputError(f"{where}: found other fields ({odd}), expected those of {kind.__name__}; repeat the run anew")
    hints = get_type_hints(kind)

    def plain(name: str, value: Any) -> Any:
        if dataclasses.is_dataclass(hints[name]):
            return _build(hints[name], value, f"{where}.{name}")
        return tuple(value) if isinstance(value, list) else value

    return kind(**{name: plain(name, value) for name, value in values.items()})
