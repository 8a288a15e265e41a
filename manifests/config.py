"""What decides the content of a dataset: one frozen, validated config, four presets of it, and its hash.

Only fields that change what is stored live here; how the work is run (workers, memory, deadlines) is the pipelines'
business and may differ between a run and its repetition. Presets follow design 3.2: ``mv-video`` is MV-Video's own
protocol (Animate3D, NeurIPS 2024; data card), the two ``eval-*`` are the cameras that the papers score from.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_type_hints

from manifests.errors import InputError
from manifests.gltf.limits import Limits

__all__ = [
    "PRESETS",
    "BuildConfig",
    "CameraConfig",
    "MotionConfig",
    "PackConfig",
    "RenderConfig",
    "config_hash",
    "differences",
    "from_dict",
    "preset",
    "to_dict",
]


def _check(good: bool, name: str, found: Any, expected: str) -> None:
    if not good:
        raise InputError(f"--{name}: found {found}, expected {expected}")


def _check_choice(config: Any, *names: str) -> None:
    # The command line refuses other values by itself; a dataset.json of another version comes straight here.
    for name in names:
        choices = get_args(get_type_hints(type(config))[name])
        _check(getattr(config, name) in choices, name.replace("_", "-"), getattr(config, name), f"one of {choices}")


@dataclass(frozen=True, kw_only=True)
class CameraConfig:
    """Where the cameras stand: a ring of even azimuths, or a list of fixed ones."""

    views: int = 16
    """Cameras around the object."""
    size: int = 256
    """Width and height of an image, pixels."""
    fov_y_deg: float = 40.0
    """Vertical field of view, degrees."""
    distance: float = 1.5
    """From the object's centre, in units of normalised space (the object's sphere has radius 0.5)."""
    azimuth_jitter_deg: float = -1.0
    """The ring's offset is drawn from +- this, one an animation; -1 is half a step between two cameras."""
    elevation_min_deg: float = 0.0
    """The ring's elevation is drawn from this ..."""
    elevation_max_deg: float = 30.0
    """... to this, one an animation."""
    azimuths_deg: tuple[float, ...] = ()
    """Fixed cameras instead of a ring: azimuths from the object's front, one a view."""
    elevations_deg: tuple[float, ...] = ()
    """Elevations of the fixed cameras, one a view."""
    front_azimuth_deg: float = 270.0
    """Where the object's front looks, in the xy plane from +x towards +y; glTF's +z front is 270."""

    def __post_init__(self) -> None:
        _check(self.views >= 1, "views", self.views, "at least 1")
        _check(self.views <= 100, "views", self.views, "at most 100, the two digits of a member's name")
        _check(8 <= self.size <= 8192, "size", self.size, "8 to 8192 pixels")
        _check(1 <= self.fov_y_deg <= 150, "fov-y-deg", self.fov_y_deg, "1 to 150 degrees")
        _check(0.5 < self.distance < math.inf, "distance", self.distance, "more than 0.5, outside the object's sphere")
        for name in ("front_azimuth_deg", "azimuth_jitter_deg", "azimuths_deg"):
            found = getattr(self, name)
            _check(
                all(map(math.isfinite, found if isinstance(found, tuple) else (found,))),
                name.replace("_", "-"),
                found,
                "finite degrees",
            )
        steep = [e for e in self.elevations_deg if not -90 <= e <= 90]
        _check(not steep, "elevations-deg", steep, "-90 to 90")
        _check(
            len(self.azimuths_deg) == len(self.elevations_deg),
            "azimuths-deg, elevations-deg",
            f"{len(self.azimuths_deg)} and {len(self.elevations_deg)} values",
            "equally many",
        )
        if self.azimuths_deg:
            _check(
                self.views == len(self.azimuths_deg),
                "views",
                self.views,
                f"{len(self.azimuths_deg)}: this preset's cameras are fixed; choose another preset for another number",
            )
        _check(
            -90 <= self.elevation_min_deg <= self.elevation_max_deg <= 90,
            "elevation-min-deg, elevation-max-deg",
            f"{self.elevation_min_deg} and {self.elevation_max_deg}",
            "-90 <= min <= max <= 90",
        )


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """Which animations and which parts of them become clips."""

    frames: int = 48
    """Frames in a clip."""
    fps: float = 24.0
    """Frames a second."""
    stretch: bool = False
    """Sample the whole of an animation that is too short and does not loop, instead of rejecting it."""
    last_window: bool = True
    """Take a second window, at the end, from animations longer than two; the `eval-*` presets take the first alone."""
    max_animations: int = 6
    """Animations used per asset, drawn among the accepted (MV-Video: 6)."""
    min_motion: float = 0.01
    """Smallest peak displacement of a vertex, in radii of the clip's sphere; less is `static`."""
    loop_tolerance: float = 0.02
    """An animation loops if no vertex is further than this from its start at the end, in radii of its sphere."""
    min_frame0_radius: float = 0.2
    """Smallest radius of frame 0 in normalised space, of 0.5; less is `frame0-too-small`."""
    normalization: Literal["clip", "asset", "frame0", "given"] = "clip"
    """What decides centre and scale: each clip, the whole asset, frame 0 alone, or the two fields below."""
    given_center: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Centre for `given`, in the asset's world units."""
    given_scale: float = 1.0
    """Scale for `given`."""
    root_motion: Literal["keep", "remove"] = "keep"
    """`remove` takes the horizontal travel of the vertices' centroid out of every frame."""

    def __post_init__(self) -> None:
        _check(1 <= self.frames <= 1000, "frames", self.frames, "1 to 1000, the three digits of a member's name")
        _check(0 < self.fps <= 1000, "fps", self.fps, "more than 0 and at most 1000")
        _check(self.max_animations >= 1, "max-animations", self.max_animations, "at least 1")
        _check(self.min_motion >= 0, "min-motion", self.min_motion, "0 or more")
        _check(self.loop_tolerance >= 0, "loop-tolerance", self.loop_tolerance, "0 or more")
        _check(0 <= self.min_frame0_radius <= 0.5, "min-frame0-radius", self.min_frame0_radius, "0 to 0.5")
        _check(all(map(math.isfinite, self.given_center)), "given-center", self.given_center, "three finite numbers")
        _check(0 < self.given_scale < math.inf, "given-scale", self.given_scale, "more than 0")
        _check_choice(self, "normalization", "root_motion")


