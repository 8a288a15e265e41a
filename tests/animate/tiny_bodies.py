"""Bodies that move, small: the sliding cube with its true motion and an oracle of it, and a scene of Gaussians."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from animate.body import Body, Posed, body_of_mesh, body_of_scene
from animate.config import DeformationConfig, ReconstructionConfig, SubjectConfig
from animate.fields.deformation import Motion
from animate.priors.oracle import Oracle, splat_truth
from animate.priors.true_motion import open_truth, truth_points
from animate.shot import Footage, Shot, intrinsics_of
from animate.subject.gaussians import BoundGaussians, Gaussians, from_mesh
from animate.subject.mesh import RestMesh
from animate.viewpoints import ring
from tests.animate.tiny_motion import START_S, rest_of, write_sliding_cube

SIZE, FRAMES, VIEWS = 24, 4, 4
RECON = ReconstructionConfig(
    views=VIEWS, frames=FRAMES, size=SIZE, curriculum_steps=0, visible_gradient=1.0, arap_unit="edge", arap_neighbors=0,
    arap_weight=0.5, fps=4.0,
)  # fmt: skip
FIELD = DeformationConfig(
    space=(4, 8), time=(4, 4), channels=4, hidden=16, learning_rate_planes=2e-2, learning_rate_heads=5e-3
)


@dataclass(frozen=True, eq=False, kw_only=True)
class SlidingCube:
    """The cube, its Gaussians, where its points truly are (F, M, 3), and an oracle that draws with these Gaussians."""

    mesh: RestMesh
    bound: BoundGaussians
    body: Body
    truth: Tensor
    oracle: Oracle
    footage: Footage

    def error(self, positions: Tensor) -> float:
        """Mean distance from the truth after frame 0, as a share of the diagonal."""
        away = (positions.detach() - self.truth)[1:].norm(dim=-1)
        return float(away.mean()) / self.mesh.diagonal


def ring_shot(times_s: Tensor, config: ReconstructionConfig = RECON) -> Shot:
    """The shot of a target clip; nobody looks at its pictures of the rest."""
    cameras = ring(config, 270.0)
    return Shot(
        prompt="a red cube slides",
        c2w=cameras.c2w,
        K=intrinsics_of(cameras.fov_y_deg, config.size),
        size=config.size,
        first=torch.full((config.views, 3, config.size, config.size), 0.5),
        times_s=times_s,
    )


def sliding_cube(folder: Path, recon: ReconstructionConfig = RECON) -> SlidingCube:
    """In its pose when it begins to slide."""
    path = write_sliding_cube(folder / "cube.glb")
    mesh = rest_of(path, f"slide@{START_S}")
    subject = SubjectConfig(radius=0.3, gaussians="surface", surface_points=60)
    bound = from_mesh(mesh, subject, pixel=1.1 / SIZE)
    points = torch.from_numpy(mesh.points)
    truth = open_truth(path, "slide", config=subject, center=mesh.center, scale=mesh.scale)
    points_at = truth_points(truth)
    times_s = torch.arange(recon.frames, dtype=torch.float64) / recon.fps
    oracle = Oracle(splat_truth(bound, points_at))
    return SlidingCube(
        mesh=mesh,
        bound=bound,
        body=body_of_mesh(bound, points, torch.from_numpy(mesh.edges), recon),
        truth=torch.from_numpy(points_at(times_s.numpy())),
        oracle=oracle,
        footage=oracle.film(ring_shot(times_s, recon), seed=0),
    )


def scene(count: int = 30, seed: int = 0, sh: bool = False) -> Gaussians:
    """Gaussians with every field different, within a radius of 0.4."""
    rng = np.random.default_rng(seed)

    def tensor(values: np.ndarray) -> Tensor:
        return torch.from_numpy(values.astype(np.float32))

    quats = rng.normal(size=(count, 4))
    return Gaussians(
        means=tensor(rng.uniform(-0.2, 0.2, (count, 3))),
        quats_wxyz=tensor(quats / np.linalg.norm(quats, axis=1, keepdims=True)),
        scales=tensor(rng.uniform(0.02, 0.08, (count, 3))),
        opacities=tensor(rng.uniform(0.3, 0.9, count)),
        colors=tensor(rng.uniform(0, 1, (count, 3))),
        sh=tensor(rng.normal(size=(count, 3, 3)) * 0.2) if sh else None,
    )


def scene_body(sh: bool = False) -> Body:
    """Of that scene."""
    return body_of_scene(scene(sh=sh), RECON)


def drawn_motion(body: Body, frames: int, seed: int = 0, amount: float = 0.05) -> Motion:
    """Any motion, each value with a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def draw(last: int) -> Tensor:
        return torch.randn(frames, len(body.points), last, generator=generator)

    quats = torch.nn.functional.normalize(torch.tensor([1.0, 0, 0, 0]) + 0.3 * draw(4), dim=-1)
    values = (body.points + amount * draw(3), quats, 0.2 * draw(3))
    return Motion(*(value.requires_grad_() for value in values))


def at_rest(body: Body) -> Posed:
    """One frame of it."""
    gaussians = body.gaussians
    return Posed(means=gaussians.means[None], quats_wxyz=gaussians.quats_wxyz, scales=gaussians.scales)
