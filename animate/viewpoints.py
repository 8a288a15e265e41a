"""Which cameras a step films through: the fixed ring of a target clip, and samplers for distillation.

All look at the origin of normalised space. Sources: Animate3D's released random cameras (orthogonal views, drawn as
threestudio and MVDream do); 3to4D, arXiv 2412.20422, table 3 (four ways to choose one view); SDS-Complete for the
widening of the incremental one. Intrinsics are `animate.shot.intrinsics_of`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from animate.config import DynamicConfig, ReconstructionConfig, RefinementConfig
from manifests.cameras import look_at_origin
from manifests.errors import InputError
from manifests.seeds import uniform

__all__ = ["SWEEP_DEG", "WIDENING", "Cameras", "Viewpoints", "orthogonal", "ring", "scattered"]

WIDENING = ((0.1, 0.0), (0.25, 30.0), (0.4, 45.0), (0.5, 60.0), (0.6, 90.0), (1.0, 180.0))
"""(until that share of the run, azimuth stays within that many degrees of the front). SDS-Complete's 2,000, 5,000,
8,000, 10,000 and 12,000 iterations as shares of the 20,000 that 3to4D runs."""
SWEEP_DEG = 2.0
"""Degrees of azimuth from one step of a sweep to the next, unless the run is too short for one round."""
_SPHERE_RADIUS = 0.5
_FOUR = 4
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, eq=False)
class Cameras:
    """Cameras of one step.

    Attributes:
        c2w: (V, 4, 4) float32, camera to world in normalised space; x right, y up, looking down -z.
        fov_y_deg: (V,) float32.
    """

    c2w: Tensor
    fov_y_deg: Tensor


def _cameras(views: list[tuple[float, float]], distance: float, fov_y_deg: float) -> Cameras:
    """Cameras at (azimuth, elevation) in degrees, at one distance with one field of view."""
    c2w = np.stack([look_at_origin(azimuth, elevation, distance) for azimuth, elevation in views])
    return Cameras(torch.from_numpy(c2w).float(), torch.full((len(views),), fov_y_deg))


def ring(config: ReconstructionConfig, front_azimuth_deg: float) -> Cameras:
    """The cameras of a target clip: evenly spaced in azimuth, the first before the object's front."""
    views = [(front_azimuth_deg + 360 * view / config.views, config.elevation_deg) for view in range(config.views)]
    return _cameras(views, config.distance, config.fov_y_deg)


def orthogonal(config: RefinementConfig, generator: torch.Generator) -> Cameras:
    """Draws evenly spaced views around the object (four: at right angles) that share everything but the azimuth.

    Args:
        config: ranges of elevation, field of view and distance; its distance counts the sphere's diameter over
            2 tan(fov / 2), so that 1 lets the sphere's cross-section through the centre fill the height.
        generator: of the five draws, on the CPU.

    Raises:
        InputError: the nearest camera of these ranges would stand within the object's sphere.

    Source: Animate3D's released random cameras, without their perturbations (which it sets to zero), in our scale.
    """
    nearest = config.distance_range[0] * _SPHERE_RADIUS / math.tan(math.radians(max(config.fov_range_deg)) / 2)
    if nearest <= _SPHERE_RADIUS:
        raise InputError(
            f"--distance-range: found {config.distance_range[0]} with fields of view up to {max(config.fov_range_deg)}"
            f" degrees, a camera {nearest:.2f} from the centre, expected more than the sphere's {_SPHERE_RADIUS};"
            " raise the distance or lower --fov-range-deg"
        )
    start, kind, height, field, depth = torch.rand(5, generator=generator, dtype=torch.float64).tolist()
    elevation = _elevation_deg(config.elevation_range_deg, kind, height)
    fov = _between(config.fov_range_deg, field)
    distance = _between(config.distance_range, depth) * _SPHERE_RADIUS / math.tan(math.radians(fov) / 2)
    views = [(360 * (start + view) / config.views, elevation) for view in range(config.views)]
    return _cameras(views, distance, fov)


