"""The writer: round trips through our reader, pygltflib's view of the same file, determinism, refusals."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import numpy as np
import pytest

from manifests.gltf import GlbWriter, read, read_bytes
from tests.broken import CUBE, CUBE_TRIANGLES, small_asset, split_glb
from tests.manifests.gltf_samples import everything

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
NAMES = ("Barbarian.glb", "Fox.glb", "MorphStressTest.gltf", "SimpleSkin.gltf", "robot.glb")


def test_arrays_come_back_identical():
    """Oracle: round trip, exact."""
    rng = np.random.default_rng(1)
    given = {
        "positions": rng.normal(size=(300, 3)).astype(np.float32),
        "triangles": rng.permutation(300).reshape(-1, 3),
        "normals": rng.normal(size=(300, 3)).astype(np.float32),
        "uvs": [rng.random((300, 2)).astype(np.float32), rng.random((300, 2)).astype(np.float32)],
        "colors": rng.random((300, 4)).astype(np.float32),
        "joints": np.tile([0, 1, 0, 0, 1, 0, 0, 0], (300, 1)),
        "weights": np.tile([0.5, 0.25, 0, 0, 0.25, 0, 0, 0], (300, 1)),
        "targets": [rng.normal(size=(300, 3)).astype(np.float32)],
        "target_normals": [rng.normal(size=(300, 3)).astype(np.float32)],
    }
    writer = GlbWriter(copyright="someone, CC0", generator="test")
    mesh = writer.add_mesh("m", [given], weights=[0.25])
    joints = [writer.add_node("a"), writer.add_node("b", translation=[1, 2, 3])]
    inverse = np.tile(np.eye(4), (2, 1, 1))
    inverse[1, :3, 3] = (4, 5, 6)
    matrix = np.array([[1.0, 0.5, 0, 7], [0, 1, 0, 8], [0, 0, 1, 9], [0, 0, 0, 1]])
    writer.add_node("shown", mesh=mesh, skin=writer.add_skin(joints, inverse), matrix=matrix)
    keys = {"times": [0.0, 0.5, 2.0], "values": rng.normal(size=(3, 3, 4)).astype(np.float32)}
    writer.add_animation("turn", [{"node": joints[1], "path": "rotation", "interpolation": "CUBICSPLINE", **keys}])
    asset = read_bytes(writer.to_bytes())
    found = asset.meshes[0].primitives[0]
    for key in ("positions", "triangles", "normals", "colors", "joints", "weights"):
        np.testing.assert_array_equal(getattr(found, key), given[key])
    for key in ("uvs", "targets", "target_normals"):
        np.testing.assert_array_equal(getattr(found, key), given[key])
    np.testing.assert_array_equal(asset.skins[0].inverse_bind, inverse)
    np.testing.assert_array_equal(asset.nodes[2].matrix, matrix)
    np.testing.assert_array_equal(asset.animations[0].channels[0].times, keys["times"])
    np.testing.assert_array_equal(asset.animations[0].channels[0].values, keys["values"])
    assert (asset.copyright, asset.generator, asset.meshes[0].weights.tolist()) == ("someone, CC0", "test", [0.25])


def test_glb_and_gltf_hold_the_same():
    """Oracle: round trip through both containers."""
    writer = small_asset()
    binary, text = read_bytes(writer.to_bytes()), read_bytes(writer.to_gltf().encode())
    np.testing.assert_array_equal(binary.meshes[0].primitives[0].positions, text.meshes[0].primitives[0].positions)
    assert binary.images == text.images or binary.images[0].data == text.images[0].data
    assert binary.materials == text.materials


def test_the_same_calls_give_the_same_bytes():
    """Oracle: property."""
    assert everything() == everything()
    assert small_asset().to_bytes() == small_asset().to_bytes()
    writer = small_asset()
    assert writer.to_bytes() == writer.to_bytes()
    assert writer.to_gltf() == small_asset().to_gltf()


def test_files_follow_the_rules_of_alignment_bounds_and_targets():
    """Oracle: specification 3.6.2.4 (alignment), 3.6.2.5 (min, max), 3.6.1.1 (targets), 4.4 (chunks)."""
    data = everything()
    document, binary = split_glb(data)
    assert len(data) % 4 == 0
    assert int.from_bytes(data[8:12], "little") == len(data)
    assert document["buffers"] == [{"byteLength": len(binary)}]
    for accessor in document["accessors"]:
        if "bufferView" in accessor:
            assert document["bufferViews"][accessor["bufferView"]]["byteOffset"] % 4 == 0
    for mesh in document["meshes"]:
        for primitive in mesh["primitives"]:
            position = document["accessors"][primitive["attributes"]["POSITION"]]
            assert len(position["min"]) == len(position["max"]) == 3
            index = document["accessors"][primitive["indices"]]
            assert document["bufferViews"][index["bufferView"]]["target"] == 34963
            for which in primitive["attributes"].values():
                view = document["bufferViews"][document["accessors"][which]["bufferView"]]
                assert view["target"] == 34962
    for animation in document["animations"]:
        for sampler in animation["samplers"]:
            times = document["accessors"][sampler["input"]]
            assert times["min"] <= times["max"]
            assert "target" not in document["bufferViews"][times["bufferView"]]


@pytest.mark.parametrize("name", NAMES)
def test_accessors_agree_with_pygltflib(name, tmp_path):
    """Oracle: pygltflib's parse of the same file, its buffers decoded with numpy by the accessor's own fields."""
    pygltflib = pytest.importorskip("pygltflib")
    if not SHARED.is_dir():
        pytest.skip("../shared/assets is not there")
    theirs, ours = pygltflib.GLTF2().load(str(SHARED / name)), read(SHARED / name)

    def values(index: int) -> np.ndarray:
        accessor = theirs.accessors[index]
        view = theirs.bufferViews[accessor.bufferView]
        uri = theirs.buffers[view.buffer].uri
        data = theirs.binary_blob() if uri is None else base64.b64decode(uri.split(",")[1])
        dtype = np.dtype({5121: "u1", 5123: "<u2", 5125: "<u4", 5126: "<f4"}[accessor.componentType])
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}[accessor.type]
        start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
        stride = view.byteStride or dtype.itemsize * width
        starts = range(start, start + accessor.count * stride, stride)
        rows = [data[i : i + dtype.itemsize * width] for i in starts]
        return np.frombuffer(b"".join(rows), dtype).reshape(accessor.count, width)

    for mesh, own in zip(theirs.meshes, ours.meshes, strict=True):
        for primitive, source in zip(mesh.primitives, own.primitives, strict=True):
            np.testing.assert_array_equal(values(primitive.attributes.POSITION), source.positions)
            if primitive.attributes.NORMAL is not None:
                np.testing.assert_array_equal(values(primitive.attributes.NORMAL), source.normals)
            if primitive.indices is not None:
                np.testing.assert_array_equal(values(primitive.indices).reshape(-1, 3), source.triangles)
            for target, deltas in zip(primitive.targets or [], source.targets, strict=True):
                which = target["POSITION"] if isinstance(target, dict) else target.POSITION
                np.testing.assert_array_equal(values(which), deltas)
    for animation, own in zip(theirs.animations[:5], ours.animations, strict=False):
        assert (animation.name or "") == own.name
        for channel, source in zip(animation.channels, own.channels, strict=True):
            sampler = animation.samplers[channel.sampler]
            assert (channel.target.node, channel.target.path) == (source.node, source.path)
            np.testing.assert_array_equal(values(sampler.input)[:, 0], source.times)
            np.testing.assert_array_equal(values(sampler.output).reshape(-1), source.values.reshape(-1))


def test_pygltflib_reads_what_is_written(tmp_path):
    """Oracle: pygltflib, which parses the written file into its own classes."""
    pygltflib = pytest.importorskip("pygltflib")
    (tmp_path / "a.glb").write_bytes(everything())
    found = pygltflib.GLTF2().load(str(tmp_path / "a.glb"))
    assert [mesh.name for mesh in found.meshes] == ["skinned", "plain"]
    assert [animation.name for animation in found.animations] == ["a", "b"]
    assert found.asset.copyright == "CC0"


@pytest.mark.parametrize("change", [
    {"positions": CUBE[:, :2]}, {"positions": CUBE * np.nan}, {"triangles": CUBE_TRIANGLES + 1},
    {"triangles": CUBE_TRIANGLES.reshape(-1)}, {"normals": CUBE[:4]}, {"uvs": CUBE}, {"joints": np.zeros((8, 4), int)},
    {"joints": np.zeros((8, 3), int), "weights": np.ones((8, 3))}, {"targets": [CUBE[:3]]}, {"material": 5},
    {"colour": CUBE}, {"joints": np.zeros((8, 4), int), "weights": -np.ones((8, 4))},
])  # fmt: skip
def test_wrong_primitives_are_refused(change):
    """Oracle: the writer's own rules; the message names the mesh."""
    with pytest.raises(ValueError, match=r"mesh 'cube'.*found .* expected"):
        GlbWriter().add_mesh("cube", [{"positions": CUBE, "triangles": CUBE_TRIANGLES, **change}])


