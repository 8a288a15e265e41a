"""`animate.subject.surface`: colours against closed formulas and Pillow, and the even spread of points."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from animate.subject.mesh import open_mesh
from animate.subject.surface import Surface
from manifests.errors import InputError
from manifests.gltf import GlbWriter
from tests.broken import CUBE, CUBE_TRIANGLES

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], np.float32)
HALVES = np.array([[0, 1, 2], [0, 2, 3]])
UV = np.array([[0, 1], [1, 1], [1, 0], [0, 0]], np.float32)
"""The picture upright on the square: v points down."""


def linear(encoded: np.ndarray) -> np.ndarray:
    return np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)


def encoded(light: np.ndarray) -> np.ndarray:
    light = np.clip(light, 0, 1)
    return np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def surface_of(
    tmp_path, material: dict | None = None, pixels=None, sampler=None, uv=UV, colors=None, info=None, more=None
) -> Surface:
    """The unit square with one material; its picture goes to the base colour, `more` to emission."""
    writer = GlbWriter()
    material = dict(material or {})
    if pixels is not None:
        texture = writer.add_texture(writer.add_image(png(pixels), "image/png", "t"), sampler)
        pbr = dict(material.get("pbrMetallicRoughness", {}))
        material["pbrMetallicRoughness"] = pbr | {"baseColorTexture": {"index": texture, **(info or {})}}
    if more is not None:
        material["emissiveTexture"] = {"index": writer.add_texture(writer.add_image(png(more), "image/png", "e"))}
    primitive = {"positions": SQUARE, "triangles": HALVES, "uvs": [uv], "material": writer.add_material(material)}
    if colors is not None:
        primitive["colors"] = colors
    writer.add_node("n", mesh=writer.add_mesh("m", [primitive]))
    path = tmp_path / "square.glb"
    path.write_bytes(writer.to_bytes())
    return Surface(open_mesh(path))


def at(surface: Surface, points: np.ndarray, footprint: float = 0.0) -> np.ndarray:
    """Colours at (P, 2) places of the unit square."""
    x, y = points.T
    upper = y > x  # in the triangle (0, 2, 3)
    barycentric = np.where(upper[:, None], np.stack([1 - y, x, y - x], 1), np.stack([1 - x, x - y, y], 1))
    return surface.colors_at(upper.astype(int), barycentric, footprint)


def noise(size: int = 8, channels: int = 4) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, channels), dtype=np.uint8)


def test_texel_centres_show_the_pictures_own_values(tmp_path):
    """Against the picture's bytes: upright, first row at the top."""
    pixels = noise()
    grid = (np.arange(8) + 0.5) / 8
    x, y = np.meshgrid(grid, 1 - grid)
    seen = at(surface_of(tmp_path, {"alphaMode": "BLEND"}, pixels), np.stack([x, y], -1).reshape(-1, 2))
    assert np.abs(seen.reshape(8, 8, 4) * 255 - pixels).max() < 0.01


@pytest.mark.parametrize("wrap", [10497, 33071, 33648])
def test_bilinear_and_wrap_modes_follow_their_definition(tmp_path, wrap):
    """Against a slow loop over texels in linear light, with coordinates far outside 0 to 1."""
    pixels, rng = noise(5), np.random.default_rng(1)
    uv = UV * 4.3 - 1.7
    surface = surface_of(tmp_path, {"alphaMode": "BLEND"}, pixels, {"wrapS": wrap, "wrapT": wrap}, uv=uv)
    points = rng.random((60, 2))

    def texel(i: int, n: int) -> int:
        if wrap == 33071:
            return min(max(i, 0), n - 1)
        if wrap == 10497:
            return i % n
        return i % (2 * n) if i % (2 * n) < n else 2 * n - 1 - i % (2 * n)

    for point, seen in zip(points, at(surface, points), strict=True):
        u, v = point[0] * 4.3 - 1.7, (1 - point[1]) * 4.3 - 1.7
        x, y = u * 5 - 0.5, v * 5 - 0.5
        expected = np.zeros(4)
        for j in (0, 1):
            for i in (0, 1):
                weight = abs(1 - i - (x - math.floor(x))) * abs(1 - j - (y - math.floor(y)))
                value = pixels[texel(math.floor(y) + j, 5), texel(math.floor(x) + i, 5)] / 255
                expected += weight * np.append(linear(value[:3]), value[3])
        assert np.allclose(seen, np.append(encoded(expected[:3]), expected[3]), atol=2e-4)


