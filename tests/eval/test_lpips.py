"""LPIPS and the metrics on it, against the lpips package, a pair of images at a time, with the same trunk."""

from __future__ import annotations

import importlib.util
import pickle
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from eval.extractor import Clip, Compute
from eval.extractors.lpips import SMALLEST, LpipsAlex, LpipsVgg, linear_layers
from eval.metric import NotScored, Score, Subject
from eval.metrics import identity, temporal
from manifests.errors import InputError

METRICS = {metric.card.name: metric for metric in (*identity.METRICS, *temporal.METRICS)}
GOLDEN = {
    ("alex", "lpips_reference"): 0.06048626,
    ("alex", "lpips_f"): 0.04154017,
    ("vgg", "lpips_reference"): 0.0270902,
    ("vgg", "lpips_f"): 0.02357125,
}
"""Of the trunks of seed 7 and the clip of seed 0; `source_scores` printed them with lpips 0.1.4 and torch 2.14.1 on a
CPU."""


def without_classifier(build):
    """LPIPS does not look at it, and it is nine tenths of the file."""

    def small(weights: None = None) -> torch.nn.Module:
        network = build(weights=weights)
        network.classifier = torch.nn.Identity()
        return network

    return staticmethod(small)


class SmallAlex(LpipsAlex):
    build = without_classifier(models.alexnet)


class SmallVgg(LpipsVgg):
    build = without_classifier(models.vgg16)


SMALL = {"alex": SmallAlex, "vgg": SmallVgg}


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def draw_trunk(net: str, seed: int = 7) -> dict[str, torch.Tensor]:
    """Weights of a size that keeps activations alive to the last layer."""
    generator, drawn = torch.Generator().manual_seed(seed), {}
    with torch.device("meta"):
        shapes = SMALL[net].build().state_dict()
    for name, value in shapes.items():
        spread = (2.0 / value[0].numel()) ** 0.5 if value.ndim == 4 else 0.1
        drawn[name] = torch.randn(value.shape, generator=generator) * spread
    return drawn


