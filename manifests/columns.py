"""The columns of every table of a dataset, with a description each that travels in the Parquet file.

No column is ever null; what does not apply is "", 0 or an empty list. Which rows exist is the business of the
pipelines, reading and writing that of `manifests.tables`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from manifests.clip import MOTION, QUALITY, num_views

__all__ = ["ASSETS", "CLIPS", "INDEX", "SHARDS", "TABLES", "columns_markdown", "empty_row", "facts_of_sample"]

_TEXT, _INT, _LONG, _REAL = pa.string(), pa.int32(), pa.int64(), pa.float64()


def _list(kind: pa.DataType) -> pa.DataType:
    return pa.list_(pa.field("element", kind, nullable=False))


def _schema(columns: Sequence[tuple[str, pa.DataType, str]]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, False, {"description": text}) for name, kind, text in columns])


_STATUS = [
    (
        "status",
        _TEXT,
        "accepted, rejected (a pure function of bytes and config) or failed (infrastructure; can be retried)",
    ),
    ("reason", _TEXT, "why: a key of manifests.errors.REASONS when rejected, of CAUSES when failed, else empty"),
    ("detail", _TEXT, "one sentence with what was found; empty when accepted"),
]

ASSETS = _schema(
    [
        ("asset_id", _TEXT, "the Objaverse uid, else slug(file name)[:24]-sha256[:10]"),
        ("source", _TEXT, "a URL, or the path relative to the scanned root; never a path of a machine"),
        ("uri", _TEXT, "where the file was read from when it was scanned; valid on that machine only"),
        ("sha256", _TEXT, "of the file; for a glTF with external files of its sorted `uri sha256` lines"),
        ("bytes", _LONG, "size of the file with its external files"),
        ("mtime_ns", _LONG, "modification time when scanned, nanoseconds since 1970; saves hashing again"),
        ("license", _TEXT, "SPDX identifier, empty when unknown"),
        ("author", _TEXT, "who made it, empty when unknown"),
        ("attribution", _TEXT, "the line to print where the licence asks for one"),
        ("name", _TEXT, "the title that people see"),
        ("tags", _list(_TEXT), "words from the source"),
        ("animations", _INT, "animations in the file"),
        ("vertices", _INT, "vertices that a triangle uses"),
        ("triangles", _INT, "triangles in the default scene"),
        *_STATUS,
    ]
)

CLIPS = _schema(
    [
        ("clip_id", _TEXT, "{asset_id}-{animation:03d}-{window:02d}; the key in the tar"),
        ("asset_id", _TEXT, "row of assets.parquet"),
        ("asset_sha256", _TEXT, "of the asset's content; splits go by it"),
        ("animation", _INT, "index in the glTF file; -1 for an object at rest"),
        ("animation_name", _TEXT, "as in the file, empty when it gives none"),
        ("animation_duration_s", _REAL, "time of the last key, seconds"),
        ("window", _INT, "index of the part of the animation; -1 when the animation itself was rejected"),
        ("window_start_s", _REAL, "time of frame 0 inside the animation, seconds"),
        ("loops", _INT, "how often the animation runs in the clip; 1 is once"),
        ("time_scale", _REAL, "animation seconds per clip second; 1 is unchanged speed"),
        ("fps", _REAL, "frames a second of the clip"),
        ("views", _INT, "cameras"),
        ("frames", _INT, "frames a view"),
        ("width", _INT, "pixels"),
        ("height", _INT, "pixels"),
        *((f"motion_{name}", _REAL, text) for name, text in MOTION.items()),
        *((f"quality_{name}", _INT if name.endswith("_images") else _REAL, text) for name, text in QUALITY.items()),
        ("caption", _TEXT, "what is to be seen; authoritative here, not in the tar"),
        ("caption_source", _TEXT, "who wrote the caption: a model's name, a metadata field, or empty"),
        ("license", _TEXT, "of the asset, SPDX, empty when unknown"),
        ("attribution", _TEXT, "the line to print where the licence asks for one"),
        ("split", _TEXT, "train or another; decided by the asset's content"),
        ("shard", _TEXT, "the tar, e.g. train-00000; empty when the clip is in none"),
        ("position", _INT, "place in the shard from 0; -1 when the clip is in none"),
        *_STATUS,
        ("seconds", _REAL, "time spent rendering, seconds"),
        ("attempts", _INT, "times it was tried"),
    ]
)

SHARDS = _schema(
    [
        ("shard", _TEXT, "SPLIT-NNNNN"),
        ("split", _TEXT, "train or another"),
        ("clips", _INT, "clips in the tar"),
        ("bytes", _LONG, "size of the tar"),
        ("sha256", _TEXT, "of the tar"),
        ("index_sha256", _TEXT, "of the Parquet file under index/"),
        ("series", _TEXT, "empty for RGB, else the modality of a parallel tar, e.g. depth"),
    ]
)

INDEX = _schema(
    [
        ("clip_id", _TEXT, "key of the members"),
        ("json_offset", _LONG, "first byte of KEY.json in the tar; -1 in a parallel series, which has none"),
        ("json_size", _INT, "bytes of KEY.json; 0 in a parallel series"),
        (
            "first_frame_offset",
            _LONG,
            "first byte of v00_f000; the next follows after padding to 512 and a header of 512",
        ),
        ("sizes", _list(_INT), "bytes of every member in order, KEY.json first where there is one, then view-major"),
        ("crc32c", _list(pa.uint32()), "CRC-32C of every member in order"),
        ("sha256", _TEXT, "of the members' contents one after the other"),
    ]
)

TABLES: dict[str, pa.Schema] = {"assets": ASSETS, "clips": CLIPS, "shards": SHARDS, "index": INDEX}


def empty_row(schema: pa.Schema) -> dict[str, Any]:
    """A row in which nothing applies: "", 0, 0.0 and empty lists; to be filled where something does."""
    return {field.name: _nothing(field.type) for field in schema}


def facts_of_sample(sample: dict[str, Any]) -> dict[str, Any]:
    """What the row of a clip has to say, from its valid sample: ids, animation, window, sizes and figures."""
    animation, window, cameras = sample["animation"], sample["window"], sample["cameras"]
    return {
        **{name: sample[name] for name in ("clip_id", "asset_id", "asset_sha256", "fps")},
        "animation": animation["index"],
        "animation_name": animation["name"],
        "animation_duration_s": animation["duration_s"],
        "window": window["index"],
        "window_start_s": window["start_s"],
        "loops": window["loops"],
        "time_scale": window["time_scale"],
        "views": num_views(sample),
        "frames": len(sample["times_s"]),
        "width": cameras["width"],
        "height": cameras["height"],
        **{f"motion_{name}": value for name, value in sample["motion"].items()},
        **{f"quality_{name}": value for name, value in sample["quality"].items()},
    }


def columns_markdown(schema: pa.Schema) -> str:
    """The columns as a Markdown table: name, type, meaning."""
    lines = ["| column | type | meaning |", "| --- | --- | --- |"]
    for field in schema:
        kind = f"list<{field.type.value_type}>" if pa.types.is_list(field.type) else str(field.type)
        text = (field.metadata or {}).get(b"description", b"").decode().replace("|", "\\|")
        lines.append(f"| `{field.name}` | {kind} | {text} |")
    return "\n".join(lines) + "\n"


def _nothing(kind: pa.DataType) -> Any:
    if pa.types.is_list(kind):
        return []
    if pa.types.is_string(kind):
        return ""
    return 0.0 if pa.types.is_floating(kind) else 0
