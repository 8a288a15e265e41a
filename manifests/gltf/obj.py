"""Wavefront OBJ with MTL as the same `Asset`: one static node, one primitive for each material.

Reads v (with optional colours), vt, vn, f (negative indices, polygons as fans), usemtl, mtllib, and of materials Kd,
Ke, d, Tr, Ns and map_Kd. Groups, lines, points, curves and smoothing groups are passed over. Facts: Wavefront's
specification of OBJ and MTL; vertex colours after v as MeshLab and Blender write them (sRGB).
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import numpy as np

from manifests.errors import Rejected
from manifests.gltf.document import read_file
from manifests.gltf.fields import shown
from manifests.gltf.images import read_header
from manifests.gltf.limits import Budget, Limits
from manifests.gltf.scene import Asset, Image, Mesh, Node, Primitive
from manifests.gltf.uris import Folder

__all__ = ["load_obj"]

MAP_OPTIONS = {
    "-blendu": 1, "-blendv": 1, "-boost": 1, "-mm": 2, "-o": 3, "-s": 3, "-t": 3, "-texres": 1, "-clamp": 1, "-bm": 1,
    "-imfchan": 1, "-type": 1, "-cc": 1,
}  # fmt: skip
"""Option of a map statement -> how many words it takes at most."""
Corner = tuple[int, int, int]
"""Vertex, texture coordinate, normal; -1 where absent."""


class _Geometry:
    """What the lines of an OBJ have given so far."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.positions: list[list[float]] = []
        self.colors: dict[int, list[float]] = {}
        self.uvs: list[list[float]] = []
        self.normals: list[list[float]] = []
        self.faces: dict[str, list[tuple[Corner, Corner, Corner]]] = {}
        self.libraries: list[str] = []
        self.material = ""

    def take(self, words: list[str], rest: str, where: str) -> None:
        """One statement."""
        kind = words[0]
        if kind == "v":
            self.budget.charge("vertices", 1, where)
            numbers = _numbers(words[1:8], 3, where)
            if len(numbers) >= 6:
                self.colors[len(self.positions)] = numbers[3:6]
            self.positions.append(numbers[:3])
        elif kind == "vt":
            self.budget.charge("vertices:vt", 1, where)
            self.uvs.append([*_numbers(words[1:3], 1, where), 0.0][:2])
        elif kind == "vn":
            self.budget.charge("vertices:vn", 1, where)
            self.normals.append(_numbers(words[1:4], 3, where))
        elif kind == "f":
            if len(words) < 4:
                raise Rejected(
                    "bad-structure", f"{where}: found a face of {len(words) - 1}, expected at least 3 corners"
                )
            self.budget.charge("triangles", len(words) - 3, where)
            corners = [self._corner(word, where) for word in words[1:]]
            faces = self.faces.setdefault(self.material, [])
            faces.extend((corners[0], corners[i], corners[i + 1]) for i in range(1, len(corners) - 1))
        elif kind == "usemtl":
            self.material = rest
        elif kind == "mtllib":
            self.libraries.append(rest)

    def _corner(self, word: str, where: str) -> Corner:
        parts = [*word.split("/"), "", ""][:3]
        counts = (len(self.positions), len(self.uvs), len(self.normals))
        found = []
        for text, count in zip(parts, counts, strict=True):
            if not text and found:
                found.append(-1)
                continue
            try:
                number = int(text)
            except ValueError:
                raise Rejected("bad-structure", f"{where}: found corner {shown(word)}, expected v/vt/vn") from None
            index = number - 1 if number > 0 else count + number
            if number == 0 or not 0 <= index < count:
                raise Rejected(
                    "bad-structure", f"{where}: found index {shown(number)}, expected 1..{count} or negative"
                )
            found.append(index)
        return found[0], found[1], found[2]


