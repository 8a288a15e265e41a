"""Calibration: the clips move exactly as they say, metrics answer, curves are checked and drawn."""

from __future__ import annotations

import dataclasses
import json
import xml.etree.ElementTree as ElementTree

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy.ndimage import map_coordinates

from eval.calibration import (
    AXES,
    EXPECTED,
    KINDS,
    ROWS,
    GridConfig,
    calibrate,
    monotonic,
    moving_clip,
    read_rows,
    response_svg,
    write_plot,
)
from eval.extractor import Compute
from eval.extractors import find
from eval.metric import Metric, NotScored
from eval.metrics import METRICS
from manifests.errors import InputError

SMALL = GridConfig(
    px_per_frame=(0.0, 1.0, 3.0, 5.0), object_size=(32.0, 40.0, 48.0), fps=(4.0, 8.0, 24.0),
    base_px_per_frame=3.0, base_object_size=40.0, frames=5, size=80,
)  # fmt: skip
OFFLINE = ("flow_magnitude@dis", "dynamic_object@dis", "temporal_flickering@vbench", "mask_stability@mvvideo-1")


# -- clips -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_clip_moves_along_its_flow(kind):
    """Oracle: the next frame, read where the flow leads (cubic interpolation), shows the same colours."""
    clip, flow = moving_clip(kind, px_per_frame=3, object_size=64, frames=4, size=96)
    y, x = np.mgrid[:96, :96].astype(float)
    for t in range(3):
        inside = clip.alpha[t] == 255
        places = np.stack([y + flow[t, ..., 1], x + flow[t, ..., 0]])
        there = np.stack(
            [map_coordinates(clip.frames[t + 1, ..., c].astype(float), places, order=3) for c in range(3)], -1
        )
        error = np.abs(there - clip.frames[t])[inside]
        still = np.abs(clip.frames[t + 1].astype(float) - clip.frames[t])[inside]
        assert np.median(error) < 0.6
        assert np.percentile(error, 95) < 8  # rims that come from beneath the other plate or the background
        assert np.median(error) < 0.1 * np.median(still)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("px_per_frame", [0.0, 0.7, 6.0])
def test_fastest_point_moves_as_asked(kind, px_per_frame):
    """Oracle: the largest exact displacement of an object pixel; the rim lies half a pixel inside the circle."""
    clip, flow = moving_clip(kind, px_per_frame=px_per_frame, object_size=100, frames=9, size=160)
    length = np.linalg.norm(flow, axis=-1)
    assert length.max() == pytest.approx(px_per_frame, rel=0.03)
    assert not length[clip.alpha[:-1] <= 127].any()
    assert flow.dtype == np.float32
    if kind != "sinusoid":
        assert length.max(axis=(1, 2)) == pytest.approx(np.full(8, px_per_frame), rel=0.03)


def test_clip_has_the_size_and_fields_that_were_asked_for():
    """Oracle: the area of the disc, antialiased; the fields of the clip; frame 0 as the reference."""
    clip, flow = moving_clip(
        "translation", px_per_frame=2, object_size=50, fps=12, frames=3, size=90, background=(255, 250, 0)
    )  # fmt: skip
    assert clip.frames.shape == (3, 90, 90, 3)
    assert flow.shape == (2, 90, 90, 2)
    assert (clip.alpha / 255).sum(axis=(1, 2)) == pytest.approx(np.full(3, np.pi * 625), rel=0.002)
    assert ((clip.alpha > 0) & (clip.alpha < 255)).sum() > 100
    assert clip.fps == 12
    assert clip.frames[0, 0, 0].tolist() == [255, 250, 0]
    assert np.array_equal(clip.reference, clip.frames[0])


def test_only_the_seed_changes_the_pattern():
    """Oracle: repeated calls, bit for bit; the frame rate changes no pixel."""
    options = {"px_per_frame": 2.0, "object_size": 40, "frames": 2, "size": 64}
    first = moving_clip("articulated", **options)[0].frames
    assert np.array_equal(first, moving_clip("articulated", fps=None, **options)[0].frames)
    assert not np.array_equal(first, moving_clip("articulated", seed=1, **options)[0].frames)


@pytest.mark.parametrize(
    ("kind", "options", "text"),
    [
        ("spin", {}, "found 'spin', expected one of translation"),
        ("translation", {"px_per_frame": 90}, "px_per_frame: found a step that leaves the room of translation"),
        ("rotation", {"px_per_frame": 40}, "px_per_frame: found 40, expected at most 20"),
        ("sinusoid", {"px_per_frame": 30}, "px_per_frame: found 30, expected at most 7.07 for sinusoid"),
        ("scale", {"object_size": 100}, "object_size: found 100, expected 8 to 60"),
    ],
)
def test_clip_without_room_is_refused(kind, options, text):
    """Oracle: the message names the argument, what was found and what fits."""
    with pytest.raises(InputError, match=text):
        moving_clip(kind, **({"px_per_frame": 2.0, "object_size": 40, "frames": 4, "size": 64} | options))


