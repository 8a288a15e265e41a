"""OBJ and MTL: values by hand, trimesh as a second reader, broken and hostile files."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from manifests.errors import Rejected
from manifests.gltf import Limits, Poser, load_obj, read_bytes, static_glb
from tests.broken import png

QUAD = """
# a unit square and a triangle that counts from the end
mtllib paint box.mtl
v 0 0 0 1 0 0
v 1 0 0 1 1 1
v 1 1 0
v 0 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
vn 0 0 1
usemtl red paint
f 1/1/1 2/2/1 \\
  3/3/1 4/4/1
usemtl glow
f -4//-1 -3//-1 -2//-1
"""
PAINT = """
newmtl red paint
Kd 0.5 0.25 0
d 0.5
map_Kd -s 1 1 1 -clamp on my skin.png
newmtl glow
Kd 0.1 0.2 0.3
Ke 4 2 0
newmtl unused
map_Kd ../secret.png
"""


def written(folder: Path, obj: str = QUAD, mtl: str = PAINT) -> Path:
    (folder / "paint box.mtl").write_text(mtl)
    (folder / "my skin.png").write_bytes(png())
    (folder / "a.obj").write_text(obj)
    return folder / "a.obj"


def test_obj_geometry_and_materials_by_hand(tmp_path):
    """Oracle: by hand."""
    asset = load_obj(written(tmp_path))
    red, glow = asset.meshes[0].primitives
    assert red.positions.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]]
    assert red.triangles.tolist() == [[0, 1, 2], [0, 2, 3]]
    assert red.uvs[0].tolist() == [[0, 1], [1, 1], [1, 0], [0, 0]]
    assert red.normals.tolist() == [[0, 0, 1]] * 4
    assert red.colors[:2].tolist() == [[1, 0, 0, 1], [1, 1, 1, 1]]
    assert glow.positions.tolist() == [[0, 0, 0], [1, 0, 0], [1, 1, 0]]
    assert glow.uvs == ()
    first, second = asset.materials
    assert first["pbrMetallicRoughness"]["baseColorFactor"] == [1, 1, 1, 0.5]
    assert (first["alphaMode"], first["pbrMetallicRoughness"]["baseColorTexture"]) == ("BLEND", {"index": 0})
    assert second["pbrMetallicRoughness"]["baseColorFactor"] == [0.1, 0.2, 0.3, 1]
    assert second["emissiveFactor"] == [1, 0.5, 0]
    assert second["extensions"] == {"KHR_materials_emissive_strength": {"emissiveStrength": 4}}
    assert (asset.images[0].width, asset.textures[0]["source"]) == (8, 0)
    assert sorted(uri for uri, _ in asset.files) == ["my%20skin.png", "paint%20box.mtl"]


def test_obj_becomes_a_static_glb(tmp_path):
    """Oracle: round trip through the GLB reader."""
    poser = Poser(load_obj(written(tmp_path)))
    positions = [array[0] for array in poser.positions(None, np.zeros(1))]
    again = Poser(read_bytes(static_glb(poser, positions)))
    for posed, given in zip(again.positions(None, np.zeros(1)), positions, strict=True):
        np.testing.assert_allclose(posed[0], given)
    assert again.asset.images[0].data == png()


def test_obj_surface_agrees_with_trimesh(tmp_path):
    """Oracle: trimesh's area and bounds of a random mesh with mixed polygons and index forms."""
    trimesh = pytest.importorskip("trimesh")
    rng = np.random.default_rng(0)
    points = rng.normal(size=(40, 3))
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in points]
    lines += ["f " + " ".join(str(i + 1) for i in rng.choice(40, 3, replace=False)) for _ in range(20)]
    lines += ["f " + " ".join(str(i - 40) for i in rng.choice(40, 3, replace=False)) for _ in range(20)]
    (tmp_path / "a.obj").write_text("\n".join(lines))
    theirs = trimesh.load(str(tmp_path / "a.obj"), process=False, force="mesh")
    (ours,) = load_obj(tmp_path / "a.obj").meshes[0].primitives
    corners = ours.positions[ours.triangles]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1).sum() / 2
    np.testing.assert_allclose(area, theirs.area, rtol=1e-5)


