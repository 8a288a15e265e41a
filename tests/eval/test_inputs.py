"""Inputs: files made in each layout, what they become, and what is refused; references, truths and prompts."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from eval.inputs import (
    KINDS,
    FirstFrame,
    detect,
    first_frame_references,
    open_input,
    open_references,
    open_truths,
    parse_view,
    read_prompts,
    safe_name,
)
from eval.inputs.importer import straighten
from eval.items import Item
from eval.protocols import PROTOCOLS
from manifests.dataset import Dataset
from manifests.errors import InputError
from manifests.images import composite
from tests.eval.media_files import make_clip, write_frames, write_video
from tests.tiny_dataset import make_pixels, make_tiny_dataset

CLIP = make_clip(4, 16, 16)
OPAQUE = CLIP.copy()
OPAQUE[..., 3] = 255


def views(items: list[Item]) -> dict[str, list[str]]:
    return {item.object_id: [video.view for video in item.videos] for item in items}


def refused(*words: str, **arguments) -> str:
    """The message of `open_input`; it has the words."""
    with pytest.raises(InputError) as error:
        open_input(**arguments)
    assert all(word in str(error.value) for word in words), error.value
    return str(error.value)


# -- names -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a090e+15", (90, 15)), ("a315e-30", (315, -30)), ("elv_15_azi_90", (90, 15)), ("elv_0_azi_-45", (315, 0)),
        ("azimuth_90_elevation_15", (90, 15)), ("Az90_El-5", (90, -5)), ("a22.5e7.5", (22.5, 7.5)),
        ("090", (90, None)), ("-45", (315, None)), ("azimuth_90", (90, None)), ("azi_270", (270, None)),
        ("view_0", None), ("front", None), ("orbit", None), ("elv_95_azi_0", None), ("", None), ("eval_0", None),
        ("a090e+15 copy", None), ("v00", None),
    ],
)  # fmt: skip
def test_view_names_state_directions(name, expected):
    """By the docstring's grammar."""
    assert parse_view(name) == expected


def test_view_names_of_the_protocols_are_read_back():
    """Round trip through `view_name`, of every camera of both protocols."""
    for rules in PROTOCOLS.values():
        for name, (azimuth, elevation) in zip(rules.views, rules.cameras, strict=True):
            assert parse_view(name) == (azimuth % 360, elevation)


def test_safe_names_are_safe_and_distinct():
    """Ids that are safe stay; no two of the others meet."""
    assert safe_name("fox-000-1a2b3c4d5e") == "fox-000-1a2b3c4d5e"
    ids = [
        "a b",
        "a_b",
        "a  b",
        "ä",
        "é",
        "e\u0301",
        "..",
        ".",
        "",
        "-x",
        "x.",
        "../x",
        "/etc",
        "x" * 300,
        "x" * 301,
        "\ud800",
    ]
    names = [safe_name(text) for text in ids]
    assert len({name.casefold() for name in names}) == len(ids)
    for name in names:
        assert name.isascii()
        assert 0 < len(name) <= 100
        assert Path(name).name == name
        assert name[0] not in ".-"


# -- the general layouts -----------------------------------------------------------------------------------------------


def test_folders_of_frames_and_files_become_views(tmp_path):
    """Names with spaces and Unicode are kept; both forms may be mixed; frames are read when asked for."""
    write_frames(tmp_path / "Füchslein 1" / "a090e+15", CLIP)
    write_video(tmp_path / "Füchslein 1" / "elv_15_azi_-90.mp4", CLIP, fps=8)
    write_video(tmp_path / "fox" / "view_0.mov", CLIP, fps=16, codec="png", pix_fmt="rgba", options={})
    assert detect(tmp_path) == "folders"
    items = open_input(tmp_path, fps=None)
    assert views(items) == {"Füchslein 1": ["a090e+15", "a270e+15"], "fox": ["view_0"]}
    frames, file = items[0].videos
    assert (frames.azimuth_deg, frames.elevation_deg, frames.fps, frames.has_alpha) == (90, 15, None, True)
    assert (file.azimuth_deg, file.elevation_deg, file.fps, file.has_alpha) == (270, 15, 8.0, False)
    assert (frames.source, file.source) == ("Füchslein 1/a090e+15", "Füchslein 1/elv_15_azi_-90.mp4")
    np.testing.assert_array_equal(frames.read(), CLIP)
    np.testing.assert_array_equal(file.read()[..., :3], CLIP[..., :3])
    [unknown] = items[1].videos
    assert (unknown.azimuth_deg, unknown.elevation_deg, unknown.fps, unknown.has_alpha) == (None, None, 16.0, True)
    again = pickle.loads(pickle.dumps(items))
    np.testing.assert_array_equal(again[0].videos[0].read(), CLIP)


