"""Depth and normals: what they say is where the mesh is, by closed forms of the shapes and by the other views."""

from __future__ import annotations

import numpy as np
import pytest

from manifests.gltf import GlbWriter
from manifests.images import decode_series
from render.series import DEPTH_UNIT, SERIES, encode_depth, encode_normals
from tests.render.studio import Clip, ball, block, render, still_life, tiny, write

SIZE = 96
QUARTER = [0, 0.5**0.5, 0, 0.5**0.5]
"""90 degrees about glTF's y, which is our z."""
STRETCH = [1.0, 1.6, 0.7]


def moved(primitive: dict) -> GlbWriter:
    """The shape at rest in frame 0, turned and unevenly stretched in frame 2."""
    writer = GlbWriter()
    node = writer.add_node("shape", mesh=writer.add_mesh("shape", [primitive]))
    way = {"times": [0, 1]}
    writer.add_animation("move", [
        {"node": node, "path": "rotation", **way, "values": [[0, 0, 0, 1], QUARTER]},
        {"node": node, "path": "scale", **way, "values": [[1, 1, 1], STRETCH]},
        {"node": node, "path": "translation", **way, "values": [[0, 0, 0], [0.2, 0, 0.1]]},
    ])  # fmt: skip
    return writer


def transforms() -> list[np.ndarray]:
    """(3, 4) from the mesh's own coordinates to the z-up world at the times 0 and 1, by hand."""
    z_up = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    turn = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # 90 degrees about y takes z to x
    moved = np.column_stack([turn @ np.diag(STRETCH), [0.2, 0, 0.1]])
    return [z_up @ np.eye(3, 4), z_up @ moved]


@pytest.fixture(scope="module")
def shapes(blender, tmp_path_factory) -> dict[str, Clip]:
    folder = tmp_path_factory.mktemp("shapes")
    config = tiny(views=4, frames=2, fps=1.0, size=SIZE, samples=1, stretch=True)
    primitives = {"ball": ball(1.0, 64), "cube": block(0.7)}
    return {
        name: render(blender, write(folder / f"{name}.glb", moved(p)), config, folder, series=("depth", "normals"))
        for name, p in primitives.items()
    }


def to_mesh(clip: Clip, frame: int, points: np.ndarray) -> np.ndarray:
    """Normalised space to the mesh's own coordinates."""
    normalization = clip.sample["normalization"]
    world = points / normalization["scale"] + normalization["center"]
    transform = transforms()[frame]
    return (world - transform[:, 3]) @ np.linalg.inv(transform[:, :3]).T


def unprojected(clip: Clip, view: int, frame: int) -> tuple[np.ndarray, np.ndarray]:
    """Points in normalised space at the pixels' centres, and the rows and columns of these pixels."""
    stored = clip.depth[view, frame]
    rows, columns = np.nonzero(stored)
    depth = stored[rows, columns] * DEPTH_UNIT
    K, c2w = np.array(clip.sample["cameras"]["K"][view]), np.array(clip.sample["cameras"]["c2w"][view])
    x, y = (columns + 0.5 - K[0, 2]) / K[0, 0] * depth, -(rows + 0.5 - K[1, 2]) / K[1, 1] * depth
    return np.column_stack([x, y, -depth]) @ c2w[:3, :3].T + c2w[:3, 3], np.column_stack([rows, columns])


def normals_at(clip: Clip, view: int, frame: int, pixels: np.ndarray) -> np.ndarray:
    stored = clip.normals[view, frame][pixels[:, 0], pixels[:, 1]]
    return (stored.astype(float) - 128) / 127


