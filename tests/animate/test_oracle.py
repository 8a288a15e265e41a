"""The oracle against renders of its own truth, the algebra of diffusion, and the motion written into a file."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from animate.config import SubjectConfig
from animate.priors.oracle import Oracle, raycast_truth, splat_truth
from animate.priors.prior import Guidance
from animate.priors.true_motion import open_truth, truth_points, truth_pose
from animate.sds import sds_loss
from animate.subject.gaussians import from_mesh
from manifests.cameras import project
from manifests.errors import InputError
from manifests.gltf import to_z_up
from tests.animate.tiny_motion import END_S, START_S, STEP, box_of, rest_of, shot_of, write_sliding_cube

TIMES = [0.0, 0.25, 0.5]


@pytest.fixture(autouse=True)
def _one_thread():
    """The cores are shared."""
    torch.set_num_threads(1)


def squares(times_s, c2w, K, size):
    """A white square that moves right by a quarter of the picture in each half second; the camera does not matter."""
    images = torch.zeros(len(c2w), len(times_s), 3, size, size)
    masks = torch.zeros(len(c2w), len(times_s), 1, size, size)
    for frame, time_s in enumerate(times_s.tolist()):
        left = round(size * (0.25 + time_s / 2))
        for target in (images, masks):
            target[:, frame, :, size // 4 : size // 2, left : left + size // 4] = 1.0
    return images, masks


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("factor", [1, 2])
@pytest.mark.parametrize("timestep", [20, 500, 980])
def test_predict_splits_any_noisy_latents(factor, timestep):
    """Oracle: clean is the encoded truth, and noise is what is left of the sum; guidance changes nothing."""
    oracle, shot = Oracle(squares, factor=factor), shot_of(TIMES)
    truth = oracle.encode(oracle.film(shot, seed=0).images)
    noise = normal(*truth.shape)
    noisy = oracle.noised(truth, noise, timestep)
    pred = oracle.predict(noisy, timestep, shot, Guidance(scale=7.0, rescale=0.5))
    torch.testing.assert_close(pred.clean, truth)
    torch.testing.assert_close(pred.noise[:, 1:], noise[:, 1:], rtol=0, atol=1e-4)
    assert not pred.noise[:, 0].any()
    other = normal(*truth.shape, seed=1)
    pred, alpha = oracle.predict(other, timestep, shot, Guidance()), oracle.alpha(timestep)
    mixed = alpha.sqrt() * pred.clean + (1 - alpha).sqrt() * pred.noise
    torch.testing.assert_close(mixed[:, 1:], other[:, 1:], rtol=0, atol=1e-5)


def test_encode_is_the_mean_of_its_pixels_and_differentiable():
    """Oracle: a mean over blocks, written out; the gradient is 2 over the block's pixels."""
    images = torch.rand(1, 2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    latents = Oracle(squares, factor=2).encode(images)
    blocks = images.reshape(1, 2, 3, 4, 2, 4, 2).mean((4, 6)) * 2 - 1
    torch.testing.assert_close(latents, blocks)
    latents.sum().backward()
    torch.testing.assert_close(images.grad, torch.full_like(images, 0.5))
    with pytest.raises(InputError, match="multiple of 3"):
        Oracle(squares, factor=3).encode(images)


@pytest.mark.parametrize("form", ["clean", "noise"])
def test_truth_is_the_fixed_point_of_distillation(form):
    """Oracle: no gradient at the truth, and a step against the gradient from anywhere comes nearer to it."""
    oracle, shot = Oracle(squares), shot_of(TIMES)
    truth = oracle.encode(oracle.film(shot, seed=0).images)
    for latents, still in ((truth.clone(), True), (truth + 0.1 * normal(*truth.shape, seed=3), False)):
        latents.requires_grad_()
        how = {"timestep": 300, "noise": normal(*truth.shape, seed=2), "guidance": Guidance(scale=5.0), "form": form}
        sds_loss(oracle, latents, shot, **how).loss.backward()
        assert latents.grad is not None
        if still:
            assert latents.grad.abs().max() < 1e-4
        else:
            step = latents.detach() - 1e-2 * latents.grad
            assert ((step - truth)[:, 1:].square().sum() < (latents.detach() - truth)[:, 1:].square().sum()).item()


def test_attention_map_covers_the_object_now_and_at_rest():
    """Oracle: the union of two known squares; at latent size the share of each block."""
    oracle, shot = Oracle(squares, factor=2), shot_of(TIMES)
    _, masks = squares(shot.times_s, shot.c2w, shot.K, 16)
    union = torch.maximum(masks, masks[:, :1])
    noisy = torch.zeros(2, 3, 3, 8, 8)
    found = oracle.attention_map("CUBE", noisy, 100, shot)
    torch.testing.assert_close(found, union.reshape(2, 3, 1, 8, 2, 8, 2).mean((4, 6)))
    for word in ("cub", "", "dog"):
        with pytest.raises(InputError, match="expected the word"):
            oracle.attention_map(word, noisy, 100, shot)


def test_err_on_background_stays_off_the_object():
    """Oracle: the same oracle without the error; a difference nowhere that the map covers, and none in frame 0."""
    shot, noisy = shot_of(TIMES), normal(2, 3, 3, 8, 8)
    good, bad = Oracle(squares, factor=2), Oracle(squares, factor=2, err_on_background=0.5)
    off = (bad.predict(noisy, 400, shot, Guidance()).clean - good.predict(noisy, 400, shot, Guidance()).clean).abs()
    seen = bad.attention_map("cube", noisy, 400, shot).expand_as(off) > 0
    assert off[seen].max() == 0
    assert off[:, 0].max() == 0
    assert 0.3 < off[:, 1:][~seen[:, 1:]].max() <= 0.5
    assert off[:, 1:][~seen[:, 1:]].mean() > 0.1
    assert torch.equal(bad.film(shot, seed=0).images, good.film(shot, seed=0).images)


def test_film_is_composited_and_kept_for_a_shot():
    """Oracle: the definition of compositing; and how often the render is asked."""
    asked = []

    def counted(*arguments):
        asked.append(1)
        return squares(*arguments)

    oracle, steps = Oracle(counted), []
    shot = shot_of(TIMES, background=(0.2, 0.4, 0.6))
    footage = oracle.film(shot, seed=0, told=lambda *done: steps.append(done))
    assert steps == [(1, 1)]
    images, masks = squares(shot.times_s, shot.c2w, shot.K, 16)
    behind = torch.tensor([0.2, 0.4, 0.6])[:, None, None]
    torch.testing.assert_close(footage.images, torch.where(masks > 0, images, behind))
    oracle.predict(normal(2, 3, 3, 16, 16), 3, shot, Guidance())
    oracle.attention_map("cube", normal(2, 3, 3, 16, 16), 3, shot_of(TIMES, background=(0.2, 0.4, 0.6)))
    assert len(asked) == 1
    oracle.film(shot_of([0.0, 0.25, 0.4]), seed=0)
    assert len(asked) == 2


# -- the truth of a file -----------------------------------------------------------------------------------------------


@pytest.fixture
def cube(tmp_path):
    """The file of the sliding cube."""
    return write_sliding_cube(tmp_path / "cube.glb")


def test_truth_pose_finds_the_animation(cube):
    """Against what was written: name, index, a later start, the first one without a name."""
    assert truth_pose(cube) == truth_pose(cube, "slide") == truth_pose(cube, "0") == (0, START_S)
    assert truth_pose(cube, "stay") == (1, 0.0)
    assert truth_pose(cube, "slide@0.75") == (0, 0.75)
    with pytest.raises(InputError, match='0 "slide", 1 "stay"'):
        truth_pose(cube, "jump")
    with pytest.raises(InputError, match=r"expected one with an animation"):
        truth_pose(cube.with_name("none.glb"))
    broken = cube.with_name("broken.glb")
    broken.write_bytes(cube.read_bytes()[:100])
    with pytest.raises(InputError, match=r"broken\.glb"):
        truth_pose(broken)


def test_truth_moves_in_the_space_of_the_subject(cube):
    """Oracle: the written translation, turned to z up and scaled as the subject; held at its end, never begun again."""
    rest = rest_of(cube)
    truth = open_truth(cube, "slide", config=SubjectConfig(), center=rest.center, scale=rest.scale, box=box_of(rest))
    times_s = np.array([0.0, 0.5, END_S - START_S, 7.0])
    slid = to_z_up(np.array(STEP)) * np.array([0, 0.5, 1, 1])[:, None] * rest.scale
    points = truth_points(truth)(times_s)
    np.testing.assert_allclose(points, truth.points + slid[:, None], atol=1e-6)
    np.testing.assert_allclose(truth.vertices, rest.vertices, atol=1e-6)


def test_truth_refuses_a_subject_that_rests_elsewhere(cube):
    """A subject of another size, or posed later in the motion."""
    rest = rest_of(cube)
    with pytest.raises(InputError, match=r"--pose 0@0\.5"):
        open_truth(cube, config=SubjectConfig(), center=rest.center, scale=rest.scale * 1.2, box=box_of(rest))
    late = rest_of(cube, "slide@1.4")
    with pytest.raises(InputError, match="same pose and place"):
        open_truth(cube, config=SubjectConfig(), center=rest.center, scale=rest.scale, box=box_of(late) + 0.1)


def test_renders_show_the_cube_where_it_is(cube):
    """Oracle: the projected centre of the written motion against the middle of the coverage, for both renderers."""
    rest = rest_of(cube)
    truth = open_truth(cube, "slide", config=SubjectConfig(), center=rest.center, scale=rest.scale)
    bound = from_mesh(truth, SubjectConfig(gaussians="surface", surface_points=300))
    shot = shot_of(TIMES, size=32)
    for render in (raycast_truth(truth), splat_truth(bound, truth_points(truth), backend="dense")):
        footage = Oracle(render).film(shot, seed=0)
        assert footage.masks.min() >= 0
        assert footage.masks.max() <= 1 + 1e-6
        share = footage.masks[:, :, 0]
        at = torch.arange(32) + 0.5
        u = (share.sum(2) * at).sum(-1) / share.sum((2, 3))
        v = (share.sum(3) * at).sum(-1) / share.sum((2, 3))
        for view in range(2):
            for frame, time_s in enumerate(TIMES):
                middle = to_z_up(np.array(STEP)) * time_s * rest.scale
                uv, _ = project(middle, shot.c2w[view].numpy(), shot.K[view].numpy())
                # A silhouette's middle lies a little below the centre's image; how far it goes is the motion's.
                assert abs(u[view, frame] - u[view, 0] - (uv[0] - 16)) < 0.4
                assert abs(v[view, frame] - v[view, 0] - (uv[1] - 16)) < 0.4
                assert abs(v[view, frame] - uv[1]) < 1.5
        inside = footage.images[0, 0][:, 16, 16]
        assert inside[0] > 2 * inside[1]


def test_both_renders_agree_on_a_character(shared_assets):
    """Two independent renderers of the same truth: coverage of a fox that runs."""
    path = shared_assets / "Fox.glb"
    index, start_s = truth_pose(path, "Run")
    rest = rest_of(path, f"{index}@{start_s!r}")
    truth = open_truth(path, "Run", config=SubjectConfig(), center=rest.center, scale=rest.scale, box=box_of(rest))
    bound = from_mesh(truth, SubjectConfig(gaussians="surface", surface_points=2000))
    shot = shot_of([0.0, 0.3], size=64)
    cast = Oracle(raycast_truth(truth)).film(shot, seed=0)
    splats = Oracle(splat_truth(bound, truth_points(truth))).film(shot, seed=0)
    both = torch.minimum(cast.masks, splats.masks).sum() / cast.masks.sum()
    assert both > 0.9
    assert (cast.images - splats.images).abs().mean() < 0.03
    assert (cast.masks[:, 0] - cast.masks[:, 1]).abs().mean() > 0.01