def test_rate_of_frames_is_given_and_that_of_files_kept(tmp_path):
    """A rate that contradicts a file is refused, since one of the two is wrong."""
    write_frames(tmp_path / "fox" / "a000e+00", CLIP)
    assert open_input(tmp_path)[0].videos[0].fps is None
    assert open_input(tmp_path, fps=8)[0].videos[0].fps == 8
    write_video(tmp_path / "fox" / "a090e+00.mp4", CLIP, fps=16)
    assert [video.fps for video in open_input(tmp_path, fps=16)[0].videos] == [16, 16]
    refused("found 16 frames a second", "the 8 of --fps", path=tmp_path, fps=8)
    refused("--fps", "more than 0", path=tmp_path, fps=-1)


def test_azimuth_alone_needs_an_elevation(tmp_path):
    """Nothing is assumed; the option says it for all."""
    for name in ("000", "090", "180", "270"):
        write_frames(tmp_path / "fox" / name, CLIP)
    refused("'000'", "--elevation-deg", path=tmp_path)
    assert views(open_input(tmp_path, elevation_deg=0)) == {"fox": list(PROTOCOLS["threetofour"].views)}


def test_content_changes_with_bytes_cameras_and_rate_and_not_with_the_place(tmp_path):
    """Against copies with one thing changed."""
    write_frames(tmp_path / "one" / "fox" / "a000e+00", CLIP)
    write_frames(tmp_path / "one" / "fox" / "a090e+00", CLIP)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    [one], [two] = open_input(tmp_path / "one"), open_input(tmp_path / "two")
    assert one.content == two.content
    changed = {open_input(tmp_path / "one", fps=8)[0].content}
    picture = tmp_path / "two" / "fox" / "a090e+00" / "003.png"
    pixels = np.array(Image.open(picture))
    pixels[8, 8, 0] ^= 1
    Image.fromarray(pixels).save(picture)
    changed.add(open_input(tmp_path / "two")[0].content)
    (tmp_path / "one" / "fox" / "a090e+00").rename(tmp_path / "one" / "fox" / "a090e+15")
    changed.add(open_input(tmp_path / "one")[0].content)
    assert len(changed | {one.content}) == 4


def test_damaged_file_speaks_when_it_is_read(tmp_path):
    """The other view and the other object are there; the message names the file."""
    write_video(tmp_path / "fox" / "a000e+00.mp4", CLIP)
    (tmp_path / "fox" / "a090e+00.mp4").write_bytes(b"")
    write_frames(tmp_path / "cat" / "a000e+00", CLIP)
    (tmp_path / "cat" / "a000e+00" / "002.png").write_bytes(b"x")
    cat, fox = open_input(tmp_path)
    assert fox.videos[0].read().shape == CLIP.shape
    for video, name in ((fox.videos[1], "a090e+00.mp4"), (cat.videos[0], "002.png")):
        with pytest.raises(InputError, match=name.replace("+", r"\+")):
            video.read()


def test_tiled_videos_are_cut(tmp_path):
    """Against the clips that were put side by side."""
    clips = [make_clip(3, 16, 16, seed=k) for k in range(4)]
    rows = [np.concatenate(clips[:2], axis=2), np.concatenate(clips[2:], axis=2)]
    write_video(tmp_path / "fox.mp4", np.concatenate(rows, axis=1))
    cameras = tuple((90.0 * k, 0.0) for k in range(4))
    assert detect(tmp_path, tiled=True) == "tiled"
    [item] = open_input(tmp_path, tiles=(2, 2), cameras=cameras)
    assert item.object_id == "fox"
    for video, clip in zip(item.videos, clips, strict=True):
        np.testing.assert_array_equal(video.read()[..., :3], clip[..., :3])
    refused("found none of the layouts", path=tmp_path)
    refused("--tiles", path=tmp_path, kind="tiled")
    refused("found 1 cameras for 2 x 2", path=tmp_path, tiles=(2, 2), cameras=((0.0, 0.0),))
    [item] = open_input(tmp_path, tiles=(1, 3), cameras=cameras[:3])
    with pytest.raises(InputError, match=r"fox\.mp4.*32x32.*3 columns"):
        item.videos[0].read()


