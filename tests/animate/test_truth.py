"""Figures against the truth: known displacements, known pictures, and the suite's own PSNR."""

from __future__ import annotations

import numpy as np
import pytest

from animate.export.truth import EXACT_DB, compare_motion, image_figures
from eval.metrics.truth import psnr
from manifests.images import composite


def test_motion_figures_of_a_known_error():
    """Oracle: by hand; 1 of 20 vertices is off by 0.4, the object moves by 1 a frame, the diagonal is 2."""
    truth = np.zeros((3, 20, 3)) + np.arange(3.0)[:, None, None] * [1, 0, 0]
    pred = truth.copy()
    pred[1:, 0, 1] += 0.4
    found = compare_motion(pred, truth, diagonal=2.0)
    assert found["mean"] == pytest.approx(0.2 / 20)
    assert found["max"] == pytest.approx(0.2)
    assert found["p95"] <= 0.2 * 0.05
    assert found["static"] == pytest.approx((0.5 + 1.0) / 2)
    assert found["share_of_static"] == pytest.approx(0.01 / 0.75)
    assert found["frames"] == pytest.approx([0, 0.01, 0.01])
    assert found["static_frames"] == pytest.approx([0, 0.5, 1.0])


def test_motion_figures_of_standing_still():
    """Oracle: an object that does not move has share 1 of the static baseline, and none where there is no motion."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4, 9, 3))
    assert compare_motion(np.repeat(truth[:1], 4, 0), truth, 1.0)["share_of_static"] == pytest.approx(1)
    still = compare_motion(np.repeat(truth[:1], 4, 0), np.repeat(truth[:1], 4, 0), 1.0)
    assert still["mean"] == 0
    assert still["share_of_static"] is None


def test_motion_figures_do_not_depend_on_units_or_place():
    """Oracle: invariance under one similarity of both and of the diagonal."""
    rng = np.random.default_rng(1)
    pred, truth = rng.normal(size=(2, 3, 7, 3))
    one, other = compare_motion(pred, truth, 1.5), compare_motion(pred * 40 - 7, truth * 40 - 7, 60)
    assert one["mean"] == pytest.approx(other["mean"])
    assert one["p95"] == pytest.approx(other["p95"])


def test_whole_psnr_is_that_of_the_suite():
    """Oracle: eval's PSNR on the same composite, averaged over pictures."""
    rng = np.random.default_rng(2)
    pred, truth = rng.integers(0, 256, (2, 2, 3, 12, 10, 4), dtype=np.uint8)
    wanted = [
        psnr(composite(a, (0.2, 0.5, 1)), composite(b, (0.2, 0.5, 1)))
        for a, b in zip(pred.reshape(-1, 12, 10, 4), truth.reshape(-1, 12, 10, 4), strict=True)
    ]
    assert image_figures(pred, truth, (0.2, 0.5, 1))["psnr"] == pytest.approx(np.mean(wanted))


def test_picture_figures_of_shifted_squares():
    """Oracle: by hand; two white squares of 4x4 that share half of their pixels, on black."""
    pred, truth = np.zeros((2, 16, 16, 4), np.uint8)
    pred[4:8, 4:8] = truth[4:8, 6:10] = 255
    found = image_figures(pred, truth, (0, 0, 0))
    assert found["mask_iou"] == pytest.approx(8 / 24)
    assert found["psnr"] == pytest.approx(10 * np.log10(256 / 16))
    assert found["psnr_object"] == pytest.approx(10 * np.log10(24 / 16))
    same = image_figures(pred, pred)
    assert same == {"psnr": EXACT_DB, "psnr_object": EXACT_DB, "mask_iou": 1.0}
    assert image_figures(np.zeros_like(pred), np.zeros_like(pred))["mask_iou"] == 1.0
