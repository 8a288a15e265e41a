"""LPIPS 0.1 between frames and references and between neighbouring frames, each image through the trunk once.

    d(x, y) = sum over 5 layers of mean over pixels of sum over channels of w * (u(x) - u(y))^2

u: activations divided by their norm over channels. The trunks are torchvision's with their ImageNet weights, the linear
layers w are those that the ``lpips`` package brings. The source runs the trunk on both images of every pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import groupby, pairwise
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torchvision import models

from eval.extractor import Clip, Compute, Features
from eval.extractors.checkpoints import load_network, read_tensors
from eval.extractors.encode import distinct_images
from eval.extractors.passes import batches, full_precision
from manifests.errors import InputError

__all__ = ["SMALLEST", "LpipsAlex", "LpipsVgg", "linear_layers"]

SMALLEST = 32
"""Shorter side, pixels, that both trunks can take; below 31 AlexNet's last layers have no pixel left."""
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""ImageNet's mean and deviation for values -1..1, rounded as in the source (ScalingLayer)."""
_LINEAR_SHA256 = {
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
}

Pair = tuple[int, int]


class _Lpips:
    """Features ``adjacent`` (frame - 1,) and, where the clip has one, ``reference`` (frame,): distances, float64.

    A clip with a side below `SMALLEST` has no features.
    """

    weights: ClassVar[tuple[str, ...]]
    net: ClassVar[str]
    """As the source names it."""
    build: ClassVar[Callable[..., torch.nn.Module]]
    """Of torchvision."""
    ends: ClassVar[tuple[int, ...]]
    """Layers of the trunk's features in front of which activations are compared."""
    bytes_per_pixel: ClassVar[int]
    """Of activations of an image and of the pairs that are compared at once; large images go in smaller batches."""

    def __init__(self, trunk: Path, *, compute: Compute):
        """Loads the trunk (torchvision's state dict; the classifier in it is not used) and the linear layers.

        Raises:
            InputError: a file of another format or network; the package lpips is not installed, or another version.
        """
        network = load_network(self.build, trunk, device="cpu")
        self.trunk = network.features[: self.ends[-1]].to(compute.device)
        self.linear = [layer.to(compute.device) for layer in linear_layers(self.net)]
        self.compute = compute

    def extract(self, clips: Sequence[Clip]) -> list[Features]:
        """See `Extractor`."""
        shown = [_images(clip) for clip in clips]
        images, places = distinct_images([image for own in shown for image in own])
        own = [part.tolist() for part in np.split(places, np.cumsum([len(part) for part in shown])[:-1])]
        pairs = [_pairs(clip, part) if part else {} for clip, part in zip(clips, own, strict=True)]
        # Clips of the same reference one after another: only its activations are held meanwhile.
        order = list(dict.fromkeys(place for part in sorted(own) for place in part))
        different = {pair for named in pairs for group in named.values() for pair in group if pair[0] != pair[1]}
        found = self._distances(images, order, different)
        found |= {(place, place): 0.0 for place in order}
        return [{name: np.array([found[pair] for pair in group]) for name, group in named.items()} for named in pairs]

    def _distances(
        self, images: Sequence[np.ndarray], order: Sequence[int], pairs: Collection[Pair]
    ) -> dict[Pair, float]:
        """Walks through the images in this order and holds activations until their last pair is done."""
        position = {image: k for k, image in enumerate(order)}
        due: dict[int, list[Pair]] = {}
        last = dict.fromkeys(order, -1)
        for pair in sorted(pairs):
            early, late = sorted(pair, key=position.__getitem__)
            due.setdefault(late, []).append(pair)
            last[early] = max(last[early], position[late])
        found: dict[Pair, float] = {}
        held: dict[int, Sequence[torch.Tensor]] = {}
        for batch in self._batches(images, order):
            with full_precision():
                layers = self._activations(np.stack([images[k] for k in batch]))
                held |= zip(batch, zip(*layers, strict=True), strict=True)
                ready = [pair for k in batch for pair in due.get(k, ())]
                for start in range(0, len(ready), len(batch)):
                    some = ready[start : start + len(batch)]
                    found.update(zip(some, self._compared(held, some), strict=True))
                # Clones: a view would keep the whole batch.
                held = {k: [x.clone() for x in own] for k, own in held.items() if last[k] > position[batch[-1]]}
        return found

    def _batches(self, images: Sequence[np.ndarray], order: Sequence[int]) -> Iterator[list[int]]:
        for (height, width, _), group in groupby(order, key=lambda k: images[k].shape):
            yield from batches(
                list(group), batch_size=self.compute.batch_size, bytes_each=height * width * self.bytes_per_pixel
            )

    def _activations(self, images: np.ndarray) -> Iterator[torch.Tensor]:
        """Of each of the five layers, (image, channel, height, width), of norm 1 over channels."""
        x = torch.from_numpy(images).to(self.compute.device).permute(0, 3, 1, 2).float() / 127.5 - 1.0
        shift, scale = (torch.tensor(values, device=x.device)[:, None, None] for values in (_SHIFT, _SCALE))
        x = (x - shift) / scale
        for start, end in pairwise((0, *self.ends)):
            x = self.trunk[start:end](x)
            yield x / (x.square().sum(dim=1, keepdim=True).sqrt() + 1e-10)

    def _compared(self, held: Mapping[int, Sequence[torch.Tensor]], pairs: Sequence[Pair]) -> list[float]:
        total = torch.zeros(len(pairs), device=self.compute.device)
        for layer, weight in enumerate(self.linear):
            one, other = (torch.stack([held[pair[side]][layer] for pair in pairs]) for side in (0, 1))
            total += (one.sub_(other).square_() * weight).sum(dim=1).mean(dim=(1, 2))
        return total.tolist()


