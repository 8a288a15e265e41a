"""Prompts of the objects, from a file of the user's or from an evaluation set.

prompts.json       {"OBJECT": "a fox runs"} or {"OBJECT": {"prompt": "a fox runs", "word": "fox"}}
prompts.csv        object_id,prompt,word      (UTF-8, with this line first; word may be left out)
prompts.parquet    the same columns, e.g. an evalset.parquet
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.errors import InputError

__all__ = ["read_prompts"]

_COLUMNS = ("object_id", "prompt", "word")


def read_prompts(path: Path | str) -> dict[str, tuple[str, str]]:
    """Object id -> (prompt, the object's word in it; "" where not given).

    Raises:
        InputError: another format, unknown or missing columns, an object twice, an empty prompt, a word that the prompt
            does not have.
    """
    path = Path(path)
    readers = {".json": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}
    if path.suffix.lower() not in readers:
        raise InputError(
            f"{path}: found suffix {path.suffix!r}, expected one of {', '.join(readers)}; rename or convert"
        )
    try:
        rows = list(readers[path.suffix.lower()](path))
    except OSError as error:
        raise InputError(f"{path}: found {error.strerror}, expected a file of prompts; check the path") from error
    prompts: dict[str, tuple[str, str]] = {}
    for object_id, prompt, word in rows:
        _check(path, object_id, prompt, word, prompts)
        prompts[object_id] = (prompt.strip(), word.strip())
    if not prompts:
        raise InputError(f"{path}: found no prompt, expected one an object; add them")
    return prompts


def _check(path: Path, object_id: Any, prompt: Any, word: Any, known: dict[str, tuple[str, str]]) -> None:
    if not all(isinstance(text, str) for text in (object_id, prompt, word)):
        raise InputError(f"{path}: found {object_id!r}: {prompt!r}, {word!r}, expected text; put quotes around it")
    if object_id in known:
        raise InputError(f"{path}: found object {object_id!r} twice, expected one prompt an object; remove one")
    if not object_id or not prompt.strip():
        raise InputError(f"{path}: found {object_id!r} with prompt {prompt!r}, expected neither empty; fill it in")
    if word.strip().casefold() not in prompt.casefold():
        raise InputError(f"{path}: found word {word!r} of {object_id!r}, expected a part of {prompt!r}; correct one")


def _json_rows(path: Path) -> Iterable[tuple[Any, Any, Any]]:
    try:
        # A dict would keep the last of two equal keys without a word.
        found = json.loads(path.read_bytes().decode("utf-8-sig"), object_pairs_hook=_Pairs)
    except ValueError as error:
        raise InputError(f"{path}: found {error}, expected JSON in UTF-8; correct it") from error
    if not isinstance(found, _Pairs):
        raise InputError(f"{path}: found a JSON {type(found).__name__}, expected an object of id: prompt")
    for object_id, value in found.pairs:
        if isinstance(value, _Pairs):
            fields = dict(value.pairs)
            _check_columns(path, [name for name, _ in value.pairs], ("prompt",), _COLUMNS[1:])
            yield object_id, fields["prompt"], fields.get("word", "")
        else:
            yield object_id, value, ""


class _Pairs:
    """A JSON object with all its pairs."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        self.pairs = pairs


def _csv_rows(path: Path) -> Iterable[tuple[Any, Any, Any]]:
    try:
        rows = list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: found {error}, expected CSV in UTF-8; correct it") from error
    rows = [row for row in rows if row]
    names = [name.strip() for name in rows[0]] if rows else []
    _check_columns(path, names, _COLUMNS[:2], _COLUMNS)
    for number, row in enumerate(rows[1:], 2):
        if len(row) != len(names):
            raise InputError(
                f"{path}: found {len(row)} values in row {number}, expected {len(names)}; put quotes around a prompt"
                " with commas"
            )
        fields = dict(zip(names, row, strict=True))
        yield fields["object_id"], fields["prompt"], fields.get("word", "")


def _parquet_rows(path: Path) -> Iterable[tuple[Any, Any, Any]]:
    try:
        table = pq.read_table(path)
    except pa.ArrowException as error:
        raise InputError(
            f"{path}: found {str(error).splitlines()[0]}, expected a Parquet table; write it again"
        ) from error
    _check_columns(path, table.column_names, _COLUMNS[:2], ())
    columns = [name for name in _COLUMNS if name in table.column_names]
    for row in table.select(columns).to_pylist():
        yield row["object_id"], row["prompt"], row.get("word", "")


def _check_columns(path: Path, found: list[str], needed: tuple[str, ...], known: tuple[str, ...]) -> None:
    """``known`` empty lets further columns be, as an evaluation set has them."""
    absent = [name for name in needed if name not in found]
    unknown = [name for name in found if known and name not in known]
    if absent or unknown or len(set(found)) < len(found):
        raise InputError(
            f"{path}: found columns {', '.join(found) or 'none'}, expected {', '.join(needed)}"
            f"{' and perhaps word' if known else ''}, each once; rename them"
        )
