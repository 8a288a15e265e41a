"""Materials, textures and samplers, reduced to what is known and checked.

A material leaves here as glTF JSON that holds only fields and extensions that Blender 4.5's importer reads, each with a
checked type, so that nothing an asset writes can make the importer fail. Facts: glTF 2.0 specification, section 3.9 and
the Khronos material extensions; the importer's own list of managed extensions.
"""

from __future__ import annotations

from typing import Any

from manifests.errors import Rejected
from manifests.gltf.accessors import Accessors
from manifests.gltf.fields import Fields
from manifests.gltf.images import read_header
from manifests.gltf.limits import Budget
from manifests.gltf.meshes import MAX_UV_SETS
from manifests.gltf.scene import Image
from manifests.gltf.uris import Folder

__all__ = ["MATERIAL_EXTENSIONS", "read_images", "read_material", "read_samplers", "read_texture", "texture_infos"]

NUMBER, TEXTURE, BOOLEAN = "number", "texture", "boolean"

PBR = {
    "baseColorFactor": 4, "baseColorTexture": TEXTURE, "metallicFactor": NUMBER, "roughnessFactor": NUMBER,
    "metallicRoughnessTexture": TEXTURE,
}  # fmt: skip
CORE = {
    "alphaMode": ("OPAQUE", "MASK", "BLEND"), "alphaCutoff": NUMBER, "doubleSided": BOOLEAN, "emissiveFactor": 3,
    "emissiveTexture": TEXTURE, "normalTexture": TEXTURE, "occlusionTexture": TEXTURE, "pbrMetallicRoughness": PBR,
}  # fmt: skip
MATERIAL_EXTENSIONS: dict[str, dict[str, Any]] = {
    "KHR_materials_anisotropy": {
        "anisotropyStrength": NUMBER, "anisotropyRotation": NUMBER, "anisotropyTexture": TEXTURE,
    },
    "KHR_materials_clearcoat": {
        "clearcoatFactor": NUMBER, "clearcoatTexture": TEXTURE, "clearcoatRoughnessFactor": NUMBER,
        "clearcoatRoughnessTexture": TEXTURE, "clearcoatNormalTexture": TEXTURE,
    },
    "KHR_materials_emissive_strength": {"emissiveStrength": NUMBER},
    "KHR_materials_ior": {"ior": NUMBER},
    "KHR_materials_pbrSpecularGlossiness": {
        "diffuseFactor": 4, "diffuseTexture": TEXTURE, "specularFactor": 3, "glossinessFactor": NUMBER,
        "specularGlossinessTexture": TEXTURE,
    },
    "KHR_materials_sheen": {
        "sheenColorFactor": 3, "sheenColorTexture": TEXTURE, "sheenRoughnessFactor": NUMBER,
        "sheenRoughnessTexture": TEXTURE,
    },
    "KHR_materials_specular": {
        "specularFactor": NUMBER, "specularTexture": TEXTURE, "specularColorFactor": 3,
        "specularColorTexture": TEXTURE,
    },
    "KHR_materials_transmission": {"transmissionFactor": NUMBER, "transmissionTexture": TEXTURE},
    "KHR_materials_unlit": {},
    "KHR_materials_volume": {
        "thicknessFactor": NUMBER, "thicknessTexture": TEXTURE, "attenuationDistance": NUMBER, "attenuationColor": 3,
    },
}  # fmt: skip
"""Extension -> its fields; everything else inside ``extensions`` is dropped."""

SAMPLER_VALUES = {
    "magFilter": (9728, 9729), "minFilter": (9728, 9729, 9984, 9985, 9986, 9987),
    "wrapS": (33071, 33648, 10497), "wrapT": (33071, 33648, 10497),
}  # fmt: skip


def read_material(fields: Fields, textures: int) -> dict:
    """The known part of one material as plain JSON.

    Raises:
        Rejected: bad-structure or non-finite where a known field has a wrong type.
    """
    result = _reduce(fields, CORE, textures)
    if fields.has("name"):
        result["name"] = fields.text("name")
    extensions = {}
    for name, schema in MATERIAL_EXTENSIONS.items():
        extension = fields.extension(name)
        if extension is not None:
            extensions[name] = _reduce(extension, schema, textures)
    if extensions:
        result["extensions"] = extensions
    return result


