"""`read`: one glTF or GLB file into an `Asset`, or a `Rejected` that says what is wrong with it.

Joins the parts of the reader in an order that checks before it allocates; knows what the default scene shows and reads
no geometry or image beyond that. Facts: glTF 2.0 specification.
"""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import numpy as np

from manifests.errors import Rejected
from manifests.gltf import materials as materials_
from manifests.gltf.accessors import Accessors
from manifests.gltf.animation import read_animation
from manifests.gltf.container import split
from manifests.gltf.fields import Fields
from manifests.gltf.limits import Budget, Limits
from manifests.gltf.meshes import read_mesh
from manifests.gltf.nodes import read_nodes, read_order
from manifests.gltf.scene import Asset, Image, Mesh, Node, Skin
from manifests.gltf.uris import Folder

__all__ = ["REQUIRABLE", "read", "read_bytes", "read_file"]

REQUIRABLE = frozenset(materials_.MATERIAL_EXTENSIONS) | {
    "EXT_mesh_gpu_instancing", "EXT_texture_webp", "KHR_draco_mesh_compression", "KHR_lights_punctual",
    "KHR_materials_variants", "KHR_mesh_quantization", "KHR_texture_transform",
}  # fmt: skip
"""Extensions that a file may require; the default of variants is shown, lights are left out as all lights are."""


def read(path: str | Path, *, limits: Limits = Limits()) -> Asset:  # noqa: B008 (frozen)
    """The asset in a .glb or .gltf file.

    Args:
        path: told apart by content, not by suffix.
        limits: bounds on everything that the file could make large.

    Raises:
        Rejected: with a reason from `manifests.errors.REASONS`; nothing else, whatever the bytes are.
    """
    path = Path(path)
    return read_bytes(read_file(path, limits), folder=path.resolve().parent, limits=limits)