def test_nearest_filter_does_not_mix(tmp_path):
    """Against the set of the picture's colours."""
    pixels = noise(4)
    surface = surface_of(tmp_path, {"alphaMode": "BLEND"}, pixels, {"magFilter": 9728})
    seen = np.rint(at(surface, np.random.default_rng(2).random((200, 2))) * 255).astype(int)
    assert set(map(tuple, seen.tolist())) <= set(map(tuple, pixels.reshape(-1, 4).tolist()))


def test_factor_texture_vertex_colour_and_emission_combine_in_linear_light(tmp_path):
    """Against glTF's formula for one texel."""
    pixel, glow = np.full((1, 1, 4), (120, 60, 200, 180), np.uint8), np.full((1, 1, 3), (30, 90, 10), np.uint8)
    material = {
        "alphaMode": "BLEND", "emissiveFactor": [0.5, 1.0, 0.25],
        "pbrMetallicRoughness": {"baseColorFactor": [0.5, 0.8, 1.0, 0.9]},
        "extensions": {"KHR_materials_emissive_strength": {"emissiveStrength": 2.0}},
    }  # fmt: skip
    own = np.array([[0.2, 0.4, 0.6, 0.5]] * 4, np.float32)
    seen = at(surface_of(tmp_path, material, pixel, colors=own, more=glow), np.array([[0.3, 0.2]]))[0]
    base = np.array([0.5, 0.8, 1.0]) * linear(pixel[0, 0, :3] / 255) * own[0, :3]
    light = base + linear(glow[0, 0] / 255) * 2 * np.array([0.5, 1.0, 0.25])
    assert np.allclose(seen, np.append(encoded(light), 0.9 * 180 / 255 * 0.5), atol=1e-3)


def test_texture_transform_scales_then_turns_counter_clockwise_then_shifts(tmp_path):
    """Against Blender's importer: its mapping node's formula, in its own axes (v up)."""
    offset, rotation, scale = (0.3, -0.2), 0.7, (0.5, 0.8)
    info = {"extensions": {"KHR_texture_transform": {"offset": offset, "rotation": rotation, "scale": scale}}}
    pixels, points = noise(16), np.random.default_rng(3).random((50, 2))
    moved = at(surface_of(tmp_path, None, pixels, info=info), points)
    cos, sin = math.cos(rotation), math.sin(rotation)
    location = (offset[0] + scale[1] * sin, 1 - offset[1] - scale[1] * cos)
    x, y = points[:, 0] * scale[0], points[:, 1] * scale[1]  # Blender's u, v of the square are its x, y
    turned = np.stack([cos * x - sin * y + location[0], sin * x + cos * y + location[1]], 1)
    plain = surface_of(tmp_path, None, pixels)
    assert np.allclose(moved, at(plain, np.mod(turned, 1.0)), atol=1e-4)


@pytest.mark.parametrize(("mode", "expected"), [("OPAQUE", 1.0), ("BLEND", 0.4), ("MASK", 0.0)])
def test_alpha_mode_is_honoured(tmp_path, mode, expected):
    """Against the specification: opaque ignores alpha, mask cuts it at 0.5, blend keeps it."""
    material = {"alphaMode": mode, "pbrMetallicRoughness": {"baseColorFactor": [1, 1, 1, 0.4]}}
    surface = surface_of(tmp_path, material)
    assert at(surface, np.array([[0.5, 0.1]]))[0, 3] == pytest.approx(expected)
    assert surface.see_through == (mode != "OPAQUE")


def test_a_wide_footprint_averages_the_texture_in_linear_light(tmp_path):
    """Against the mean of a checkerboard, which is not the mean of its codes."""
    pixels = np.zeros((64, 64, 3), np.uint8)
    pixels[::2, ::2] = pixels[1::2, 1::2] = 255
    surface = surface_of(tmp_path, None, pixels)
    side = 0.8 / math.sqrt(2)
    seen = at(surface, np.random.default_rng(4).random((40, 2)), footprint=side / 8)
    assert np.allclose(seen[:, :3], encoded(np.array(0.5)), atol=0.01)


def test_vertex_colors_are_the_mean_over_corners(tmp_path):
    """Against a loop over the triangles' corners."""
    surface = surface_of(tmp_path, None, noise(8, 3))
    expected = [at(surface, SQUARE[k : k + 1, :2] * 0.999999 + 5e-7)[0, :3] for k in range(4)]
    assert np.allclose(surface.vertex_colors(), expected, atol=1e-3)
    assert surface.corner_counts().tolist() == [2, 1, 2, 1]


