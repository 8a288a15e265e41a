"""CLIP's embeddings and the metrics on them, against open_clip itself, one image at a time, and the sources' loops."""

from __future__ import annotations

import json
import pickle
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Lambda, Normalize, Resize

from eval.extractor import Clip, Compute
from eval.extractors.aesthetic import Aesthetic
from eval.extractors.clip import ClipB32, ClipB32Eval, ClipL14, ClipL14Eval
from eval.metric import NotScored, Score, Subject
from eval.metrics import aesthetic, consistency, identity, prompt, temporal
from manifests.errors import InputError

METRICS = {
    metric.card.name: metric
    for module in (identity, consistency, prompt, temporal, aesthetic)
    for metric in module.METRICS
}
CONFIG = {
    "embed_dim": 40,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 224, "layers": 2, "width": 64, "head_width": 16, "patch_size": 32},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}
GOLDEN = {
    "clip_i@b32": 0.86722669,
    "clip_f@b32": 0.78979671,
    "clip_t@b32": -0.09940996,
    "background_consistency@vbench": 0.8060254,
    "aesthetic_quality@vbench": 0.42350857,
}
"""Of the network of seed 7 and the clip of seed 0; `source_scores` printed them with torch 2.14.1, torchvision 0.29.1
and open_clip 3.3.0 on a CPU."""


class Tiny(ClipB32):
    architecture = "tiny-quickgelu"


class TinyEval(ClipB32Eval):
    architecture = "tiny-quickgelu"


class TinyPlainGelu(ClipB32):
    architecture = "tiny"


class TinyAesthetic(Aesthetic):
    architecture = "tiny-quickgelu"


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Has the configurations of the small networks, which open_clip knows from then on."""
    path = tmp_path_factory.mktemp("clip")
    (path / "configs").mkdir()
    (path / "configs" / "tiny-quickgelu.json").write_text(json.dumps(CONFIG))
    (path / "configs" / "tiny.json").write_text(json.dumps(CONFIG | {"quick_gelu": False}))
    open_clip.add_model_config(path / "configs")
    return path


@pytest.fixture(scope="module")
def weights(folder) -> dict[str, torch.Tensor]:
    return draw_weights(7)


def draw_weights(seed: int) -> dict[str, torch.Tensor]:
    """Wide matrices and little of what all images share, so that embeddings of different images point far apart."""
    generator, weights = torch.Generator().manual_seed(seed), {}
    for name, value in open_clip.CLIP(**open_clip.get_model_config("tiny-quickgelu")).state_dict().items():
        shared = value.ndim < 2 or "positional" in name
        drawn = torch.randn(value.shape, generator=generator) * (0.02 if shared else 0.3)
        weights[name] = drawn + float("ln_" in name and name.endswith("weight"))
    return weights


@pytest.fixture(scope="module")
def checkpoint(folder, weights) -> Path:
    torch.save(weights, folder / "ViT-B-32.pt")
    return folder / "ViT-B-32.pt"


@pytest.fixture(scope="module")
def head(folder) -> Path:
    generator = torch.Generator().manual_seed(8)
    tensors = {"weight": torch.randn(1, 40, generator=generator) * 5, "bias": torch.tensor([5.0])}
    torch.save(tensors, folder / "sa_0_4_vit_l_14_linear.pth")
    return folder / "sa_0_4_vit_l_14_linear.pth"


def clip(height: int = 96, width: int = 130, frames: int = 4, seed: int = 0, **fields) -> Clip:
    """A bright square that moves over smooth noise, so that frames are alike but not equal."""
    rng = np.random.default_rng(seed)
    ground = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((width, height)))
    images = np.repeat(ground[None], frames + 1, axis=0)
    for k in range(frames + 1):
        top, left = height // 4 + 3 * k, width // 3 + 5 * k
        images[k, top : top + height // 3, left : left + width // 4] = rng.integers(0, 256, 3)
    return Clip(frames=images[1:], **({"reference": images[0], "prompt": "a fox runs", "view": "a000e+00"} | fields))


def source_network(checkpoint: Path) -> open_clip.CLIP:
    """Built and loaded by open_clip."""
    return open_clip.create_model("tiny-quickgelu", pretrained=str(checkpoint)).eval()


def source_scores(clip: Clip, network: open_clip.CLIP, head: dict[str, torch.Tensor]) -> dict[str, float]:
    """Each score as its source computes it: an image a call, features normalised, cosines one after another."""
    transform = open_clip.image_transform(224, is_train=False)
    with torch.no_grad():
        own = [network.encode_image(transform(Image.fromarray(frame))[None]) for frame in clip.frames]
        reference = network.encode_image(transform(Image.fromarray(clip.reference))[None])
        text = network.encode_text(open_clip.get_tokenizer("tiny-quickgelu")([clip.prompt]))
        # VBench: clip_transform(224) on the float frames of load_video.
        resize = Resize(224, InterpolationMode.BICUBIC, antialias=False)
        means = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
        vbench = Compose([resize, CenterCrop(224), Lambda(lambda x: x.float().div(255.0)), Normalize(*means)])
        images = vbench(torch.Tensor(clip.frames).permute(0, 3, 1, 2))
        features = [F.normalize(network.encode_image(image[None]), dim=-1, p=2) for image in images]
    background = []
    for k in range(1, len(features)):
        before = max(0.0, F.cosine_similarity(features[k - 1], features[k]).item())
        first = max(0.0, F.cosine_similarity(features[0], features[k]).item())
        background.append((before + first) / 2)
    judged = [F.linear(feature, head["weight"], head["bias"]).item() / 10 for feature in features]
    return {
        "clip_i@b32": np.mean([F.cosine_similarity(frame, reference).item() for frame in own]),
        "clip_f@b32": np.mean([F.cosine_similarity(a, b).item() for a, b in pairwise(own)]),
        "clip_t@b32": np.mean([F.cosine_similarity(frame, text).item() for frame in own]),
        "background_consistency@vbench": sum(background) / (len(features) - 1),
        "aesthetic_quality@vbench": np.mean(judged),
    }


def scores(clip: Clip, checkpoint: Path, head: Path, compute: Compute | None = None) -> dict[str, Score]:
    compute = compute or Compute()
    extractors = [
        Tiny(checkpoint, compute=compute),
        TinyEval(checkpoint, compute=compute),
        TinyAesthetic(checkpoint, head, compute=compute),
    ]
    features = {extractor.name: extractor.extract([clip])[0] for extractor in extractors}
    return {name: METRICS[name].score(Subject(clip=clip, features=features)) for name in GOLDEN}


# -- exactness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(96, 130), (224, 224), (301, 240)])
def test_scores_are_the_sources(size, checkpoint, head):
    """Against open_clip's own loading, transform, tokenizer and towers, an image at a time, and the formulas."""
    video = clip(*size)
    expected = source_scores(video, source_network(checkpoint), torch.load(head, weights_only=True))
    found = scores(video, checkpoint, head)
    assert {name: score.value for name, score in found.items()} == pytest.approx(expected, abs=1e-5)
    pairs = {"clip_f@b32", "background_consistency@vbench"}
    assert {name for name, score in found.items() if len(score.frames) == video.num_frames - 1} == pairs
    assert all(score.frames.mean() == pytest.approx(score.value) for score in found.values())


