"""Whole pipelines: their sizes and seeds, and that a folder is loaded with every weight or refused."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from manifests.errors import InputError
from tests.train.tiny_pipeline import DATA, ZERO_SNR, call, seeded, tiny_pipeline
from train.config import DataConfig, ModelConfig, ObjectiveConfig, preset
from train.models.build import load_pipeline, new_pipeline, scheduler_of
from train.pipeline import MVAnimatePipeline

NETWORKS = ("unet", "text_encoder", "image_encoder", "vae")


def _count(network: torch.nn.Module) -> int:
    return sum(value.numel() for value in network.parameters())


def _state(pipeline: MVAnimatePipeline) -> dict[str, torch.Tensor]:
    return {f"{name}.{key}": value for name in NETWORKS if getattr(pipeline, name) is not None
            for key, value in getattr(pipeline, name).state_dict().items()}  # fmt: skip


def _equal(left: dict[str, torch.Tensor], right: dict[str, torch.Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def _tiny(**changes) -> MVAnimatePipeline:
    return new_pipeline(ModelConfig(scale="tiny", **changes), data=DATA, objective=ZERO_SNR)


# -- new ---------------------------------------------------------------------------------------------------------------


def test_tiny_samples_in_its_presets_shape():
    """The preset's own numbers: 4 views, 8 frames, 32 pixels; a few million parameters."""
    config = preset("tiny")
    pipeline = new_pipeline(config.model, data=config.data, objective=config.objective)
    assert 2e6 < _count(pipeline.unet) < 8e6
    assert config.data.size % pipeline.size_multiple == 0
    pipeline.set_progress_bar_config(disable=True)
    given = call(views=config.data.views, size=config.data.size) | {"num_inference_steps": 1}
    assert pipeline(**given, guidance_scale=1).frames.shape == (1, 4, 8, 3, 32, 32)
    assert not any(getattr(pipeline, name).training for name in NETWORKS)


def test_random_weights_depend_on_the_seed_alone():
    """Property: equal seeds, equal weights, whatever was drawn before; the global generator stays as it was."""
    one = _state(_tiny())
    torch.randn(7)
    before = torch.random.get_rng_state()
    assert _equal(one, _state(_tiny()))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert not _equal(one, _state(_tiny(init_seed=1)))


def test_switches_leave_layers_out():
    """Names of the layers, and a pipeline that samples without them."""
    pipeline = _tiny(spatial_branch=False, mv2v_adapter=False)
    names = set(pipeline.unet.state_dict())
    assert not [name for name in names if "_sp." in name or "i2v" in name or "_ip." in name]
    assert [name for name in names if "motion_modules." in name]
    assert pipeline.image_encoder is None
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline(**call(), guidance_scale=1).frames.shape == (1, 2, 4, 3, 16, 16)


def test_sd15_has_the_public_sizes():
    """Published counts: SD-1.5's VAE and text encoder, CLIP ViT-H/14; 859.5 M + 453.2 M + new layers in the UNet."""
    with torch.device("meta"):
        pipeline = new_pipeline(ModelConfig(), data=DataConfig(), objective=ObjectiveConfig())
    assert _count(pipeline.vae) == 83_653_863
    assert _count(pipeline.text_encoder) == 123_060_480
    assert _count(pipeline.image_encoder) == 632_076_800
    assert 1.45e9 < _count(pipeline.unet) < 1.6e9
    assert pipeline.vae.config.scaling_factor == 0.18215
    assert pipeline.size_multiple == 64
    assert all(value.is_meta for name in ("vae", "text_encoder") for value in getattr(pipeline, name).parameters())
    assert not pipeline.scheduler.alphas_cumprod.is_meta


def test_pipeline_records_what_it_was_made_for():
    """The fields of the configs, under the pipeline's names."""
    data = DataConfig(views=2, frames=5, size=48, background=(0.0, 0.5, 1.0))
    objective = ObjectiveConfig(frame0_time_zero=True)
    found = new_pipeline(ModelConfig(scale="tiny"), data=data, objective=objective).config
    assert (found.num_views, found.num_frames, found.size, found.frame0_time_zero) == (2, 5, 48, True)
    assert tuple(found.background) == data.background
    assert found.camera_convention == "animate3d"


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear"])
def test_scheduler_has_the_published_levels(schedule):
    """Formula: betas 0.00085 to 0.012, linear in themselves or in their roots."""
    found = scheduler_of(ObjectiveConfig(beta_schedule=schedule))
    betas = np.linspace(0.00085, 0.012, 1000)
    if schedule == "scaled_linear":
        betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    assert np.abs(found.alphas_cumprod.numpy() / np.cumprod(1 - betas) - 1).max() < 1e-4
    assert found.config.timestep_spacing == "leading"
    assert found.config.prediction_type == "epsilon"


