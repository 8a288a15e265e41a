"""The latent cache: what is stored, the same bytes however it was made, going on, and refusing another VAE.

Oracle: the VAE itself on composited frames, `tarfile`, `mvv verify`, and the hashes of two runs.
"""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from manifests.dataset import Dataset
from manifests.errors import DatasetError, InputError
from manifests.images import composite
from manifests.publish import sha256_file
from manifests.shards import read_shards
from manifests.verify import verify
from mvv.latents import LatentsOptions, make_latents
from tests.tiny_dataset import make_tiny_dataset
from train.codec import codec_sha256, load_codec
from train.latents import LatentsWorker, begin, describe, encode_frames, waiting
from train.models.pixel_codec import PixelCodec

INLINE = LatentsOptions(workers=0, device="cpu")
ROOT = Path(__file__).resolve().parents[2]


def small_vae(seed: int = 0):
    from diffusers import AutoencoderKL

    torch.manual_seed(seed)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    return AutoencoderKL(
        block_out_channels=(8, 16), norm_num_groups=4, latent_channels=4, layers_per_block=1, sample_size=16, **blocks
    )


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """(dataset, VAE's folder, pixel codec's folder); not to be changed."""
    folder = tmp_path_factory.mktemp("latents")
    small_vae().save_pretrained(folder / "vae")
    PixelCodec().save_pretrained(folder / "pixels")
    return make_tiny_dataset(folder / "dataset", depth=True), folder / "vae", folder / "pixels"