def test_golden_values(checkpoint, head):
    """Stored numbers of the sources' formulas; see `GOLDEN`."""
    found = {name: score.value for name, score in scores(clip(), checkpoint, head).items()}
    assert found == pytest.approx(GOLDEN, abs=1e-5)


def test_the_activation_is_quickgelu(checkpoint, weights):
    """Formula: x sigmoid(1.702 x) in both towers; and GELU would give other embeddings."""
    extractor, x = TinyEval(checkpoint, compute=Compute()), torch.linspace(-4, 4, 33)
    for tower in (extractor.network.visual.transformer, extractor.network.transformer):
        for block in tower.resblocks:
            torch.testing.assert_close(block.mlp.gelu(x), x * torch.sigmoid(1.702 * x))
    plain = open_clip.CLIP(**open_clip.get_model_config("tiny")).eval()
    plain.load_state_dict(weights)
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        gelu, quick = (F.normalize(network.encode_image(image)) for network in (plain, extractor.network))
    assert (gelu - quick).norm() > 1e-3


def test_a_configuration_without_quickgelu_is_a_mistake_of_ours(checkpoint):
    """Against open_clip's plain names; and those in use have it."""
    with pytest.raises(AssertionError, match="tiny without QuickGELU"):
        TinyPlainGelu(checkpoint, compute=Compute())
    names = {cls.architecture for cls in (ClipB32, ClipB32Eval, ClipL14, ClipL14Eval, Aesthetic)}
    assert names == {"ViT-B-32-quickgelu", "ViT-L-14-quickgelu"}
    assert all(open_clip.get_model_config(name)["quick_gelu"] for name in names)


# -- the same whatever the batches -------------------------------------------------------------------------------------


def test_features_do_not_depend_on_batches_order_or_grouping(checkpoint, head):
    """Against each clip alone, one image at a time; sizes, prompts and clips without either mixed."""
    clips = [clip(), clip(60, 60, 3, 1, prompt="a cat"), clip(frames=2, seed=2, reference=None, prompt="")]
    for make in (Tiny, TinyEval, lambda path, compute: TinyAesthetic(path, head, compute=compute)):
        alone = [make(checkpoint, compute=Compute(batch_size=1)).extract([video])[0] for video in clips]
        for batch_size in (2, 64):
            extractor = make(checkpoint, compute=Compute(batch_size=batch_size))
            for order in ([0, 1, 2], [2, 0, 1]):
                for k, features in zip(order, extractor.extract([clips[k] for k in order]), strict=True):
                    assert features.keys() == alone[k].keys()
                    for name in features:
                        scale = np.abs(alone[k][name]).max()
                        np.testing.assert_allclose(features[name], alone[k][name], atol=1e-6 * scale, rtol=0)


