"""Following a clip: gradients against one plain render of everything, and the motion of a cube found again."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
import pytest
import torch
from torchvision.transforms.functional import gaussian_blur

from animate.body import Body, body_of_mesh
from animate.config import SubjectConfig
from animate.fields.arap import Neighbors
from animate.fields.deformation import Deformation, Motion
from animate.methods.reconstruction import Held, Reconstruction, Weights, arap_term, fit_colors, follow_footage
from animate.priors.oracle import Oracle, raycast_truth
from animate.priors.true_motion import open_truth
from animate.shot import Footage
from tests.animate.tiny_bodies import (
    FIELD,
    FRAMES,
    RECON,
    SIZE,
    VIEWS,
    at_rest,
    drawn_motion,
    ring_shot,
    scene_body,
    sliding_cube,
)
from tests.animate.tiny_motion import write_sliding_cube

WEIGHTS = Weights(100.0, 30.0)


@pytest.fixture(autouse=True)
def _one_thread():
    """The cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    torch.set_num_threads(1)
    return sliding_cube(tmp_path_factory.mktemp("cube"))


def body_named(name: str, cube) -> Body:
    return cube.body if name == "mesh" else scene_body(sh=name == "harmonics")


def drawn_footage(background=(0.2, 0.5, 0.7)) -> Footage:
    generator = torch.Generator().manual_seed(3)
    shot = ring_shot(torch.arange(FRAMES, dtype=torch.float64) / 4)
    images = torch.rand(VIEWS, FRAMES, 3, SIZE, SIZE, generator=generator)
    masks = torch.rand(VIEWS, FRAMES, 1, SIZE, SIZE, generator=generator)
    return Footage(images=images, masks=masks, c2w=shot.c2w, K=shot.K, times_s=shot.times_s, background=background)


def plain_losses(body: Body, motion: Motion, frames: torch.Tensor, footage: Footage, blur_px: float = 0.0):
    """Colour and coverage from one render of all views and frames."""
    posed = body.posed(motion)
    pairs = [(view, k) for view in range(VIEWS) for k in range(len(frames))]
    view, k = (torch.tensor(column) for column in zip(*pairs, strict=True))
    shown = body.show(posed, k, footage.c2w[view], footage.K[view], SIZE, footage.background)
    target = footage.images[view, frames[k]], footage.masks[view, frames[k]]
    found = shown.images, shown.alphas
    if blur_px:
        width = 2 * (int(3 * blur_px) + 1) + 1
        target, found = ([gaussian_blur(x, [width] * 2, [blur_px] * 2) for x in both] for both in (target, found))
    return [w * (a - b).square().mean() for w, a, b in zip(WEIGHTS, found, target, strict=True)]


@pytest.mark.parametrize("name", ["mesh", "scene", "harmonics"])
@pytest.mark.parametrize("chunk", [1, 5, 100])
@pytest.mark.parametrize("blur_px", [0.0, 1.5])
def test_gradients_are_those_of_one_render_of_everything(cube, name, chunk, blur_px):
    """Oracle: automatic differentiation of the losses written down plainly, whatever the size of the parts."""
    body, footage, frames = body_named(name, cube), drawn_footage(), torch.tensor([1, 3])
    plain = drawn_motion(body, 2)
    losses = plain_losses(body, plain, frames, footage, blur_px)
    sum(losses).backward()
    motion = drawn_motion(body, 2)
    found = follow_footage(body, body.posed(motion), frames, footage, WEIGHTS, chunk=chunk, blur_px=blur_px)
    assert found["rgb"] == pytest.approx(float(losses[0].detach()), rel=1e-4)
    assert found["mask"] == pytest.approx(float(losses[1].detach()), rel=1e-4)
    for got, wanted in zip(motion, plain, strict=True):
        if wanted.grad is None:
            assert not body.turns
            assert got.grad is None
        else:
            torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-3, atol=1e-4 * float(wanted.grad.abs().max()))