def hashes(folder: Path) -> dict[str, str]:
    """Every file of the dataset, and not of its working folders."""
    return {
        str(path.relative_to(folder)): sha256_file(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.relative_to(folder).parts[0].startswith(".")
    }


def test_latents_are_what_the_vae_makes_of_composited_frames(base, tmp_path):
    # Oracle: the VAE's own mean and clamped log variance, frame by frame; verify with decoding; tarfile for the names.
    dataset, vae, _ = base
    made = make_latents(dataset, vae, tmp_path / "d", LatentsOptions(workers=0, device="cpu", size=8))
    assert (made.shards, made.images) == (2, 5 * 2 * 3)
    assert verify(tmp_path / "d", decode=True) == []
    out, codec = Dataset.open(tmp_path / "d"), load_codec(vae)
    for clip in ([row["clip_id"] for row in out.clips()])[::2]:
        found = out.series(clip, "latents")
        assert (found.shape, found.dtype) == ((2, 3, 4, 4, 8), np.float32)
        images = composite(out.frames(clip)[1, 2], (0.5, 0.5, 0.5), size=(8, 8))
        with torch.no_grad():
            dist = codec.encode(
                torch.tensor(images / 127.5 - 1, dtype=torch.float32).permute(2, 0, 1)[None]
            ).latent_dist
        expected = torch.cat([dist.mean, dist.logvar], 1)[0].permute(1, 2, 0).numpy()
        assert np.abs(found[1, 2] - expected).max() < 2e-3 * np.abs(expected).max()
    with tarfile.open(out.shard_path("train-00001", "latents")) as tar:
        names = tar.getnames()
        first = np.load(io.BytesIO(tar.extractfile(names[0]).read()))
    clip = [row["clip_id"] for row in out.clips()][3]
    assert names[:4] == [f"{clip}.v{v:02d}_f{f:03d}.npy" for v, f in ((0, 0), (0, 1), (0, 2), (1, 0))]
    assert first.dtype == np.float16
    how = json.loads((tmp_path / "d" / "dataset.json").read_text())["modalities"]["latents"]
    assert {name: how[name] for name in ("dtype", "channels", "suffix", "series", "size", "height")} == {
        "dtype": "float16", "channels": 8, "suffix": "npy", "series": "latents", "size": 8, "height": 4,
    }  # fmt: skip
    assert (how["background"], how["vae_sha256"]) == ([0.5, 0.5, 0.5], codec_sha256(codec))
    assert "depth" in out.modalities


def test_pixel_codec_latents_are_the_pixels(base, tmp_path):
    # Oracle: the composited frames, bit for bit after rounding, at another background.
    dataset, _, pixels = base
    options = LatentsOptions(workers=0, device="cpu", background=(1.0, 0.0, 0.25))
    made = make_latents(dataset, pixels, tmp_path / "d", options)
    assert made.modality["size"] == 16
    out, codec = Dataset.open(tmp_path / "d"), load_codec(pixels)
    clip = next(out.clips())["clip_id"]
    mean = torch.from_numpy(out.series(clip, "latents")[..., :12]).permute(0, 1, 4, 2, 3).flatten(0, 1)
    images = ((codec.decode(mean).sample + 1) * 127.5).round().permute(0, 2, 3, 1).to(torch.uint8).numpy()
    expected = composite(out.frames(clip), (1.0, 0.0, 0.25)).reshape(images.shape)
    assert np.array_equal(images, expected)


def test_size_and_background_are_those_of_the_pipeline(base, tmp_path):
    # Oracle: what is written here into the folder of a pipeline; options go before it.
    dataset, _, pixels = base
    shutil.copytree(pixels, tmp_path / "p" / "vae")
    index = {"_class_name": "MVAnimatePipeline", "size": 4, "background": [0.0, 0.5, 1.0]}
    (tmp_path / "p" / "model_index.json").write_text(json.dumps(index))
    made = make_latents(dataset, tmp_path / "p", tmp_path / "d", INLINE).modality
    assert (made["size"], made["height"], made["background"]) == (4, 2, [0.0, 0.5, 1.0])
    options = LatentsOptions(workers=0, device="cpu", size=8, background=(1.0, 1.0, 1.0))
    made = make_latents(dataset, tmp_path / "p", tmp_path / "e", options).modality
    assert (made["size"], made["background"]) == (8, [1.0, 1.0, 1.0])


def test_series_is_added_in_place_and_again_is_nothing(base, tmp_path):
    # Oracle: the tars of a run into another folder; the RGB files keep their bytes; a repetition changes no file.
    dataset, vae, _ = base
    shutil.copytree(dataset, tmp_path / "here")
    before = hashes(tmp_path / "here")
    make_latents(tmp_path / "here", vae, None, INLINE)
    make_latents(dataset, vae, tmp_path / "there", INLINE)
    here, there = hashes(tmp_path / "here"), hashes(tmp_path / "there")
    assert here == there
    assert {
        name: found for name, found in here.items() if name in before and name.startswith(("shards/", "index/"))
    } == {name: found for name, found in before.items() if name.startswith(("shards/", "index/"))}
    assert hashes(dataset) == before
    assert (dataset / "shards/train-00000.tar").stat().st_ino == (
        tmp_path / "there/shards/train-00000.tar"
    ).stat().st_ino
    again = make_latents(tmp_path / "here", vae, tmp_path / "here", INLINE)
    assert (again.shards, again.images) == (0, 0)
    assert hashes(tmp_path / "here") == here


def test_stopped_run_goes_on_without_making_shards_again(base, tmp_path):
    # Oracle: the bytes of a run that was not stopped; what the committed shard cost is counted.
    dataset, vae, _ = base
    make_latents(dataset, vae, tmp_path / "whole", INLINE)
    shutil.copytree(dataset, tmp_path / "d")
    tar = tmp_path / "d" / "shards" / "train-00001.tar"
    good = tar.read_bytes()
    at = good.index(b".v01_f001.webp") // 512 * 512 + 512
    tar.write_bytes(good[:at] + bytes(64) + good[at + 64 :])
    with pytest.raises(DatasetError, match=r"train-00001\.tar: \S+ view 1 frame 1: found"):
        make_latents(tmp_path / "d", vae, None, INLINE)
    assert [row["shard"] for row in read_shards(tmp_path / "d") if row["series"] == "latents"] == ["train-00000"]
    assert "latents" not in Dataset.open(tmp_path / "d").modalities
    (tmp_path / "d" / ".latents" / "train-00001-killed").mkdir()
    tar.write_bytes(good)
    with pytest.raises(InputError, match=r"background: \[0\.0, 0\.0, 0\.0\] here"):
        make_latents(tmp_path / "d", vae, None, LatentsOptions(workers=0, device="cpu", background=(0.0, 0.0, 0.0)))
    made = make_latents(tmp_path / "d", vae, None, INLINE)
    assert made.shards == 1
    assert hashes(tmp_path / "d") == hashes(tmp_path / "whole")
    assert [path.name for path in (tmp_path / "d" / ".latents").iterdir()] == ["lock"]


def test_removed_and_stale_shards_are_made_again(base, tmp_path):
    # Oracle: the remedy that `mvv verify` tells; the same bytes as before.
    dataset, vae, _ = base
    make_latents(dataset, vae, tmp_path / "d", INLINE)
    whole = hashes(tmp_path / "d")
    (tmp_path / "d/shards/train-00000.latents.tar").unlink()
    (tmp_path / "d/index/train-00001.latents.parquet").unlink()
    assert [shard for shard, _ in waiting(tmp_path / "d")] == ["train-00000", "train-00001"]
    assert any("repeat the command that made it" in problem.remedy for problem in verify(tmp_path / "d"))
    assert make_latents(tmp_path / "d", vae, None, INLINE).shards == 2
    assert hashes(tmp_path / "d") == whole


def test_damaged_latents_are_found_by_verify(base, tmp_path):
    # Oracle: a byte flipped here, and a modality that says something else.
    dataset, vae, _ = base
    make_latents(dataset, vae, tmp_path / "d", INLINE)
    tar = tmp_path / "d/shards/train-00000.latents.tar"
    data = bytearray(tar.read_bytes())
    data[900] ^= 1
    tar.write_bytes(data)
    assert any("train-00000.latents.tar" in problem.file for problem in verify(tmp_path / "d"))
    data[900] ^= 1
    tar.write_bytes(data)
    path = tmp_path / "d" / "dataset.json"
    manifest = json.loads(path.read_text())
    manifest["modalities"]["latents"] |= {"channels": 6, "height": 5}
    path.write_text(json.dumps(manifest))
    found = [str(problem) for problem in verify(tmp_path / "d", decode=True)]
    assert any("found 8 channels, expected 6" in text for text in found)
    assert any("found (8, 8) pixels, expected (5, 8)" in text for text in found)


@pytest.mark.timeout(120)
@pytest.mark.slow
def test_workers_of_a_ray_pool_give_the_same_tars(base, tmp_path, monkeypatch):
    # Oracle: the hashes of the run in this process.
    pytest.importorskip("ray")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    dataset, vae, _ = base
    make_latents(dataset, vae, tmp_path / "one", INLINE)
    make_latents(dataset, vae, tmp_path / "two", LatentsOptions(workers=2, device="cpu"))
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")


def test_another_vae_size_or_background_is_refused_by_name(base, tmp_path):
    # Oracle: what differs, in the message; a copy leaves the other series out.
    dataset, vae, pixels = base
    small_vae(1).save_pretrained(tmp_path / "other")
    make_latents(dataset, vae, tmp_path / "d", INLINE)
    with pytest.raises(InputError, match=r"vae_sha256: \w+ here, \w+ there\)"):
        make_latents(tmp_path / "d", tmp_path / "other", None, INLINE)
    with pytest.raises(InputError, match="size: 8 here, 16 there"):
        make_latents(tmp_path / "d", vae, None, LatentsOptions(workers=0, device="cpu", size=8))
    made = make_latents(tmp_path / "d", pixels, tmp_path / "e", INLINE)
    assert made.modality["vae"] == "PixelCodec"
    assert verify(tmp_path / "e", decode=True) == []


def test_hash_of_a_codec_is_of_what_it_computes(base, tmp_path):
    # Oracle: saved again, moved, a field of another version of diffusers: equal; a weight or a scale changed: not.
    _, vae, pixels = base
    codec = load_codec(vae)
    codec.save_pretrained(tmp_path / "again")
    assert codec_sha256(load_codec(tmp_path / "again")) == codec_sha256(codec) == codec_sha256(small_vae())
    assert codec_sha256(small_vae(1)) != codec_sha256(codec)
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    (tmp_path / "again" / "config.json").write_text(json.dumps({**config, "scaling_factor": 0.5}))
    assert codec_sha256(load_codec(tmp_path / "again")) != codec_sha256(codec)
    assert codec_sha256(load_codec(pixels)) == codec_sha256(PixelCodec())
    assert codec_sha256(PixelCodec(4, 48, (1, 1, 1))) != codec_sha256(PixelCodec())


def test_folders_that_are_no_vae_are_one_clear_error(base, tmp_path):
    # Oracle: each message names the file and what to do; a pickle is never opened.
    _, vae, _ = base
    with pytest.raises(InputError, match="expected the config of a VAE; give the folder"):
        load_codec(tmp_path / "nowhere")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "config.json").write_text('{"_class_name": "UNet2DConditionModel"}')
    with pytest.raises(InputError, match="'UNet2DConditionModel', expected AutoencoderKL or PixelCodec"):
        load_codec(tmp_path / "a")
    (tmp_path / "a" / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="expected the config of a VAE"):
        load_codec(tmp_path / "a")
    shutil.copytree(vae, tmp_path / "b")
    weights = tmp_path / "b" / "diffusion_pytorch_model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-100])
    with pytest.raises(InputError, match=r"diffusion_pytorch_model.safetensors: found \d+ bytes that do not open"):
        load_codec(tmp_path / "b")
    weights.rename(tmp_path / "b" / "diffusion_pytorch_model.bin")
    with pytest.raises(InputError, match=r"found diffusion_pytorch_model\.bin, expected a \.safetensors file"):
        load_codec(tmp_path / "b")
    weights.write_bytes(data)
    tensors = load_file(weights)
    del tensors[min(tensors)]
    save_file(tensors, weights)
    with pytest.raises(InputError, match=r"found no [\w.]+, expected the weights of its config"):
        load_codec(tmp_path / "b")
    weights.write_bytes(data)
    config = json.loads((tmp_path / "b" / "config.json").read_text())
    (tmp_path / "b" / "config.json").write_text(json.dumps({**config, "latent_channels": 8}))
    with pytest.raises(InputError, match="expected a whole AutoencoderKL"):
        load_codec(tmp_path / "b")


