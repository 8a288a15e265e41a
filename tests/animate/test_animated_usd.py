"""Animated USD: the package reopened by pxr, its points, faces, surface and normals against what was given."""

from __future__ import annotations

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from animate.export.glb import rest_normals
from animate.export.usd import animated_usd, turned_normals
from animate.subject.mesh import open_mesh
from manifests.errors import InputError
from manifests.gltf import to_z_up
from tests.animate.moving_files import awkward_glb, moving, plain_glb, quad_obj, webp_glb

pytest.importorskip("pxr")
from pxr import Usd, UsdGeom, UsdShade

CASES = ("fox", "awkward", "obj", "plain", "webp")


@pytest.fixture(params=CASES)
def case(request, tmp_path):
    """(mesh, world, reopened stage, path) of each kind of input."""
    if request.param == "fox":
        mesh, world = moving(request.getfixturevalue("shared_assets") / "Fox.glb", "Run")
    else:
        make = {"awkward": awkward_glb, "plain": plain_glb, "webp": webp_glb}.get(request.param)
        mesh, world = moving(quad_obj(tmp_path) if make is None else make(tmp_path / "in.glb"))
    path = tmp_path / "out" / "a.usdz"
    animated_usd(path, mesh, world, np.arange(len(world[0])) / 8)
    return mesh, world, Usd.Stage.Open(str(path)), path


def shapes(stage) -> list:
    return [UsdGeom.Mesh(prim) for prim in stage.Traverse() if prim.IsA(UsdGeom.Mesh)]


def surface_of(shape):
    material, _ = UsdShade.MaterialBindingAPI(shape).ComputeBoundMaterial()
    shader, _, _ = material.ComputeSurfaceSource()
    return shader


def source_of(shader, name: str):
    """The shader behind an input, or None."""
    found = shader.GetInput(name)
    sources = found.GetConnectedSources()[0] if found else []
    return UsdShade.Shader(sources[0].source.GetPrim()) if sources else None


def test_points_of_every_frame_are_read_back(case):
    """Oracle: the positions that were given, within 1e-6 of the size, also between frames (linear)."""
    mesh, world, stage, _ = case
    assert UsdGeom.GetStageUpAxis(stage) == "Y"
    assert (stage.GetTimeCodesPerSecond(), stage.GetStartTimeCode(), stage.GetEndTimeCode()) == (8, 0, 4)
    assert len(shapes(stage)) == len(world)
    for shape, part, wanted in zip(shapes(stage), mesh.poser.parts, world, strict=True):
        np.testing.assert_array_equal(np.array(shape.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3), part.triangles)
        assert set(shape.GetFaceVertexCountsAttr().Get()) == {3}
        assert shape.GetSubdivisionSchemeAttr().Get() == "none"
        for code, expected in (*enumerate(wanted), (2.5, (wanted[2] + wanted[3]) / 2)):
            found = to_z_up(np.array(shape.GetPointsAttr().Get(code), np.float64))
            assert np.abs(found - expected).max() < 1e-6 * mesh.diagonal / mesh.scale
            low, high = np.array(shape.GetExtentAttr().Get(code))
        assert (high >= low).all()
        assert len(shape.GetPointsAttr().GetTimeSamples()) == len(wanted)


def test_part_that_stands_still_has_one_sample(tmp_path):
    """Oracle: the number of time samples."""
    mesh, world = moving(plain_glb(tmp_path / "p.glb"))
    still = [np.repeat(world[0][:1], 5, axis=0)]
    animated_usd(tmp_path / "s.usdz", mesh, still, np.arange(5) / 8)
    stage = Usd.Stage.Open(str(tmp_path / "s.usdz"))
    (shape,) = shapes(stage)
    assert shape.GetPointsAttr().GetTimeSamples() == []
    np.testing.assert_allclose(to_z_up(np.array(shape.GetPointsAttr().Get(3))), world[0][0])


