"""Refinement by an oracle that draws with the subject's own Gaussians: the truth is where it stands still."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animate.config import AnimateConfig, RefinementConfig
from animate.fields.deformation import Deformation, Motion
from animate.methods.reconstruction import Held
from animate.methods.refinement import Refinement
from tests.animate.tiny_bodies import FIELD, FRAMES, RECON, SIZE, scene_body, sliding_cube

REFINE = RefinementConfig(
    steps=20, views=2, size=SIZE, reconstruction_size=SIZE, fov_range_deg=(35.0, 45.0), sds_weight=1.0, rgb_weight=0.0,
    mask_weight=0.0, arap_weight=0.0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread():
    """The cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    torch.set_num_threads(1)
    return sliding_cube(tmp_path_factory.mktemp("cube"))


def stage_of(cube, body=None, **changes) -> Refinement:
    config = AnimateConfig(method="animate3d", recon=RECON, refine=dataclasses.replace(REFINE, **changes))
    field = Deformation(FIELD, num_frames=FRAMES, generator=torch.Generator().manual_seed(0))
    return Refinement(body or cube.body, field, cube.footage, cube.oracle, "a red cube slides", config, 270.0)


def held_at(cube, share: float) -> Held:
    """The cube that share of the way to its truth."""
    rest = cube.body.points
    positions = (rest + share * (cube.truth - rest))[1:].clone().requires_grad_()
    return Held(Motion(positions, torch.zeros(1), torch.zeros(1)))


def distilled(stage: Refinement, held: Held, step: int = 0) -> tuple[float, torch.Tensor]:
    loss = stage._distil(held, step, torch.Generator().manual_seed(step))
    return loss, held.motion.positions.grad


@pytest.mark.parametrize("form", ["clean", "noise"])
def test_truth_is_where_distillation_stands_still(cube, form):
    """Oracle: no gradient at the true motion, and elsewhere one that leads there."""
    stage = stage_of(cube, sds_form=form)
    there, at_truth = distilled(stage, held_at(cube, 1.0))
    away, elsewhere = distilled(stage, held_at(cube, 0.7))
    assert float(at_truth.norm()) < 1e-3 * float(elsewhere.norm())
    assert there < 1e-4 * away
    lacking = (cube.truth - (cube.body.points + 0.7 * (cube.truth - cube.body.points)))[1:]
    pull = -elsewhere.mean(1)
    assert torch.cosine_similarity(pull, lacking.mean(1), dim=-1).min() > 0.5


def test_weight_scales_the_distillation_and_zero_leaves_it_out(cube):
    """Oracle: proportion; at zero the prior is not asked at all."""
    one = distilled(stage_of(cube), held_at(cube, 0.5))
    half = distilled(stage_of(cube, sds_weight=0.5), held_at(cube, 0.5))
    assert half[0] == pytest.approx(one[0] / 2, rel=1e-5)
    torch.testing.assert_close(half[1], one[1] / 2)
    loss, gradient = distilled(stage_of(cube, sds_weight=0.0), held_at(cube, 0.5))
    assert (loss, gradient) == (0.0, None)


def test_rendering_in_parts_changes_nothing(cube):
    """Oracle: one part for all images."""
    whole = distilled(stage_of(cube), held_at(cube, 0.5))[1]
    stage = stage_of(cube)
    stage.config = dataclasses.replace(stage.config, recon=dataclasses.replace(RECON, chunk=1))
    torch.testing.assert_close(distilled(stage, held_at(cube, 0.5))[1], whole, rtol=1e-4, atol=1e-6)


def test_steps_lead_to_the_truth(cube):
    """Oracle: the distance to the true vertices, which falls by more than half from rest."""
    stage = stage_of(cube)
    optimizer = stage.begin(None)

    def away() -> float:
        with torch.no_grad():
            return cube.error(stage.deformation(cube.body.points, torch.arange(FRAMES)).positions)

    before = away()
    for step in range(20):
        optimizer.zero_grad(set_to_none=True)
        losses = stage.step(step, torch.Generator().manual_seed(step))
        optimizer.step()
    assert set(losses) == {"sds", "rgb", "mask", "arap", "loss"}
    assert away() < 0.5 * before


def test_stage_is_held_to_the_renders_it_begins_with(cube):
    """Oracle: the comparison is exact at the start, and grows with the motion away from it; at another size too."""
    stage = stage_of(cube, sds_weight=0.0, rgb_weight=100.0, mask_weight=100.0, reconstruction_size=32)
    generator = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(stage.deformation.heads["position"][-1].weight, std=0.3, generator=generator)
    stage.begin(None)
    assert stage.reference.images.shape == (RECON.views, FRAMES, 3, 32, 32)
    first = stage.step(0, torch.Generator().manual_seed(0))
    assert first["loss"] == pytest.approx(0, abs=1e-9)
    with torch.no_grad():
        stage.deformation.heads["position"][-1].weight.mul_(5)
    assert stage.step(0, torch.Generator().manual_seed(0))["rgb"] > 0.01


@pytest.mark.parametrize("deform_scale", [False, True])
def test_sizes_of_a_scene_change_where_they_may(cube, deform_scale):
    """Oracle: the gradient of the head of sizes; those of a mesh never change."""
    body = scene_body()
    stage = stage_of(cube, body, deform_scale=deform_scale)
    stage.begin(None)
    stage.step(0, torch.Generator().manual_seed(0))
    assert (stage.deformation.heads["scale"][-1].weight.grad is not None) == deform_scale
    assert stage.deformation.heads["rotation"][-1].weight.grad is not None
    mesh = stage_of(cube, deform_scale=deform_scale)
    mesh.begin(None)
    mesh.step(0, torch.Generator().manual_seed(0))
    assert mesh.deformation.heads["scale"][-1].weight.grad is None


def test_drawn_cameras_are_told_the_body_at_rest(cube):
    """Oracle: the oracle's own picture of time 0 through the same cameras; another draw, other cameras."""
    stage = stage_of(cube)
    shot = stage._shot(torch.Generator().manual_seed(0))
    truth = cube.oracle.film(shot, seed=0).images[:, 0]
    torch.testing.assert_close(shot.first, truth, rtol=0, atol=1e-5)
    assert shot.num_frames == FRAMES
    other = stage._shot(torch.Generator().manual_seed(1))
    assert not torch.allclose(shot.c2w, other.c2w)


def test_preview_shows_the_clip_beside_the_body(cube):
    """Oracle: the clip's own pixels on the left."""
    stage = stage_of(cube)
    stage.begin(None)
    frames = stage.preview()
    assert frames.shape == (FRAMES, SIZE, 2 * SIZE, 3)
    left = (cube.footage.images[0].clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
    assert torch.equal(frames[:, :, :SIZE], left)
