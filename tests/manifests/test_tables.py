"""Tables: values through foreign readers, the same bytes, streaming, errors."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from manifests.errors import DatasetError, InputError
from manifests.tables import (
    ASSETS,
    CLIPS,
    INDEX,
    ROW_GROUP,
    TABLES,
    columns_markdown,
    count_rows,
    empty_row,
    iter_batches,
    iter_rows,
    merge,
    write_rows,
)


def index_rows(count: int) -> list[dict]:
    rng = random.Random(count)
    return [
        {
            "clip_id": f"clip-{k:05d}",
            "json_offset": 2**40 + k,
            "json_size": k,
            "first_frame_offset": 512 * k,
            "sizes": [rng.randrange(2**31) for _ in range(k % 4)],
            "crc32c": [rng.randrange(2**32) for _ in range(k % 4)],
            "sha256": f"{k:064x}",
        }
        for k in range(count)
    ]


def asset_rows() -> list[dict]:
    names = ["", "naïve 猫 😀", "pipe | <b>", 'quote " \n line']
    return [{**empty_row(ASSETS), "asset_id": f"a{k}", "name": name, "tags": names[:k]} for k, name in enumerate(names)]


@pytest.mark.parametrize("table", sorted(TABLES))
def test_every_column_has_a_description_and_an_empty_value(tmp_path, table):
    schema = TABLES[table]
    text = columns_markdown(schema)
    for field in schema:
        assert field.metadata[b"description"], field.name
        assert f"| `{field.name}` |" in text
        assert not field.nullable
    write_rows(tmp_path / "t.parquet", [empty_row(schema)], schema)
    assert list(iter_rows(tmp_path / "t.parquet", schema=schema)) == [empty_row(schema)]
    # The description travels with the file.
    assert (
        pq.read_schema(tmp_path / "t.parquet").field(0).metadata[b"description"]
        == schema.field(0).metadata[b"description"]
    )


@pytest.mark.parametrize("table", sorted(TABLES))
def test_empty_table_is_read_by_pandas_with_all_columns(tmp_path, table):
    # Oracle: pandas.
    assert write_rows(tmp_path / "t.parquet", [], TABLES[table]) == 0
    frame = pd.read_parquet(tmp_path / "t.parquet")
    assert list(frame.columns) == TABLES[table].names
    assert len(frame) == count_rows(tmp_path / "t.parquet") == 0
    assert list(iter_rows(tmp_path / "t.parquet")) == []


@pytest.mark.parametrize(("rows", "schema"), [(index_rows(9), INDEX), (asset_rows(), ASSETS)])
def test_values_are_equal_in_pandas_and_in_datasets(tmp_path, monkeypatch, rows, schema):
    # Oracle: what went in, through two foreign readers.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    datasets = pytest.importorskip("datasets")
    path = tmp_path / "t.parquet"
    write_rows(path, rows, schema)
    frame = pd.read_parquet(path)
    for row, found in zip(rows, frame.to_dict("records"), strict=True):
        assert {name: v.tolist() if isinstance(v, np.ndarray) else v for name, v in found.items()} == row
    table = datasets.load_dataset("parquet", data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert list(table) == rows


def test_clip_row_keeps_every_float_bit(tmp_path):
    # Oracle: repr of the floats.
    floats = [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, -2.5]
    rows = [{**empty_row(CLIPS), "fps": value, "motion_mean_speed": value} for value in floats]
    write_rows(tmp_path / "t.parquet", rows, CLIPS)
    assert [repr(row["fps"]) for row in iter_rows(tmp_path / "t.parquet")] == list(map(repr, floats))
    assert [repr(float(v)) for v in pd.read_parquet(tmp_path / "t.parquet")["motion_mean_speed"]] == list(
        map(repr, floats)
    )


def test_same_rows_give_the_same_bytes_however_they_arrive(tmp_path):
    # Oracle: equality of files; one by one, merged from parts of any size.
    rows = index_rows(2 * ROW_GROUP + 100)
    write_rows(tmp_path / "whole.parquet", rows, INDEX)
    cuts = [0, 1, 700, ROW_GROUP + 5, ROW_GROUP + 5, len(rows)]
    parts = []
    for k, (start, end) in enumerate(itertools.pairwise(cuts)):
        parts.append(tmp_path / f"part{k}.parquet")
        write_rows(parts[-1], rows[start:end], INDEX)
    assert merge(parts, tmp_path / "merged.parquet", INDEX) == len(rows)
    assert (tmp_path / "merged.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    metadata = pq.read_metadata(tmp_path / "merged.parquet")
    assert [metadata.row_group(k).num_rows for k in range(3)] == [ROW_GROUP, ROW_GROUP, 100]


def test_iter_rows_streams_in_order_with_the_columns_asked_for(tmp_path):
    rows = index_rows(ROW_GROUP + 3)
    write_rows(tmp_path / "t.parquet", iter(rows), INDEX)
    assert [row["clip_id"] for row in iter_rows(tmp_path / "t.parquet", ["clip_id"])] == [r["clip_id"] for r in rows]
    assert max(batch.num_rows for batch in iter_batches(tmp_path / "t.parquet")) <= ROW_GROUP


def test_table_leaves_nothing_after_an_error(tmp_path):
    # Oracle: the folder.
    def rows():
        yield index_rows(1)[0]
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        write_rows(tmp_path / "t.parquet", rows(), INDEX)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"clip_id": None}, "clip_id: found None"),
        ({"json_offset": None}, "json_offset: found None"),
        ({"sizes": [1, None]}, "sizes: found None"),
        ({"sizes": [2**31]}, "sizes"),
        ({"crc32c": [-1]}, "crc32c"),
        ({"json_size": 1.5}, "json_size"),
        ({"extra": 1}, "extra"),
    ],
)
def test_row_that_does_not_fit_is_refused_by_column(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        write_rows(tmp_path / "t.parquet", [index_rows(1)[0] | change], INDEX)
    assert list(tmp_path.iterdir()) == []


def test_row_writer_makes_text_well_formed(tmp_path):
    write_rows(tmp_path / "t.parquet", [{**empty_row(ASSETS), "name": "a\ud800", "tags": ["\ud83d\ude00"]}], ASSETS)
    row = next(iter_rows(tmp_path / "t.parquet"))
    assert (row["name"], row["tags"]) == ("a\ufffd", ["😀"])


def test_reading_refuses_absent_damaged_and_other_tables(tmp_path):
    with pytest.raises(DatasetError, match="found no file"):
        list(iter_rows(tmp_path / "absent.parquet"))
    path = tmp_path / "t.parquet"
    write_rows(path, index_rows(3), INDEX)
    with pytest.raises(DatasetError, match="asset_id"):
        list(iter_rows(path, schema=ASSETS))
    with pytest.raises(DatasetError, match="no column"):
        list(iter_rows(path, ["nothing"]))
    path.write_bytes(path.read_bytes()[:-7])
    for read in (lambda: list(iter_rows(path)), lambda: count_rows(path), lambda: merge([path], tmp_path / "o", INDEX)):
        with pytest.raises(DatasetError, match="expected a Parquet table"):
            read()