@dataclass(frozen=True, kw_only=True)
class RenderConfig:
    """How an image is made. Cycles on the CPU: the same bits for any number of threads and processes."""

    samples: int = 32
    """Paths a pixel."""
    denoise: bool = True
    """Run OpenImageDenoise, guided by albedo and normals; worth 1 to 2 dB at 32 samples, at little cost."""
    adaptive: bool = False
    """Let Cycles stop early where it finds little noise."""
    bounces: int = 4
    """Longest path, in bounces."""
    diffuse_bounces: int = 2
    """Of them, diffuse."""
    glossy_bounces: int = 2
    """Of them, glossy."""
    transmission_bounces: int = 4
    """Of them, through glass."""
    transparent_bounces: int = 8
    """Surfaces with alpha that a ray passes."""
    filter_width_px: float = 1.5
    """Width of the Blackman-Harris pixel filter."""
    lights: Literal["studio-1", "random"] = "studio-1"
    """`studio-1`, or a rig drawn for each clip; the same for every view of a clip."""
    depth: bool = False
    """Also store depth, as a parallel series."""
    normals: bool = False
    """Also store normals, as a parallel series."""

    def __post_init__(self) -> None:
        _check(1 <= self.samples <= 65536, "samples", self.samples, "1 to 65536")
        _check(0.01 <= self.filter_width_px <= 10, "filter-width-px", self.filter_width_px, "0.01 to 10")
        for name in ("bounces", "diffuse_bounces", "glossy_bounces", "transmission_bounces", "transparent_bounces"):
            _check(0 <= getattr(self, name) <= 1024, name.replace("_", "-"), getattr(self, name), "0 to 1024")
        _check_choice(self, "lights")


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How clips are put into shards."""

    clips_per_shard: int = 64
    """Clips in a tar."""
    splits: str = "train:1"
    """Shares of the splits, e.g. `train:0.9,val:0.1`; an asset's content decides where it goes."""
    webp_method: int = 2
    """Effort of the lossless WebP encoder, 0 to 6; changes bytes, never pixels."""

    def __post_init__(self) -> None:
        _check(self.clips_per_shard >= 1, "clips-per-shard", self.clips_per_shard, "at least 1")
        _check(0 <= self.webp_method <= 6, "webp-method", self.webp_method, "0 to 6")
        self.shares()

    def shares(self) -> dict[str, float]:
        """Split -> share, summing to 1, in the order given."""
        shares: dict[str, float] = {}
        for entry in self.splits.split(","):
            name, _, text = entry.strip().partition(":")
            try:
                share = float(text)
            except ValueError:
                share = math.nan
            good = name.isidentifier() and name.islower() and name not in shares and 0 < share < math.inf
            expected = "NAME:SHARE with a lower-case name, each once, and a share above 0, e.g. train:0.9,val:0.1"
            _check(good, "splits", entry, expected)
            shares[name] = share
        total = sum(shares.values())
        return {name: share / total for name, share in shares.items()}


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """Everything that decides the content of a dataset."""

    preset: str = "mv-video"
    """The preset this config began as."""
    seed: int = 0
    """Seed of cameras, lights, order, splits and render noise."""
    camera: CameraConfig = field(default_factory=CameraConfig)
    motion: MotionConfig = field(default_factory=MotionConfig)
    render: RenderConfig = field(default_factory=RenderConfig)
    pack: PackConfig = field(default_factory=PackConfig)
    limits: Limits = field(default_factory=Limits)


