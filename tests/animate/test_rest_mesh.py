"""`animate.subject.mesh` and `manifests.gltf.rest`: the object at rest, the way back, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from animate.config import SubjectConfig
from animate.subject.mesh import open_mesh, weld_points
from manifests.errors import InputError, Rejected
from manifests.gltf import GlbWriter, Poser, read
from manifests.gltf.rest import parse_pose
from tests.broken import CUBE, CUBE_TRIANGLES, small_asset
from tests.manifests.gltf_samples import everything

SHARED = ("Barbarian.glb", "Fox.glb", "MorphStressTest.gltf", "SimpleSkin.gltf", "robot.glb")


def saved(tmp_path, data: bytes | str, name: str = "thing.glb"):
    path = tmp_path / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def glb_of(*primitives: dict) -> bytes:
    """Each primitive on a node of its own."""
    writer = GlbWriter()
    for index, primitive in enumerate(primitives):
        writer.add_node(f"n{index}", mesh=writer.add_mesh(f"m{index}", [primitive]))
    return writer.to_bytes()


@pytest.fixture(params=SHARED)
def shared_mesh(request, shared_assets):
    return open_mesh(shared_assets / request.param)


def test_open_mesh_fills_the_sphere_around_its_box(shared_mesh):
    """Against box and distances taken from the poser's own positions."""
    world = np.concatenate([p[0] for p in shared_mesh.poser.positions(None, np.zeros(1))]).astype(np.float64)
    center = (world.min(0) + world.max(0)) / 2
    assert np.allclose(shared_mesh.center, center)
    expected = (world - center) * 0.4 / np.linalg.norm(world - center, axis=1).max()
    assert np.abs(shared_mesh.vertices - expected).max() < 1e-6
    assert shared_mesh.diagonal == pytest.approx(np.linalg.norm(np.ptp(expected, axis=0)), rel=1e-6)


def test_to_world_gives_back_the_rest_bit_by_bit_and_inverts_motion(shared_mesh):
    """Against the poser's float32 positions, and the formula of the normalisation for moved vertices."""
    for own, back in zip(shared_mesh.part_positions, shared_mesh.to_world(shared_mesh.vertices), strict=True):
        assert np.array_equal(back, own.astype(np.float64))
    moved = shared_mesh.vertices[None] + np.float32(0.05) * np.arange(3, dtype=np.float32)[:, None, None]
    parts = shared_mesh.to_world(moved)
    assert [part.shape for part in parts] == [(3, part.num_vertices, 3) for part in shared_mesh.poser.parts]
    expected = moved.astype(np.float64) / shared_mesh.scale + shared_mesh.center
    size = 1 / shared_mesh.scale
    assert np.abs(np.concatenate(parts, axis=1) - expected).max() < 2e-7 * size


def test_welded_points_are_distinct_and_edges_are_those_of_the_triangles(shared_mesh):
    """Against a plain loop over the triangles and all pairs of a sample of points."""
    points, weld = shared_mesh.points, shared_mesh.weld
    assert np.abs(points[weld] - shared_mesh.vertices).max() < 1e-5
    assert sorted(set(weld.tolist())) == list(range(len(points)))
    loop = set()
    for triangle in weld[shared_mesh.triangles].tolist():
        for a, b in zip(triangle, triangle[1:] + triangle[:1], strict=True):
            if a != b:
                loop.add((min(a, b), max(a, b)))
    assert set(map(tuple, shared_mesh.edges.tolist())) == loop
    some = points[:500].astype(np.float64)
    gaps = np.linalg.norm(some[:, None] - some, axis=-1) + np.eye(len(some))
    assert gaps.min() > 2e-7


def test_weld_points_joins_across_cell_borders():
    """Against distances: pairs nearer than the tolerance on either side of any grid line are one point."""
    rng = np.random.default_rng(0)
    base = rng.random((200, 3))
    near = base + rng.normal(size=(200, 3)) * 1e-5 / 6
    weld, points = weld_points(np.concatenate([base, near]), 1e-5)
    assert len(points) == 200
    assert np.array_equal(weld[:200], weld[200:])
    assert np.array_equal(weld[:200], np.arange(200))


def test_weld_points_takes_many_at_one_place():
    """Against counting: a hundred thousand vertices in one point are one point, at once."""
    weld, points = weld_points(np.zeros((100_000, 3), np.float32), 1e-6)
    assert len(points) == 1
    assert not weld.any()


def test_pose_is_that_of_the_animation(shared_assets):
    """Against the poser; `posed` uses the normalisation of the pose that is at rest."""
    mesh = open_mesh(shared_assets / "Fox.glb", pose="Run@0.3")
    poser = Poser(read(shared_assets / "Fox.glb"))
    index = [a.name for a in poser.asset.animations].index("Run")
    assert (mesh.animation, mesh.time_s) == (index, 0.3)
    world = poser.positions(index, np.array([0.3, 0.6]))[0]
    assert np.array_equal(mesh.part_positions[0], world[0])
    assert np.allclose(mesh.posed(index, np.array([0.3, 0.6])), (world - mesh.center) * mesh.scale, atol=1e-6)
    assert np.array_equal(mesh.posed(index, np.array([0.3]))[0], mesh.vertices)


def test_given_normalization_is_used(tmp_path):
    """Against the formula p = (world - center) * scale."""
    path = saved(tmp_path, small_asset().to_bytes())
    mesh = open_mesh(path, normalization=((1.0, 2.0, 3.0), 0.25))
    world = mesh.part_positions[0].astype(np.float64)
    assert np.allclose(mesh.vertices, (world - [1, 2, 3]) * 0.25, atol=1e-6)