@pytest.mark.parametrize(("obj", "reason"), [
    ("", "empty-file"), ("v 0 0 0\n", "no-mesh"), ("v 0 0\n", "bad-structure"), ("v a b c\n", "bad-structure"),
    ("v nan 0 0\n", "non-finite"), ("v 1e99 0 0\n", "non-finite"), ("v 0 0 0\nf 1 1 2\n", "bad-structure"),
    ("v 0 0 0\nf 1 1\n", "bad-structure"), ("v 0 0 0\nf 0 1 1\n", "bad-structure"),
    ("v 0 0 0\nf -2 1 1\n", "bad-structure"), ("v 0 0 0\nf 1/1 1/1 1/1\n", "bad-structure"),
    ("v 0 0 0\nf 1e9 1 1\n", "bad-structure"), ("v 0 0 0\nf 999999999999999999999 1 1\n", "bad-structure"),
    ("glTF\0\0\0", "bad-structure"), ("mtllib ../a.mtl\nv 0 0 0\nf 1 1 1\n", "uri-outside"),
    ("mtllib /etc/passwd\nv 0 0 0\nf 1 1 1\n", "uri-outside"),
    ("mtllib http://example.invalid/a.mtl\nv 0 0 0\nf 1 1 1\n", "uri-remote"),
])  # fmt: skip
def test_broken_obj_is_rejected(tmp_path, obj, reason):
    """Oracle: the list here."""
    with pytest.raises(Rejected) as error:
        load_obj(written(tmp_path, obj=obj))
    assert error.value.reason == reason


@pytest.mark.parametrize(("mtl", "reason"), [
    ("newmtl red paint\nmap_Kd gone.png", "texture-missing"), ("newmtl red paint\nmap_Kd ../my.png", "uri-outside"),
    ("newmtl red paint\nmap_Kd a.obj", "texture-corrupt"), ("newmtl red paint\nKd red", "bad-structure"),
    ("newmtl red paint\nmap_Kd //host/a.png", "uri-remote"), ("newmtl red paint\nKd inf", "non-finite"),
])  # fmt: skip
def test_broken_mtl_is_rejected(tmp_path, mtl, reason):
    """Oracle: the list here."""
    with pytest.raises(Rejected) as error:
        load_obj(written(tmp_path, mtl=mtl))
    assert error.value.reason == reason


def test_obj_without_its_mtl_has_no_materials(tmp_path):
    """Oracle: property; many models are shipped without it."""
    path = written(tmp_path)
    (tmp_path / "paint box.mtl").unlink()
    asset = load_obj(path)
    assert asset.materials == ()
    assert {primitive.material for primitive in asset.meshes[0].primitives} == {-1}


def test_obj_keeps_to_the_limits(tmp_path):
    """Oracle: property."""
    for name, value in {"vertices": 3, "triangles": 2, "parts": 1, "images": 0, "file_bytes": 10}.items():
        with pytest.raises(Rejected, match="too-large"):
            load_obj(written(tmp_path), limits=Limits(**{name: value}))


def test_fuzzed_obj_gives_an_asset_or_a_rejection(tmp_path):
    """Oracle: property; any other exception fails the test."""
    rng = random.Random(0)
    path = written(tmp_path)
    words = [
        "v",
        "vt",
        "vn",
        "f",
        "usemtl",
        "mtllib",
        "1",
        "-1",
        "0",
        "1/1/1",
        "//",
        "nan",
        "1e400",
        "\\",
        "#",
        "\n",
        "",
    ]
    for _ in range(500):
        obj, mtl = QUAD.split(" "), PAINT.split(" ")
        for text in (obj, mtl):
            for _ in range(rng.choice([0, 1, 3])):
                text[rng.randrange(len(text))] = rng.choice(words)
        written(tmp_path, " ".join(obj), " ".join(mtl))
        try:
            Poser(load_obj(path))
        except Rejected:
            continue
