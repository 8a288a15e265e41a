"""Pipelines composed from small files of the public forms, and taken apart again: against what is in the files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, MotionAdapter, UNet2DConditionModel
from diffusers.models.embeddings import TimestepEmbedding
from safetensors.torch import load_file, save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection

from manifests.errors import InputError, StorageError
from tests.train.tiny_models import SMALL, randomize, small_unet
from train.convert import animate3d, ip_adapter
from train.convert.assemble import own_unet, whole_folder
from train.convert.convert import compose, convert, export, identify
from train.convert.keys import PARTS, parts_of
from train.models.build import load_pipeline
from train.pipeline import MVAnimatePipeline

EMBED, TOKENS = 10, 3


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Networks this small run faster so."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def save_mvdream(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """The folder form, with CLIP's own number of tokens."""
    blocks = {key: tuple(f"{kind}2D" for kind in SMALL[key]) for key in ("down_block_types", "up_block_types")}
    unet = UNet2DConditionModel(attention_head_dim=2, **{**SMALL, **blocks})
    unet.camera_embedding = TimestepEmbedding(16, 4 * SMALL["block_out_channels"][0])
    unet.register_to_config(camera_embedding_dim=16)
    ends = ("DownEncoderBlock2D",) * 2, ("UpDecoderBlock2D",) * 2
    vae = AutoencoderKL(down_block_types=ends[0], up_block_types=ends[1], block_out_channels=(8, 16), norm_num_groups=4)
    sizes = {"hidden_size": 12, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    words = {"vocab_size": 49408, "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    text = CLIPTextModel(CLIPTextConfig(**sizes, **words))
    made = {"unet": unet, "vae": vae, "text_encoder": text}
    for seed, (name, network) in enumerate(made.items()):
        randomize(network, seed).save_pretrained(folder / name)
    return {name: network.state_dict() for name, network in made.items()}


def save_encoder(folder: Path, width: int = EMBED) -> None:
    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPVisionConfig(image_size=16, patch_size=8, projection_dim=width, **sizes)
    randomize(CLIPVisionModelWithProjection(config)).save_pretrained(folder)


@pytest.fixture(scope="module")
def sources(tmp_path_factory) -> dict[str, object]:
    """Every public form at small size, and the tensors that are in them."""
    folder = tmp_path_factory.mktemp("sources")
    mvdream = save_mvdream(folder / "mvdream")
    motion = randomize(
        MotionAdapter(
            block_out_channels=SMALL["block_out_channels"],
            motion_layers_per_block=1,
            motion_norm_num_groups=4,
            motion_num_attention_heads=2,
        ),
        5,
    )
    motion.save_pretrained(folder / "motion")
    state = small_unet(seed=7).state_dict()
    (folder / "ip").mkdir()
    save_file(ip_adapter.to_file(state), folder / "ip/ip-adapter_sd15.safetensors")
    save_encoder(folder / "ip/image_encoder")
    torch.save(animate3d.to_file(state), folder / "animate3d.ckpt")
    return {"folder": folder, "mvdream": mvdream, "motion": motion.state_dict(), "state": state}


def paths(sources) -> dict[str, Path]:
    folder = sources["folder"]
    return {
        "motion": folder / "motion",
        "ip_adapter": folder / "ip/ip-adapter_sd15.safetensors",
        "animate3d": folder / "animate3d.ckpt",
    }


@pytest.fixture(scope="module")
def released(sources, tmp_path_factory) -> Path:
    """The pipeline of everything."""
    out = tmp_path_factory.mktemp("released") / "model"
    compose(sources["folder"] / "mvdream", **paths(sources), out=out)
    return out


def same(found, expected) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


# -- composing ---------------------------------------------------------------------------------------------------------


def test_released_model_holds_every_weight_of_its_sources(sources, released):
    """Oracle: the tensors that went into the four files; all parts, bit-equal, through our own loader."""
    pipeline = load_pipeline(released)
    state = pipeline.unet.state_dict()
    assert same(parts_of(state, "base", "camera"), sources["mvdream"]["unet"])
    rest = [part for part in PARTS if part not in ("base", "camera")]
    assert same(parts_of(state, *rest), parts_of(sources["state"], *rest))
    assert same(pipeline.vae.state_dict(), sources["mvdream"]["vae"])
    assert same(pipeline.text_encoder.state_dict(), sources["mvdream"]["text_encoder"])
    assert pipeline.image_encoder.config.projection_dim == EMBED
    assert pipeline.feature_extractor.crop_size == {"height": 16, "width": 16}
    assert pipeline.config.camera_convention == "animate3d"
    assert pipeline.scheduler.config.beta_schedule == "linear"


def test_released_model_samples(released):
    """Oracle: it runs, gives clips of the form asked for, and the same ones twice."""
    pipeline = MVAnimatePipeline.from_pretrained(released)
    pipeline.set_progress_bar_config(disable=True)
    images = torch.randint(0, 256, (1, 2, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def sample() -> torch.Tensor:
        arguments = {"num_frames": 3, "num_inference_steps": 2, "generator": torch.Generator().manual_seed(1)}
        return pipeline("a fox", images, torch.zeros(1, 2, 16), **arguments).frames

    frames = sample()
    assert (frames.dtype, frames.shape) == (torch.uint8, (1, 2, 3, 3, 16, 16))
    assert torch.equal(frames, sample())


def test_base_without_animate3d_starts_its_new_layers(sources, tmp_path):
    """Oracle: AnimateDiff's weights as they are, copies of the queries, outputs of zero, half and half, one seed."""
    given = paths(sources)
    del given["animate3d"]
    report = compose(sources["folder"] / "mvdream", **given, out=tmp_path / "a", seed=3)
    compose(sources["folder"] / "mvdream", **given, out=tmp_path / "b", seed=3)
    state, again = (load_pipeline(tmp_path / name).unet.state_dict() for name in "ab")
    assert same(state, again)
    motion = {name: value for name, value in sources["motion"].items() if not name.endswith("pos_embed.pe")}
    assert same(parts_of(state, "motion"), motion)
    for name, value in parts_of(state, "frame0").items():
        if ".to_out_i2v." in name:
            assert not value.any()
        else:
            assert torch.equal(value, state[name.replace("to_q_i2v", "to_q")])
    blends = [value for name, value in parts_of(state, "spatial").items() if name.endswith("mix_factor")]
    assert blends
    assert all(value.item() == 0 for value in blends)
    folder = str(sources["folder"])
    found = {part: text.removeprefix(folder) for part, text in report.parts.items()}
    assert found == {
        "base": "/mvdream",
        "camera": "/mvdream",
        "image": "/ip/ip-adapter_sd15.safetensors",
        "frame0": "new",
        "motion": "/motion",
        "spatial": "new",
    }
    assert sum(report.parameters.values()) == sum(value.numel() for value in state.values())


def test_mvdream_alone_is_a_base_whose_motion_changes_nothing(sources, tmp_path):
    """Oracle: the outputs of the motion modules are zero, and there is no adapter."""
    report = convert(sources["folder"] / "mvdream", out=tmp_path / "x")
    pipeline = load_pipeline(tmp_path / "x")
    state = pipeline.unet.state_dict()
    assert set(report.parts) == {"base", "camera", "motion", "spatial"}
    assert pipeline.image_encoder is None
    outputs = [value for name, value in state.items() if ".motion_modules." in name and ".0.proj_out." in name]
    assert outputs
    assert not any(value.any() for value in outputs)


def test_adding_one_by_one_is_adding_all_at_once(sources, released, tmp_path):
    """Oracle: the pipeline composed in one go; here each file goes into the pipeline before, kinds seen by content."""
    given = paths(sources)
    convert(sources["folder"] / "mvdream", out=tmp_path / "0")
    for number, name in enumerate(("ip_adapter", "motion", "animate3d")):
        convert(given[name], base=tmp_path / str(number), out=tmp_path / str(number + 1))
    found = load_pipeline(tmp_path / "3")
    expected = load_pipeline(released)
    assert same(found.unet.state_dict(), expected.unet.state_dict())
    assert found.config.camera_convention == "animate3d"
    assert same(found.image_encoder.state_dict(), expected.image_encoder.state_dict())


# -- taking apart ------------------------------------------------------------------------------------------------------


def test_exports_hold_what_went_in(sources, released, tmp_path):
    """Oracle: the files that the pipeline was composed from; AnimateDiff's folder loads in diffusers."""
    path = export(released, kind="ip-adapter", out=tmp_path / "ip")
    assert same(load_file(path), load_file(paths(sources)["ip_adapter"]))
    path = export(released, kind="animate3d", out=tmp_path / "animate3d")
    ours, theirs = (torch.load(name, weights_only=True) for name in (path, paths(sources)["animate3d"]))
    assert same(ours, theirs)
    path = export(released, kind="animatediff", out=tmp_path / "animatediff")
    adapter = MotionAdapter.from_pretrained(path).state_dict()
    kept = {name: value for name, value in adapter.items() if not name.endswith("pos_embed.pe")}
    assert same(kept, parts_of(sources["state"], "motion"))


def test_export_of_what_is_not_there_is_refused(sources, tmp_path):
    """Oracle: MVDream alone has no image attention; nothing is left behind."""
    convert(sources["folder"] / "mvdream", out=tmp_path / "x")
    with pytest.raises(InputError, match="found no weights of IP-Adapter: image projection"):
        export(tmp_path / "x", kind="ip-adapter", out=tmp_path / "y")
    with pytest.raises(InputError, match='found "mvdream", expected one of animatediff, ip-adapter, animate3d'):
        export(tmp_path / "x", kind="mvdream", out=tmp_path / "y")
    with pytest.raises(InputError, match="found a UNet2DConditionModel, expected MVUNetMotionModel"):
        export(sources["folder"] / "mvdream", kind="animatediff", out=tmp_path / "y")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x"]


# -- what does not go --------------------------------------------------------------------------------------------------


def test_kinds_are_seen_by_content(sources, released, tmp_path):
    """Oracle: by hand."""
    given = {**paths(sources), "mvdream": sources["folder"] / "mvdream", "pipeline": released}
    names = {"motion": "animatediff", "ip_adapter": "ip-adapter"}
    assert {name: identify(path) for name, path in given.items()} == {name: names.get(name, name) for name in given}
    torch.save({"model.diffusion_model.camera_embed.0.weight": torch.ones(1)}, tmp_path / "x.pt")
    assert identify(tmp_path / "x.pt") == "mvdream"
    torch.save({"classifier.weight": torch.ones(1)}, tmp_path / "x.pt")
    with pytest.raises(InputError, match=r"found tensors such as classifier\.weight"):
        identify(tmp_path / "x.pt")
    with pytest.raises(InputError, match="found neither unet/config"):
        identify(tmp_path)


def test_sources_that_do_not_fit_together_are_refused(sources, tmp_path):
    """Oracle: each combination lacks one thing, which the message names; no folder is left."""
    mvdream, given, out = sources["folder"] / "mvdream", paths(sources), tmp_path / "out"
    alone = tmp_path / "alone/ip-adapter_sd15.safetensors"
    alone.parent.mkdir()
    shutil.copy(given["ip_adapter"], alone)
    save_encoder(tmp_path / "alone/wide", width=24)
    cases = (
        ("pass --ip-adapter", lambda: compose(mvdream, animate3d=given["animate3d"], out=out)),
        ("--image-encoder: found none", lambda: compose(mvdream, ip_adapter=alone, out=out)),
        (
            "found embeddings of 24 channels, expected 10",
            lambda: compose(mvdream, ip_adapter=alone, image_encoder=alone.parent / "wide", out=out),
        ),
        ("--base: found none for", lambda: convert(given["motion"], out=out)),
        ("expected one; leave one out", lambda: convert(given["motion"], base=mvdream, motion=mvdream, out=out)),
        ('found "gan", expected auto or', lambda: convert(mvdream, kind="gan", out=out)),
        ("expected a folder that is empty", lambda: convert(mvdream, out=alone.parent)),
    )
    for message, do in cases:
        with pytest.raises(InputError, match=message):
            do()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone"]


def test_folder_appears_whole_or_not_at_all(tmp_path):
    """Oracle: an error in the middle leaves nothing; a full disk is told as such; an empty folder is replaced."""

    def write(error: Exception) -> None:
        with whole_folder(tmp_path / "x") as folder:
            (folder / "half").write_text("a")
            raise error

    with pytest.raises(KeyError):
        write(KeyError("stop"))
    with pytest.raises(StorageError, match="No space left"):
        write(OSError(28, "No space left on device", "x/weights"))
    for text in ("I/O error: No space left on device (os error 28)", "PytorchStreamWriter failed writing file"):
        with pytest.raises(StorageError, match="a disk that took no more"):
            write(RuntimeError(text))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "x").mkdir()
    with whole_folder(tmp_path / "x") as folder:
        (folder / "all").write_text("a")
    assert [path.name for path in tmp_path.rglob("*")] == ["x", "all"]


def test_adapter_on_its_base_is_the_whole_model(sources, released, tmp_path):
    """Against the state of the model that the adapter was taken from; on another base it is refused."""
    adapter = export(released, kind="adapter", out=tmp_path / "adapter")
    base = tmp_path / "base"
    given = paths(sources)
    compose(sources["folder"] / "mvdream", motion=given["motion"], ip_adapter=given["ip_adapter"], out=base)
    made = convert(adapter, base=base, out=tmp_path / "model")
    assert same(own_unet(made.out)[1], own_unet(released)[1])
    assert made.parts["motion"] == str(adapter)
    compose(sources["folder"] / "mvdream", out=tmp_path / "plain")
    with pytest.raises(InputError, match="take the base it was made on"):
        convert(adapter, base=tmp_path / "plain", out=tmp_path / "other")
    assert not (tmp_path / "other").exists()
