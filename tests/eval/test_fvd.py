"""I3D's logits, the Fréchet video distance and Consistent4D's legacy figure, on weights that are drawn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from scipy import linalg

from eval.extractor import Clip, Compute
from eval.extractors import find
from eval.extractors.i3d import resized
from eval.extractors.i3d_network import I3d, _pad_same
from eval.metric import NotScored, Subject
from eval.metrics.fvd import FEWEST, METRICS, frechet_distance, logit_distance
from tests.eval.drawn import draw_frames, draw_weights

FVD, LEGACY = METRICS
VIDEO, TRUTH = draw_frames(9, 90, 110, seed=5), draw_frames(17, 90, 110, seed=6)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Without the counters of batch norms, as a file of 2018."""
    path = tmp_path_factory.mktemp("i3d") / "rgb_imagenet.pt"
    weights = draw_weights(I3d(), gain=2.2)
    torch.save({name: value for name, value in weights.items() if "num_batches" not in name}, path)
    return path


@pytest.fixture(scope="module")
def features(checkpoint):
    clip = Clip(frames=VIDEO, truth=TRUTH)
    still = Clip(frames=np.repeat(VIDEO[:1], 9, axis=0), truth=TRUTH)
    extractor, passed = find("i3d")(checkpoint, compute=Compute()), []
    extractor.network.logits.register_forward_hook(lambda *call: passed.append(len(call[2])))
    found = extractor.extract([clip, still])
    assert sum(passed) == 3, "the truth of both is one video"
    return found


def subject(features: dict[str, np.ndarray], name: str = "") -> Subject:
    frames = np.zeros((0, 0, 0, 3), np.uint8)
    return Subject(clip=Clip(frames=frames, object_id=name), features={"i3d": features})


def test_logits_equal_those_of_the_sources(features):
    # Golden values: evaluation/inception3d.py of yanqinJiang/Consistent4D e6d3e25 (mean over steps) and pytorch_i3d.py
    # of piergiaj/pytorch-i3d 05783d1 (pairs of steps), which load the same drawn weights strictly, on frames that went
    # through Consistent4D's resize, on a CPU.
    video, truth = features[0]["video"], features[0]["truth"]
    assert video.shape == (2, 400)
    assert truth.shape == (3, 400)
    assert video.mean(0)[:3] == pytest.approx([-6.2724823952, 1.5201802254, -4.3878107071], abs=2e-5)
    assert truth.mean(0)[:3] == pytest.approx([-9.6277942657, 2.6514680386, -6.4120192528], abs=2e-5)
    pairs = (truth[:-1] + truth[1:]) / 2
    assert pairs.mean(0)[:3] == pytest.approx([-10.0513477325, 3.0278475285, -6.1970081329], abs=2e-5)