def test_motion_cut_off_gets_the_gradients_of_the_whole(cube):
    """Oracle: automatic differentiation straight through the field."""
    body, footage, frames = cube.body, drawn_footage(), torch.tensor([1, 2])

    def field() -> Deformation:
        torch.manual_seed(0)
        made = Deformation(FIELD, num_frames=FRAMES)
        torch.nn.init.normal_(made.heads["position"][-1].weight, std=0.1)
        return made

    plain, cut = field(), field()
    motion = plain(body.points, frames, rotation=False)
    (sum(plain_losses(body, motion, frames, footage)) + motion.positions.square().sum()).backward()
    held = Held(cut(body.points, frames, rotation=False))
    follow_footage(body, body.posed(held.motion), frames, footage, WEIGHTS)
    held.motion.positions.square().sum().backward()
    assert all(weight.grad is None for weight in cut.parameters())
    held.release()
    for got, wanted in zip(cut.parameters(), plain.parameters(), strict=True):
        assert (got.grad is None) == (wanted.grad is None)
        if wanted.grad is not None:
            torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-3, atol=1e-4 * float(wanted.grad.abs().max()))


def test_thinned_gradient_reaches_that_share_and_sees_the_same_picture(cube):
    """Oracle: the gradient without thinning at the Gaussians that are reached, zero at the others."""
    body, footage, frames = scene_body(), drawn_footage(), torch.tensor([1])
    whole, thinned = drawn_motion(body, 1), drawn_motion(body, 1)
    losses = follow_footage(body, body.posed(whole), frames, footage, WEIGHTS, chunk=100)
    generator = torch.Generator().manual_seed(1)
    found = follow_footage(
        body, body.posed(thinned), frames, footage, WEIGHTS, chunk=100, generator=generator, visible_gradient=0.4
    )
    assert found == pytest.approx(losses)
    reached = thinned.positions.grad.abs().sum(-1) > 0
    assert 0.2 < float(reached.float().mean()) < 0.6
    torch.testing.assert_close(thinned.positions.grad[reached], whole.positions.grad[reached])


def test_blur_lets_a_far_target_pull(cube):
    """Oracle: the direction in which the cube has gone; without blur nothing overlaps and nothing pulls."""
    body, away = cube.body, torch.tensor([0.0, 0.0, 0.55])
    shot = ring_shot(torch.arange(2, dtype=torch.float64))
    there = body.posed(Motion((body.points + away)[None], *[torch.zeros(1)] * 2))
    pairs = torch.arange(VIEWS), torch.zeros(VIEWS, dtype=torch.int64)
    shown = body.show(there, pairs[1], shot.c2w, shot.K, SIZE, (0.5, 0.5, 0.5))
    footage = Footage(
        images=shown.images[:, None].expand(-1, 2, -1, -1, -1),
        masks=shown.alphas[:, None].expand(-1, 2, -1, -1, -1),
        c2w=shot.c2w,
        K=shot.K,
        times_s=shot.times_s,
        background=(0.5, 0.5, 0.5),
    )
    pulls = {}
    for blur_px in (0.0, 4.0):
        points = body.points[None].clone().requires_grad_()
        posed = body.posed(Motion(points, *[torch.zeros(1)] * 2))
        follow_footage(body, posed, torch.tensor([1]), footage, WEIGHTS, blur_px=blur_px)
        pulls[blur_px] = -points.grad.mean((0, 1))
    assert pulls[4.0] @ away > 3 * (pulls[0.0] @ away).abs()
    assert pulls[4.0] @ away > 0.8 * pulls[4.0].norm() * away.norm()


def slow_energy(rest: np.ndarray, moved: np.ndarray, edges: list[tuple[int, int]]) -> float:
    """Sorkine and Alexa's equation 3 point by point, and edge by edge."""
    total = 0.0
    for point in range(len(rest)):
        around = [b if a == point else a for a, b in edges if point in (a, b)]
        before, after = rest[around] - rest[point], moved[around] - moved[point]
        u, _, vt = np.linalg.svd(before.T @ after)
        turn = vt.T @ np.diag([1, 1, np.sign(np.linalg.det(vt.T @ u.T))]) @ u.T
        total += ((after - before @ turn.T) ** 2).sum()
    return total


