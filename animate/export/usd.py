"""`animated_usd`: the input's vertices, faces and surface with a motion, as one .usdz file.

Each part is a Mesh with a sample of its points for every frame; a part that does not move has one. The package holds
the textures. Needs `pxr` (usd-core), which is imported when it is called.
Facts: USD's schemas UsdGeomMesh and UsdPreviewSurface; usdz specification 1.3.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from animate.export.glb import check_motion, rest_normals
from animate.export.usd_materials import UsdMaterials
from animate.subject.mesh import RestMesh
from manifests.errors import InputError
from manifests.gltf import Part, from_z_up, part_name
from manifests.publish import attempt

__all__ = ["animated_usd", "turned_normals"]

ROOT = "/Animated"


def animated_usd(
    path: str | Path, mesh: RestMesh, world: Sequence[np.ndarray], times_s: Sequence[float] | np.ndarray
) -> None:
    """Writes the mesh with its motion; space, units and parts as in `glb.animated_glb`: y up, metres.

    Args:
        path: of the .usdz; replaced whole, its folder is created.
        mesh: the object at rest.
        world: (F, n, 3) for each part as `RestMesh.to_world` gives them: world, z up; frame 0 the object at rest.
        times_s: (F,) seconds, rising from 0 or later. Time codes are frames where they are evenly spaced from 0.

    Raises:
        InputError: another suffix, or usd-core is not installed.
    """
    path = Path(path)
    if path.suffix != ".usdz":
        raise InputError(f'{path.name}: found suffix "{path.suffix}", expected .usdz; name the file so')
    try:
        from pxr import Sdf, UsdUtils
    except ImportError as error:
        raise InputError(f"{path}: found no usd-core, expected it for USD; pip install 'mvvideo[animate]'") from error
    times = np.asarray(times_s, np.float64)
    check_motion(mesh, world, times)
    folder = Path(tempfile.mkdtemp(prefix="mvv-usd-"))
    try:
        _write_stage(folder / "animated.usdc", mesh, world, times)
        done = UsdUtils.CreateNewUsdzPackage(Sdf.AssetPath(str(folder / "animated.usdc")), str(folder / "all.usdz"))
        assert done, "USD made no package"
        with attempt(path) as trial:
            shutil.copyfile(folder / "all.usdz", trial)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def turned_normals(mesh: RestMesh, world: Sequence[np.ndarray], normals: Sequence[np.ndarray | None]) -> Iterator[list]:
    """Normals that follow a motion: each turns as the surface around its point turns, by the shortest way.

    Args:
        mesh: the object at rest.
        world: (F, n, 3) for each part.
        normals: (n, 3) at rest for each part, or None.

    Yields:
        for each frame a list with (n, 3) float32 or None for each part.
    """

    def around(frame: int) -> np.ndarray:
        """Area-weighted normals of the welded points, by vertex."""
        a, b, c = (np.concatenate([part[frame] for part in world])[mesh.triangles[:, k]] for k in range(3))
        total = np.zeros((len(mesh.points), 3))
        for k in range(3):
            np.add.at(total, mesh.weld[mesh.triangles[:, k]], np.cross(b - a, c - a))
        return _unit(total)[mesh.weld]

    rest = around(0)
    for frame in range(len(world[0])):
        now = around(frame)
        turned = []
        for index, normal in enumerate(normals):
            own = slice(mesh.starts[index], mesh.starts[index + 1])
            turned.append(None if normal is None else _turn(rest[own], now[own], normal).astype(np.float32))
        yield turned


def _turn(start: np.ndarray, end: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Vectors under the smallest rotation that takes unit `start` to unit `end`; as they are where there is no one."""
    axis, cosine = np.cross(start, end), (start * end).sum(axis=1, keepdims=True)
    once = np.cross(axis, vectors)
    good = (cosine > -0.999) & (np.linalg.norm(start, axis=1, keepdims=True) > 0.5)
    return np.where(good, vectors + once + np.cross(axis, once) / np.maximum(1 + cosine, 1e-3), vectors)