# -- the layouts of methods --------------------------------------------------------------------------------------------


def mixed_on_grey(clip: np.ndarray) -> np.ndarray:
    """As Animate3D stores it: RGB on 0.5 grey, alpha beside it, cut to whole numbers."""
    alpha = clip[..., 3:] / 255
    return np.concatenate([clip[..., :3] * alpha + (1 - alpha) * 127.5, clip[..., 3:]], -1).astype(np.uint8)


@pytest.fixture
def soft() -> np.ndarray:
    """A clip with every alpha."""
    clip = make_clip(16, 16, 16)
    clip[..., 3] = np.where(clip[..., 3] > 0, np.arange(16) * 17, 0)[..., :]
    clip[clip[..., 3] == 0] = 0
    return clip


def test_animate3d_numbers_are_cameras(tmp_path, soft):
    """Against the protocol's cameras; the code numbers them, and puts grey behind."""
    run = tmp_path / "outputs" / "animate3d" / "refine" / "a_butterfly" / "save"
    for i in range(3):
        for j in range(4):
            write_frames(run / "images" / f"elv_{i}_azi_{j}", mixed_on_grey(soft), "{}.png")
    for root in (tmp_path, tmp_path / "outputs" / "animate3d", run.parent, run, run / "images"):
        assert detect(root) == "animate3d"
        [item] = open_input(root)
        assert item.object_id == "a_butterfly"
        assert {video.view for video in item.videos} == set(PROTOCOLS["animate3d"].views)
    assert {video.fps for video in item.videos} == {8.0}
    assert open_input(run, fps=4)[0].videos[0].fps == 4
    places = {video.source: video.view for video in item.videos}
    assert places["elv_0_azi_1"] == "a090e+15"
    assert places["elv_1_azi_0"] == "a030e+00"
    assert places["elv_2_azi_0"] == "a315e+30"
    found = item.videos[0].read()
    np.testing.assert_array_equal(found[..., 3], soft[..., 3])
    for grey in (127, 255):
        behind = (np.full(3, grey / 255)).tolist()
        shown, expected = composite(found, behind).astype(int), composite(soft, behind).astype(int)
        assert np.abs(shown - expected).max() <= 2


def test_animate3d_degrees_are_another_layout(tmp_path, soft):
    """Names of degrees are read as what they say, with straight alpha and no rate; both in one input are refused."""
    for name in ("elv_15_azi_0", "elv_15_azi_90", "elv_0_azi_30", "elv_30_azi_-45"):
        write_frames(tmp_path / "fox" / name, soft)
    assert detect(tmp_path) == "folders"
    [fox] = open_input(tmp_path)
    assert views([fox]) == {"fox": ["a000e+15", "a030e+00", "a090e+15", "a315e+30"]}
    np.testing.assert_array_equal(fox.videos[0].read(), soft)
    assert fox.videos[0].fps is None
    write_frames(tmp_path / "cat" / "elv_0_azi_1", mixed_on_grey(soft))
    refused("does not write", "--kind folders", path=tmp_path)
    shutil.rmtree(tmp_path / "fox")
    assert views(open_input(tmp_path)) == {"cat": ["a090e+15"]}
    write_frames(tmp_path / "cat" / "a000e+00", soft)
    refused("a000e+00", "does not write", path=tmp_path)


def test_straight_alpha_stays_straight(soft):
    """Pictures without the grey behind them are left alone."""
    assert straighten(soft, 127.5) is soft
    assert np.abs(straighten(mixed_on_grey(CLIP), 127.5).astype(int) - CLIP).max() <= 1


def make_threestudio(root: Path, name: str, tag: str, views: int = 4, step: int = 300, **config: object) -> Path:
    """A run with validation videos of two steps, a test video and pictures beside them."""
    run = root / name / f"{tag}@20240101-120000"
    for at in (step - 100, step):
        for k in range(views):
            write_video(run / "save" / f"it{at}-{k}_video.mp4", make_clip(4, 16, 16, seed=at + k), fps=16)
    write_video(run / "save" / f"it{step}-test.mp4", CLIP, fps=15)
    write_frames(run / "save" / f"it{step}-test", CLIP)
    (run / "configs").mkdir()
    lines = "".join(f"  {key}: {value}\n" for key, value in config.items())
    (run / "configs" / "parsed.yaml").write_text(f"name: {name}\nsystem_type: {name}-system\ndata:\n{lines}")
    return run