def scattered(
    count: int,
    *,
    elevation_range_deg: tuple[float, float],
    distance: float,
    fov_y_deg: float,
    generator: torch.Generator,
) -> Cameras:
    """Draws views all around the object, each by itself.

    Args:
        count: of views.
        elevation_range_deg: lowest and highest.
        distance: from the centre.
        fov_y_deg: vertical field of view.
        generator: of the draws, on the CPU.

    Source: threestudio's rule: azimuth uniform, elevation half the time uniform in angle, else on the sphere.
    """
    draws = torch.rand(count, 3, generator=generator, dtype=torch.float64).tolist()
    views = [(360 * turn, _elevation_deg(elevation_range_deg, kind, height)) for turn, kind, height in draws]
    return _cameras(views, distance, fov_y_deg)


class Viewpoints:
    """One view a step, a pure function of seed and step, so that a run goes on after a stop as if there had been none.

    * ``incremental``: within an azimuth around the front that widens by `WIDENING`; the front alone, level, at first.
    * ``uniform``: anywhere, at any time.
    * ``four-views``: front, left, back and right at the level of the evaluation's views, in turn.
    * ``sweep``: a camera that goes round slowly, rising and falling on its way, nothing drawn.

    Args:
        kind: which; `DynamicConfig.viewpoints` lists them.
        config: ranges and lens; "level" is elevation 0, or the nearest to it in its range.
        steps: of the whole stage.
        front_azimuth_deg: of the object's front in normalised space.
        seed: of the draws.

    Source: arXiv 2412.20422, table 3. The first version's appendix, which defines the four, was not to be had: widths
    of `incremental` are SDS-Complete's, the four azimuths are the evaluation's, the speed of the sweep is ours.
    """

    def __init__(
        self, kind: str, config: DynamicConfig, steps: int, front_azimuth_deg: float, *, seed: int = 0
    ) -> None:
        kinds = {
            "incremental": self._incremental,
            "uniform": self._uniform,
            "four-views": self._four_views,
            "sweep": self._sweep,
        }
        assert kind in kinds, f"kind is {kind}"
        self._angles = kinds[kind]
        self.kind, self.config, self.steps = kind, config, max(steps, 1)
        self.front_azimuth_deg, self.seed = front_azimuth_deg, seed

    def at(self, step: int) -> Cameras:
        """The camera of a step, from 0; V is 1."""
        azimuth, elevation = self._angles(step)
        view = (self.front_azimuth_deg + azimuth, elevation)
        return _cameras([view], self.config.distance, self.config.fov_y_deg)

    def _draw(self, step: int, what: str) -> float:
        return uniform(0, 1, "viewpoints", self.seed, step, what)

    def _elevation(self, step: int) -> float:
        return _elevation_deg(self.config.elevation_range_deg, self._draw(step, "kind"), self._draw(step, "height"))

    @property
    def _level(self) -> float:
        low, high = self.config.elevation_range_deg
        return min(max(0.0, low), high)

    def _incremental(self, step: int) -> tuple[float, float]:
        share = step / self.steps
        width = next((width for until, width in WIDENING if share < until), WIDENING[-1][1])
        if width == 0:
            return 0.0, self._level
        return width * (2 * self._draw(step, "azimuth") - 1), self._elevation(step)

    def _uniform(self, step: int) -> tuple[float, float]:
        return 360 * self._draw(step, "azimuth"), self._elevation(step)

    def _four_views(self, step: int) -> tuple[float, float]:
        return 360 / _FOUR * (step % _FOUR), self._level

    def _sweep(self, step: int) -> tuple[float, float]:
        rounds = step * max(SWEEP_DEG / 360, 1 / self.steps)
        # The height's period and the round's are in the golden ratio, so that no round repeats an earlier one.
        phase = rounds * _GOLDEN % 1
        return 360 * rounds, _between(self.config.elevation_range_deg, 1 - abs(1 - 2 * phase))


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + (ends[1] - ends[0]) * share


def _elevation_deg(ends_deg: tuple[float, float], kind: float, share: float) -> float:
    """threestudio's elevation: uniform in angle for one half of the draws, uniform on the sphere for the other."""
    if kind < 0.5:
        return _between(ends_deg, share)
    low, high = (math.sin(math.radians(end)) for end in ends_deg)
    return math.degrees(math.asin(_between((low, high), share)))