@pytest.mark.parametrize("unit", ["sphere", "edge"])
def test_arap_term_is_the_energy_in_its_unit(cube, unit):
    """Oracle: a slow loop; for the sphere times 512 points over ours in radii of it, for edges a mean over them."""
    body, motion = cube.body, drawn_motion(cube.body, 3)
    config = dataclasses.replace(RECON, arap_unit=unit, arap_points=0)
    found = arap_term(body, motion.positions, config, 2.0, torch.Generator())
    edges = [tuple(edge) for edge in cube.mesh.edges.tolist()]
    rest, moved = body.points.double().numpy(), motion.positions.detach().double().numpy()
    energy = sum(slow_energy(rest, frame, edges) for frame in moved)
    lengths = np.array([((rest[a] - rest[b]) ** 2).sum() for a, b in edges])
    expected = energy / 0.5**2 * 512 / len(rest) if unit == "sphere" else energy / (2 * lengths.sum())
    assert float(found.detach()) == pytest.approx(2 * expected, rel=1e-4)


@pytest.mark.parametrize("unit", ["sphere", "edge"])
def test_arap_term_of_drawn_points_means_that_of_all(cube, unit):
    """Oracle: the term of all points and neighbours, which draws of points must give on average."""
    body, motion = cube.body, drawn_motion(cube.body, 2)
    every = dataclasses.replace(RECON, arap_unit=unit, arap_points=0)
    drawn = dataclasses.replace(every, arap_points=5)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        found = [float(arap_term(body, motion.positions, drawn, 1.0, generator)) for _ in range(300)]
        whole = float(arap_term(body, motion.positions, every, 1.0, generator))
    assert np.mean(found) == pytest.approx(whole, rel=0.05)
    assert np.std(found) > 0


def test_arap_term_in_edges_suits_any_size_and_in_spheres_grows_with_it(cube):
    """Oracle: a body and a motion of half the size: the same, and a quarter."""
    body, motion = cube.body, drawn_motion(cube.body, 2)
    small = dataclasses.replace(body, points=body.points / 2)
    ratios = {}
    for unit in ("sphere", "edge"):
        config = dataclasses.replace(RECON, arap_unit=unit, arap_points=0)
        pair = [arap_term(b, p, config, 1.0, torch.Generator()).detach() for b, p in
                ((body, motion.positions), (small, motion.positions / 2))]  # fmt: skip
        ratios[unit] = float(pair[1] / pair[0])
    assert ratios == pytest.approx({"sphere": 0.25, "edge": 1.0}, rel=1e-4)


@pytest.mark.parametrize("neighbors", [0, 2])
def test_arap_term_of_a_rigid_motion_is_nothing(cube, neighbors):
    """Oracle: zero, for a turn and a shift; and zero at no weight or without neighbours, with finite gradients."""
    angle = torch.tensor(0.8)
    turn = torch.tensor([[angle.cos(), -angle.sin(), 0], [angle.sin(), angle.cos(), 0], [0, 0, 1]])
    moved = (cube.body.points @ turn.T + torch.tensor([0.1, 0.2, -0.1]))[None].requires_grad_()
    config = dataclasses.replace(RECON, arap_neighbors=neighbors)
    generator = torch.Generator().manual_seed(0)
    assert float(arap_term(cube.body, moved, config, 1.0, generator).detach()) == pytest.approx(0, abs=1e-9)
    assert float(arap_term(cube.body, moved, config, 0.0, generator)) == 0
    lone = dataclasses.replace(cube.body, neighbors=Neighbors.from_edges(torch.zeros(0, 2, dtype=torch.int64), 8))
    term = arap_term(lone, moved, config, 1.0, generator)
    term.backward()
    assert float(term.detach()) == 0
    assert bool(torch.isfinite(moved.grad).all())


def stage_of(cube, **changes) -> Reconstruction:
    generator = torch.Generator().manual_seed(0)
    field = Deformation(FIELD, num_frames=FRAMES, generator=generator)
    return Reconstruction(cube.body, field, cube.footage, dataclasses.replace(RECON, **changes))


