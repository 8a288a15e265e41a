"""RAFT's flow figures and the metrics made of them, on weights that are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.models.optical_flow import raft_large

from eval.extractor import Clip, Compute
from eval.extractors import find
from eval.extractors.raft import enlarge, top_mean
from eval.extractors.sampling import centred_padding, flow_frames, flow_interval
from eval.metric import NotScored, Subject
from eval.metrics.dynamic import METRICS as DYNAMIC
from eval.metrics.dynamic import needed_steps
from eval.metrics.object_motion import METRICS as OBJECT
from manifests.errors import InputError
from tests.eval.drawn import draw_alpha, draw_frames, draw_weights

METRICS = {metric.card.name: metric for metric in (*DYNAMIC, *OBJECT)}
FRAMES = draw_frames(3, 130, 150, seed=4)


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights():
    return draw_weights(raft_large(), gain=0.7)


@pytest.fixture(scope="module")
def checkpoint(weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("raft") / "raft.pth"
    torch.save(weights, path)
    return path


@pytest.fixture(scope="module")
def features(checkpoint):
    clip = Clip(frames=FRAMES, alpha=draw_alpha(3, 130, 150), fps=8.0)
    return find("raft-things")(checkpoint, compute=Compute()).extract([clip])[0]


def torchvision_flows(weights: dict[str, torch.Tensor], frames: np.ndarray) -> list[np.ndarray]:
    """(2, H, W) of each pair on the padded image, one pair at a time."""
    network = raft_large().eval()
    network.load_state_dict(weights)
    images = 2 * (torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 255) - 1
    images = F.pad(images, centred_padding(*frames.shape[1:3], multiple=8), mode="replicate")
    with torch.inference_mode():
        pairs = zip(images[:-1, None], images[1:, None], strict=True)
        return [network(a, b, num_flow_updates=20)[-1][0].numpy() for a, b in pairs]


def vbench_speed(flow: np.ndarray) -> float:
    """Mean of the largest 5 % of magnitudes as VBench's source states it."""
    magnitudes = np.sqrt(np.square(flow[0]) + np.square(flow[1]))
    return float(np.mean(np.sort(magnitudes.flatten())[::-1][: int(magnitudes.size * 0.05)]))


def subject(clip: Clip, features: dict[str, np.ndarray]) -> Subject:
    return Subject(clip=clip, features={"raft-things": features, "raft-default": features})


def score(name: str, clip: Clip, features: dict[str, np.ndarray]):
    return METRICS[name].score(subject(clip, features))


def test_speeds_equal_those_of_vbench(features):
    # Golden values: RAFT and get_score of Vchitect/VBench 45e79ec (third_party/RAFT, dynamic_degree.py) on the same
    # frames, with the same drawn weights under its names, on a CPU; its flows and torchvision's were equal bit for bit.
    assert features["top5"] == pytest.approx([51.46652603149414, 51.77880096435547], rel=1e-5)
    assert features["frames"].tolist() == [0, 1, 2]


