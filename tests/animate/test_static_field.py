"""The field at rest against renders of the mesh that it learns."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from animate.config import AnimateConfig, DynamicConfig, NerfConfig, StaticConfig
from animate.fields.nerf import NerfImages, StaticDynamicNerf
from animate.methods.static_field import MeshRenders, StaticField, film_mesh, look_at, static_losses
from animate.shot import intrinsics_of
from animate.subject.raycast import Raycaster
from tests.animate.tiny_motion import rest_of, write_sliding_cube

SIZE = 16
CONFIG = AnimateConfig(
    method="threetofour",
    nerf=NerfConfig(
        levels=4,
        log2_table=10,
        base=4,
        growth=1.6,
        hidden=16,
        samples=16,
        learning_rate_static=3e-2,
        learning_rate_heads=1e-2,
    ),
    static=StaticConfig(steps=50, size=SIZE),
    dynamic=DynamicConfig(steps=4, frames=3, size=SIZE),
)


@pytest.fixture(autouse=True)
def _one_thread():
    """The cores are shared."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def mesh(tmp_path_factory):
    return rest_of(write_sliding_cube(tmp_path_factory.mktemp("cube") / "cube.glb"))


def stage_of(mesh, **changes) -> StaticField:
    config = dataclasses.replace(CONFIG, static=dataclasses.replace(CONFIG.static, **changes))
    nerf = StaticDynamicNerf(config.nerf, generator=torch.Generator().manual_seed(0))
    return StaticField(nerf, mesh, Raycaster(mesh), config)


def cameras(azimuth_deg: float = 300.0, size: int = SIZE):
    return look_at(azimuth_deg, CONFIG), intrinsics_of(torch.tensor([40.0]), size)


def test_renders_of_the_mesh_are_the_raycasters(mesh):
    """Oracle: a plane's depth and normal seen straight on, its colour, and the background beside it."""
    c2w, K = look_at(0.0, CONFIG, 0.0), intrinsics_of(torch.tensor([40.0]), 17)
    seen = film_mesh(Raycaster(mesh), mesh, c2w, K, 17, (0.1, 0.2, 0.3))
    assert [tuple(x.shape) for x in seen] == [(1, c, 17, 17) for c in (3, 1, 1, 3)]
    half = 0.3 / 3**0.5
    assert float(seen.depth[0, 0, 8, 8]) == pytest.approx(1.5 - half, abs=1e-5)
    torch.testing.assert_close(seen.normals[0, :, 8, 8], torch.tensor([1.0, 0.0, 0.0]))
    assert float(seen.alphas[0, 0, 8, 8]) == 1
    torch.testing.assert_close(seen.images[0, :, 0, 0], torch.tensor([0.1, 0.2, 0.3]))
    assert float(seen.depth[0, 0, 0, 0]) == 0


def test_camera_looks_at_the_centre_from_its_distance():
    """Oracle: the camera's place, and that its axis meets the origin."""
    c2w = look_at(90.0, CONFIG, 0.0)[0]
    torch.testing.assert_close(c2w[:3, 3], torch.tensor([0.0, 1.5, 0.0]), rtol=0, atol=1e-6)
    torch.testing.assert_close(c2w[:3, 2], torch.tensor([0.0, 1.0, 0.0]), rtol=0, atol=1e-6)


def test_losses_are_mean_absolute_errors(mesh):
    """Oracle: numbers worked out for uniform differences; depth and normals count where the mesh is."""
    c2w, K = cameras()
    target = film_mesh(Raycaster(mesh), mesh, c2w, K, SIZE, (0.5, 0.5, 0.5))
    inside = float((target.depth > 0).float().mean())
    same = NerfImages(*target)
    assert all(float(value) == 0 for value in static_losses(same, target, (1, 1, 1)).values())
    off = NerfImages(target.images + 0.1, target.alphas - 0.2, target.depth + 0.3, target.normals + 0.4)
    found = {name: float(value) for name, value in static_losses(off, target, (2.0, 3.0, 4.0)).items()}
    expected = {"rgb": 0.1, "depth": 2 * 0.3 * inside, "normal": 3 * 0.4 * inside, "mask": 4 * 0.2}
    assert found == pytest.approx(expected, rel=1e-4)
    assert set(static_losses(off, target, (0, 0, 0))) == {"rgb"}
    assert isinstance(target, MeshRenders)


def test_steps_teach_the_field_the_mesh_at_all_times(mesh):
    """Oracle: the mesh's own render from a camera, at two times, which come to look alike and like it."""
    stage = stage_of(mesh)
    optimizer = stage.begin(None)
    c2w, K = cameras()
    target = film_mesh(stage.raycaster, mesh, c2w, K, SIZE, CONFIG.background).images

    def away() -> float:
        with torch.no_grad():
            shown = stage.nerf.render(c2w, K, (SIZE, SIZE), torch.tensor([0.3]), background=CONFIG.background)
        return float((shown.images - target).abs().mean())

    before, losses = away(), []
    for step in range(50):
        optimizer.zero_grad(set_to_none=True)
        losses.append(stage.step(step, torch.Generator().manual_seed(step)))
        optimizer.step()
    assert set(losses[0]) == {"rgb", "depth", "normal", "mask", "loss"}
    assert losses[0]["loss"] == pytest.approx(sum(v for k, v in losses[0].items() if k != "loss"), rel=1e-5)
    assert sum(row["loss"] for row in losses[-5:]) < 0.7 * sum(row["loss"] for row in losses[:5])
    assert away() < 0.3 * before
    with torch.no_grad():
        times = [stage.nerf.render(c2w, K, (SIZE, SIZE), torch.tensor([t])).images for t in (0.0, 0.9)]
    assert torch.equal(*times), "the grid of space and time has no part in this stage"


def test_step_is_a_function_of_its_generator(mesh):
    """Oracle: the same losses again, other ones with another seed."""
    stage = stage_of(mesh)
    stage.begin(None)
    found = [stage.step(0, torch.Generator().manual_seed(seed)) for seed in (4, 4, 5)]
    assert found[0] == found[1] != found[2]


def test_preview_shows_the_mesh_beside_the_field(mesh):
    """Oracle: the ray-cast picture on the left."""
    stage = stage_of(mesh)
    frames = stage.preview()
    assert frames.shape == (8, SIZE, 2 * SIZE, 3)
    c2w, K = look_at(270.0, CONFIG), intrinsics_of(torch.tensor([40.0]), SIZE)
    left = film_mesh(stage.raycaster, mesh, c2w, K, SIZE, CONFIG.background).images[0].permute(1, 2, 0)
    assert int((frames[0, :, :SIZE].int() - (left * 255).round().int()).abs().max()) <= 1
