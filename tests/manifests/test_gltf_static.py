"""The static GLB: what goes through, what is left behind, Draco and WebP input."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from manifests.errors import Rejected
from manifests.gltf import GlbWriter, Poser, read_bytes, static_glb
from tests.broken import CUBE, CUBE_TRIANGLES, patched, small_asset, split_glb, with_draco
from tests.manifests.gltf_samples import everything


def frozen(data: bytes, animation: int | None = None, time_s: float = 0.0) -> tuple[Poser, list[np.ndarray], bytes]:
    poser = Poser(read_bytes(data))
    positions = [array[0] for array in poser.positions(animation, np.array([time_s]))]
    normals = [None if array is None else array[0] for array in poser.normals(animation, np.array([time_s]))]
    return poser, positions, static_glb(poser, positions, normals)


def test_positions_come_back_in_place():
    """Oracle: round trip; reading and posing the static file gives what was put in."""
    poser, positions, data = frozen(everything(), 0, 0.7)
    again = Poser(read_bytes(data))
    assert [part.name for part in again.parts] == [f"part{i:05d}" for i in range(len(poser.parts))]
    for part, old, posed, given in zip(
        again.parts, poser.parts, again.positions(None, np.zeros(1)), positions, strict=True
    ):
        np.testing.assert_allclose(posed[0], given, atol=1e-6)
        np.testing.assert_array_equal(part.triangles, old.triangles)
    np.testing.assert_array_equal(again.parts[0].source.colors, poser.parts[0].source.colors)


def test_nothing_but_surface_goes_through():
    """Oracle: property; no animation, skin, hierarchy, extra, foreign extension or name of the user's."""

    def spoil(document: dict) -> None:
        document["extras"] = {"script": "import os"}
        material = document["materials"][0]
        material["extras"] = {"x": 1}
        material["extensions"]["ACME_shader"] = {"code": "x"}
        document["extensionsUsed"].append("ACME_shader")

    _, _, data = frozen(patched(everything(), spoil))
    document, _ = split_glb(data)
    assert not {"animations", "skins", "cameras", "extras"} & set(document)
    assert all(set(node) == {"mesh", "name"} for node in document["nodes"])
    assert document["materials"][0]["name"] == "material00000"
    assert document["extensionsUsed"] == ["KHR_materials_clearcoat", "KHR_texture_transform"]
    assert "ACME" not in str(document)
    assert "extras" not in document["materials"][0]


def test_materials_keep_their_values_and_images_their_bytes():
    """Oracle: the asset that was read."""
    asset = read_bytes(everything())
    _, _, data = frozen(everything())
    again = read_bytes(data)
    for key in ("pbrMetallicRoughness", "alphaMode", "alphaCutoff", "doubleSided", "emissiveFactor", "extensions"):
        assert again.materials[0][key] == asset.materials[0][key]
    assert again.images[0].data == asset.images[0].data
    assert again.samplers == asset.samplers


def test_the_same_pose_gives_the_same_bytes():
    """Oracle: property."""
    assert frozen(everything(), 0, 0.7)[2] == frozen(everything(), 0, 0.7)[2]


def test_webp_textures_are_read_and_carried():
    """Oracle: round trip of the image's bytes; EXT_texture_webp is declared as required."""
    out = io.BytesIO()
    Image.new("RGB", (6, 5), (10, 20, 30)).save(out, "WEBP", lossless=True)
    writer = GlbWriter()
    texture = writer.add_texture(writer.add_image(out.getvalue(), "image/webp"))
    material = writer.add_material({"pbrMetallicRoughness": {"baseColorTexture": {"index": texture}}})
    cube = {"positions": CUBE, "triangles": CUBE_TRIANGLES, "uvs": CUBE[:, :2], "material": material}
    writer.add_node("", mesh=writer.add_mesh("", [cube]))
    _, _, data = frozen(writer.to_bytes())
    again = read_bytes(data)
    assert (again.images[0].mime, again.images[0].width, again.images[0].height) == ("image/webp", 6, 5)
    assert again.images[0].data == out.getvalue()
    assert again.extensions_required == ("EXT_texture_webp",)


@pytest.mark.parametrize("options", [
    {"preserve_order": True}, {"preserve_order": False}, {"compression_level": 10}, {"create_metadata": True},
    {"generic_attributes": {"tangents": np.ones((8, 4), np.float32), "more": np.ones((8, 1), np.uint8)}},
])  # fmt: skip
def test_draco_meshes_decode_to_the_encoded_positions(options):
    """Oracle: DracoPy's encoder, within its quantisation; with names, attributes carry metadata before the counts."""
    draco_py = pytest.importorskip("DracoPy")
    data = draco_py.encode(CUBE, CUBE_TRIANGLES.astype(np.uint32), quantization_bits=16, **options)
    ids = [a["unique_id"] for a in draco_py.decode(data).attributes if a["attribute_type"] == 0]
    packed = with_draco(small_asset().to_bytes(), data, vertices=8, indices=36, position_id=ids[0])
    found = read_bytes(packed).meshes[0].primitives[0]
    ours = {tuple(sorted(map(tuple, np.round(t).astype(int)))) for t in found.positions[found.triangles]}
    given = {tuple(sorted(map(tuple, t.astype(int)))) for t in CUBE[CUBE_TRIANGLES]}
    assert ours == given


def test_draco_counts_that_contradict_are_rejected():
    """Oracle: by hand; the accessor promises one triangle or one vertex more than the data."""
    draco_py = pytest.importorskip("DracoPy")
    data = draco_py.encode(CUBE, CUBE_TRIANGLES.astype(np.uint32), preserve_order=True)
    for vertices, indices in ((8, 39), (9, 36), (7, 36)):
        with pytest.raises(Rejected, match="draco-corrupt"):
            read_bytes(with_draco(small_asset().to_bytes(), data, vertices=vertices, indices=indices))
    for end in range(0, len(data), 7):
        with pytest.raises(Rejected, match=r"draco-corrupt|accessor-out-of-bounds|bad-structure|truncated"):
            read_bytes(with_draco(small_asset().to_bytes(), data[:end], vertices=8, indices=36))
