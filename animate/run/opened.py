"""The object of a run, opened and placed: a mesh or a Gaussian scene, in the pose that the prior asks for."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from animate.body import Body, body_of_mesh, body_of_scene
from animate.config import AnimateConfig
from animate.priors.open import placement_of
from animate.subject.fit import fitted
from animate.subject.gaussians import from_mesh
from animate.subject.mesh import RestMesh, open_mesh
from animate.subject.ply import RestGaussians, open_gaussians
from animate.subject.raycast import Raycaster
from manifests.errors import InputError, Rejected
from manifests.gltf import read

__all__ = ["Opened", "memory_gib", "open_subject"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Opened:
    """What is to be animated.

    Attributes:
        model: the file.
        subject: a mesh or a Gaussian scene.
        pose: as `--pose` reads; "" for a scene.
    """

    model: Path
    subject: RestMesh | RestGaussians
    pose: str

    @property
    def mesh(self) -> RestMesh | None:
        return self.subject if isinstance(self.subject, RestMesh) else None

    @property
    def num_points(self) -> int:
        """What moves: welded vertices or Gaussians."""
        return len(self.subject.points if isinstance(self.subject, RestMesh) else self.subject.gaussians)

    def box(self) -> np.ndarray:
        """(2, 3) lower and upper corner at rest, normalised."""
        places = self.subject.vertices if isinstance(self.subject, RestMesh) else self.subject.gaussians.means.numpy()
        return np.stack([places.min(0), places.max(0)])

    def body(self, config: AnimateConfig, device: torch.device) -> Body:
        """Its Gaussians, brought to look at rest as the mesh does where the config asks for it."""
        recon = config.recon
        if isinstance(self.subject, RestGaussians):
            return body_of_scene(self.subject.gaussians.to(device), recon)
        pixel = 2 * recon.distance * math.tan(math.radians(recon.fov_y_deg) / 2) / recon.size
        # The blur of a pixel is only reckoned with where the Gaussians are fitted: the released rule knows none.
        bound = from_mesh(self.subject, config.subject, pixel=pixel if config.subject.fit_steps else 0.0).to(device)
        bound = fitted(
            bound,
            Raycaster(self.subject),
            size=recon.size,
            steps=config.subject.fit_steps,
            seed=config.seed,
            distance=recon.distance,
            fov_y_deg=recon.fov_y_deg,
        )
        points = torch.from_numpy(self.subject.points).float().to(device)
        return body_of_mesh(bound, points, torch.from_numpy(self.subject.edges).to(device), recon)


def open_subject(model: Path, prior: str, pose: str, config: AnimateConfig) -> Opened:
    """Opens the object; without a pose it rests as frame 0 of the prior's motion where it knows one, else as it lies.

    Args:
        model: .glb, .gltf, .obj, or a Gaussian .ply.
        prior: what ``--prior`` says.
        pose: what ``--pose`` says, "" for the default.
        config: of the run.

    Raises:
        InputError: what cannot be opened, posed or animated by the method.
    """
    placement = placement_of(prior)
    given = None if placement is None or placement.center is None else (placement.center, placement.scale)
    settings = config.subject
    if placement is not None and placement.front_azimuth_deg is not None:
        settings = replace(settings, front_azimuth_deg=placement.front_azimuth_deg)
    if model.suffix.lower() == ".ply":
        if pose:
            raise InputError(
                f"--pose: found {pose} with {model.name}, expected none; a Gaussian scene has no animations"
            )
        if config.method != "animate3d":
            raise InputError(
                f"--method {config.method}: found the Gaussian scene {model.name}, expected a mesh (.glb, .gltf, .obj);"
                " take --method animate3d"
            )
        return Opened(model=model, subject=open_gaussians(model, settings, given), pose="")
    if not pose:
        pose = placement.pose if placement is not None and _has(model, placement.animation) else "bind"
    return Opened(model=model, subject=open_mesh(model, pose=pose, config=settings, normalization=given), pose=pose)


def memory_gib(num_points: int, num_gaussians: int, config: AnimateConfig) -> float:
    """A rough upper estimate of what the optimisation holds: features of the field, and the images of a chunk.

    Args:
        num_points: that move.
        num_gaussians: that are rendered.
        config: of the run.
    """
    recon, field = config.recon, config.deformation
    frames = recon.frames_per_step or recon.frames
    width = 2 * field.channels * len(field.space) * 6 + 4 * field.hidden
    floats: Any = num_points * frames * width + recon.chunk * (num_gaussians * 64 + recon.size**2 * 64)
    return 4 * floats / 2**30 + 0.5


def _has(model: Path, animation: int) -> bool:
    if model.suffix.lower() not in (".glb", ".gltf") or not model.is_file():
        return False
    try:
        return animation < len(read(model).animations)
    except Rejected:
        return False  # opening it says why
