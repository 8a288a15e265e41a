"""The poser against slow formulas of the specification and against trimesh."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import Rejected
from manifests.gltf import GlbWriter, Poser, from_z_up, read, read_bytes, to_z_up
from tests.broken import CUBE, CUBE_TRIANGLES, patched
from tests.manifests.gltf_samples import everything

SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "assets"
NAMES = ("Barbarian.glb", "Fox.glb", "MorphStressTest.gltf", "SimpleSkin.gltf", "robot.glb")
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/assets is not there")


def volume(points: np.ndarray, triangles: np.ndarray) -> float:
    """Signed volume: positive where triangles are counter-clockwise from outside."""
    a, b, c = points[triangles].astype(np.float64).swapaxes(0, 1)
    return float(np.einsum("ij,ij->", a, np.cross(b, c)) / 6)


def test_z_up_is_a_rotation_and_inverts():
    """Oracle: design 3.1; (x, y, z) becomes (x, -z, y)."""
    np.testing.assert_array_equal(to_z_up(np.array([1.0, 2, 3])), [1, -3, 2])
    np.testing.assert_array_equal(from_z_up(to_z_up(CUBE)), CUBE)


@needs_shared
@pytest.mark.parametrize("name", NAMES)
def test_geometry_at_rest_agrees_with_trimesh(name):
    """Oracle: trimesh, which reads geometry and node transforms and knows no skins."""
    trimesh = pytest.importorskip("trimesh")
    scene = trimesh.load_scene(str(SHARED / name), process=False)
    theirs = []
    for node in scene.graph.nodes_geometry:
        transform, geometry = scene.graph[node]
        mesh = scene.geometry[geometry]
        theirs.append((np.asarray(mesh.vertices), np.asarray(mesh.faces), transform))
    poser = Poser(read(SHARED / name))
    assert len(theirs) == len(poser.parts)
    for part, posed in zip(poser.parts, poser.positions(None, np.zeros(1)), strict=True):
        own = part.source.positions[part.vertex_ids]
        matches = [k for k, (points, faces, _) in enumerate(theirs)
                   if len(points) == len(own) and np.allclose(points, own, atol=1e-6)
                   and np.array_equal(np.sort(faces), np.sort(part.triangles))]  # fmt: skip
        assert matches, part.name
        if not part.skinned:
            world = [own @ theirs[k][2][:3, :3].T + theirs[k][2][:3, 3] for k in matches]
            errors = [np.abs(to_z_up(points) - posed[0]).max() for points in world]
            assert min(errors) < 1e-5, part.name
            theirs.pop(matches[int(np.argmin(errors))])
        else:
            theirs.pop(matches[0])


@needs_shared
def test_probing_every_animation_of_a_character_takes_seconds():
    """Oracle: the clock; 76 animations of 48 frames within the time that one import by Blender takes, with margin."""
    asset = read(SHARED / "Barbarian.glb")
    poser = Poser(asset)
    start = time.perf_counter()
    for animation in asset.animations:
        poser.positions(animation.index, np.linspace(animation.start_s, animation.end_s, 48))
    assert time.perf_counter() - start < 12


def slow_pose(asset, animation, time_s):
    """World positions by the specification's formulas, one vertex at a time, z up; morphs, skins and TRS nodes only."""
    from manifests.gltf import sample

    values = {}
    if animation is not None:
        for channel in asset.animations[animation].channels:
            values[channel.node, channel.path] = sample(channel, np.array([time_s]))[0]

    def local(index):
        node = asset.nodes[index]
        if node.matrix is not None:
            return node.matrix
        t = values.get((index, "translation"), node.translation)
        x, y, z, w = values.get((index, "rotation"), node.rotation_xyzw)
        s = values.get((index, "scale"), node.scale)
        vector = np.array([x, y, z])
        cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
        rotation = (w * w - vector @ vector) * np.eye(3) + 2 * np.outer(vector, vector) + 2 * w * cross
        matrix = np.eye(4)
        matrix[:3, :3], matrix[:3, 3] = rotation @ np.diag(s), t
        return matrix

    def world(index):
        return local(index) if asset.nodes[index].parent < 0 else world(asset.nodes[index].parent) @ local(index)

    result = []
    for part in Poser(asset).parts:
        node, source = asset.nodes[part.node], part.source
        default = asset.meshes[node.mesh].weights if node.weights is None else node.weights
        weights = values.get((part.node, "weights"), default)
        points = []
        for v in part.vertex_ids:
            p = source.positions[v].astype(float)
            for weight, target in zip(weights, source.targets, strict=True):
                p = p + weight * target[v]
            p = np.array([*p, 1.0])
            if part.skinned:
                skin = asset.skins[node.skin]
                matrix = sum(
                    source.weights[v, k] * world(skin.joints[j]) @ skin.inverse_bind[j]
                    for k, j in enumerate(source.joints[v])
                )
            elif part.instance >= 0:
                matrix = world(part.node) @ node.instances[part.instance]
            else:
                matrix = world(part.node)
            points.append(to_z_up((matrix @ p)[:3]))
        result.append(np.array(points))
    return result


@pytest.mark.parametrize(("animation", "time_s"), [(None, 0.0), (0, 0.3), (0, 1.7), (1, 0.8)])
def test_positions_equal_the_formulas_of_the_specification(animation, time_s):
    """Oracle: the specification's formulas, one vertex at a time."""
    asset = read_bytes(everything())
    for ours, slow in zip(
        Poser(asset).positions(animation, np.array([time_s])), slow_pose(asset, animation, time_s), strict=True
    ):
        np.testing.assert_allclose(ours[0], slow, atol=2e-6)


