"""Broken, hostile and merely odd asset files, each with the reason that it must end with.

Used by the reader's tests and by those of the batch jobs. The files are built from one small valid asset by changing
one thing, so that a reason other than the expected one points at the reader. Needs only numpy, Pillow and the writer.
"""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from manifests.gltf.write import GlbWriter

__all__ = ["Case", "make_broken", "patched", "small_asset", "split_glb"]

CUBE = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
CUBE_TRIANGLES = np.array([
    [0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1],
    [2, 3, 7], [2, 7, 6], [0, 2, 6], [0, 6, 4], [1, 5, 7], [1, 7, 3],
])  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One file.

    Attributes:
        path: of the file that is given to the reader.
        reason: a key of `manifests.errors.REASONS`, "" where the file is odd but good.
        level: who finds it: the reader ("asset"), the probe of an animation ("animation"), or the batch ("batch").
    """

    path: Path
    reason: str
    level: str = "asset"


def png(size: int = 8, color: tuple[int, int, int] = (200, 60, 30)) -> bytes:
    """A small valid PNG."""
    out = io.BytesIO()
    Image.new("RGB", (size, size), color).save(out, "PNG")
    return out.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A PNG whose header claims any size; its pixels are missing."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I4sI", 0, b"IDAT", zlib.crc32(b"IDAT"))


def small_asset(
    *,
    times=(0.0, 1.0, 2.0),
    values=((0, 0, 0), (2, 0, 0), (0, 0, 0)),
    path: str = "translation",
    name: str = "move",
    image: bytes | None = None,
    node_name: str = "cube",
    animated: bool = True,
    mesh: bool = True,
) -> GlbWriter:
    """A textured cube that moves; one node holds it, a parent is animated, both keyed for 2 s."""
    writer = GlbWriter(copyright="CC0")
    index = None
    if mesh:
        texture = writer.add_texture(writer.add_image(png() if image is None else image, "image/png", "skin"))
        info = {"index": texture}
        material = writer.add_material({"name": "paint", "pbrMetallicRoughness": {"baseColorTexture": info}})
        primitive = {"positions": CUBE, "triangles": CUBE_TRIANGLES, "uvs": CUBE[:, :2] / 2 + 0.5, "material": material}
        index = writer.add_mesh("cube", [primitive])
    cube = writer.add_node(node_name, mesh=index)
    parent = writer.add_node("parent", children=[cube])
    if animated:
        writer.add_animation(name, [{"node": parent, "path": path, "times": times, "values": values}])
    return writer


def split_glb(data: bytes) -> tuple[dict, bytes]:
    """The JSON and the binary chunk of a GLB with both."""
    size = int.from_bytes(data[12:16], "little")
    return json.loads(data[20 : 20 + size]), data[28 + size :]


def join_glb(document: dict | bytes, binary: bytes) -> bytes:
    """A GLB of any JSON (or bytes in its place)."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    text += b" " * (-len(text) % 4)
    binary += b"\0" * (-len(binary) % 4)
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def patched(data: bytes, change: Callable[[dict], object]) -> bytes:
    """The GLB with its JSON changed in place by `change`."""
    document, binary = split_glb(data)
    change(document)
    return join_glb(document, binary)


def as_gltf(data: bytes, change: Callable[[dict], object] = lambda document: None) -> bytes:
    """The same asset as JSON text with its buffer embedded, changed by `change`."""
    document, binary = split_glb(data)
    document["buffers"][0]["uri"] = "data:application/octet-stream;base64," + base64.b64encode(binary).decode()
    change(document)
    return json.dumps(document).encode()