@pytest.fixture(scope="module")
def trunks(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("lpips")
    for net in SMALL:
        torch.save(draw_trunk(net), folder / f"{net}.pth")
    return {net: folder / f"{net}.pth" for net in SMALL}


def clip(height: int = 48, width: int = 56, frames: int = 4, seed: int = 0, *, reference: bool = True) -> Clip:
    """A bright square that moves over smooth noise, so that frames are alike but not equal."""
    rng = np.random.default_rng(seed)
    ground = np.asarray(Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((width, height)))
    images = np.repeat(ground[None], frames + 1, axis=0)
    for k in range(frames + 1):
        top, left = height // 4 + 2 * k, width // 3 + 2 * k
        images[k, top : top + height // 3, left : left + width // 4] = rng.integers(0, 256, 3)
    return Clip(frames=images[1:], view="a000e+00", reference=images[0] if reference else None)


def source_network(net: str, trunk: dict[str, torch.Tensor]) -> torch.nn.Module:
    """The package's own graph with its linear layers, and this trunk in the place of the download."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package uses torchvision's deprecated words
        import lpips

        network = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    names = {name: f"features.{name.split('.', 1)[1]}" for name in network.net.state_dict()}
    network.net.load_state_dict({name: trunk[ours] for name, ours in names.items()})
    return network.eval()


def source_scores(clip: Clip, network: torch.nn.Module) -> dict[str, float]:
    """A pair at a time, images in -1..1 as the package's im2tensor makes them."""

    def tensor(image: np.ndarray) -> torch.Tensor:
        return torch.Tensor((image[..., None] / (255.0 / 2.0) - 1.0).transpose(3, 2, 0, 1))

    with torch.no_grad():
        return {
            "lpips_reference": np.mean([network(tensor(x), tensor(clip.reference)).item() for x in clip.frames]),
            "lpips_f": np.mean([network(tensor(x), tensor(y)).item() for x, y in pairwise(clip.frames)]),
        }


def scores(clip: Clip, net: str, trunk: Path) -> dict[str, Score]:
    extractor = SMALL[net](trunk, compute=Compute())
    subject = Subject(clip=clip, features={extractor.name: extractor.extract([clip])[0]})
    return {name: METRICS[f"{name}@{net}"].score(subject) for name in ("lpips_reference", "lpips_f")}


# -- exactness ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 56), (32, 32), (65, 47)])
@pytest.mark.parametrize("net", SMALL)
def test_scores_are_the_packages(net, size, trunks):
    """Against lpips.LPIPS on every pair by itself."""
    video = clip(*size)
    found = scores(video, net, trunks[net])
    assert {name: score.value for name, score in found.items()} == pytest.approx(
        source_scores(video, source_network(net, draw_trunk(net))), abs=1e-5, rel=1e-5
    )
    assert {name: len(score.frames) for name, score in found.items()} == {"lpips_reference": 4, "lpips_f": 3}
    assert all(score.frames.mean() == pytest.approx(score.value) for score in found.values())


@pytest.mark.parametrize("net", SMALL)
def test_golden_values(net, trunks):
    """Stored numbers of the package; see `GOLDEN`."""
    for name, score in scores(clip(), net, trunks[net]).items():
        assert score.value == pytest.approx(GOLDEN[net, name], abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("net", "build"), [("alex", models.alexnet), ("vgg", models.vgg16)])
def test_torchvisions_whole_file_is_read(net, build, tmp_path):
    """Against the package, with a file that has the classifier as torchvision's has."""
    network = build(weights=None)
    network.load_state_dict(draw_trunk(net), strict=False)
    torch.save(network.state_dict(), tmp_path / "whole.pth")
    video = clip()
    whole = {"alex": LpipsAlex, "vgg": LpipsVgg}[net](tmp_path / "whole.pth", compute=Compute())
    [features] = whole.extract([video])
    expected = source_scores(video, source_network(net, draw_trunk(net)))
    assert features["reference"].mean() == pytest.approx(expected["lpips_reference"], rel=1e-5)


# -- the same whatever the batches -------------------------------------------------------------------------------------


def clips_of_one_object() -> list[Clip]:
    """Two views with a control each that shares images with them, another size, and a clip without reference."""
    one, two = clip(), clip(seed=1)
    frozen = Clip(frames=np.broadcast_to(one.reference, (4, *one.reference.shape)), reference=one.reference)
    first = Clip(frames=np.repeat(two.frames[:1], 4, axis=0), reference=two.reference.copy())
    swapped = Clip(frames=np.stack([two.frames[2], two.reference, two.frames[0]]), reference=two.frames[1])
    return [one, two, frozen, first, swapped, clip(40, 64, 2, 2), clip(48, 56, 3, 3, reference=False)]


def test_distances_do_not_depend_on_batches_order_or_grouping(trunks):
    """Against each clip alone, one image at a time."""
    clips = clips_of_one_object()
    alone = [SmallAlex(trunks["alex"], compute=Compute(batch_size=1)).extract([video])[0] for video in clips]
    for batch_size in (1, 2, 5, 64):
        extractor = SmallAlex(trunks["alex"], compute=Compute(batch_size=batch_size))
        for order in (range(7), [6, 2, 4, 0, 5, 3, 1]):
            for k, features in zip(order, extractor.extract([clips[k] for k in order]), strict=True):
                assert features.keys() == alone[k].keys()
                for name in features:
                    np.testing.assert_allclose(features[name], alone[k][name], atol=1e-6, rtol=0)


def test_shared_images_give_the_distances_of_the_package(trunks):
    """Against lpips.LPIPS, clip by clip, where controls and views share frames and references."""
    network = source_network("alex", draw_trunk("alex"))
    clips = clips_of_one_object()[:-1]
    for video, features in zip(clips, SmallAlex(trunks["alex"], compute=Compute()).extract(clips), strict=True):
        expected = source_scores(video, network)
        assert features["reference"].mean() == pytest.approx(expected["lpips_reference"], abs=1e-5)
        assert features["adjacent"].mean() == pytest.approx(expected["lpips_f"], abs=1e-5)


def test_each_distinct_image_goes_through_the_trunk_once(trunks):
    """Against the images that reach the first layer."""
    clips = clips_of_one_object()
    extractor, seen = SmallAlex(trunks["alex"], compute=Compute(batch_size=2)), []
    extractor.trunk[0].register_forward_hook(lambda module, args, out: seen.append(len(out)))
    extractor.extract(clips)
    images = {image.tobytes() for video in clips for image in (video.reference, *video.frames) if image is not None}
    assert sum(seen) == len(images)
    assert max(seen) == 2


def test_large_images_go_in_smaller_batches(trunks):
    """Against the images a pass where 2 GiB are said to hold two and a half of them, and to hold less than one."""

    class Heavy(SmallAlex):
        bytes_per_pixel = int(2**31 / 2.5 / (48 * 56))

    class Heaviest(SmallAlex):
        bytes_per_pixel = 2**31

    video = clip(frames=4)
    for kind, expected in ((Heavy, [2, 2, 1]), (Heaviest, [1] * 5)):
        extractor, seen = kind(trunks["alex"], compute=Compute(batch_size=32)), []
        extractor.trunk[0].register_forward_hook(lambda module, args, out, seen=seen: seen.append(len(out)))
        extractor.extract([video])
        assert seen == expected


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "video", "found"),
    [
        ("lpips_reference@alex", clip(reference=False), "no image of view a000e[+]00 at rest"),
        ("lpips_f@alex", clip(frames=1), "1 frame"),
        ("lpips_f@alex", clip(SMALLEST - 1, 64), "frames of 64x31 pixels"),
        ("lpips_reference@alex", clip(64, SMALLEST - 1), "frames of 31x64 pixels"),
    ],
)
def test_what_cannot_be_scored_is_refused(name, video, found, trunks):
    """Against the rule of each card; the message says what was found and what to do."""
    extractor = SmallAlex(trunks["alex"], compute=Compute())
    subject = Subject(clip=video, features={extractor.name: extractor.extract([video])[0]})
    with pytest.raises(NotScored, match=rf"found {found}.*expected .*; give "):
        METRICS[name].score(subject)


