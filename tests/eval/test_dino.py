"""DINO's class token and the metrics on it, against a second ViT in plain calls and the sources' loops over frames."""

from __future__ import annotations

import math
import pickle
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional as F
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Lambda, Normalize, Resize, ToTensor

from eval.extractor import Clip, Compute
from eval.extractors import EXTRACTORS
from eval.extractors.dino import Dino224, Dino256Crop, Dino256CropNoAntialias, DinoObject, class_token, position_codes
from eval.metric import NotScored, Score, Subject
from eval.metrics import aesthetic, consistency, identity, prompt, temporal
from manifests.errors import InputError

GOLDEN = {
    "i2v_subject@vbench-2024-07": 0.84884074,
    "i2v_subject@vbench-2024-07-noaa": 0.84935903,
    "i2v_subject@vbench-2024-03": 0.96911585,
}
"""Of the network of seed 7 and the clip of seed 0, 300 by 260; `source_i2v` printed them with torch 2.14.1 and
torchvision 0.29.1 on a CPU."""
METRICS = {metric.card.name: metric for metric in (*identity.METRICS, *consistency.METRICS)}
TINY = {"model_name": "vit_base_patch16_224.dino", "embed_dim": 48, "depth": 2, "num_heads": 3}


class Crop(Dino256Crop):
    architecture = TINY


class CropNoAntialias(Dino256CropNoAntialias):
    architecture = TINY


class Whole(Dino224):
    architecture = TINY


class Object(DinoObject):
    architecture = TINY


def draw_weights(architecture: dict, seed: int, spread: float = 0.3) -> dict[str, torch.Tensor]:
    """Wide matrices and little of what all images share, so that features of different images point far apart."""
    generator, weights = torch.Generator().manual_seed(seed), {}
    for name, value in timm.create_model(**architecture, num_classes=0).state_dict().items():
        wide = name.endswith("weight") and "norm" not in name
        drawn = torch.randn(value.shape, generator=generator) * (spread if wide else 0.02)
        weights[name] = drawn + float("norm" in name and name.endswith("weight"))
    return weights


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return draw_weights(TINY, 7)


