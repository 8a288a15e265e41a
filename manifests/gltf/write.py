"""Deterministic writer of glTF 2.0 files: the same calls give the same bytes.

Used for the procedural assets, for the sanitised static file that Blender imports, and by the tests. It writes what it
is given (no optimisation, no quantisation); wrong shapes and indices are refused with a ``ValueError`` when they are
added. Facts: Khronos glTF 2.0 specification, sections 3.6 (accessors), 3.7 (meshes), 3.11 (animations), 4 (GLB).
"""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ["GlbWriter"]

ARRAY_BUFFER, ELEMENT_ARRAY_BUFFER = 34962, 34963
FLOAT, UINT8, UINT16, UINT32 = 5126, 5121, 5123, 5125
TYPE_OF_WIDTH = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
COMPONENT_OF_DTYPE = {"float32": FLOAT, "uint8": UINT8, "uint16": UINT16, "uint32": UINT32}
PATH_WIDTH = {"translation": 3, "rotation": 4, "scale": 3}
INTERPOLATIONS = ("LINEAR", "STEP", "CUBICSPLINE")
IMAGE_MIMES = ("image/png", "image/jpeg", "image/webp")


class GlbWriter:
    """Collects meshes, nodes, skins, materials and animations, then writes one GLB or one self-contained glTF.

    Every ``add_*`` returns the index that later calls refer to. Coordinates are glTF's: right-handed, y up, metres;
    rotations are quaternions xyzw; times are seconds.

    Args:
        copyright: stored as ``asset.copyright``; the attribution of the asset.
        generator: stored as ``asset.generator``.

    Example:
        >>> writer = GlbWriter()
        >>> mesh = writer.add_mesh("tri", [{"positions": [[0, 0, 0], [1, 0, 0], [0, 1, 0]], "triangles": [[0, 1, 2]]}])
        >>> node = writer.add_node("tri", mesh=mesh)
        >>> writer.to_bytes()[:4]
        b'glTF'
    """

    def __init__(self, *, copyright: str = "", generator: str = "mvvideo") -> None:
        self.copyright, self.generator = copyright, generator
        self._blob = bytearray()
        self._views: list[dict] = []
        self._accessors: list[dict] = []
        self._known: dict[tuple, int] = {}
        self._document: dict[str, list[dict]] = {
            key: [] for key in ("nodes", "meshes", "skins", "materials", "textures", "images", "samplers", "animations")
        }
        self._used_extensions: set[str] = set()
        self._required_extensions: set[str] = set()

    # -- materials ------------------------------------------------------------------------------------------------

    def add_image(self, data: bytes, mime: str = "image/png", name: str = "") -> int:
        """Embed an encoded image; `mime` is image/png, image/jpeg or image/webp."""
        _expect(mime in IMAGE_MIMES, "image mime", mime, f"one of {', '.join(IMAGE_MIMES)}")
        _expect(len(data) > 0, "image data", "no bytes", "an encoded image")
        image: dict[str, Any] = {"bufferView": self._view(bytes(data)), "mimeType": mime}
        if name:
            image["name"] = name
        return self._add("images", image)

    def add_texture(self, image: int, sampler: Mapping[str, int] | None = None) -> int:
        """Use an image as a texture; `sampler` holds glTF's magFilter, minFilter, wrapS, wrapT (numbers)."""
        self._index("texture.image", image, "images")
        texture: dict[str, Any] = {}
        if self._document["images"][image]["mimeType"] == "image/webp":
            texture["extensions"] = {"EXT_texture_webp": {"source": image}}
            self._used_extensions.add("EXT_texture_webp")
            self._required_extensions.add("EXT_texture_webp")
        else:
            texture["source"] = image
        if sampler is not None:
            samplers = self._document["samplers"]
            plain = dict(sampler)
            texture["sampler"] = samplers.index(plain) if plain in samplers else self._add("samplers", plain)
        return self._add("textures", texture)

    def add_material(self, material: Mapping[str, Any]) -> int:
        """Add a material as glTF JSON; extensions found in it are declared in ``extensionsUsed``."""
        plain = json.loads(json.dumps(material, allow_nan=False))
        for texture_info in _dicts_with(plain, "index"):
            self._index("material texture index", texture_info["index"], "textures")
        for holder in _dicts_with(plain, "extensions"):
            self._used_extensions.update(holder["extensions"])
        return self._add("materials", plain)

    # -- geometry -------------------------------------------------------------------------------------------------

    def add_mesh(
        self, name: str, primitives: Sequence[Mapping[str, Any]], weights: Sequence[float] | None = None
    ) -> int:
        """Add a mesh of triangle primitives.

        Args:
            name: may be "".
            primitives: dicts with positions (N, 3), triangles (T, 3) and optionally normals (N, 3), uvs (N, 2) or a
                list of them, colors (N, 3|4) in 0..1 linear, joints (N, 4k) with weights (N, 4k), targets (list of
                (N, 3) position deltas), target_normals (list of (N, 3)), material (index).
            weights: default morph weights, one per target.

        Raises:
            ValueError: a shape, an index or a number is wrong.
        """
        _expect(len(primitives) > 0, f"mesh {name!r}", "no primitive", "at least one")
        where = f"mesh {name!r}"
        plain = [self._primitive(f"{where} primitive {i}", primitive) for i, primitive in enumerate(primitives)]
        target_counts = {len(primitive.get("targets", ())) for primitive in plain}
        _expect(len(target_counts) == 1, where, f"{sorted(target_counts)} targets", "the same count in each primitive")
        mesh: dict[str, Any] = {"primitives": plain}
        if name:
            mesh["name"] = name
        if weights is not None:
            _expect(len(weights) == target_counts.pop(), f"{where} weights", len(weights), "one per target")
            mesh["weights"] = _floats(f"{where} weights", weights, len(weights))
        return self._add("meshes", mesh)

    def _primitive(self, where: str, source: Mapping[str, Any]) -> dict:
        known = {"positions", "triangles", "normals", "uvs", "colors", "joints", "weights", "targets"}
        known |= {"target_normals", "material"}
        unknown = set(source) - known
        _expect(not unknown, where, f"keys {sorted(unknown)}", f"only {', '.join(sorted(known))}")
        positions = _array(f"{where} positions", source["positions"], (None, 3))
        count = len(positions)
        _expect(count > 0, f"{where} positions", "no vertex", "at least one")
        triangles = np.asarray(source["triangles"])
        _expect(triangles.ndim == 2 and triangles.shape[1] == 3, f"{where} triangles", triangles.shape, "(T, 3)")
        _expect(triangles.size > 0, f"{where} triangles", "none", "at least one")
        _expect(triangles.min() >= 0 and triangles.max() < count, f"{where} triangles", "an index", f"0..{count - 1}")
        attributes = {"POSITION": self._accessor(positions, ARRAY_BUFFER, bounds=True)}
        if source.get("normals") is not None:
            normals = _array(f"{where} normals", source["normals"], (count, 3))
            attributes["NORMAL"] = self._accessor(normals, ARRAY_BUFFER)
        for i, uv in enumerate(_uv_sets(source.get("uvs"))):
            attributes[f"TEXCOORD_{i}"] = self._accessor(_array(f"{where} uvs {i}", uv, (count, 2)), ARRAY_BUFFER)
        if source.get("colors") is not None:
            colors = np.asarray(source["colors"], np.float32)
            width = colors.shape[1] if colors.ndim == 2 else 0
            _expect(width in {3, 4}, f"{where} colors", colors.shape, "(N, 3) or (N, 4)")
            attributes["COLOR_0"] = self._accessor(_array(f"{where} colors", colors, (count, width)), ARRAY_BUFFER)
        attributes |= self._influences(where, source.get("joints"), source.get("weights"), count)
        index_type = np.uint16 if count < 65535 else np.uint32
        indices = np.ascontiguousarray(triangles, index_type).reshape(-1)
        primitive: dict[str, Any] = {
            "attributes": attributes,
            "indices": self._accessor(indices, ELEMENT_ARRAY_BUFFER),
            "mode": 4,
        }
        targets, target_normals = source.get("targets") or [], source.get("target_normals") or []
        _expect(len(target_normals) in {0, len(targets)}, f"{where} target_normals", len(target_normals), len(targets))
        if targets:
            primitive["targets"] = []
        for i, target in enumerate(targets):
            deltas = _array(f"{where} target {i}", target, (count, 3))
            entry = {"POSITION": self._accessor(deltas, ARRAY_BUFFER, bounds=True)}
            if target_normals and target_normals[i] is not None:
                bends = _array(f"{where} target normals {i}", target_normals[i], (count, 3))
                entry["NORMAL"] = self._accessor(bends, ARRAY_BUFFER)
            primitive["targets"].append(entry)
        if source.get("material") is not None:
            primitive["material"] = self._index(f"{where} material", source["material"], "materials")
        return primitive

    def _influences(self, where: str, joints: Any, weights: Any, count: int) -> dict[str, int]:
        if joints is None and weights is None:
            return {}
        _expect(joints is not None and weights is not None, where, "one of joints, weights", "both or none")
        joints, weights = np.asarray(joints), np.asarray(weights, np.float32)
        _expect(
            joints.ndim == 2 and joints.shape[0] == count and joints.shape[1] % 4 == 0 and joints.shape[1] > 0,
            f"{where} joints",
            joints.shape,
            f"({count}, 4k)",
        )
        _expect(weights.shape == joints.shape, f"{where} weights", weights.shape, joints.shape)
        _expect(np.isfinite(weights).all() and weights.min() >= 0, f"{where} weights", "a negative or NaN", ">= 0")
        _expect(joints.min() >= 0 and joints.max() < 65536, f"{where} joints", joints.max(), "0..65535")
        joints = joints.astype(np.uint8 if joints.max() < 256 else np.uint16)
        result = {}
        for i in range(joints.shape[1] // 4):
            part = slice(4 * i, 4 * i + 4)
            result[f"JOINTS_{i}"] = self._accessor(np.ascontiguousarray(joints[:, part]), ARRAY_BUFFER)
            result[f"WEIGHTS_{i}"] = self._accessor(np.ascontiguousarray(weights[:, part]), ARRAY_BUFFER)
        return result

    # -- scene ----------------------------------------------------------------------------------------------------

    def add_node(
        self,
        name: str = "",
        *,
        translation: Sequence[float] | None = None,
        rotation_xyzw: Sequence[float] | None = None,
        scale: Sequence[float] | None = None,
        matrix: Any = None,
        mesh: int | None = None,
        skin: int | None = None,
        weights: Sequence[float] | None = None,
        children: Sequence[int] = (),
    ) -> int:
        """Add a node; `matrix` is (4, 4) in mathematical layout (translation in the last column), instead of TRS."""
        where = f"node {name!r}"
        node: dict[str, Any] = {"name": name} if name else {}
        has_trs = translation is not None or rotation_xyzw is not None or scale is not None
        _expect(matrix is None or not has_trs, where, "matrix and TRS", "one of them")
        if matrix is not None:
            node["matrix"] = _floats(f"{where} matrix", np.asarray(matrix, np.float64).T.reshape(-1), 16)
        for key, value, width in (("translation", translation, 3), ("rotation", rotation_xyzw, 4), ("scale", scale, 3)):
            if value is not None:
                node[key] = _floats(f"{where} {key}", value, width)
        if "rotation" in node:
            length = float(np.linalg.norm(node["rotation"]))
            _expect(abs(length - 1) < 1e-3, f"{where} rotation", f"a quaternion of length {length:.4g}", "a unit one")
        if mesh is not None:
            node["mesh"] = self._index(f"{where} mesh", mesh, "meshes")
        if skin is not None:
            node["skin"] = self._index(f"{where} skin", skin, "skins")
        if weights is not None:
            node["weights"] = _floats(f"{where} weights", weights, len(weights))
        index = self._add("nodes", node)
        if len(children):
            self.set_children(index, children)
        return index

    def set_children(self, node: int, children: Sequence[int]) -> None:
        """Give a node its children (all at once); needed where a parent is added before them."""
        self._index("set_children node", node, "nodes")
        for child in children:
            self._index(f"node {node} child", child, "nodes")
            _expect(child != node, f"node {node} child", child, "another node")
        self._document["nodes"][node]["children"] = [int(child) for child in children]

    def set_mesh(self, node: int, *, mesh: int, skin: int | None = None) -> None:
        """Give a node its mesh afterwards; needed where a skin's joints are descendants of the mesh's node."""
        self._index("set_mesh node", node, "nodes")
        self._document["nodes"][node]["mesh"] = self._index(f"node {node} mesh", mesh, "meshes")
        if skin is not None:
            self._document["nodes"][node]["skin"] = self._index(f"node {node} skin", skin, "skins")

    def add_skin(self, joints: Sequence[int], inverse_bind: Any = None, name: str = "") -> int:
        """Add a skin; `inverse_bind` is (J, 4, 4) in mathematical layout, identity matrices where None."""
        _expect(len(joints) > 0, f"skin {name!r}", "no joint", "at least one")
        skin: dict[str, Any] = {"joints": [self._index(f"skin {name!r} joint", joint, "nodes") for joint in joints]}
        if inverse_bind is not None:
            matrices = _array(f"skin {name!r} inverse_bind", inverse_bind, (len(joints), 4, 4))
            columns = np.ascontiguousarray(matrices.transpose(0, 2, 1)).reshape(-1, 16)
            skin["inverseBindMatrices"] = self._accessor(columns, None)
        if name:
            skin["name"] = name
        return self._add("skins", skin)

    def add_animation(self, name: str | None, channels: Sequence[Mapping[str, Any]]) -> int:
        """Add an animation.

        Args:
            name: None or "" writes no name.
            channels: dicts with node, path (translation, rotation, scale, weights), times (K,) in seconds, strictly
                increasing and >= 0, values (K, D) or for CUBICSPLINE (K, 3, D) as in-tangent, value, out-tangent,
                and interpolation ("LINEAR" where absent).
        """
        where = f"animation {name!r}"
        _expect(len(channels) > 0, where, "no channel", "at least one")
        samplers: list[dict] = []
        plain: list[dict] = []
        for i, channel in enumerate(channels):
            sampler, target = self._channel(f"{where} channel {i}", channel)
            if sampler not in samplers[-8:]:  # neighbours often share one; a full search would be quadratic
                samplers.append(sampler)
            plain.append({"sampler": len(samplers) - 1 - samplers[::-1].index(sampler), "target": target})
        animation: dict[str, Any] = {"channels": plain, "samplers": samplers}
        if name:
            animation["name"] = name
        return self._add("animations", animation)

    def _channel(self, where: str, channel: Mapping[str, Any]) -> tuple[dict, dict]:
        unknown = set(channel) - {"node", "path", "times", "values", "interpolation"}
        _expect(not unknown, where, f"keys {sorted(unknown)}", "node, path, times, values, interpolation")
        node, path = self._index(f"{where} node", channel["node"], "nodes"), channel["path"]
        _expect(path in {*PATH_WIDTH, "weights"}, f"{where} path", path, "translation, rotation, scale or weights")
        interpolation = channel.get("interpolation", "LINEAR")
        _expect(interpolation in INTERPOLATIONS, f"{where} interpolation", interpolation, ", ".join(INTERPOLATIONS))
        times = _array(f"{where} times", channel["times"], (None,))
        _expect(len(times) > 0, f"{where} times", "no key", "at least one")
        _expect(
            times[0] >= 0 and (np.diff(times) > 0).all(), f"{where} times", "others", "increasing from >= 0, float32"
        )
        width = PATH_WIDTH.get(path) or self._target_count(where, node)
        cubic = interpolation == "CUBICSPLINE"
        shape = (len(times), 3, width) if cubic else (len(times), width)
        values = np.asarray(channel["values"], np.float32)
        if path == "weights" and width == 1 and values.ndim == len(shape) - 1:
            values = values[..., None]
        values = _array(f"{where} values", values, shape)
        rows = values.reshape(-1) if path == "weights" else values.reshape(-1, width)
        inputs, outputs = self._accessor(times, None, bounds=True), self._accessor(rows, None)
        return (
            {"input": inputs, "interpolation": interpolation, "output": outputs},
            {"node": node, "path": path},
        )

    def _target_count(self, where: str, node: int) -> int:
        mesh = self._document["nodes"][node].get("mesh")
        _expect(mesh is not None, f"{where} node", f"node {node} without a mesh", "a mesh with targets")
        targets = self._document["meshes"][mesh]["primitives"][0].get("targets", ())
        _expect(len(targets) > 0, f"{where} node", f"mesh {mesh} without targets", "a mesh with targets")
        return len(targets)

    # -- output ---------------------------------------------------------------------------------------------------

    def to_bytes(self, scene_nodes: Sequence[int] | None = None) -> bytes:
        """The GLB. `scene_nodes` are the roots of its one scene; by default all nodes that are nobody's child."""
        document = self._finish(scene_nodes)
        binary = bytes(self._blob) + b"\0" * (-len(self._blob) % 4)
        if binary:
            document["buffers"] = [{"byteLength": len(binary)}]
        text = _dump(document)
        text += b" " * (-len(text) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text
        if binary:
            chunks += struct.pack("<I4s", len(binary), b"BIN\0") + binary
        return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks

    def to_gltf(self, scene_nodes: Sequence[int] | None = None) -> str:
        """The same as one JSON text, its buffer embedded as a data URI."""
        document = self._finish(scene_nodes)
        if self._blob:
            data = base64.b64encode(bytes(self._blob)).decode()
            uri = f"data:application/octet-stream;base64,{data}"
            document["buffers"] = [{"byteLength": len(self._blob), "uri": uri}]
        return _dump(document).decode()

    def _finish(self, scene_nodes: Sequence[int] | None) -> dict:
        nodes = self._document["nodes"]
        parents: dict[int, int] = {}
        for index, node in enumerate(nodes):
            for child in node.get("children", ()):
                _expect(child not in parents, f"node {child}", f"parents {parents.get(child)} and {index}", "one")
                parents[child] = index
        roots = [i for i in range(len(nodes)) if i not in parents] if scene_nodes is None else list(scene_nodes)
        for root in roots:
            self._index("scene node", root, "nodes")
        asset = {"generator": self.generator, "version": "2.0"}
        if self.copyright:
            asset["copyright"] = self.copyright
        scene = {"nodes": roots} if roots else {}
        document: dict[str, Any] = {"asset": asset, "scene": 0, "scenes": [scene]}
        document |= {key: value for key, value in self._document.items() if value}
        if self._accessors:
            document["accessors"] = self._accessors
        if self._views:
            document["bufferViews"] = self._views
        if self._used_extensions:
            document["extensionsUsed"] = sorted(self._used_extensions)
        if self._required_extensions:
            document["extensionsRequired"] = sorted(self._required_extensions)
        return document

    # -- buffers --------------------------------------------------------------------------------------------------

    def _view(self, data: bytes, target: int | None = None) -> int:
        self._blob += b"\0" * (-len(self._blob) % 4)
        view = {"buffer": 0, "byteLength": len(data), "byteOffset": len(self._blob)}
        if target is not None:
            view["target"] = target
        self._blob += data
        self._views.append(view)
        return len(self._views) - 1

    def _accessor(self, array: np.ndarray, target: int | None, *, bounds: bool = False) -> int:
        """One accessor with a view of its own; the same content is written once."""
        width = array.shape[1] if array.ndim == 2 else 1
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        element = little.dtype.itemsize * width
        if target == ARRAY_BUFFER and element % 4:  # specification 3.6.2.4: vertex strides are multiples of 4
            raise AssertionError(f"vertex element of {element} bytes, expected a multiple of 4")
        data = little.tobytes()
        key = (hashlib.blake2b(data).digest(), str(little.dtype), width, target, bounds)
        if key in self._known:
            return self._known[key]
        accessor: dict[str, Any] = {
            "bufferView": self._view(data, target),
            "componentType": COMPONENT_OF_DTYPE[array.dtype.name],
            "count": len(array),
            "type": TYPE_OF_WIDTH[width],
        }
        if bounds:
            rows = array.reshape(len(array), width)
            accessor["min"] = [float(x) for x in rows.min(axis=0)]
            accessor["max"] = [float(x) for x in rows.max(axis=0)]
        self._accessors.append(accessor)
        self._known[key] = len(self._accessors) - 1
        return self._known[key]

    def _add(self, kind: str, entry: dict) -> int:
        self._document[kind].append(entry)
        return len(self._document[kind]) - 1

    def _index(self, where: str, value: int, kind: str) -> int:
        count = len(self._document[kind])
        _expect(0 <= int(value) < count, where, value, f"one of the {count} {kind} added before")
        return int(value)


def _expect(condition: Any, where: str, found: object, expected: object) -> None:
    if not condition:
        raise ValueError(f"{where}: found {found}, expected {expected}")


def _array(where: str, value: Any, shape: tuple[int | None, ...]) -> np.ndarray:
    """`value` as contiguous float32 of `shape` (None is any length), all finite."""
    array = np.ascontiguousarray(value, np.float32)
    fits = array.ndim == len(shape) and all(want in {None, have} for want, have in zip(shape, array.shape, strict=True))
    _expect(fits, where, f"shape {array.shape}", f"{tuple('N' if n is None else n for n in shape)}")
    _expect(np.isfinite(array).all(), where, "NaN or infinity", "finite numbers")
    return array


def _floats(where: str, value: Any, count: int) -> list[float]:
    array = np.asarray(value, np.float64).reshape(-1)
    _expect(len(array) == count, where, f"{len(array)} numbers", count)
    _expect(np.isfinite(array).all(), where, "NaN or infinity", "finite numbers")
    return [float(x) for x in array]


def _uv_sets(uvs: Any) -> list[np.ndarray]:
    if uvs is None:
        return []
    if isinstance(uvs, (list, tuple)) and uvs and np.asarray(uvs[0]).ndim == 2:
        return [np.asarray(uv, np.float32) for uv in uvs]
    array = np.asarray(uvs, np.float32)
    return [array] if array.size else []


def _dicts_with(root: Any, key: str) -> list[dict]:
    """All dicts inside `root` that have `key`; a list as a stack, because JSON can be deep."""
    found, stack = [], [root]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            if key in item:
                found.append(item)
            stack.extend(item.values())
        elif isinstance(item, list):
            stack.extend(item)
    return found


def _dump(document: dict) -> bytes:
    return json.dumps(document, allow_nan=False, ensure_ascii=True, separators=(",", ":"), sort_keys=True).encode()