def load_obj(path: str | Path, *, limits: Limits = Limits()) -> Asset:  # noqa: B008 (frozen)
    """The asset in an .obj file and the .mtl files and textures that it names inside its folder.

    Args:
        path: the .obj; y is up, as glTF has it.
        limits: as for `read`.

    Raises:
        Rejected: with a reason from `manifests.errors.REASONS`. A missing .mtl is no error (many are shipped without),
            a missing texture is.
    """
    path = Path(path)
    data = read_file(path, limits)
    if not data:
        raise Rejected("empty-file", "found 0 bytes, expected an OBJ file")
    if b"\0" in data[:4096]:
        raise Rejected("bad-structure", "found binary bytes, expected the text of an OBJ file")
    budget = Budget(limits)
    budget.charge("file_bytes", len(data), "file")
    folder = Folder(path.resolve().parent, budget)
    geometry = _Geometry(budget)
    for words, rest, where in _statements(data):
        geometry.take(words, rest, where)
    if not geometry.faces:
        raise Rejected("no-mesh", "found no face, expected a mesh with a surface")
    materials, images = _materials(geometry, folder, budget)
    names = list(geometry.faces)
    budget.charge("parts", len(names), "usemtl")
    index_of = {name: i for i, name in enumerate(materials)}
    primitives = tuple(_primitive(geometry, name, index_of.get(name, -1)) for name in names)
    node = Node("", -1, (), np.zeros(3), np.array([0.0, 0, 0, 1]), np.ones(3), mesh=0)
    return Asset(
        nodes=(node,),
        order=(0,),
        meshes=(Mesh("", primitives),),
        materials=tuple(materials.values()),
        textures=tuple({"source": i, "sampler": -1} for i in range(len(images))),
        images=images,
        generator="OBJ",
        sha256=_fingerprint(data, folder),
        files=tuple(sorted(folder.files.items())),
    )


def _statements(data: bytes) -> Iterator[tuple[list[str], str, str]]:
    """(words, everything after the first word, where) of each statement; a backslash continues a line."""
    text = data.decode("utf-8", "replace").replace("\\\r\n", " ").replace("\\\n", " ")
    for number, line in enumerate(text.split("\n"), 1):
        plain = line.split("#", 1)[0].strip()
        if plain:
            words = plain.split()
            yield words, plain[len(words[0]) :].strip(), f"line {number}"


def _numbers(words: list[str], at_least: int, where: str) -> list[float]:
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        raise Rejected("bad-structure", f"{where}: found {shown(' '.join(words))}, expected numbers") from None
    if len(numbers) < at_least:
        raise Rejected("bad-structure", f"{where}: found {len(numbers)} numbers, expected at least {at_least}")
    if not all(abs(number) < 3e38 for number in numbers):
        raise Rejected("non-finite", f"{where}: found {shown(' '.join(words))}, expected numbers that fit float32")
    return numbers


