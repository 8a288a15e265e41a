"""The metrics without weights: flicker, PSNR, SSIM, silhouettes and motion from classical flow."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np
import pytest

from eval.calibration import moving_clip
from eval.extractor import Clip, Compute
from eval.extractors import find
from eval.metric import NotScored, Score, Subject
from eval.metrics import classical_motion, crossview, masks, pixels, truth
from eval.silhouettes import border_color, has_silhouette, object_masks, sampled

METRICS = {
    metric.card.name: metric
    for module in (classical_motion, crossview, masks, pixels, truth)
    for metric in module.METRICS
}


def score(name: str, clip: Clip, features: dict | None = None) -> Score:
    return METRICS[name].score(Subject(clip=clip, features=features or {}))


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def integer_images() -> tuple[np.ndarray, np.ndarray]:
    """Two related images (40, 52, 3) made of whole numbers only, so that every library sees the same."""
    y, x = np.mgrid[:40, :52]
    a = ((x[..., None] * 7 + y[..., None] * 13 + np.array([0, 40, 90])) % 256).astype(np.uint8)
    return a, ((a.astype(int) * 3 // 4) + (x * y)[..., None] % 50).astype(np.uint8)


# -- pixels ------------------------------------------------------------------------------------------------------------


def test_flickering_is_the_formula():
    """Oracle: VBench's formula in plain loops over pairs, in signed integers."""
    frames = noise((5, 9, 11, 3))
    errors = [np.abs(frames[t].astype(int) - frames[t + 1].astype(int)).mean() for t in range(4)]
    found = score("temporal_flickering@vbench", Clip(frames=frames))
    assert found.value == pytest.approx((255 - np.mean(errors)) / 255, abs=1e-12)
    assert found.frames == pytest.approx(1 - np.array(errors) / 255, abs=1e-12)


def test_flickering_of_black_and_white_is_zero_and_of_a_frozen_clip_one():
    """Oracle: the two ends of the range, by hand."""
    switching = np.zeros((4, 8, 8, 3), np.uint8)
    switching[1::2] = 255
    assert score("temporal_flickering@vbench", Clip(frames=switching)).value == 0
    frozen = np.broadcast_to(noise((8, 8, 3)), (4, 8, 8, 3))
    assert score("temporal_flickering@vbench", Clip(frames=frozen)).value == 1


# -- truth -------------------------------------------------------------------------------------------------------------


def test_psnr_and_ssim_are_those_of_scikit_image():
    """Oracle: scikit-image 0.24.0, structural_similarity with gaussian_weights, sigma 1.5, no sample covariance.

    Both printed there with data_range=255 (and channel_axis=-1) on the same two images.
    """
    a, b = integer_images()
    assert truth.psnr(a, b) == pytest.approx(19.929610374547426, abs=1e-9)
    assert truth.ssim(a, b) == pytest.approx(0.8281932050571705, abs=1e-9)


def test_ssim_is_the_formula_window_by_window():
    """Oracle: Wang et al. 2004, equation 13, in loops over channels and windows with an explicit 11x11 Gaussian."""
    a, b = (image[:15, :18] for image in integer_images())
    line = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window = np.outer(line, line) / line.sum() ** 2
    values = []
    for c in range(3):
        for i in range(15 - 10):
            for j in range(18 - 10):
                x, y = (image[i : i + 11, j : j + 11, c].astype(float) for image in (a, b))
                mx, my = (window * x).sum(), (window * y).sum()
                vx, vy = (window * (x - mx) ** 2).sum(), (window * (y - my) ** 2).sum()
                cov = (window * (x - mx) * (y - my)).sum()
                c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
                values.append((2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2)))
    assert truth.ssim(a, b) == pytest.approx(np.mean(values), abs=1e-12)


