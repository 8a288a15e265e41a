"""Published numbers against the tables as they were read, typed here once more, and what must never get in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from eval.protocols import PROTOCOLS
from eval.reported import Reported, reported_note, reported_rows
from manifests.errors import InputError

DATA = Path(__file__).resolve().parents[2] / "eval" / "reported.json"

V1_METRICS = ["LPIPS", "CLIP-I", "Style", "CLIP-T", "Smooth", "LPIPS-F", "CLIP-F", "Dynamic"]
V1 = {
    "Table 1": """
    4D-fy* | 44.3+-0.2 | 77.6+-.04 | 21.5+-.07 | 29.1+-.04 | 98.9+-.001 | 2.7+-.02 | 97.9+-.01 | 55.4+-0.5
    Animate124* | 34.8+-0.2 | 80.2+-0.2 | 22.5+-.09 | 29.6+-.05 | 98.9+-.009 | 2.3+-.03 | 98.1+-.01 | 82.7+-1.3
    STAG3D* | 101.2+-0.1 | 69.5+-0.3 | 21.7+-.08 | 10.1+-0.1 | 94.6+-.005 | 4.4+-.04 | 83.8+-.02 | 50.1+-0.2
    3to4D | 15.0+-0.1 | 90.2+-.08 | 20.5+-.01 | 27.4+-.05 | 99.2+-.007 | 2.1+-.02 | 98.3+-.01 | 50.0+-0.3""",
    "Table 2": """
    full | 15.0+-0.1 | 90.2+-.08 | 20.5+-.01 | 27.4+-.05 | 99.2+-.007 | 2.1+-.02 | 98.3+-.01 | 50.0+-2.2
    image-to-video | 40.3+-0.2 | 76.6+-0.1 | 21.1+-.07 | 28.5+-.04 | 98.5+-.007 | 2.7+-.02 | 97.5+-.01 | 64.7+-2.0
    viewpoint selector | 15.0+-0.2 | 89.6+-0.1 | 18.7+-0.1 | 27.7+-.09 | 99.2+-.008 | 2.1+-.04 | 98.3+-.02 | 43.8+-0.6
    masked SDS | 15.8+-0.1 | 89.7+-0.1 | 18.9+-0.1 | 27.5+-.09 | 99.1+-.007 | 2.1+-.02 | 98.2+-.01 | 50.8+-0.6""",
    "Table 3": """
    Uniform | 14.0+-0.6 | 90.1+-0.5 | 19.0+-0.6 | 27.0+-0.3 | 99.2+-.02 | 2.1+-0.1 | 98.1+-0.6 | 52.1+-1.9
    Four-views | 14.0+-0.5 | 90.0+-0.4 | 19.3+-0.5 | 27.0+-0.3 | 99.2+-.02 | 2.1+-0.1 | 98.2+-0.6 | 51.3+-1.5
    Sweep | 14.3+-0.6 | 90.0+-0.5 | 19.6+-0.5 | 27.0+-0.3 | 99.2+-.02 | 2.2+-0.1 | 98.1+-0.6 | 53.6+-2.3
    Incremental | 15.0+-0.7 | 90.0+-0.4 | 20.0+-0.5 | 27.3+-0.2 | 99.2+-.03 | 2.6+-0.1 | 98.1+-0.6 | 59.4+-2.2""",
}


def cells(paper: str, chosen: str = "", table: str = "") -> dict[tuple[str, str], Reported]:
    """(method, metric) -> cell of the tables whose paper, set and table contain these words."""
    rows = [r for r in reported_rows() if paper in r.paper and chosen in r.set and table in r.table]
    found = {(row.method, row.metric): row for row in rows}
    assert len(found) == len(rows)
    return found


@pytest.mark.parametrize("table", V1)
def test_tables_of_3to4d_stand_as_they_were_read(table):
    """Against the tables typed from the reference, every cell with its error."""
    found = cells("v1", table=table)
    lines = [[part.strip() for part in line.split("|")] for line in V1[table].strip().splitlines()]
    assert len(found) == 4 * 8
    for method, *values in lines:
        for metric, value in zip(V1_METRICS, values, strict=True):
            [cell] = [c for (name, what), c in found.items() if name.endswith(method) and what == metric]
            assert f"{cell.value}+-{cell.error}" == value
            assert (cell.scale, cell.read, cell.protocol) == (100, "digest", "threetofour")
            assert cell.error_meaning.startswith("not stated")


@pytest.mark.parametrize(
    ("paper", "chosen", "method", "metric", "value", "error", "read"),
    [
        ("3D24D", "Google", "3D24D", "LPIPS", "18.9", "2.0", "paper"),
        ("3D24D", "Google", "Animate3D", "Dynamic", "21.5", "4.8", "paper"),
        ("3D24D", "Objaverse", "3D24D", "Smooth", "99.1", ".12", "paper"),
        ("3D24D", "Objaverse", "Animate3D", "Style", "16.3", "1.5", "paper"),
        ("AnimaX", "35", "Animate3D", "I2V", "0.943", "", "paper"),
        ("AnimaX", "35", "MotionDreamer", "dynamic", "0.827", "", "paper"),
        ("AnimaX", "35", "AnimaX", "aesthetic", "0.517", "", "paper"),
        ("AnimateAnyMesh", "10 samples", "Animate3D", "I2V", "0.936", "", "digest"),
        ("Track4DGen", "Diffusion4D", "Animate3D", "T.Fli", "0.989", "", "digest"),
        ("Track4DGen", "Diffusion4D", "DG4D", "Dy.Sc", "1.019", "", "digest"),
        ("Track4DGen", "Animate3D's set", "Track4DGen", "Aest.Q", "0.506", "", "digest"),
        ("Track4DGen", "Sketchfab28", "Animate3D", "CLIP-F text", "0.2634", "", "digest"),
        ("CHORD", "6 scenes", "Animate3D", "users: realism", "0.51", "", "digest"),
        ("SV4D", "Consistent4D benchmark, 4D", "SV4D", "FVD-F", "732.40", "", "paper"),
        ("SV4D", "Consistent4D benchmark, novel", "Diffusion^2", "FVD-F", "1205.16", "", "paper"),
        ("SV4D", "ObjaverseDy, novel", "STAG4D", "FV4D", "546.56", "", "paper"),
        ("SV4D", "ObjaverseDy, 4D", "DG4D", "FVD-Diag", "615.68", "", "paper"),
        ("Diffusion4D", "image to 4D", "STAG4D", "PSNR", "15.2", "", "paper"),
        ("Diffusion4D", "text to 4D", "Animate124", "CLIP-O", "0.58", "", "paper"),
    ],
)
def test_cells_stand_as_they_were_read(paper, chosen, method, metric, value, error, read):
    """Against cells typed from the reference."""
    cell = cells(paper, chosen)[method, metric]
    assert (cell.value, cell.error, cell.read) == (value, error, read)
    assert bool(cell.error_meaning) == bool(error)
    assert cell.score == pytest.approx(float(value) / cell.scale)


def test_nothing_recalled_got_in():
    """Against the reference's marks: Animate3D's own table, and the row of L4GM, are only recalled there."""
    rows = reported_rows()
    assert "could not be read" in reported_note()
    assert not [row for row in rows if "L4GM" in (row.method, row.paper)]
    assert not [row for row in rows if row.paper.startswith("Animate3D") or row.arxiv.startswith("2407.11398")]
    recalled = {"0.783", "0.817", "0.898", "0.982", "0.997", "0.597", "0.581", "0.497", "0.549", "0.529", "691.87"}
    # MotionDreamer's 0.817 in AnimaX's table was read there.
    assert {(row.value, row.method) for row in rows if row.value in recalled} == {("0.817", "MotionDreamer")}
    assert {row.read for row in rows} == {"paper", "digest"}


def test_rows_are_chosen_by_protocol():
    """Against the whole file: each cell belongs to one protocol or to none."""
    parts = [reported_rows(name) for name in ("", *PROTOCOLS)]
    assert sum(map(len, parts)) == len(reported_rows()) == 270
    assert {row.paper.split(":")[0] for row in reported_rows("threetofour")} == {"3to4D", "3D24D"}
    assert all(row.to_dict()["protocol"] == "animate3d" for row in reported_rows("animate3d"))
    assert reported_rows("nothing") == ()


def test_named_cards_are_cards_of_the_suite():
    """Against the list of metrics in the protocols, and those that stand beside them."""
    known = {name.split("@")[0] for rules in PROTOCOLS.values() for name in rules.metrics}
    assert {row.card for row in reported_rows()} - {""} <= known | {"temporal_flickering", "psnr", "ssim", "fvd"}


def test_dynamic_scores_that_are_not_the_bit_have_no_card():
    """By the reference: Dy.Sc goes above 1."""
    assert {row.card for row in reported_rows() if row.metric == "Dy.Sc"} == {""}


def broken(tmp_path: Path, change) -> Path:
    data = json.loads(DATA.read_text("utf-8"))
    change(data)
    path = tmp_path / "reported.json"
    path.write_text(json.dumps(data), "utf-8")
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d["tables"][0].update(read="recalled"), "'recalled' is not one of"),
        (lambda d: d["tables"][0].update(note="recalled, unverified"), "found the word 'recalled'"),
        (lambda d: d["tables"][0].update(protocol="consistent4d"), "is not one of"),
        (lambda d: d["tables"][0].pop("error"), "'error' is a required property"),
        (lambda d: d["tables"][0].update(extra=1), "extra"),
        (lambda d: d["tables"][0]["rows"][0].append("1.0"), "found 9 cells, expected 8"),
        (lambda d: d["tables"][0]["rows"].append(d["tables"][0]["rows"][0]), "twice"),
        (lambda d: d["tables"][0]["rows"][0].__setitem__(1, "about 44"), "does not match"),
        (lambda d: d["tables"][0]["rows"][0].__setitem__(1, 44.3), "is not of type 'string'"),
        (lambda d: d["tables"][0].update(error=""), "found error '0.2' with meaning ''"),
        (lambda d: d["tables"][5].update(error="standard deviation"), "found error ''"),
        (lambda d: d["tables"][0].update(scale=0), "minimum of 0"),
        (lambda d: d.update(schema="mvvideo.reported/2"), "mvvideo.reported/1"),
    ],
)
def test_a_file_that_breaks_the_rules_is_refused(tmp_path, change, words):
    """Each rule once; the message names the file and what to do."""
    path = broken(tmp_path, change)
    with pytest.raises(InputError, match=r"reported.json.*expected") as error:
        reported_rows(path=path)
    assert words in str(error.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe"])
def test_a_file_that_is_no_json_is_refused(tmp_path, content):
    """Empty, cut and of another encoding; and none at all."""
    (tmp_path / "reported.json").write_bytes(content)
    with pytest.raises(InputError, match=r"reported.json: found .*restore the file"):
        reported_rows(path=tmp_path / "reported.json")
    with pytest.raises(InputError, match="restore the file"):
        reported_rows(path=tmp_path / "nowhere.json")