def degrees(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


@pytest.mark.parametrize("frame", [0, 1])
def test_depth_of_a_cube_lies_on_its_faces_within_a_step(shapes, frame):
    # Oracle: a cube's faces lie where the largest coordinate is 0.7; distances in steps of the stored depth.
    clip = shapes["cube"]
    assert clip.sample["times_s"] == [0.0, 1.0]
    scale = clip.sample["normalization"]["scale"]
    worst = 0.0
    for view in range(4):
        points, _ = unprojected(clip, view, frame)
        assert len(points) > 300
        own = to_mesh(clip, frame, points)
        stretched = np.array(STRETCH if frame else [1.0, 1.0, 1.0])[np.abs(own).argmax(1)]
        off = np.abs(np.abs(own).max(1) - 0.7) * stretched * scale
        worst = max(worst, float(off.max()))
    print(f"cube, frame {frame}: {worst / DEPTH_UNIT:.2f} steps")
    assert worst <= DEPTH_UNIT


@pytest.mark.parametrize("frame", [0, 1])
def test_depth_of_a_ball_lies_between_its_facets_and_the_sphere(shapes, frame):
    # Oracle: the sphere, and how far facets of 64 segments lie inside it.
    clip = shapes["ball"]
    inside = 1 - np.cos(np.pi / 64) ** 2  # sagitta of a facet's middle, both ways
    step = DEPTH_UNIT / clip.sample["normalization"]["scale"] / min(STRETCH)
    for view in range(4):
        points, _ = unprojected(clip, view, frame)
        radius = np.linalg.norm(to_mesh(clip, frame, points), axis=1)
        assert radius.min() >= 1 - inside - step
        assert radius.max() <= 1 + step


@pytest.mark.parametrize("frame", [0, 1])
def test_normals_of_a_cube_are_those_of_its_faces_away_from_edges(shapes, frame):
    # Oracle: the axes, transformed by the inverse transpose.
    clip, inverse = shapes["cube"], np.linalg.inv(transforms()[frame][:, :3])
    for view in range(4):
        points, pixels = unprojected(clip, view, frame)
        own = to_mesh(clip, frame, points)
        order = np.sort(np.abs(own), axis=1)
        inner = order[:, 2] - order[:, 1] > 0.01
        axis = np.abs(own).argmax(1)
        expected = np.eye(3)[axis] * np.sign(own[np.arange(len(own)), axis])[:, None] @ inverse
        found = normals_at(clip, view, frame, pixels)
        assert inner.sum() > 300
        assert degrees(found, expected)[inner].max() < 0.5
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=0.01)


@pytest.mark.parametrize("frame", [0, 1])
def test_normals_of_a_smooth_ball_are_those_of_the_ellipsoid(shapes, frame):
    # Oracle: the gradient of the ellipsoid's equation, also after turning and uneven stretching.
    clip, inverse = shapes["ball"], np.linalg.inv(transforms()[frame][:, :3])
    worst = []
    for view in range(4):
        points, pixels = unprojected(clip, view, frame)
        expected = to_mesh(clip, frame, points) @ inverse
        worst.append(degrees(normals_at(clip, view, frame, pixels), expected).max())
    print(f"ball, frame {frame}: {max(worst):.2f} degrees")
    assert max(worst) < 1.5


@pytest.mark.parametrize("name", ["ball", "cube"])
def test_depth_reprojects_between_views(shapes, name):
    # Oracle: another camera: nothing lies in front of a point that both see, and where its pixel is near, depths agree.
    clip = shapes[name]
    agreeing = 0
    for view in range(4):
        points, _ = unprojected(clip, view, 1)
        for other in {(view + 1) % 4, (view + 3) % 4}:
            K, c2w = np.array(clip.sample["cameras"]["K"][other]), np.array(clip.sample["cameras"]["c2w"][other])
            local = (points - c2w[:3, 3]) @ c2w[:3, :3]
            depth = -local[:, 2]
            uv = np.column_stack([K[0, 2] + K[0, 0] * local[:, 0] / depth, K[1, 2] - K[1, 1] * local[:, 1] / depth])
            column, row = np.floor(uv).astype(int).T
            stored = clip.depth[other, 1].astype(float)
            # Four neighbours around the point bound what is seen there; silhouettes, where one is empty, are left out.
            around = np.stack([stored[row + i, column + j] for i in (-1, 0, 1) for j in (-1, 0, 1)])
            inner = (around > 0).all(0)
            near, far = around.min(0) * DEPTH_UNIT, around.max(0) * DEPTH_UNIT
            ridge = (far - near) / 2  # between the centres of pixels the surface may come nearer than at any
            hidden = depth >= near - ridge - 2 * DEPTH_UNIT
            assert hidden[inner].all(), "a point in front of what the other view sees"
            agreeing += int((inner & (depth <= far + 2 * DEPTH_UNIT)).sum())
    assert agreeing > 1000


