"""What a glTF file holds, as plain frozen data: the types that the reader fills and the poser reads.

Arrays are read-only by agreement and in glTF's own axes (y up). No behaviour lives here beyond small look-ups.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

__all__ = ["Animation", "Asset", "Channel", "Image", "Mesh", "Node", "Primitive", "Skin"]


@dataclass(frozen=True, eq=False)
class Node:
    """One node of the tree. `mesh`, `skin` and `parent` are -1 where there is none."""

    name: str
    parent: int
    children: tuple[int, ...]
    translation: np.ndarray
    """(3,) metres."""
    rotation_xyzw: np.ndarray
    """(4,) unit quaternion."""
    scale: np.ndarray
    """(3,)."""
    matrix: np.ndarray | None = None
    """(4, 4) local to parent, translation in the last column; None where the file gives TRS."""
    mesh: int = -1
    skin: int = -1
    weights: np.ndarray | None = None
    """(T,) morph weights that replace the mesh's."""
    instances: np.ndarray | None = None
    """(I, 4, 4) of EXT_mesh_gpu_instancing, applied before the node's own transform."""


@dataclass(frozen=True, eq=False)
class Primitive:
    """Triangles of one material. N vertices, T triangles."""

    positions: np.ndarray
    """(N, 3) float32."""
    triangles: np.ndarray
    """(T, 3) int32, counter-clockwise from outside."""
    normals: np.ndarray | None = None
    """(N, 3) float32, not necessarily of unit length."""
    uvs: tuple[np.ndarray, ...] = ()
    """(N, 2) float32 each, v down as in glTF."""
    colors: np.ndarray | None = None
    """(N, 4) float32, linear."""
    joints: np.ndarray | None = None
    """(N, 4k) int32, into the skin's joints."""
    weights: np.ndarray | None = None
    """(N, 4k) float32, rows sum to 1."""
    targets: tuple[np.ndarray, ...] = ()
    """(N, 3) float32 displacements, one for each morph target."""
    target_normals: tuple[np.ndarray | None, ...] = ()
    """(N, 3) float32 changes of the normals, one for each morph target."""
    material: int = -1


@dataclass(frozen=True, eq=False)
class Mesh:
    """A named list of primitives; without primitives where no node of the default scene shows it."""

    name: str
    primitives: tuple[Primitive, ...] = ()
    weights: np.ndarray = field(default_factory=lambda: np.zeros(0))
    """(T,) default morph weights."""


@dataclass(frozen=True, eq=False)
class Skin:
    """Joint nodes and the matrices from mesh space to each joint at bind time."""

    joints: np.ndarray
    """(J,) int64 node indices."""
    inverse_bind: np.ndarray
    """(J, 4, 4) float64."""


@dataclass(frozen=True, eq=False)
class Channel:
    """Keys of one property of one node."""

    node: int
    path: str
    """translation, rotation, scale or weights."""
    times: np.ndarray
    """(K,) float64 seconds, non-decreasing."""
    values: np.ndarray
    """(K, D) float32, or (K, 3, D) for CUBICSPLINE: in-tangent, value, out-tangent."""
    interpolation: str
    """LINEAR, STEP or CUBICSPLINE."""


@dataclass(frozen=True, eq=False)
class Animation:
    """One animation; `start_s`..`end_s` is its active interval over the nodes that can be seen."""

    index: int
    name: str
    """"" where the file gives none."""
    channels: tuple[Channel, ...]
    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """The last key, in seconds from time 0."""
        return max((float(channel.times[-1]) for channel in self.channels), default=0.0)


@dataclass(frozen=True, eq=False)
class Image:
    """An encoded image; data is None and the size 0 where no visible material uses it."""

    name: str
    mime: str
    data: bytes | None
    width: int
    height: int


@dataclass(frozen=True, eq=False, kw_only=True)
class Asset:
    """A whole file, free of paths."""

    nodes: tuple[Node, ...]
    order: tuple[int, ...]
    """Nodes of the default scene, parents first."""
    meshes: tuple[Mesh, ...]
    skins: tuple[Skin, ...] = ()
    animations: tuple[Animation, ...] = ()
    materials: tuple[dict, ...] = ()
    """glTF JSON reduced to what is known and checked; empty where nothing visible uses the material."""
    textures: tuple[dict, ...] = ()
    """``{"source": image, "sampler": sampler or -1}``; source is -1 where unused."""
    samplers: tuple[dict, ...] = ()
    images: tuple[Image, ...] = ()
    extensions_used: tuple[str, ...] = ()
    extensions_required: tuple[str, ...] = ()
    generator: str = ""
    copyright: str = ""
    sha256: str = ""
    """Of the file; with external files, of the sorted lines ``uri sha256`` with the file itself as ``.``."""
    files: tuple[tuple[str, str], ...] = ()
    """(uri, SHA-256) of each external file that was read, sorted."""

    @property
    def shown(self) -> tuple[int, ...]:
        """Nodes of the default scene that show a mesh with triangles."""
        return tuple(i for i in self.order if self.nodes[i].mesh >= 0 and self.meshes[self.nodes[i].mesh].primitives)