def test_4dfy_validation_videos_are_views(tmp_path):
    """The largest step, four azimuths, the default elevation; a run, its parent and the outputs give the same."""
    run = make_threestudio(tmp_path / "outputs", "fourdfy_stage_3", "a_panda_dancing")
    for root in (tmp_path, tmp_path / "outputs", run, run / "save"):
        assert detect(root) == "4dfy"
        [item] = open_input(root)
        assert item.object_id == "a_panda_dancing"
    assert [video.view for video in item.videos] == ["a000e+15", "a090e+15", "a180e+15", "a270e+15"]
    assert {video.fps for video in item.videos} == {16.0}
    np.testing.assert_array_equal(item.videos[2].read()[..., :3], make_clip(4, 16, 16, seed=302)[..., :3])


def test_animate124_validation_videos_are_views(tmp_path):
    """Two objects; the elevation is the config's, else the method's default 0."""
    make_threestudio(tmp_path, "animate124-stage3", "a_fox", eval_elevation_deg=5.0)
    make_threestudio(tmp_path, "animate124-stage3", "a_cat", eval_elevation_deg="${data.image.default_elevation_deg}")
    assert detect(tmp_path) == "animate124"
    cat, fox = open_input(tmp_path)
    assert [video.view for video in fox.videos] == ["a000e+05", "a090e+05", "a180e+05", "a270e+05"]
    assert [video.view for video in cat.videos] == list(PROTOCOLS["threetofour"].views)
    refused("eval_elevation_deg 5", path=tmp_path, elevation_deg=30)


def test_threestudio_tiles_beside_the_rgb_are_left_out(tmp_path):
    """Older writers put normals and opacity to the right."""
    run = make_threestudio(tmp_path, "fourdfy", "a_fox")
    for k in range(4):
        wide = np.concatenate([make_clip(4, 16, 16, seed=k), OPAQUE, OPAQUE], axis=2)
        write_video(run / "save" / f"it300-{k}_video.mp4", wide, fps=16)
    [item] = open_input(tmp_path)
    np.testing.assert_array_equal(item.videos[1].read()[..., :3], make_clip(4, 16, 16, seed=1)[..., :3])


def test_threestudio_ambiguity_is_refused(tmp_path):
    """Two runs of one object; a missing view; a run that does not say whose it is."""
    make_threestudio(tmp_path / "a", "fourdfy_stage_2", "a_fox")
    run = make_threestudio(tmp_path / "a", "fourdfy_stage_3", "a_fox")
    refused("fourdfy_stage_2", "fourdfy_stage_3", "one run an object", path=tmp_path / "a")
    (run / "save" / "it300-1_video.mp4").unlink()
    refused("found views [0, 2, 3]", path=run)
    make_threestudio(tmp_path / "b", "mine", "a_fox")
    refused("4dfy", "animate124", "--kind", path=tmp_path / "b")
    assert len(open_input(tmp_path / "b", kind="animate124")) == 1


def test_stag4d_front_and_back_are_views(tmp_path):
    """The largest step; the video beside the frames is not read; the rate is unknown until given."""
    for step in (10, 4010, 910):
        for side in ("front", "back"):
            write_frames(tmp_path / "valid" / "panda walk" / f"{step}_{side}", OPAQUE, "{:02d}.jpg", "RGB")
            write_video(tmp_path / "valid" / "panda walk" / f"{step}_{side}" / "video.mp4", CLIP, fps=10)
    for root in (tmp_path, tmp_path / "valid", tmp_path / "valid" / "panda walk"):
        assert detect(root) == "stag4d"
        [item] = open_input(root)
        assert views([item]) == {"panda walk": ["a000e+00", "a180e+00"]}
    assert item.videos[0].source == "4010_front"
    assert item.videos[0].fps is None
    assert open_input(tmp_path, fps=7)[0].videos[0].fps == 7
    assert item.videos[0].read().shape == OPAQUE.shape


