"""Animated GLBs: every frame's vertices read back by a reader written here, by ours, by trimesh and by Blender."""

from __future__ import annotations

import copy
import importlib.util
import io

import numpy as np
import pygltflib
import pytest
import trimesh

from animate.config import SubjectConfig
from animate.export.glb import animated_glb
from animate.subject.mesh import open_mesh
from manifests.gltf import Poser, from_z_up, read_bytes, to_z_up
from manifests.gltf.materials import texture_infos
from tests.animate.moving_files import awkward_glb, moving, plain_glb, quad_obj

TOLERANCE = 1e-5
"""Of the object's size."""
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
KINDS = {5126: "<f4", 5123: "<u2", 5125: "<u4"}
CASES = ("fox", "awkward", "obj", "plain")


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """(mesh, world) of each awkward kind of input."""
    return made(request.param, tmp_path, request)


def made(name, folder, request):
    if name == "fox":
        return moving(request.getfixturevalue("shared_assets") / "Fox.glb", "Run")
    paths = {"awkward": lambda: awkward_glb(folder / "a.glb"), "obj": lambda: quad_obj(folder)}
    return moving(paths.get(name, lambda: plain_glb(folder / "p.glb"))())


def times_of(world) -> np.ndarray:
    return np.arange(len(world[0])) / 8


def size_of(mesh) -> float:
    return mesh.diagonal / mesh.scale


class ForeignReader:
    """Morphed positions by the letter of the specification, from pygltflib's JSON and numpy alone."""

    def __init__(self, data: bytes):
        self.gltf = pygltflib.GLTF2.load_from_bytes(data)
        self.blob = self.gltf.binary_blob()

    def array(self, index: int) -> np.ndarray:
        accessor = self.gltf.accessors[index]
        view = self.gltf.bufferViews[accessor.bufferView]
        width = WIDTHS[accessor.type]
        start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
        flat = np.frombuffer(self.blob, KINDS[accessor.componentType], accessor.count * width, start)
        return flat.reshape(-1, width)

    def image(self, index: int) -> bytes:
        view = self.gltf.bufferViews[self.gltf.images[index].bufferView]
        return self.blob[view.byteOffset or 0 :][: view.byteLength]

    def positions(self, time_s: float) -> list[np.ndarray]:
        """(n, 3) float32 of every node in order, glTF's axes."""
        out = []
        (animation,) = self.gltf.animations
        for number, node in enumerate(self.gltf.nodes):
            assert (node.translation, node.rotation, node.scale, node.skin) == (None,) * 4
            (primitive,) = self.gltf.meshes[node.mesh].primitives
            (channel,) = [c for c in animation.channels if c.target.node == number]
            assert channel.target.path == "weights"
            sampler = animation.samplers[channel.sampler]
            assert sampler.interpolation == "LINEAR"
            keys = self.array(sampler.input).ravel().astype(np.float64)
            rows = self.array(sampler.output).reshape(len(keys), -1)
            weights = np.array([np.interp(time_s, keys, column) for column in rows.T], np.float32)
            assert (weights > 0).sum() <= 2, "more than two targets at work"
            points = self.array(primitive.attributes.POSITION).copy()
            for weight, target in zip(weights, primitive.targets, strict=True):
                assert set(target) == {"POSITION"}
                points += weight * self.array(target["POSITION"])
            out.append(points)
        return out


def described(asset, material: dict) -> dict:
    """A material without its name, its textures by their images' bytes and samplers instead of their numbers."""
    plain = copy.deepcopy(material) | {"name": ""}
    for info in texture_infos(plain):
        texture = asset.textures[info["index"]]
        sampler = asset.samplers[texture["sampler"]] if texture["sampler"] >= 0 else {}
        info["index"] = (asset.images[texture["source"]].data, sampler)
    return plain


def test_frames_read_back_by_a_foreign_reader(case):
    """Oracle: the positions that were given, through pygltflib and numpy; between frames their mean."""
    mesh, world = case
    reader = ForeignReader(animated_glb(mesh, world, times_of(world)))
    for frame, time in enumerate(times_of(world)):
        for found, wanted in zip(reader.positions(time), world, strict=True):
            assert np.abs(to_z_up(found) - wanted[frame]).max() < TOLERANCE * size_of(mesh)
    for found, wanted in zip(reader.positions(1.5 / 8), world, strict=True):
        assert np.abs(to_z_up(found) - (wanted[1] + wanted[2]) / 2).max() < TOLERANCE * size_of(mesh)


def test_frames_read_back_by_our_reader(case):
    """Oracle: our own poser, and the specification's clamping beyond the last key."""
    mesh, world = case
    poser = Poser(read_bytes(animated_glb(mesh, world, times_of(world), name="move")))
    assert [animation.name for animation in poser.asset.animations] == ["move"]
    times = np.append(times_of(world), 99.0)
    for found, wanted in zip(poser.positions(0, times), world, strict=True):
        assert np.abs(found - np.concatenate([wanted, wanted[-1:]])).max() < TOLERANCE * size_of(mesh)


