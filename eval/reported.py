"""Numbers that papers print, as data: shown beside measured rows, never ranked with them.

`reported.json` holds one entry a table, as close to the print as text can be: names, digits and errors as they stand
there, with where it was read. Only what was read is in it, in the paper or in a digest of it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema

from eval.protocols import PROTOCOLS
from manifests.errors import InputError

__all__ = ["Reported", "reported_note", "reported_rows"]

DATA = Path(__file__).with_name("reported.json")
_NUMBER = r"\d*\.?\d+"
_TEXT: dict[str, Any] = {"type": "string"}
_FULL = {"type": "string", "minLength": 1}
_TABLE = {
    "paper": _FULL,
    "arxiv": {"type": "string", "pattern": r"^(\d{4}\.\d{5}(v\d+)?)?$"},
    "table": _TEXT,
    "set": _FULL,
    "protocol": {"enum": ["", *PROTOCOLS]},
    "read": {"enum": ["paper", "digest"]},
    "scale": {"type": "number", "exclusiveMinimum": 0},
    "error": _TEXT,
    "note": _TEXT,
    "metrics": {
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {"type": "string", "pattern": r"^[a-z0-9_]*$"},
    },
    "rows": {
        "type": "array",
        "minItems": 1,
        "items": {
            "type": "array",
            "prefixItems": [_FULL],
            "items": {"type": "string", "pattern": rf"^(-?{_NUMBER}( ± {_NUMBER})?)?$"},
        },
    },
}
_SCHEMA = {
    "type": "object",
    "required": ["schema", "note", "tables"],
    "additionalProperties": False,
    "properties": {
        "schema": {"const": "mvvideo.reported/1"},
        "note": _FULL,
        "tables": {
            "type": "array",
            "items": {
                "type": "object",
                "required": list(_TABLE),
                "additionalProperties": False,
                "properties": _TABLE,
            },
        },
    },
}
_FROM_MEMORY = re.compile(r"recall\w*|unverified|from memory", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Reported:
    """One cell of a published table.

    Attributes:
        paper, arxiv: the source; arxiv "" where the id is not known.
        table: in the paper; "" where not known.
        set: objects and stage that it is over.
        protocol: of ours that comes closest; "" where none does.
        method: as printed.
        metric: as printed.
        card: id of our card that comes closest, without version, which the papers do not tell; "" where none does.
        value, error: as printed; error "" where there is none.
        error_meaning: over what the error runs; "" where there is none.
        scale: the print is the score times this.
        read: ``paper`` or ``digest``.
        note: what a reader must know.
    """

    paper: str
    arxiv: str
    table: str
    set: str
    protocol: str
    method: str
    metric: str
    card: str
    value: str
    error: str
    error_meaning: str
    scale: float
    read: str
    note: str

    @property
    def score(self) -> float:
        """The value in the unit of our scores."""
        return float(self.value) / self.scale

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dataclasses.asdict(self)


def reported_rows(protocol: str | None = None, path: Path | str = DATA) -> tuple[Reported, ...]:
    """Published numbers, in the order of the file; empty cells are left out.

    Args:
        protocol: only the tables closest to this one of ours; "" those close to none; None all.
        path: another file of the same schema.

    Raises:
        InputError: the file does not follow its schema, or says that something in it was not read.
    """
    return tuple(
        row
        for table in _load(Path(path))["tables"]
        for row in _cells(table)
        if protocol is None or row.protocol == protocol
    )


def reported_note(path: Path | str = DATA) -> str:
    """What must be read with these numbers, and what is missing from them."""
    return _load(Path(path))["note"]


def _load(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
        jsonschema.Draft202012Validator(_SCHEMA).validate(data)
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name}: found {error}, expected reported numbers in JSON; restore the file") from error
    except jsonschema.ValidationError as error:
        raise InputError(
            f"{path.name}: found {error.message} at {error.json_path}, expected what the schema in eval/reported.py"
            " says; mend the entry"
        ) from error
    if found := _FROM_MEMORY.search(json.dumps(data)):
        raise InputError(
            f"{path.name}: found the word {found.group()!r}, expected only numbers that were read; leave the row out"
        )
    _check_rows(path, data["tables"])
    return data


def _check_rows(path: Path, tables: list[dict[str, Any]]) -> None:
    """Every row has as many cells as its table has metrics, and no cell comes twice."""
    seen: set[tuple[str, ...]] = set()
    for table in tables:
        where = f"{path.name}, {table['paper']}, {table['set']}"
        for row in table["rows"]:
            if len(row) != 1 + len(table["metrics"]):
                raise InputError(
                    f"{where}, {row[0]}: found {len(row) - 1} cells, expected {len(table['metrics'])}, one a metric; "
                    'write "" where nothing is printed'
                )
        for cell in _cells(table):
            key = (cell.arxiv or cell.paper, cell.table, cell.set, cell.method, cell.metric)
            if key in seen:
                raise InputError(f"{where}: found {cell.metric} of {cell.method} twice, expected once; leave one out")
            if bool(cell.error) != bool(cell.error_meaning):
                raise InputError(
                    f"{where}, {cell.method}, {cell.metric}: found error {cell.error!r} with meaning"
                    f" {cell.error_meaning!r}, expected both or none; write `not stated` where the paper says nothing"
                )
            seen.add(key)


def _cells(table: dict[str, Any]) -> list[Reported]:
    shared = {name: table[name] for name in ("paper", "arxiv", "table", "set", "protocol", "scale", "read", "note")}
    found = []
    for method, *cells in table["rows"]:
        for (metric, card), cell in zip(table["metrics"].items(), cells, strict=True):
            value, _, error = cell.partition(" ± ")
            if value:
                found.append(
                    Reported(
                        **shared, method=method, metric=metric, card=card, value=value, error=error,
                        error_meaning=table["error"],
                    )
                )  # fmt: skip
    return found