def make_orbit(motion: int) -> np.ndarray:
    """As DreamGaussian4D renders it: eight stops of the motion, 15 frames of travel after each."""
    parts = []
    for stop in range(8):
        part = make_clip(motion + 15, 16, 16, seed=stop)
        part[..., 0] = stop * 30
        parts.append(part)
    return np.concatenate(parts)


def test_dreamgaussian4d_stops_are_views(tmp_path):
    """Against the frames of each stop; the refined video moves all the time and is not read beside it."""
    video = make_orbit(5)
    write_video(tmp_path / "vis_data" / "fox.mp4", video, fps=7)
    write_video(tmp_path / "vis_data" / "fox_refined.mp4", CLIP, fps=7)
    write_video(tmp_path / "vis_data" / "cat_refined.mp4", CLIP, fps=7)
    for root in (tmp_path, tmp_path / "vis_data"):
        assert detect(root) == "dreamgaussian4d"
        cat, fox = open_input(root)
        assert views([cat]) == {"cat": ["orbit"]}
    assert (cat.videos[0].azimuth_deg, cat.videos[0].fps) == (None, 7.0)
    assert [video.azimuth_deg for video in fox.videos] == [45 * k for k in range(8)]
    np.testing.assert_array_equal(fox.videos[2].read()[..., :3], video[40:45, ..., :3])
    assert set(PROTOCOLS["threetofour"].views) < {video.view for video in fox.videos}


def test_dreamgaussian4d_gaussians_are_refused(tmp_path):
    """The message says to render fixed views first."""
    (tmp_path / "logs" / "fox_frames").mkdir(parents=True)
    (tmp_path / "logs" / "fox_frames" / "000.ply").write_bytes(b"ply")
    refused("fox_frames", "PLY", "render", "OBJECT/VIEW", path=tmp_path)


# -- detection and refusals --------------------------------------------------------------------------------------------


def test_nothing_and_too_much_are_refused(tmp_path):
    """The message lists what was looked for, or what was found."""
    text = refused("found none of the layouts", path=tmp_path)
    assert all(name in text for name in KINDS)
    write_frames(tmp_path / "valid" / "fox" / "10_front", OPAQUE, "{:02d}.jpg", "RGB")
    write_frames(tmp_path / "fox" / "elv_0_azi_0", CLIP)
    refused("several layouts", "stag4d", "animate3d", "--kind", path=tmp_path)
    assert views(open_input(tmp_path, kind="stag4d")) == {"fox": ["a000e+00"]}
    refused("did you mean folders", path=tmp_path, kind="folder")
    refused("found nothing", path=tmp_path / "none")
    (tmp_path / "file").touch()
    refused("found a file", path=tmp_path / "file")


def test_options_of_another_layout_are_refused(tmp_path):
    """What would not be used is not taken."""
    write_frames(tmp_path / "fox" / "a000e+00", CLIP)
    refused("--cameras", "kind folders", path=tmp_path, cameras=((0.0, 0.0),))
    refused("--tiles", "kind folders", path=tmp_path, kind="folders", tiles=(1, 2))
    make_tiny_dataset(tmp_path / "data", clips=1)
    refused("--fps", "kind dataset", path=tmp_path / "data", fps=8)


def test_two_of_one_view_and_empty_objects_are_refused(tmp_path):
    """The message names both, or the folder."""
    write_frames(tmp_path / "fox" / "a000e+00", CLIP)
    write_frames(tmp_path / "fox" / "elv_0_azi_360", CLIP)
    refused("fox/a000e+00", "fox/elv_0_azi_360", "remove one", path=tmp_path)
    shutil.rmtree(tmp_path / "fox" / "elv_0_azi_360")
    (tmp_path / "cat").mkdir()
    refused("no video of cat", path=tmp_path)
    (tmp_path / "cat" / "a000e+00").mkdir()
    refused("no picture", "cat", path=tmp_path)


