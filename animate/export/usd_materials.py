"""glTF materials as UsdPreviewSurface: what both can say, and no more.

Base colour, metalness, roughness, normals, occlusion, emission, opacity and its threshold, with their textures, wrap
modes and transforms. Left out: clear coat, sheen, transmission and the like; vertex colours where a base colour texture
is (the preview surface cannot multiply the two). WebP, which USD does not know, becomes PNG of the same pixels.
Facts: UsdPreviewSurface proposal 2.5; glTF 2.0 specification, section 3.9.
"""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from PIL import Image

from manifests.gltf import Asset

__all__ = ["UsdMaterials"]

WRAPS = {33071: "clamp", 33648: "mirror", 10497: "repeat"}
SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".png"}


class UsdMaterials:
    """Adds materials to a stage, each once, and their images to a folder.

    Args:
        stage: a pxr.Usd.Stage.
        root: path of the prim that holds them.
        asset: whose materials.
        folder: where images are written.
        relative: the folder as the stage's file names it.
    """

    def __init__(self, stage: Any, root: str, asset: Asset, folder: Path, relative: str) -> None:
        self.stage, self.root, self.asset, self.folder, self.relative = stage, root, asset, folder, relative
        self._known: dict[tuple[int, bool], Any] = {}
        self._images: dict[int, str] = {}

    def material(self, index: int, *, colored: bool) -> Any:
        """The UsdShade.Material of a glTF material.

        Args:
            index: of the asset's material; -1 is glTF's default.
            colored: the mesh has vertex colours, times the base colour's factor, which the surface cannot multiply.
        """
        if (index, colored) not in self._known:
            self._known[index, colored] = self._added(self.asset.materials[index] if index >= 0 else {}, index, colored)
        return self._known[index, colored]

    def _added(self, source: dict, index: int, colored: bool) -> Any:
        from pxr import Sdf, UsdShade

        name = "default" if index < 0 else f"material{index:05d}"
        path = f"{self.root}/{name}{'_colored' if colored else ''}"
        material = UsdShade.Material.Define(self.stage, path)
        surface = UsdShade.Shader.Define(self.stage, f"{path}/surface")
        surface.CreateIdAttr("UsdPreviewSurface")
        material.CreateSurfaceOutput().ConnectToSource(surface.ConnectableAPI(), "surface")
        inputs = _Inputs(self, path, surface)
        pbr, glossy = source.get("pbrMetallicRoughness", {}), _extension(source, "KHR_materials_pbrSpecularGlossiness")
        base = self.base_factor(index)
        texture = glossy.get("diffuseTexture") if glossy else pbr.get("baseColorTexture")
        unlit = "KHR_materials_unlit" in source.get("extensions", {})
        shown = "emissiveColor" if unlit else "diffuseColor"
        if texture is None and colored:
            inputs.vertex_color(shown)
        else:
            inputs.color(shown, texture, base, "sRGB")
        if unlit:
            inputs.value("diffuseColor", Sdf.ValueTypeNames.Color3f, (0.0, 0.0, 0.0))
        else:
            strength = _extension(source, "KHR_materials_emissive_strength").get("emissiveStrength", 1.0)
            emitted = [strength * x for x in source.get("emissiveFactor", [0.0] * 3)]
            if any(emitted):
                inputs.color("emissiveColor", source.get("emissiveTexture"), [*emitted, 1.0], "sRGB")
        mode = source.get("alphaMode", "OPAQUE")
        if mode != "OPAQUE":
            inputs.number("opacity", texture, "a", base[3], "sRGB")
        if mode == "MASK":
            inputs.value("opacityThreshold", Sdf.ValueTypeNames.Float, source.get("alphaCutoff", 0.5))
        rough = pbr.get("metallicRoughnessTexture")
        inputs.number("metallic", rough, "b", 0.0 if glossy else pbr.get("metallicFactor", 1.0), "raw")
        factor = 1 - glossy.get("glossinessFactor", 1.0) if glossy else pbr.get("roughnessFactor", 1.0)
        inputs.number("roughness", rough, "g", factor, "raw")
        if "occlusionTexture" in source:
            inputs.number("occlusion", source["occlusionTexture"], "r", 1.0, "raw")
        if "normalTexture" in source:
            inputs.normal(source["normalTexture"])
        return material

    def base_factor(self, index: int) -> list[float]:
        """Linear RGBA that multiplies a material's base colour."""
        source = self.asset.materials[index] if index >= 0 else {}
        glossy = _extension(source, "KHR_materials_pbrSpecularGlossiness")
        if glossy:
            return glossy.get("diffuseFactor", [1.0] * 4)
        return source.get("pbrMetallicRoughness", {}).get("baseColorFactor", [1.0] * 4)

    def image(self, index: int) -> str:
        """Writes an image once; its path as the stage names it."""
        if index not in self._images:
            image = self.asset.images[index]
            assert image.data is not None, f"image {index} was not read"
            data = image.data
            if image.mime == "image/webp":
                out = io.BytesIO()
                with Image.open(io.BytesIO(data), formats=("WEBP",)) as picture:
                    picture.save(out, "PNG")
                data = out.getvalue()
            name = f"image{index:05d}{SUFFIXES[image.mime]}"
            self.folder.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes(data)
            self._images[index] = f"{self.relative}/{name}"
        return self._images[index]


