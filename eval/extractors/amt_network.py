"""AMT-S, a network that draws the frame halfway between two others: 2.99 M parameters, names as in amt-s.pth.

Facts (layers, sizes, names of parameters): MCG-NKU/AMT 70f988f, networks/AMT-S.py; the code is our own. Only what
motion smoothness asks for is here: time 1/2, full scale, no training. Letters: B pairs, C channels, H W pixels, h w
pixels at 1/8.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AmtSmall", "Correlation", "resize", "warp"]

CHANNELS = (20, 32, 44, 56)
"""Of the context pyramid at 1/2, 1/4, 1/8 and 1/16."""
CANDIDATES = 3
LEVELS, RADIUS = 4, 3
TIME = 0.5


def resize(x: Tensor, factor: float) -> Tensor:
    """Bilinear, pixel centres at half integers, no antialiasing."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def warp(image_BCHW: Tensor, flow_B2HW: Tensor) -> Tensor:
    """Each pixel taken from where its flow (x, y in pixels) points to; beyond the border the nearest pixel."""
    height, width = flow_B2HW.shape[-2:]
    rows = torch.linspace(-1, 1, height, device=flow_B2HW.device)
    columns = torch.linspace(-1, 1, width, device=flow_B2HW.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    half = flow_B2HW.new_tensor([(width - 1) / 2, (height - 1) / 2])
    grid = torch.stack([x, y], -1) + flow_B2HW.permute(0, 2, 3, 1) / half
    return F.grid_sample(image_BCHW, grid, mode="bilinear", padding_mode="border", align_corners=True)


class Correlation:
    """How alike every pixel of one image is to every pixel of the other, looked up around given places.

    Args:
        features0_BChw: of the first image.
        features1_BChw: of the second.
    """

    def __init__(self, features0_BChw: Tensor, features1_BChw: Tensor) -> None:
        channels, self.size = features0_BChw.shape[1], features0_BChw.shape[-2:]
        volume = features0_BChw.flatten(2).transpose(1, 2) @ features1_BChw.flatten(2) / channels**0.5
        self.onto1, self.onto0 = self._pyramid(volume), self._pyramid(volume.transpose(1, 2))

    def _pyramid(self, volume: Tensor) -> list[Tensor]:
        """One image of similarities for each pixel, at 1, 1/2, 1/4 and 1/8 of its size."""
        levels = [volume.reshape(-1, 1, *self.size)]
        while len(levels) < LEVELS:
            levels.append(F.avg_pool2d(levels[-1], 2))
        return levels

    def lookup(self, places1_B2hw: Tensor, places0_B2hw: Tensor) -> Tensor:
        """Similarities in windows of 7 x 7 on every level.

        Args:
            places1_B2hw: for each pixel of image 0 the place (x, y) in image 1 around which to look.
            places0_B2hw: for each pixel of image 1 the place in image 0.

        Returns:
            (B, 2 * 4 * 49, h, w): first image 0's. Inside a window x is the slow index, as in the source.
        """
        return torch.cat([_windows(self.onto1, places1_B2hw), _windows(self.onto0, places0_B2hw)], 1)


def _windows(pyramid: list[Tensor], places_B2hw: Tensor) -> Tensor:
    batch, _, height, width = places_B2hw.shape
    steps = torch.arange(-RADIUS, RADIUS + 1, device=places_B2hw.device, dtype=places_B2hw.dtype)
    window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)
    centres = places_B2hw.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    found = []
    for level, image in enumerate(pyramid):
        last = places_B2hw.new_tensor([image.shape[-1] - 1, image.shape[-2] - 1])
        grid = 2 * (centres / 2**level + window) / last - 1
        found.append(F.grid_sample(image, grid, align_corners=True).view(batch, height, width, -1))
    return torch.cat(found, -1).permute(0, 3, 1, 2)


class _Bottleneck(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        inner = channels // 4
        self.conv1 = nn.Conv2d(in_channels, inner, 1)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1)
        self.conv3 = nn.Conv2d(inner, channels, 1)
        self.downsample = nn.Sequential(nn.Conv2d(in_channels, channels, 1, stride)) if stride > 1 else None

    def forward(self, x: Tensor) -> Tensor:
        inside = x
        for layer in (self.conv1, self.conv2, self.conv3):
            inside = F.relu(F.instance_norm(layer(inside)))
        past = x if self.downsample is None else F.instance_norm(self.downsample(x))
        return F.relu(past + inside)