def test_surface_is_kept(case):
    """Oracle: glTF's UVs with t upwards, its images byte by byte (PNG, JPEG) or pixel by pixel (WebP), its factors."""
    mesh, _, stage, path = case
    names = [name for name in zipfile.ZipFile(path).namelist() if not name.endswith(".usdc")]
    inside = {name: zipfile.ZipFile(path).read(name) for name in names}
    for shape, part in zip(shapes(stage), mesh.poser.parts, strict=True):
        for k, uv in enumerate(part.source.uvs):
            st = np.array(UsdGeom.PrimvarsAPI(shape).GetPrimvar("st" if k == 0 else f"st{k}").Get())
            np.testing.assert_allclose(st, [0, 1] + uv[part.vertex_ids] * [1, -1], atol=1e-6)
        surface = surface_of(shape)
        material = mesh.asset.materials[part.source.material] if part.source.material >= 0 else {}
        pbr = material.get("pbrMetallicRoughness", {})
        assert shape.GetDoubleSidedAttr().Get() == material.get("doubleSided", False)
        assert surface.GetInput("roughness").Get() == pytest.approx(pbr.get("roughnessFactor", 1.0))
        texture = source_of(surface, "diffuseColor")
        if "baseColorTexture" not in pbr:
            assert (texture is None) == (part.source.colors is None)
            continue
        named = texture.GetInput("file").Get().path
        image = mesh.asset.images[mesh.asset.textures[pbr["baseColorTexture"]["index"]]["source"]]
        data = next(value for name, value in inside.items() if named.endswith(name))
        same = [np.asarray(Image.open(io.BytesIO(b)).convert("RGBA")) for b in (data, image.data)]
        np.testing.assert_array_equal(*same)
        assert image.mime == "image/webp" or data == image.data
        np.testing.assert_allclose(
            texture.GetInput("scale").Get()[:3], pbr.get("baseColorFactor", [1] * 4)[:3], rtol=1e-6
        )
        assert (source_of(surface, "opacity") is None) == (material.get("alphaMode", "OPAQUE") == "OPAQUE")


def test_package_passes_usds_own_rules(case):
    """Oracle: every validator that comes with USD: package, references, shaders and their inputs, bindings."""
    validation = pytest.importorskip("pxr.UsdValidation")
    validators = validation.ValidationRegistry().GetOrLoadAllValidators()
    assert len(validators) > 5
    errors = validation.ValidationContext(validators).Validate(case[2])
    found = [error.GetErrorAsString() for error in errors]
    # A normal map of another strength than 1 is a warning, and the strength is the material's own.
    assert [text for text in found if "NormalMapTextureValidator.NonCompliant" not in text] == []


def test_texture_transform_is_that_of_the_specification(tmp_path):
    """Oracle: KHR_texture_transform's translation * rotation * scale on (u, v), v down."""
    mesh, world = moving(awkward_glb(tmp_path / "a.glb"))
    animated_usd(tmp_path / "a.usdz", mesh, world, np.arange(5) / 8)
    stage = Usd.Stage.Open(str(tmp_path / "a.usdz"))
    surfaces = [surface_of(shape) for shape in shapes(stage)]
    texture = next(t for s in surfaces if (t := source_of(s, "diffuseColor")) and t.GetIdAttr().Get() == "UsdUVTexture")
    move = source_of(texture, "st")
    assert move.GetIdAttr().Get() == "UsdTransform2d"
    assert source_of(move, "in").GetInput("varname").Get() == "st1"
    scale, shift = np.array(move.GetInput("scale").Get()), np.array(move.GetInput("translation").Get())
    angle = np.radians(move.GetInput("rotation").Get())
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    uv = np.random.default_rng(0).random((20, 2))
    s, t = (turn @ ((uv * [1, -1] + [0, 1]) * scale).T + shift[:, None]).T.T
    cosine, sine = np.cos(0.1), np.sin(0.1)
    wanted = np.array([[cosine, sine], [-sine, cosine]]) @ (2 * uv).T + [[0.5], [0.0]]
    np.testing.assert_allclose([s, 1 - t], wanted, atol=1e-6)


def test_normals_turn_with_a_rigid_motion(tmp_path):
    """Oracle: the rotation itself, and the normals at rest in frame 0."""
    mesh = open_mesh(awkward_glb(tmp_path / "a.glb"))
    angle = 0.8
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    world = [np.stack([part, part @ turn.T]) for part in mesh.to_world(mesh.vertices)]
    at_rest = rest_normals(mesh)
    first, second = turned_normals(mesh, world, at_rest)
    for index, normal in enumerate(at_rest):
        if normal is None:
            assert first[index] is None
            continue
        np.testing.assert_allclose(first[index], normal, atol=1e-6)
        assert np.isfinite(second[index]).all()
        np.testing.assert_allclose(np.linalg.norm(second[index], axis=1), 1, atol=1e-5)
        # The smallest rotation between two geometric normals is the motion's own where they lie across its axis.
        assert ((second[index] * (normal @ turn.T)).sum(1) > np.cos(angle)).all()


def test_other_suffix_is_refused(tmp_path):
    """Oracle: one `InputError` with what to do."""
    mesh, world = moving(plain_glb(tmp_path / "p.glb"))
    with pytest.raises(InputError, match=r"expected \.usdz"):
        animated_usd(tmp_path / "a.fbx", mesh, world, np.arange(5) / 8)
