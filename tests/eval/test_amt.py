"""AMT-S and motion smoothness, on weights that are drawn."""

from __future__ import annotations

from typing import OrderedDict  # noqa: UP035  amt-s.pth was saved with this one

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eval.extractor import Clip, Compute
from eval.extractors import find
from eval.extractors.amt_network import AmtSmall, Correlation, warp
from eval.metric import NotScored, Subject
from eval.metrics.object_motion import METRICS as OBJECT
from eval.metrics.smoothness import METRICS as SMOOTHNESS
from tests.eval.drawn import draw_alpha, draw_frames, draw_weights

[SMOOTH] = SMOOTHNESS
SMOOTH_OBJECT = OBJECT[0]
FRAMES = draw_frames(8, 130, 150, seed=3)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def network():
    network = AmtSmall().eval()
    network.load_state_dict(draw_weights(network, gain=0.5))
    return network


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory):
    """As the published file: typing's OrderedDict, which leaves its name in the pickle, around the tensors."""
    path = tmp_path_factory.mktemp("amt") / "amt-s.pth"
    content = OrderedDict(epoch=300)
    content["state_dict"] = network.state_dict()
    content["optim"] = {"lr": np.float64(2e-5)}
    torch.save(content, path)
    return path


def extract(checkpoint, *clips: Clip, batch_size: int = 32):
    return find("amt-s")(checkpoint, compute=Compute(batch_size=batch_size)).extract(clips)


def subject(clip: Clip, features: dict[str, np.ndarray]) -> Subject:
    return Subject(clip=clip, features={"amt-s": features})


def test_network_has_the_published_size():
    # Oracle: 2.99 M parameters (MCG-NKU/AMT); amt-s.pth has 12,038,359 bytes, 4 for each and names beside them.
    parameters = sum(p.numel() for p in AmtSmall().parameters())
    assert parameters == 2_990_543
    assert 12_038_359 - 4 * parameters < 100_000


def test_drawn_frame_equals_that_of_the_source(network):
    # Golden values: networks/AMT-S.py of MCG-NKU/AMT 70f988f with the same drawn weights, which it loads strictly, on
    # the first pair of even frames padded by its InputPadder, on a CPU. Largest difference over all pixels: 3e-7.
    images = torch.from_numpy(FRAMES[[0, 2]]).permute(0, 3, 1, 2) / 255.0
    images = F.pad(images, (5, 5, 7, 7), mode="replicate")
    with torch.inference_mode():
        drawn = network(images[:1], images[1:])[0].double()
    assert drawn.mean().item() == pytest.approx(0.5249225752857186, abs=1e-6)
    assert drawn.std().item() == pytest.approx(0.25952541908429777, abs=1e-6)
    near, far = [0.3220431805, 0.4152843356, 0.3492749035], [0.5419274569, 0.9896707535, 0.2215414643]
    assert drawn[:, 5, 7].tolist() == pytest.approx(near, abs=1e-5)
    assert drawn[:, 100, 120].tolist() == pytest.approx(far, abs=1e-5)


def test_smoothness_equals_that_of_vbench(checkpoint):
    # Golden values: the steps of Vchitect/VBench 45e79ec, motion_smoothness.py, with its padding, its cut to 8 bits and
    # cv2.absdiff, around the source's network with the same drawn weights, one pair at a time. Rounding instead of
    # cutting would move them by about 0.5 levels.
    clip = Clip(frames=FRAMES)
    [features] = extract(checkpoint, clip)
    expected = [54.077675213675214, 54.32446153846154, 54.51080341880342]
    assert features["error"] == pytest.approx(expected, abs=1e-3)
    found = SMOOTH.score(subject(clip, features))
    assert found.value == pytest.approx(0.7870419082732808, abs=1e-5)
    assert found.frames.mean() == pytest.approx(found.value)


def test_object_error_is_that_of_the_pixels_that_show_it(checkpoint, network):
    # Oracle: the definition in NumPy, one pair at a time.
    alpha = draw_alpha(5, 130, 150)
    clip = Clip(frames=FRAMES[:5], alpha=alpha)
    [features] = extract(checkpoint, clip)
    padded = np.pad(clip.frames, ((0, 0), (7, 7), (5, 5), (0, 0)), mode="edge")
    images = torch.from_numpy(padded).permute(0, 3, 1, 2).float() / 255
    for step, k in enumerate((0, 2)):
        with torch.inference_mode():
            drawn = network(images[k : k + 1], images[k + 2 : k + 3])[0].permute(1, 2, 0).numpy()
        levels = np.floor(np.clip(drawn * 255, 0, 255))[7:-7, 5:-5]
        seen = (alpha[k] > 127) | (alpha[k + 1] > 127) | (alpha[k + 2] > 127)
        error = np.abs(levels - clip.frames[k + 1])
        assert features["error"][step] == pytest.approx(error.mean(), abs=1e-3)
        assert features["object_error"][step] == pytest.approx(error[seen].mean(), abs=1e-3)
    found = SMOOTH_OBJECT.score(subject(clip, features))
    assert found.value == pytest.approx(1 - features["object_error"].mean() / 255)