def test_scheduler_ends_in_pure_noise_where_asked():
    """arXiv 2305.08891: no signal at the last level, sampled from there; the first level unchanged."""
    found = scheduler_of(ZERO_SNR)
    assert float(found.alphas_cumprod[-1]) == 0
    assert abs(float(found.alphas_cumprod[0]) - (1 - 0.00085)) < 1e-6
    assert found.config.timestep_spacing == "trailing"


# -- load --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("saved")
    tiny_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy by links: replace files in it, do not write into them."""
    return Path(shutil.copytree(saved, tmp_path / "model", copy_function=os.link))


def _replace(path: Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


def _edit(path: Path, change: Callable[[dict], object]) -> None:
    values = json.loads(path.read_bytes())
    change(values)
    _replace(path, json.dumps(values).encode())


def _weights(folder: Path, name: str) -> Path:
    [path] = (folder / name).glob("*.safetensors")
    return path


def test_loaded_pipeline_samples_bit_equally(saved):
    """Round trip: all weights, and a sample."""
    pipeline, loaded = tiny_pipeline(), load_pipeline(saved)
    assert _equal(_state(pipeline), _state(loaded))
    loaded.set_progress_bar_config(disable=True)
    given = call()
    assert torch.equal(loaded(**given, generator=seeded(0)).frames, pipeline(**given, generator=seeded(0)).frames)
    assert loaded.config.num_frames == DATA.frames
    assert not any(getattr(loaded, name).training for name in NETWORKS)


def test_loaded_weights_are_float32(folder):
    """Files in half precision are what training starts from, too."""
    path = _weights(folder, "unet")
    halves = {name: value.half() for name, value in load_file(path).items()}
    path.unlink()
    save_file(halves, path, metadata={"format": "pt"})
    loaded = load_pipeline(folder).unet.state_dict()
    assert {value.dtype for value in loaded.values()} == {torch.float32}
    assert all(torch.equal(loaded[name], halves[name].float()) for name in halves)


def test_switches_take_layers_away(saved):
    """Property: what stays has the stored weights, nothing is added."""
    stored = load_pipeline(saved).unet.state_dict()
    loaded = load_pipeline(saved, ModelConfig(spatial_branch=False, mv2v_adapter=False))
    found = loaded.unet.state_dict()
    assert found.keys() < stored.keys()
    assert all(torch.equal(found[name], stored[name]) for name in found)
    assert {name for name in stored if name not in found and "_sp." not in name and "blender" not in name} == {
        name for name in stored if "i2v" in name or "_ip." in name or name.startswith("image_projection.")
    }
    assert loaded.image_encoder is None


def test_switches_add_layers_from_the_seed(saved, tmp_path):
    """Property: the stored weights stay, new ones depend on the seed alone, and the new query is the base's."""
    folder = Path(shutil.copytree(saved, tmp_path / "plain"))
    load_pipeline(saved, ModelConfig(spatial_branch=False)).unet.save_pretrained(folder / "unet")
    stored = load_pipeline(folder).unet
    assert not stored.config.spatial_branch
    one, again, other = (load_pipeline(folder, ModelConfig(init_seed=seed)).unet.state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], value) for name, value in stored.state_dict().items())
    assert _equal(one, again)
    new = [name for name in one if "to_q_sp." in name]
    assert new
    assert not any(torch.equal(one[name], other[name]) for name in new)


def test_adapter_without_image_encoder_is_refused(tmp_path):
    """A base that has none cannot have its adapter switched on."""
    _tiny(mv2v_adapter=False).save_pretrained(tmp_path)
    assert load_pipeline(tmp_path).image_encoder is None
    with pytest.raises(InputError, match="found no image_encoder"):
        load_pipeline(tmp_path, ModelConfig())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("kept", [0, 4, 60, -7])
def test_truncated_weights_are_refused_by_name(folder, name, kept):
    """A file that ends early, anywhere in header or data."""
    path = _weights(folder, name)
    _replace(path, path.read_bytes()[:kept])
    with pytest.raises(InputError, match=rf"{name}/{path.name}: found \d+ bytes that do not open"):
        load_pipeline(folder)
    with pytest.raises(InputError, match=path.name):
        MVAnimatePipeline.from_pretrained(folder)


