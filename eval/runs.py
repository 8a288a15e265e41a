"""A run on disk: one method on one set by one protocol, with every value that its figures are made of.

    RUN/
      run.json            who, what, how, with which cards, weights, versions; its coverage; whether it can be ranked
      videos.parquet      one row a (object, view, variant, metric): the value, or why there is none
      frames.parquet      the values a frame, where a metric has them
      guards.parquet      one row a (object, view, variant, guard)
      inputs.parquet      what was decoded: source, shape, fps, departures from the protocol, or why it was not
      verification.json   written by `mvv eval verify`; absent until then
      media/OBJECT/VIEW.webp   a strip of small frames, one above the other, for pages
      parts/              finished objects of a run that is under way; gone at the end

A variant is ``method`` or one of the controls. Object-level metrics have view "" and set-level ones object "" as well.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import InputError

__all__ = [
    "CONTROLS",
    "FRAMES",
    "GUARDS",
    "INPUTS",
    "METHOD",
    "SCHEMA",
    "VIDEOS",
    "Run",
    "content_hash",
    "write_tables",
]

SCHEMA = "mvvideo.run/1"
METHOD = "method"
CONTROLS = ("frozen", "jitter", "orbit", "first_frame")
"""Frozen copy of the reference, the same with noise, a camera circling the object at rest, frame 0 repeated."""


def _schema(*fields: tuple[str, pa.DataType, str]) -> pa.Schema:
    return pa.schema([pa.field(name, kind, metadata={"doc": doc}) for name, kind, doc in fields])


_TEXT, _REAL = pa.string(), pa.float64()
_WHO = (
    ("object_id", _TEXT, "of the evaluation set"),
    ("view", _TEXT, "name of the camera, e.g. a090e+15"),
    ("variant", _TEXT, "method, frozen, jitter, orbit or first_frame"),
)
VIDEOS = _schema(
    *_WHO,
    ("metric", _TEXT, "id@version of the card"),
    ("value", _REAL, "the score; null where there is none"),
    ("reason", _TEXT, "why there is none; empty where there is a value"),
    ("on_protocol", pa.bool_(), "the video is as the protocol asks"),
    ("extra", _TEXT, "JSON object of further figures, e.g. the margin of a bit"),
)
FRAMES = _schema(
    *_WHO,
    ("metric", _TEXT, "id@version of the card"),
    ("frame", pa.int32(), "place in the metric's own sequence of frames or pairs"),
    ("value", _REAL, "the value there"),
)
GUARDS = _schema(
    *_WHO,
    ("guard", _TEXT, "static, blank, subject-lost, background-flicker or camera-only"),
    ("failed", pa.bool_(), "the guard found what it looks for"),
    ("value", _REAL, "the figure that decided; null where it could not be computed"),
    ("limit", _REAL, "what it was held against"),
    ("detail", _TEXT, "one sentence"),
)
INPUTS = _schema(
    ("object_id", _TEXT, "of the evaluation set"),
    ("view", _TEXT, "name of the camera"),
    ("source", _TEXT, "where it was read, relative to the input"),
    ("sha256", _TEXT, "of the decoded frames: shape and bytes"),
    ("frames", pa.int32(), "number of frames"),
    ("height", pa.int32(), "pixels"),
    ("width", pa.int32(), "pixels"),
    ("fps", _REAL, "frames a second; null where not known"),
    ("departures", pa.list_(_TEXT), "how it differs from the protocol"),
    ("reason", _TEXT, "why it could not be read; empty where it was"),
)
_TABLES = {"videos": VIDEOS, "frames": FRAMES, "guards": GUARDS, "inputs": INPUTS}


def write_tables(folder: Path, rows: dict[str, list[dict[str, Any]]]) -> None:
    """Writes the four tables; rows are sorted, so that the order of the work leaves no trace.

    Args:
        folder: the run.
        rows: table name -> rows with exactly the columns of its schema.
    """
    for name, schema in _TABLES.items():
        keys = [
            column for column in ("object_id", "view", "variant", "metric", "guard", "frame") if column in schema.names
        ]
        ordered = sorted(rows[name], key=lambda row: tuple(row[key] for key in keys))
        pq.write_table(pa.Table.from_pylist(ordered, schema), folder / f"{name}.parquet", compression="zstd")


def content_hash(folder: Path | str) -> str:
    """SHA-256 over the run's tables, in the order of their rows; what `run.json` states as ``hash``.

    Computed from the values, not from the Parquet bytes, so that another Parquet version does not change it.
    """
    digest = hashlib.sha256()
    for name, schema in _TABLES.items():
        table = pq.read_table(Path(folder) / f"{name}.parquet", schema=schema)
        for batch in table.combine_chunks().to_batches(max_chunksize=10_000):
            digest.update(json.dumps([name, batch.to_pylist()], sort_keys=True).encode())
    return digest.hexdigest()


@dataclass(frozen=True)
class Run:
    """A finished run, read from its folder.

    Attributes:
        folder: the run.
        info: run.json. Keys that readers use: ``method`` (name), ``protocol`` {name, version, hash},
            ``set`` {name, hash, objects (list of ids)}, ``references`` (stills, first-frame or none),
            ``coverage`` {objects, of, missing (ids)},
            ``cards`` {metric name: {hash, card (all fields of the card), weights {name: sha256}}},
            ``missing`` {metric name: why}, ``ranked`` (bool), ``why_not`` (list of sentences), ``hash``, ``created``,
            ``versions``, ``machine``, ``seconds``, ``prompts`` {object: prompt}, ``media`` {fps, frames, size},
            ``links`` {paper, code, page: url}, ``note``.
    """

    folder: Path
    info: dict[str, Any]

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """Opens a finished run.

        Raises:
            InputError: no run there, one that did not finish, one of another schema, or tables that were changed.
        """
        folder = Path(folder)
        path = folder / "run.json"
        try:
            info = json.loads(path.read_bytes())
        except OSError as error:
            raise InputError(
                f"{path}: found {error.strerror}, expected a finished run; make one with `mvv eval run`, or repeat that"
                " command where it was stopped"
            ) from error
        except ValueError as error:
            raise InputError(f"{path}: found {error}, expected JSON; repeat `mvv eval run`") from error
        found = info.get("schema") if isinstance(info, dict) else None
        if found != SCHEMA:
            raise InputError(f"{path}: found schema {found!r}, expected {SCHEMA!r}; use the version that wrote it")
        run = cls(folder, info)
        actual = content_hash(folder)
        if actual != info["hash"]:
            raise InputError(
                f"{folder}: found tables with hash {actual[:12]}, expected {str(info['hash'])[:12]} (run.json); they"
                " were changed after the run, repeat `mvv eval run`"
            )
        return run

    def table(self, name: str) -> pa.Table:
        """``videos``, ``frames``, ``guards`` or ``inputs``."""
        return pq.read_table(self.folder / f"{name}.parquet", schema=_TABLES[name])

    @cached_property
    def videos(self) -> list[dict[str, Any]]:
        """Rows of videos.parquet."""
        return self.table("videos").to_pylist()

    @cached_property
    def verification(self) -> dict[str, Any] | None:
        """What `mvv eval verify` found: {passed, checked, worst, date, hash}; None where it never saw this content."""
        path = self.folder / "verification.json"
        if not path.exists():
            return None
        found = json.loads(path.read_bytes())
        return found if found.get("hash") == self.info["hash"] else None