def test_up_axis_z_leaves_the_files_coordinates(tmp_path):
    """Against the OBJ's own numbers: z up reads them as they are, auto turns y into z."""
    lines = [f"v {x} {y} {z}" for x, y, z in ((0, 0, 0), (1, 0, 0), (0, 2, 0), (0, 0, 3))]
    path = saved(tmp_path, "\n".join([*lines, "f 1 2 3", "f 1 2 4", ""]), "thing.obj")
    plain = open_mesh(path, config=SubjectConfig(up="z"))
    assert np.allclose(plain.part_positions[0], [[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3]])
    turned = open_mesh(path)
    assert np.allclose(turned.part_positions[0], [[0, 0, 0], [1, 0, 0], [0, 0, 2], [0, -3, 0]])
    assert (plain.up, turned.up) == ("z", "y")


def test_open_mesh_takes_odd_geometry(tmp_path):
    """Against counts: degenerate, doubled and non-manifold triangles, lone parts and instances all open."""
    odd = np.concatenate([CUBE_TRIANGLES, CUBE_TRIANGLES[:1], [[0, 1, 4]], [[0, 0, 1]]])
    flat = {"positions": [[0, 0, 0], [1, 0, 0], [2, 0, 0], [0, 1, 0]], "triangles": [[0, 1, 2], [0, 1, 3]]}
    mesh = open_mesh(saved(tmp_path, glb_of({"positions": CUBE, "triangles": odd}, flat)))
    assert np.isfinite(mesh.vertices).all()
    assert len(mesh.triangles) == len(odd) - 1 + 2
    instanced = open_mesh(saved(tmp_path, everything(), "all.glb"))
    assert len(instanced.vertices) == instanced.poser.num_vertices == instanced.starts[-1]
    assert instanced.part_of_triangle.max() == len(instanced.poser.parts) - 1


def test_a_part_shrunk_to_a_point_does_not_count_in_the_box(tmp_path):
    """Against the box of the part that can be seen."""
    far = {"positions": np.full((3, 3), 100.0), "triangles": [[0, 1, 2]]}
    mesh = open_mesh(saved(tmp_path, glb_of({"positions": CUBE, "triangles": CUBE_TRIANGLES}, far)))
    assert np.allclose(mesh.center, 0)
    assert mesh.scale == pytest.approx(0.4 / np.sqrt(3))


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        (np.zeros((3, 3)), "in one point"),
        ([[0, 0, 0], [1, 1, 1], [2, 2, 2]], "without area"),
        ([[0, 0, 0], [1, 0, 0], [0, np.nan, 0]], "non-finite"),
    ],
)
def test_open_mesh_refuses_what_has_no_surface(tmp_path, positions, message):
    """Against the sentence that a user reads: the file's name, what was found, what was expected."""
    lines = ["v " + " ".join(map(str, p)) for p in np.asarray(positions, float)]
    path = saved(tmp_path, "\n".join([*lines, "f 1 2 3", ""]), "bad.obj")
    with pytest.raises(InputError, match=message) as caught:
        open_mesh(path)
    assert str(caught.value).startswith("bad.obj: ")
    assert "expected" in str(caught.value)
    assert ";" in str(caught.value)


def test_open_mesh_refuses_too_many_vertices_with_an_estimate(tmp_path):
    """Against the limit: the sentence names count, gibibytes and the option."""
    path = saved(tmp_path, small_asset().to_bytes())
    with pytest.raises(InputError, match=r"8 vertices.*GiB.*at most 7.*--max-vertices"):
        open_mesh(path, config=SubjectConfig(max_vertices=7))


@pytest.mark.parametrize("name", ["none.glb", "cloud.fbx"])
def test_open_mesh_refuses_what_it_cannot_open(tmp_path, name):
    """Against the sentence: a missing file and an unknown type are told apart."""
    if name.endswith("fbx"):
        saved(tmp_path, b"x", name)
    with pytest.raises(InputError, match="no such file" if name == "none.glb" else r"\.fbx.*expected \.glb"):
        open_mesh(tmp_path / name)


def test_open_mesh_turns_rejections_into_input_errors(tmp_path):
    """Against the type: what the reader rejects is the user's to mend."""
    with pytest.raises(InputError, match=r"cut\.glb: .*truncated"):
        open_mesh(saved(tmp_path, small_asset().to_bytes()[:-8], "cut.glb"))


@pytest.mark.parametrize("text", ["fly@1", "move", "move@x", "0@nan", "@1", ""])
def test_unknown_poses_are_refused_with_the_known_ones(tmp_path, text):
    """Against the list of the file's animations in the sentence."""
    path = saved(tmp_path, small_asset().to_bytes())
    with pytest.raises(InputError, match='0 "move"'):
        open_mesh(path, pose=text)


def test_parse_pose_reads_names_and_indices():
    """Against the animations' table: names may hold @, an index wins over a name that looks like it."""
    writer = small_asset(name="a@b")
    asset = read_bytes_of(writer)
    assert parse_pose(asset, "bind") == (None, 0.0)
    assert parse_pose(asset, "a@b@0.5") == (0, 0.5)
    assert parse_pose(asset, "0@1e-1") == (0, 0.1)
    with pytest.raises(Rejected, match="no-such-pose"):
        parse_pose(asset, "1@0")


def read_bytes_of(writer: GlbWriter):
    from manifests.gltf import read_bytes

    return read_bytes(writer.to_bytes())