# -- response ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    metrics = [METRICS[name] for name in (*OFFLINE, "psnr@truth", "cross_view@mvvideo-1")]
    return list(calibrate(metrics, {"flow-dis": find("flow-dis")(compute=Compute())}, SMALL))


def curve(rows: list[dict], metric: str, kind: str, axis: str) -> list[tuple[float, float | None]]:
    return [
        (row[axis], row["value"]) for row in rows if (row["metric"], row["kind"], row["axis"]) == (metric, kind, axis)
    ]


def test_every_metric_has_every_point(rows):
    """Oracle: the grid by hand: per metric and kind the values of each axis, others at their base."""
    assert len(rows) == 6 * len(KINDS) * (4 + 3 + 3)
    for row in rows:
        assert set(row) == set(ROWS.names)
        assert (row["value"] is None) == bool(row["reason"])
        for axis in AXES:
            assert row[axis] == SMALL.base[axis] or row["axis"] == axis
    assert [x for x, _ in curve(rows, "flow_magnitude@dis", "scale", "object_size")] == [32, 40, 48]


def test_classical_flow_answers_with_the_true_motion(rows):
    """Oracle: mean length of the exact flow on the object."""
    for kind in KINDS:
        for speed, value in curve(rows, "flow_magnitude@dis", kind, "px_per_frame"):
            clip, flow = moving_clip(kind, px_per_frame=speed, object_size=40, frames=5, size=80)
            exact = np.mean(
                [np.linalg.norm(f, axis=-1)[a > 127].mean() for f, a in zip(flow, clip.alpha, strict=False)]
            )
            assert value == pytest.approx(exact, rel=0.15, abs=0.02), (kind, speed)


def test_speed_in_diameters_is_proportional_to_the_frame_rate(rows):
    """Oracle: the formula, and that the pixels are the same."""
    for kind in KINDS:
        values = dict(curve(rows, "dynamic_object@dis", kind, "fps"))
        assert values[24] == pytest.approx(6 * values[4])


def test_what_cannot_be_scored_gives_its_reason(rows):
    """Oracle: no truth and a single view in such clips."""
    for metric, text in (("psnr@truth", "no ground-truth"), ("cross_view@mvvideo-1", "found 1 view")):
        mine = [row for row in rows if row["metric"] == metric]
        assert all(row["value"] is None and text in row["reason"] for row in mine)


def test_missing_extractors_are_named_before_any_work():
    """Oracle: the message names metric and extractor."""
    with pytest.raises(InputError, match="flow_magnitude@dis: found no flow-dis"):
        next(calibrate([METRICS["flow_magnitude@dis"]], {}, SMALL))


class ExactFlow:
    """The exact flow instead of a network's, for clips of 8 frames a second: ``top5`` as of RAFT."""

    name, weights = "raft-things", ()

    def extract(self, clips):
        found = []
        for clip in clips:
            kind, size, speed = clip.object_id.split("-")
            options = {"px_per_frame": float(speed[:-3]), "object_size": float(size[:-2])}
            _, flow = moving_clip(kind, frames=clip.num_frames, size=clip.size[0], **options)
            lengths = np.sort(np.linalg.norm(flow, axis=-1).reshape(len(flow), -1), axis=1)
            found.append({"top5": lengths[:, -int(0.05 * lengths.shape[1]) :].mean(1)})
        return found


def test_dynamic_bit_crosses_where_the_exact_motion_does():
    """Oracle: exact flow against VBench's 6 px at 256: a sliding disc of more than 5 % of the picture crosses there."""
    grid = dataclasses.replace(
        SMALL, kinds=("translation", "rotation"), px_per_frame=(2.0, 5.9, 6.1, 9.0), object_size=(48.0, 80.0),
        fps=(8.0,), base_px_per_frame=6.1, base_object_size=80.0, size=256,
    )  # fmt: skip
    names = "dynamic_degree@vbench-0.1.5", "dynamic_margin@mvvideo-1"
    rows = list(calibrate([METRICS[name] for name in names], {"raft-things": ExactFlow()}, grid))
    assert dict(curve(rows, names[0], "translation", "px_per_frame")) == {2: 0, 5.9: 0, 6.1: 1, 9: 1}
    margins = dict(curve(rows, names[1], "translation", "px_per_frame"))
    assert all(margin == pytest.approx(speed / 6) for speed, margin in margins.items())
    # The fastest 5 % of the picture reach into the slow middle of a turning disc, and beyond a small disc's rim.
    assert dict(curve(rows, names[0], "rotation", "px_per_frame")) == {2: 0, 5.9: 0, 6.1: 0, 9: 1}
    assert dict(curve(rows, names[0], "translation", "object_size")) == {48: 0, 80: 1}
    assert [check for check in monotonic(rows) if not check.holds] == []


# -- checks ------------------------------------------------------------------------------------------------------------


def test_offline_metrics_go_as_they_must(rows):
    """Oracle: the table of expectations, on every curve of the metrics without weights."""
    checks = monotonic(rows)
    assert {check.metric for check in checks} == set(OFFLINE)
    assert len(checks) == len(KINDS) * sum(len(EXPECTED[name.partition("@")[0]]) for name in OFFLINE)
    assert [check for check in checks if not check.holds] == []
    rises = [check.change for check in checks if check.metric == "flow_magnitude@dis" and check.axis == "px_per_frame"]
    assert min(rises) > 2