@pytest.fixture(scope="module")
def checkpoint(weights, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("dino") / "dino_vitbase16_pretrain.pth"
    torch.save(weights, path)
    return path


def clip(height: int = 256, width: int = 256, frames: int = 4, seed: int = 0, *, reference: bool = True) -> Clip:
    """A bright square that moves over smooth noise, so that frames are alike but not equal."""
    rng = np.random.default_rng(seed)
    ground = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((width, height)))
    images = np.repeat(ground[None], frames + 1, axis=0)
    alpha = np.zeros(images.shape[:3], np.uint8)
    for k in range(frames + 1):
        top, left = height // 4 + 3 * k, width // 3 + 5 * k
        images[k, top : top + height // 4, left : left + width // 5] = rng.integers(0, 256, 3)
        alpha[k, top : top + height // 4, left : left + width // 5] = 255
    at_rest = {"reference": images[0], "reference_alpha": alpha[0]} if reference else {}
    return Clip(frames=images[1:], alpha=alpha[1:], view="a000e+00", **at_rest)


def cubic(distance: float) -> float:
    """The kernel that PyTorch's bicubic uses, a = -0.75."""
    d, a = abs(distance), -0.75
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def slow_resample(grid: np.ndarray, out: int, scale: float) -> np.ndarray:
    """Bicubic along the first axis: position (k + 0.5) / scale - 0.5, the border repeated."""
    rows = []
    for k in range(out):
        at = (k + 0.5) / scale - 0.5
        taps = [math.floor(at) + j for j in (-1, 0, 1, 2)]
        rows.append(sum(cubic(at - tap) * grid[min(max(tap, 0), len(grid) - 1)] for tap in taps))
    return np.stack(rows)


def slow_position_codes(learnt: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """DINO's rule: as learnt for the trained square, else interpolated by a scale that is 0.1 patches too large."""
    side = math.isqrt(learnt.shape[1] - 1)
    if (height // 16) * (width // 16) == side * side and height == width:
        return learnt
    grid = learnt[0, 1:].double().numpy().reshape(side, side, -1)
    grid = slow_resample(grid, height // 16, (height // 16 + 0.1) / side)
    grid = slow_resample(grid.swapaxes(0, 1), width // 16, (width // 16 + 0.1) / side).swapaxes(0, 1)
    return torch.cat([learnt[:, :1], torch.from_numpy(grid.reshape(1, -1, learnt.shape[2])).float()], dim=1)


def slow_vit(p: dict[str, torch.Tensor], image: torch.Tensor, heads: int) -> torch.Tensor:
    """A ViT in plain calls: pre-norm blocks, exact GELU, softmax attention written out; (feature,)."""
    dim = p["cls_token"].shape[-1]
    x = F.conv2d(image[None], p["patch_embed.proj.weight"], p["patch_embed.proj.bias"], stride=16)[0].flatten(1).T
    x = torch.cat([p["cls_token"][0], x]) + slow_position_codes(p["pos_embed"], *image.shape[1:])[0]
    for block in range(sum(name.endswith("norm1.weight") for name in p)):
        b = {name.removeprefix(f"blocks.{block}."): v for name, v in p.items() if name.startswith(f"blocks.{block}.")}
        h = F.layer_norm(x, (dim,), b["norm1.weight"], b["norm1.bias"], 1e-6)
        q, k, v = (h @ b["attn.qkv.weight"].T + b["attn.qkv.bias"]).split(dim, dim=1)
        mixed = []
        for head in range(heads):
            part = slice(head * dim // heads, (head + 1) * dim // heads)
            mixed.append(torch.softmax(q[:, part] @ k[:, part].T / math.sqrt(dim // heads), dim=1) @ v[:, part])
        x = x + torch.cat(mixed, dim=1) @ b["attn.proj.weight"].T + b["attn.proj.bias"]
        h = F.layer_norm(x, (dim,), b["norm2.weight"], b["norm2.bias"], 1e-6)
        h = h @ b["mlp.fc1.weight"].T + b["mlp.fc1.bias"]
        h = 0.5 * h * (1 + torch.erf(h / math.sqrt(2)))
        x = x + h @ b["mlp.fc2.weight"].T + b["mlp.fc2.bias"]
    return F.layer_norm(x, (dim,), p["norm.weight"], p["norm.bias"], 1e-6)[0]


BICUBIC = InterpolationMode.BICUBIC
IMAGENET = Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
SCALE = Lambda(lambda x: x.float().div(255.0))
VERSIONS = {
    # metric: extractor, transform of frames, transform of the reference, weights of (max, mean, min).
    "i2v_subject@vbench-2024-07": (
        Crop,
        Compose([Resize(256, BICUBIC, antialias=True), CenterCrop(224), SCALE, IMAGENET]),
        Compose([Resize(256, BICUBIC), CenterCrop(224), ToTensor(), IMAGENET]),
        (0.4, 0.3, 0.3),
    ),
    "i2v_subject@vbench-2024-07-noaa": (
        CropNoAntialias,
        Compose([Resize(256, BICUBIC, antialias=False), CenterCrop(224), SCALE, IMAGENET]),
        Compose([Resize(256, BICUBIC), CenterCrop(224), ToTensor(), IMAGENET]),
        (0.4, 0.3, 0.3),
    ),
    "i2v_subject@vbench-2024-03": (
        Whole,
        Compose([Resize(224, antialias=False), SCALE, IMAGENET]),
        Compose([Resize(224), ToTensor(), IMAGENET]),
        (0.5, 0.5, 0.0),
    ),
}


def source_i2v(p: dict, clip: Clip, frame_transform, image_transform, weights) -> float:
    """The source's loop: one frame at a time, cosines of normalised features, negatives cut to 0."""
    reference = F.normalize(slow_vit(p, image_transform(Image.fromarray(clip.reference)), 3)[None], dim=-1, p=2)
    images = frame_transform(torch.Tensor(clip.frames).permute(0, 3, 1, 2))
    conformity, consecutive, former = [], [], None
    for image in images:
        features = F.normalize(slow_vit(p, image, 3)[None], dim=-1, p=2)
        if former is not None:
            consecutive.append(max(0.0, F.cosine_similarity(former, features).item()))
        conformity.append(max(0.0, F.cosine_similarity(reference, features).item()))
        former = features
    return weights[0] * np.max(conformity) + weights[1] * np.mean(consecutive) + weights[2] * np.min(consecutive)


def source_consistency(features: torch.Tensor) -> float:
    """The source's loop over features, one frame at a time."""
    features, total = F.normalize(features, dim=-1, p=2), 0.0
    for k in range(1, len(features)):
        before = max(0.0, F.cosine_similarity(features[k - 1 : k], features[k : k + 1]).item())
        first = max(0.0, F.cosine_similarity(features[:1], features[k : k + 1]).item())
        total += (before + first) / 2
    return total / (len(features) - 1)


def score(name: str, clip: Clip, extractor) -> Score:
    [features] = extractor.extract([clip])
    return METRICS[name].score(Subject(clip=clip, features={extractor.name: features}))


# -- exactness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(256, 256), (64, 96), (300, 260)])
@pytest.mark.parametrize("name", VERSIONS)
def test_i2v_subject_is_the_sources_loop(name, size, weights, checkpoint):
    """Against VBench-I2V's formula, frame by frame, on a second ViT with the same weights."""
    extractor, frame_transform, image_transform, terms = VERSIONS[name]
    video = clip(*size)
    expected = source_i2v(weights, video, frame_transform, image_transform, terms)
    found = score(name, video, extractor(checkpoint, compute=Compute()))
    assert found.value == pytest.approx(expected, abs=1e-5)
    parts = [found.extra[key] for key in ("best", "step_mean", "step_min")]
    assert np.dot(parts, terms) == pytest.approx(found.value, abs=1e-12)
    assert found.frames.max() == found.extra["best"]
    assert found.frames.min() == found.extra["worst"]
    assert len(found.frames) == video.num_frames


@pytest.mark.parametrize("size", [(224, 224), (80, 112), (230, 224)])
def test_subject_consistency_is_the_sources_loop(size, weights, checkpoint):
    """Against VBench's formula, frame by frame, on a second ViT with the same weights."""
    video = clip(*size, reference=False)
    images = Compose([Resize(224, antialias=False), SCALE, IMAGENET])(torch.Tensor(video.frames).permute(0, 3, 1, 2))
    expected = source_consistency(torch.stack([slow_vit(weights, image, 3) for image in images]))
    found = score("subject_consistency@vbench", video, Whole(checkpoint, compute=Compute()))
    assert found.value == pytest.approx(expected, abs=1e-5)
    assert found.frames.mean() == pytest.approx(found.value)


def test_i2v_object_is_i2v_of_the_clip_cut_by_hand(weights, checkpoint):
    """Against the source's loop on frames cut out with slices: a 40 px square that moves by 8 px is in a 58 px crop."""
    ground, box = np.full((3, 120, 200, 3), 127, np.uint8), np.zeros((3, 120, 200), np.uint8)
    for k in range(3):
        ground[k, 50:90, 100 + 4 * k : 140 + 4 * k] = np.random.default_rng(k).integers(0, 256, (40, 40, 3))
        box[k, 50:90, 100 + 4 * k : 140 + 4 * k] = 200
    box[:, 0, 0] = 100
    cut = ground[:, 41:99, 95:153]
    video = Clip(frames=ground[1:], alpha=box[1:], reference=ground[0], reference_alpha=box[0])
    by_hand = Clip(frames=cut[1:], reference=cut[0])
    expected = source_i2v(weights, by_hand, *VERSIONS["i2v_subject@vbench-2024-07"][1:])
    assert score("i2v_object@mvvideo-1", video, Object(checkpoint, compute=Compute())).value == pytest.approx(
        expected, abs=1e-5
    )


def test_class_token_is_timms_on_the_trained_square(weights):
    """Against timm's own forward pass."""
    network = timm.create_model(**TINY, num_classes=0).eval()
    network.load_state_dict(weights)
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(class_token(network, images), network(images), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("size", [(224, 224), (224, 336), (448, 224), (230, 224), (224, 239), (240, 240)])
def test_position_codes_are_dinos(size, weights):
    """Against the bicubic formula written out, with DINO's 0.1, also where only the remainder is not square."""
    learnt = weights["pos_embed"]
    found = position_codes(learnt, *size, 16)
    torch.testing.assert_close(found, slow_position_codes(learnt, *size), atol=2e-5, rtol=1e-5)
    assert torch.equal(found, learnt) == (size == (224, 224))


@pytest.mark.slow
def test_full_network_is_a_plain_vit(tmp_path):
    """Against the second ViT at full width and depth."""
    full = {"model_name": "vit_base_patch16_224.dino"}
    p = draw_weights(full, 3, 0.05)
    torch.save(p, tmp_path / "full.pth")
    video = clip(96, 96, 1)
    [features] = Dino256Crop(tmp_path / "full.pth", compute=Compute()).extract([video])
    image = VERSIONS["i2v_subject@vbench-2024-07"][2](Image.fromarray(video.reference))
    torch.testing.assert_close(torch.from_numpy(features["reference"]), slow_vit(p, image, 12), atol=1e-4, rtol=1e-4)


# -- the same whatever the batches -------------------------------------------------------------------------------------


def test_features_do_not_depend_on_batches_order_or_grouping(checkpoint):
    """Against each clip alone, one image at a time; sizes and clips without reference mixed."""
    clips = [clip(), clip(64, 96, 3, 1), clip(frames=2, seed=2, reference=False), clip(64, 96, 5, 3)]
    alone = [Crop(checkpoint, compute=Compute(batch_size=1)).extract([video])[0] for video in clips]
    for batch_size in (3, 64):
        extractor = Crop(checkpoint, compute=Compute(batch_size=batch_size))
        for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
            for k, features in zip(order, extractor.extract([clips[k] for k in order]), strict=True):
                assert features.keys() == alone[k].keys()
                for name in features:
                    scale = np.abs(alone[k][name]).max()
                    np.testing.assert_allclose(features[name], alone[k][name], atol=1e-6 * scale, rtol=0)


def test_repeated_frames_are_encoded_once(checkpoint):
    """Against the images that reach the network: a frozen copy adds one, the reference of all clips is one more."""
    video = clip(64, 96, 4)
    frozen = Clip(frames=np.broadcast_to(video.reference, (4, *video.reference.shape)), reference=video.reference)
    first = Clip(frames=np.repeat(video.frames[:1], 4, axis=0), reference=video.reference.copy())
    extractor, seen = Crop(checkpoint, compute=Compute(batch_size=2)), []
    extractor.network.patch_embed.proj.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    extractor.extract([video, frozen, first])
    assert sum(seen) == 4 + 1 + 1
    assert max(seen) == 2


def test_a_frozen_copy_scores_one_where_nothing_is_resized(checkpoint):
    """Formula: all cosines are 1 at 256 px, where both paths give the same pixels."""
    video = clip()
    frozen = Clip(frames=np.repeat(video.reference[None], 3, axis=0), reference=video.reference)
    assert score("i2v_subject@vbench-2024-07", frozen, Crop(checkpoint, compute=Compute())).value == pytest.approx(1.0)


def test_golden_values(checkpoint):
    """Stored numbers of the sources' loop; see `GOLDEN`."""
    video = clip(300, 260)
    found = {name: score(name, video, VERSIONS[name][0](checkpoint, compute=Compute())).value for name in VERSIONS}
    assert found == pytest.approx(GOLDEN, abs=1e-5)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "extractor", "video", "found"),
    [
        ("i2v_subject@vbench-2024-07", Crop, clip(64, 64, 3, reference=False), "no image of view a000e[+]00 at rest"),
        ("i2v_subject@vbench-2024-07", Crop, clip(64, 64, 1), "1 frame"),
        ("subject_consistency@vbench", Whole, clip(64, 64, 1), "1 frame"),
        ("i2v_object@mvvideo-1", Object, Clip(frames=clip(64, 64).frames), "no transparency"),
        (
            "i2v_object@mvvideo-1",
            Object,
            Clip(frames=clip(64, 64).frames, alpha=np.full((4, 64, 64), 90, np.uint8)),
            "no pixel that is at least half opaque",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused(name, extractor, video, found, checkpoint):
    """Against the rule of each card; the message says what was found and what to do."""
    with pytest.raises(NotScored, match=rf"found {found}.*expected .*; give "):
        score(name, video, extractor(checkpoint, compute=Compute()))


def test_object_features_are_missing_only_for_clips_without_an_object(checkpoint):
    """Against the same clip alone."""
    video = clip(64, 64)
    extractor = Object(checkpoint, compute=Compute())
    none, some, empty = extractor.extract(
        [Clip(frames=video.frames), video, Clip(frames=video.frames, alpha=0 * video.alpha)]
    )
    assert none == {}
    assert empty == {}
    np.testing.assert_allclose(some["frames"], extractor.extract([video])[0]["frames"], rtol=1e-5, atol=1e-6)


def test_nan_from_the_network_is_refused():
    """Against the rule that no score is ever NaN."""
    rows = np.ones((4, 48), np.float32)
    rows[2, 5] = np.nan
    subject = Subject(clip=clip(64, 64), features={"dino@224": {"frames": rows, "reference": rows[0]}})
    for name in ("i2v_subject@vbench-2024-03", "subject_consistency@vbench"):
        with pytest.raises(NotScored, match=r"found NaN from dino@224.*mvv weights verify"):
            METRICS[name].score(subject)


class Runs:
    def __reduce__(self):
        return (print, ("run",))


def test_a_file_that_does_not_fit_is_refused(weights, tmp_path, capfd):
    """Against the file's name and what was found; nothing in a pickle runs."""
    whole = tmp_path / "whole.pth"
    torch.save(weights, whole)
    files = {
        "absent.pth": (None, "No such file"),
        "empty.pth": (b"", "found"),
        "cut.pth": (whole.read_bytes()[:-2000], "found"),
        "pickle.pth": (pickle.dumps(Runs(), protocol=2), "expected tensors only"),
        "short.pth": ({k: v for k, v in weights.items() if k != "cls_token"}, "cls_token"),
        "shape.pth": (weights | {"cls_token": torch.zeros(1, 1, 47)}, r"\(1, 1, 47\)"),
        "nan.pth": (weights | {"norm.bias": torch.full((48,), math.nan)}, "NaN"),
        "more.pth": (weights | {"head.weight": torch.zeros(3)}, r"head\.weight"),
    }
    for name, (content, found) in files.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif content is not None:
            torch.save(content, tmp_path / name)
        with pytest.raises(InputError, match=rf"{name}: .*{found}"):
            Crop(tmp_path / name, compute=Compute())
    assert "run" not in capfd.readouterr().out


def test_cards_name_the_weights_of_their_extractors():
    """Against the classes that the names stand for: the order and names of the files, and the extractor's own name."""
    for metric in (*identity.METRICS, *consistency.METRICS, *prompt.METRICS, *temporal.METRICS, *aesthetic.METRICS):
        [name] = metric.extractors
        module, _, cls = EXTRACTORS[name].partition(":")
        extractor = getattr(import_module(module), cls)
        assert (extractor.name, extractor.weights) == (name, metric.card.weights)