def _primitive(geometry: _Geometry, name: str, material: int) -> Primitive:
    """Vertices are the distinct (v, vt, vn) of the faces, in the order of their first use."""
    corners = np.array(geometry.faces[name], np.int64).reshape(-1, 3)
    distinct, first, inverse = np.unique(corners, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    used = distinct[order]
    triangles = rank[inverse.reshape(-1)].reshape(-1, 3).astype(np.int32)
    vertex, uv, normal = used.T
    positions = np.array(geometry.positions, np.float32)[vertex]
    uvs = ()
    if (uv >= 0).any():
        values = np.array(geometry.uvs, np.float32)[np.maximum(uv, 0)] * (uv >= 0)[:, None]
        uvs = (np.stack([values[:, 0], 1 - values[:, 1]], axis=1).astype(np.float32),)  # glTF's v points down
    normals = None
    if (normal >= 0).all():
        normals = np.array(geometry.normals, np.float32)[normal]
    return Primitive(positions, triangles, normals, uvs, _colors(geometry, vertex), material=material)


def _colors(geometry: _Geometry, vertex: np.ndarray) -> np.ndarray | None:
    if not geometry.colors:
        return None
    srgb = np.array([geometry.colors.get(int(v), [1.0, 1.0, 1.0]) for v in vertex]).clip(0, 1)
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    return np.concatenate([linear, np.ones((len(linear), 1))], axis=1).astype(np.float32)


def _materials(geometry: _Geometry, folder: Folder, budget: Budget) -> tuple[dict[str, dict], tuple[Image, ...]]:
    """Materials that faces use, by name, as glTF JSON, and their images."""
    statements: dict[str, dict[str, tuple[list[str], str, str]]] = {}
    for library in geometry.libraries:
        for words, rest, where in _library(library, folder):
            if words[0] == "newmtl":
                current = statements.setdefault(rest, {})
            elif statements:
                current[words[0]] = (words, rest, where)
    materials: dict[str, dict] = {}
    image_of: dict[str, int] = {}
    images: list[Image] = []
    for name in geometry.faces:
        if name not in statements:
            continue
        source = statements[name]
        materials[name] = _material(name, source)
        if "map_Kd" in source:
            words, _, where = source["map_Kd"]
            uri = quote(_map_file(words[1:]), safe="/\\:~")  # a name, not a URI: a percent sign is a percent sign
            if uri not in image_of:
                budget.charge("images", 1, where)
                data = folder.load(uri, where, "texture-missing")
                mime, width, height = read_header(data, where, budget.limits.image_pixels)
                budget.charge("image_pixels_sum", width * height, where, "texture-too-large")
                image_of[uri] = len(images)
                images.append(Image(uri, mime, data, width, height))
            pbr = materials[name]["pbrMetallicRoughness"]
            pbr["baseColorTexture"] = {"index": image_of[uri]}
            pbr["baseColorFactor"][:3] = [1.0, 1.0, 1.0]  # exporters leave Kd at 0 or 0.8 beside a map
    return materials, tuple(images)


def _library(name: str, folder: Folder) -> list[tuple[list[str], str, str]]:
    try:
        data = folder.load(quote(name, safe="/\\:~"), f"mtllib {shown(name)}", "buffer-missing")
    except Rejected as error:
        if error.reason == "buffer-missing":
            return []
        raise
    return [(words, rest, f"{shown(name)} {where}") for words, rest, where in _statements(data)]


def _material(name: str, source: dict[str, tuple[list[str], str, str]]) -> dict:
    def numbers(key: str, default: list[float]) -> list[float]:
        if key not in source or source[key][0][1:2] in (["spectral"], ["xyz"]):
            return default
        words, _, where = source[key]
        found = _numbers(words[1 : 1 + len(default)], 1, where)
        return found if len(found) == len(default) else [found[0]] * len(default)

    color = [min(max(x, 0.0), 1.0) for x in numbers("Kd", [0.8, 0.8, 0.8])]
    alpha = numbers("d", [1.0 - numbers("Tr", [0.0])[0]])[0]
    shininess = min(max(numbers("Ns", [250.0])[0], 0.0), 1000.0)
    material = {
        "name": name,
        "doubleSided": True,
        "pbrMetallicRoughness": {
            "baseColorFactor": [*color, min(max(alpha, 0.0), 1.0)],
            "metallicFactor": 0.0,
            "roughnessFactor": 1.0 - math.sqrt(shininess / 1000.0),
        },
    }
    emission = [max(x, 0.0) for x in numbers("Ke", [0.0, 0.0, 0.0])]
    strength = max(emission)
    if strength > 0:
        material["emissiveFactor"] = [x / max(strength, 1.0) for x in emission]
        if strength > 1:
            material["extensions"] = {"KHR_materials_emissive_strength": {"emissiveStrength": strength}}
    if alpha < 1:
        material["alphaMode"] = "BLEND"
    return material


def _map_file(words: list[str]) -> str:
    """The file of a map statement, after its options; names may hold spaces."""
    i = 0
    while i < len(words) - 1 and words[i] in MAP_OPTIONS:
        most = i + 1 + MAP_OPTIONS[words[i]]
        vector = words[i] in {"-o", "-s", "-t"}  # these take one to three numbers
        i += 2
        while vector and i < min(most, len(words) - 1) and _is_number(words[i]):
            i += 1
    return " ".join(words[i:])


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _fingerprint(data: bytes, folder: Folder) -> str:
    lines = [f". {hashlib.sha256(data).hexdigest()}", *(f"{uri} {digest}" for uri, digest in folder.files.items())]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
