"""How rows get into the Parquet tables of a dataset and out again; what the columns are is in `manifests.columns`.

The same rows give the same file (fixed writer options and row groups), tables appear whole or not at all, and every
function streams: memory is one row group, whatever the length.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from numbers import Integral
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from manifests.columns import ASSETS, CLIPS, INDEX, SHARDS, TABLES, columns_markdown, empty_row, facts_of_sample
from manifests.errors import DatasetError, InputError
from manifests.publish import attempt
from manifests.text import well_formed

__all__ = [
    "ASSETS",
    "CLIPS",
    "INDEX",
    "SHARDS",
    "TABLES",
    "RowWriter",
    "columns_markdown",
    "count_rows",
    "empty_row",
    "facts_of_sample",
    "iter_batches",
    "iter_rows",
    "merge",
    "write_rows",
]

ROW_GROUP = 2048
"""Rows a group; the widest table (index, 768 frames a clip) then holds about 12 MB at a time."""


class RowWriter:
    """Writes a table row by row; it appears under ``path`` when the ``with`` block ends without an error.

    Args:
        path: the Parquet file.
        schema: one of `TABLES`; every row has exactly its columns, none None.

    Raises:
        InputError: from `write`, a row that does not fit the schema, naming the column.
    """

    def __init__(self, path: Path | str, schema: pa.Schema) -> None:
        self.path, self.schema, self.rows = Path(path), schema, 0
        self._names = set(schema.names)
        self._pending: list[dict[str, Any]] = []
        self._batches: list[pa.RecordBatch] = []
        self._waiting = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> RowWriter:
        trial = self._stack.enter_context(attempt(self.path))
        # Version, page layout and codec are named, so that a changed default of pyarrow does not change the bytes.
        self._writer = self._stack.enter_context(
            pq.ParquetWriter(
                trial, self.schema, version="2.6", data_page_version="1.0", compression="zstd", compression_level=3
            )
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._convert()
                self._flush(0)
        except BaseException as late:
            self._stack.__exit__(type(late), late, late.__traceback__)
            raise
        self._stack.__exit__(kind, error, trace)

    def write(self, row: dict[str, Any]) -> None:
        """Adds one row."""
        if row.keys() != self._names:
            missing, extra = sorted(self._names - row.keys()), sorted(row.keys() - self._names)
            raise InputError(
                f"{self.path.name}: found a row without {missing} and with {extra}, expected exactly the columns of the"
                " table; start from manifests.tables.empty_row"
            )
        self._pending.append({name: _clean(value) for name, value in row.items()})
        if len(self._pending) >= ROW_GROUP:
            self._convert()

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Adds the rows of a batch that has this table's columns."""
        self._convert()
        self._add(batch)

    def _convert(self) -> None:
        if self._pending:
            self._add(_batch(self._pending, self.schema, self.path.name))
            self._pending.clear()

    def _add(self, batch: pa.RecordBatch) -> None:
        self._batches.append(batch)
        self._waiting += batch.num_rows
        self.rows += batch.num_rows
        self._flush(ROW_GROUP)

    def _flush(self, least: int) -> None:
        """Writes whole row groups while at least ``least`` rows wait, so that groups never depend on the batches."""
        if not self._waiting or self._waiting < least:
            return
        table = pa.Table.from_batches(self._batches, self.schema)
        while table.num_rows and table.num_rows >= least:
            group, table = table.slice(0, ROW_GROUP), table.slice(ROW_GROUP)
            self._writer.write_table(group.combine_chunks(), row_group_size=ROW_GROUP)
        self._batches = table.combine_chunks().to_batches()
        self._waiting = table.num_rows


