"""Frames and videos: read back by the evaluation suite, and seen through a renderer that draws what it was asked."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from animate.export.frames import (
    EVALUATIONS,
    FrameOptions,
    view_name,
    write_evaluation,
    write_orbit,
    write_video,
)
from eval.decode import read_video
from eval.inputs.kinds import detect, open_input
from eval.items import view_name as suite_view_name
from eval.protocols import PROTOCOLS
from manifests.cameras import angles_of

SIZE = 16


class Drawer:
    """Writes frame, azimuth and elevation into the colours, and half of the picture transparent with colour in it."""

    def __init__(self):
        self.calls = []

    def __call__(self, frames, c2w, K, size):
        self.calls.append((len(frames), size))
        assert K.shape == (len(frames), 3, 3)
        out = np.zeros((len(frames), size, size, 4), np.uint8)
        for image, frame, camera in zip(out, frames, c2w, strict=True):
            azimuth, elevation, distance = angles_of(camera)
            assert distance == pytest.approx(1.5)
            image[:] = [10 * frame, round(azimuth / 2) % 180, 90 + round(elevation), 255]
            image[:, size // 2 :, 3] = 0
        return out


@pytest.mark.parametrize("preset", EVALUATIONS)
def test_evaluation_views_are_what_the_suite_reads(tmp_path, preset):
    """Oracle: the suite's importer and protocol: kind, views, directions, frames; the drawn frame and camera."""
    options = FrameOptions(size=SIZE, front_azimuth_deg=200.0)
    names = write_evaluation(tmp_path, "fox", Drawer(), 3, preset=preset, options=options)
    folder = tmp_path / "frames" / preset
    assert detect(folder) == "folders"
    (item,) = open_input(folder, fps=8)
    protocol = next(entry for entry in PROTOCOLS.values() if entry.preset == preset)
    assert item.object_id == "fox"
    assert sorted(names) == sorted(video.view for video in item.videos) == sorted(protocol.views)
    for video in item.videos:
        rgba = video.read()
        assert video.has_alpha
        assert rgba.shape == (3, SIZE, SIZE, 4)
        assert not rgba[:, :, SIZE // 2 :].any(), "colour behind alpha 0"
        for frame in range(3):
            azimuth = (200 + video.azimuth_deg) % 360
            wanted = [10 * frame, round(azimuth / 2) % 180, 90 + round(video.elevation_deg), 255]
            assert np.abs(rgba[frame, 0, 0].astype(int) - wanted).max() <= 1, (video.view, frame)
    assert len(list((tmp_path / "videos" / preset).glob("*.mp4"))) == len(protocol.views)


def test_full_size_is_the_protocols(tmp_path):
    """Oracle: the protocol's own check of a video finds no departure."""
    write_evaluation(tmp_path, "o", Drawer(), 16, preset="eval-3to4d")
    (item,) = open_input(tmp_path / "frames" / "eval-3to4d", fps=8)
    protocol = PROTOCOLS["threetofour"]
    assert all(not protocol.departures(video, video.read().shape) for video in item.videos)


@pytest.mark.parametrize("azimuth", [-45, 0, 29.6, 90, 315, 359.7, 720])
@pytest.mark.parametrize("elevation", [-30, 0, 15, 89.5])
def test_view_names_are_those_of_the_suite(azimuth, elevation):
    """Oracle: the suite's rule."""
    assert view_name(azimuth, elevation) == suite_view_name(azimuth, elevation)


def test_orbit_circles_once_while_the_animation_plays(tmp_path):
    """Oracle: the decoded video and frames: even azimuths from the front, frames in turn."""
    options = FrameOptions(size=SIZE, orbit_plays=2, fps=5, front_azimuth_deg=0, background=(1, 1, 1))
    path = write_orbit(tmp_path, Drawer(), 4, options=options)
    pictures = [np.asarray(Image.open(p)) for p in sorted((tmp_path / "frames" / "orbit").glob("*.png"))]
    assert [int(p[0, 0, 0]) for p in pictures] == [0, 10, 20, 30] * 2
    seen = np.array([2 * int(p[0, 0, 1]) for p in pictures])
    np.testing.assert_allclose(seen, 45 * np.arange(8), atol=2)
    video = read_video(path)
    assert video.fps == 5
    assert video.rgba.shape == (8, SIZE, SIZE, 4)
    assert (video.rgba[:, :, -3:, :3] > 250).all(), "the background is not white"


def test_rendering_in_pieces_changes_nothing(tmp_path):
    """Oracle: the same files from one call as from many."""
    made = {}
    for pixels in (1, 1 << 22):
        drawer, folder = Drawer(), tmp_path / str(pixels)
        options = FrameOptions(size=SIZE, pixels_at_a_time=pixels)
        write_evaluation(folder, "o", drawer, 3, preset="eval-3to4d", options=options)
        made[pixels] = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}
        assert drawer.calls == ([(1, SIZE)] * 12 if pixels == 1 else [(3, SIZE)] * 4)
    assert made[1] == made[1 << 22]


def test_shorter_animation_leaves_no_frames_of_the_longer(tmp_path):
    """Oracle: the count of files after a second, shorter run into the same folder."""
    options = FrameOptions(size=SIZE, orbit_plays=1)
    for count in (5, 3):
        write_orbit(tmp_path, Drawer(), count, options=options)
        assert len(list((tmp_path / "frames" / "orbit").iterdir())) == count


def test_video_of_odd_size_plays(tmp_path):
    """Oracle: the suite's decoder, on 13x9 pictures; H.264 in 4:2:0 wants even sides."""
    rgba = np.full((4, 9, 13, 4), 255, np.uint8)
    rgba[..., 0] = np.arange(4)[:, None, None] * 60
    write_video(tmp_path / "a" / "v.mp4", rgba, 7.5, (0, 0, 0))
    found = read_video(tmp_path / "a" / "v.mp4")
    assert found.rgba.shape == (4, 10, 14, 4)
    assert found.fps == 7.5
    np.testing.assert_allclose(found.rgba[:, 4, 4, 0], rgba[:, 4, 4, 0], atol=12)
    assert io.BytesIO((tmp_path / "a" / "v.mp4").read_bytes()).read(12)[4:8] == b"ftyp"
