"""How much of a file the reader is willing to take, and the counters that hold it to that.

Declared counts are the attacker's to choose; every one is checked against real bytes and then charged here before
anything of its size is allocated. The defaults let through every asset a renderer would want.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from manifests.errors import Rejected

__all__ = ["Budget", "Limits"]


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Upper bounds of one asset; what goes over one is rejected as `too-large` unless said otherwise."""

    file_bytes: int = 2**30
    """Bytes of the file together with all external files it reads."""
    json_bytes: int = 64 * 2**20
    """Bytes of the JSON part of a GLB, or of a .gltf with its data URIs left out of the count."""
    nodes: int = 50_000
    """Nodes of all scenes."""
    depth: int = 256
    """Nodes from a root to the deepest leaf; deeper is `node-too-deep`."""
    vertices: int = 5_000_000
    """Vertices read, and separately vertices shown: each mesh counts once for every node and instance that shows it."""
    morph_vertices: int = 20_000_000
    """Vertex displacements over all morph targets."""
    morph_targets: int = 20_000
    """Morph targets over all primitives."""
    indices: int = 30_000_000
    """Indices over all primitives."""
    triangles: int = 10_000_000
    """Triangles read, and separately triangles shown."""
    parts: int = 20_000
    """Primitives read, and separately shown: each counts once for every node and instance that shows it."""
    keyframes: int = 5_000_000
    """Key values over all channels of all animations."""
    joints: int = 100_000
    """Joints over all skins."""
    images: int = 512
    """Images of the file."""
    image_pixels: int = 8192 * 8192
    """Pixels of one image; more is `texture-too-large`."""
    image_pixels_sum: int = 2**29
    """Pixels of all images that are used; more is `texture-too-large`."""


@dataclass
class Budget:
    """What is left of each limit while one file is read."""

    limits: Limits
    spent: dict[str, int] = field(default_factory=dict)

    def charge(self, name: str, amount: int, where: str, reason: str = "too-large") -> None:
        """Count `amount` against limit `name`.

        Raises:
            Rejected: the sum goes over the limit.
        """
        limit = getattr(self.limits, name.split(":")[0])
        total = self.spent.get(name, 0) + amount
        if total > limit:
            raise Rejected(reason, f"{where}: found {total} {name.replace(':', ' ')}, expected at most {limit}")
        self.spent[name] = total