def read_file(path: Path, limits: Limits) -> bytes:
    """The bytes of a regular file within the limit."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise Rejected("unreadable", f"{path.name}: found no regular file, expected one")
        if status.st_size > limits.file_bytes:
            raise Rejected(
                "too-large", f"{path.name}: found {status.st_size} bytes, expected at most {limits.file_bytes}"
            )
        with path.open("rb") as file:
            return file.read(status.st_size)  # a bound that is a limit would be allocated at once
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or str(error)
        raise Rejected("unreadable", f"{path.name}: found {cause}, expected a readable file") from None


def read_bytes(data: bytes, *, folder: Path | None = None, limits: Limits = Limits()) -> Asset:  # noqa: B008
    """As `read`, from memory; external files are looked for in `folder`, and missing where it is None."""
    document, binary = split(data, limits)
    required = tuple(dict.fromkeys(document.texts("extensionsRequired")))
    unknown = sorted(set(required) - REQUIRABLE)
    if unknown:
        raise Rejected(
            "unsupported-extension",
            f"extensionsRequired: found {ascii(', '.join(unknown))[1:-1][:200]}, expected only "
            f"{', '.join(sorted(REQUIRABLE))}; convert the file without it",
        )
    budget = Budget(limits)
    budget.charge("file_bytes", len(data), "file")
    external = Folder(folder, budget)
    accessors = Accessors(document, binary, external, budget)
    nodes = read_nodes(document, accessors, limits)
    order = read_order(document, nodes)
    meshes = _meshes(document, accessors, budget, nodes, order)
    skins = _skins(document, accessors, budget, nodes, order)
    _check_shown(nodes, order, meshes, skins, limits)
    seen = _movers(nodes, order, skins)
    animations = tuple(
        read_animation(i, fields, accessors, nodes, meshes, seen)
        for i, fields in enumerate(document.objects("animations"))
    )
    materials, textures, images = _surface(document, accessors, external, budget, meshes)
    head = document.required("asset")
    return Asset(
        nodes=nodes,
        order=order,
        meshes=meshes,
        skins=skins,
        animations=animations,
        materials=materials,
        textures=textures,
        samplers=materials_.read_samplers(document),
        images=images,
        extensions_used=tuple(dict.fromkeys(document.texts("extensionsUsed"))),
        extensions_required=required,
        generator=head.text("generator"),
        copyright=head.text("copyright"),
        sha256=_fingerprint(data, external.files),
        files=tuple(sorted(external.files.items())),
    )


def _meshes(
    document: Fields, accessors: Accessors, budget: Budget, nodes: tuple[Node, ...], order: tuple[int, ...]
) -> tuple[Mesh, ...]:
    wanted = {nodes[i].mesh for i in order}
    materials = len(document.array("materials"))
    return tuple(
        read_mesh(fields, accessors, budget, materials) if index in wanted else Mesh(fields.text("name"))
        for index, fields in enumerate(document.objects("meshes"))
    )


def _skins(
    document: Fields, accessors: Accessors, budget: Budget, nodes: tuple[Node, ...], order: tuple[int, ...]
) -> tuple[Skin, ...]:
    wanted = {nodes[i].skin for i in order}
    skins = []
    for index, fields in enumerate(document.objects("skins")):
        joints = fields.indices("joints", len(nodes)) if index in wanted else []
        if index in wanted and not joints:
            raise fields.wrong("joints", "at least one joint")
        budget.charge("joints", len(joints), fields.where)
        inverse_bind = np.tile(np.eye(4), (len(joints), 1, 1))
        if fields.has("inverseBindMatrices") and joints:
            columns = accessors.read(fields, "inverseBindMatrices", types=("MAT4",), role="joints:inverse bind")
            if len(columns) < len(joints):
                raise Rejected(
                    "bad-structure", f"{fields.where}: found {len(columns)} matrices, expected {len(joints)}"
                )
            inverse_bind = columns[: len(joints)].reshape(-1, 4, 4).transpose(0, 2, 1).astype(np.float64)
            inverse_bind[:, 3] = (0, 0, 0, 1)
        skins.append(Skin(np.array(joints, np.int64), inverse_bind))
    return tuple(skins)


def _check_shown(
    nodes: tuple[Node, ...], order: tuple[int, ...], meshes: tuple[Mesh, ...], skins: tuple[Skin, ...], limits: Limits
) -> None:
    """Count what is shown, because one mesh can be shown by any number of nodes and instances."""
    budget = Budget(limits)
    largest = [[int(p.joints.max()) if p.joints is not None else -1 for p in mesh.primitives] for mesh in meshes]
    sizes = [(sum(len(p.positions) for p in m.primitives), sum(len(p.triangles) for p in m.primitives)) for m in meshes]
    for index in order:
        node = nodes[index]
        if node.mesh < 0 or not meshes[node.mesh].primitives:
            continue
        where, mesh = f"nodes[{index}]", meshes[node.mesh]
        count = 1 if node.instances is None else len(node.instances)
        budget.charge("parts:shown", count * len(mesh.primitives), where)
        budget.charge("vertices:shown", count * sizes[node.mesh][0], where)
        budget.charge("triangles:shown", count * sizes[node.mesh][1], where)
        budget.charge("morph_vertices:shown", count * sizes[node.mesh][0] * len(mesh.weights), where)
        if node.weights is not None and len(node.weights) != len(mesh.weights):
            raise Rejected("bad-structure", f"{where}.weights: found {len(node.weights)}, expected {len(mesh.weights)}")
        if node.skin >= 0 and max(largest[node.mesh]) >= len(skins[node.skin].joints):
            raise Rejected(
                "bad-structure",
                f"{where}: found joint {max(largest[node.mesh])} in its mesh, expected below the "
                f"{len(skins[node.skin].joints)} of skins[{node.skin}]",
            )
    if not budget.spent:
        raise Rejected("no-mesh", "the default scene: found no triangle, expected a mesh with a surface")


def _movers(nodes: tuple[Node, ...], order: tuple[int, ...], skins: tuple[Skin, ...]) -> set[int]:
    """The default scene's nodes, the joints of the skins it uses and all their ancestors."""
    seen = set(order)
    stack = [int(joint) for i in order if nodes[i].skin >= 0 for joint in skins[nodes[i].skin].joints]
    stack += [nodes[i].parent for i in order]
    while stack:
        index = stack.pop()
        if index >= 0 and index not in seen:
            seen.add(index)
            stack.append(nodes[index].parent)
    return seen


def _surface(
    document: Fields, accessors: Accessors, external: Folder, budget: Budget, meshes: tuple[Mesh, ...]
) -> tuple[tuple[dict, ...], tuple[dict, ...], tuple[Image, ...]]:
    """Materials, textures and images, as far as shown primitives use them."""
    used = {primitive.material for mesh in meshes for primitive in mesh.primitives}
    texture_fields = document.objects("textures")
    image_count, sampler_count = len(document.array("images")), len(document.array("samplers"))
    materials = tuple(
        materials_.read_material(fields, len(texture_fields)) if index in used else {}
        for index, fields in enumerate(document.objects("materials"))
    )
    used_textures = {info["index"] for material in materials for info in materials_.texture_infos(material)}
    textures = tuple(
        materials_.read_texture(fields, image_count, sampler_count)
        if index in used_textures
        else {"source": -1, "sampler": -1}
        for index, fields in enumerate(texture_fields)
    )
    used_images = {texture["source"] for texture in textures}
    return materials, textures, materials_.read_images(document, accessors, external, budget, used_images)


def _fingerprint(data: bytes, files: dict[str, str]) -> str:
    own = hashlib.sha256(data).hexdigest()
    if not files:
        return own
    lines = sorted([f". {own}", *(f"{uri} {digest}" for uri, digest in files.items())])
    return hashlib.sha256("\n".join(lines).encode("utf-8", "replace")).hexdigest()
