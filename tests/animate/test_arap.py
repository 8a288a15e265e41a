"""`animate.fields.arap` and its rotations against SVD, finite differences, loops and what rigid means."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial.transform import Rotation

from animate.fields.arap import Neighbors, arap_energy, distortion
from animate.fields.rotations import best_rotations

torch.set_num_threads(1)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def random_rotations(count, seed=0):
    return torch.from_numpy(Rotation.random(count, random_state=seed).as_matrix())


def cloud(count=40, frames=3, by=0.1):
    rest = torch.rand(count, 3, generator=generator(1), dtype=torch.float64) - 0.5
    return rest, rest + by * torch.randn(frames, count, 3, generator=generator(2), dtype=torch.float64)


def by_svd(matrices):
    """Best proper rotations of LAPACK: the sign goes to the smallest singular value."""
    left, _, right = torch.linalg.svd(matrices.double())
    signs = torch.ones(len(matrices), 3, dtype=torch.float64)
    signs[:, 2] = torch.det(left @ right).sign()
    return left @ torch.diag_embed(signs) @ right


def energy_by_loops(rest, frame, neighbors):
    """Equation 3 word for word, with SVD."""
    total = torch.zeros((), dtype=rest.dtype)
    for point, (indices, mask) in enumerate(zip(neighbors.indices, neighbors.mask, strict=True)):
        others = indices[mask]
        before, after = rest[others] - rest[point], frame[others] - frame[point]
        rotation = by_svd((after.T @ before).detach()[None])[0]
        total = total + (after - before @ rotation.T).square().sum()
    return total


# -- rotations ---------------------------------------------------------------------------------------------------------

SINGULAR = {
    "general": (3, 2, 1),
    "flat": (2, 1, 0),
    "flat and round": (1, 1, 0),
    "round": (1, 1, 1),
    "nearly round": (1, 1 - 1e-6, 1 - 2e-6),
    "two large": (2, 2, 1),
    "two small": (2, 1, 1),
    "reflecting": (3, 2, -1),
    "thin": (1, 1e-4, 1e-4),
    "huge": (3e15, 2e15, 1e15),
    "tiny": (3e-18, 2e-18, 1e-18),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", SINGULAR)
def test_best_rotations_are_those_of_svd(name, dtype):
    """LAPACK's SVD of matrices with given singular values, where the best rotation is one alone."""
    singular = torch.tensor(SINGULAR[name], dtype=torch.float64)
    matrices = (random_rotations(500, 1) @ torch.diag(singular) @ random_rotations(500, 2)).to(dtype)
    got = best_rotations(matrices)
    assert got.dtype == dtype
    # In single precision the two small directions of a thin matrix are only known to about 1e-7 / 1e-4 themselves.
    within = 1e-9 if dtype == torch.float64 else 1e-6
    torch.testing.assert_close(got.double(), by_svd(matrices), atol=within, rtol=0)


@pytest.mark.parametrize("singular", [(1, 0, 0), (1, 1e-8, 0), (1, 1, -1), (0, 0, 0)])
def test_best_rotations_are_proper_and_best_where_there_are_many(singular):
    """The trace that SVD reaches, with determinant 1: lines, reflections of the round, nothing at all."""
    spread = torch.diag(torch.tensor(singular, dtype=torch.float64))
    matrices = random_rotations(200, 3) @ spread @ random_rotations(200, 4)
    got = best_rotations(matrices)
    torch.testing.assert_close(got @ got.mT, torch.eye(3, dtype=torch.float64).expand_as(got), atol=1e-12, rtol=0)
    torch.testing.assert_close(torch.det(got), torch.ones(200, dtype=torch.float64))
    reached, best = ((rotation * matrices).sum((1, 2)) for rotation in (got, by_svd(matrices)))
    torch.testing.assert_close(reached, best, atol=1e-7, rtol=0)


def test_best_rotations_of_what_is_not_turned_are_the_identity():
    """Symmetric matrices of a point, a line along any axis, a plane and a ball need no rotation."""
    diagonals = torch.tensor([[0, 0, 0], [4, 0, 0], [0, 4, 0], [0, 0, 4], [4, 4, 0], [0, 1, 2], [1, 1, 1.0]])
    got = best_rotations(torch.diag_embed(diagonals))
    torch.testing.assert_close(got, torch.eye(3).expand(7, 3, 3), atol=1e-7, rtol=0)
    assert best_rotations(torch.zeros(0, 3, 3)).shape == (0, 3, 3)