def test_unusable_sizes_datasets_and_targets_are_refused(base, tmp_path):
    # Oracle: each message; nothing is written.
    dataset, vae, _ = base
    for size in (1, 7):
        with pytest.raises(InputError, match=f"--size: found {size}, expected a multiple of 2"):
            make_latents(dataset, vae, tmp_path / "d", LatentsOptions(workers=0, size=size))
    with pytest.raises(InputError, match="--background: found"):
        make_latents(dataset, vae, tmp_path / "d", LatentsOptions(workers=0, background=(0.5, 0.5, 2.0)))
    for values in ({"size": -1}, {"workers": -2}, {"gpus_per_worker": -0.5}):
        with pytest.raises(InputError, match=f"--{next(iter(values)).replace('_', '-')}: found"):
            LatentsOptions(**values)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DatasetError, match="expected a finished dataset"):
        make_latents(tmp_path / "nowhere", vae, None, INLINE)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "dataset.json").write_text('{"schema": "somebody.else/3"}')
    with pytest.raises(DatasetError, match=r"found schema 'somebody\.else/3'"):
        make_latents(strange, vae, None, INLINE)
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").write_text("x")
    with pytest.raises(InputError, match="--out: found other files"):
        make_latents(dataset, vae, full, INLINE)
    other = make_tiny_dataset(tmp_path / "other", clips=2)
    with pytest.raises(InputError, match="--out: found a dataset of fingerprint"):
        make_latents(dataset, vae, other, INLINE)
    assert [path.name for path in full.iterdir()] == ["mine.txt"]