def _reduce(fields: Fields, schema: dict[str, Any], textures: int) -> dict:
    result: dict[str, Any] = {}
    for key, kind in schema.items():
        if not fields.has(key):
            continue
        if kind == NUMBER:
            result[key] = fields.number(key)
        elif kind == BOOLEAN:
            result[key] = fields.boolean(key)
        elif kind == TEXTURE:
            result[key] = _texture_info(fields.required(key), textures)
        elif isinstance(kind, int):
            result[key] = [float(x) for x in fields.numbers(key, kind)]
        elif isinstance(kind, tuple):
            if fields.text(key) not in kind:
                raise fields.wrong(key, ", ".join(kind))
            result[key] = fields.text(key)
        else:
            result[key] = _reduce(fields.required(key), kind, textures)
    return result


def _texture_info(fields: Fields, textures: int) -> dict:
    result: dict[str, Any] = {"index": fields.index("index", textures)}
    if fields.has("texCoord"):
        result["texCoord"] = fields.integer("texCoord", high=MAX_UV_SETS - 1)
    for key in ("scale", "strength"):
        if fields.has(key):
            result[key] = fields.number(key)
    transform = fields.extension("KHR_texture_transform")
    if transform is not None:
        reduced = _reduce(transform, {"offset": 2, "rotation": NUMBER, "scale": 2}, textures)
        if transform.has("texCoord"):
            reduced["texCoord"] = transform.integer("texCoord", high=MAX_UV_SETS - 1)
        result["extensions"] = {"KHR_texture_transform": reduced}
    return result


def texture_infos(material: dict) -> list[dict]:
    """All texture infos inside a reduced material (references, not copies)."""
    found, stack = [], [material]
    while stack:
        item = stack.pop()
        if "index" in item:
            found.append(item)
        stack.extend(value for value in item.values() if isinstance(value, dict))
    return found


def read_texture(fields: Fields, images: int, samplers: int) -> dict:
    """``{"source": image, "sampler": sampler or -1}``; WebP goes before the plain source, as in the importer.

    Raises:
        Rejected: unsupported-extension where the only source is KTX2, texture-missing where there is none.
    """
    webp = fields.extension("EXT_texture_webp")
    if webp is not None and webp.has("source"):
        source = webp.index("source", images)
    elif fields.has("source"):
        source = fields.index("source", images)
    elif fields.extension("KHR_texture_basisu") is not None:
        raise Rejected("unsupported-extension", f"{fields.where}: found only a KTX2 source, expected PNG, JPEG or WebP")
    else:
        raise Rejected("texture-missing", f"{fields.where}: found no source, expected an image")
    return {"source": source, "sampler": fields.index("sampler", samplers, -1)}


def read_samplers(document: Fields) -> tuple[dict, ...]:
    """Samplers with the values that the specification knows; others fall back to its defaults."""
    return tuple(
        {k: int(fields.raw[k]) for k, known in SAMPLER_VALUES.items() if fields.raw.get(k) in known}
        for fields in document.objects("samplers")
    )


def read_images(
    document: Fields, accessors: Accessors, folder: Folder, budget: Budget, used: set[int]
) -> tuple[Image, ...]:
    """All images; only the used ones with their bytes and size.

    Raises:
        Rejected: too-large, texture-missing, texture-corrupt, texture-too-large, uri-outside, uri-remote.
    """
    fields = document.objects("images")
    budget.charge("images", len(fields), "images")
    images = []
    for index, image in enumerate(fields):
        name = image.text("name")
        if index not in used:
            images.append(Image(name, image.text("mimeType"), None, 0, 0))
            continue
        if image.has("bufferView"):
            data = bytes(accessors.view(image, "bufferView"))
        elif image.has("uri"):
            data = folder.load(image.text("uri"), image.at("uri"), "texture-missing")
        else:
            raise Rejected("texture-missing", f"{image.where}: found neither uri nor bufferView, expected one of them")
        mime, width, height = read_header(data, image.where, budget.limits.image_pixels)
        budget.charge("image_pixels_sum", width * height, image.where, "texture-too-large")
        images.append(Image(name, mime, data, width, height))
    return tuple(images)
