"""The evaluation set as a file that anybody can rebuild: which objects, under which licence, with which prompts.

Two sets are defined: a small one of procedural objects, which runs anywhere (`small_set`), and a public one, drawn from
Objaverse and Google Scanned Objects by a fixed rule (`eval.recipe`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import pyarrow as pa

from manifests.errors import DatasetError, InputError
from manifests.tables import iter_rows, write_rows

__all__ = [
    "EVALSET",
    "Entry",
    "EvalSet",
    "read_evalset",
    "small_set",
    "write_evalset",
]

_COLUMNS = {
    "object_id": "unique in the set; the asset_id of our datasets where the object comes from one",
    "uri": "where the object is had from: a URL, or procedural:FAMILY?seed=SEED",
    "sha256": "of the file, as assets.parquet has it",
    "license": "SPDX identifier",
    "prompt": "what the animation should show",
    "word": "the object's noun, a part of the prompt",
    "version": "name and version of the set, the same in every row",
}
EVALSET: pa.Schema = pa.schema(
    [pa.field(name, pa.string(), False, {"description": text}) for name, text in _COLUMNS.items()]
)
"""Columns of evalset.parquet; none is ever null or empty."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One object; the fields are the columns of `EVALSET`."""

    object_id: str
    uri: str
    sha256: str
    license: str
    prompt: str
    word: str
    version: str


@dataclass(frozen=True)
class EvalSet:
    """The objects that a table is about, sorted by id.

    Raises:
        InputError: no object, an id twice, rows of several versions, an empty field, a hash that is none, or a word
            that its prompt does not have.
    """

    entries: tuple[Entry, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "entries", tuple(sorted(self.entries, key=lambda entry: entry.object_id)))
        if not self.entries:
            raise InputError("evaluation set: found no object, expected at least one")
        for entry in self.entries:
            _check(entry)
        ids = Counter(entry.object_id for entry in self.entries)
        if twice := [name for name, count in ids.items() if count > 1]:
            raise InputError(f"evaluation set: found {twice[0]} twice, expected one row an object; remove one")
        if len(versions := sorted({entry.version for entry in self.entries})) > 1:
            raise InputError(f"evaluation set: found versions {' and '.join(versions)}, expected one; use one set")

    @property
    def name(self) -> str:
        """Name and version, e.g. ``mvvideo-small-1``."""
        return self.entries[0].version

    @property
    def hash(self) -> str:
        """SHA-256 of the rows, whatever their order and the file's bytes; runs of equal hash can be ranked together."""
        rows = [dataclasses.asdict(entry) for entry in self.entries]
        return hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()

    @property
    def objects(self) -> tuple[str, ...]:
        """Ids."""
        return tuple(entry.object_id for entry in self.entries)

    @property
    def prompts(self) -> dict[str, tuple[str, str]]:
        """Object id -> (prompt, word), as `eval.inputs.read_prompts` gives them."""
        return {entry.object_id: (entry.prompt, entry.word) for entry in self.entries}

    @property
    def sha256(self) -> dict[str, str]:
        """Object id -> hash of the asset, by which references are found."""
        return {entry.object_id: entry.sha256 for entry in self.entries}


def _check(entry: Entry) -> None:
    where = f"evaluation set: {entry.object_id or '?'}"
    for name, value in dataclasses.asdict(entry).items():
        if not isinstance(value, str) or not value.strip():
            raise InputError(f"{where}: found {name} {value!r}, expected text; fill it in")
    if not re.fullmatch(r"[0-9a-f]{64}", entry.sha256):
        raise InputError(f"{where}: found sha256 {entry.sha256!r}, expected 64 hexadecimal digits; hash the file")
    if entry.word.casefold() not in entry.prompt.casefold():
        raise InputError(f"{where}: found word {entry.word!r}, expected a part of {entry.prompt!r}; correct one")


def write_evalset(path: Path | str, evalset: EvalSet) -> None:
    """Writes evalset.parquet; the same set gives the same bytes."""
    write_rows(path, (dataclasses.asdict(entry) for entry in evalset.entries), EVALSET)


def read_evalset(path: Path | str) -> EvalSet:
    """Reads what `write_evalset` wrote.

    Raises:
        InputError: no such file, other columns, or rows that are no set.
    """
    try:
        return EvalSet(tuple(Entry(**row) for row in iter_rows(path, schema=EVALSET)))
    except DatasetError as error:
        raise InputError(str(error)) from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def small_set(rows: Iterable[tuple[str, int, str]]) -> EvalSet:
    """The set of procedural objects, with prompts from sets/small.json.

    Args:
        rows: (family, seed, SHA-256 of the file) of objects made by `mvv assets make` with that seed, the first of each
            family (FAMILY-000.glb).

    Raises:
        InputError: a family without a prompt.
    """
    content = json.loads(resources.files("eval").joinpath("sets/small.json").read_text("utf-8"))
    entries = []
    for family, seed, sha256 in rows:
        if family not in content["objects"]:
            known = ", ".join(content["objects"])
            raise InputError(f"small set: found family {family!r}, expected one of {known}; write a prompt for it")
        entries.append(
            Entry(
                object_id=f"{family}-000-{sha256[:10]}", uri=f"procedural:{family}?seed={seed}", sha256=sha256,
                license=content["license"], version=content["version"], **content["objects"][family],
            )
        )  # fmt: skip
    return EvalSet(tuple(entries))