def _ring(elevation: float, *azimuths: float) -> list[tuple[float, float]]:
    return [(azimuth, elevation) for azimuth in azimuths]


def _fixed(cameras: list[tuple[float, float]], size: int) -> CameraConfig:
    azimuths, elevations = zip(*cameras, strict=True)
    return CameraConfig(views=len(cameras), size=size, azimuths_deg=azimuths, elevations_deg=elevations)


_EVAL_MOTION = MotionConfig(frames=16, fps=8.0, last_window=False)

PRESETS: dict[str, BuildConfig] = {
    "mv-video": BuildConfig(),
    "demo": BuildConfig(
        preset="demo",
        camera=CameraConfig(views=4, size=128),
        motion=MotionConfig(frames=16, fps=8.0),
        render=RenderConfig(samples=16),
        pack=PackConfig(clips_per_shard=512),
    ),
    "eval-animate3d": BuildConfig(
        preset="eval-animate3d",
        camera=_fixed(_ring(15, 0, 90, 180, 270) + _ring(0, 30, 120, 210, 300) + _ring(30, -45, 45, 135, 225), 1024),
        motion=_EVAL_MOTION,
    ),
    "eval-3to4d": BuildConfig(preset="eval-3to4d", camera=_fixed(_ring(0, 0, 90, 180, 270), 256), motion=_EVAL_MOTION),
}
"""Name -> config. Every field can be overridden, except the number of views where the cameras are fixed."""


def preset(name: str) -> BuildConfig:
    """The preset of that name.

    Raises:
        InputError: unknown name, with the nearest one.
    """
    if name not in PRESETS:
        near = get_close_matches(name, PRESETS, 1)
        hint = f"; did you mean {near[0]}?" if near else "; choose one of them"
        raise InputError(f'--preset: found "{name}", expected one of {", ".join(sorted(PRESETS))}{hint}')
    return PRESETS[name]


def to_dict(config: BuildConfig) -> dict[str, Any]:
    """Plain JSON values, tuples as lists."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: dict[str, Any]) -> BuildConfig:
    """Inverse of `to_dict`.

    Raises:
        InputError: unknown or missing fields, or values out of range.
    """
    groups = {"camera": CameraConfig, "motion": MotionConfig, "render": RenderConfig, "pack": PackConfig}
    try:
        parts: dict[str, Any] = {
            name: kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in values[name].items()})
            for name, kind in groups.items()
        }
        parts["limits"] = Limits(**values["limits"])
        return BuildConfig(**parts, **{k: v for k, v in values.items() if k not in parts})
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"config: found {error}, expected the fields of this version; build a new dataset") from error


def config_hash(config: BuildConfig) -> str:
    """SHA-256 of the canonical JSON; datasets with the same hash were asked for the same thing."""
    return hashlib.sha256(json.dumps(to_dict(config), sort_keys=True).encode()).hexdigest()


def differences(ours: dict[str, Any], theirs: dict[str, Any], prefix: str = "") -> list[str]:
    """One line for each field that differs: ``motion.frames: 16 here, 48 there``."""
    lines = []
    for name in sorted(ours.keys() | theirs.keys()):
        a, b = ours.get(name, "absent"), theirs.get(name, "absent")
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            lines.append(f"{prefix}{name}: {a} here, {b} there")
    return lines