class _Inputs:
    """Inputs of one surface."""

    def __init__(self, materials: UsdMaterials, path: str, surface: Any) -> None:
        from pxr import Sdf, UsdShade

        self.types, self.shade = Sdf.ValueTypeNames, UsdShade
        self.materials, self.path, self.surface = materials, path, surface

    def value(self, name: str, kind: Any, value: Any) -> None:
        self.surface.CreateInput(name, kind).Set(value)

    def color(self, name: str, info: dict | None, factor: list[float], space: str) -> None:
        kind = self.types.Color3f
        if info is None:
            self.value(name, kind, tuple(factor[:3]))
        else:
            self._connect(name, kind, self._texture(name, info, space, scale=(*factor[:3], 1.0)), "rgb")

    def number(self, name: str, info: dict | None, channel: str, factor: float, space: str) -> None:
        if info is None:
            self.value(name, self.types.Float, float(factor))
        else:
            shader = self._texture(name, info, space, scale=(factor,) * 4)
            self._connect(name, self.types.Float, shader, channel)

    def normal(self, info: dict) -> None:
        bend = info.get("scale", 1.0)
        scale, bias = (2.0 * bend, 2.0 * bend, 2.0, 1.0), (-bend, -bend, -1.0, 0.0)
        shader = self._texture("normal", info, "raw", scale=scale, bias=bias)
        self._connect("normal", self.types.Normal3f, shader, "rgb")

    def vertex_color(self, name: str) -> None:
        reader = self._reader(f"{name}_vertices", "UsdPrimvarReader_float3", "displayColor")
        reader.CreateOutput("result", self.types.Float3)
        self.surface.CreateInput(name, self.types.Color3f).ConnectToSource(reader.ConnectableAPI(), "result")

    def _connect(self, name: str, kind: Any, shader: Any, channel: str) -> None:
        shader.CreateOutput(channel, self.types.Float3 if channel == "rgb" else self.types.Float)
        self.surface.CreateInput(name, kind).ConnectToSource(shader.ConnectableAPI(), channel)

    def _shader(self, name: str, kind: str) -> Any:
        shader = self.shade.Shader.Define(self.materials.stage, f"{self.path}/{name}")
        shader.CreateIdAttr(kind)
        return shader

    def _reader(self, name: str, kind: str, primvar: str) -> Any:
        reader = self._shader(name, kind)
        reader.CreateInput("varname", self.types.String).Set(primvar)
        return reader

    def _texture(self, name: str, info: dict, space: str, *, scale: tuple, bias: tuple | None = None) -> Any:
        texture = self.materials.asset.textures[info["index"]]
        sampler = self.materials.asset.samplers[texture["sampler"]] if texture["sampler"] >= 0 else {}
        shader = self._shader(f"{name}_texture", "UsdUVTexture")
        shader.CreateInput("file", self.types.Asset).Set(self.materials.image(texture["source"]))
        shader.CreateInput("sourceColorSpace", self.types.Token).Set(space)
        for axis in "ST":
            wrap = WRAPS[sampler.get(f"wrap{axis}", 10497)]
            shader.CreateInput(f"wrap{axis}", self.types.Token).Set(wrap)
        shader.CreateInput("scale", self.types.Float4).Set(scale)
        if bias is not None:
            shader.CreateInput("bias", self.types.Float4).Set(bias)
        place = self._placed(name, info)
        shader.CreateInput("st", self.types.Float2).ConnectToSource(place.ConnectableAPI(), "result")
        return shader

    def _placed(self, name: str, info: dict) -> Any:
        """Reader of the texture coordinates, behind it KHR_texture_transform where there is one."""
        change = _extension(info, "KHR_texture_transform")
        which = change.get("texCoord", info.get("texCoord", 0))
        reader = self._reader(f"{name}_st", "UsdPrimvarReader_float2", "st" if which == 0 else f"st{which}")
        reader.CreateOutput("result", self.types.Float2)
        if not change:
            return reader
        move = self._shader(f"{name}_transform", "UsdTransform2d")
        move.CreateInput("in", self.types.Float2).ConnectToSource(reader.ConnectableAPI(), "result")
        offset, scale = change.get("offset", [0.0, 0.0]), change.get("scale", [1.0, 1.0])
        angle = change.get("rotation", 0.0)
        # glTF: uv' = T R S uv with v down. With st = (u, 1 - v) the same map turns the same way round, about v = 1.
        shift = (offset[0] + scale[1] * math.sin(angle), 1 - offset[1] - scale[1] * math.cos(angle))
        move.CreateInput("scale", self.types.Float2).Set(tuple(scale))
        move.CreateInput("rotation", self.types.Float).Set(math.degrees(angle))
        move.CreateInput("translation", self.types.Float2).Set(shift)
        move.CreateOutput("result", self.types.Float2)
        return move


def _extension(source: dict, name: str) -> dict:
    return source.get("extensions", {}).get(name, {})
