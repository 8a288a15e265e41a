"""Images: the same bytes whatever was rendered before, by however many threads and processes; Standard sRGB colour."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from manifests.gltf import GlbWriter
from pipelines.procedural import FAMILIES
from pipelines.procedural.draw import Draw
from render.process import BlenderProcess
from tests.render.studio import ball, plan, render, still_life, tiny, write

ASSETS = ("still-life", "face", "octopus")
CONFIG = tiny(views=2, frames=3, size=48, samples=3)


@pytest.fixture(scope="module")
def assets(tmp_path_factory):
    """A still life, morphing faces and a skinned body."""
    folder = tmp_path_factory.mktemp("assets")
    paths = {"still-life": write(folder / "still-life.glb", still_life())}
    for family in ASSETS[1:]:
        paths[family] = folder / f"{family}.glb"
        paths[family].write_bytes(FAMILIES[family](Draw(0, f"{family}-000")).to_bytes())
    return paths


def fresh(path, tmp_path, animation, **options) -> bytes:
    """The part of a clip that a new process renders."""
    with BlenderProcess() as process:
        return render(process, path, CONFIG, tmp_path, animation=animation, **options).parts[""]


@pytest.fixture(scope="module")
def alone(assets, tmp_path_factory):
    """Parts of animation 0 and 1 of each asset, each rendered by a process of its own."""
    folder = tmp_path_factory.mktemp("alone")
    return {(name, k): fresh(assets[name], folder, k) for name in ASSETS for k in (0, 1)}


@pytest.mark.parametrize("name", ASSETS)
def test_a_clip_is_the_same_whatever_the_process_rendered_before(assets, alone, blender, tmp_path, name):
    # Oracle: each clip alone in a fresh process; pose, morphs, normals, lights and camera must not leak.
    parts = [render(blender, assets[name], CONFIG, tmp_path, animation=k).parts[""] for k in (0, 1, 0)]
    assert parts[0] != parts[1]
    assert parts == [alone[name, 0], alone[name, 1], alone[name, 0]]


def test_a_clip_is_the_same_after_other_assets_sizes_and_lights(assets, alone, blender, tmp_path):
    # Oracle: as above, with another asset, another config and random lights in between.
    other = tiny(views=1, frames=2, size=80, samples=5)
    other = dataclasses.replace(other, render=dataclasses.replace(other.render, lights="random", bounces=1))
    first = render(blender, assets["still-life"], CONFIG, tmp_path, animation=1).parts[""]
    render(blender, assets["still-life"], other, tmp_path, animation=0)
    render(blender, assets["octopus"], other, tmp_path)
    again = render(blender, assets["still-life"], CONFIG, tmp_path, animation=1).parts[""]
    assert first == again == alone["still-life", 1]


def test_two_threads_render_the_same_bytes_as_one(assets, alone, tmp_path):
    # Oracle: equality.
    with BlenderProcess() as process:
        for name in ASSETS:
            clip = render(process, assets[name], CONFIG, tmp_path, animation=1, threads=2)
            assert clip.parts[""] == alone[name, 1], name


def test_depth_and_normals_beside_it_do_not_change_the_colour(assets, alone, blender, tmp_path):
    # Oracle: equality with the clip rendered without them, and of the series among themselves.
    clips = [
        render(blender, assets["still-life"], CONFIG, tmp_path, animation=1, series=("depth", "normals"))
        for _ in range(2)
    ]
    assert clips[0].parts[""] == alone["still-life", 1]
    assert clips[0].parts == clips[1].parts


def test_each_frame_and_view_is_the_same_in_a_clip_of_fewer(assets, blender, tmp_path):
    # Oracle: the same camera and time in another clip; the frame and view before it must not matter.
    sample, offsets = plan(blender, assets["still-life"], CONFIG)
    whole = render(blender, assets["still-life"], CONFIG, tmp_path, planned=(sample, offsets))
    cameras = {k: v[:1] if isinstance(v, list) else v for k, v in sample["cameras"].items()}
    one = sample | {"times_s": sample["times_s"][:1], "cameras": cameras}
    part = render(blender, assets["still-life"], CONFIG, tmp_path, planned=(one, offsets))
    np.testing.assert_array_equal(part.rgba[0, 0], whole.rgba[0, 0])


def test_cropping_to_the_object_changes_no_pixel(scene_arrays):
    # Oracle: the same scene rendered without a border. Not with the denoiser, which looks at its whole picture.
    for kind in ("", "_depth", "_normals"):
        np.testing.assert_array_equal(scene_arrays[f"cropped{kind}"], scene_arrays[f"full{kind}"])
    covered = (scene_arrays["full"][..., 3] > 0).mean()
    assert 0.05 < covered < 0.7


def test_colour_is_that_of_blenders_own_png(scene_arrays):
    # Oracle: Blender's PNG writer with view transform Standard; both have straight alpha.
    ours, theirs = scene_arrays["full"].astype(int), scene_arrays["png"].astype(int)
    apart = np.abs(ours - theirs)
    assert apart[..., 3].max() <= 1
    assert apart[ours[..., 3] == 255].max() <= 1
    # Where little is covered, one level of alpha is many of colour.
    partial = (ours[..., 3] > 32) & (ours[..., 3] < 255)
    assert partial.sum() > 50
    assert apart[partial].max() <= 2


def test_to_srgb_is_the_srgb_curve_on_straight_colour():
    # Oracle: the curve of IEC 61966-2-1 by hand; 0.2140 is the middle grey of 8-bit 127.5.
    pytest.importorskip("bpy")
    from render.scene import to_srgb

    linear = np.array([
        [0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [5.0, 0.5, -1.0, 1.0], [0.0031308, 0.2140, 0.001, 1.0],
        [0.1070, 0.0, 0.5, 0.5], [0.001, 0.002, 0.0, 0.001],
    ], np.float32)  # fmt: skip
    expected = [[0, 0, 0, 0], [255] * 4, [255, 188, 0, 255], [10, 127, 3, 255], [127, 0, 255, 128], [0, 0, 0, 0]]
    np.testing.assert_allclose(to_srgb(linear).astype(int), expected, atol=1)
    assert (to_srgb(linear)[[0, 5]] == 0).all()


def test_nothing_is_coloured_where_alpha_is_0(alone, blender, assets, tmp_path):
    # Oracle: the contract's definition of a frame, on glass and glow.
    clip = render(blender, assets["still-life"], CONFIG, tmp_path)
    assert (clip.rgba[clip.alpha == 0] == 0).all()
    assert ((clip.alpha > 0) & (clip.alpha < 255)).any()
    assert (clip.alpha == 0).mean() > 0.3


def test_light_comes_from_where_the_sample_says_in_every_view(blender, tmp_path):
    # Oracle: Lambert's law: the linear colour of a matt ball is the scalar product of normal and direction to the sun.
    writer = GlbWriter()
    matt = writer.add_material({"pbrMetallicRoughness": {"metallicFactor": 0, "roughnessFactor": 1}, "extensions": {
        "KHR_materials_specular": {"specularFactor": 0.0}}})  # fmt: skip
    node = writer.add_node("ball", mesh=writer.add_mesh("ball", [{**ball(1.0, 48), "material": matt}]))
    up = {"times": [0, 1], "values": [[0, 0, 0], [0, 0.1, 0]]}
    writer.add_animation("up", [{"node": node, "path": "translation", **up}])
    path = write(tmp_path / "ball.glb", writer)
    config = tiny(views=3, frames=1, size=64, samples=16, min_motion=0.0)
    sample, offsets = plan(blender, path, config)
    sun = {"name": "s", "type": "SUN", "azimuth_deg": 200.0, "elevation_deg": 50.0, "energy": 2.0, "angle_deg": 0.0}
    sample["render"]["lights"] = {"rig": "test", "lights": [{**sun, "color": [1.0, 1.0, 1.0]}]}
    sample["render"]["world"] = {"color": [1.0, 1.0, 1.0], "strength": 0.0}
    clip = render(blender, path, config, tmp_path, planned=(sample, offsets), series=("normals",))
    azimuth, elevation = np.radians([200.0, 50.0])
    towards = [np.cos(azimuth) * np.cos(elevation), np.sin(azimuth) * np.cos(elevation), np.sin(elevation)]
    normals = (clip.normals.astype(float) - 128) / 127
    value = clip.rgba[..., 0] / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    lit = (clip.alpha == 255) & (normals @ towards > 0.15) & (value < 1)
    strengths = []
    for view in range(3):
        assert lit[view].sum() > 100
        fitted, *_ = np.linalg.lstsq(normals[view][lit[view]], linear[view][lit[view]], rcond=None)
        strengths.append(np.linalg.norm(fitted))
        assert np.degrees(np.arccos(np.dot(fitted, towards) / strengths[-1])) < 2
        dark = (clip.alpha[view] == 255) & (normals[view] @ towards < -0.1)
        assert linear[view][dark].max(initial=0) < 0.01
    np.testing.assert_allclose(strengths, 2.0 * 1.0 / np.pi, rtol=0.03)
