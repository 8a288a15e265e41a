"""As-rigid-as-possible energy: how far the edges around each point are from having only turned.

Energy and rotations as in Sorkine and Alexa, "As-Rigid-As-Possible Surface Modeling" (SGP 2007), equations 3 and 5,
with uniform weights. Which points are neighbours is `Neighbors`' matter: the nearest at rest, or those of a mesh.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from animate.fields.rotations import best_rotations

__all__ = ["Neighbors", "arap_energy", "distortion"]


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The neighbours of each point; where it has fewer than others, it is its own, which is an edge without length.

    Attributes:
        indices: (N, K) int64.
        mask: (N, K) bool, what are neighbours.
    """

    indices: Tensor
    mask: Tensor

    @classmethod
    def nearest(cls, rest: Tensor, k: int) -> Neighbors:
        """The `k` nearest points of each, fewer where there are no more; points (N, 3) in any unit."""
        from scipy.spatial import cKDTree

        places = rest.detach().double().cpu().numpy()
        count = len(places)
        # One more is asked for: each point finds itself, and where others share its place perhaps them instead.
        _, found = cKDTree(places).query(places, k=np.arange(1, k + 2))
        own = np.arange(count)[:, None]
        found = np.take_along_axis(found, np.argsort(found == own, axis=1, kind="stable"), 1)[:, :k]
        there = (found < count) & (found != own)
        return cls(*(torch.from_numpy(a).to(rest.device) for a in (np.where(there, found, own), there)))

    @classmethod
    def from_edges(cls, edges: Tensor, count: int) -> Neighbors:
        """Both ends of each edge are neighbours.

        Args:
            edges: (E, 2) int64, each once, none from a point to itself.
            count: of the points; those without an edge have no neighbour.
        """
        source = torch.cat([edges[:, 0], edges[:, 1]])
        order = torch.argsort(source, stable=True)
        source, target = source[order], torch.cat([edges[:, 1], edges[:, 0]])[order]
        degrees = torch.bincount(source, minlength=count)
        starts = torch.cumsum(degrees, 0) - degrees
        slots = torch.arange(len(source), device=edges.device) - starts[source]
        width = max(1, int(degrees.max())) if count else 1
        indices = torch.arange(count, device=edges.device)[:, None].repeat(1, width)
        mask = torch.zeros_like(indices, dtype=torch.bool)
        indices[source, slots] = target
        mask[source, slots] = True
        return cls(indices, mask)

    def draw(self, k: int, generator: torch.Generator | None = None) -> Neighbors:
        """At most `k` neighbours of each point, without repetition; all where it has no more."""
        if k >= self.indices.shape[1]:
            return self
        keys = torch.rand(self.mask.shape, generator=generator, device=generator.device if generator else None)
        chosen = keys.to(self.mask.device).masked_fill_(~self.mask, 2.0).topk(k, dim=1, largest=False).indices
        return Neighbors(self.indices.gather(1, chosen), self.mask.gather(1, chosen))


def arap_energy(rest: Tensor, moved: Tensor, neighbors: Neighbors, *, points: Tensor | None = None) -> Tensor:
    """Squared distance of edges from the best rotation of the edges around their point, summed.

    The rotations are held fixed in the backward pass. Since they are the ones of least energy, the gradient is the
    full one all the same.

    Args:
        rest: (N, 3), any unit.
        moved: (F, N, 3), the same unit.
        neighbors: of the N points.
        points: (P,) int64, those whose energy counts, repetitions as often; None: all.

    Returns:
        (F,), the square of that unit; grows with points and neighbours.

    Source: Sorkine and Alexa 2007, equation 3, all weights 1.
    """
    before, after = _edges(rest, moved, neighbors, points)
    return _residuals(before, after).square().sum((0, 2, 3))


@torch.no_grad()
def distortion(rest: Tensor, moved: Tensor, neighbors: Neighbors) -> Tensor:
    """What is left of the edges' change after the best rotations, over their length at rest.

    Args:
        rest: (N, 3), any unit.
        moved: (F, N, 3), the same unit.
        neighbors: of the N points.

    Returns:
        (F,): the mean over edges of the residual's length, divided by the mean length. 0 is rigid around every point;
        a scale by s gives |s - 1|. Without edges 0.
    """
    before, after = _edges(rest, moved, neighbors, None)
    total = before.norm(dim=-1).sum()
    left = _residuals(before, after).norm(dim=2).sum((0, 2))
    return left / total if total > 0 else torch.zeros_like(left)


def _edges(rest: Tensor, moved: Tensor, neighbors: Neighbors, points: Tensor | None) -> tuple[Tensor, Tensor]:
    """Edges before (P, K, 3) and after (P, F, 3, K), from each point to its neighbours."""
    indices = neighbors.indices if points is None else neighbors.indices[points]
    before = rest[indices] - (rest if points is None else rest[points])[:, None]
    # All frames of a point lie together, so that one row is read for each neighbour.
    rows = moved.transpose(0, 1).reshape(len(rest), -1)
    after = rows[indices] - (rows if points is None else rows[points])[:, None]
    return before, after.unflatten(2, (len(moved), 3)).permute(0, 2, 3, 1)


def _residuals(before: Tensor, after: Tensor) -> Tensor:
    """(P, F, 3, K): edges after less the turned edges before."""
    with torch.no_grad():
        covariances = after.flatten(1, 2) @ before
        rotations = best_rotations(covariances.reshape(-1, 3, 3))
        turned = rotations.reshape(covariances.shape) @ before.transpose(1, 2)
    return after - turned.reshape(after.shape)
