"""KHR_draco_mesh_compression through DracoPy, which is imported only when a file needs it.

The header's own counts are read and compared with the accessors before the decoder, which trusts them, is called.
Facts: the Draco bitstream specification, sections 2-4; KHR_draco_mesh_compression.
"""

from __future__ import annotations

import numpy as np

from manifests.errors import Rejected

__all__ = ["decode", "header_counts"]

HEADER = 11
METADATA_FLAG = 0x8000


def decode(data: bytes, *, vertices: int, triangles: int, where: str) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Triangles (T, 3) int64 and attributes unique id -> (N, width) of one Draco mesh.

    Args:
        data: the buffer view.
        vertices: N that the accessors promise, already within the limits.
        triangles: T that the accessors promise.
        where: path for messages.

    Raises:
        Rejected: draco-corrupt, or unsupported-extension where DracoPy is not installed.
    """
    header_triangles, header_vertices = header_counts(data, where)
    if header_triangles != triangles:
        raise Rejected(
            "draco-corrupt", f"{where}: found {header_triangles} triangles, expected the accessor's {triangles}"
        )
    if header_vertices > vertices:
        raise Rejected(
            "draco-corrupt", f"{where}: found {header_vertices} vertices, expected the accessor's {vertices}"
        )
    try:
        import DracoPy
    except ImportError:
        raise Rejected(
            "unsupported-extension",
            f"{where}: found KHR_draco_mesh_compression, expected the package DracoPy; pip install DracoPy",
        ) from None
    try:
        mesh = DracoPy.decode(data)
        faces = np.asarray(mesh.faces, np.int64).reshape(-1, 3)
        attributes = {int(a["unique_id"]): np.asarray(a["data"]) for a in mesh.attributes}
    except Exception as error:  # the binding raises its own, ValueError and RuntimeError alike; none is ours to fix
        raise Rejected("draco-corrupt", f"{where}: found data that does not decode ({str(error)[:80]})") from None
    for unique_id, array in attributes.items():
        if array.ndim != 2 or len(array) != vertices:
            raise Rejected(
                "draco-corrupt",
                f"{where}: found shape {array.shape} in attribute {unique_id}, expected {vertices} rows",
            )
    if len(faces) != triangles or (faces.size and faces.max() >= vertices):
        raise Rejected("draco-corrupt", f"{where}: found {len(faces)} triangles or an index past the vertices")
    return faces, attributes


def header_counts(data: bytes, where: str) -> tuple[int, int]:
    """(triangles, encoded vertices) as the header claims them, without decoding.

    Encoded vertices can be fewer than decoded ones, which are split along seams.
    """
    if len(data) < HEADER or data[:5] != b"DRACO":
        raise Rejected("draco-corrupt", f"{where}: found {bytes(data[:5])!r}, expected the magic b'DRACO'")
    version = (data[5], data[6])
    if data[7] != 1 or data[8] > 1:
        raise Rejected("draco-corrupt", f"{where}: found encoder type {data[7]} method {data[8]}, expected a mesh")
    if not (2, 0) <= version <= (2, 2):
        raise Rejected("draco-corrupt", f"{where}: found bitstream {version[0]}.{version[1]}, expected 2.0 to 2.2")
    cursor = _Cursor(data, HEADER, where)
    if int.from_bytes(data[9:11], "little") & METADATA_FLAG:
        cursor.skip_metadata()
    if data[8] == 0:  # sequential
        if version < (2, 2):
            return cursor.u32(), cursor.u32()
        return cursor.varint(), cursor.varint()
    cursor.skip(1)  # traversal type
    if version < (2, 2):
        cursor.varint()  # vertices added by splits
    vertices = cursor.varint()
    return cursor.varint(), vertices


class _Cursor:
    def __init__(self, data: bytes, offset: int, where: str) -> None:
        self.data, self.offset, self.where = data, offset, where

    def skip(self, count: int) -> None:
        self.offset += count
        if self.offset > len(self.data):
            raise Rejected("draco-corrupt", f"{self.where}: found {len(self.data)} bytes, expected more of the header")

    def u32(self) -> int:
        self.skip(4)
        return int.from_bytes(self.data[self.offset - 4 : self.offset], "little")

    def byte(self) -> int:
        self.skip(1)
        return self.data[self.offset - 1]

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self.byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise Rejected("draco-corrupt", f"{self.where}: found an endless number in the header")

    def skip_metadata(self) -> None:
        """Step over the metadata, whose elements nest: a count of open ones stands in for recursion."""
        attributes = self.varint()
        for attribute in range(attributes + 1):  # the last is the mesh's own
            if attribute < attributes:
                self.varint()  # the id of the attribute that it belongs to
            pending, named = 1, False
            while pending:
                pending -= 1
                if named:
                    self.skip(self.byte())
                named = True
                for _ in range(self.varint()):
                    self.skip(self.byte())
                    self.skip(self.varint())
                pending += self.varint()