def test_a_mesh_without_material_is_white(tmp_path):
    """Against glTF's default material."""
    writer = GlbWriter()
    writer.add_node("n", mesh=writer.add_mesh("m", [{"positions": CUBE, "triangles": CUBE_TRIANGLES}]))
    path = tmp_path / "cube.glb"
    path.write_bytes(writer.to_bytes())
    assert np.allclose(Surface(open_mesh(path)).vertex_colors(), 1)


def test_a_corrupt_image_is_refused_by_name(tmp_path):
    """Against the sentence: a JPEG whose header is good and whose data is cut."""
    out = io.BytesIO()
    Image.fromarray(noise(64, 3)).save(out, "JPEG")
    writer = GlbWriter()
    texture = writer.add_texture(writer.add_image(out.getvalue()[:700], "image/jpeg", "t"))
    material = writer.add_material({"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}})
    primitive = {"positions": SQUARE, "triangles": HALVES, "uvs": [UV], "material": material}
    writer.add_node("n", mesh=writer.add_mesh("m", [primitive]))
    path = tmp_path / "cut.glb"
    path.write_bytes(writer.to_bytes())
    mesh = open_mesh(path)
    with pytest.raises(InputError, match="cut: image 0"):
        Surface(mesh)


def test_spread_gives_every_area_its_share_and_keeps_points_apart(shared_assets):
    """Against area shares of the parts and a random draw's nearest neighbours; the same seed gives the same points."""
    mesh = open_mesh(shared_assets / "Barbarian.glb")
    surface = Surface(mesh)
    spread = surface.spread(1500, seed=0)
    assert len(spread.triangles) == 1500
    assert np.allclose(spread.barycentric.sum(1), 1)
    assert spread.barycentric.min() >= 0
    corners = mesh.vertices[mesh.triangles].astype(np.float64)
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    octant = (corners.mean(1) > 0) @ [1, 2, 4]
    share = np.bincount(octant, area, minlength=8) / area.sum()
    found = np.bincount(octant[spread.triangles], minlength=8) / 1500
    assert np.abs(found - share).max() < 0.03
    assert spread.spacing == pytest.approx(math.sqrt(area.sum() / 2 / 1500), rel=1e-3)
    places = np.einsum("pk,pkc->pc", spread.barycentric, corners[spread.triangles])
    rng = np.random.default_rng(0)
    drawn = rng.choice(len(area), 1500, p=area / area.sum())
    random = np.einsum("pk,pkc->pc", rng.dirichlet(np.ones(3), 1500), corners[drawn])
    nearest, by_chance = (cKDTree(own).query(own, k=2)[0][:, 1] for own in (places, random))
    assert np.median(nearest) > 1.25 * np.median(by_chance)
    assert np.quantile(nearest, 0.05) > 2 * np.quantile(by_chance, 0.05)
    again = surface.spread(1500, seed=0)
    assert np.array_equal(again.triangles, spread.triangles)


def test_spread_covers_large_triangles_evenly(tmp_path):
    """Against a square grid: no place of a square is further than about a spacing from a point."""
    surface = surface_of(tmp_path)
    spread = surface.spread(400, seed=1)
    corners = SQUARE[HALVES][spread.triangles]
    places = np.einsum("pk,pkc->pc", spread.barycentric, corners)[:, :2]
    grid = np.stack(np.meshgrid(*[np.linspace(0, 1, 60)] * 2), -1).reshape(-1, 2)
    assert cKDTree(places).query(grid)[0].max() < 1.3 / 20


def test_spread_leaves_out_what_is_see_through(tmp_path):
    """Against the picture's alpha; where all is see-through there is nothing to spread on."""
    pixels = np.full((16, 16, 4), 255, np.uint8)
    pixels[:, :8, 3] = 0
    surface = surface_of(tmp_path, {"alphaMode": "MASK"}, pixels)
    spread = surface.spread(200, seed=0)
    x = np.einsum("pk,pk->p", spread.barycentric, SQUARE[HALVES][spread.triangles][:, :, 0])
    assert x.min() > 0.45
    pixels[..., 3] = 0
    with pytest.raises(InputError, match="see-through everywhere"):
        surface_of(tmp_path, {"alphaMode": "MASK"}, pixels).spread(10, seed=0)