def test_links_out_of_the_input_are_refused(tmp_path):
    """A folder and a file that lead out, one to nothing and one in a circle; links inside are followed."""
    write_frames(tmp_path / "secret" / "a000e+00", CLIP)
    write_frames(tmp_path / "in" / "fox" / "a000e+00", CLIP)
    for name, target in (("cat", "../secret"), ("fox/a090e+00", "../../secret/a000e+00"), ("fox/loop", "..")):
        link = tmp_path / "in" / name
        os.symlink(target, link)
        refused(link.name, "link", path=tmp_path / "in")
        link.unlink()
    os.symlink("nowhere", tmp_path / "in" / "gone")
    refused("link to nothing", path=tmp_path / "in")
    (tmp_path / "in" / "gone").unlink()
    os.symlink("a000e+00", tmp_path / "in" / "fox" / "a090e+00")
    [item] = open_input(tmp_path / "in")
    assert len(item.videos) == 2
    os.symlink(tmp_path / "in", tmp_path / "elsewhere")
    assert len(open_input(tmp_path / "elsewhere")) == 1


# -- datasets ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Path:
    """Five clips of three assets, two views, depth."""
    return make_tiny_dataset(tmp_path_factory.mktemp("data") / "tiny", clips=5, depth=True)


def test_dataset_is_read_by_position(dataset):
    """Against the dataset's own reader and the pixels it was made from."""
    assert detect(dataset) == "dataset"
    items = open_input(dataset)
    source = Dataset.open(dataset)
    rows = {row["clip_id"]: row for row in source.clips()}
    assert [item.object_id for item in items] == sorted(item.object_id for item in items)
    # Assets 0 and 1 have two clips each, asset 2 has one.
    alone = [item for item in items if item.object_id not in rows]
    assert [item.object_id for item in alone] == [
        row["asset_id"] for row in rows.values() if "asset2" in row["asset_id"]
    ]
    for item in items:
        key = item.object_id if item.object_id in rows else f"{item.object_id}-000-00"
        cameras = source.sample(key)["cameras"]
        for k, video in enumerate(item.videos):
            assert video.azimuth_deg == pytest.approx((cameras["azimuth_deg"][k] - 270) % 360)
            assert video.elevation_deg == cameras["elevation_deg"][k]
            assert (video.fps, video.has_alpha) == (8.0, True)
            np.testing.assert_array_equal(video.c2w, cameras["c2w"][k])
            np.testing.assert_array_equal(video.K, cameras["K"][k])
            np.testing.assert_array_equal(video.read(), source.frames(key, [k])[0])
            np.testing.assert_array_equal(video.read_depth(), source.depth(key, [k])[0])
    number = 4
    np.testing.assert_array_equal(alone[0].videos[1].read(), make_pixels(number, views=2, frames=3, size=16)[1])
    assert len({item.content for item in items}) == 5
    assert [item.content for item in open_input(dataset)] == [item.content for item in items]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(items[0])).videos[0].read(), items[0].videos[0].read())


def test_dataset_with_damaged_bytes_is_an_input_error(dataset, tmp_path):
    """The message names tar, clip and view."""
    copy = tmp_path / "copy"
    shutil.copytree(dataset, copy)
    tar = next((copy / "shards").glob("train-00000.tar"))
    key, row = next(iter(Dataset.open(copy).index("train-00000").items()))
    data = bytearray(tar.read_bytes())
    data[row.frame_offsets()[4] : row.frame_offsets()[4] + 12] = bytes(12)
    tar.write_bytes(data)
    item = next(item for item in open_input(copy) if key in item.videos[1].source)
    assert item.videos[0].read().shape == (3, 16, 16, 4)
    with pytest.raises(InputError, match="view 1"):
        item.videos[1].read()


# -- references and truths ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stills(tmp_path_factory) -> Path:
    """One still each of assets 0 and 1 (clips 0, 2), frames 1; azimuths 0 and 180 plus the clip's number."""
    return make_tiny_dataset(tmp_path_factory.mktemp("stills") / "stills", clips=1, frames=1)


def frames_at(folder: Path, object_id: str, *directions: str) -> list[Item]:
    for name in directions:
        write_frames(folder / object_id / name, make_clip(3, 16, 16))
    return open_input(folder, kind="folders")