def with_draco(data: bytes, draco: bytes, *, vertices: int, indices: int, position_id: int = 0) -> bytes:
    """The GLB with the mesh's positions and indices said to be Draco-compressed."""
    document, binary = split_glb(data)
    start = len(binary)
    document["buffers"][0]["byteLength"] = start + len(draco)
    document["bufferViews"].append({"buffer": 0, "byteOffset": start, "byteLength": len(draco)})
    primitive = document["meshes"][0]["primitives"][0]
    position, index = (len(document["accessors"]) + k for k in range(2))
    document["accessors"] += [
        {"componentType": 5126, "count": vertices, "type": "VEC3", "min": [-1] * 3, "max": [1] * 3},
        {"componentType": 5125, "count": indices, "type": "SCALAR"},
    ]
    primitive["attributes"], primitive["indices"] = {"POSITION": position}, index
    view = len(document["bufferViews"]) - 1
    primitive["extensions"] = {
        "KHR_draco_mesh_compression": {"bufferView": view, "attributes": {"POSITION": position_id}}
    }
    document["extensionsUsed"] = document["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    return join_glb(document, binary + draco)


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def draco_header(triangles: int, vertices: int) -> bytes:
    """The first bytes of a sequential Draco mesh of bitstream 2.2, followed by nothing that decodes."""
    return b"DRACO\x02\x02\x01\x00\x00\x00" + varint(triangles) + varint(vertices) + b"\x01\x01\x00\x09\x03\x00"


class _Maker:
    def __init__(self, folder: Path) -> None:
        self.folder, self.cases = folder, []
        self.good = small_asset().to_bytes()

    def add(self, name: str, data: bytes, reason: str, level: str = "asset") -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        self.cases.append(Case(path, reason, level))
        return path

    def patch(self, name: str, reason: str, change: Callable[[dict], object], level: str = "asset") -> Path:
        return self.add(f"{name}.glb", patched(self.good, change), reason, level)


def make_broken(folder: Path) -> list[Case]:
    """Write all cases below `folder`, which should be empty.

    Returns:
        One case for each file that is an asset to look at; helper files (a secret image outside an asset's folder) are
        not among them.
    """
    make = _Maker(Path(folder))
    _containers(make)
    _structures(make)
    _geometry(make)
    _textures(make)
    _external(make)
    _animations(make)
    _odd_but_good(make)
    return make.cases


def _containers(make: _Maker) -> None:
    good = make.good
    size = int.from_bytes(good[12:16], "little")
    make.add("empty.glb", b"", "empty-file")
    make.add("empty.gltf", b"", "empty-file")
    boundaries = {
        "magic": 3, "header": 4, "version": 8, "length": 12, "json-header": 16, "json-start": 20,
        "json-middle": 20 + size // 2, "json-end": 20 + size, "bin-header": 24 + size, "bin-start": 28 + size,
        "bin-middle": (28 + size + len(good)) // 2, "last-byte": len(good) - 1,
    }  # fmt: skip
    for name, end in boundaries.items():
        make.add(f"truncated-{name}.glb", good[:end], "truncated")
    make.add("truncated.gltf", as_gltf(good)[:-100], "bad-json")
    make.add("magic.glb", b"glTX" + good[4:], "not-gltf")
    make.add("picture.glb", png(), "not-gltf")
    make.add("version-1.glb", good[:4] + struct.pack("<I", 1) + good[8:], "not-gltf")
    make.add("web-page.gltf", b"<!DOCTYPE html><title>404</title>", "not-gltf")
    make.add("json-garbage.glb", join_glb(b"{\xff\xfe}" + good[30 : 20 + size], b"\0" * 8), "bad-json")
    make.add("json-nan.gltf", as_gltf(good).replace(b'"scene": 0', b'"scene": NaN'), "bad-json")
    make.add("json-deep.gltf", b'{"a":' + b"[" * 200_000 + b"]" * 200_000 + b"}", "bad-json")
    make.add("json-array.glb", join_glb(b"[1, 2, 3]", b"\0" * 8), "bad-json")
    make.patch("asset-version", "not-gltf", lambda d: d["asset"].update(version="1.0"))
    make.patch("chunk-shorter-than-buffer", "truncated", lambda d: d["buffers"][0].update(byteLength=10**9))
    wrong_chunk = bytearray(good)
    wrong_chunk[16:20] = b"BIN\0"
    make.add("first-chunk.glb", bytes(wrong_chunk), "bad-structure")


def _structures(make: _Maker) -> None:
    def chain(document: dict) -> None:
        first = len(document["nodes"])
        document["nodes"] += [{"children": [first + i + 1]} for i in range(4999)] + [{"children": [1]}]
        document["scenes"][0]["nodes"] = [first]

    make.patch("cyclic-nodes", "node-cycle", lambda d: d["nodes"][0].update(children=[1]))
    make.patch("own-child", "node-cycle", lambda d: d["nodes"].append({"children": [len(d["nodes"])]}))
    make.patch("two-parents", "node-cycle", lambda d: d["nodes"].append({"children": [0]}))
    make.patch("deep-nodes", "node-too-deep", chain)
    make.patch("wrong-type", "bad-structure", lambda d: d["nodes"][1].update(children="0"))
    make.patch("wrong-index", "bad-structure", lambda d: d["nodes"][0].update(mesh=7))
    make.patch("negative-index", "bad-structure", lambda d: d["nodes"][0].update(mesh=-1))
    make.patch("nodes-not-objects", "bad-structure", lambda d: d.update(nodes=[1, 2]))
    make.patch("many-nodes", "too-large", lambda d: d["nodes"].extend({} for _ in range(60_000)))
    make.patch("infinite-scale", "non-finite", lambda d: d["nodes"][0].update(scale=[1, 10**400, 1]))
    for extension in ("KHR_texture_basisu", "EXT_meshopt_compression", "ACME_unheard_of"):
        names = {"extensionsRequired": [extension], "extensionsUsed": [extension]}
        make.patch(f"requires-{extension}", "unsupported-extension", lambda d, names=names: d.update(names))
    make.patch("no-scene-content", "no-mesh", lambda d: d["scenes"][0].update(nodes=[]))
    make.add("no-mesh.glb", small_asset(mesh=False, animated=False).to_bytes() + b"", "no-mesh")
    make.patch("only-lines", "no-mesh", lambda d: d["meshes"][0]["primitives"][0].update(mode=1))
    skin = {"joints": [99], "skeleton": 0}
    make.patch("skin-joint", "bad-structure", lambda d: (d.update(skins=[skin]), d["nodes"][0].update(skin=0)))


def _geometry(make: _Maker) -> None:
    good = make.good
    document, binary = split_glb(good)
    primitive = document["meshes"][0]["primitives"][0]
    position, index = primitive["attributes"]["POSITION"], primitive["indices"]

    def accessor(document: dict, which: int) -> dict:
        return document["accessors"][which]

    make.patch("accessor-count", "accessor-out-of-bounds", lambda d: accessor(d, position).update(count=2**31))
    make.patch("accessor-offset", "accessor-out-of-bounds", lambda d: accessor(d, position).update(byteOffset=10**6))
    make.patch("view-length", "accessor-out-of-bounds", lambda d: d["bufferViews"][0].update(byteLength=10**9))
    make.patch("zero-filled-bomb", "too-large", lambda d: (
        accessor(d, position).pop("bufferView"), accessor(d, position).update(count=2**40)))  # fmt: skip
    sparse = {
        "count": 2**33,
        "indices": {"bufferView": 0, "componentType": 5125},
        "values": {"bufferView": 0},
    }
    make.patch("sparse-bomb", "too-large", lambda d: (
        accessor(d, position).pop("bufferView"), accessor(d, position).update(count=2**34, sparse=sparse)))  # fmt: skip
    make.patch("index-past-vertices", "bad-structure", lambda d: primitive_of(d).update(indices=index, attributes={
        "POSITION": shrunk(d, position, 4)}))  # fmt: skip
    make.patch("component-type", "bad-structure", lambda d: accessor(d, position).update(componentType=5130))
    make.patch("instance-bomb", "too-large", lambda d: (
        d["nodes"].extend({"mesh": 0} for _ in range(40_000)),
        d["scenes"][0]["nodes"].extend(range(2, 40_002))))  # fmt: skip
    view = document["bufferViews"][document["accessors"][position]["bufferView"]]
    broken = bytearray(binary)
    broken[view["byteOffset"] : view["byteOffset"] + 4] = struct.pack("<f", float("nan"))
    make.add("nan-vertices.glb", join_glb(document, bytes(broken)), "non-finite")
    make.add(
        "draco-accessor-bomb.glb", with_draco(good, draco_header(12, 8), vertices=2**40, indices=2**40), "too-large"
    )
    bomb = draco_header(2**31, 2**31)
    make.add("draco-header-bomb.glb", with_draco(good, bomb, vertices=8, indices=36), "draco-corrupt")
    hollow = draco_header(3_000_000, 3_000_000)
    make.add("draco-hollow.glb", with_draco(good, hollow, vertices=3_000_000, indices=9_000_000), "draco-corrupt")
    make.add("draco-garbage.glb", with_draco(good, b"DRAC" * 9, vertices=8, indices=36), "draco-corrupt")


def primitive_of(document: dict) -> dict:
    return document["meshes"][0]["primitives"][0]


def shrunk(document: dict, accessor: int, count: int) -> int:
    document["accessors"].append({**document["accessors"][accessor], "count": count})
    return len(document["accessors"]) - 1


def _textures(make: _Maker) -> None:
    make.add("huge-texture.glb", small_asset(image=png_header(60_000, 60_000)).to_bytes(), "texture-too-large")
    make.add("large-texture.glb", small_asset(image=png_header(9_000, 9_000)).to_bytes(), "texture-too-large")
    make.add("corrupt-texture.glb", small_asset(image=b"\x89PNG\r\n\x1a\nnonsense").to_bytes(), "texture-corrupt")
    make.add("cut-texture.glb", small_asset(image=png(64)[:-30]).to_bytes(), "texture-corrupt")
    make.patch("texture-without-source", "texture-missing", lambda d: d["textures"][0].pop("source"))
    ktx2 = {"extensions": {"KHR_texture_basisu": {"source": 0}}}
    make.patch("ktx2-texture", "unsupported-extension", lambda d: d.update(textures=[ktx2]))


def _external(make: _Maker) -> None:
    secret = make.folder / "secret.png"
    secret.parent.mkdir(parents=True, exist_ok=True)
    secret.write_bytes(png(color=(0, 0, 255)))

    def image_at(uri: str) -> bytes:
        return as_gltf(make.good, lambda d: d.update(images=[{"uri": uri}]))

    outside = {
        "parent": "../secret.png", "encoded-parent": "%2e%2e/secret.png", "deep-parent": "a/../../secret.png",
        "backslash": "..\\secret.png", "absolute": str(secret), "encoded-absolute": "%2Fetc%2Fpasswd",
        "drive": "C:/secret.png", "nul": "a%00.png", "link": "link.png",
    }  # fmt: skip
    for name, uri in outside.items():
        make.add(f"outside-{name}/asset.gltf", image_at(uri), "uri-outside")
    (make.folder / "outside-link" / "link.png").symlink_to("../secret.png")
    make.add("outside-linked-folder/asset.gltf", image_at("up/secret.png"), "uri-outside")
    (make.folder / "outside-linked-folder" / "up").symlink_to("..")
    remote = {
        "file": f"file://{secret}", "http": "http://example.invalid/a.png", "https": "https://example.invalid/a.png",
        "host": "//example.invalid/a.png", "encoded": "http%3A//example.invalid/a.png",
    }  # fmt: skip
    for name, uri in remote.items():
        make.add(f"remote-{name}/asset.gltf", image_at(uri), "uri-remote")
    make.add("missing-texture/asset.gltf", image_at("gone.png"), "texture-missing")
    make.add("folder-as-texture/asset.gltf", image_at("."), "texture-missing")
    make.add(
        "missing-buffer/asset.gltf", as_gltf(make.good, lambda d: d["buffers"][0].update(uri="a.bin")), "buffer-missing"
    )
    outside_buffer = as_gltf(make.good, lambda d: d["buffers"][0].update(uri="../secret.png"))
    make.add("outside-buffer/asset.gltf", outside_buffer, "uri-outside")
    short = as_gltf(make.good, lambda d: d["buffers"][0].update(uri="short.bin"))
    make.add("short-buffer/asset.gltf", short, "truncated")
    (make.folder / "short-buffer" / "short.bin").write_bytes(b"\0" * 16)
    dangling = make.folder / "dangling.glb"
    dangling.symlink_to("nowhere.glb")
    make.cases.append(Case(dangling, "unreadable"))


def _animations(make: _Maker) -> None:
    document, binary = split_glb(make.good)
    sampler = document["animations"][0]["samplers"][0]

    def with_bytes(name: str, accessor: int, data: bytes, reason: str) -> None:
        offset = document["bufferViews"][document["accessors"][accessor]["bufferView"]]["byteOffset"]
        make.add(name, join_glb(document, binary[:offset] + data + binary[offset + len(data) :]), reason)

    with_bytes("nan-keyframes.glb", sampler["output"], struct.pack("<f", float("nan")), "non-finite")
    with_bytes("infinite-times.glb", sampler["input"], struct.pack("<3f", 0, 1, float("inf")), "non-finite")
    with_bytes("falling-times.glb", sampler["input"], struct.pack("<3f", 0, 2, 1), "bad-structure")
    first = {"channels": 0, "samplers": 0}
    make.patch("animation-types", "bad-structure", lambda d: d.update(animations=[first]))
    make.patch("sampler-counts", "bad-structure", lambda d: d["animations"][0]["samplers"][0].update(
        interpolation="CUBICSPLINE"))  # fmt: skip
    make.add("no-animation.glb", small_asset(animated=False).to_bytes(), "no-animation", "animation")
    still = small_asset(times=[0.5], values=[[1, 2, 3]]).to_bytes()
    make.add("zero-length.glb", still, "still-pose", "animation")
    make.add("static.glb", small_asset(values=[[0, 0, 0]] * 3).to_bytes(), "static", "animation")
    hidden = small_asset(path="scale", values=[[0, 0, 0]] * 3)
    make.add("zero-scale.glb", hidden.to_bytes(), "no-visible-mesh", "animation")


def _odd_but_good(make: _Maker) -> None:
    def good(k: int, **change) -> bytes:
        return small_asset(values=[[0, 0, 0], [2 + k / 10, 0, 0], [0, 0, 0]], **change).to_bytes()

    make.add("狐 — renard ✨.glb", good(1), "")
    make.add("a.b..c.GLB.glb", good(2), "")
    make.add("-rf $(true) 'quoted'.glb", good(3), "")
    make.add("names.glb", good(4, name="../../etc/<script>alert(1)</script>", node_name="a/b\\c.001\n"), "")
    make.add("no-animation-name.glb", good(5, name=""), "")
    surrogate = patched(good(6), lambda d: d["animations"][0].update(name="\ud800 half a pair"))
    make.add("half-surrogate.glb", surrogate, "")
    unused = patched(good(7), lambda d: d["images"].append({"uri": "../secret.png"}))
    make.add("unused-outside-image.glb", unused, "")
    make.add("trailing-bytes.glb", good(8) + b"\0" * 7, "")
    make.add("byte-order-mark.gltf", b"\xef\xbb\xbf" + as_gltf(good(9)), "")
    external = as_gltf(good(10), lambda d: d.update(images=[{"uri": "t%C3%AAte%20%231.png"}]))
    make.add("external/asset.gltf", external, "")
    (make.folder / "external" / "tête #1.png").write_bytes(png())
    make.add("original.glb", good(11), "")
    make.add("zz-the-same-again.glb", good(11), "duplicate-asset", "batch")