def test_a_frozen_copy_is_encoded_once_with_its_reference(checkpoint):
    """Against the images that reach the network; with one path for both the frame is the reference."""
    video = clip()
    frozen = Clip(frames=np.repeat(video.reference[None], 4, axis=0), reference=video.reference)
    extractor, seen = TinyEval(checkpoint, compute=Compute()), []
    extractor.network.visual.conv1.register_forward_hook(lambda module, args, out: seen.append(len(out)))
    [features] = extractor.extract([frozen])
    assert seen == [1]
    np.testing.assert_array_equal(features["frames"], np.repeat(features["reference"][None], 4, axis=0))


# -- files -------------------------------------------------------------------------------------------------------------


def test_openais_formats_give_the_same_embeddings(folder, weights, checkpoint):
    """Against the state dict: TorchScript with OpenAI's settings among its tensors, safetensors, and half precision."""
    network = open_clip.CLIP(**open_clip.get_model_config("tiny-quickgelu"))
    network.load_state_dict(weights)
    network.attn_mask = vars(network)["_buffers"].pop("attn_mask")  # OpenAI's archive keeps it outside of its tensors
    for name, value in (("input_resolution", 224), ("context_length", 77), ("vocab_size", 49408)):
        vars(network).pop(name, None)  # open_clip keeps it as a plain number
        network.register_buffer(name, torch.tensor(value))
    example = (torch.zeros(1, 3, 224, 224), torch.zeros(1, 77, dtype=torch.long))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and tracing tells of every Python number
        torch.jit.trace(network.eval(), example, check_trace=False).save(folder / "script.pt")
    save_file(weights, folder / "open_clip_model.safetensors")
    half = {name: value.half() for name, value in weights.items()}
    torch.save(half, folder / "half.pt")
    torch.save({name: value.float() for name, value in half.items()}, folder / "half_as_float.pt")

    def embed(path: Path) -> np.ndarray:
        [features] = TinyEval(path, compute=Compute()).extract([clip()])
        return np.concatenate([features["frames"].ravel(), features["text"]])

    expected = embed(checkpoint)
    np.testing.assert_array_equal(embed(folder / "script.pt"), expected)
    np.testing.assert_array_equal(embed(folder / "open_clip_model.safetensors"), expected)
    np.testing.assert_array_equal(embed(folder / "half.pt"), embed(folder / "half_as_float.pt"))


class Runs:
    def __reduce__(self):
        return (print, ("run",))


def test_a_file_that_does_not_fit_is_refused(tmp_path, weights, checkpoint, head, capfd):
    """Against the file's name and what was found; nothing in a pickle runs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "script.pt")
    files = {
        "pickle.pt": (pickle.dumps(Runs(), protocol=2), "found"),
        "cut.pt": (checkpoint.read_bytes()[:-3000], "found"),
        "script.pt": (None, "another network"),
        "other.pt": ({k: v for k, v in weights.items() if k != "logit_scale"}, r"another network .*logit_scale"),
        "shape.pt": (weights | {"logit_scale": torch.zeros(2)}, r"another network .*logit_scale"),
    }
    for name, (content, found) in files.items():
        if isinstance(content, bytes):
            (tmp_path / name).write_bytes(content)
        elif content is not None:
            torch.save(content, tmp_path / name)
        with pytest.raises(InputError, match=rf"{name}: found.*{found}" if found != "found" else f"{name}: found"):
            Tiny(tmp_path / name, compute=Compute())
    with pytest.raises(InputError, match=rf"{checkpoint.name}: found"):
        TinyAesthetic(checkpoint, checkpoint, compute=Compute())
    assert "run" not in capfd.readouterr().out


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "video", "found"),
    [
        ("clip_i@b32", clip(reference=None), "no image of view a000e[+]00 at rest"),
        ("clip_f@b32", clip(frames=1), "1 frame"),
        ("background_consistency@vbench", clip(frames=1), "1 frame"),
        ("clip_t@b32", clip(prompt=""), "no prompt"),
        ("clip_t@b32", clip(prompt="a fox runs " * 40), "a prompt of 122 tokens"),
    ],
)
def test_what_cannot_be_scored_is_refused(name, video, found, checkpoint):
    """Against the rule of each card; the message says what was found and what to do."""
    extractors = (Tiny(checkpoint, compute=Compute()), TinyEval(checkpoint, compute=Compute()))
    features = {extractor.name: extractor.extract([video])[0] for extractor in extractors}
    with pytest.raises(NotScored, match=rf"found {found}.*expected .*; \w+"):
        METRICS[name].score(Subject(clip=video, features=features))


def test_the_longest_prompt_is_read_whole(checkpoint):
    """Against the count: 75 words of one token each, a start and an end are the 77 that CLIP reads."""
    extractor = TinyEval(checkpoint, compute=Compute())
    longest = clip(prompt=" ".join(["fox"] * 75), frames=1)
    [features] = extractor.extract([longest])
    assert features["tokens"].tolist() == [77, 77]
    score = METRICS["clip_t@b32"].score(Subject(clip=longest, features={extractor.name: features}))
    assert -1 <= score.value <= 1
