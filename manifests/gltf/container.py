"""From bytes to the JSON document and the binary chunk: the GLB container and the plain .gltf text.

Does not look into the document beyond its version. Facts: glTF 2.0 specification, section 4 (GLB).
"""

from __future__ import annotations

import json
import re
import struct

from manifests.errors import Rejected
from manifests.gltf.fields import Fields
from manifests.gltf.limits import Limits

__all__ = ["split"]

MAGIC = b"glTF"
DATA_URI = re.compile(rb'"data:[^"\\]*"')


def split(data: bytes, limits: Limits) -> tuple[Fields, bytes | None]:
    """The document of a GLB or a .gltf, and the GLB's binary chunk (None where there is none).

    Raises:
        Rejected: empty-file, not-gltf, truncated, bad-json, bad-structure or too-large.
    """
    if not data:
        raise Rejected("empty-file", "found 0 bytes, expected a GLB or glTF file")
    if len(data) > limits.file_bytes:
        raise Rejected("too-large", f"found {len(data)} bytes, expected at most {limits.file_bytes}")
    binary = None
    if data[:4] == MAGIC or MAGIC.startswith(data[:4]):
        text, binary = _chunks(data)
        text_bytes = len(text)
    else:
        text = data.removeprefix(b"\xef\xbb\xbf")
        if text.lstrip()[:1] != b"{":
            raise Rejected("not-gltf", f"found the first bytes {data[:8]!r}, expected 'glTF' or a JSON object")
        text_bytes = len(text) - sum(match.end() - match.start() for match in DATA_URI.finditer(text))
    if text_bytes > limits.json_bytes:
        raise Rejected("too-large", f"found {text_bytes} bytes of JSON, expected at most {limits.json_bytes}")
    document = _parse(text)
    _check_version(document)
    return document, binary


def _chunks(data: bytes) -> tuple[bytes, bytes | None]:
    if len(data) < 12:
        raise Rejected("truncated", f"found {len(data)} bytes, expected a GLB header of 12")
    version, length = struct.unpack_from("<II", data, 4)
    if version != 2:
        raise Rejected("not-gltf", f"GLB header: found version {version}, expected 2")
    if length > len(data):
        raise Rejected("truncated", f"GLB header: found {len(data)} bytes, expected {length}; fetch the file again")
    if length < 20:
        raise Rejected("bad-structure", f"GLB header: found a length of {length}, expected at least 20")
    found: list[tuple[bytes, bytes]] = []
    offset = 12
    while offset < length and len(found) < 2:  # later chunks are extensions that the specification says to skip
        if offset + 8 > length:
            raise Rejected("truncated", f"GLB chunk {len(found)}: found {length - offset} bytes, expected 8 of header")
        size, kind = struct.unpack_from("<I4s", data, offset)
        if offset + 8 + size > length:
            raise Rejected("truncated", f"GLB chunk {len(found)}: found {length - offset - 8} bytes, expected {size}")
        found.append((kind, data[offset + 8 : offset + 8 + size]))
        offset += 8 + size
    if found[0][0] != b"JSON":
        raise Rejected("bad-structure", f"GLB chunk 0: found type {found[0][0]!r}, expected b'JSON'")
    binary = found[1][1] if len(found) > 1 and found[1][0] == b"BIN\0" else None
    return found[0][1], binary


def _parse(text: bytes) -> Fields:
    try:
        raw = json.loads(text.decode("utf-8"), parse_constant=_refuse_constant)
    except RecursionError:
        raise Rejected(
            "bad-json", "found brackets nested beyond the parser's stack, expected a glTF document"
        ) from None
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError and the limit on digits are ValueErrors
        raise Rejected("bad-json", f"found {str(error)[:120]}, expected UTF-8 JSON") from None
    if not isinstance(raw, dict):
        raise Rejected("bad-json", f"found a JSON {type(raw).__name__}, expected an object")
    return Fields(raw, "")


def _refuse_constant(name: str) -> float:
    raise ValueError(f"the constant {name}")


def _check_version(document: Fields) -> None:
    asset = document.object("asset")
    version = "nothing" if asset is None else asset.text("version", "nothing")
    if not version.startswith("2."):
        raise Rejected("not-gltf", f"asset.version: found {version[:20]!a}, expected 2.0")
    lowest = asset.text("minVersion", "2.0") if asset is not None else "2.0"
    if lowest != "2.0":
        raise Rejected("not-gltf", f"asset.minVersion: found {lowest[:20]!a}, expected 2.0")
