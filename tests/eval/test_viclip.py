"""ViCLIP and temporal style, on a small network of the same layers with weights that are drawn."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Lambda, Normalize, Resize

from eval.extractor import Clip, Compute
from eval.extractors.sampling import middle_frames
from eval.extractors.viclip import ViClip
from eval.extractors.viclip_network import ViClipNetwork, ViClipShape
from eval.metric import NotScored, Subject
from eval.metrics.style import METRICS
from tests.eval.drawn import draw_frames, draw_weights

[STYLE] = METRICS
SMALL = ViClipShape(
    resolution=42, patch=14, frames=8, vision=(32, 3, 2), text=(24, 2, 2), vocabulary=49408, context=32, embedding=16
)  # fmt: skip
LONG = "  An OLD  robot's café — " * 9
CLIPS = (
    Clip(frames=draw_frames(16, 60, 80, seed=7), prompt="A fox jumps, then it runs away & hides."),
    Clip(frames=draw_frames(5, 30, 36, seed=8), prompt=LONG),
)


@pytest.fixture(scope="module")
def viclip(tmp_path_factory):
    path = tmp_path_factory.mktemp("viclip") / "viclip.pth"
    torch.save({"model": draw_weights(ViClipNetwork(SMALL))}, path)
    return partial(ViClip, path, shape=SMALL)


@pytest.fixture(scope="module")
def features(viclip):
    return [viclip(compute=Compute(batch_size=1)).extract([clip])[0] for clip in CLIPS]


def score(clip: Clip, features: dict[str, np.ndarray]):
    return STYLE.score(Subject(clip=clip, features={"viclip-l14": features}))


def test_style_equals_that_of_vbench(features):
    # Golden values: Vchitect/VBench 45e79ec with its frame choice, its clip_transform, its tokenizer and its ViCLIP
    # classes in these small sizes, which load the same drawn weights strictly, on a CPU. The second clip is shorter
    # than eight frames, is enlarged, and has a prompt that is cut off.
    for clip, found, value in zip(CLIPS, features, (-0.4897303581237793, -0.3252946138381958), strict=True):
        assert score(clip, found).value == pytest.approx(value, abs=1e-5)
    assert features[0]["video"][:3] == pytest.approx([0.9470694661, 1.1070090532, -0.7363964915], abs=1e-5)
    assert features[0]["text"][:3] == pytest.approx([1.3177703619, -0.2089376152, 0.1450717151], abs=1e-5)
    assert features[1]["video"][:3] == pytest.approx([0.9665262699, 1.3852571249, -0.5428985357], abs=1e-5)
    assert features[1]["text"][:3] == pytest.approx([0.4181040226, 0.6193036437, -0.7297905684], abs=1e-5)


def test_preprocess_equals_clip_transform(viclip):
    # Oracle: the list of transforms of VBench's clip_transform, on 8-bit tensors as its reader gives them.
    listed = Compose(
        [
            Resize(42, interpolation=InterpolationMode.BICUBIC, antialias=False),
            CenterCrop(42),
            Lambda(lambda x: x.float().div(255.0)),
            Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ]
    )
    extractor = viclip(compute=Compute())
    for height, width in ((42, 42), (61, 80), (97, 50), (20, 30)):
        frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
        expected = listed(torch.from_numpy(frames).permute(0, 3, 1, 2))
        assert torch.equal(extractor._preprocessed(frames), expected)


def test_published_shape_has_the_published_size():
    # Oracle: ViClip-InternVid-10M-FLT.pth has 1,710,545,812 bytes: four for each parameter, and names beside them.
    with torch.device("meta"):
        network = ViClipNetwork()
    size = 4 * sum(p.numel() for p in network.parameters())
    assert 0 < 1_710_545_812 - size < 1_000_000


def test_frames_are_the_middles_of_eight_intervals():
    # Oracle: by hand.
    assert middle_frames(16, 8) == [0, 2, 4, 6, 8, 10, 12, 14]
    assert middle_frames(48, 8) == [2, 8, 14, 20, 26, 32, 38, 44]
    assert middle_frames(8, 8) == list(range(8))
    assert middle_frames(3, 8) == [0, 1, 2, 2, 2, 2, 2, 2]
    assert middle_frames(9, 8) == [0, 1, 2, 3, 4, 5, 6, 7]


def test_features_do_not_depend_on_batches_order_and_neighbours(viclip, features):
    # Oracle: each clip by itself.
    still = Clip(frames=np.repeat(CLIPS[0].frames[:1], 16, axis=0))
    *_, second, first = viclip(compute=Compute(batch_size=3)).extract([still, still, CLIPS[1], CLIPS[0]])
    for found, expected in zip((first, second), features, strict=True):
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, atol=1e-6)


def test_equal_clips_go_through_the_network_once(viclip):
    # Oracle: a count of what passes the last layer of the video transformer.
    extractor, passed = viclip(compute=Compute()), []
    extractor.network.vision_encoder.ln_post.register_forward_hook(lambda *call: passed.append(len(call[2])))
    extractor.extract([CLIPS[0], CLIPS[0], CLIPS[1]])
    assert sum(passed) == 2


def test_prompts_longer_than_what_is_read_are_told(features):
    # Oracle: counts of CLIP's tokens, start and end included.
    assert score(CLIPS[0], features[0]).extra == {"prompt_tokens": 13.0, "prompt_tokens_read": 13.0}
    assert score(CLIPS[1], features[1]).extra["prompt_tokens_read"] == 32.0
    assert score(CLIPS[1], features[1]).extra["prompt_tokens"] > 32


def test_clips_without_prompt_or_motion_are_refused(viclip):
    # Oracle: the messages.
    silent, single = Clip(frames=CLIPS[0].frames), Clip(frames=CLIPS[0].frames[:1], prompt="a fox")
    for clip, text in ((silent, "no prompt"), (single, "found 1 frame, expected at least 2")):
        [found] = viclip(compute=Compute()).extract([clip])
        with pytest.raises(NotScored, match=text):
            score(clip, found)
