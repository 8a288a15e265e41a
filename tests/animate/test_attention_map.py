from __future__ import annotations

import dataclasses

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor

from animate.priors.animatediff import AnimateDiff
from animate.priors.attention import attention_to, first_cross_attention, spread_out, word_positions
from animate.priors.i2vgen_xl import I2VGenXL
from animate.priors.prior import Guidance
from animate.priors.stable_video import StableVideo
from manifests.errors import InputError
from tests.animate import tiny_videos as tiny
from train.tokenizer import clip_tokenizer

READERS = {"I2VGenXLPipeline": I2VGenXL, "AnimateDiffPipeline": AnimateDiff}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=READERS)
def prior(request):
    return READERS[request.param](tiny.pipeline(request.param), name="tiny")


class _Scores(AttnProcessor):
    """diffusers' plain attention, which also keeps the weights that its own method gives."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, *others, **named):
        query = attn.head_to_batch_dim(attn.to_q(hidden_states))
        key = attn.head_to_batch_dim(attn.to_k(encoder_hidden_states))
        self.scores = attn.get_attention_scores(query, key).unflatten(0, (-1, attn.heads)).mean(1)
        return super().__call__(attn, hidden_states, encoder_hidden_states, *others, **named)


def test_map_is_diffusers_softmax(prior):
    """Against the weights of diffusers' own method in a whole pass of the network; a word said twice counts twice."""
    shot, noisy, layer = tiny.shot(), tiny.normal(2, 3, 4, 8, 8), first_cross_attention(prior.unet)
    found = prior.attention_map("fox", noisy, 400, shot)
    before, recorder = layer.processor, _Scores()
    layer.set_processor(recorder)
    prior.predict(noisy, 400, shot, Guidance())
    layer.set_processor(before)
    columns = word_positions(prior.pipeline.tokenizer, shot.prompt, "fox")
    assert len(columns) == 2
    expected = recorder.scores[..., columns].sum(-1).reshape(2, 3, 1, 8, 8)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    assert found.std() > 0


def test_first_cross_attention_is_the_first_that_a_pass_reaches(prior):
    """Against the order in which hooks on every attention fire."""
    reached = []
    handles = [
        module.register_forward_pre_hook(lambda layer, _: reached.append(layer))
        for module in prior.unet.modules()
        if isinstance(module, Attention) and module.is_cross_attention
    ]
    prior.predict(tiny.normal(1, 3, 4, 8, 8), 400, tiny.shot(views=1), Guidance())
    for handle in handles:
        handle.remove()
    assert len(reached) > 1
    assert first_cross_attention(prior.unet) is reached[0]


def test_map_leaves_the_network_as_it_was(prior):
    """Property: the same prediction before and after, no hook left, also where the pass fails."""
    shot, noisy = tiny.shot(), tiny.normal(2, 3, 4, 8, 8)
    before = prior.predict(noisy, 400, shot, Guidance()).clean
    prior.attention_map("fox", noisy, 400, shot)
    with pytest.raises(ZeroDivisionError):
        attention_to(prior.unet, [1], lambda: 1 / 0)
    assert not first_cross_attention(prior.unet)._forward_pre_hooks
    assert torch.equal(before, prior.predict(noisy, 400, shot, Guidance()).clean)


def test_shares_of_all_tokens_are_one(prior):
    """By definition of the softmax: the text's and the image's tokens are all there are."""
    shot, noisy = tiny.shot(), tiny.normal(2, 3, 4, 8, 8)
    told = prior._conditions_of(shot).cond
    text = attention_to(prior.unet, slice(0, 77), lambda: prior._raw(noisy, 400, told)).reshape(2, 3, 1, 8, 8)
    image = prior.attention_map("", noisy, 400, shot, "image") if prior.image_tokens else 0
    torch.testing.assert_close(text + image, torch.ones_like(text))


def test_maps_of_views_and_frames_are_in_order(prior):
    """Property: noise of one image changes its map most; view and frame are not mixed up."""
    shot, noisy = tiny.shot(), tiny.normal(2, 3, 4, 8, 8)
    before = prior.attention_map("fox", noisy, 400, shot)
    changed = noisy.clone()
    changed[1, 2] += 3 * tiny.normal(4, 8, 8, seed=9)
    away = (prior.attention_map("fox", changed, 400, shot) - before).abs().flatten(2).sum(-1)
    assert away.flatten().argmax() == 5


@pytest.mark.parametrize(
    ("prompt", "word", "expected"),
    [
        ("a fox runs", "fox", [2]),
        ("A FOX runs", "Fox", [2]),
        ("fox", "fox", [1]),
        ("a fox and a fox", "fox", [2, 5]),
        ("pink ice cream melts", "ice cream", [2, 3]),
        ("a fox, running", "running", [4]),
    ],
)
def test_words_are_found(prompt, word, expected):
    """Against positions counted by hand; the begin token is 0."""
    assert word_positions(clip_tokenizer(), prompt, word) == expected


def test_long_words_have_all_their_pieces():
    """Against the pieces, put together again."""
    tokenizer, word = clip_tokenizer(), "ankylosaurian"
    ids = tokenizer(f"an {word} walks").input_ids
    columns = word_positions(tokenizer, f"an {word} walks", word)
    assert len(columns) > 1
    assert tokenizer.decode([ids[column] for column in columns]).strip() == word


@pytest.mark.parametrize(
    ("prompt", "word"),
    [
        ("a fox runs", "dog"),
        ("a fox runs", "ox"),
        ("a fox runs", ""),
        ("a xylocopine walks", "pine"),
        ("very " * 90 + "fox", "fox"),
        ("", "fox"),
    ],
)
def test_words_that_are_not_there_are_refused(prompt, word):
    """Against the rule for errors: both word and prompt are named; pieces of words and what is cut do not count."""
    with pytest.raises(InputError) as refused:
        word_positions(clip_tokenizer(), prompt, word)
    assert f'--word: found "{word}"' in str(refused.value)
    assert f'the prompt "{prompt}"' in str(refused.value)


def test_prior_refuses_a_word_that_the_prompt_lacks(prior):
    """Against the rule for errors, through the prior."""
    shot = dataclasses.replace(tiny.shot(), prompt="rain falls")
    with pytest.raises(InputError, match=r'--word: found "fox".* of the prompt "rain falls"'):
        prior.attention_map("fox", tiny.normal(2, 3, 4, 8, 8), 400, shot)


@pytest.mark.parametrize(
    ("kind", "name"), [(StableVideo, "StableVideoDiffusionPipeline"), (AnimateDiff, "AnimateDiffPipeline")]
)
def test_priors_without_such_tokens_refuse(kind, name):
    """Against the rule for errors: no text in one, no image in the other."""
    lone = kind(tiny.pipeline(name), name="tiny")
    with pytest.raises(InputError, match="found a prior without attention maps"):
        lone.attention_map("fox", tiny.normal(2, 3, 4, 8, 8), 400, tiny.shot(), "image" if lone.reads_text else "text")


def test_spread_out_keeps_places():
    """Against a map made by hand: rows stay rows, and a coarser layer's corners stay corners."""
    fine = torch.arange(15.0).reshape(1, 15)
    assert torch.equal(spread_out(fine, 3, 5)[0, 0], fine.reshape(3, 5))
    coarse = torch.tensor([[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]])
    found = spread_out(coarse, 3, 5)
    assert found.shape == (1, 1, 3, 5)
    assert (found[0, 0, 0, 0], found[0, 0, -1, -1]) == (0, 5)
