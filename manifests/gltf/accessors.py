"""Accessors as numpy arrays: buffers, views, strides, sparse values and normalised integers, all bounds-checked.

Never allocates from a declared count: the bytes behind an accessor are checked first, and what no bytes back (sparse
and zero-filled accessors) is charged to the budget of its role. Facts: glTF 2.0 specification, section 3.6.
"""

from __future__ import annotations

import numpy as np

from manifests.errors import Rejected
from manifests.gltf.fields import Fields
from manifests.gltf.limits import Budget
from manifests.gltf.uris import Folder

__all__ = ["Accessors"]

DTYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}
FLOAT = 5126


class Accessors:
    """All accessors of one document, decoded on demand and kept.

    Args:
        document: the root of the JSON.
        binary: the GLB's binary chunk, None where there is none.
        folder: where external buffers may lie.
        budget: charged for every array handed out.
    """

    def __init__(self, document: Fields, binary: bytes | None, folder: Folder, budget: Budget) -> None:
        self._buffers = document.array("buffers")
        self._views = document.array("bufferViews")
        self._accessors = document.array("accessors")
        self._binary, self._folder, self._budget = binary, folder, budget
        self._loaded: dict[int, memoryview] = {}
        self._decoded: dict[int, tuple[np.ndarray, str, int, bool]] = {}

    def __len__(self) -> int:
        return len(self._accessors)

    def fields(self, index: int) -> Fields:
        return Fields(self._accessors[index], f"accessors[{index}]")

    def read(self, holder: Fields, key: str, *, types: tuple[str, ...], role: str, integer: bool = False) -> np.ndarray:
        """The accessor that ``holder.key`` names.

        Args:
            holder: the JSON object with the index.
            key: its field.
            types: allowed accessor types, e.g. ("VEC3",).
            role: the limit that its elements are charged to.
            integer: True for joints and indices (unsigned, not normalised), False for what is a number in the end.

        Returns:
            (count, width) or (count,) for SCALAR; float32 or an unsigned type, read-only.

        Raises:
            Rejected: bad-structure, accessor-out-of-bounds, too-large, non-finite or what its buffer raises.
        """
        index = holder.index(key, len(self._accessors))
        if index not in self._decoded:
            self._decoded[index] = self._decode(self.fields(index), role)
        else:
            self._budget.charge(role, len(self._decoded[index][0]), f"accessors[{index}]")
        array, kind, component, normalized = self._decoded[index]
        where = f"{holder.at(key)} -> accessors[{index}]"
        if kind not in types:
            raise Rejected("bad-structure", f"{where}.type: found {kind}, expected {' or '.join(types)}")
        if integer:
            if component not in {5121, 5123, 5125} or normalized:
                raise Rejected(
                    "bad-structure", f"{where}: found component type {component}, expected unsigned integers"
                )
            return array
        if array.dtype != np.float32:
            if component == 5125:
                raise Rejected("bad-structure", f"{where}: found component type 5125, expected at most 16 bits")
            array = array.astype(np.float32)
            array.flags.writeable = False
        return array

    def view(self, holder: Fields, key: str) -> memoryview:
        """The bytes of the buffer view that ``holder.key`` names."""
        index = holder.index(key, len(self._views))
        view = Fields(self._views[index], f"bufferViews[{index}]")
        buffer_index = view.index("buffer", len(self._buffers))
        data = self._buffer(buffer_index)
        offset, length = view.integer("byteOffset", 0), view.integer("byteLength", low=1)
        if offset + length > len(data):
            raise Rejected(
                "accessor-out-of-bounds",
                f"{view.where}: found bytes {offset}..{offset + length}, expected them within the {len(data)} bytes of "
                f"buffers[{buffer_index}]",
            )
        return data[offset : offset + length]

    def _buffer(self, index: int) -> memoryview:
        if index not in self._loaded:
            buffer = Fields(self._buffers[index], f"buffers[{index}]")
            length = buffer.integer("byteLength", low=1)
            if buffer.has("uri"):
                data = self._folder.load(buffer.text("uri"), buffer.at("uri"), "buffer-missing")
            elif index == 0 and self._binary is not None:
                data = self._binary
            else:
                raise Rejected(
                    "buffer-missing", f"{buffer.where}: found no uri and no binary chunk, expected one of them"
                )
            if len(data) < length:
                raise Rejected("truncated", f"{buffer.where}: found {len(data)} bytes, expected {length}")
            self._loaded[index] = memoryview(data)[:length]
        return self._loaded[index]

    def _decode(self, accessor: Fields, role: str) -> tuple[np.ndarray, str, int, bool]:
        component = accessor.integer("componentType")
        kind = accessor.text("type", None)
        if component not in DTYPES:
            raise accessor.wrong("componentType", f"one of {sorted(DTYPES)}")
        if kind not in WIDTHS:
            raise accessor.wrong("type", f"one of {', '.join(WIDTHS)}")
        dtype, width = np.dtype(DTYPES[component]), WIDTHS[kind]
        count = accessor.integer("count", low=1)
        normalized = accessor.boolean("normalized")
        sparse = accessor.object("sparse")
        if accessor.has("bufferView"):
            array = self._strided(accessor, "bufferView", dtype, width, count)
            self._budget.charge(role, count, accessor.where)
            array = np.array(array)
        else:
            self._budget.charge(role, count, accessor.where)
            array = np.zeros((count, width), dtype)
        if sparse is not None:
            self._overlay(accessor, sparse, array, dtype, width)
        if normalized and component != FLOAT:
            if component == 5125:
                raise accessor.wrong("normalized", "false for 32-bit integers")
            array = np.maximum(array.astype(np.float32) / np.float32(np.iinfo(dtype).max), np.float32(-1))
        if component == FLOAT and not np.isfinite(array).all():
            row = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
            raise Rejected("non-finite", f"{accessor.where}: found NaN or infinity in element {row}, expected numbers")
        array = array.reshape(-1) if width == 1 else array
        if array.dtype == np.dtype("<f4"):
            array = array.astype(np.float32, copy=False)
        array.flags.writeable = False
        return array, kind, component, normalized and component != FLOAT

    def _strided(self, holder: Fields, key: str, dtype: np.dtype, width: int, count: int) -> np.ndarray:
        """A (count, width) window onto a buffer view; allocates nothing."""
        view = self.view(holder, key)
        element = dtype.itemsize * width
        fields = Fields(self._views[holder.raw[key]], f"bufferViews[{holder.raw[key]}]")
        stride = fields.integer("byteStride", element, low=1, high=255)
        if stride < element:
            raise fields.wrong("byteStride", f"at least the {element} bytes of an element")
        offset = holder.integer("byteOffset", 0)
        end = offset + stride * (count - 1) + element
        if end > len(view):
            raise Rejected(
                "accessor-out-of-bounds",
                f"{holder.where}: found {count} elements that end at byte {end}, expected them within the {len(view)} "
                f"bytes of {fields.where}",
            )
        return np.ndarray((count, width), dtype, view, offset, (stride, dtype.itemsize))

    def _overlay(self, accessor: Fields, sparse: Fields, array: np.ndarray, dtype: np.dtype, width: int) -> None:
        count = sparse.integer("count", low=1)
        if count > len(array):
            raise sparse.wrong("count", f"at most the accessor's {len(array)}")
        indices, values = sparse.required("indices"), sparse.required("values")
        component = indices.integer("componentType")
        if component not in {5121, 5123, 5125}:
            raise indices.wrong("componentType", "5121, 5123 or 5125")
        rows = self._strided(indices, "bufferView", np.dtype(DTYPES[component]), 1, count)[:, 0].astype(np.int64)
        if rows.max() >= len(array) or (np.diff(rows) <= 0).any():
            raise Rejected(
                "bad-structure",
                f"{indices.where}: found unsorted or too large indices, expected them rising below {len(array)}",
            )
        array[rows] = self._strided(values, "bufferView", dtype, width, count)
