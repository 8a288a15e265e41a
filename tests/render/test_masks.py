"""Masks are where the geometry is, in every view and frame; no mask touches the border."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.gltf import GlbWriter
from pipelines.procedural import FAMILIES
from pipelines.procedural.draw import Draw
from tests.render.masks import MAX_PX, P99_PX, box_errors, summary
from tests.render.studio import SHARED, block, plan, render, tiny, write

REAL = ("Fox.glb", "robot.glb", "Barbarian.glb", "MorphStressTest.gltf", "SimpleSkin.gltf")
PROCEDURAL = ("quadruped", "windmill", "jellyfish", "heart")


def check(clip, path, view_share: float = 0.5) -> None:
    errors = box_errors(path, clip.sample, clip.rgba)
    p99, most, images = summary(errors)
    print(f"{path.name}: p99 {p99} max {most} px over {images} images")
    assert images >= view_share * clip.alpha.shape[0] * clip.alpha.shape[1]
    assert p99 <= P99_PX, f"{path.name}: p99 {p99} px"
    assert most <= MAX_PX, f"{path.name}: max {most} px at {np.argwhere(errors == most)[0]}"
    edges = [clip.alpha[..., 0, :], clip.alpha[..., -1, :], clip.alpha[..., 0], clip.alpha[..., -1]]
    assert not any(edge.any() for edge in edges)
    assert clip.sample["quality"]["border_images"] == 0


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/assets is not there")
@pytest.mark.parametrize("name", REAL)
def test_masks_of_real_assets_lie_where_their_vertices_project_to(blender, tmp_path, name):
    # Oracle: the poser and the projection written out in masks.py.
    config = tiny(views=4, frames=4, fps=2.0 if name.startswith("Simple") else 8.0, size=128, samples=16)
    check(render(blender, SHARED / name, config, tmp_path), SHARED / name)


@pytest.mark.parametrize("family", PROCEDURAL)
def test_masks_of_procedural_assets_lie_where_their_vertices_project_to(blender, tmp_path, family):
    # Oracle: the poser and the projection written out in masks.py.
    path = tmp_path / f"{family}.glb"
    path.write_bytes(FAMILIES[family](Draw(0, f"{family}-000")).to_bytes())
    check(render(blender, path, tiny(views=3, frames=4, fps=8.0, size=128, samples=16), tmp_path), path)


@pytest.mark.parametrize("mode", ["asset", "frame0", "given"])
@pytest.mark.parametrize("root_motion", ["keep", "remove"])
def test_masks_follow_every_normalisation(blender, tmp_path, mode, root_motion):
    # Oracle: as above, for the images that the object does not leave.
    writer = GlbWriter()
    cube = writer.add_node("cube", mesh=writer.add_mesh("cube", [block(0.5)]))
    way = {"times": [0, 1], "values": [[0, 0, 0], [2.0, 0.5, 0]]}
    writer.add_animation("walk", [{"node": cube, "path": "translation", **way}])
    path = write(tmp_path / "walk.glb", writer)
    given = {"given_center": (0.3, 0.0, 0.1), "given_scale": 0.25} if mode == "given" else {}
    config = tiny(views=3, frames=4, size=96, samples=8, normalization=mode, root_motion=root_motion,
                  min_frame0_radius=0.0, min_motion=0.0, **given)  # fmt: skip
    clip = render(blender, path, config, tmp_path)
    _, most, images = summary(box_errors(path, clip.sample, clip.rgba))
    assert images == 12 if mode == "asset" or (root_motion == "remove" and mode == "frame0") else images >= 3
    assert most <= P99_PX


def test_the_measure_sees_a_shift_a_wrong_frame_and_a_lost_mask(blender, tmp_path):
    # Oracle: errors made on purpose.
    path = tmp_path / "bird.glb"
    path.write_bytes(FAMILIES["windmill"](Draw(0, "windmill-000")).to_bytes())
    config = tiny(views=2, frames=3, size=96, samples=8)
    clip = render(blender, path, config, tmp_path, planned=plan(blender, path, config))
    good = box_errors(path, clip.sample, clip.rgba)
    shifted = box_errors(path, clip.sample, np.roll(clip.rgba, 5, axis=3))
    assert np.nanmax(good) <= 2
    assert np.nanmin(shifted[..., [0, 2]]) >= 3
    np.testing.assert_array_equal(shifted[..., [1, 3]], good[..., [1, 3]])
    swapped = box_errors(path, clip.sample, clip.rgba[::-1])
    assert np.nanmax(swapped) > MAX_PX
    lost = clip.rgba.copy()
    lost[0, 1] = 0
    assert np.isinf(box_errors(path, clip.sample, lost)[0, 1]).all()
