"""`Surface`: the colour of a mesh at any point of its triangles, and points spread evenly over them.

Base colour as glTF 2.0 defines it (factor times texture times vertex colour, in linear light) with emission added,
unlit: what an object looks like under even white light, and what its Gaussians carry. Facts: glTF 2.0 specification,
section 3.9; KHR_texture_transform, KHR_materials_emissive_strength, KHR_materials_pbrSpecularGlossiness.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from animate.subject.mesh import RestMesh
from manifests.errors import InputError

__all__ = ["Surface", "SurfacePoints"]

REPEAT, CLAMP, MIRROR, NEAREST = 10497, 33071, 33648, 9728
CANDIDATES = 5
"""Points drawn for each one that is kept when points are spread."""
_CODES = np.arange(256) / 255.0
_LINEAR = np.where(_CODES <= 0.04045, _CODES / 12.92, ((_CODES + 0.055) / 1.055) ** 2.4).astype(np.float32)


@dataclass(frozen=True, eq=False, kw_only=True)
class SurfacePoints:
    """P points on the surface.

    Attributes:
        triangles: (P,) int64.
        barycentric: (P, 3) float64, at least 0, sums to 1.
        spacing: distance to the neighbours where P points cover the area in a square grid, normalised units.
        colors: (P, 4) float32, straight RGBA, sRGB-encoded 0 to 1, averaged over about a spacing.
    """

    triangles: np.ndarray = field(repr=False)
    barycentric: np.ndarray = field(repr=False)
    spacing: float
    colors: np.ndarray = field(repr=False)


@dataclass(frozen=True, eq=False)
class _Texture:
    """One texture of a material: its levels of detail, how it wraps, and the coordinates of each vertex."""

    levels: list[np.ndarray]
    """(h, w, 4) uint8 each, half as large as the one before, RGB sRGB-encoded."""
    wraps: tuple[int, int]
    nearest: bool


@dataclass(frozen=True, eq=False)
class _Paint:
    """One material: factors in linear light and textures (or None)."""

    factor: np.ndarray
    emission: np.ndarray
    base: _Texture | None
    glow: _Texture | None
    mode: str
    cutoff: float


class Surface:
    """The surface of a mesh; decodes its images once.

    Args:
        mesh: gives triangles, texture coordinates, materials.

    Attributes:
        see_through: whether alpha can be below 1 anywhere.

    Raises:
        InputError: an image that does not decode.
    """

    def __init__(self, mesh: RestMesh) -> None:
        self.mesh = mesh
        asset, parts = mesh.asset, mesh.poser.parts
        self._images: dict[int, list[np.ndarray]] = {}
        self._paints = [self._paint(asset.materials[i]) if i >= 0 else self._paint({}) for i in self._used()]
        slot = {material: i for i, material in enumerate(self._used())}
        part_paint = np.array([slot[part.source.material] for part in parts])
        self._paint_of = part_paint[mesh.part_of_triangle]
        count = len(mesh.vertices)
        self._colors = np.ones((count, 4), np.float32)
        self._coordinates = {name: np.zeros((count, 2)) for name in ("base", "glow")}
        for index, part in enumerate(parts):
            rows = slice(mesh.starts[index], mesh.starts[index + 1])
            material = asset.materials[part.source.material] if part.source.material >= 0 else {}
            if part.source.colors is not None:
                self._colors[rows] = np.clip(part.source.colors[part.vertex_ids], 0, 1)
            for name, info in (("base", _base(material)[1]), ("glow", material.get("emissiveTexture"))):
                self._coordinates[name][rows] = _uv(part, info)
        # Where nothing varies over a triangle, reading its corners' colours again for every ray would be waste.
        self._colored = bool((self._colors != 1).any())
        self._density = self._texels_per_unit()
        self.see_through = any(paint.mode != "OPAQUE" for paint in self._paints)

    def colors_at(
        self, triangles: np.ndarray, barycentric: np.ndarray, footprint: float | np.ndarray = 0.0
    ) -> np.ndarray:
        """Colours of points on the surface.

        Args:
            triangles: (P,) indices into the mesh's.
            barycentric: (P, 3), sums to 1.
            footprint: width (or (P,) widths) that a colour stands for, normalised units; textures are averaged over
                about that much. 0 takes them as they are.

        Returns:
            (P, 4) float32, straight RGBA, sRGB-encoded 0 to 1. Alpha is 1 where the material is opaque, 0 or 1 where
            it is masked.
        """
        corners = self.mesh.triangles[triangles]
        weights = np.asarray(barycentric, np.float32)
        colors = np.ones((len(corners), 4), np.float32)
        if self._colored:
            colors = np.einsum("pk,pkc->pc", weights, self._colors[corners])
        out = np.empty_like(colors)
        wide = np.broadcast_to(np.asarray(footprint, np.float32), (len(corners),))
        paints = self._paint_of[triangles]
        for index in np.unique(paints):
            paint, rows = self._paints[index], np.flatnonzero(paints == index)
            linear = colors[rows] * paint.factor
            for name, texture in (("base", paint.base), ("glow", paint.glow)):
                if texture is None:
                    continue
                uv = np.einsum("pk,pkc->pc", weights[rows], self._coordinates[name][corners[rows]])
                texels = _sampled(texture, uv, wide[rows] * self._density[name][triangles[rows]])
                if name == "base":
                    linear *= texels
                else:
                    linear[:, :3] += texels[:, :3] * paint.emission
            if paint.glow is None:
                linear[:, :3] += paint.emission
            out[rows, :3] = _encoded(linear[:, :3])
            out[rows, 3] = _alpha(paint, linear[:, 3])
        return out

    def vertex_colors(self) -> np.ndarray:
        """(N, 3) float32, sRGB-encoded: of each vertex, the mean over the corners of triangles that meet there.

        Source: Animate3D's released rule for the colours of a mesh's Gaussians.
        """
        sums = np.zeros((len(self.mesh.vertices), 3))
        everything = np.arange(len(self.mesh.triangles))
        for corner in range(3):
            barycentric = np.broadcast_to(np.eye(3)[corner], (len(everything), 3))
            np.add.at(sums, self.mesh.triangles[:, corner], self.colors_at(everything, barycentric)[:, :3])
        return (sums / np.maximum(self.corner_counts(), 1)[:, None]).astype(np.float32)

    def corner_counts(self) -> np.ndarray:
        """(N,) float64, corners of triangles that meet in each vertex."""
        return np.bincount(self.mesh.triangles.reshape(-1), minlength=len(self.mesh.vertices)).astype(np.float64)

    def spread(self, count: int, seed: int) -> SurfacePoints:
        """Points as far from each other as the surface allows, the two sides of a thin sheet counted as apart.

        Args:
            count: how many.
            seed: of the draw.

        Returns:
            Points that see-through triangles do not get.

        Raises:
            InputError: a surface that is see-through everywhere.
        """
        rng = np.random.default_rng(seed)
        a, b, c = (self.mesh.vertices[self.mesh.triangles[:, k]].astype(np.float64) for k in range(3))
        across = np.cross(b - a, c - a)
        area = np.linalg.norm(across, axis=1) / 2
        pool = max(1, min(CANDIDATES, 10**9 // count**2)) * count
        triangles, barycentric = _stratified(area, pool, rng)
        solid = np.flatnonzero(self.colors_at(triangles, barycentric)[:, 3] >= 0.5)
        if not len(solid):
            raise InputError(
                f"{self.mesh.name}: found a surface that is see-through everywhere, expected some that is opaque; "
                "check the materials' alpha"
            )
        spacing = math.sqrt(area.sum() * len(solid) / pool / count)
        triangles, barycentric = triangles[solid], barycentric[solid]
        places = np.einsum("pk,pkc->pc", barycentric, np.stack([a, b, c], 1)[triangles])
        normals = across[triangles] / np.maximum(2 * area[triangles, None], 1e-300)
        kept = _farthest(np.concatenate([places, 0.5 * spacing * normals], axis=1), count)
        triangles, barycentric = triangles[kept], barycentric[kept]
        colors = self.colors_at(triangles, barycentric, footprint=spacing)
        return SurfacePoints(triangles=triangles, barycentric=barycentric, spacing=spacing, colors=colors)

    # -- materials ------------------------------------------------------------------------------------------------

    def _used(self) -> list[int]:
        return sorted({part.source.material for part in self.mesh.poser.parts})

    def _paint(self, material: dict[str, Any]) -> _Paint:
        factor, base = _base(material)
        extensions = material.get("extensions", {})
        strength = extensions.get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1.0)
        emission = np.array(material.get("emissiveFactor", [0.0, 0.0, 0.0]), np.float32) * strength
        glow = material.get("emissiveTexture") if emission.any() else None
        mode, cutoff = material.get("alphaMode", "OPAQUE"), float(material.get("alphaCutoff", 0.5))
        return _Paint(np.array(factor, np.float32), emission, self._texture(base), self._texture(glow), mode, cutoff)

    def _texture(self, info: dict[str, Any] | None) -> _Texture | None:
        if info is None:
            return None
        asset = self.mesh.asset
        texture = asset.textures[info["index"]]
        sampler = asset.samplers[texture["sampler"]] if texture["sampler"] >= 0 else {}
        source = texture["source"]
        if source not in self._images:
            self._images[source] = _pyramid(_decoded(asset.images[source].data, f"{self.mesh.name}: image {source}"))
        wraps = (sampler.get("wrapS", REPEAT), sampler.get("wrapT", REPEAT))
        return _Texture(self._images[source], wraps, sampler.get("magFilter") == NEAREST)

    def _texels_per_unit(self) -> dict[str, np.ndarray]:
        """(T,) texels along a normalised unit of each triangle, for each kind of texture."""
        corners = self.mesh.triangles
        area = _areas(self.mesh.vertices.astype(np.float64), corners)
        density = {}
        for name, coordinates in self._coordinates.items():
            texels = np.zeros(len(self._paints))
            for index, paint in enumerate(self._paints):
                texture = paint.base if name == "base" else paint.glow
                texels[index] = 0 if texture is None else math.prod(texture.levels[0].shape[:2])
            flat = np.concatenate([coordinates, np.zeros((len(coordinates), 1))], axis=1)
            density[name] = np.sqrt(_areas(flat, corners) * texels[self._paint_of] / np.maximum(area, 1e-12))
        return {name: values.astype(np.float32) for name, values in density.items()}


def _base(material: dict[str, Any]) -> tuple[list[float], dict[str, Any] | None]:
    """Factor and texture of the base colour; of the diffuse one where a material has only that."""
    pbr = material.get("pbrMetallicRoughness", {})
    glossy = material.get("extensions", {}).get("KHR_materials_pbrSpecularGlossiness")
    if glossy is not None:
        return glossy.get("diffuseFactor", [1.0] * 4), glossy.get("diffuseTexture")
    return pbr.get("baseColorFactor", [1.0] * 4), pbr.get("baseColorTexture")


def _uv(part: Any, info: dict[str, Any] | None) -> np.ndarray:
    """(n, 2) texture coordinates of a part's vertices, transformed; zeros where the part has none."""
    if info is None:
        return np.zeros((part.num_vertices, 2))
    transform = info.get("extensions", {}).get("KHR_texture_transform", {})
    number = transform.get("texCoord", info.get("texCoord", 0))
    if number >= len(part.source.uvs):
        return np.zeros((part.num_vertices, 2))
    uv = part.source.uvs[number][part.vertex_ids].astype(np.float64) * transform.get("scale", [1.0, 1.0])
    cos, sin = math.cos(transform.get("rotation", 0.0)), math.sin(transform.get("rotation", 0.0))
    # Counter-clockwise as one sees it, and v points down.
    turned = uv @ np.array([[cos, -sin], [sin, cos]])
    return turned + transform.get("offset", [0.0, 0.0])


