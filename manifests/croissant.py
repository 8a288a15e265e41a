"""croissant.json: the dataset in the machine-readable vocabulary of MLCommons, for search engines and loaders.

Croissant 1.0 (http://mlcommons.org/croissant/1.0). Tables and RGB tars are file objects with their SHA-256, the columns
of the tables are record sets. The frames are described as a set of files inside the tars.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from manifests.tables import ASSETS, CLIPS
from manifests.text import well_formed

__all__ = ["croissant"]

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(manifest: dict[str, Any], shards: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The JSON-LD document.

    Args:
        manifest: what dataset.json says, with its counts and tables.
        shards: rows of shards.parquet.
    """
    counts = manifest["counts"]
    tars = [_tar(row) for row in shards]
    tables = [
        {
            "@type": "cr:FileObject",
            "@id": table,
            "name": table,
            "contentUrl": table,
            "encodingFormat": "application/x-parquet",
            "sha256": sha256,
        }
        for table, sha256 in sorted(manifest["tables"].items())
    ]
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": well_formed(manifest["name"]),
        "description": f"{counts['clips']} multi-view animation clips of {counts['models']} animated 3D assets"
        f" ({counts['multi_view_videos']} videos, {counts['images']} images) with cameras, times and motion figures.",
        "license": sorted(well_formed(name) for name in counts["licenses"] if name) or ["unknown"],
        "url": ".",
        "version": "1.0.0",
        "distribution": [*tables, *tars, *_file_sets(tars)],
        "recordSet": [_record_set("clips", CLIPS, "clip_id"), _record_set("assets", ASSETS, "asset_id")],
    }


def _tar(row: dict[str, Any]) -> dict[str, Any]:
    name = f"shards/{row['shard']}{'.' + row['series'] if row['series'] else ''}.tar"
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": name,
        "contentSize": f"{row['bytes']} B",
        "encodingFormat": "application/x-tar",
        "sha256": row["sha256"],
    }


def _file_sets(tars: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    rgb = [{"@id": tar["@id"]} for tar in tars if tar["@id"].count(".") == 1]
    sets = {"frames": ("image/webp", "*.webp"), "samples": ("application/json", "*.json")}
    return [
        {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "containedIn": rgb,
            "encodingFormat": kind,
            "includes": pattern,
        }
        for name, (kind, pattern) in sets.items()
        if rgb
    ]


def _record_set(name: str, schema: pa.Schema, key: str) -> dict[str, Any]:
    return {
        "@type": "cr:RecordSet",
        "@id": name,
        "name": name,
        "key": {"@id": f"{name}/{key}"},
        "field": [_field(name, field) for field in schema],
    }


def _field(table: str, field: pa.Field) -> dict[str, Any]:
    repeated = pa.types.is_list(field.type)
    kind = field.type.value_type if repeated else field.type
    name = "Text" if pa.types.is_string(kind) else "Float" if pa.types.is_floating(kind) else "Integer"
    described = {
        "@type": "cr:Field",
        "@id": f"{table}/{field.name}",
        "name": field.name,
        "description": (field.metadata or {})[b"description"].decode(),
        "dataType": f"sc:{name}",
        "source": {"fileObject": {"@id": f"{table}.parquet"}, "extract": {"column": field.name}},
    }
    return {**described, "repeated": True} if repeated else described