def test_many_times_equal_one_at_a_time():
    """Oracle: property; the chunks and the order of times do not matter, and no call leaves a pose behind."""
    poser = Poser(read_bytes(everything()))
    times = np.array([1.9, 0.0, 0.7, 0.7, 5.0])
    together = poser.positions(0, times)
    poser.positions(1, times)
    for f, time_s in enumerate(times):
        for all_, one in zip(together, poser.positions(0, np.array([time_s])), strict=True):
            np.testing.assert_array_equal(all_[f], one[0])


def test_chunked_frames_equal_whole_ones(monkeypatch):
    """Oracle: property."""
    poser = Poser(read_bytes(everything()))
    times = np.linspace(0, 2, 7)
    whole, bent = poser.positions(0, times), poser.normals(0, times)
    monkeypatch.setattr("manifests.gltf.pose.CHUNK_MATRICES", 10)
    for a, b in zip(whole, poser.positions(0, times), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    for a, b in zip(bent, poser.normals(0, times), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("scale", [[1, 1, 1], [-1, 1, 1], [1, -2, 0.5], [-1, -1, -1], [-1, -1, 1]])
@pytest.mark.parametrize("skinned", [False, True])
def test_surfaces_stay_outward_under_mirroring(scale, skinned):
    """Oracle: signed volume, and normals against the faces'."""
    writer = GlbWriter()
    cube = {"positions": CUBE, "triangles": CUBE_TRIANGLES, "normals": CUBE / np.sqrt(3)}
    if skinned:
        cube |= {"joints": np.zeros((8, 4), int), "weights": np.tile([1.0, 0, 0, 0], (8, 1))}
    mesh = writer.add_mesh("", [cube])
    if skinned:
        joint = writer.add_node("", scale=scale, translation=[1, 0, 0])
        writer.add_node("", mesh=mesh, skin=writer.add_skin([joint]))
    else:
        writer.add_node("", mesh=mesh, scale=scale, translation=[1, 0, 0])
    poser = Poser(read_bytes(writer.to_bytes()))
    (part,), (points,), (normals,) = poser.parts, poser.positions(None, np.zeros(1)), poser.normals(None, np.zeros(1))
    assert volume(points[0] - points[0].mean(axis=0), part.triangles) > 0
    outward = points[0] - points[0].mean(axis=0)
    assert (np.einsum("ij,ij->i", normals[0], outward) > 0).all()
    np.testing.assert_allclose(np.linalg.norm(normals[0], axis=1), 1, atol=1e-6)


def test_normals_stay_perpendicular_under_uneven_scale():
    """Oracle: property; the normal of a sloping plane is perpendicular to its edges after any transform."""
    writer = GlbWriter()
    points = np.array([[0, 0, 0], [1, 0, 1], [0, 1, 0]], np.float32)
    normal = np.cross(points[1], points[2])
    mesh = writer.add_mesh("", [{"positions": points, "triangles": [[0, 1, 2]], "normals": np.tile(normal, (3, 1))}])
    writer.add_node("", mesh=mesh, scale=[3, 0.2, -1], rotation_xyzw=[0.5, 0.5, 0.5, 0.5])
    poser = Poser(read_bytes(writer.to_bytes()))
    (p,), (n,) = poser.positions(None, np.zeros(1)), poser.normals(None, np.zeros(1))
    np.testing.assert_allclose((p[0][1:] - p[0][0]) @ n[0][0], 0, atol=1e-6)


def test_vertices_without_triangles_are_left_out():
    """Oracle: by hand; five vertices, one proper and one degenerate triangle."""
    writer = GlbWriter()
    points = np.arange(15).reshape(5, 3)
    mesh = writer.add_mesh("", [{"positions": points, "triangles": [[4, 1, 2], [0, 0, 3]]}])
    writer.add_node("", mesh=mesh)
    (part,) = Poser(read_bytes(writer.to_bytes())).parts
    assert part.vertex_ids.tolist() == [1, 2, 4]
    assert part.triangles.tolist() == [[2, 0, 1]]


@pytest.mark.parametrize(("mode", "expected"), [
    (4, [[0, 1, 2], [3, 4, 5]]),
    (5, [[0, 1, 2], [1, 3, 2], [2, 3, 4], [3, 5, 4]]),
    (6, [[1, 2, 0], [2, 3, 0], [3, 4, 0], [4, 5, 0]]),
])  # fmt: skip
def test_strips_and_fans_become_triangles(mode, expected):
    """Oracle: specification 3.7.2.1, by hand."""
    writer = GlbWriter()
    writer.add_node("", mesh=writer.add_mesh("", [{"positions": np.eye(6, 3), "triangles": [[0, 1, 2], [3, 4, 5]]}]))
    data = patched(writer.to_bytes(), lambda d: d["meshes"][0]["primitives"][0].update(mode=mode))
    assert read_bytes(data).meshes[0].primitives[0].triangles.tolist() == expected


def test_overflowing_poses_are_rejected():
    """Oracle: property; a finite file whose pose is not."""
    writer = GlbWriter()
    node = writer.add_node("", mesh=writer.add_mesh("", [{"positions": CUBE, "triangles": CUBE_TRIANGLES}]))
    for _ in range(20):
        node = writer.add_node("", scale=[1e30] * 3, children=[node])
    with pytest.raises(Rejected, match="non-finite"):
        Poser(read_bytes(writer.to_bytes())).positions(None, np.zeros(1))