def test_rest_is_bit_by_bit_the_input(case):
    """Oracle: the poser's vertices of the input, and its faces, UVs and colours."""
    mesh, world = case
    reader = ForeignReader(animated_glb(mesh, world, times_of(world)))
    assert len(reader.gltf.nodes) == len(mesh.poser.parts)
    for node, part, rest in zip(reader.gltf.nodes, mesh.poser.parts, mesh.part_positions, strict=True):
        (primitive,) = reader.gltf.meshes[node.mesh].primitives
        np.testing.assert_array_equal(to_z_up(reader.array(primitive.attributes.POSITION)), rest)
        np.testing.assert_array_equal(reader.array(primitive.indices).reshape(-1, 3), part.triangles)
        for k, uv in enumerate(part.source.uvs):
            found = reader.array(getattr(primitive.attributes, f"TEXCOORD_{k}"))
            np.testing.assert_array_equal(found, uv[part.vertex_ids])
        assert (primitive.attributes.NORMAL is None) == (part.source.normals is None)
        assert (primitive.attributes.COLOR_0 is None) == (part.source.colors is None)


def test_images_and_materials_are_kept(case):
    """Oracle: the bytes of the input's images and its materials as read."""
    mesh, world = case
    data = animated_glb(mesh, world, times_of(world))
    reader, again = ForeignReader(data), read_bytes(data)
    used = {image.data for image in mesh.asset.images if image.data is not None}
    assert {reader.image(i) for i in range(len(reader.gltf.images))} == used
    assert len(reader.gltf.images) == len(used)
    for part, new in zip(mesh.poser.parts, Poser(again).parts, strict=True):
        assert (part.source.material < 0) == (new.source.material < 0)
        if part.source.material >= 0:
            one, other = mesh.asset.materials[part.source.material], again.materials[new.source.material]
            assert described(mesh.asset, one) == described(again, other)
    assert again.copyright == mesh.asset.copyright


def test_another_library_opens_it(case):
    """Oracle: trimesh, which shows the rest pose."""
    mesh, world = case
    scene = trimesh.load(io.BytesIO(animated_glb(mesh, world, times_of(world))), file_type="glb", process=False)
    assert len(scene.geometry) == len(mesh.poser.parts)
    low, high = scene.bounds
    own = from_z_up(np.concatenate(mesh.part_positions))
    np.testing.assert_allclose([low, high], [own.min(0), own.max(0)], atol=1e-6 * size_of(mesh))


def test_same_input_gives_the_same_bytes(case):
    """Oracle: a second call; and another copyright where one is asked for."""
    mesh, world = case
    first = animated_glb(mesh, world, times_of(world))
    assert first == animated_glb(mesh, world, times_of(world))
    assert read_bytes(animated_glb(mesh, world, times_of(world), copyright="(c) me")).copyright == "(c) me"


def test_model_with_z_up_stands_upright(tmp_path):
    """Oracle: glTF's y is the file's z, in the file and in its motion."""
    mesh, world = moving(quad_obj(tmp_path), up="z")
    raw = open_mesh(tmp_path / "c.obj", config=SubjectConfig(up="y"))
    found = ForeignReader(animated_glb(mesh, world, times_of(world))).positions(0.0)[0]
    np.testing.assert_array_equal(to_z_up(found), from_z_up(raw.part_positions[0]))


def test_motion_that_does_not_belong_is_refused(tmp_path):
    """Oracle: an assertion for each: one frame, a frame 0 that is not at rest, NaN, other parts, other vertices."""
    mesh, world = moving(plain_glb(tmp_path / "p.glb"))
    bad = np.array(world[0])
    bad[2, 3, 1] = np.nan
    times = times_of(world)
    wrong = [
        ([world[0][:1]], times[:1]), ([world[0][1:]], times[1:]), ([bad], times), (world * 2, times),
        ([world[0][:, :-1]], times), (world, times[:-1]),
    ]  # fmt: skip
    for motion, keys in wrong:
        with pytest.raises(AssertionError):
            animated_glb(mesh, motion, keys)


@pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed")
def test_blender_shows_the_same_vertices_in_every_frame(tmp_path, request):
    """Oracle: Blender's importer and depsgraph, every frame of a real and an awkward asset."""
    from tests.manifests.test_gltf_blender import in_blender

    cases = {name: made(name, tmp_path, request) for name in ("fox", "awkward", "obj")}
    jobs = []
    for name, (mesh, world) in cases.items():
        path = tmp_path / f"{name}-animated.glb"
        path.write_bytes(animated_glb(mesh, world, times_of(world)))
        jobs.append({"path": str(path), "poses": [[0, float(time)] for time in times_of(world)]})
    for (mesh, world), objects in zip(cases.values(), in_blender(jobs, tmp_path), strict=True):
        by_name = {item["name"]: item for item in objects}
        assert sorted(by_name) == [f"part{i:05d}" for i in range(len(world))]
        for index, wanted in enumerate(world):
            found = by_name[f"part{index:05d}"]["vertices"]
            assert np.abs(found - wanted).max() < TOLERANCE * size_of(mesh)