def test_logits_do_not_depend_on_batches_order_and_neighbours(checkpoint, features):
    # Oracle: the same clip beside another one.
    clips = [Clip(frames=TRUTH), Clip(frames=VIDEO)]
    first, second = find("i3d")(checkpoint, compute=Compute(batch_size=1)).extract(clips)
    np.testing.assert_allclose(first["video"], features[0]["truth"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(second["video"], features[0]["video"], rtol=1e-5, atol=1e-5)
    assert "truth" not in first


def test_network_has_the_size_of_i3d():
    # Oracle: 12.7 M parameters with 400 classes (piergiaj/pytorch-i3d, counted from its own graph).
    assert sum(p.numel() for p in I3d().parameters()) == 12_697_264


def test_padding_keeps_a_size_or_its_quotient():
    # Oracle: "same" of TensorFlow: ceil(size / stride) places, the odd zero behind.
    for size, kernel, stride in ((5, 3, 1), (5, 3, 2), (6, 3, 2), (7, 2, 2), (8, 7, 2), (9, 1, 3)):
        padded = _pad_same(torch.ones(1, 1, size, 1, 1), (kernel, 1, 1), (stride, 1, 1))[0, 0, :, 0, 0]
        assert len(F.avg_pool1d(padded[None], kernel, stride)[0]) == -(-size // stride)
        front, back = int(padded.argmax()), int(padded.flip(0).argmax())
        assert back - front in (0, 1)


def test_frames_are_resized_by_pillow_in_floating_point():
    # Oracle: Pillow on one channel.
    frames = draw_frames(2, 90, 110)
    found = resized(frames)
    channel = Image.fromarray(frames[1, ..., 2].astype(np.float32), mode="F")
    assert np.array_equal(found[1, ..., 2], np.asarray(channel.resize((224, 224), Image.Resampling.BICUBIC)))
    assert np.array_equal(resized(found[:1].clip(0, 255).astype(np.uint8)), found[:1].clip(0, 255).astype(np.uint8))


def test_legacy_figure_equals_that_of_the_script(features):
    # Golden value: the script's fid_from_feats on its own network's logits with NumPy 1.26.4 (see the logits above).
    found = LEGACY.score(subject(features[0]))
    assert found.value == pytest.approx(603.847125915635, rel=1e-5)
    assert found.value == sum(found.extra.values())


def test_legacy_figure_is_the_frechet_formula_with_a_scalar_covariance():
    # Oracle: the formula of the script, with the variance over logits in place of what NumPy before 2.2 returned.
    a, b = np.random.default_rng(0).standard_normal((2, 400)) * [[1.0], [2.5]]
    cov_a, cov_b = np.cov(a), np.cov(b)
    expected = np.sum((a - b) ** 2) + cov_a + cov_b - 2 * np.sqrt(cov_a * cov_b)
    assert sum(logit_distance(a, b)) == pytest.approx(expected, rel=1e-12)


def test_frechet_distance_of_diagonal_normals_is_the_closed_form():
    # Oracle: sum of squared differences of means and of standard deviations; also where some are 0.
    rng = np.random.default_rng(1)
    mean_a, mean_b = rng.standard_normal((2, 20))
    sigma_a, sigma_b = rng.uniform(0, 3, (2, 20))
    sigma_a[:5], sigma_b[3:8] = 0, 0
    expected = np.sum((mean_a - mean_b) ** 2) + np.sum((sigma_a - sigma_b) ** 2)
    found = frechet_distance(mean_a, np.diag(sigma_a**2), mean_b, np.diag(sigma_b**2))
    assert found == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("samples", [12, 60, 2000])
def test_frechet_distance_equals_the_matrix_root(samples):
    # Oracle: scipy's square root of the product, as the sources take it; 12 samples leave 40 dimensions singular, where
    # that root is made with a small number on the diagonal.
    rng = np.random.default_rng(2)
    a = rng.standard_normal((samples, 40)) @ rng.standard_normal((40, 40))
    b = rng.standard_normal((samples, 40)) @ rng.standard_normal((40, 40)) + 1
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    jitter = 1e-9 * np.eye(40) if samples < 40 else 0
    root = linalg.sqrtm((cov_a + jitter) @ (cov_b + jitter)).real
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    found = frechet_distance(a.mean(0), cov_a, b.mean(0), cov_b)
    assert found == pytest.approx(expected, rel=1e-9 if samples > 40 else 1e-3)
    assert frechet_distance(a.mean(0), cov_a, a.mean(0), cov_a) < 1e-8 * np.trace(cov_a)


@pytest.fixture(scope="module")
def many():
    rng = np.random.default_rng(3)
    shape = rng.standard_normal((400, 400)) / 20
    return [
        subject(
            {"video": (rng.standard_normal((2, 400)) @ shape + 0.1).astype(np.float32),
             "truth": (rng.standard_normal((3, 400)) @ shape).astype(np.float32)},
            name=f"object-{k}",
        )
        for k in range(FEWEST)
    ]  # fmt: skip


def test_fvd_of_a_set_is_the_frechet_distance_of_its_logits(many):
    # Oracle: mean, covariance and scipy's matrix root of the rows, pooled by hand; the order of videos does not matter.
    video = np.stack([s.features["i3d"]["video"].astype(np.float64).mean(0) for s in many])
    steps = np.stack([s.features["i3d"]["truth"].astype(np.float64) for s in many])
    truth = (steps[:, 0] + 2 * steps[:, 1] + steps[:, 2]) / 4
    cov_a, cov_b = np.cov(video, rowvar=False), np.cov(truth, rowvar=False)
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = np.sum((video.mean(0) - truth.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    found = FVD.score(many)
    assert found.value == pytest.approx(expected, rel=1e-6)
    assert found.extra["videos"] == FEWEST
    assert FVD.score(many[::-1]).value == found.value


def test_small_sets_missing_truths_and_short_clips_are_refused(many):
    # Oracle: the messages.
    logits = many[0].features["i3d"]
    with pytest.raises(NotScored, match="found 400 videos, expected at least 401"):
        FVD.score(many[1:])
    with pytest.raises(NotScored, match="no ground-truth clip"):
        FVD.score([*many[1:], subject({"video": logits["video"]})])
    with pytest.raises(NotScored, match="a video of at most 8 frames, expected at least 9"):
        FVD.score([*many[1:], subject({**logits, "video": logits["video"][:1]})])
    with pytest.raises(NotScored, match="NaN"):
        LEGACY.score(subject({**logits, "truth": np.full((1, 400), np.nan)}))
    with pytest.raises(NotScored, match="no ground-truth clip"):
        LEGACY.score(subject({"video": logits["video"]}))