def test_values_that_do_not_fit_are_refused():
    # Oracle: a VAE whose mean overflows float16.
    codec = PixelCodec()

    class Loud(PixelCodec):
        def encode(self, pixels):
            return PixelCodec.encode(self, pixels * 1e6)

    rgba = np.full((2, 16, 16, 4), 255, np.uint8)
    assert encode_frames(codec, rgba, 8, (0, 0, 0)).shape == (2, 4, 4, 24)
    with pytest.raises(InputError, match="do not fit float16"):
        encode_frames(Loud(), rgba, 8, (0, 0, 0))


def test_worker_refuses_a_vae_that_changed_under_it(base, tmp_path):
    # Oracle: the hash the work was planned with.
    dataset, vae, pixels = base
    shutil.copytree(dataset, tmp_path / "d")
    modality = begin(tmp_path / "d", describe(load_codec(vae), 16, (0.5, 0.5, 0.5)))
    worker = LatentsWorker(str(tmp_path / "d"), str(pixels), modality, "cpu")
    threads = torch.get_num_threads()
    error = worker.call("encode", {"shard": "train-00000"})["error"]
    assert isinstance(error, InputError)
    assert modality["vae_sha256"][:12] in str(error)
    assert torch.get_num_threads() == threads


def test_dataset_that_grows_keeps_its_series_and_gets_the_rest(base, tmp_path):
    # Oracle: verify names the shards that lack latents, and nothing else; the shards of before are not made again.
    pytest.importorskip("bpy")
    from tests.pipelines.runs import inline, make_cubes

    assets = make_cubes(tmp_path / "assets", 1)
    inline(assets, tmp_path / "d")
    assert make_latents(tmp_path / "d", base[2], None, INLINE).shards == 1
    inline(make_cubes(assets, 1, first=1), tmp_path / "d", append=True)
    problems = verify(tmp_path / "d")
    assert [problem.file for problem in problems] == ["shards/train-00001.latents.tar"]
    assert make_latents(tmp_path / "d", base[2], None, INLINE).shards == 1
    assert verify(tmp_path / "d", decode=True) == []
    inline(assets, tmp_path / "d")
    assert "latents" in Dataset.open(tmp_path / "d").modalities