class _FeatureEncoder(nn.Module):
    """What is correlated: 84 channels at 1/8."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 7, 2, 3)
        self.layer1 = nn.Sequential(_Bottleneck(32, 32, 1), _Bottleneck(32, 32, 1))
        self.layer2 = nn.Sequential(_Bottleneck(32, 64, 2), _Bottleneck(64, 64, 1))
        self.layer3 = nn.Sequential(_Bottleneck(64, 96, 2), _Bottleneck(96, 96, 1))
        self.conv2 = nn.Conv2d(96, 84, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(F.instance_norm(self.conv1(x)))
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


def _convolution(in_channels: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, channels, 3, stride, 1), nn.PReLU(channels))


class _Pyramid(nn.Module):
    """Context at 1/2, 1/4, 1/8 and 1/16."""

    def __init__(self) -> None:
        super().__init__()
        for level, (before, channels) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False), 1):
            stage = nn.Sequential(_convolution(before, channels, 2), _convolution(channels, channels))
            self.add_module(f"pyramid{level}", stage)

    def forward(self, x: Tensor) -> list[Tensor]:
        return [x := stage(x) for stage in self.children()]


class _Residual(nn.Module):
    """Five convolutions; the second and fourth see only the last 20 channels."""

    SIDE = 20

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _convolution(channels, channels), _convolution(self.SIDE, self.SIDE)
        self.conv3, self.conv4 = _convolution(channels, channels), _convolution(self.SIDE, self.SIDE)
        self.conv5 = nn.Conv2d(channels, channels, 3, 1, 1)
        self.prelu = nn.PReLU(channels)

    def forward(self, x: Tensor) -> Tensor:
        inside = x
        for whole, part in ((self.conv1, self.conv2), (self.conv3, self.conv4)):
            inside = whole(inside)
            inside = torch.cat([inside[:, : -self.SIDE], part(inside[:, -self.SIDE :])], 1)
        return self.prelu(x + self.conv5(inside))


class _Decoder(nn.Module):
    """From features to twice their size."""

    def __init__(self, in_channels: int, inner: int, channels: int) -> None:
        super().__init__()
        self.convblock = nn.Sequential(
            _convolution(in_channels, inner), _Residual(inner), nn.ConvTranspose2d(inner, channels, 4, 2, 1)
        )

    def forward(self, *parts: Tensor) -> Tensor:
        return self.convblock(torch.cat(parts, 1))


class _Update(nn.Module):
    """Corrects features and flows by what the correlation says, at 1/8; ``factor`` is how much larger its input is."""

    def __init__(self, channels: int, factor: int) -> None:
        super().__init__()
        self.factor = factor
        self.convc1 = nn.Conv2d(2 * LEVELS * (2 * RADIUS + 1) ** 2, 64, 1)
        self.convf1 = nn.Conv2d(4, 40, 7, padding=3)
        self.convf2 = nn.Conv2d(40, 20, 3, padding=1)
        self.conv = nn.Conv2d(84, 68, 3, padding=1)
        self.gru = self._head(68 + 4 + channels, 76)
        self.feat_head = self._head(76, channels)
        self.flow_head = self._head(76, 4)

    @staticmethod
    def _head(in_channels: int, channels: int) -> nn.Sequential:
        first, last = nn.Conv2d(in_channels, 76, 3, padding=1), nn.Conv2d(76, channels, 3, padding=1)
        return nn.Sequential(first, nn.LeakyReLU(0.1), last)

    def forward(self, features: Tensor, flows_B4hw: Tensor, correlation: Tensor) -> tuple[Tensor, Tensor]:
        """The corrections, at the size of ``features``."""
        if self.factor > 1:
            features = resize(features, 1 / self.factor)
        seen = F.leaky_relu(self.convc1(correlation), 0.1)
        moved = F.leaky_relu(self.convf2(F.leaky_relu(self.convf1(flows_B4hw), 0.1)), 0.1)
        both = F.leaky_relu(self.conv(torch.cat([seen, moved], 1)), 0.1)
        state = self.gru(torch.cat([both, flows_B4hw, features], 1))
        features, flows = self.feat_head(state), self.flow_head(state)
        if self.factor > 1:
            features, flows = resize(features, self.factor), self.factor * resize(flows, self.factor)
        return features, flows


class AmtSmall(nn.Module):
    """The frame halfway between two. Sides are multiples of 16 and at least 128."""

    def __init__(self) -> None:
        super().__init__()
        c1, c2, c3, c4 = CHANNELS
        self.feat_encoder = _FeatureEncoder()
        self.encoder = _Pyramid()
        self.decoder4 = _Decoder(2 * c4 + 1, 2 * c4, c3 + 4)
        self.decoder3 = _Decoder(3 * c3 + 4, 3 * c3, c2 + 4)
        self.decoder2 = _Decoder(3 * c2 + 4, 3 * c2, c1 + 4)
        self.decoder1 = _Decoder(3 * c1 + 4, 3 * c1, 8 * CANDIDATES)
        self.update4, self.update3, self.update2 = _Update(c3, 1), _Update(c2, 2), _Update(c1, 4)
        self.comb_block = nn.Sequential(
            nn.Conv2d(3 * CANDIDATES, 6 * CANDIDATES, 3, 1, 1),
            nn.PReLU(6 * CANDIDATES),
            nn.Conv2d(6 * CANDIDATES, 3, 3, 1, 1),
        )

    def forward(self, image0_B3HW: Tensor, image1_B3HW: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 from two of the same."""
        mean = torch.cat([image0_B3HW, image1_B3HW], 2).mean((1, 2, 3), keepdim=True)
        image0, image1 = image0_B3HW - mean, image1_B3HW - mean
        correlation = Correlation(*self.feat_encoder(torch.cat([image0, image1])).chunk(2))
        context = list(zip(self.encoder(image0), self.encoder(image1), strict=True))

        time = torch.full_like(context[3][0][:, :1], TIME)
        flows, features = self.decoder4(*context[3], time).tensor_split([4], 1)
        flows, features = self._correct(self.update4, correlation, flows, features)
        for decoder, update, pair in (
            (self.decoder3, self.update3, context[2]),
            (self.decoder2, self.update2, context[1]),
        ):
            change, features = self._decode(decoder, pair, flows, features).tensor_split([4], 1)
            flows, features = self._correct(update, correlation, change + 2 * resize(flows, 2), features)
        last = self._decode(self.decoder1, context[0], flows, features)
        return self._combine(image0, image1, mean, 2 * resize(flows, 2), last).clamp(0, 1)

    @staticmethod
    def _decode(decoder: _Decoder, pair: tuple[Tensor, Tensor], flows: Tensor, features: Tensor) -> Tensor:
        flow0, flow1 = flows.chunk(2, 1)
        return decoder(features, warp(pair[0], flow0), warp(pair[1], flow1), flows)

    @staticmethod
    def _correct(update: _Update, correlation: Correlation, flows: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Looks where the flows, lengthened from time 1/2 to the whole way, lead, and corrects them."""
        small = resize(flows, 1 / update.factor) / update.factor if update.factor > 1 else flows
        height, width = small.shape[-2:]
        rows = torch.arange(height, device=small.device, dtype=small.dtype)
        columns = torch.arange(width, device=small.device, dtype=small.dtype)
        here = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1])
        flow0, flow1 = small.chunk(2, 1)
        found = correlation.lookup(here + flow1 / TIME, here + flow0 / (1 - TIME))
        change, change_of_flows = update(features, small, found)
        return flows + change_of_flows, features + change

    def _combine(self, image0: Tensor, image1: Tensor, mean: Tensor, flows: Tensor, last: Tensor) -> Tensor:
        """Three candidates, each a mix of both warped images and a residual; their mean and a learned correction."""
        batch, _, height, width = image0.shape
        many = (batch, CANDIDATES, -1, height, width)
        sizes = [2 * CANDIDATES, 2 * CANDIDATES, CANDIDATES, 3 * CANDIDATES]
        flow0, flow1, mask, residual = (part.reshape(many) for part in last.split(sizes, 1))
        mask = mask.sigmoid()
        warped = []
        for image, flow, common in zip((image0, image1), (flow0, flow1), flows.chunk(2, 1), strict=True):
            copies = image.repeat_interleave(CANDIDATES, 0)
            warped.append(warp(copies, (flow + common[:, None]).flatten(0, 1)).view(many))
        candidates = mask * warped[0] + (1 - mask) * warped[1] + mean[:, None] + residual
        return candidates.mean(1) + self.comb_block(candidates.flatten(1, 2))
