"""A recorded clip against the dataset that it is read from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from animate.priors.prior import Guidance
from animate.priors.recorded import Recorded, clip_placement, locate_clip
from animate.shot import Shot
from manifests import clip as clips
from manifests.dataset import Dataset, composite
from manifests.errors import InputError
from tests.animate.tiny_motion import shot_of
from tests.tiny_dataset import make_sample, make_tiny_dataset

EIGHTH = [0.0, 0.125, 0.25]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two clips of 4 views x 6 frames at 8 frames a second, 16 px."""
    torch.set_num_threads(1)
    return make_tiny_dataset(tmp_path_factory.mktemp("recorded") / "data", clips=2, views=4, frames=6)


def recorded(folder, number: int = 0) -> Recorded:
    return Recorded(Dataset.open(folder), make_sample(number, views=4, frames=6)["clip_id"])


def own_shot(prior: Recorded, times_s: list[float], views: list[int]) -> Shot:
    """Through cameras of the clip."""
    shot = shot_of(times_s, views=len(views))
    footage = prior.film(shot_of(times_s, views=4), seed=0)
    return dataclasses.replace(shot, c2w=footage.c2w[views], K=footage.K[views])


def test_film_gives_the_clips_own_pixels(folder):
    """Oracle: frames as the dataset gives them, composited by the one rule; coverage is alpha."""
    prior, background = recorded(folder), (0.2, 0.4, 0.6)
    footage = prior.film(shot_of(EIGHTH, views=2, background=background), seed=0)
    rgba = prior.dataset.frames(prior.clip_id, [0, 2], [0, 1, 2])
    expected = torch.from_numpy(composite(rgba, background)).permute(0, 1, 4, 2, 3).float() / 255
    assert torch.equal(footage.images, expected)
    alpha = torch.from_numpy(rgba[..., 3:].copy()).permute(0, 1, 4, 2, 3).float() / 255
    torch.testing.assert_close(footage.masks, alpha, rtol=0, atol=0.51 / 255)
    sample = prior.dataset.sample(prior.clip_id)
    np.testing.assert_allclose(footage.c2w, np.array(sample["cameras"]["c2w"])[[0, 2]], atol=1e-6)
    np.testing.assert_allclose(footage.K, np.array(sample["cameras"]["K"])[[0, 2]], rtol=1e-6)
    assert footage.background == background


def test_film_at_another_size_keeps_the_cameras_field_of_view(folder):
    """Oracle: K in shares of the picture does not change with its size; coverage keeps its mean."""
    prior = recorded(folder)
    same = prior.film(shot_of(EIGHTH, views=2), seed=0)
    small = prior.film(shot_of(EIGHTH, views=2, size=8), seed=0)
    assert small.images.shape == (2, 3, 3, 8, 8)
    assert small.masks.shape == (2, 3, 1, 8, 8)
    torch.testing.assert_close(small.K[:, :2] / 8, same.K[:, :2] / 16)
    assert abs(small.masks.mean() - same.masks.mean()) < 0.02


def test_frames_are_those_at_the_times_where_the_clip_has_them(folder):
    """Oracle: frame = time x 8 a second where whole and there; else the clip's first frames at its own times."""
    prior = recorded(folder)
    cases = {
        (0.0, 0.125, 0.25): [0, 1, 2],
        (0.0, 0.25, 0.5): [0, 2, 4],
        (0.0, 0.1, 0.2): [0, 1, 2],
        (0.0, 0.25, 0.75): [0, 1, 2],
        (0.0, 0.5): [0, 4],
    }
    for times_s, frames in cases.items():
        asked = torch.tensor(times_s, dtype=torch.float64)
        assert prior.frames_at(asked).tolist() == frames
        footage = prior.film(shot_of(list(times_s)), seed=0)
        torch.testing.assert_close(footage.times_s, torch.tensor(frames, dtype=torch.float64) / 8)