def test_frames_join_one_after_the_other(cube):
    """Oracle: frame 1 alone at first, one more each so many steps, all from the start without a curriculum."""
    stage = stage_of(cube, curriculum_steps=5)
    assert [stage.active(step) for step in (0, 4, 5, 9, 10, 15, 500)] == [1, 1, 2, 2, 3, 3, 3]
    assert stage_of(cube, curriculum_steps=0).active(0) == FRAMES - 1
    seen = []
    stage.deformation.register_forward_hook(lambda module, given, out: seen.append(given[1].tolist()))
    stage.begin(None)
    for step in (0, 5, 10):
        stage.step(step, torch.Generator().manual_seed(step))
    assert seen == [[1], [1, 2], [1, 2, 3]]


def test_drawn_frames_have_the_newest_while_more_are_to_come_and_all_are_drawn_alike(cube):
    """Oracle: counting over many draws."""
    stage = stage_of(cube, curriculum_steps=5, frames_per_step=1)
    drawn = {step: [] for step in (0, 5, 10)}
    for step, found in drawn.items():
        for seed in range(300):
            frames, scale = stage._frames(step, torch.Generator().manual_seed(seed))
            assert scale == stage.active(step) / len(frames)
            found += frames.tolist()
    assert set(drawn[0]) == {1}
    assert set(drawn[5]) == {2}
    assert np.bincount(drawn[10])[1:] == pytest.approx([100, 100, 100], abs=40)
    two = stage_of(cube, frames_per_step=2)._frames(0, torch.Generator().manual_seed(0))[0].tolist()
    assert two == sorted(set(two))
    assert len(two) == 2


def learn(stage: Reconstruction, steps: int) -> list[dict[str, float]]:
    optimizer, losses = stage.begin(None), []
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        losses.append(stage.step(step, torch.Generator().manual_seed(step)))
        optimizer.step()
    return losses


@pytest.mark.parametrize("rest_relative", [False, True])
def test_sliding_cube_is_found_again(cube, rest_relative):
    """Oracle: where the file has its vertices; within a hundredth of its diagonal, in seconds."""
    stage = stage_of(cube, steps=150, curriculum_steps=10, blur_px=2.0, rest_relative=rest_relative)
    began = time.process_time()
    losses = learn(stage, 150)
    assert time.process_time() - began < 10
    with torch.no_grad():
        positions = stage.deformation(cube.body.points, torch.arange(FRAMES)).positions
    still = cube.error(cube.body.points.expand(FRAMES, -1, -1))
    assert still > 0.05
    assert cube.error(positions) < 0.01
    assert torch.equal(positions[0], cube.body.points)
    assert set(losses[-1]) == {"rgb", "mask", "arap", "loss"}
    assert losses[-1]["loss"] == pytest.approx(sum(value for key, value in losses[-1].items() if key != "loss"))


def test_rest_relative_clip_begins_as_the_body_looks_and_changes_as_the_clip_does(cube, tmp_path):
    """Oracle: the body's own render at rest, and differences between frames of the ray-cast clip."""
    path = write_sliding_cube(tmp_path / "cube.glb")
    truth = open_truth(path, "slide", config=SubjectConfig(radius=0.3), center=cube.mesh.center, scale=cube.mesh.scale)
    footage = Oracle(raycast_truth(truth)).film(ring_shot(cube.footage.times_s), seed=0)
    config = dataclasses.replace(RECON, rest_relative=True)
    stage = Reconstruction(cube.body, Deformation(FIELD, num_frames=FRAMES), footage, config)
    stage.begin(None)
    still = torch.zeros(VIEWS, dtype=torch.int64)
    shown = cube.body.show(at_rest(cube.body), still, footage.c2w, footage.K, SIZE, footage.background)
    torch.testing.assert_close(stage.footage.images[:, 0], shown.images, rtol=0, atol=1e-5)
    torch.testing.assert_close(stage.footage.masks[:, 0], shown.alphas, rtol=0, atol=1e-5)
    for name in ("images", "masks"):
        changes = [getattr(x, name)[:, 1:] - getattr(x, name)[:, :1] for x in (stage.footage, footage)]
        torch.testing.assert_close(*changes, rtol=0, atol=1e-5)
    assert float((footage.images[:, 0] - shown.images).abs().max()) > 0.01


