"""Intake: names, ids, licences, duplicates and what cannot be read, from files made here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from manifests.columns import ASSETS
from manifests.errors import InputError
from manifests.tables import write_rows
from pipelines import intake
from pipelines.intake import asset_id, assets_of, mark_duplicates, scan, spdx
from tests.broken import as_gltf, make_broken, png, small_asset

SHA = "0123456789abcdef" * 4


def glb(path: Path, offset: float = 1.0) -> Path:
    """A valid asset whose content depends on the number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(small_asset(values=[[0, 0, 0], [offset, 0, 0], [0, 0, 0]]).to_bytes())
    return path


@pytest.mark.parametrize(
    ("stem", "expected"),
    [
        ("0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef"),  # an Objaverse uid
        ("0123456789ABCDEF0123456789ABCDEF", "0123456789ABCDEF01234567-0123456789"),
        ("Fox", "Fox-0123456789"),
        ("a.b..c.GLB", "a-b-c-GLB-0123456789"),
        ("tête à tête", "tete-a-tete-0123456789"),
        ("狐", "asset-0123456789"),
        ("狐 — renard ✨", "renard-0123456789"),
        ("../../etc/passwd", "etc-passwd-0123456789"),
        ("-rf $(true) 'x'", "rf-true-x-0123456789"),
        ("", "asset-0123456789"),
        ("...", "asset-0123456789"),
        ("a" * 60, "a" * 24 + "-0123456789"),
        ("a" * 23 + " b", "a" * 23 + "-0123456789"),
        ("ﬁn_2", "fin_2-0123456789"),
    ],
)
def test_asset_ids_are_slugs_of_names_with_a_piece_of_the_hash(stem, expected):
    # Oracle: design 3.3, by hand.
    found = asset_id(stem, SHA)
    assert found == expected
    assert re.fullmatch(r"[A-Za-z0-9_-]+", found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("CC0", "CC0-1.0"),
        ("CC0 1.0 Universal", "CC0-1.0"),
        ("CC0-1.0, made by a script", "CC0-1.0"),
        ("Public Domain", "CC0-1.0"),
        ("CC-BY 4.0 (Ann)", "CC-BY-4.0"),
        ("cc by 3.0", "CC-BY-3.0"),
        ("(c) 2020 Ann, CC BY-NC-SA 4.0", "CC-BY-NC-SA-4.0"),
        ("CC-BY-ND-4.0", "CC-BY-ND-4.0"),
        ("CC-BY 2.5", "CC-BY-2.5"),
        ("MIT License", "MIT"),
        ("Apache-2.0", "Apache-2.0"),
        ("summit", ""),
        ("(c) 2020 Ann, all rights reserved", ""),
        ("", ""),
    ],
)
def test_spdx_is_found_in_copyright_lines(text, expected):
    # Oracle: spdx.org's list; "" rather than a guess.
    assert spdx(text) == expected


def test_a_folder_gives_rows_sorted_by_source_without_machine_paths(tmp_path):
    # Oracle: the files that were made.
    for k, name in enumerate(["b/two.glb", "a/ONE.GLB", "a/notes.txt", "c d/é.gltf", "a/.hidden/x.glb"]):
        glb(tmp_path / name, k + 1)
    (tmp_path / "c d/é.gltf").write_bytes(as_gltf(small_asset().to_bytes()))
    rows = list(scan([tmp_path]))
    assert [row["source"] for row in rows] == ["a/.hidden/x.glb", "a/ONE.GLB", "b/two.glb", "c d/é.gltf"]
    for row in rows:
        file = tmp_path / row["source"]
        assert row["status"] == "accepted"
        assert row["bytes"] == file.stat().st_size
        assert row["mtime_ns"] == file.stat().st_mtime_ns
        assert row["name"] == file.stem
        assert row["uri"] == str(file.resolve())
        assert (row["license"], row["attribution"]) == ("CC0-1.0", "CC0")
        assert str(tmp_path) not in row["source"] + row["asset_id"]
    write_rows(tmp_path / "assets.parquet", rows, ASSETS)
    assert list(assets_of(tmp_path / "assets.parquet")) == rows


def test_a_single_file_and_two_roots_with_the_same_names(tmp_path):
    # Oracle: every file has a row and a source of its own.
    for k, root in enumerate(("one", "two")):
        glb(tmp_path / root / "fox.glb", k + 1)
    (row,) = scan([tmp_path / "one" / "fox.glb"])
    assert row["source"] == "fox.glb"
    rows = list(scan([tmp_path / "one", tmp_path / "two"]))
    assert len({row["source"] for row in rows}) == len({row["uri"] for row in rows}) == 2
    assert len(list(scan([tmp_path / "one", tmp_path / "one" / "fox.glb"]))) == 1


def test_the_hash_of_a_gltf_covers_the_files_that_it_reads(tmp_path):
    # Oracle: design 3.3: another texture is another asset.
    text = as_gltf(small_asset().to_bytes(), lambda d: d.update(images=[{"uri": "t.png"}]))
    (tmp_path / "a.gltf").write_bytes(text)
    hashes = []
    for color in ((1, 2, 3), (3, 2, 1)):
        (tmp_path / "t.png").write_bytes(png(color=color))
        (row,) = scan([tmp_path])
        hashes.append(row["sha256"])
    assert hashes[0] != hashes[1]