def test_predict_knows_the_clip_through_its_own_cameras_only(folder):
    """Oracle: the film, encoded; cameras turned by a degree, or of another focal length, are refused."""
    prior = recorded(folder)
    shot = own_shot(prior, EIGHTH, [2, 1])
    truth = prior.film(shot_of(EIGHTH, views=4), seed=0).images[[2, 1]] * 2 - 1
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(0))
    pred = prior.predict(prior.noised(truth, noise, 400), 400, shot, Guidance())
    torch.testing.assert_close(pred.clean, truth)
    torch.testing.assert_close(pred.noise[:, 1:], noise[:, 1:], rtol=0, atol=1e-4)
    turn = torch.eye(4)
    turn[:2, :2] = torch.tensor([[0.99985, -0.01745], [0.01745, 0.99985]])
    for change in ({"c2w": turn @ shot.c2w}, {"K": shot.K * torch.tensor([1.1, 1.1, 1])[:, None]}):
        with pytest.raises(InputError, match="was not filmed through"):
            prior.predict(truth, 400, dataclasses.replace(shot, **change), Guidance())
    with pytest.raises(InputError, match="was not filmed through"):
        prior.attention_map("cube", truth, 400, dataclasses.replace(shot, c2w=turn @ shot.c2w))


def test_check_refuses_what_the_clip_has_not(folder):
    """Frames and views that are not there; what is there passes."""
    prior = recorded(folder)
    prior.check(prompt="", views=4, frames=6, size=64)
    prior.check(prompt="", views=1, frames=2, size=64)
    for views, frames, what in ((3, 6, "views"), (8, 6, "views"), (4, 7, "frames")):
        with pytest.raises(InputError, match=f"{what} asked for"):
            prior.check(prompt="", views=views, frames=frames, size=64)
    with pytest.raises(InputError, match="frames asked for"):
        prior.film(shot_of([k / 8 for k in range(7)]), seed=0)


def test_clips_are_found_by_id_and_by_its_beginning(folder):
    """Against the ids that were written."""
    first, second = (make_sample(k)["clip_id"] for k in (0, 1))
    assert locate_clip(f"{folder}/{first}")[1] == first
    assert locate_clip(f"{folder}:{second}")[1] == second
    assert locate_clip(f"{folder}/{second[:-3]}")[1] == second
    with pytest.raises(InputError, match="found 2 clips"):
        locate_clip(str(folder))
    with pytest.raises(InputError, match="several clips"):
        locate_clip(f"{folder}/asset0")
    with pytest.raises(InputError, match=r"no dataset\.json"):
        locate_clip(str(folder.parent / "nowhere" / first))


def test_placement_is_the_samples(folder):
    """Against the sample's JSON."""
    dataset, clip_id = locate_clip(f"{folder}/{make_sample(1)['clip_id']}")
    sample, found = make_sample(1), clip_placement(dataset, clip_id)
    assert found.pose == f"1@{sample['times_s'][0]!r}"
    np.testing.assert_array_equal(found.center, sample["normalization"]["center"])
    assert (found.scale, found.front_azimuth_deg) == (sample["normalization"]["scale"], 270.0)


def _dataset_of(path, **changes):
    """A dataset of one clip with another sample."""
    import tests.tiny_dataset as tiny
    from manifests.finish import finish
    from manifests.shards import commit, write_clip_rows, write_shard
    from manifests.tables import ASSETS, write_rows

    sample = clips.canonical(
        tiny.make_sample(0, views=2, frames=changes.get("frames", 3), moving=changes.get("moving", False))
    )
    frames = len(sample["times_s"])
    part = tiny.write_clip(path / "staging" / "0.part", sample, tiny.make_pixels(0, views=2, frames=frames, size=16))
    committed = [write_shard(path, "train-00000", [part])]
    write_clip_rows(path, "train-00000", [tiny.clip_row(sample, shard="train-00000", position=0)])
    commit(path, committed)
    write_rows(path / "assets.parquet", [], ASSETS)
    finish(path, config={"preset": "test"}, tools=tiny.TOOLS, rejected=[], modalities=None, cpu=["test"], name="one")
    return Dataset.open(path), sample["clip_id"]


def test_clips_that_cannot_be_followed_are_refused(tmp_path):
    """A single frame, and cameras that move."""
    for number, (changes, what) in enumerate((({"frames": 1}, "at rest"), ({"moving": True}, "cameras that move"))):
        with pytest.raises(InputError, match=what):
            Recorded(*_dataset_of(tmp_path / str(number), **changes))
