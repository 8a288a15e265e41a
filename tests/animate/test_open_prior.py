"""What `--prior` names, against folders and files of each kind."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from animate.priors.open import open_prior, placement_of
from animate.priors.prior import Guidance
from manifests.errors import InputError
from tests.animate.tiny_motion import START_S, box_of, rest_of, shot_of, write_sliding_cube
from tests.tiny_dataset import make_sample, make_tiny_dataset
from tests.train.tiny_pipeline import tiny_pipeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A saved MV-VDM pipeline in a run's folder, a cube that slides, a dataset."""
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("priors")
    tiny_pipeline().save_pretrained(path / "run" / "model")
    write_sliding_cube(path / "cube.glb")
    write_sliding_cube(path / "odd#stay.glb")
    make_tiny_dataset(path / "data", clips=2, views=4, frames=6)
    return path


@pytest.mark.parametrize("name", ["run", "run/model"])
def test_mv_vdm_comes_back_as_it_was_saved(folder, name):
    """Oracle: the prior of the pipeline in memory."""
    from animate.priors.mv_vdm import MultiView

    found = open_prior(str(folder / name))
    assert isinstance(found, MultiView)
    noisy, shot = torch.randn(2, 4, 48, 4, 4, generator=torch.Generator().manual_seed(0)), shot_of([0, 1, 2, 3])
    expected = MultiView(tiny_pipeline()).predict(noisy, 300, shot, Guidance(scale=3.0)).clean
    torch.testing.assert_close(found.predict(noisy, 300, shot, Guidance(scale=3.0)).clean, expected)


@pytest.mark.parametrize("name", ["I2VGenXLPipeline", "StableVideoDiffusionPipeline", "AnimateDiffPipeline"])
def test_pipelines_of_diffusers_are_told_by_their_index(tmp_path, name):
    """Oracle: the class that each prior says it is of."""
    from tests.animate.tiny_videos import saved

    found = open_prior(str(saved(name, tmp_path / "it")))
    assert found.pipeline_name == name


def test_oracle_is_placed_with_its_subject(folder):
    """Oracle: the file's own animations; frame 0 through it is the subject at rest."""
    text = f"oracle:{folder / 'cube.glb'}#slide"
    placed = placement_of(text)
    assert (placed.animation, placed.start_s, placed.pose, placed.center) == (0, START_S, f"0@{START_S}", None)
    rest = rest_of(folder / "cube.glb", placed.pose)
    prior = open_prior(text, center=rest.center, scale=rest.scale, box=box_of(rest), err_on_background=0.25)
    assert (prior.name, prior.err_on_background) == (text, 0.25)
    footage = prior.film(shot_of([0.0, 0.5]), seed=0)
    assert (footage.images[:, 0] - footage.images[:, 1]).abs().max() > 0.1
    assert placement_of(f"oracle:{folder / 'odd#stay.glb'}").animation == 0
    assert placement_of(f"oracle:{folder / 'odd#stay.glb'}#stay").animation == 1


def test_clip_gives_its_placement(folder):
    """Against the sample that was written."""
    text = f"clip:{folder / 'data'}/{make_sample(1)['clip_id']}"
    placed, prior = placement_of(text), open_prior(text)
    np.testing.assert_array_equal(placed.center, make_sample(1)["normalization"]["center"])
    assert prior.name == text
    assert prior.film(shot_of([0.0, 0.125], views=4), seed=0).images.shape == (4, 2, 3, 16, 16)
    assert placement_of("anything/else") is None


def test_what_is_no_prior_is_refused_with_all_kinds(folder, tmp_path):
    """Every kind is named in the error, whatever was wrong."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "model_index.json").write_text("[]")
    cases = ("guoyww/animatediff", "", "oracel:x.glb", str(folder / "cube.glb"))
    for text in (*cases, *(str(tmp_path / name) for name in ("empty", "other", "list"))):
        with pytest.raises(InputError) as caught:
            open_prior(text)
        for kind in (
            "MV-VDM",
            "I2VGen-XL",
            "Stable Video Diffusion",
            "AnimateDiff",
            "DynamiCrafter",
            "clip:",
            "oracle:",
        ):
            assert kind in str(caught.value), (text, kind)


def test_damaged_ones_are_refused_by_name(tmp_path):
    """Each names the file: an index cut short, a checkpoint that is none, an oracle without animation."""
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / "model_index.json").write_text('{"_class_name": ')
    (tmp_path / "model.ckpt").write_bytes(b"not a checkpoint")
    (tmp_path / "weights.safetensors").write_bytes(b"\0" * 20)
    for name in ("cut", "model.ckpt", "weights.safetensors"):
        with pytest.raises(InputError, match=name.split(".")[0]):
            open_prior(str(tmp_path / name))
    for text in ("oracle:nothing.glb", "oracle:model.fbx#run", "clip:nowhere/x"):
        with pytest.raises(InputError, match="expected"):
            placement_of(text)


def test_a_backend_is_imported_only_where_it_is_meant(folder):
    """Against sys.modules of a fresh interpreter."""
    source = f"""
import sys
from animate.priors.open import open_prior
open_prior({f"clip:{folder / 'data'}/{make_sample(1)['clip_id']}"!r})
print(*sorted(name for name in sys.modules if name.startswith(("animate.priors.", "diffusers", "embreex"))))
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [f"animate.priors.{name}" for name in ("known", "open", "prior", "recorded")]
