"""The procedural assets: same seed same bytes, closed surfaces, finite poses, and a test bed that has every feature.

Oracles: pygltflib, trimesh and Blender read the files; our own reader only poses them for the tests that say so.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys

import numpy as np
import pygltflib
import pytest
import trimesh

from manifests.gltf import Poser, read_bytes
from pipelines.procedural import FAMILIES, make
from pipelines.procedural.draw import Draw

WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
DTYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32, 5126: np.float32}
VARIANTS = 2


def array(document: pygltflib.GLTF2, index: int) -> np.ndarray:
    """(count, width) values of an accessor."""
    accessor = document.accessors[index]
    view = document.bufferViews[accessor.bufferView]
    start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
    width = WIDTHS[accessor.type]
    flat = np.frombuffer(document.binary_blob(), DTYPES[accessor.componentType], accessor.count * width, start)
    return flat.reshape(accessor.count, width)


def label(family: str, k: int) -> str:
    return f"{family}-{k:03d}"


@pytest.fixture(scope="module")
def assemblies() -> dict:
    return {label(f, k): FAMILIES[f](Draw(7, label(f, k))) for k in range(VARIANTS) for f in FAMILIES}


@pytest.fixture(scope="module")
def documents(assemblies) -> dict[str, pygltflib.GLTF2]:
    return {key: pygltflib.GLTF2.load_from_bytes(assembly.to_bytes()) for key, assembly in assemblies.items()}


def test_make_gives_the_same_bytes_for_the_same_seed(tmp_path):
    # oracle: the definition, two runs into two folders
    count = len(FAMILIES) + 2
    first, again = make(tmp_path / "a", count, 3), make(tmp_path / "b", count, 3)
    other = make(tmp_path / "c", 4, 4)
    assert [p.name for p in first] == [p.name for p in again]
    assert all(p.read_bytes() == q.read_bytes() for p, q in zip(first, again, strict=True))
    assert all(p.read_bytes() != q.read_bytes() for p, q in zip(first[:4], other, strict=True))


def test_make_deals_families_in_turn_and_writes_nothing_else(tmp_path):
    # oracle: the naming rule
    count = len(FAMILIES) + 1
    paths = make(tmp_path / "new" / "folder", count, 0)
    names = list(FAMILIES)
    assert [p.stem for p in paths] == [label(names[i % len(names)], i // len(names)) for i in range(count)]
    found = sorted(p.name for p in (tmp_path / "new" / "folder").iterdir())
    assert found == sorted([p.name for p in paths] + ["LICENSE.txt"])
    assert paths[0].read_bytes() != paths[-1].read_bytes()


def test_make_is_independent_of_the_count(tmp_path):
    # oracle: the definition, a shorter batch is the beginning of a longer one
    short, long = make(tmp_path / "a", 2, 11), make(tmp_path / "b", 4, 11)
    assert [p.read_bytes() for p in short] == [p.read_bytes() for p in long[:2]]


def test_make_refuses_a_count_that_is_not_positive(tmp_path):
    # oracle: the message's form
    with pytest.raises(ValueError, match=r"count: found 0, expected at least 1"):
        make(tmp_path, 0, 0)


def test_families_are_many_and_have_names_for_keys():
    # oracle: the brief, and the characters a clip's key may have
    assert len(FAMILIES) >= 12
    assert all(re.fullmatch(r"[a-z]+", name) for name in FAMILIES)


def test_files_carry_a_licence_and_stay_small(assemblies, documents):
    # oracle: pygltflib
    for key, document in documents.items():
        assert document.asset.copyright.startswith("CC0-1.0"), key
        triangles = sum(document.accessors[p.indices].count // 3 for mesh in document.meshes for p in mesh.primitives)
        assert 500 <= triangles <= 10_000, (key, triangles)
        assert len(assemblies[key].to_bytes()) < 450_000, key
        assert 2 <= len(document.animations) <= 5, key
        assert all(image.uri is None for image in document.images), key


def test_surfaces_are_closed_face_outwards_and_have_unit_normals(documents):
    # oracle: every directed edge of a closed, consistently wound surface has its reverse; trimesh's signed volume
    for key, document in documents.items():
        for mesh in document.meshes:
            for primitive in mesh.primitives:
                positions = array(document, primitive.attributes.POSITION).astype(np.float64)
                triangles = array(document, primitive.indices).reshape(-1, 3).astype(np.int64)
                size = np.ptp(positions, axis=0).max()
                _, weld = np.unique(np.round(positions / size * 2e5).astype(np.int64), axis=0, return_inverse=True)
                faces = weld.reshape(-1)[triangles]
                faces = faces[
                    (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
                ]
                edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
                codes, reverse = (np.sort(e[:, 0] * 2**32 + e[:, 1]) for e in (edges, edges[:, ::-1]))
                assert (codes == reverse).all(), f"{key} {mesh.name}: open or badly wound"
                volume = trimesh.Trimesh(positions, triangles, process=False).volume
                assert volume > 0, f"{key} {mesh.name}: faces inwards"
                normals = array(document, primitive.attributes.NORMAL)
                assert np.abs(np.linalg.norm(normals, axis=1) - 1).max() < 1e-4, (key, mesh.name)
                a, b, c = (positions[triangles[:, k]] for k in range(3))
                facing = np.einsum("ij,ij->i", np.cross(b - a, c - a), normals[triangles].sum(1))
                assert (facing > 0).mean() > 0.97, f"{key} {mesh.name}: normals disagree with the winding"


def test_skin_weights_sum_to_one_over_few_joints(documents):
    # oracle: the glTF specification 3.7.3.3
    for key, document in documents.items():
        for mesh in document.meshes:
            for primitive in mesh.primitives:
                if primitive.attributes.JOINTS_0 is None:
                    continue
                weights = array(document, primitive.attributes.WEIGHTS_0)
                joints = array(document, primitive.attributes.JOINTS_0)
                assert np.abs(weights.sum(1) - 1).max() < 1e-4, (key, mesh.name)
                assert joints.max() < min(len(skin.joints) for skin in document.skins), (key, mesh.name)
                assert (joints[weights == 0] == 0).all(), (key, mesh.name)


def test_keys_are_finite_ordered_and_rotations_are_unit(documents):
    # oracle: the glTF specification 3.11
    for key, document in documents.items():
        for animation in document.animations:
            for channel in animation.channels:
                sampler = animation.samplers[channel.sampler]
                times, values = array(document, sampler.input)[:, 0], array(document, sampler.output)
                assert np.isfinite(times).all(), (key, animation.name)
                assert np.isfinite(values).all(), (key, animation.name)
                assert times[0] >= 0, (key, animation.name)
                assert (np.diff(times) > 0).all(), (key, animation.name)
                if channel.target.path == "rotation":
                    middle = values.reshape(len(times), -1, 4)
                    middle = middle[:, 1] if sampler.interpolation == "CUBICSPLINE" else middle[:, 0]
                    assert np.abs(np.linalg.norm(middle, axis=1) - 1).max() < 1e-4, (key, animation.name)
                    turn = np.abs(np.einsum("ij,ij->i", middle[1:], middle[:-1])).clip(0, 1)
                    limit = 175 if sampler.interpolation == "LINEAR" else 181
                    assert np.degrees(2 * np.arccos(turn)).max(initial=0) < limit, (key, animation.name)


def _ends_meet(document: pygltflib.GLTF2, animation: pygltflib.Animation) -> bool:
    for channel in animation.channels:
        sampler = animation.samplers[channel.sampler]
        times = array(document, sampler.input)[:, 0]
        values = array(document, sampler.output).reshape(len(times), -1)
        if sampler.interpolation == "CUBICSPLINE":
            width = values.shape[1] // 3
            values = values[:, width : 2 * width]
        first, last = values[0], values[-1]
        if channel.target.path == "rotation":
            meets = abs(float(first @ last)) > 1 - 1e-6
        else:
            meets = np.abs(first - last).max() <= 1e-4 * max(float(np.abs(values).max()), 1e-6)
        if not meets:
            return False
    return True


def test_loops_close_where_the_family_says_so(assemblies, documents):
    # oracle: first and last keys; a turn of 360 degrees meets itself, root motion does not
    for key, document in documents.items():
        for index, animation in enumerate(document.animations):
            if assemblies[key].loops[index]:
                assert _ends_meet(document, animation), f"{key} {animation.name}: the end pose is not the start pose"
    says = [loops for assembly in assemblies.values() for loops in assembly.loops.values()]
    assert 0.2 < np.mean(says) < 0.9


def test_sampled_poses_are_finite_and_loops_close_in_vertices(assemblies):
    # oracle: the definition of a loop, on vertices posed by our reader, also between keys
    for key, assembly in assemblies.items():
        if not key.endswith("-000"):
            continue
        asset = read_bytes(assembly.to_bytes())
        poser = Poser(asset)
        for animation in asset.animations:
            first = min(float(channel.times[0]) for channel in animation.channels)
            last = max(float(channel.times[-1]) for channel in animation.channels)
            times = np.array([first, *(first + (last - first) * np.array([0.13, 0.5, 0.71])), last])
            posed = np.concatenate(poser.positions(animation.index, times), axis=1)
            assert np.isfinite(posed).all(), (key, animation.name)
            size = np.ptp(posed, axis=1).max()
            moved = np.abs(posed - posed[0]).max() / size
            assert moved > 0.02 or last == first, f"{key} {animation.name} hardly moves: {moved:.4f} of its size"
            if assembly.loops[animation.index]:
                apart = np.abs(posed[0] - posed[-1]).max() / size
                assert apart < 1e-3, f"{key} {animation.name}: ends {apart:.4f} of its size from its start"


def test_families_together_exercise_every_feature(documents):
    # oracle: counts through pygltflib over one asset of each family
    seen: dict[str, set[str]] = {}

    def note(feature: str, key: str) -> None:
        seen.setdefault(feature, set()).add(key.rsplit("-", 1)[0])

    sizes = []
    for key, document in documents.items():
        kinds = {
            "skin": bool(document.skins),
            "morph": any(p.targets for mesh in document.meshes for p in mesh.primitives),
            "rigid nodes": sum(n.mesh is not None and n.skin is None for n in document.nodes) > 5,
            "texture": bool(document.textures),
            "vertex colours": any(p.attributes.COLOR_0 is not None for m in document.meshes for p in m.primitives),
            "metallic": any(m.pbrMetallicRoughness.metallicFactor > 0.7 for m in document.materials),
            "emissive": any(max(m.emissiveFactor or [0]) > 0.3 for m in document.materials),
            "matrix node": any(n.matrix is not None for n in document.nodes),
        }
        if kinds["skin"] and kinds["morph"]:
            note("skin and morph in one file", key)
        for feature, found in kinds.items():
            if found:
                note(feature, key)
        sizes.append(
            max(
                np.ptp(array(document, p.attributes.POSITION), axis=0).max()
                for m in document.meshes
                for p in m.primitives
            )
        )
        for animation in document.animations:
            samplers = [animation.samplers[c.sampler] for c in animation.channels]
            start = min(float(array(document, s.input)[0, 0]) for s in samplers)
            end = max(float(array(document, s.input)[-1, 0]) for s in samplers)
            for sampler in samplers:
                note(sampler.interpolation, key)
            for channel in animation.channels:
                note(channel.target.path, key)
            checks = {
                "unnamed": not animation.name,
                "dead lead time": start > 1,
                "still pose": end == 0,
                "fractional end": abs(end * 24 - round(end * 24)) > 0.2 and abs(end * 1000 - round(end * 1000)) > 0.1,
                "0.6 s": 0.59 < end - start < 0.61,
                "10 s": end - start > 9.9,
                "shorter than 2 s": 0 < end - start < 2,
                "2 s to 4 s": 2 <= end - start <= 4,
                "longer than 4 s": end - start > 4,
                "keys 170 degrees apart": any(_widest_turn(document, animation, c) > 169 for c in animation.channels),
                "one animation with key times that differ": len({len(array(document, s.input)) for s in samplers}) > 1,
            }
            for feature, found in checks.items():
                if found:
                    note(feature, key)
    at_least = {
        "skin": 6, "morph": 3, "rigid nodes": 8, "skin and morph in one file": 1, "texture": 8, "vertex colours": 6,
        "metallic": 4, "emissive": 3, "matrix node": 1, "STEP": 2, "CUBICSPLINE": 4, "LINEAR": 15, "unnamed": 2,
        "weights": 3, "rotation": 15, "translation": 8, "scale": 6, "dead lead time": 2, "still pose": 2,
        "fractional end": 1, "0.6 s": 2, "10 s": 2, "shorter than 2 s": 8, "2 s to 4 s": 8, "longer than 4 s": 8,
        "keys 170 degrees apart": 1, "one animation with key times that differ": 4,
    }  # fmt: skip
    missing = {f: (sorted(seen.get(f, ())), n) for f, n in at_least.items() if len(seen.get(f, ())) < n}
    assert not missing
    assert max(sizes) / min(sizes) > 1000, "units should differ from family to family"


def _widest_turn(document: pygltflib.GLTF2, animation: pygltflib.Animation, channel) -> float:
    sampler = animation.samplers[channel.sampler]
    if channel.target.path != "rotation" or sampler.interpolation != "LINEAR":
        return 0.0
    q = array(document, sampler.output)
    return float(np.degrees(2 * np.arccos(np.abs(np.einsum("ij,ij->i", q[1:], q[:-1])).clip(0, 1))).max(initial=0))


def test_same_family_varies_from_asset_to_asset(documents):
    # oracle: two assets of a family share neither geometry nor, mostly, colours
    for family in FAMILIES:
        first, second = (documents[label(family, k)] for k in range(2))
        assert first.binary_blob() != second.binary_blob(), family
    colors = {f: [str(documents[label(f, k)].materials) for k in range(2)] for f in FAMILIES}
    varied = [f for f, (a, b) in colors.items() if a != b]
    assert len(varied) > len(FAMILIES) // 2


def test_trimesh_loads_every_file(assemblies):
    # oracle: trimesh as a second reader, with its own scene graph
    for key, assembly in assemblies.items():
        scene = trimesh.load(trimesh.util.wrap_as_stream(assembly.to_bytes()), file_type="glb")
        assert np.isfinite(scene.bounds).all(), key


@pytest.mark.parametrize("family", ["jellyfish", "clockwork"])
def test_blender_imports_the_animations(family, tmp_path):
    # oracle: Blender's own importer in a child process
    if importlib.util.find_spec("bpy") is None:
        pytest.skip("bpy is not installed (extra: render; its wheels are for CPython 3.11)")
    path = tmp_path / f"{family}.glb"
    path.write_bytes(FAMILIES[family](Draw(7, label(family, 0))).to_bytes())
    code = (
        "import bpy, json, sys\n"
        "bpy.ops.wm.read_factory_settings(use_empty=True)\n"
        "bpy.ops.import_scene.gltf(filepath=sys.argv[1])\n"
        "print('RESULT', json.dumps([a.name for a in bpy.data.actions]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    line = next(text for text in done.stdout.splitlines() if text.startswith("RESULT"))
    actions = json.loads(line.split(" ", 1)[1])
    expected = {"jellyfish": ("Pulse", "Drift", "Startle"), "clockwork": ("Run", "Tick", "Wind")}[family]
    assert all(any(action.startswith(name) for action in actions) for name in expected), actions