def _unit(vectors: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, length, out=np.zeros_like(vectors), where=length > 0)


def _write_stage(path: Path, mesh: RestMesh, world: Sequence[np.ndarray], times: np.ndarray) -> None:
    from pxr import Usd, UsdGeom, UsdShade

    stage = Usd.Stage.CreateNew(str(path))
    rate = (len(times) - 1) / (times[-1] - times[0])
    codes = times * rate
    stage.SetTimeCodesPerSecond(rate)
    stage.SetFramesPerSecond(rate)
    stage.SetStartTimeCode(codes[0])
    stage.SetEndTimeCode(codes[-1])
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.y)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, ROOT).GetPrim())
    materials = UsdMaterials(stage, f"{ROOT}/Materials", mesh.asset, path.parent / "textures", "./textures")
    normals = list(turned_normals(mesh, world, rest_normals(mesh)))
    for index, part in enumerate(mesh.poser.parts):
        shape = UsdGeom.Mesh.Define(stage, f"{ROOT}/{part_name(index)}")
        _write_shape(shape, part, materials)
        moving = bool((world[index] != world[index][:1]).any())
        for frame, code in enumerate(codes if moving else codes[:1]):
            when = Usd.TimeCode(code) if moving else Usd.TimeCode.Default()
            points = from_z_up(world[index][frame]).astype(np.float32)
            shape.GetPointsAttr().Set(_rows(points), when)
            shape.CreateExtentAttr().Set(_rows(np.stack([points.min(axis=0), points.max(axis=0)])), when)
            normal = normals[frame][index]
            if normal is not None:
                shape.GetNormalsAttr().Set(_rows(from_z_up(normal)), when)
        if normals[0][index] is not None:
            shape.SetNormalsInterpolation(UsdGeom.Tokens.vertex)
        material = materials.material(part.source.material, colored=part.source.colors is not None)
        UsdShade.MaterialBindingAPI.Apply(shape.GetPrim()).Bind(material)
    stage.GetRootLayer().Save()


def _write_shape(shape: Any, part: Part, materials: UsdMaterials) -> None:
    """What of a part does not move: faces, texture coordinates, colours."""
    from pxr import Sdf, UsdGeom, Vt

    source, rows = part.source, part.vertex_ids
    shape.CreateSubdivisionSchemeAttr(UsdGeom.Tokens.none)
    shape.CreateFaceVertexCountsAttr(Vt.IntArray.FromNumpy(np.full(len(part.triangles), 3, np.int32)))
    shape.CreateFaceVertexIndicesAttr(Vt.IntArray.FromNumpy(np.ascontiguousarray(part.triangles.reshape(-1), np.int32)))
    if source.material >= 0:
        shape.CreateDoubleSidedAttr(bool(materials.asset.materials[source.material].get("doubleSided", False)))
    primvars = UsdGeom.PrimvarsAPI(shape)
    for k, uv in enumerate(source.uvs):
        name, kind = "st" if k == 0 else f"st{k}", Sdf.ValueTypeNames.TexCoord2fArray
        flipped = np.stack([uv[rows, 0], 1 - uv[rows, 1]], axis=1)  # USD's t grows upwards
        primvar = primvars.CreatePrimvar(name, kind, UsdGeom.Tokens.vertex)
        primvar.Set(Vt.Vec2fArray.FromNumpy(np.ascontiguousarray(flipped, np.float32)))
    if source.colors is not None:
        colors = source.colors[rows, :3] * materials.base_factor(source.material)[:3]
        primvar = shape.CreateDisplayColorPrimvar(UsdGeom.Tokens.vertex)
        primvar.Set(_rows(colors.astype(np.float32)))


def _rows(array: np.ndarray) -> Any:
    from pxr import Vt

    return Vt.Vec3fArray.FromNumpy(np.ascontiguousarray(array, np.float32))