def _decoded(data: bytes | None, where: str) -> np.ndarray:
    assert data is not None, f"{where} was not read"
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
            if image.mode.startswith("I"):  # 16 bits; Pillow would clip instead of scaling
                wide = np.asarray(image, np.float64) / 257
                image = Image.fromarray(np.clip(np.rint(wide), 0, 255).astype(np.uint8))
            return np.asarray(image.convert("RGBA"))
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and more
        raise InputError(
            f"{where}: found bytes that do not decode ({str(error)[:80]}), expected a PNG, JPEG or WebP image; "
            "export the model anew"
        ) from error


def _pyramid(image: np.ndarray) -> list[np.ndarray]:
    """The image and its halves down to a few pixels; averages are taken in linear light, weighed by alpha."""
    levels = [image]
    while min(levels[-1].shape[:2]) >= 4:
        own = levels[-1]
        height, width = own.shape[0] // 2, own.shape[1] // 2
        blocks = own[: 2 * height, : 2 * width].reshape(height, 2, width, 2, 4)
        alpha = blocks[..., 3:].astype(np.float32)
        total = alpha.sum(axis=(1, 3))
        weights = np.where(total[:, None, :, None] > 0, alpha, 1.0)
        color = (_LINEAR[blocks[..., :3]] * weights).sum(axis=(1, 3)) / weights.sum(axis=(1, 3))
        half = np.concatenate([_encoded(color) * 255, total / 4], axis=-1)
        levels.append(np.rint(half).astype(np.uint8))
    return levels