def test_scores_do_not_depend_on_batches_order_and_neighbours(checkpoint):
    # Oracle: one pair at a time.
    clips = [Clip(frames=FRAMES[:5]), Clip(frames=FRAMES[:5, :128, :128]), Clip(frames=FRAMES[:5, :, ::-1])]
    alone = [extract(checkpoint, clip, batch_size=1)[0]["error"] for clip in clips]
    together = extract(checkpoint, *reversed(clips), batch_size=3)[::-1]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_allclose(other["error"] / 255, one / 255, atol=1e-6)


def test_equal_pairs_go_through_the_network_once(checkpoint):
    # Oracle: a count of what passes the network's last layer.
    frozen = Clip(frames=np.repeat(FRAMES[:1, :128, :128], 16, axis=0))
    extractor = find("amt-s")(checkpoint, compute=Compute())
    passed = []
    extractor.network.comb_block.register_forward_hook(lambda *call: passed.append(len(call[2])))
    first, second = extractor.extract([frozen, frozen])
    assert sum(passed) == 1
    assert len(first["error"]) == len(second["error"]) == 7


@pytest.mark.parametrize(("frames", "steps"), [(3, 1), (4, 1), (5, 2), (16, 7), (17, 8)])
def test_every_odd_frame_between_two_even_ones_is_scored(frames, steps):
    # Oracle: the source's counts; of 16 frames 7 are drawn and the last is never looked at.
    from eval.extractors.amt import _Reducer

    begins = _Reducer(Clip(frames=np.zeros((frames, 128, 128, 3), np.uint8))).begins
    assert [k + 1 for k in begins] == list(range(1, 2 * steps, 2))


def test_lookup_equals_a_walk_over_the_window():
    # Oracle: for one pixel at a time, dot products over averaged blocks, bilinear in the window, zero outside; x slow.
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 1, 5, 16, 24))
    places = rng.uniform(-2, 20, (2, 1, 2, 16, 24))
    found = Correlation(torch.from_numpy(a), torch.from_numpy(b)).lookup(*map(torch.from_numpy, places))[0].numpy()
    for source, target, place, part in ((a, b, places[0], found[:196]), (b, a, places[1], found[196:])):
        for y, x in ((0, 0), (7, 11), (15, 23)):
            alike = np.einsum("c,chw->hw", source[0, :, y, x], target[0]) / np.sqrt(5)
            expected = []
            for level in range(4):
                step = 2**level
                coarse = alike.reshape(16 // step, step, 24 // step, step).mean((1, 3))
                centre = place[0, :, y, x] / step
                expected += [bilinear(coarse, centre[0] + i, centre[1] + j) for i in range(-3, 4) for j in range(-3, 4)]
            np.testing.assert_allclose(part[:, y, x], expected, atol=1e-9)


def bilinear(image: np.ndarray, x: float, y: float) -> float:
    """Value between four pixels; those outside are zero."""
    total = 0.0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < image.shape[0] and 0 <= column < image.shape[1]:
                total += image[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def test_warp_takes_pixels_from_where_the_flow_points():
    # Oracle: bilinear interpolation by hand after clamping the place to the picture.
    rng = np.random.default_rng(1)
    image, flow = rng.standard_normal((1, 1, 6, 9)), rng.uniform(-4, 4, (1, 2, 6, 9))
    found = warp(torch.from_numpy(image).float(), torch.from_numpy(flow).float())[0, 0].numpy()
    for y, x in np.ndindex(6, 9):
        place = np.clip(x + flow[0, 0, y, x], 0, 8), np.clip(y + flow[0, 1, y, x], 0, 5)
        assert found[y, x] == pytest.approx(bilinear(image[0, 0], *place), abs=1e-5)


@pytest.mark.parametrize(
    ("shape", "features", "text"),
    [
        ((2, 128, 128), {}, "found 2 frames, expected at least 3"),
        ((5, 128, 96), {}, "found frames of 96x128, expected at least 113"),
    ],
)
def test_what_cannot_be_measured_is_refused(shape, features, text):
    # Oracle: the message.
    clip = Clip(frames=np.zeros((*shape, 3), np.uint8))
    for metric in (SMOOTH, SMOOTH_OBJECT):
        with pytest.raises(NotScored, match=text):
            metric.score(subject(clip, features))


def test_object_metric_wants_an_object_in_every_triple():
    # Oracle: the messages.
    clip = Clip(frames=np.zeros((5, 128, 128, 3), np.uint8))
    with pytest.raises(NotScored, match="give frames with alpha"):
        SMOOTH_OBJECT.score(subject(clip, {"error": np.ones(2)}))
    with pytest.raises(NotScored, match="no object in 1 of 2 triples"):
        SMOOTH_OBJECT.score(subject(clip, {"error": np.ones(2), "object_error": np.array([1.0, np.nan])}))


def test_small_frames_have_no_features(checkpoint):
    # Oracle: 112 pixels pad to 112, where the coarsest correlations are one pixel wide; 113 pad to 128.
    small, large = (Clip(frames=FRAMES[:3, :128, :side]) for side in (112, 113))
    nothing, something = extract(checkpoint, small, large)
    assert nothing == {}
    assert len(something["error"]) == 1