@pytest.mark.parametrize("change", [
    {"times": [0, 1, 1]}, {"times": [-1, 0, 1]}, {"times": []}, {"values": np.zeros((3, 4))}, {"path": "colour"},
    {"node": 9}, {"interpolation": "BEZIER"}, {"path": "weights"}, {"values": np.full((3, 3), np.inf)}, {"extra": 1},
])  # fmt: skip
def test_wrong_channels_are_refused(change):
    """Oracle: the writer's own rules; the message names the animation."""
    writer = GlbWriter()
    node = writer.add_node("n")
    channel = {"node": node, "path": "translation", "times": [0, 1, 2], "values": np.zeros((3, 3)), **change}
    with pytest.raises(ValueError, match=r"animation 'a'.*found .* expected"):
        writer.add_animation("a", [channel])


def test_two_parents_are_refused():
    """Oracle: specification 3.5.2."""
    writer = GlbWriter()
    child = writer.add_node("child")
    writer.add_node("a", children=[child])
    writer.add_node("b", children=[child])
    with pytest.raises(ValueError, match="node 0: found parents 1 and 2"):
        writer.to_bytes()


def test_json_is_plain_ascii_with_sorted_keys():
    """Oracle: property; the bytes do not depend on the order in which a material was put together."""
    texts = []
    for pairs in ([("a", 1), ("b", 2)], [("b", 2), ("a", 1)]):
        writer = GlbWriter()
        writer.add_material({"name": "狐", "extras": dict(pairs)})
        texts.append(writer.to_gltf())
    assert texts[0] == texts[1]
    assert texts[0].isascii()
    assert json.loads(texts[0])["materials"][0]["name"] == "狐"