def test_best_rotations_do_not_depend_on_how_many_there_are():
    """One call against several: parts are worked on in turn."""
    matrices = torch.randn(9000, 3, 3, generator=generator())
    apart = torch.cat([best_rotations(part) for part in matrices.split(700)])
    torch.testing.assert_close(best_rotations(matrices), apart)


# -- energy ------------------------------------------------------------------------------------------------------------


def test_energy_is_the_sum_over_points_and_neighbours():
    """Equation 3 written as loops, per frame."""
    rest, moved = cloud()
    neighbors = Neighbors.nearest(rest, 5)
    expected = torch.stack([energy_by_loops(rest, frame, neighbors) for frame in moved])
    torch.testing.assert_close(arap_energy(rest, moved, neighbors), expected)


def test_energy_counts_points_as_often_as_they_are_drawn():
    """A sum over points drawn with repetitions, of energies of single points."""
    rest, moved = cloud()
    neighbors = Neighbors.nearest(rest, 4)
    alone = torch.stack([arap_energy(rest, moved, neighbors, points=torch.tensor([p])) for p in range(len(rest))])
    torch.testing.assert_close(alone.sum(0), arap_energy(rest, moved, neighbors))
    drawn = torch.randint(len(rest), (60,), generator=generator())
    torch.testing.assert_close(arap_energy(rest, moved, neighbors, points=drawn), alone[drawn].sum(0))


def test_energy_is_nothing_for_rigid_motion():
    """What rigid means: any rotation and shift of the whole object, in both precisions."""
    rest, _ = cloud()
    moved = rest @ random_rotations(4).mT + torch.randn(4, 1, 3, generator=generator(), dtype=torch.float64)
    neighbors = Neighbors.nearest(rest, 6)
    assert float(arap_energy(rest, moved, neighbors).max()) < 1e-24
    assert float(arap_energy(rest.float(), moved.float(), neighbors).max()) < 1e-10
    assert float(distortion(rest, moved, neighbors).max()) < 1e-13


def test_energy_does_not_see_a_rigid_motion_after_any_other():
    """The same energy before and after a rotation and a shift, and a gradient that turns with them."""
    rest, moved = cloud()
    rotation, neighbors = random_rotations(1, 5)[0], Neighbors.nearest(rest, 4)
    moved.requires_grad_()
    turned = (moved.detach() @ rotation.T + 3).requires_grad_()
    energies = [arap_energy(rest, one, neighbors) for one in (moved, turned)]
    torch.testing.assert_close(*energies)
    gradients = [torch.autograd.grad(e.sum(), one)[0] for e, one in zip(energies, (moved, turned), strict=True)]
    torch.testing.assert_close(gradients[0] @ rotation.T, gradients[1])


def test_gradient_with_rotations_held_fixed_is_the_full_one():
    """Finite differences of the energy with its rotations found anew (the envelope), and of the one with them fixed."""
    rest, moved = cloud(count=12, frames=2)
    neighbors, direction = Neighbors.nearest(rest, 4), torch.randn(2, 12, 3, generator=generator(), dtype=torch.float64)
    moved.requires_grad_()
    [gradient] = torch.autograd.grad(arap_energy(rest, moved, neighbors).sum(), moved)

    def anew(step):
        return arap_energy(rest, moved.detach() + step * direction, neighbors).sum()

    before = rest[neighbors.indices] - rest[:, None]
    after = moved.detach()[:, neighbors.indices] - moved.detach()[:, :, None]
    rotations = by_svd((after.mT @ before).flatten(0, 1)).view(2, 12, 3, 3)

    def fixed(step):
        place = moved.detach() + step * direction
        return (place[:, neighbors.indices] - place[:, :, None] - before @ rotations.mT).square().sum()

    for energy in (anew, fixed):
        slope = (energy(1e-5) - energy(-1e-5)) / 2e-5
        torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-7, atol=1e-9)


