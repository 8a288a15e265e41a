"""A radiance field that stands still or moves: 3to4D's, after 4D-fy.

Features of a grid of space and of one of space and time are summed; one hidden layer each makes density and colour of
them. Sources: 4D-fy (arXiv 2311.17984) and its released config for the field, whose sphere has radius 1 where ours has
0.5; Max, "Optical Models for Direct Volume Rendering" (1995) for the images. Which images are wanted is not said here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from animate.config import NerfConfig
from animate.fields.hash_grid import HashGrid

__all__ = ["NerfImages", "StaticDynamicNerf"]

_RADIUS = 0.5
"""Of the sphere that holds everything."""
_BLOB = 10.0
"""Bias of the density before softplus at the centre; 0 at half the radius."""
_STEP = 0.005
"""Of the finite differences that give normals: a hundredth of the radius."""
_UNSEEN = 1e-4
"""Samples of less weight give no normal, which is where most of the time would go."""


class NerfImages(NamedTuple):
    """What is seen, each expected over where light comes from; nothing where it passes through.

    Attributes:
        images: (I, 3, H, W), sRGB-encoded 0 to 1, composited, or premultiplied without a background.
        alphas: (I, 1, H, W), 0 to 1.
        depth: (I, 1, H, W), along the camera's axis, times coverage.
        normals: (I, 3, H, W), world axes, times coverage; None where not asked for.
    """

    images: Tensor
    alphas: Tensor
    depth: Tensor
    normals: Tensor | None


class StaticDynamicNerf(nn.Module):
    """Density and colour in a sphere of radius 0.5, at times 0 to 1.

    The grid of space and time begins at zero: until it is trained, the field is the grid of space alone, exactly. Its
    gradient is not zero, since it is summed with the other before the layers.

    Args:
        config: sizes and learning rates.
        generator: of the initial weights; None takes torch's own.
    """

    def __init__(self, config: NerfConfig, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.config = config
        sizes = (config.levels, config.features, config.log2_table, config.base, config.growth)
        self.static = HashGrid(3, *sizes, generator=generator)
        self.time = HashGrid(4, *sizes, zero=True)
        width = config.levels * config.features
        self.density_head = _head(width, config.hidden, 1, generator)
        self.color_head = _head(width, config.hidden, 3, generator)

    def render(
        self,
        c2w: Tensor,
        K: Tensor,
        size: tuple[int, int],
        times: Tensor | None,
        *,
        samples: int | None = None,
        generator: torch.Generator | None = None,
        background: Tensor | Sequence[float] | None = None,
        normals: bool = False,
    ) -> NerfImages:
        """Images, differentiable in all weights.

        Args:
            c2w: (I, 4, 4), camera to world in normalised space; x right, y up, looking down -z.
            K: (I, 3, 3), pixels.
            size: height and width, pixels.
            times: (I,), 0 to 1; None: the grid of space alone.
            samples: along a ray's way through the sphere; None takes the config's.
            generator: of the samples' places within their parts of the ray; None takes the middles.
            background: (3,), sRGB-encoded 0 to 1; None: black, which makes images premultiplied.
            normals: give normals, by three more densities where something is.

        Returns:
            The images. More rays than `config.rays_chunk` are rendered again in the backward pass, part by part.
        """
        images = []
        pixels = len(c2w) * size[0] * size[1]
        for image in range(len(c2w)):
            tables = self._tables(None if times is None else float(times[image]))
            rays = _rays(c2w[image], K[image], size)
            seen = torch.nonzero(rays.far > rays.near)[:, 0]
            values = torch.zeros(size[0] * size[1], 8 if normals else 5, dtype=c2w.dtype, device=c2w.device)
            for part in seen.split(self.config.rays_chunk):
                part_rays = _Rays(*(values[part] for values in rays))
                places = _places(part_rays, samples or self.config.samples, generator)
                arguments = (tables, part_rays, places, normals)
                again = torch.is_grad_enabled() and pixels > self.config.rays_chunk
                march = _repeatable(self._march) if again else self._march
                values = values.index_copy(0, part, march(*arguments))
            images.append(values.t().unflatten(1, size))
        stack = torch.stack(images)
        colors, alphas = stack[:, :3], stack[:, 3:4]
        if background is not None:
            colors = colors + (1 - alphas) * torch.as_tensor(background).to(stack)[:, None, None]
        return NerfImages(colors, alphas, stack[:, 4:5], stack[:, 5:] if normals else None)

    def field(self, points: Tensor, time: float | None = None) -> tuple[Tensor, Tensor]:
        """Density (N,) per unit of length and colour (N, 3) 0 to 1 of points (N, 3) at a time 0 to 1, None: no time."""
        raw, features = self._raw(points, self._tables(time))
        return _density(raw), torch.sigmoid(self.color_head(features))

    def _tables(self, time: float | None) -> list[Tensor]:
        if time is None:
            return list(self.static.tables)
        return [still + now for still, now in zip(self.static.tables, self.time.tables_at(time), strict=True)]

    def _raw(self, points: Tensor, tables: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Density before softplus (N,), and the features (N, width)."""
        features = self.static(points / (2 * _RADIUS) + 0.5, tables)
        blob = _BLOB * (1 - points.norm(dim=1) / (_RADIUS / 2))
        return self.density_head(features)[:, 0] + blob, features

    def _march(self, tables: list[Tensor], rays: _Rays, places: Tensor, normals: bool) -> Tensor:
        """Colour, coverage, depth and perhaps normal (R, 5 or 8) of rays, sampled at depths `places` (R, S)."""
        points = (rays.origins[:, None] + places[:, :, None] * rays.directions[:, None]).flatten(0, 1)
        raw, features = self._raw(points, tables)
        steps = (rays.far - rays.near) / places.shape[1] * rays.directions.norm(dim=1)
        thickness = _density(raw).view_as(places) * steps[:, None]
        # Light that reaches a sample, times what of it the sample sends: absorption and emission of equal parts.
        weights = torch.exp(thickness - thickness.cumsum(1)) * -torch.expm1(-thickness)
        colors = torch.sigmoid(self.color_head(features)).unflatten(0, places.shape)
        parts = [
            (weights[:, :, None] * colors).sum(1),
            weights.sum(1, keepdim=True),
            (weights * places).sum(1)[:, None],
        ]
        if normals:
            seen = torch.nonzero(weights.detach().flatten() > _UNSEEN)[:, 0]
            given = weights.flatten()[seen, None] * self._normals(points[seen], raw[seen], tables)
            parts.append(torch.zeros_like(parts[0]).index_add(0, seen // places.shape[1], given))
        return torch.cat(parts, 1)

    def _normals(self, points: Tensor, raw: Tensor, tables: list[Tensor]) -> Tensor:
        """Unit vectors (N, 3) down the density; softplus rises everywhere and leaves the direction as it is."""
        offsets = _STEP * torch.eye(3, dtype=points.dtype, device=points.device)
        around = self._raw((points[:, None] + offsets).flatten(0, 1), tables)[0].view(-1, 3)
        return F.normalize(raw[:, None] - around, dim=1, eps=1e-6)

    def parameter_groups(self, stage: Literal["static", "dynamic"]) -> list[dict[str, Any]]:
        """Parameters by learning rate, each with its `name`, for Adam with eps 1e-15.

        The static stage leaves the grid of space and time out: the object stands still at all times.
        """
        config, still = self.config, stage == "static"
        rate = config.learning_rate_static if still else config.learning_rate_static_dynamic
        heads = [*self.density_head.parameters(), *self.color_head.parameters()]
        groups = [
            {"name": "static", "params": list(self.static.parameters()), "lr": rate},
            {"name": "heads", "params": heads, "lr": config.learning_rate_heads},
        ]
        time = {"name": "time", "params": list(self.time.parameters()), "lr": config.learning_rate_time}
        return groups if still else [*groups, time]


class _Rays(NamedTuple):
    """Origins (R, 3), directions (R, 3) one unit of depth long, depths (R,) where they enter and leave the sphere."""

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor


def _rays(c2w: Tensor, K: Tensor, size: tuple[int, int]) -> _Rays:
    """Rays through the centres of all pixels, row by row; of those that miss the sphere `far` is not above `near`."""
    y, x = torch.meshgrid(*(torch.arange(n, dtype=c2w.dtype, device=c2w.device) + 0.5 for n in size), indexing="ij")
    axes = [(x - K[0, 2]) / K[0, 0], (K[1, 2] - y) / K[1, 1], -torch.ones_like(x)]
    directions = torch.stack(axes, -1).view(-1, 3) @ c2w[:3, :3].t()
    origins = c2w[:3, 3].expand_as(directions)
    square, along = directions.square().sum(1), (origins * directions).sum(1)
    inside = along.square() - square * (origins.square().sum(1) - _RADIUS**2)
    half = inside.clamp_min(0).sqrt()
    return _Rays(origins, directions, ((-along - half) / square).clamp_min(0), (-along + half) / square)


def _places(rays: _Rays, samples: int, generator: torch.Generator | None) -> Tensor:
    """Depths (R, S): one in each of S equal parts."""
    shares = torch.full((len(rays.near), samples), 0.5, dtype=rays.near.dtype)
    if generator is not None:
        shares = torch.rand(shares.shape, generator=generator, dtype=shares.dtype, device=generator.device)
    shares = (torch.arange(samples, device=rays.near.device) + shares.to(rays.near.device)) / samples
    return torch.lerp(rays.near[:, None], rays.far[:, None], shares)


def _repeatable(function: Any) -> Any:
    """The same function, which forgets its intermediate results and computes them again where gradients need them."""

    def repeated(*arguments: Any) -> Tensor:
        return checkpoint(function, *arguments, use_reentrant=False, preserve_rng_state=False)

    return repeated


def _density(raw: Tensor) -> Tensor:
    """Per unit of length; the released densities are per radius."""
    return F.softplus(raw) / _RADIUS


def _head(inputs: int, hidden: int, outputs: int, generator: torch.Generator | None) -> nn.Sequential:
    first, last = nn.Linear(inputs, hidden, bias=False), nn.Linear(hidden, outputs, bias=False)
    for layer in (first, last):
        nn.init.kaiming_uniform_(layer.weight, a=math.sqrt(5), generator=generator)
    return nn.Sequential(first, nn.ReLU(), last)