def test_stills_match_by_id_hash_and_direction(stills, tmp_path):
    """Against the pixels of the still's view; a degree is near enough, two are not."""
    [row] = list(Dataset.open(stills).clips())
    # Views of clip 0 stand at 0 and 180 in the world, elevation 10; the front is at 270.
    names = ("a090e+10", "a271e+10", "a092e+10", "orbit")
    for object_id, hashes in ((row["asset_id"], {}), (row["clip_id"], {}), ("fox", {"fox": row["asset_sha256"]})):
        items = frames_at(tmp_path / object_id, object_id, *names)
        [item] = open_references([stills], items, sha256=hashes)
        assert set(item.references) == {"a090e+10", "a271e+10"}
        np.testing.assert_array_equal(item.references["a090e+10"](), make_pixels(0, views=2, frames=1, size=16)[0, 0])
        np.testing.assert_array_equal(item.references["a271e+10"](), make_pixels(0, views=2, frames=1, size=16)[1, 0])
        assert item.orbit is None
        assert item.content != items[0].content
    with pytest.raises(InputError, match="no reference for any of 1 objects"):
        open_references([stills], frames_at(tmp_path / "other", "dog", *names))


def test_clips_that_move_are_no_references(dataset, tmp_path):
    """They would be frame 0 of the truth."""
    with pytest.raises(InputError, match="mvv still"):
        open_references([dataset], frames_at(tmp_path, "fox", "a000e+00"))


@pytest.mark.parametrize(("count", "is_ring"), [(16, True), (15, True), (14, False), (4, False)])
def test_ring_of_stills_is_the_orbit(count, is_ring, tmp_path):
    """16 views are 22.5 degrees apart, 15 are 24; frames come in the order of azimuths."""
    ring = make_tiny_dataset(tmp_path / "ring", clips=1, views=count, frames=1)
    [still] = open_input(ring)
    near = still.videos[0]
    items = frames_at(tmp_path / "method", still.object_id, near.view)
    [item] = open_references([ring], items)
    assert (item.orbit is not None) is is_ring
    if is_ring:
        shown = sorted(still.videos, key=lambda video: video.azimuth_deg)
        np.testing.assert_array_equal(item.orbit(), np.stack([video.read()[0] for video in shown]))


def test_first_of_two_paths_counts(stills, tmp_path):
    """A folder before a dataset and the other way round; the ring comes from whoever has it."""
    [row] = list(Dataset.open(stills).clips())
    ring = make_tiny_dataset(tmp_path / "ring", clips=1, views=16, frames=1)
    items = frames_at(tmp_path / "method", row["asset_id"], "a090e+10")
    (tmp_path / "pictures" / row["asset_id"]).mkdir(parents=True)
    Image.fromarray(CLIP[0]).save(tmp_path / "pictures" / row["asset_id"] / "elv_10_azi_90.png")
    [one] = open_references([tmp_path / "pictures", stills, ring], items)
    np.testing.assert_array_equal(one.references["a090e+10"](), CLIP[0])
    [other] = open_references([stills, tmp_path / "pictures", ring], items)
    np.testing.assert_array_equal(other.references["a090e+10"](), make_pixels(0, views=2, frames=1, size=16)[0, 0])
    assert one.orbit is not None
    assert one.content != other.content


def test_pictures_match_by_name_or_direction(tmp_path):
    """A view of unknown direction by its name alone; two pictures for one view are refused."""
    items = frames_at(tmp_path / "in", "fox", "a000e+15", "orbit")
    folder = tmp_path / "pictures" / "fox"
    folder.mkdir(parents=True)
    Image.fromarray(CLIP[1]).save(folder / "elv_15_azi_0.png")
    Image.fromarray(CLIP[2]).save(folder / "orbit.webp", lossless=True, exact=True)
    [item] = open_references([tmp_path / "pictures"], items)
    np.testing.assert_array_equal(item.references["a000e+15"](), CLIP[1])
    np.testing.assert_array_equal(item.references["orbit"](), CLIP[2])
    Image.fromarray(CLIP[1]).save(folder / "a000e15.png")
    with pytest.raises(InputError, match=r"a000e15\.png and elv_15_azi_0\.png"):
        open_references([tmp_path / "pictures"], items)


def test_first_frames_are_references(tmp_path):
    """Against frame 0; the reader says which video it belongs to, so that nothing is decoded twice."""
    items = frames_at(tmp_path, "fox", "a000e+15", "orbit")
    [item] = first_frame_references(items)
    assert set(item.references) == {"a000e+15", "orbit"}
    reader = item.references["orbit"]
    assert isinstance(reader, FirstFrame)
    assert reader.video == item.videos[1].read
    np.testing.assert_array_equal(reader(), item.videos[1].read()[0])
    assert item.content != items[0].content