def test_depth_and_mask_cover_the_same_pixels(shapes):
    # Oracle: alpha of the colour image; they may differ only where the object covers a pixel in part.
    for clip in shapes.values():
        seen = clip.depth > 0
        assert (clip.alpha[seen] > 0).all()
        inner = (clip.alpha == 255) & (np.roll(clip.alpha, 1, -1) == 255) & (np.roll(clip.alpha, -1, -1) == 255)
        inner &= (np.roll(clip.alpha, 1, -2) == 255) & (np.roll(clip.alpha, -1, -2) == 255)
        assert seen[inner].all()
        np.testing.assert_array_equal(seen, (clip.normals > 0).any(-1))


def test_glass_is_a_surface_whatever_the_seed(blender, tmp_path):
    # Oracle: no hole in the depth of a pane whose opacity is 0.35, and the same values in a clip of other noise.
    path = write(tmp_path / "still-life.glb", still_life())
    clips = [
        render(blender, path, tiny(views=2, frames=1, size=64, samples=1), tmp_path, animation=k, series=("depth",))
        for k in (0, 2)
    ]
    for clip in clips:
        covered = clip.alpha > 60
        inner = covered & np.roll(covered, 1, -1) & np.roll(covered, -1, -1)
        inner &= np.roll(covered, 1, -2) & np.roll(covered, -1, -2)
        assert ((clip.alpha > 60) & (clip.alpha < 120)).sum() > 100, "the pane is not in the picture"
        assert (clip.depth[inner] > 0).all()


def test_stored_depth_is_exact_to_half_a_step():
    # Oracle: round trip through the PNG with what dataset.json says of it.
    depth = np.random.default_rng(0).uniform(0.9, 2.1, (20, 30)).astype(np.float32)
    depth[3] = np.inf
    found = decode_series(encode_depth(depth), SERIES["depth"], "test")
    assert np.isnan(found[3]).all()
    seen = np.isfinite(depth)
    assert np.abs(found - depth)[seen].max() <= DEPTH_UNIT / 2 + 1e-6
    assert (np.isfinite(found) == seen).all()


def test_depth_beyond_the_range_stays_a_surface():
    # Oracle: the range that the unit gives, 0 being no surface.
    found = decode_series(encode_depth(np.float32([[1e-6, 100.0, np.inf]])), SERIES["depth"], "test")
    np.testing.assert_allclose(found[0, :2], [DEPTH_UNIT, 65535 * DEPTH_UNIT])
    assert np.isnan(found[0, 2])


def test_stored_normals_are_within_the_stated_angle():
    # Oracle: round trip over random directions and the axes.
    normals = np.random.default_rng(0).normal(size=(100, 100, 3))
    normals[0, :6] = [*np.eye(3), *-np.eye(3)]
    normals = (normals / np.linalg.norm(normals, axis=-1, keepdims=True)).astype(np.float32)
    normals[5] = 0
    found = decode_series(encode_normals(normals), SERIES["normals"], "test")
    assert np.isnan(found[5]).all()
    keep = [r for r in range(100) if r != 5]
    assert degrees(found[keep].reshape(-1, 3), normals[keep].reshape(-1, 3)).max() < 0.4
    np.testing.assert_allclose(found[0, :6], normals[0, :6], atol=1e-6)
