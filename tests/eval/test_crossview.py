"""Cross-view consistency on spheres and boxes that are drawn analytically with exact cameras."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from eval.extractor import Clip
from eval.metric import NotScored, Score, Subject
from eval.metrics.crossview import METRICS
from manifests.cameras import intrinsics, look_at_origin
from tests.eval.solids import box, draw, sphere

BY_NAME = {metric.card.name: metric for metric in METRICS}
SIZE = 96
CAMERAS = [(azimuth, elevation) for azimuth, elevation in ((0, 0), (90, 15), (180, 0), (250, 30))]


SCENE = [(sphere, (0.1, 0.0, 0.1), 0.22), (box, (-0.2, 0.1, -0.1), (0.1, 0.2, 0.15))]
MOVED = [(sphere, (0.1, 0.1, 0.15), 0.22), (box, (-0.15, 0.1, -0.1), (0.1, 0.2, 0.15))]


def subjects(*scenes: list, cameras=CAMERAS, size: int = SIZE) -> list[Subject]:
    """One view a camera, one frame a scene."""
    views = []
    for camera in cameras:
        rgba, depth = (np.stack(arrays) for arrays in zip(*(draw(*camera, s, size=size) for s in scenes), strict=True))
        clip = Clip(
            frames=rgba[..., :3], alpha=rgba[..., 3], depth=depth, view=f"a{camera[0]:03d}",
            c2w=look_at_origin(*camera, 1.5), K=intrinsics(40, size, size),
        )  # fmt: skip
        views.append(Subject(clip=clip, features={}))
    return views


def changed(views: list[Subject], place: int, **fields) -> list[Subject]:
    views = list(views)
    views[place] = dataclasses.replace(views[place], clip=dataclasses.replace(views[place].clip, **fields))
    return views


def shifted(views: list[Subject], place: int, pixels: int) -> list[Subject]:
    clip = views[place].clip
    moved = {name: np.roll(getattr(clip, name), pixels, axis=2) for name in ("frames", "alpha", "depth")}
    return changed(views, place, **moved)


def silhouettes(views: list[Subject]) -> Score:
    return BY_NAME["cross_view@mvvideo-1"].score(views)


def colors(views: list[Subject]) -> Score:
    return BY_NAME["cross_view_color@mvvideo-1"].score(views)


def test_views_of_one_object_agree():
    """Oracle: exact renders of one object: every object pixel is supported; colours agree but for the grid."""
    views = subjects(SCENE, MOVED)
    found = silhouettes(views)
    assert found.value == 1
    assert found.frames.tolist() == [1, 1]
    assert found.extra == {"views": 4}
    assert colors(views).value > 0.98


@pytest.mark.parametrize("measure", [silhouettes, colors])
def test_a_shifted_view_lowers_the_score_more_the_farther_it_is(measure):
    """Oracle: exact renders; one view moved aside by some pixels in all frames."""
    views = subjects(SCENE)
    values = [measure(shifted(views, 1, pixels)).value for pixels in (0, 4, 8, 16)]
    assert values == sorted(values, reverse=True)
    assert values[0] - values[1] > 0.01
    assert values[0] - values[3] > 0.1


@pytest.mark.parametrize("measure", [silhouettes, colors])
def test_a_moment_out_of_step_shows_in_that_frame_only(measure):
    """Oracle: exact renders of two moments; one view has them the wrong way round in the second of three frames."""
    views = subjects(SCENE, MOVED, SCENE)
    right = measure(views).frames
    wrong = views[2].clip
    swapped = {name: getattr(wrong, name)[[0, 0, 2]] for name in ("frames", "alpha", "depth")}
    found = measure(changed(views, 2, **swapped)).frames
    assert found[[0, 2]] == pytest.approx(right[[0, 2]])
    assert found[1] < right[1] - 0.01


def test_a_missing_limb_is_seen_from_the_views_that_show_it():
    """Oracle: the share by hand: views 0 to 2 show sphere and box, view 3 the sphere only."""
    views = subjects(SCENE)
    alone = subjects(SCENE[:1])
    found = silhouettes([*views[:3], alone[3]])
    # A pixel of the first three is supported where its ray passes the sphere's cone from view 3; never less than the
    # sphere itself, which all four see.
    least = [
        np.count_nonzero(a.clip.alpha) / np.count_nonzero(v.clip.alpha) for a, v in zip(alone, views, strict=True)
    ][:3]
    assert (sum(least) + 1) / 4 <= found.value < 0.95


def test_silhouettes_are_the_visual_hull_of_a_voxel_grid():
    """Oracle: space carving on 96^3 voxels, drawn back into the views; two views of a scene that do not fit."""
    views = subjects(SCENE, cameras=CAMERAS[:3])
    views = shifted(views, 1, 10)
    line = (np.arange(96) + 0.5) / 96 * 1.2 - 0.6
    points = np.stack(np.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
    kept, places = np.ones(len(points), bool), []
    for view in views:
        camera = (points - view.clip.c2w[:3, 3]) @ view.clip.c2w[:3, :3]
        columns = (view.clip.K[0, 0] * camera[:, 0] / -camera[:, 2] + view.clip.K[0, 2]).astype(int)
        rows = (-view.clip.K[1, 1] * camera[:, 1] / -camera[:, 2] + view.clip.K[1, 2]).astype(int)
        inside = (columns >= 0) & (columns < SIZE) & (rows >= 0) & (rows < SIZE)
        rows, columns = np.where(inside, rows, 0), np.where(inside, columns, 0)
        kept &= ~inside | (view.clip.alpha[0][rows, columns] > 127)
        places.append((rows, columns))
    shares = []
    for view, (rows, columns) in zip(views, places, strict=True):
        hull = np.zeros((SIZE, SIZE), bool)
        hull[rows[kept], columns[kept]] = True
        mask = view.clip.alpha[0] > 127
        shares.append(np.count_nonzero(hull & mask) / np.count_nonzero(mask))
    # Masks widened by a pixel here, voxels as wide as a pixel there.
    assert silhouettes(views).value == pytest.approx(np.mean(shares), abs=0.05)


def test_more_pixels_do_not_change_the_score():
    """Oracle: the same scene drawn at twice the size, which is shrunk to the grid of 128."""
    small, large = (subjects(SCENE, cameras=CAMERAS[:3], size=size) for size in (96, 192))
    a, b = silhouettes(shifted(small, 1, 8)).value, silhouettes(shifted(large, 1, 16)).value
    assert a == pytest.approx(b, abs=0.02)


def test_colours_see_what_silhouettes_cannot():
    """Oracle: one view with inverted colours: silhouettes as before, colours far lower."""
    views = subjects(SCENE)
    painted = changed(views, 0, frames=255 - views[0].clip.frames)
    assert silhouettes(painted).value == silhouettes(views).value
    assert colors(painted).value < colors(views).value - 0.1


def test_hidden_points_are_left_out():
    """Oracle: a small sphere that a large box hides from one of two views; nothing contradicts."""
    scene = [(sphere, (0.3, 0.0, 0.0), 0.08), (box, (-0.1, 0.0, 0.0), (0.05, 0.35, 0.35))]
    assert colors(subjects(scene, cameras=[(30, 0), (150, 0)])).value > 0.9


def test_an_object_that_one_view_lacks_scores_zero_there():
    """Oracle: by hand: no pixel of the others is supported, and the empty view counts as 0."""
    views = subjects(SCENE)
    empty = changed(views, 1, alpha=np.zeros_like(views[1].clip.alpha))
    assert silhouettes(empty).value == 0


@pytest.mark.parametrize("measure", [silhouettes, colors])
def test_cross_view_refuses_what_it_cannot_compare(measure):
    """Oracle: the rule that no value is made up: one view, no camera, no alpha, other lengths, no object, no depth."""
    views = subjects(SCENE, MOVED)
    with pytest.raises(NotScored, match="found 1 view"):
        measure(views[:1])
    with pytest.raises(NotScored, match="no camera of view a090"):
        measure(changed(views, 1, c2w=None))
    with pytest.raises(NotScored, match="no transparency in view a000"):
        measure(changed(views, 0, alpha=None))
    with pytest.raises(NotScored, match="1, 2 frames"):
        measure(changed(views, 0, frames=views[0].clip.frames[:1]))
    nothing = views
    for place in range(4):
        nothing = changed(
            nothing, place, alpha=np.zeros_like(views[0].clip.alpha), depth=np.full_like(views[0].clip.depth, np.nan)
        )
    with pytest.raises(NotScored, match=r"no object|no point"):
        measure(nothing)


def test_colours_refuse_views_without_depth():
    """Oracle: the rule that no value is made up."""
    views = subjects(SCENE)
    with pytest.raises(NotScored, match="without depth"):
        colors(changed(views, 2, depth=None))