def write_rows(path: Path | str, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> int:
    """Writes a whole table; an empty one is fine.

    Returns:
        the number of rows.

    Raises:
        InputError: a row that does not fit the schema, naming the column.
    """
    with RowWriter(path, schema) as writer:
        for row in rows:
            writer.write(row)
    return writer.rows


def merge(paths: Iterable[Path | str], out: Path | str, schema: pa.Schema) -> int:
    """Strings tables of one schema together, in the order given.

    Returns:
        the number of rows.

    Raises:
        DatasetError: a part that is absent, damaged or of other columns.
    """
    with RowWriter(out, schema) as writer:
        for path in paths:
            for batch in iter_batches(path, schema=schema):
                writer.write_batch(batch)
    return writer.rows


def iter_batches(
    path: Path | str, columns: Sequence[str] | None = None, *, schema: pa.Schema | None = None
) -> Iterator[pa.RecordBatch]:
    """Batches of at most `ROW_GROUP` rows, in order.

    Args:
        path: a Parquet file.
        columns: only these; None is all.
        schema: when given, the file has to have exactly these columns and types.

    Raises:
        DatasetError: the file is absent, damaged or has other columns.
    """
    try:
        with pq.ParquetFile(path) as file:
            if schema is not None and not file.schema_arrow.equals(schema):
                raise DatasetError(f"{path}: {_difference(file.schema_arrow, schema)}")
            absent = sorted(set(columns or ()) - set(file.schema_arrow.names))
            if absent:
                raise DatasetError(f"{path}: found no column {absent}, expected it; the table is of another version")
            yield from file.iter_batches(ROW_GROUP, columns=None if columns is None else list(columns))
    except (OSError, pa.ArrowException) as error:
        found = "no file" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0]
        raise DatasetError(
            f"{path}: found {found}, expected a Parquet table; repeat the command that wrote it"
        ) from error


def iter_rows(
    path: Path | str, columns: Sequence[str] | None = None, *, schema: pa.Schema | None = None
) -> Iterator[dict[str, Any]]:
    """The rows as dicts, in order, streaming; arguments and errors as `iter_batches`."""
    for batch in iter_batches(path, columns, schema=schema):
        for start in range(0, batch.num_rows, 256):  # Python objects take ten times the memory of a batch
            try:
                rows = batch.slice(start, 256).to_pylist()
            except UnicodeDecodeError as error:
                raise DatasetError(f"{path}: found {error}, expected UTF-8; repeat the command before") from error
            yield from rows


def count_rows(path: Path | str) -> int:
    """Rows of a table, from its footer.

    Raises:
        DatasetError: the file is absent or damaged.
    """
    try:
        return pq.read_metadata(path).num_rows
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path}: found {str(error).splitlines()[0]}, expected a Parquet table") from error


def _clean(value: Any) -> Any:
    if isinstance(value, str):
        return well_formed(value)
    if isinstance(value, (list, tuple)):
        return [_clean(item) for item in value]
    return value


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _batch(rows: list[dict[str, Any]], schema: pa.Schema, where: str) -> pa.RecordBatch:
    arrays = []
    for field in schema:
        values = [row[field.name] for row in rows]
        if pa.types.is_integer(field.type) and not all(_is_whole(value) for value in values):
            # pyarrow cuts 1.5 down to 1 without a word.
            found = next(value for value in values if not _is_whole(value))
            raise InputError(f"{where}: column {field.name}: found {found!r}, expected a whole number")
        try:
            array = pa.array(values, field.type)
        except (pa.ArrowException, OverflowError, TypeError) as error:
            raise InputError(f"{where}: column {field.name}: {error}; expected {field.type}") from error
        # pyarrow accepts None in a column that is declared not nullable, and readers then see nulls.
        inner = array.flatten() if pa.types.is_list(field.type) else array
        if array.null_count or inner.null_count:
            raise InputError(f"{where}: column {field.name}: found None, expected {field.type}; use empty_row's value")
        arrays.append(array)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _difference(found: pa.Schema, expected: pa.Schema) -> str:
    for field in expected:
        at = found.get_field_index(field.name)
        if at < 0:
            return (
                f"found no column {field.name}, expected {field.type}; the table is of another version, build it anew"
            )
        if found.field(at).type != field.type:
            return (
                f"found column {field.name} as {found.field(at).type}, expected {field.type};"
                " the table is of another version, build it anew"
            )
    extra = sorted(set(found.names) - set(expected.names))
    return f"found columns {extra or found.names}, expected {expected.names}; the table is of another version"
