"""`Deformation`: where every point of the object at rest is in every frame.

Small heads read a HexPlane and say how each point moves by itself; two more read the mean over the points and say how
the whole object moves. Layers, initial values, bounds and learning rates as in the code that Animate3D released,
which measures in radii of the object's sphere; nothing is said about how frames are rendered or compared.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from animate.config import DeformationConfig
from animate.fields.hexplane import HexPlane

__all__ = ["Deformation", "Motion"]

_RADIUS = 0.5
"""Of the sphere that the cameras see, in normalised space: what the released code has at -1 to 1."""


class Motion(NamedTuple):
    """What became of the points in some frames.

    Attributes:
        positions: (F, N, 3), normalised space.
        quats_wxyz: (F, N, 4), unit: the rotation that follows a Gaussian's own one.
        log_scales: (F, N, 3), added to the logarithm of a Gaussian's sizes.
    """

    positions: Tensor
    quats_wxyz: Tensor
    log_scales: Tensor


class Deformation(nn.Module):
    """A field of motion that begins at rest and stays there in frame 0.

    Args:
        config: sizes and learning rates.
        num_frames: of the animation, at least 2; the last is at the end of time.
        generator: of the initial weights; None takes torch's own.

    Source: gaussian_4d.py and diff_gaussian_rasterizer_advanced_4d.py of github.com/yanqinJiang/Animate3D.
    """

    def __init__(self, config: DeformationConfig, *, num_frames: int, generator: torch.Generator | None = None) -> None:
        super().__init__()
        assert num_frames >= 2, f"{num_frames} frames"
        self.config = config
        self.num_frames = num_frames
        self.planes = HexPlane(config.space, config.time, config.channels, generator=generator)
        sizes = {"position": 3, "rotation": 4, "scale": 3}
        if config.rigid:
            sizes |= {"rigid_rotation": 3, "rigid_translation": 3}
        width = self.planes.num_features
        self.heads = nn.ModuleDict({name: _head(width, config.hidden, size, generator) for name, size in sizes.items()})

    def forward(self, points: Tensor, frames: Tensor, *, rotation: bool = True, scale: bool = False) -> Motion:
        """The points in some frames.

        Args:
            points: (N, 3), normalised space: all of the object, since the rigid motion depends on their mean.
            frames: (F',) int64, 0 to num_frames - 1, in any order. Frame 0 is the rest, bit by bit.
            rotation: Gaussians turn by themselves too; else only with the whole object.
            scale: the sizes of Gaussians change; else `log_scales` is zero.

        Returns:
            The motion, differentiable in the weights.
        """
        times = frames.to(points) * (2 / (self.num_frames - 1)) - 1
        # (N, F', features), as it lies in memory; the small outputs are turned over instead.
        features = self.planes(points / _RADIUS, times).transpose(0, 1)
        moved, turned = self._rigid(points, features)
        moved = moved + _RADIUS * self.heads["position"](features).transpose(0, 1)
        turned = turned[:, None].expand(-1, len(points), -1)
        if rotation:
            turned = nn.functional.normalize(turned + self.heads["rotation"](features).transpose(0, 1), dim=-1)
        at_rest = (frames == 0).to(points.device)[:, None, None]
        grown = torch.zeros_like(moved)
        if scale:
            grown = torch.where(at_rest, grown, self.heads["scale"](features).transpose(0, 1))
        identity = turned.new_tensor([1.0, 0.0, 0.0, 0.0])
        return Motion(torch.where(at_rest, points, moved), torch.where(at_rest, identity, turned), grown)

    def _rigid(self, points: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The points (F', N, 3) moved as a whole and that rotation (F', 4), about the origin."""
        frames = features.shape[1]
        if not self.config.rigid:
            return points.expand(frames, -1, -1), points.new_tensor([1.0, 0.0, 0.0, 0.0]).expand(frames, -1)
        mean = features.mean(0)
        # pi * tanh(x / 2) is the released sigmoid stretched to -pi..pi, and exactly 0 where x is.
        quats_wxyz = _quats_from_euler(math.pi * torch.tanh(self.heads["rigid_rotation"](mean) / 2))
        translation = _RADIUS * torch.tanh(self.heads["rigid_translation"](mean) / 2)
        return points @ _matrices(quats_wxyz).transpose(1, 2) + translation[:, None], quats_wxyz

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters by learning rate, each with its `name`, for Adam with eps 1e-15.

        The gradients of planes are often far below Adam's usual eps, which would stop them.
        """
        rigid = [
            weight for name, head in self.heads.items() if name.startswith("rigid") for weight in head.parameters()
        ]
        heads = [
            weight for name, head in self.heads.items() if not name.startswith("rigid") for weight in head.parameters()
        ]
        groups = [
            {"name": "planes", "params": list(self.planes.parameters()), "lr": self.config.learning_rate_planes},
            {"name": "heads", "params": heads, "lr": self.config.learning_rate_heads},
            {"name": "rigid", "params": rigid, "lr": self.config.learning_rate_rigid},
        ]
        return [group for group in groups if group["params"]]


def _head(inputs: int, hidden: int, outputs: int, generator: torch.Generator | None) -> nn.Sequential:
    first, last = nn.Linear(inputs, hidden, bias=False), nn.Linear(hidden, outputs, bias=False)
    nn.init.kaiming_uniform_(first.weight, a=math.sqrt(5), generator=generator)
    nn.init.zeros_(last.weight)
    return nn.Sequential(first, nn.ReLU(), last)


def _quats_from_euler(angles: Tensor) -> Tensor:
    """Rotations (F, 4) about x, then y, then z, by angles (F, 3) in radians."""
    (cx, cy, cz), (sx, sy, sz) = torch.cos(angles / 2).unbind(1), torch.sin(angles / 2).unbind(1)
    return torch.stack(
        [
            cz * cy * cx + sz * sy * sx,
            cz * cy * sx - sz * sy * cx,
            cz * sy * cx + sz * cy * sx,
            sz * cy * cx - cz * sy * sx,
        ],
        1,
    )


def _matrices(quats_wxyz: Tensor) -> Tensor:
    """Rotation matrices (F, 3, 3) of unit quaternions (F, 4)."""
    w, x, y, z = quats_wxyz.unbind(1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, 1).unflatten(1, (3, 3))
