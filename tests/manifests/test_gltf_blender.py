"""The poser against Blender's own glTF importer, in a child process; and what Blender makes of the static GLB."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from manifests.gltf import GlbWriter, Poser, read, static_glb
from tests.manifests.gltf_samples import everything

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
NAMES = ("Barbarian.glb", "Fox.glb", "MorphStressTest.gltf", "SimpleSkin.gltf", "robot.glb")
FPS = 24
TOLERANCE = 1e-3

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("bpy") is None, reason="bpy is not installed"),
    pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/assets is not there"),
]


def in_blender(jobs: list[dict], folder: Path) -> list[list[dict]]:
    """For each job its mesh objects as dicts of name, vertices (poses, N, 3), triangles."""
    (folder / "job.json").write_text(json.dumps(jobs))
    script = Path(__file__).with_name("blender_pose.py")
    command = [sys.executable, str(script), str(folder / "job.json"), str(folder / "out.npz")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    with np.load(folder / "out.npz") as data:
        return [
            [
                {"name": name, "vertices": data[f"{i}/{k}/vertices"], "triangles": data[f"{i}/{k}/triangles"]}
                for k, name in enumerate(json.loads(str(data[f"{i}/names"])))
            ]
            for i in range(len(jobs))
        ]


def poses_on_keys(asset) -> list[tuple[int, float]]:
    """Up to five times in up to four animations, on whole frames where each longer rotation channel has a key.

    Between keys Blender interpolates quaternions by component, which is not what the specification says.
    """
    count = len(asset.animations)
    result = []
    for index in sorted({0, count // 3, 2 * count // 3, count - 1}):
        channels = asset.animations[index].channels
        frames = [set(np.round(c.times * FPS).astype(int)) for c in channels if len(c.times) > 2]
        shared = sorted(set.intersection(*frames)) if frames else [0]
        result += [(index, shared[i] / FPS) for i in np.linspace(0, len(shared) - 1, 5).astype(int)]
    return result


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    assets = {name: read(SHARED / name) for name in NAMES}
    poses = {name: poses_on_keys(asset) for name, asset in assets.items()}
    jobs = [{"path": str(SHARED / name), "poses": poses[name]} for name in NAMES]
    objects = in_blender(jobs, tmp_path_factory.mktemp("imported"))
    return {name: (assets[name], poses[name], objects[i]) for i, name in enumerate(NAMES)}


@pytest.mark.parametrize("name", NAMES)
def test_positions_agree_with_blender(imported, name):
    """Oracle: Blender's importer and depsgraph, on keys of up to four animations."""
    asset, poses, objects = imported[name]
    poser = Poser(asset)
    ours: dict[int, list[np.ndarray]] = {}
    posed = [poser.positions(animation, np.array([time])) for animation, time in poses]
    for k, part in enumerate(poser.parts):  # Blender joins the primitives of a node into one object
        ours.setdefault(part.node, []).append(np.concatenate([pose[k] for pose in posed]))
    nodes = [np.concatenate(parts, axis=1) for parts in ours.values()]
    everything = np.concatenate(nodes, axis=1)
    size = float(np.ptp(everything[0], axis=0).max())
    left = list(objects)
    for node in nodes:
        fitting = [item for item in left if item["vertices"].shape == node.shape]
        assert fitting, f"no object of {node.shape[1]} vertices among {[item['name'] for item in left]}"
        errors = [float(np.abs(item["vertices"] - node).max()) / size for item in fitting]
        best = int(np.argmin(errors))
        assert errors[best] < TOLERANCE, f"{fitting[best]['name']}: {errors[best]:.2g} of the size"
        left = [item for item in left if item is not fitting[best]]
    assert not left, f"Blender shows more: {[item['name'] for item in left]}"


def test_static_glb_imports_with_the_same_vertices(tmp_path):
    """Oracle: Blender's importer; names, vertex count, order and place, triangles of each part."""
    jobs, expected = [], []
    (tmp_path / "everything.glb").write_bytes(everything())
    for path in [*(SHARED / name for name in NAMES), tmp_path / "everything.glb"]:
        poser = Poser(read(path))
        positions = [array[0] for array in poser.positions(0, np.array([0.1]))]
        normals = [None if array is None else array[0] for array in poser.normals(0, np.array([0.1]))]
        path = tmp_path / f"static-{path.name}.glb"
        path.write_bytes(static_glb(poser, positions, normals))
        jobs.append({"path": str(path), "poses": [[-1, 0.0]]})
        expected.append((poser, positions))
    for (poser, positions), objects in zip(expected, in_blender(jobs, tmp_path), strict=True):
        by_name = {item["name"]: item for item in objects}
        assert sorted(by_name) == [f"part{i:05d}" for i in range(len(poser.parts))]
        for i, part in enumerate(poser.parts):
            item = by_name[f"part{i:05d}"]
            np.testing.assert_allclose(
                item["vertices"][0], positions[i], rtol=1e-5, atol=1e-4 * np.abs(positions[i]).max()
            )
            assert set(map(tuple, np.sort(item["triangles"]))) == set(map(tuple, np.sort(part.triangles)))


@pytest.mark.parametrize("animated", [False, True])
def test_hierarchy_morph_and_mirror_agree_with_blender(tmp_path, animated):
    """Oracle: Blender's importer, on a nested, mirrored, unevenly scaled, morphing file at rest and on keys."""
    writer = GlbWriter()
    rng = np.random.default_rng(3)
    primitive = {
        "positions": rng.normal(size=(12, 3)),
        "triangles": np.arange(12).reshape(4, 3),
        "targets": [rng.normal(size=(12, 3)), rng.normal(size=(12, 3))],
    }
    mesh = writer.add_mesh("m", [primitive], weights=[0.25, 0.0])
    leaf = writer.add_node("leaf", mesh=mesh, scale=[1, -2, 0.5], translation=[0.3, 0, 1])
    turned = writer.add_node("turned", rotation_xyzw=[0.5, 0.5, -0.5, 0.5], scale=[2, 2, 2], children=[leaf])
    root = writer.add_node("root", translation=[0, 1, 0], children=[turned])
    if animated:
        turn = [[0.5, 0.5, -0.5, 0.5], [0, 0, 0, 1]]
        channels = [
            {"node": root, "path": "translation", "times": [0, 1], "values": [[0, 1, 0], [3, 1, 2]]},
            {"node": turned, "path": "rotation", "times": [0, 1], "values": turn},
            {"node": leaf, "path": "weights", "times": [0, 1], "values": [[0, 0], [1, 0.5]]},
        ]
        writer.add_animation("all", channels)
    path = tmp_path / "a.glb"
    path.write_bytes(writer.to_bytes())
    index = 0 if animated else -1
    (objects,) = in_blender([{"path": str(path), "poses": [[index, 0.0], [index, 1.0]]}], tmp_path)
    ours = Poser(read(path)).positions(0 if animated else None, np.array([0.0, 1.0]))
    np.testing.assert_allclose(objects[0]["vertices"], ours[0], atol=1e-4)