def test_preview_shows_the_clip_beside_the_body(cube):
    """Oracle: the clip's own pixels on the left; the body at rest on the right in frame 0."""
    stage = stage_of(cube)
    stage.begin(None)
    frames = stage.preview()
    assert frames.shape == (FRAMES, SIZE, 2 * SIZE, 3)
    left = (cube.footage.images[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(frames[:, :, :SIZE], left)
    assert int((frames[0, :, :SIZE].int() - frames[0, :, SIZE:].int()).abs().max()) <= 1


def test_fitted_colors_are_those_of_the_lit_clip(cube):
    """Oracle: the clip's frame 0 in another light; places stay, and no steps change nothing."""
    body = cube.body
    assert fit_colors(body, cube.footage, 0) is body
    darker = dataclasses.replace(cube.footage, images=cube.footage.images * 0.5, background=(0.25, 0.25, 0.25))
    lit = fit_colors(body, darker, 60)
    still = torch.zeros(VIEWS, dtype=torch.int64)

    def away(shown: Body) -> float:
        images = shown.show(at_rest(shown), still, darker.c2w, darker.K, SIZE, darker.background).images
        return float((images - darker.images[:, 0]).abs().mean())

    assert away(lit) < 0.1 * away(body)
    assert torch.equal(lit.gaussians.means, body.gaussians.means)
    assert float(lit.gaussians.colors.min()) >= 0
    assert not lit.gaussians.colors.requires_grad


def test_gaussians_of_a_scene_turn_and_grow_with_their_points():
    """Oracle: covariances R S C S R^T from matrices; a body that does not turn keeps both."""
    body = scene_body()
    motion = drawn_motion(body, 2)
    posed = body.posed(motion)
    quats, scales = (x.detach() for x in (posed.quats_wxyz, posed.scales))
    own, turns = body.gaussians, motion.quats_wxyz.detach()
    for frame in range(2):
        grown = own.scales * motion.log_scales[frame].detach().exp()
        before = covariances(own.quats_wxyz, grown)
        rotation = rotations(turns[frame])
        wanted = rotation @ before @ rotation.transpose(1, 2)
        torch.testing.assert_close(covariances(quats[frame], scales[frame]), wanted, rtol=1e-4, atol=1e-6)


def covariances(quats_wxyz: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    axes = rotations(quats_wxyz) * scales[:, None]
    return axes @ axes.transpose(1, 2)


def rotations(quats_wxyz: torch.Tensor) -> torch.Tensor:
    """Turned axes, by the sandwich product with quaternions."""
    w, v = quats_wxyz[:, :1], quats_wxyz[:, 1:]
    columns = []
    for axis in torch.eye(3):
        x = axis.expand_as(v)
        t = 2 * torch.linalg.cross(v, x)
        columns.append(x + w * t + torch.linalg.cross(v, t))
    return torch.stack(columns, -1)


def test_gaussians_of_a_mesh_follow_their_triangles(cube):
    """Oracle: a shift of all points shifts all Gaussians; sizes and turns stay the same tensors."""
    shift = torch.tensor([0.1, -0.2, 0.05])
    posed = cube.body.posed(Motion((cube.body.points + shift)[None], torch.zeros(1), torch.zeros(1)))
    torch.testing.assert_close(posed.means[0], cube.body.gaussians.means + shift)
    assert posed.scales is cube.body.gaussians.scales


def test_mesh_without_edges_has_the_nearest_points_as_neighbours(cube):
    """Oracle: brute force over all pairs."""
    body = body_of_mesh(cube.bound, cube.body.points, torch.zeros(0, 2, dtype=torch.int64), RECON)
    gaps = torch.cdist(cube.body.points, cube.body.points) + 10 * torch.eye(8)
    wanted = gaps.topk(3, largest=False).values
    found = gaps.gather(1, body.neighbors.indices)
    torch.testing.assert_close(found.sort(1).values, wanted)
    assert body.squared_edge == pytest.approx(float(wanted.square().mean()), rel=1e-5)