@pytest.mark.parametrize("name", [*NETWORKS, "tokenizer", "scheduler", "feature_extractor"])
def test_absent_components_are_refused_by_name(folder, name):
    """A folder that was not copied, or copied empty."""
    shutil.rmtree(folder / name)
    for _ in range(2):
        with pytest.raises(InputError, match=f"{name}: found nothing"):
            load_pipeline(folder)
        (folder / name).mkdir(exist_ok=True)


@pytest.mark.parametrize("name", ["unet", "text_encoder", "image_encoder", "vae"])
def test_missing_and_foreign_weights_are_refused(folder, name):
    """One tensor fewer, one more, one of another shape; nothing is filled with random numbers."""
    path = _weights(folder, name)
    tensors = load_file(path)
    key = sorted(tensors)[0]
    for changed in (
        {other: value for other, value in tensors.items() if other != key} or {"other": torch.zeros(1)},
        tensors | {"something.else": torch.zeros(1)},
        tensors | {key: torch.zeros(3, 1)},
    ):
        path.unlink()
        save_file(changed, path, metadata={"format": "pt"})
        with pytest.raises(InputError, match=name):
            load_pipeline(folder)


@pytest.mark.parametrize("name", ["unet", "text_encoder"])
def test_pickles_are_not_loaded(folder, name, tmp_path):
    """A .bin beside nothing else is named and refused; its code does not run."""
    mark = tmp_path / "ran"

    class Runs:
        def __reduce__(self):
            return os.mkdir, (str(mark),)

    _weights(folder, name).unlink()
    for file in ("pytorch_model.bin", "diffusion_pytorch_model.bin"):
        (folder / name / file).write_bytes(pickle.dumps(Runs()))
    for load in (load_pipeline, MVAnimatePipeline.from_pretrained):
        with pytest.raises(InputError, match=f"{name}: found .*bin, expected a .safetensors file"):
            load(folder)
    assert not mark.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda index: index.update(_class_name="StableDiffusionPipeline"), "found a StableDiffusionPipeline"),
        (lambda index: index.update(unet=["diffusers", "UNet2DConditionModel"]), "for unet, expected train"),
        (lambda index: index.update(vae=["subprocess", "Popen"]), r"found \['subprocess', 'Popen'\] for vae"),
        (lambda index: index.update(text_encoder=["my_code", "CLIPTextModel"]), "for text_encoder"),
        (lambda index: index.update(scheduler=None), "found None for scheduler"),
        (lambda index: index.update(tokenizer=7), "found 7 for tokenizer"),
        (lambda index: index.pop("unet"), "found None for unet"),
    ],
)
def test_foreign_pipelines_are_refused(folder, change, message):
    """Another pipeline, another class, a class that is none: nothing is made of what a file names."""
    _edit(folder / "model_index.json", change)
    for load in (load_pipeline, MVAnimatePipeline.from_pretrained):
        with pytest.raises(InputError, match=r"model_index\.json.*" + message):
            load(folder)


@pytest.mark.parametrize(
    "name",
    ["model_index.json", "unet/config.json", "text_encoder/config.json", "tokenizer/tokenizer.json",
     "scheduler/scheduler_config.json", "feature_extractor/preprocessor_config.json"],
)  # fmt: skip
@pytest.mark.parametrize("content", [b"", b'{"a": ', b"[1]", b"\xff\xfe"])
def test_damaged_configs_are_refused_by_name(folder, name, content):
    """JSON that ends early, is of another kind, or is none."""
    _replace(folder / name, content)
    with pytest.raises(InputError, match=name):
        load_pipeline(folder)


def test_folders_that_are_no_pipeline_are_refused(tmp_path):
    """No folder, an empty one, a file."""
    with pytest.raises(InputError, match="nowhere: found no folder"):
        load_pipeline(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"model_index\.json: found No such file"):
        load_pipeline(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="file: found no folder"):
        load_pipeline(tmp_path / "file")


def test_parts_of_different_models_are_refused(folder):
    """Each part is whole, but made for another model."""
    other = new_pipeline(ModelConfig(scale="tiny"), data=DATA, objective=ZERO_SNR)
    shutil.rmtree(folder / "vae")
    type(other.vae)().save_pretrained(folder / "vae")
    with pytest.raises(InputError, match="latent channels: 48 and 12"):
        load_pipeline(folder)