def test_figures_of_object_and_background_equal_their_definitions(features, weights):
    # Oracle: torchvision's own forward pass, one pair at a time, and the definitions in NumPy.
    left, _, top, _ = centred_padding(130, 150, multiple=8)
    masks = draw_alpha(3, 130, 150) > 127
    for k, flow in enumerate(torchvision_flows(weights, FRAMES)):
        assert features["top5"][k] == pytest.approx(vbench_speed(flow), rel=1e-5)
        seen = np.hypot(*flow.astype(np.float64))[top : top + 130, left : left + 150]
        inside = np.sort(seen[masks[k]])[::-1]
        assert features["object_top5"][k] == pytest.approx(inside[: len(inside) // 20].mean(), rel=1e-5)
        outside = seen[~(masks[k] | masks[k + 1])]
        assert features["background_mean"][k] == pytest.approx(outside.mean(), rel=1e-5)


def test_bit_is_that_of_vbench_on_both_sides_of_the_threshold(weights, tmp_path):
    # Oracle: VBench's rule, step by step, on torchvision's flows. The last layer is scaled so that flows are small.
    bits = []
    for scale in (0.02, 0.2):
        scaled = {name: scale * v if "flow_head.conv2" in name else v for name, v in weights.items()}
        torch.save(scaled, tmp_path / "raft.pth")
        clip = Clip(frames=draw_frames(3, 128, 128, seed=1), fps=8.0)
        [found] = find("raft-things")(tmp_path / "raft.pth", compute=Compute()).extract([clip])
        count, moves = 0, False
        for flow in torchvision_flows(scaled, clip.frames):
            count += vbench_speed(flow) > 6.0 * (128 / 256.0)
            moves = moves or count >= round(4 * (3 / 16.0))
        result = score("dynamic_degree@vbench-0.1.5", clip, found)
        assert result.value == float(moves)
        assert (result.extra["margin"] > 1) == moves
        bits.append(moves)
    assert bits == [False, True]


def test_features_do_not_depend_on_batches_order_and_neighbours(checkpoint, features):
    # Oracle: the clip by itself.
    clip = Clip(frames=FRAMES, alpha=draw_alpha(3, 130, 150), fps=8.0)
    other = Clip(frames=FRAMES[:, :, ::-1], fps=8.0)
    _, found = find("raft-things")(checkpoint, compute=Compute(batch_size=3)).extract([other, clip])
    assert found.keys() == features.keys()
    for name, values in features.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6)


def test_equal_pairs_go_through_the_network_once(checkpoint):
    # Oracle: a count of what passes the network's last layer. Fifteen equal pairs, twice, and one that differs.
    frozen = np.repeat(FRAMES[:1, :128, :128], 16, axis=0)
    moving = np.stack([frozen[0], frozen[0], FRAMES[1, :128, :128]])
    extractor = find("raft-things")(checkpoint, compute=Compute())
    passed = []
    extractor.network.mask_predictor.register_forward_hook(lambda *call: passed.append(len(call[2])))
    first, second, third = extractor.extract([Clip(frames=f, fps=8.0) for f in (frozen, frozen, moving)])
    assert sum(passed) == 2
    assert len(first["top5"]) == 15
    assert np.unique(first["top5"]).tolist() == np.unique(second["top5"]).tolist() == [third["top5"][0]]
    assert third["top5"][1] != third["top5"][0]


@pytest.mark.slow
def test_speeds_equal_torchvision_at_the_size_of_the_protocol(checkpoint, weights):
    # Oracle: torchvision's own forward pass and VBench's formula.
    clip = Clip(frames=draw_frames(5, 256, 256), fps=16.0)
    [found] = find("raft-default")(checkpoint, compute=Compute()).extract([clip])
    expected = [vbench_speed(flow) for flow in torchvision_flows(weights, clip.frames[::2])]
    assert found["top5"] == pytest.approx(expected, rel=1e-5)


def test_enlarging_mixes_the_nine_coarse_neighbours():
    # Oracle: the sum over neighbours written out; outside of the picture flow is zero.
    rng = np.random.default_rng(0)
    flow, weights = rng.standard_normal((1, 2, 3, 4)), rng.standard_normal((1, 576, 3, 4))
    found = enlarge(torch.from_numpy(flow), torch.from_numpy(weights))[0].numpy()
    padded = np.pad(flow[0], ((0, 0), (1, 1), (1, 1)))
    mix = np.exp(weights[0]).reshape(9, 8, 8, 3, 4)
    mix /= mix.sum(0)
    for y, x in np.ndindex(24, 32):
        row, column = y // 8, x // 8
        near = padded[:, row : row + 3, column : column + 3].reshape(2, 9)
        assert found[:, y, x] == pytest.approx(8 * near @ mix[:, y % 8, x % 8, row, column])


def test_top_mean_takes_a_twentieth_and_at_least_one():
    # Oracle: the definition on numbers in a known order.
    assert top_mean(torch.arange(100.0)) == 97.0
    assert top_mean(torch.arange(19.0)) == 18.0


def test_kept_frames_follow_the_frame_rate():
    # Oracle: the table of max(1, round(fps / 8)), half to even.
    table = {1: 1, 3: 1, 4: 1, 8: 1, 12: 2, 16: 2, 20: 2, 24: 3, 25: 3, 30: 4, 60: 8}
    assert {fps: flow_interval(fps) for fps in table} == table
    frames = np.zeros((10, 128, 128, 3), np.uint8)
    assert list(flow_frames(Clip(frames=frames, fps=24.0))) == [0, 3, 6, 9]
    assert not flow_frames(Clip(frames=frames))
    assert not flow_frames(Clip(frames=frames[:1], fps=8.0))
    assert list(flow_frames(Clip(frames=frames[:, :121, :121], fps=30.0))) == [0, 4, 8]
    assert not flow_frames(Clip(frames=frames[:, :120], fps=8.0))


def test_needed_steps_follow_the_reference_table():
    # Oracle: the table of the reference, evaluation.md A.4.
    table = {3: 1, 6: 2, 10: 2, 11: 3, 16: 4, 21: 5, 24: 6, 32: 8}
    assert {n: needed_steps(n) for n in table} == table


def made(speeds: list[float], size: int = 256, **more) -> tuple[Clip, dict[str, np.ndarray]]:
    """A clip and the features that the network would have to give for these speeds."""
    n = len(speeds) + 1
    clip = Clip(frames=np.zeros((n, size, size, 3), np.uint8), **{"fps": 8.0, **more})
    return clip, {"top5": np.array(speeds), "frames": np.arange(n)}


def test_bit_needs_more_than_the_threshold_in_a_quarter_of_the_frames():
    # Oracle: the rule, at and beside its edges: 16 frames need 4 steps above 6 px.
    name = "dynamic_degree@vbench-0.1.5"
    assert score(name, *made([6.1] * 4 + [0.0] * 11)).value == 1.0
    assert score(name, *made([6.1] * 3 + [6.0] * 12)).value == 0.0
    assert score(name, *made([6.1] * 4 + [0.0] * 11, size=512)).value == 0.0
    assert score("dynamic_degree@raft-default", *made([6.1] * 4 + [0.0] * 11)).value == 1.0
    assert score("dynamic_degree@vbench-0.1.4", *made([6.1] * 4 + [0.0] * 11)).value == 1.0


def test_margin_is_the_deciding_speed_over_the_threshold():
    # Oracle: by hand; of 16 frames the fourth largest decides.
    found = score("dynamic_margin@mvvideo-1", *made([1.0] * 11 + [9.0, 3.0, 12.0, 7.5]))
    assert found.value == 3.0 / 6.0
    assert found.frames[-1] == 7.5 / 6.0


def test_object_bit_is_measured_against_the_object():
    # Oracle: by hand. A disc of area A has the diameter 2 sqrt(A / pi); 6/256 of it must be exceeded by 1 of 2 steps.
    clip, features = made([0.0, 0.0], size=128, alpha=draw_alpha(3, 128, 128))
    areas = (clip.alpha > 127).sum((1, 2))
    diameter = 2 * np.sqrt(areas[:2].mean() / np.pi)
    edge = 6 * diameter / 256
    for speeds, value in (([0.0, 1.01 * edge], 1.0), ([0.99 * edge] * 2, 0.0), ([np.nan, 1.01 * edge], 1.0)):
        alpha = clip.alpha.copy()
        alpha[:1] = 0 if np.isnan(speeds[0]) else alpha[:1]
        found = score(
            "dynamic_object@mvvideo-1", replace(clip, alpha=alpha), features | {"object_top5": np.array(speeds)}
        )
        assert found.value == value
        assert np.isfinite(found.frames).all()
    assert found.extra["pairs_without_object"] == 1
    assert found.extra["diameter_px"] == pytest.approx(2 * np.sqrt(areas[1] / np.pi))


@pytest.mark.parametrize(
    ("clip", "features", "text"),
    [
        (made([1.0] * 3, fps=None)[0], {}, "no frame rate"),
        (made([1.0])[0], {}, "found 2 frames"),
        (made([1.0] * 7, fps=60.0)[0], {}, "found 1 frames"),
        (made([1.0] * 3, size=100)[0], {}, "found frames of 100x100"),
        (*made([1.0, np.nan, 1.0]), "NaN"),
    ],
)
def test_what_cannot_be_measured_is_refused(clip, features, text):
    # Oracle: the message; upstream says 0 for one frame and 1 for two, whatever they show.
    for name in METRICS:
        if name != "motion_smoothness_object@mvvideo-1":
            with pytest.raises(NotScored, match=text):
                score(name, clip, features)


def test_old_version_refuses_what_it_could_not_sample():
    # Oracle: round(fps / 8) is 0 up to 4 frames a second.
    name = "dynamic_degree@vbench-0.1.4"
    with pytest.raises(NotScored, match=r"use dynamic_degree@vbench-0.1.5"):
        score(name, *made([1.0] * 15, fps=4.0))
    assert score(name, *made([1.0] * 15, fps=5.0)).value == 0.0


def test_object_metric_wants_an_object():
    # Oracle: the messages.
    clip, features = made([1.0] * 3, size=128)
    with pytest.raises(NotScored, match="give frames with alpha"):
        score("dynamic_object@mvvideo-1", clip, features)
    with pytest.raises(NotScored, match="no object in any frame"):
        score("dynamic_object@mvvideo-1", clip, features | {"object_top5": np.full(3, np.nan)})


def test_weights_of_another_network_are_refused(tmp_path):
    # Oracle: the message names the file and what is wrong with it.
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(InputError, match=r"other\.pth: found no context_encoder.* of RAFT"):
        find("raft-things")(tmp_path / "other.pth", compute=Compute())