def _sampled(texture: _Texture, uv: np.ndarray, texels: np.ndarray) -> np.ndarray:
    """(P, 4) float32 at coordinates (P, 2): RGB in linear light, and alpha; `texels` (P,) wide is averaged over."""
    # Interpolation at a level spans two of its texels already, hence one level less than the width would say.
    with np.errstate(divide="ignore"):
        wanted = np.rint(np.log2(texels)) - 1
    level = np.clip(wanted, 0, len(texture.levels) - 1).astype(np.int64)
    out = np.empty((len(uv), 4), np.float32)
    for index in np.unique(level):
        rows = np.flatnonzero(level == index)
        out[rows] = _bilinear(texture.levels[index], texture, uv[rows])
    return out


def _bilinear(image: np.ndarray, texture: _Texture, uv: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    uv = np.where(np.isfinite(uv), uv, 0.0)
    x, y = uv[:, 0] * width - 0.5, uv[:, 1] * height - 0.5
    if texture.nearest:
        x, y = np.rint(x), np.rint(y)
    left, top = np.floor(x), np.floor(y)
    across, down = (x - left).astype(np.float32)[:, None], (y - top).astype(np.float32)[:, None]
    columns = [_wrapped(left + k, width, texture.wraps[0]) for k in (0, 1)]
    rows = [_wrapped(top + k, height, texture.wraps[1]) * width for k in (0, 1)]
    flat = image.reshape(-1, 4)

    def texel(row: int, column: int) -> np.ndarray:
        found = flat[rows[row] + columns[column]]
        linear = _LINEAR[found]
        linear[:, 3] = found[:, 3] / np.float32(255)
        return linear

    if texture.nearest:
        return texel(0, 0)
    upper = texel(0, 0) * (1 - across) + texel(0, 1) * across
    lower = texel(1, 0) * (1 - across) + texel(1, 1) * across
    return upper * (1 - down) + lower * down


def _wrapped(index: np.ndarray, size: int, wrap: int) -> np.ndarray:
    """Texel indices brought into 0 .. size - 1."""
    if wrap == CLAMP:
        return np.clip(index, 0, size - 1).astype(np.int64)
    if wrap == MIRROR:
        folded = np.mod(index, 2 * size)
        return np.where(folded < size, folded, 2 * size - 1 - folded).astype(np.int64)
    return np.mod(index, size).astype(np.int64)


def _encoded(linear: np.ndarray) -> np.ndarray:
    """sRGB-encoded 0 to 1 from linear light, clipped."""
    linear = np.clip(linear, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** np.float32(1 / 2.4) - 0.055)


def _alpha(paint: _Paint, alpha: np.ndarray) -> np.ndarray:
    if paint.mode == "OPAQUE":
        return np.ones_like(alpha)
    return (alpha >= paint.cutoff).astype(np.float32) if paint.mode == "MASK" else np.clip(alpha, 0, 1)


def _areas(places: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """(T,) areas of triangles."""
    a, b, c = (places[corners[:, k]] for k in range(3))
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) / 2


def _stratified(area: np.ndarray, count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """One point in each of `count` equal stretches of the summed area: no triangle misses more than one point."""
    bounds = np.cumsum(area)
    at = (np.arange(count) + rng.random(count)) / count * bounds[-1]
    triangles = np.minimum(np.searchsorted(bounds, at, side="right"), len(area) - 1)
    root, v = np.sqrt(rng.random(count)), rng.random(count)
    barycentric = np.stack([1 - root, root * (1 - v), root * v], axis=1)
    return triangles, barycentric


def _farthest(places: np.ndarray, count: int) -> np.ndarray:
    """(count,) indices: each next one as far as possible from those before; repeated where there are too few."""
    if len(places) <= count:
        return np.arange(count) % len(places)
    kept = np.zeros(count, np.int64)
    far = np.full(len(places), np.inf, np.float32)
    columns = np.ascontiguousarray(places.T, np.float32)
    for index in range(1, count):
        offset = columns - columns[:, kept[index - 1], None]
        np.minimum(far, np.einsum("cp,cp->p", offset, offset), out=far)
        kept[index] = far.argmax()
    return kept
