"""`animate.subject.raycast`: pictures against a slow z-buffer over vertices that `manifests.cameras` projects."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from animate.subject.mesh import RestMesh, open_mesh
from animate.subject.raycast import Raycaster
from manifests.cameras import intrinsics, look_at_origin, project
from manifests.gltf import GlbWriter
from tests.broken import small_asset


def cameras(azimuths, size: int, elevation: float = 15.0) -> tuple[np.ndarray, np.ndarray]:
    c2w = np.stack([look_at_origin(azimuth, elevation, 1.5) for azimuth in azimuths])
    return c2w, np.tile(intrinsics(40, size, size), (len(c2w), 1, 1))


def z_buffer(mesh: RestMesh, vertices, c2w, K, positions: np.ndarray):
    """(depth, triangle) at pixel positions (P, 2), inf and -1 where there is nothing; one triangle at a time."""
    uv, depth = project(vertices, c2w, K)
    best, which = np.full(len(positions), np.inf), np.full(len(positions), -1)
    for index, triangle in enumerate(mesh.triangles):
        (a, b, c), z = uv[triangle], depth[triangle]
        area = (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
        if abs(area) < 1e-12:
            continue
        p = positions - a
        v = (p[:, 0] * (c[1] - a[1]) - p[:, 1] * (c[0] - a[0])) / area
        w = ((b[0] - a[0]) * p[:, 1] - (b[1] - a[1]) * p[:, 0]) / area
        here = 1 / ((1 - v - w) / z[0] + v / z[1] + w / z[2])
        closer = (v >= 0) & (w >= 0) & (v + w <= 1) & (here < best)
        best[closer], which[closer] = here[closer], index
    return best, which


@pytest.mark.parametrize("name", ["Fox.glb", "SimpleSkin.gltf"])
def test_silhouette_depth_and_normal_agree_with_projected_triangles(shared_assets, name):
    """Against the z-buffer at pixel centres and at the four samples of each pixel."""
    mesh, size = open_mesh(shared_assets / name), 40
    c2w, K = cameras([300.0, 77.0], size, elevation=20.0)
    seen = Raycaster(mesh).render(mesh.vertices, c2w, K, size)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1).reshape(-1, 2)
    for view in range(2):
        depth, which = z_buffer(mesh, mesh.vertices, c2w[view], K[view], grid + 0.5)
        found, there = seen.depth[view].reshape(-1), which >= 0
        assert ((found > 0) != there).mean() < 0.002  # a ray through an edge may go either way
        both = (found > 0) & there
        assert np.median(np.abs(found - depth)[both]) < 1e-5
        assert (np.abs(found - depth)[both] > 1e-3).mean() < 0.01
        a, b, c = mesh.vertices[mesh.triangles[which[both]]].swapaxes(0, 1).astype(np.float64)
        normal = np.cross(b - a, c - a)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        agree = np.abs(np.einsum("pc,pc->p", normal, seen.normal[view].reshape(-1, 3)[both]))
        assert (agree < 0.999).mean() < 0.01
        offsets = np.array([[0.25, 0.25], [0.75, 0.25], [0.25, 0.75], [0.75, 0.75]])
        hits = [z_buffer(mesh, mesh.vertices, c2w[view], K[view], grid + offset)[1] >= 0 for offset in offsets]
        assert np.abs(seen.alpha[view].reshape(-1) - np.mean(hits, axis=0)).mean() < 0.002


def test_normals_face_the_camera(shared_assets):
    """Against the sign of the angle with the ray, also for sheets seen from behind."""
    mesh = open_mesh(shared_assets / "SimpleSkin.gltf")
    c2w, K = cameras([270.0, 90.0], 16, elevation=0.0)
    seen = Raycaster(mesh).render(mesh.vertices, c2w, K, 16)
    toward = np.einsum("vhwc,vc->vhw", seen.normal, c2w[:, :3, 2])
    assert (toward[seen.depth > 0] > 0.9).all()


def test_images_are_upright_and_the_right_way_round(tmp_path):
    """Against a plate whose four quarters have colours of their own, seen from its front (azimuth 270)."""
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels[0, 0], pixels[0, 1], pixels[1, 0], pixels[1, 1] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)
    mesh = plate(tmp_path, pixels)
    c2w, K = cameras([270.0], 32, elevation=0.0)
    rgb = Raycaster(mesh).render(mesh.vertices, c2w, K, 32, background=(0, 0, 0)).rgb[0]
    assert np.allclose(rgb[11, 11], [1, 0, 0], atol=0.05)
    assert np.allclose(rgb[11, 20], [0, 1, 0], atol=0.05)
    assert np.allclose(rgb[20, 11], [0, 0, 1], atol=0.05)
    assert np.allclose(rgb[20, 20], [1, 1, 0], atol=0.05)


def plate(tmp_path, pixels: np.ndarray, mode: str = "OPAQUE", behind: bool = False) -> RestMesh:
    """A square that faces glTF's +Z, with a red one behind it on request."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    writer = GlbWriter()
    texture = writer.add_texture(writer.add_image(out.getvalue(), "image/png", "t"), {"magFilter": 9728})
    front = writer.add_material({"alphaMode": mode, "pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}})
    square = np.array([[-1, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]], np.float32)
    uv = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
    ahead = np.array([0, 0, 0.1], np.float32)
    shape = {"triangles": [[0, 1, 2], [0, 2, 3]], "uvs": [uv]}
    meshes = [{"positions": square + ahead, "material": front, **shape}]
    if behind:
        red = writer.add_material({"pbrMetallicRoughness": {"baseColorFactor": [1, 0, 0, 1]}})
        meshes.append({"positions": square - ahead, "material": red, **shape})
    writer.add_node("n", mesh=writer.add_mesh("m", meshes))
    path = tmp_path / "plate.glb"
    path.write_bytes(writer.to_bytes())
    return open_mesh(path)


def test_rays_go_on_through_what_is_cut_out(tmp_path):
    """Against the plate behind: a hole in the front shows it, at its own depth."""
    pixels = np.full((2, 2, 4), (0, 0, 255, 255), np.uint8)
    pixels[:, 0, 3] = 0
    mesh = plate(tmp_path, pixels, "MASK", behind=True)
    c2w, K = cameras([270.0], 32, elevation=0.0)
    seen = Raycaster(mesh).render(mesh.vertices, c2w, K, 32)
    assert np.allclose(seen.rgb[0, 15, 12], [1, 0, 0], atol=0.01)
    assert np.allclose(seen.rgb[0, 15, 20], [0, 0, 1], atol=0.01)
    gap = seen.depth[0, 15, 12] - seen.depth[0, 15, 20]
    assert gap == pytest.approx(0.2 * mesh.scale, rel=1e-3)


def test_background_is_what_premultiplied_colours_leave_open(tmp_path):
    """Against compositing by hand; coverage is partial along the edges."""
    mesh = open_small(tmp_path)
    c2w, K = cameras([20.0, 200.0], 24)
    caster = Raycaster(mesh)
    plain = caster.render(mesh.vertices, c2w, K, 24)
    on = caster.render(mesh.vertices, c2w, K, 24, background=(0.2, 0.5, 0.8))
    assert np.allclose(on.rgb, plain.rgb + (1 - plain.alpha[..., None]) * [0.2, 0.5, 0.8], atol=1e-6)
    assert ((plain.alpha > 0) & (plain.alpha < 1)).any()


def open_small(tmp_path) -> RestMesh:
    path = tmp_path / "cube.glb"
    path.write_bytes(small_asset().to_bytes())
    return open_mesh(path)


def test_more_samples_converge_and_sizes_may_differ(tmp_path):
    """Against many samples: coverage of one sample is off by more than that of four."""
    mesh = open_small(tmp_path)
    c2w, K = cameras([33.0], 16)
    K = K[:, :, :].copy()
    K[:, 0, 2] = 12  # a wider image
    caster = Raycaster(mesh)
    fine, one, two = (caster.render(mesh.vertices, c2w, K, (16, 24), samples=n).alpha for n in (12, 1, 2))
    assert fine.shape == (1, 16, 24)
    assert np.abs(two - fine).mean() < np.abs(one - fine).mean()


def test_non_finite_and_degenerate_triangles_are_left_out(tmp_path):
    """Against the picture without them: a corner that is NaN takes only its own triangles along."""
    mesh = open_small(tmp_path)
    c2w, K = cameras([45.0], 24)
    caster = Raycaster(mesh)
    moved = mesh.vertices.copy()
    moved[0] = np.nan
    seen = caster.render(moved, c2w, K, 24)
    assert np.isfinite(seen.rgb).all()
    assert np.isfinite(seen.depth).all()
    assert seen.alpha.sum() > 10
    assert caster.render(np.full_like(moved, np.nan), c2w, K, 24).alpha.sum() == 0
    assert caster.render(np.zeros_like(moved), c2w, K, 24).alpha.sum() == 0


def test_an_object_around_the_camera_is_seen(tmp_path):
    """Against being inside a closed box: every pixel is covered."""
    mesh = open_small(tmp_path)
    c2w, K = cameras([10.0], 12)
    assert (Raycaster(mesh).render(mesh.vertices * 10, c2w, K, 12).alpha == 1).all()