@pytest.mark.parametrize(("top", "left"), [(0, 0), (3, 30), (30, 4), (29, 41)])
def test_ssim_skips_only_windows_without_a_difference(top, left):
    """Oracle: the same images with every window computed (a difference of one level in all four corners)."""
    a, other = integer_images()
    b = a.copy()
    b[top : top + 9, left : left + 9] = other[top : top + 9, left : left + 9]
    corners = a.copy()
    corners[[0, 0, -1, -1], [0, -1, 0, -1]] ^= 1
    everywhere = b.copy()
    everywhere[[0, 0, -1, -1], [0, -1, 0, -1]] = corners[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert truth.ssim(a, b) == pytest.approx(truth.ssim(a, everywhere), abs=1e-5)
    assert truth.ssim(a, b) < 1
    assert truth.ssim(a, a) == 1


def test_truth_metrics_average_frames_and_cap_equal_ones():
    """Oracle: frames one by one; a frame equal to the truth counts as 100 dB and 1."""
    a, b = integer_images()
    clip = Clip(frames=np.stack([a, b, a]), truth=np.stack([a, a, a]))
    found = score("psnr@truth", clip)
    assert found.frames == pytest.approx([100, truth.psnr(b, a), 100])
    assert found.value == pytest.approx(np.mean(found.frames))
    assert score("ssim@truth", clip).frames == pytest.approx([1, truth.ssim(b, a), 1])


@pytest.mark.parametrize("name", ["psnr@truth", "ssim@truth"])
def test_truth_metrics_refuse_what_they_cannot_compare(name):
    """Oracle: the rule that no value is made up; the text names what was found."""
    frames = noise((3, 16, 16, 3))
    with pytest.raises(NotScored, match="no ground-truth"):
        score(name, Clip(frames=frames))
    with pytest.raises(NotScored, match=r"\(3, 16, 16, 3\) against a truth of \(2, 16, 16, 3\)"):
        score(name, Clip(frames=frames, truth=frames[:2]))


def test_ssim_refuses_images_smaller_than_its_window():
    """Oracle: the window is 11 pixels wide."""
    frames = noise((2, 10, 30, 3))
    with pytest.raises(NotScored, match="30x10, expected at least 11x11"):
        score("ssim@truth", Clip(frames=frames, truth=frames))


# -- silhouettes -------------------------------------------------------------------------------------------------------


def boxes(*sides: tuple[int, int, int, int], size: int = 20) -> np.ndarray:
    """(frame, size, size) alpha, opaque in [top:bottom, left:right] of each frame."""
    alpha = np.zeros((len(sides), size, size), np.uint8)
    for frame, (top, bottom, left, right) in zip(alpha, sides, strict=True):
        frame[top:bottom, left:right] = 255
    return alpha


def test_mask_iou_counts_pixels_of_frames():
    """Oracle: areas of rectangles by hand: 50/150, equal, both empty, disjoint."""
    mine = boxes((0, 10, 0, 10), (2, 4, 2, 4), (0, 0, 0, 0), (0, 5, 0, 5))
    theirs = boxes((0, 10, 5, 15), (2, 4, 2, 4), (0, 0, 0, 0), (10, 15, 10, 15))
    frames = noise((4, 20, 20, 3))
    found = score("mask_iou@truth", Clip(frames=frames, alpha=mine, truth=frames, truth_alpha=theirs))
    assert found.frames == pytest.approx([50 / 150, 1, 1, 0])
    assert found.value == pytest.approx((1 / 3 + 2) / 4)


def test_mask_iou_takes_half_coverage_as_the_line():
    """Oracle: the definition, alpha > 127."""
    frames, alpha = noise((1, 4, 4, 3)), np.full((1, 4, 4), 127, np.uint8)
    alpha[0, 0, 0] = 128
    only = np.zeros_like(alpha)
    only[0, 0, 0] = 255
    assert score("mask_iou@truth", Clip(frames=frames, alpha=alpha, truth_alpha=only)).value == 1


def test_mask_stability_tells_motion_and_area_apart():
    """Oracle: rectangles by hand: a slide by half keeps the area, a halving does not; both have an IoU below 1."""
    frames = noise((3, 20, 20, 3))
    slide = score(
        "mask_stability@mvvideo-1", Clip(frames=frames, alpha=boxes((0, 4, 0, 8), (0, 4, 4, 12), (0, 4, 8, 16)))
    )
    halved = score(
        "mask_stability@mvvideo-1", Clip(frames=frames, alpha=boxes((0, 4, 0, 8), (0, 4, 0, 4), (0, 4, 0, 8)))
    )
    assert slide.frames == pytest.approx([1 / 3, 1 / 3])
    assert slide.extra == {"area_variation": 0, "area_least": 1}
    assert halved.frames == pytest.approx([0.5, 0.5])
    assert halved.extra["area_least"] == 0.5
    assert halved.extra["area_variation"] == pytest.approx(np.std([32, 16, 32]) / np.mean([32, 16, 32]))


@pytest.mark.parametrize("name", ["mask_iou@truth", "mask_stability@mvvideo-1"])
def test_mask_metrics_refuse_videos_without_a_silhouette(name):
    """Oracle: the rule that no value is made up; alpha that is absent and alpha that is opaque everywhere."""
    frames = noise((2, 8, 8, 3))
    with pytest.raises(NotScored, match="no transparency"):
        score(name, Clip(frames=frames))
    with pytest.raises(NotScored, match="opaque everywhere"):
        score(name, Clip(frames=frames, alpha=np.full((2, 8, 8), 255, np.uint8)))


def test_object_is_found_by_colour_where_alpha_says_nothing():
    """Oracle: the alpha of a clip of the same pixels; noise as of a codec on a background not of the protocol."""
    clip, _ = moving_clip(
        "translation", px_per_frame=2, object_size=40, frames=3, size=64, background=(250, 240, 230)
    )  # fmt: skip
    loud = clip.frames + np.random.default_rng(0).integers(-5, 6, clip.frames.shape)
    blind = dataclasses.replace(clip, frames=np.clip(loud, 0, 255).astype(np.uint8), alpha=None, background=(0, 0, 0))
    assert masks.ious(object_masks(blind), object_masks(clip)).min() > 0.9
    opaque = dataclasses.replace(blind, alpha=np.full(clip.alpha.shape, 255, np.uint8))
    assert not has_silhouette(opaque)
    assert np.array_equal(object_masks(opaque), object_masks(blind))
    assert border_color(blind.frames) == pytest.approx([250, 240, 230], abs=3)


def test_sampling_takes_the_pixel_at_each_centre():
    """Oracle: a ramp, whose samples are the coordinates of the centres; the own size gives the array itself."""
    ramp = np.broadcast_to(np.arange(12), (2, 8, 12))
    assert sampled(ramp, (4, 3))[1, 2].tolist() == [2, 6, 10]
    assert sampled(ramp, (8, 12)) is ramp


# -- classical flow ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dis():
    return find("flow-dis")(compute=Compute())


@pytest.mark.parametrize("kind", ["translation", "rotation", "scale", "sinusoid", "articulated"])
@pytest.mark.parametrize("px_per_frame", [1.0, 5.0])
def test_flow_is_the_exact_motion(dis, kind, px_per_frame):
    """Oracle: the analytic flow of a moving shape; on object pixels, twice as much error where parts meet."""
    clip, exact = moving_clip(kind, px_per_frame=px_per_frame, object_size=64, frames=4, size=128)
    [features] = dis.extract([clip])
    error = np.linalg.norm(features["flow"] - exact, axis=-1)[clip.alpha[:-1] > 127]
    allowed = (0.04 + 0.04 * px_per_frame) * (2 if kind == "articulated" else 1)
    assert error.mean() < allowed
    assert np.median(error) < 0.6 * allowed


def test_flow_is_in_pixels_of_the_clip_when_it_is_shrunk(dis):
    """Oracle: the exact flow of a clip of 320 pixels, computed on a grid of 256; not square after cropping."""
    clip, exact = moving_clip("translation", px_per_frame=4, object_size=90, frames=3, size=320)
    wide = dataclasses.replace(clip, frames=clip.frames[:, 20:300], alpha=clip.alpha[:, 20:300], reference=None)
    [features] = dis.extract([wide])
    assert features["flow"].shape == (2, 256, 293, 2)
    inside = object_masks(wide, (256, 293))[:-1]
    assert np.median(features["flow"][inside], axis=0) == pytest.approx(exact[0, 160, 160], abs=0.1)


def test_flow_does_not_depend_on_threads_order_or_company(dis):
    """Oracle: the same clip alone, on one thread; bit for bit, and the caller's number of threads stays."""
    clips = [moving_clip(kind, px_per_frame=3, object_size=40, frames=3, size=80)[0] for kind in ("rotation", "scale")]
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        alone = [dis.extract([clip])[0] for clip in clips]
        for threads in (2, 3, 8):
            cv2.setNumThreads(threads)
            together = dis.extract(clips[::-1])[::-1]
            for mine, theirs in zip(alone, together, strict=True):
                assert mine.keys() == theirs.keys() == {"flow", "agrees", "change", "unexplained"}
                assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    finally:
        cv2.setNumThreads(before)


def test_flow_agrees_with_the_way_back_but_where_something_is_hidden(dis):
    """Oracle: what is in sight: all of a turning disc stays, and nothing of it after a cut to another pattern."""
    turning, _ = moving_clip("rotation", px_per_frame=3, object_size=64, frames=3, size=96)
    [features] = dis.extract([turning])
    assert features["agrees"][turning.alpha[:-1] > 127].mean() > 0.95
    still = moving_clip("rotation", px_per_frame=0, object_size=64, frames=2, size=96)[0]
    other = moving_clip("rotation", px_per_frame=0, object_size=64, frames=2, size=96, seed=9)[0]
    cut = dataclasses.replace(still, frames=np.stack([still.frames[0], other.frames[0]]))
    [features] = dis.extract([cut])
    assert features["agrees"][cut.alpha[:-1] > 127].mean() < 0.5


def test_change_is_explained_by_motion_and_not_by_noise(dis):
    """Oracle: what the two figures mean: following the flow undoes a motion, and does not undo noise."""
    clip, _ = moving_clip("rotation", px_per_frame=3, object_size=64, frames=3, size=96)
    still = np.repeat(clip.frames[:1], 3, 0).astype(float)
    loud = np.clip(np.rint(still + np.random.default_rng(0).normal(0, 8, still.shape)), 0, 255).astype(np.uint8)
    moved, noisy = dis.extract([clip, dataclasses.replace(clip, frames=loud)])
    assert moved["unexplained"].sum() < 0.3 * moved["change"].sum()
    assert noisy["unexplained"].sum() > 0.7 * noisy["change"].sum()


def test_flow_of_equal_frames_is_zero_and_of_tiny_ones_absent(dis):
    """Oracle: no change is no motion, and all agrees; below 16 pixels there are no features and the metrics say why."""
    frozen = Clip(frames=np.broadcast_to(noise((24, 24, 3)), (3, 24, 24, 3)), fps=8.0)
    tiny = Clip(frames=noise((3, 15, 40, 3)), fps=8.0)
    still, nothing = dis.extract([frozen, tiny])
    assert not still["flow"].any()
    assert not still["change"].any()
    assert still["agrees"].all()
    assert nothing == {}
    for name in ("flow_magnitude@dis", "dynamic_object@dis"):
        with pytest.raises(NotScored, match="40x15, expected at least 16"):
            score(name, tiny, {"flow-dis": nothing})


def exact_features(flow: np.ndarray) -> dict:
    return {"flow-dis": {"flow": flow, "change": np.ones(len(flow)), "unexplained": np.zeros(len(flow))}}


def test_motion_metrics_are_their_formulas():
    """Oracle: the cards' formulas in loops, on made-up flow and a known mask of 200 pixels."""
    rng = np.random.default_rng(3)
    flow = rng.normal(0, 2, (3, 20, 20, 2)).astype(np.float32)
    alpha = boxes(*[(0, 10, 0, 20)] * 4)
    clip = Clip(frames=noise((4, 20, 20, 3)), alpha=alpha, fps=6.0)
    lengths = np.sqrt((flow.astype(float) ** 2).sum(-1))[:, :10].reshape(3, -1)
    found = score("flow_magnitude@dis", clip, exact_features(flow))
    assert found.frames == pytest.approx(lengths.mean(1), rel=1e-6)
    fastest = np.sort(lengths, axis=1)[:, -10:].mean(1)  # 5 % of 200
    diameter = 2 * math.sqrt(200 / math.pi)
    found = score("dynamic_object@dis", clip, exact_features(flow))
    assert found.frames == pytest.approx(fastest * 6 / diameter, rel=1e-6)
    assert found.value == pytest.approx(np.mean(found.frames))
    assert found.extra == {"diameter_px": pytest.approx(diameter), "pairs_without_object": 0, "object_from_alpha": 1}


def test_motion_metrics_look_at_the_object_only():
    """Oracle: the same flow with any other motion beside the object; and frames without an object left out."""
    alpha = boxes((0, 10, 0, 20), (0, 0, 0, 0), (0, 10, 0, 20), (0, 10, 0, 20))
    clip = Clip(frames=noise((4, 20, 20, 3)), alpha=alpha, fps=8.0)
    flow = np.full((3, 20, 20, 2), 99.0, np.float32)
    flow[:, :10] = (3, 4)
    flow[1] = 77
    found = score("flow_magnitude@dis", clip, exact_features(flow))
    assert found.frames.tolist() == [5, 5]
    assert found.extra["pairs_without_object"] == 1


def test_motion_in_diameters_does_not_depend_on_the_size_of_the_picture(dis):
    """Oracle: one scene at two scales: pixels double, object diameters a second stay within 3 %."""
    small, large = (
        moving_clip("translation", px_per_frame=2.0 * k, object_size=40 * k, frames=4, size=80 * k)[0] for k in (1, 2)
    )
    features = dis.extract([small, large])
    pixels_, diameters = (
        [score(name, clip, {"flow-dis": f}).value for clip, f in zip((small, large), features, strict=True)]
        for name in ("flow_magnitude@dis", "dynamic_object@dis")
    )
    assert pixels_[1] == pytest.approx(2 * pixels_[0], rel=0.03)
    assert diameters[1] == pytest.approx(diameters[0], rel=0.03)
    assert diameters[1] == pytest.approx(4 * 8 / 80, rel=0.05)


def test_motion_metrics_refuse_what_nothing_can_supply():
    """Oracle: the rule that no value is made up: one frame, no object, no frame rate."""
    flow = exact_features(np.zeros((2, 20, 20, 2), np.float32))
    empty = Clip(frames=np.full((3, 20, 20, 3), 9, np.uint8), alpha=np.zeros((3, 20, 20), np.uint8), fps=8.0)
    with pytest.raises(NotScored, match="no object"):
        score("flow_magnitude@dis", empty, flow)
    seen = dataclasses.replace(empty, alpha=boxes(*[(0, 9, 0, 9)] * 3))
    with pytest.raises(NotScored, match="no frame rate"):
        score("dynamic_object@dis", dataclasses.replace(seen, fps=None), flow)
    one = dataclasses.replace(seen, frames=seen.frames[:1], alpha=seen.alpha[:1])
    for name in ("flow_magnitude@dis", "dynamic_object@dis"):
        with pytest.raises(NotScored, match="found 1 frame"):
            score(name, one, flow)


@pytest.mark.parametrize("name", sorted(METRICS))
def test_cards_are_complete_and_need_no_weights(name):
    """Oracle: what the group of offline metrics promises."""
    card = METRICS[name].card
    assert card.name == name
    assert card.weights == ()
    assert all(sentence.endswith(".") for sentence in card.failure_modes)
    assert set(METRICS[name].extractors) <= {"flow-dis"}
    assert len(card.hash({})) == 64
