"""`mvv inspect`: tables and contact sheets against the dataset they come from."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from manifests.dataset import Dataset
from manifests.errors import DatasetError, InputError
from manifests.images import composite as composite_frames
from manifests.tables import CLIPS, iter_rows, write_rows
from mvv.inspect import inspect
from mvv.pictures import composite, draw_sheet
from tests.tiny_dataset import make_tiny_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", clips=5, views=2, frames=3)


def printed(*arguments, **options) -> str:
    console = Console(file=io.StringIO(), width=160)
    inspect(*arguments, console=console, **options)
    return console.file.getvalue()


def test_dataset_table_states_its_figures_and_clips(dataset):
    # Oracle: dataset.json and clips.parquet.
    text, source = printed(dataset), Dataset.open(dataset)
    assert source.manifest["fingerprint"] in text
    for row in source.clips():
        assert row["clip_id"] in text
    assert "static 1" in text
    assert "deadline 1" in text


def test_dataset_table_says_what_it_leaves_out(dataset):
    text = printed(dataset, rows=2)
    assert "the first 2 of 5" in text
    assert list(Dataset.open(dataset).clips())[-1]["clip_id"] not in text


def test_clip_is_found_by_the_beginning_of_its_id(dataset):
    # Oracle: the ids of the tiny dataset; two animations an asset, so an asset's id fits two clips.
    clip_id = next(iter(Dataset.open(dataset).clips()))["clip_id"]
    assert clip_id in printed(dataset, clip_id[:-3])
    with pytest.raises(InputError, match="several clips"):
        inspect(dataset, "asset0")
    with pytest.raises(InputError, match="no such clip"):
        inspect(dataset, "nobody")


def test_sheet_of_a_clip_shows_its_frames_in_order(dataset, tmp_path):
    # Oracle: the frames through the contract's own composite; at this size nothing is resized.
    source = Dataset.open(dataset)
    clip_id = next(iter(source.clips()))["clip_id"]
    printed(dataset, clip_id, out=tmp_path / "deep" / "sheet.png", background="grey")
    page = np.asarray(Image.open(tmp_path / "deep" / "sheet.png"))
    expected = composite_frames(source.frames(clip_id), [128 / 255] * 3)
    size, left, top = 16, page.shape[1] - 3 * 16, page.shape[0] - 2 * 16
    for view in range(2):
        for frame in range(3):
            y, x = top + view * size, left + frame * size
            found = page[y : y + size, x : x + size].astype(int)
            assert np.abs(found - expected[view, frame]).max() <= 1


def test_sheet_of_a_dataset_has_a_row_a_clip(dataset, tmp_path):
    printed(dataset, out=tmp_path / "sheet.png")
    assert Image.open(tmp_path / "sheet.png").height >= 5 * 16


def test_names_cannot_drive_the_terminal(dataset, tmp_path):
    # Oracle: the characters of the output; rich's own markup and control sequences in a name stay text.
    folder = tmp_path / "data"
    shutil.copytree(dataset, folder)
    rows = list(iter_rows(folder / "clips.parquet"))
    for row in rows:
        row["animation_name"] = "\x1b]0;owned\x07[bold red]x[/]"
    write_rows(folder / "clips.parquet", rows, CLIPS)
    text = printed(folder)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[bold red]x" in text


def test_unknown_background_and_no_dataset_are_refused(dataset, tmp_path):
    with pytest.raises(InputError, match="checker, grey, white"):
        inspect(dataset, background="pink")
    with pytest.raises(DatasetError):
        inspect(tmp_path)


def test_empty_dataset_has_a_table_but_no_sheet(tmp_path):
    folder = make_tiny_dataset(tmp_path / "data", clips=0)
    assert "static 1" in printed(folder)
    with pytest.raises(InputError, match="no accepted clip"):
        inspect(folder, out=tmp_path / "sheet.png", console=Console(file=io.StringIO()))
    assert not (tmp_path / "sheet.png").exists()


def test_resizing_does_not_darken_edges():
    # Oracle: premultiplied averaging; a white disc on nothing stays white wherever it is visible.
    rgba = np.zeros((1, 64, 64, 4), np.uint8)
    y, x = np.indices((64, 64)) - 31.5
    rgba[0, np.hypot(x, y) < 25] = 255
    small = np.asarray(draw_sheet(lambda view, frames: rgba, (0,), (0,), 16, 16))
    assert small[small[..., 3] > 8][:, :3].min() >= 250


@pytest.mark.parametrize("background", ["grey", "white", "black", "checker"])
def test_composite_keeps_opaque_pixels_and_fills_the_rest(background):
    # Oracle: the definition of alpha at its two ends.
    pixels = np.zeros((16, 16, 4), np.uint8)
    pixels[:8] = (10, 200, 30, 255)
    result = np.asarray(composite(Image.fromarray(pixels), background))
    assert (result[:8] == (10, 200, 30)).all()
    assert (result[8:] == result[8:, :, :1]).all()
    assert len(np.unique(result[8:])) == (2 if background == "checker" else 1)