def test_known_hashes_are_kept_while_size_and_time_stay(tmp_path, monkeypatch):
    # Oracle: what is hashed again, counted.
    path, other = glb(tmp_path / "a.glb"), glb(tmp_path / "b.glb", 2)
    rows = list(scan([tmp_path]))
    known = {row["uri"]: row for row in rows}
    hashed: list[str] = []
    original = intake.sha256_file
    monkeypatch.setattr(intake, "sha256_file", lambda file: hashed.append(file.name) or original(file))
    assert list(scan([tmp_path], known=known)) == rows
    assert hashed == []
    os.utime(path, ns=(1, 1))
    with open(other, "ab") as file:
        file.write(b"\0" * 4)
    again = list(scan([tmp_path], known=known))
    assert sorted(hashed) == ["a.glb", "b.glb"]
    assert again[0]["sha256"] == rows[0]["sha256"]
    assert again[1]["sha256"] != rows[1]["sha256"]


def test_duplicates_keep_the_smallest_source(tmp_path):
    # Oracle: design 3.4.
    for name in ("z.glb", "b/a.glb", "b.glb"):
        glb(tmp_path / name)
    glb(tmp_path / "other.glb", 2)
    rows = list(scan([tmp_path]))
    mark_duplicates(rows)
    assert {row["source"]: row["reason"] for row in rows} == {
        "b.glb": "", "b/a.glb": "duplicate-asset", "other.glb": "", "z.glb": "duplicate-asset",
    }  # fmt: skip
    assert all("b.glb" in row["detail"] for row in rows if row["reason"])


def test_assets_of_the_dataset_stay_when_smaller_sources_come(tmp_path):
    # Oracle: what is there already cannot be taken back; itself is not its own copy.
    glb(tmp_path / "m.glb")
    glb(tmp_path / "a.glb")
    rows = list(scan([tmp_path]))
    mark_duplicates(rows, {rows[0]["sha256"]: "m.glb"})
    assert [row["status"] for row in rows] == ["rejected", "accepted"]


def test_different_files_never_share_an_id(tmp_path):
    # Oracle: ids are keys of tars; two files that claim one Objaverse uid are two assets, of which one can have it.
    uid = "0123456789abcdef0123456789abcdef"
    glb(tmp_path / "one" / f"{uid}.glb", 1)
    glb(tmp_path / "two" / f"{uid}.glb", 2)
    rows = list(scan([tmp_path]))
    mark_duplicates(rows)
    accepted = [row["asset_id"] for row in rows if row["status"] == "accepted"]
    assert len(set(accepted)) == len(accepted)
    assert uid in accepted


def test_broken_and_odd_files_are_rows_and_not_errors(tmp_path):
    # Oracle: the cases' own list; the probe says later what is wrong with them.
    cases = {case.path.relative_to(tmp_path / "b").as_posix(): case for case in make_broken(tmp_path / "b")}
    rows = {row["source"]: row for row in scan([tmp_path / "b"])}
    assert rows.keys() == cases.keys()
    for source, row in rows.items():
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,40}", row["asset_id"]), source
        expected = "unreadable" if cases[source].reason == "unreadable" else ""
        assert row["reason"] == expected, source
    write_rows(tmp_path / "assets.parquet", rows.values(), ASSETS)


def test_names_that_are_not_utf8_become_rows(tmp_path):
    # Oracle: a name of bytes; tables hold text.
    path = os.fsencode(tmp_path) + b"/caf\xe9.glb"
    try:
        with open(path, "wb") as file:
            file.write(small_asset().to_bytes())
    except OSError:
        pytest.skip("this file system takes no such name")
    (row,) = scan([tmp_path])
    assert row["source"].startswith("caf")
    row["source"].encode()
    write_rows(tmp_path / "assets.parquet", [row], ASSETS)


def test_long_copyright_lines_are_cut(tmp_path):
    # Oracle: the limit of the column.
    writer = small_asset()
    writer.copyright = "CC-BY 4.0 " + "x" * 5000
    (tmp_path / "a.glb").write_bytes(writer.to_bytes())
    (row,) = scan([tmp_path])
    assert len(row["attribution"]) == 1000
    assert row["license"] == "CC-BY-4.0"


@pytest.mark.parametrize(
    ("name", "message"), [("gone", "found nothing, expected a file or a folder"), ("", "found no .glb or .gltf"),
                          ("a.parquet", "make one with `mvv assets scan`")],
)  # fmt: skip
def test_what_is_not_there_is_said_clearly(tmp_path, name, message):
    # Oracle: the form of messages.
    with pytest.raises(InputError, match=re.escape(message)):
        list(assets_of(tmp_path / name))


FORBIDDEN = """
import json, os, sys
from manifests.errors import InputError
from pipelines.intake import scan
import manifests.tables
if os.geteuid() == 0:
    os.seteuid(65534)
result = {}
for name in ("whole", "below", "files", "whole/inside"):
    try:
        result[name] = [[row["source"], row["reason"]] for row in scan([os.path.join(sys.argv[1], name)])]
    except InputError as error:
        result[name] = str(error)
print(json.dumps(result))
"""


def test_folders_and_files_without_permission(tmp_path):
    # Oracle: a process that is not root: a folder is one clear error, a file is a row.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        glb(root / "whole/inside/a.glb")
        glb(root / "below/a.glb")
        glb(root / "below/closed/b.glb")
        glb(root / "files/a.glb")
        glb(root / "files/b.glb").chmod(0)
        closed = [root / "whole", root / "below/closed"]
        for folder in closed:
            folder.chmod(0)
        try:
            done = subprocess.run(
                [sys.executable, "-c", FORBIDDEN, name], capture_output=True, text=True, timeout=60, check=False
            )
        finally:
            for folder in closed:
                folder.chmod(0o755)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert "found Permission denied, expected a folder that can be read" in result["whole"]
    assert "closed: found Permission denied" in result["below"]
    assert result["files"] == [["a.glb", ""], ["b.glb", "unreadable"]]
    assert "Permission denied" in result["whole/inside"]