def test_gradient_is_finite_where_neighbours_lack_or_fall_together():
    """Finite for points with no or one neighbour, mirrored or all in one place; 0 at rest and for who has none."""
    edges = torch.tensor([[0, 1], [1, 2], [2, 3], [1, 3]])
    neighbors = Neighbors.from_edges(edges, 6)
    rest = torch.rand(6, 3, generator=generator())
    mirrored, nowhere = rest * torch.tensor([-1.0, 1, 1]), torch.zeros_like(rest)
    moved = torch.stack([rest, mirrored, nowhere]).requires_grad_()
    energies = arap_energy(rest, moved, neighbors)
    [gradient] = torch.autograd.grad(energies.sum(), moved)
    assert bool(torch.isfinite(gradient).all())
    assert float(energies[0].detach()) < 1e-12
    assert float(gradient[0].abs().max()) < 1e-6
    assert not bool(gradient[:, 4:].any())
    assert bool((distortion(rest, moved.detach(), Neighbors.from_edges(edges[:0], 6)) == 0).all())


def test_distortion_of_a_scale_is_what_the_scale_changes():
    """The closed form |s - 1|, whatever the unit and the rotation."""
    rest, _ = cloud()
    moved = torch.stack([0.5 * rest, rest, 1.25 * rest @ random_rotations(1)[0].T])
    expected = torch.tensor([0.5, 0.0, 0.25], dtype=torch.float64)
    torch.testing.assert_close(distortion(rest, moved, Neighbors.nearest(rest, 5)), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        distortion(9 * rest, 9 * moved, Neighbors.nearest(rest, 5)), expected, atol=1e-12, rtol=0
    )


# -- neighbours --------------------------------------------------------------------------------------------------------


def test_nearest_neighbours_are_the_nearest():
    """Distances of every pair, sorted; points that share a place are each other's neighbours and never their own."""
    rest, _ = cloud()
    rest[7:10] = rest[3]
    neighbors = Neighbors.nearest(rest, 4)
    apart = torch.cdist(rest, rest).fill_diagonal_(torch.inf)
    torch.testing.assert_close(apart.gather(1, neighbors.indices), apart.sort(1).values[:, :4])
    assert bool(neighbors.mask.all())
    few = Neighbors.nearest(rest[:3], 5)
    assert few.mask.sum(1).tolist() == [2, 2, 2]
    assert few.indices[~few.mask].tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert not bool(Neighbors.nearest(rest[:1], 3).mask.any())


def test_neighbours_of_edges_are_both_ends():
    """Sets built by a loop over the edges."""
    pairs = torch.combinations(torch.arange(9))
    edges = pairs[torch.randperm(len(pairs), generator=generator())[:14]]
    neighbors = Neighbors.from_edges(edges, 11)
    sets = [set() for _ in range(11)]
    for a, b in edges.tolist():
        sets[a].add(b)
        sets[b].add(a)
    assert [set(row[mask].tolist()) for row, mask in zip(neighbors.indices, neighbors.mask, strict=True)] == sets
    assert int(neighbors.mask.sum()) == 28
    own = torch.arange(11)[:, None].expand_as(neighbors.indices)
    assert neighbors.indices[~neighbors.mask].equal(own[~neighbors.mask])


def test_drawn_neighbours_are_some_of_them():
    """Subsets without repetition, all where there are few, each as likely as the next; the seed repeats them."""
    star = torch.stack([torch.zeros(8, dtype=torch.int64), torch.arange(1, 9)], 1)
    neighbors = Neighbors.from_edges(star, 10)
    seen = torch.zeros(9)
    rng = generator()
    for _ in range(400):
        drawn = neighbors.draw(3, rng)
        chosen = drawn.indices[0]
        assert bool(drawn.mask[0].all())
        assert len(set(chosen.tolist())) == 3
        assert drawn.mask[1:].sum(1).tolist() == [1] * 8 + [0]
        assert drawn.indices[9].tolist() == [9, 9, 9]
        seen[chosen] += 1
    assert seen[0] == 0
    assert float((seen[1:] / 400 - 3 / 8).abs().max()) < 0.1  # four standard deviations
    assert neighbors.draw(3, generator(7)).indices.equal(neighbors.draw(3, generator(7)).indices)
    assert neighbors.draw(8) is neighbors