def test_truths_match_like_references(dataset, tmp_path):
    """A dataset against its own views, and folders; an asset with several clips is refused for the asset alone."""
    items = open_input(dataset)
    for item, source in zip(open_truths(dataset, items), items, strict=True):
        assert set(item.truths) == {video.view for video in item.videos}
        np.testing.assert_array_equal(item.truths[item.videos[0].view](), source.videos[0].read())
    with pytest.raises(InputError, match="one clip an object"):
        open_truths(dataset, frames_at(tmp_path / "a", items[0].object_id[:-7], "a090e+10"))
    method = frames_at(tmp_path / "b", "fox", "a000e+00", "a090e+00")
    write_video(tmp_path / "truth" / "fox" / "elv_0_azi_90.mp4", CLIP)
    [item] = open_truths(tmp_path / "truth", method)
    assert set(item.truths) == {"a090e+00"}
    np.testing.assert_array_equal(item.truths["a090e+00"]()[..., :3], CLIP[..., :3])
    write_video(tmp_path / "wrong" / "dog" / "elv_0_azi_90.mp4", CLIP)
    with pytest.raises(InputError, match="no ground-truth clip"):
        open_truths(tmp_path / "wrong", method)


# -- prompts -----------------------------------------------------------------------------------------------------------

PROMPTS = {"Füchs 1": ("a fox, red, runs", "fox"), "cat": ("a cat jumps", "")}


def test_prompts_are_the_same_from_every_format(tmp_path):
    """JSON in both forms, CSV with a byte-order mark and quotes, Parquet by another writer."""
    content = {"Füchs 1": {"prompt": "a fox, red, runs", "word": "fox"}, "cat": " a cat jumps "}
    (tmp_path / "a.json").write_text(json.dumps(content, ensure_ascii=False), "utf-8")
    (tmp_path / "a.csv").write_text(
        'object_id,prompt,word\r\nFüchs 1,"a fox, red, runs",fox\r\ncat,a cat jumps,\r\n', "utf-8-sig"
    )
    table = {
        "object_id": list(PROMPTS),
        "prompt": [p for p, _ in PROMPTS.values()],
        "word": [w for _, w in PROMPTS.values()],
    }
    pq.write_table(pa.table({**table, "license": ["CC0-1.0"] * 2}), tmp_path / "a.parquet")
    for name in ("a.json", "a.csv", "a.parquet"):
        assert read_prompts(tmp_path / name) == PROMPTS
    (tmp_path / "b.csv").write_text("prompt,object_id\na cat jumps,cat\n")
    assert read_prompts(tmp_path / "b.csv") == {"cat": ("a cat jumps", "")}


@pytest.mark.parametrize(
    ("name", "text", "word"),
    [
        ("a.json", '{"fox": "runs", "fox": "jumps"}', "twice"),
        ("a.json", '{"fox": {"prompt": "runs", "text": "x"}}', "columns prompt, text"),
        ("a.json", '{"fox": {"word": "fox"}}', "columns word"),
        ("a.json", '{"fox": 3}', "expected text"),
        ("a.json", '["fox"]', "JSON list"),
        ("a.json", "{", "expected JSON"),
        ("a.json", "{}", "no prompt"),
        ("a.json", '{"fox": " "}', "neither empty"),
        ("a.json", '{"fox": {"prompt": "a cat", "word": "fox"}}', "found word 'fox'"),
        ("a.csv", "object_id,prompt\nfox,runs\nfox,jumps\n", "twice"),
        ("a.csv", "object_id,text\nfox,runs\n", "columns object_id, text"),
        ("a.csv", "object_id,prompt,colour\nfox,runs,red\n", "columns object_id, prompt, colour"),
        ("a.csv", "object_id,prompt\nfox,a fox, red\n", "3 values in row 2"),
        ("a.csv", "", "columns none"),
        ("a.csv", b"object_id,prompt\nfox,\xff\n", "CSV in UTF-8"),
        ("a.parquet", "no", "Parquet"),
        ("a.txt", "fox: runs", "suffix '.txt'"),
    ],
)
def test_bad_prompts_are_refused(name, text, word, tmp_path):
    """Each message names the file and what was found."""
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError) as error:
        read_prompts(path)
    assert name in str(error.value)
    assert word in str(error.value)


def test_missing_prompts_are_refused(tmp_path):
    """A path that is not there."""
    with pytest.raises(InputError, match="No such file"):
        read_prompts(tmp_path / "none.json")