@pytest.mark.parametrize(
    ("axis", "values", "holds", "worst"),
    [
        ("px_per_frame", [0, 1, 2, 3], True, 0),
        ("px_per_frame", [0, 2, 1.97, 3], True, 0.03),
        ("px_per_frame", [0, 2, 1, 3], False, 1),
        ("px_per_frame", [3, 2, 1, 0], False, 1),
        ("object_size", [3, 2, 2, 0], True, 0),
        ("object_size", [0, 1, 2, 3], False, 1),
        ("fps", [1, 2, 3, 4], True, 0),
    ],
)
def test_curves_are_checked_against_their_direction(axis, values, holds, worst):
    """Oracle: hand-made curves of a metric that must rise, fall and rise; slack is 2 % of the range."""
    rows = [
        dict.fromkeys(AXES, 1.0) | {"metric": "dynamic_object@x", "kind": "scale", "axis": axis, axis: k, "value": v}
        for k, v in reversed(list(enumerate(values)))
    ]
    [check] = monotonic(rows)
    assert (check.holds, check.worst, check.change) == (holds, pytest.approx(worst), values[-1] - values[0])


def test_curves_that_must_not_move_are_checked():
    """Oracle: a figure that must not depend on the frame rate, and does."""
    rows = [
        dict.fromkeys(AXES, 1.0)
        | {"metric": "flow_magnitude@x", "kind": "scale", "axis": axis, axis: k, "value": value}
        for axis, values in (("px_per_frame", (0, 1)), ("fps", (1, 1.5)))
        for k, value in enumerate(values)
    ]
    assert [(check.axis, check.holds) for check in monotonic(rows)] == [("px_per_frame", True), ("fps", False)]
    assert monotonic([row | {"value": None} for row in rows]) == []


def test_expectations_name_known_metrics_and_axes():
    """Oracle: the registry; a misspelt name would never be checked."""
    assert set(EXPECTED) <= {name.partition("@")[0] for name in METRICS}
    assert {axis for axes in EXPECTED.values() for axis in axes} <= set(AXES)


# -- drawing -----------------------------------------------------------------------------------------------------------


def test_plot_shows_every_value(rows, tmp_path):
    """Oracle: a foreign XML parser: one dot with its numbers a value, one line a curve, the reasons as text."""
    checks = monotonic(rows)
    paths = write_plot(tmp_path / "out", rows, checks)
    assert [path.name for path in paths] == ["calibration.svg", "calibration.parquet", "calibration.json"]
    root = ElementTree.parse(paths[0]).getroot()
    space = {"s": "http://www.w3.org/2000/svg"}
    assert len(root.findall(".//s:circle/s:title", space)) == sum(row["value"] is not None for row in rows)
    assert len(root.findall(".//s:path", space)) == len(KINDS) * (1 + len(AXES) * len(OFFLINE))
    words = " ".join(node.text or "" for node in root.iter("{http://www.w3.org/2000/svg}text"))
    assert "psnr@truth not scored: found no ground-truth" in words
    assert all(name in words for name in (*OFFLINE, *KINDS, *AXES.values()))
    assert "wrong way" not in words
    for circle in root.findall(".//s:circle", space):
        assert 0 <= float(circle.get("cx")) <= 240
        assert 0 <= float(circle.get("cy")) <= 130


def test_plot_names_the_curves_that_fail(rows):
    """Oracle: a check turned into a failure; names are escaped."""
    failing = [dataclasses.replace(check, holds=False) for check in monotonic(rows)[:1]]
    assert f"goes the wrong way: {failing[0].kind}" in response_svg(rows, failing)
    nasty = [row | {"metric": '<b>"&'} for row in rows]
    ElementTree.fromstring(response_svg(nasty))


def test_table_reads_back(rows, tmp_path):
    """Oracle: round trip through Parquet and JSON, by a foreign reader as well."""
    _, table, text = write_plot(tmp_path, rows, monotonic(rows))
    assert read_rows(tmp_path) == rows
    assert pq.read_table(table).schema.names == ROWS.names
    content = json.loads(text.read_text())
    assert content["rows"] == rows
    assert content["checks"][0].keys() == {"metric", "kind", "axis", "expected", "holds", "change", "worst"}


def test_set_and_object_metrics_are_taken_as_they_are():
    """Oracle: an object-level metric sees one subject, a set-level one gives a reason."""
    seen = []

    def score(subjects):
        seen.append(len(subjects))
        raise NotScored("one view")

    card = METRICS["cross_view@mvvideo-1"].card
    metrics = [
        Metric(card=dataclasses.replace(card, id=level, level=level), score=score) for level in ("object", "set")
    ]
    grid = dataclasses.replace(SMALL, kinds=("scale",), px_per_frame=(3.0,), object_size=(40.0,), fps=(8.0,))
    rows = list(calibrate(metrics, {}, grid))
    assert seen == [1]
    assert {row["reason"] for row in rows} == {"one view", "a score of a set of videos, not of one"}