class LpipsAlex(_Lpips):
    """On AlexNet, behind each of its five ReLUs."""

    name: ClassVar[str] = "lpips-alex"
    weights = ("alexnet-trunk",)
    net = "alex"
    build = staticmethod(models.alexnet)
    ends = (2, 5, 8, 10, 12)
    bytes_per_pixel = 160


class LpipsVgg(_Lpips):
    """On VGG-16, behind the last ReLU before each pooling."""

    name: ClassVar[str] = "lpips-vgg"
    weights = ("vgg16-trunk",)
    net = "vgg"
    build = staticmethod(models.vgg16)
    ends = (4, 9, 16, 23, 30)
    bytes_per_pixel = 1800


def linear_layers(net: str) -> list[torch.Tensor]:
    """Weights of the five linear layers of LPIPS 0.1, each (channel, 1, 1), from the installed package.

    Args:
        net: ``alex`` or ``vgg``.

    Raises:
        InputError: the package is not installed, or its file is not the one of lpips 0.1.4.
    """
    # Found, not imported: only the file is needed, and the package imports torchvision's deprecated words.
    package = find_spec("lpips")
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "lpips: found no such package, expected lpips 0.1.4; install it with `pip install lpips==0.1.4`"
        )
    path = Path(package.submodule_search_locations[0], "weights", "v0.1", f"{net}.pth")
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "nothing"
    if digest != _LINEAR_SHA256[net]:
        raise InputError(
            f"lpips: found {digest[:12]} as {path.name} of version 0.1, expected SHA-256 {_LINEAR_SHA256[net][:12]}; "
            "install it again with `pip install --force-reinstall lpips==0.1.4`"
        )
    tensors = read_tensors(path)
    return [tensors[f"lin{k}.model.1.weight"][0].float() for k in range(5)]


def _images(clip: Clip) -> list[np.ndarray]:
    """The reference, where there is one, and the frames."""
    if min(clip.size) < SMALLEST:
        return []
    return [*clip.frames] if clip.reference is None else [clip.reference, *clip.frames]


def _pairs(clip: Clip, places: Sequence[int]) -> dict[str, list[Pair]]:
    """Feature -> pairs of places, smaller first, of images as `_images` gives them."""
    if clip.reference is None:
        return {"adjacent": [tuple(sorted(pair)) for pair in pairwise(places)]}
    reference, *frames = places
    return {
        "adjacent": [tuple(sorted(pair)) for pair in pairwise(frames)],
        "reference": [tuple(sorted((reference, frame))) for frame in frames],
    }
