"""The card and the Croissant description say what is there, and carry no markup from assets."""

from __future__ import annotations

import hashlib
import json

import pytest
from markdown_it import MarkdownIt

from manifests.card import card, statistics_markdown
from manifests.text import markdown, well_formed
from tests.tiny_dataset import make_tiny_dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_dataset(tmp_path_factory.mktemp("tiny"), clips=5, depth=True)


def manifest(folder) -> dict:
    return json.loads((folder / "dataset.json").read_text())


def test_card_states_mv_videos_figures(folder):
    # Oracle: 5 clips of 3 assets with two animations each but the last; 2 views, 3 frames.
    table = dict(line.strip("| ").split(" | ") for line in statistics_markdown(manifest(folder)["counts"]).splitlines())
    assert table["models"] == "3"
    assert table["animations"] == "5"
    assert table["mean animations per model"] == "1.67"
    assert table["maximum animations per model"] == "2"
    assert table["multi-view videos"] == "10"
    assert table["images"] == "30"


def test_card_states_licences_reasons_cameras_and_modalities(folder):
    text = (folder / "README.md").read_text()
    for words in (
        "| CC-BY-4.0 | 2 |",
        "| not stated | 1 |",
        "| `cameras.fov_y_deg` | `40.0` |",
        "`shards/SPLIT-NNNNN.depth.tar`",
        "| clips | `static` | nothing visible moves more than the threshold | 1 |",
        "| assets | `truncated` |",
        "| failed | `deadline` |",
        manifest(folder)["fingerprint"],
        "| `motion_mean_speed` | double |",
    ):
        assert words in text, words


def test_card_has_no_markup_from_outside(folder):
    nasty = "<script>alert(1)</script> | a\n# b `c` [d](javascript:x) *e* https://f.g"
    changed = manifest(folder)
    changed["name"] = nasty
    changed["counts"]["licenses"] = {nasty: 1}
    changed["tools"] = {nasty: nasty}
    changed["config"] = {"preset": nasty, f"views {nasty}": [nasty]}
    changed["counts"]["failed"] = {nasty: 1}
    changed["modalities"]["rgb"]["unit"] = nasty
    # Oracle: a CommonMark renderer that lets HTML through.
    html = MarkdownIt("commonmark").enable("table").render(card(changed).split("---\n", 2)[2])
    before = MarkdownIt("commonmark").enable("table").render((folder / "README.md").read_text().split("---\n", 2)[2])
    for tag in ("<script", "<a ", "<em>", "<h1>", "<img"):
        assert html.count(tag) == before.count(tag), tag
    cells = {row.count("<td>") for row in html.split("<tr>") if "alert(1)" in row}
    assert cells == {2, 4, 6, 0}, "a pipe from outside made a column, or the heading is gone"


def test_croissant_names_every_table_and_tar_with_its_hash(folder):
    # Oracle: hashlib over the files.
    found = json.loads((folder / "croissant.json").read_text())
    objects = {item["@id"]: item for item in found["distribution"] if item["@type"] == "cr:FileObject"}
    tars = {f"shards/{path.name}" for path in (folder / "shards").iterdir()}
    assert set(objects) == tars | {"assets.parquet", "clips.parquet", "shards.parquet"}
    for name, item in objects.items():
        assert item["sha256"] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    sets = {item["@id"]: item["containedIn"] for item in found["distribution"] if item["@type"] == "cr:FileSet"}
    assert {entry["@id"] for entry in sets["frames"]} == {name for name in tars if "depth" not in name}
    fields = {field["name"] for field in found["recordSet"][0]["field"]}
    assert {"clip_id", "fps", "caption", "license"} <= fields


def test_croissant_is_valid_for_mlcroissant(folder):
    # Oracle: MLCommons' own reader, where it is installed.
    mlcroissant = pytest.importorskip("mlcroissant")
    assert not mlcroissant.Dataset(str(folder / "croissant.json")).metadata.ctx.issues.errors


def test_markdown_escapes_one_line():
    assert markdown("a|b\r\n<i>*x*</i>") == "a\\|b &lt;i&gt;\\*x\\*&lt;/i&gt;"
    assert markdown("CC-BY-4.0") == "CC-BY-4.0"


def test_well_formed_leaves_proper_text_alone():
    assert well_formed("naïve 猫 😀") == "naïve 猫 😀"
    assert well_formed("\ud83d\ude00\ud800") == "😀\ufffd"