class Runs:
    def __reduce__(self):
        return (print, ("run",))


def test_a_file_that_does_not_fit_is_refused(tmp_path, trunks, capfd):
    """Against the file's name; nothing in a pickle runs."""
    (tmp_path / "pickle.pth").write_bytes(pickle.dumps(Runs(), protocol=2))
    (tmp_path / "cut.pth").write_bytes(trunks["alex"].read_bytes()[:-3000])
    torch.save(draw_trunk("alex") | {"features.0.bias": torch.zeros(3)}, tmp_path / "shape.pth")
    for name in ("pickle.pth", "cut.pth", "shape.pth", "absent.pth"):
        with pytest.raises(InputError, match=rf"{name}: found"):
            SmallAlex(tmp_path / name, compute=Compute())
    with pytest.raises(InputError, match=r"alex\.pth: found"):
        SmallVgg(trunks["alex"], compute=Compute())
    assert "run" not in capfd.readouterr().out


def test_linear_layers_are_those_of_the_package(tmp_path, monkeypatch):
    """Against the package's files read directly; another file or none is refused."""
    for net, channels in (("alex", [64, 192, 384, 256, 256]), ("vgg", [64, 128, 256, 512, 512])):
        layers = linear_layers(net)
        assert [tuple(layer.shape) for layer in layers] == [(n, 1, 1) for n in channels]
        assert all((layer >= 0).all() for layer in layers)
    folder = tmp_path / "lpips" / "weights" / "v0.1"
    folder.mkdir(parents=True)
    (tmp_path / "lpips" / "__init__.py").touch()
    (folder / "alex.pth").write_bytes(b"other")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(importlib.sys.modules, "lpips", raising=False)
    for net in ("alex", "vgg"):
        with pytest.raises(InputError, match=r"lpips: found \w+ as (alex|vgg)\.pth.*pip install"):
            linear_layers(net)
