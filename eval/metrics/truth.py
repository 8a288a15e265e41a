"""PSNR and SSIM to a ground-truth clip, where one exists (renders of our own dataset).

Both are computed a frame, on the protocol's background, at full size and in float64, and averaged over frames.
"""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import gaussian_filter

from eval.cards import Card
from eval.extractor import Clip
from eval.metric import Metric, NotScored, Score, Subject

__all__ = ["METRICS", "psnr", "ssim"]

EXACT = 100.0
"""What a frame without any error counts as, in dB; infinity would swallow the mean."""
_RADIUS = 5
_C1, _C2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2


def psnr(image: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, at most 100.

    Args:
        image, truth: (height, width, 3) uint8.
    """
    error = float(np.mean((image.astype(np.float64) - truth) ** 2))
    return EXACT if error == 0 else min(EXACT, 10 * math.log10(255.0**2 / error))


def ssim(image: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity, mean over channels and over the positions whose window lies inside the image.

    Args:
        image, truth: (height, width, 3) uint8, at least 11 pixels a side.

    Returns:
        a value in [-1, 1]; 1 for equal images.

    Source: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 2004, equation 13: Gaussian window 11x11, sigma 1.5, K1 0.01,
    K2 0.03, dynamic range 255, variances weighted by the window (not sample variances); a colour channel at a time.
    """
    height, width = (side - 2 * _RADIUS for side in image.shape[:2])
    rows, columns = (np.flatnonzero((image != truth).any(axis=(1 - axis, 2))) for axis in (0, 1))
    if not len(rows):
        return 1.0
    # Windows that hold equal pixels give exactly 1, so only those that reach a difference are computed.
    reach = 2 * _RADIUS
    part = tuple(slice(max(0, found[0] - reach), found[-1] + 1 + reach) for found in (rows, columns))
    values = _similarities(image[part], truth[part])
    return float(1 - (1 - values).sum() / (3 * height * width))


def _similarities(image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(3, height - 10, width - 10) values of the windows inside an image."""
    x, y = (np.moveaxis(pixels, -1, 0).astype(np.float64, order="C") for pixels in (image, truth))
    mean_x, mean_y = _window(x), _window(y)
    product, energy = mean_x * mean_y, mean_x**2 + mean_y**2
    covariance = _window(x * y) - product
    variances = _window(x * x + y * y) - energy
    values = (2 * product + _C1) * (2 * covariance + _C2) / ((energy + _C1) * (variances + _C2))
    return values[:, _RADIUS:-_RADIUS, _RADIUS:-_RADIUS]


def _window(channels: np.ndarray) -> np.ndarray:
    return gaussian_filter(channels, sigma=(0, 1.5, 1.5), radius=(0, _RADIUS, _RADIUS))


def _truth(clip: Clip) -> np.ndarray:
    if clip.truth is None:
        raise NotScored("found no ground-truth clip of this view, expected one; only our own dataset brings it")
    if clip.truth.shape != clip.frames.shape:
        raise NotScored(
            f"found {clip.frames.shape} against a truth of {clip.truth.shape} (frame, height, width, channel), expected"
            " the same; make the video with the truth's frames and size"
        )
    return clip.truth


def _mean(subject: Subject, measure) -> Score:
    pairs = zip(subject.clip.frames, _truth(subject.clip), strict=True)
    frames = np.array([measure(image, truth) for image, truth in pairs])
    return Score(value=float(frames.mean()), frames=frames)


def _psnr(subject: Subject) -> Score:
    return _mean(subject, psnr)


def _ssim(subject: Subject) -> Score:
    if min(subject.clip.size) < 2 * _RADIUS + 1:
        height, width = subject.clip.size
        raise NotScored(f"found frames of {width}x{height}, expected at least 11x11, the window of SSIM")
    return _mean(subject, ssim)


_BOTH = ("A motion that is as good as the truth's but another one scores low, often below a frozen copy.",)

METRICS: tuple[Metric, ...] = (
    Metric(
        card=Card(
            id="psnr",
            version="truth",
            title="PSNR",
            formula="mean_t min(100, 10 log10(255^2 / MSE(I_t, G_t))); MSE over pixels and channels of frame t",
            preprocess="none; 8-bit RGB on the protocol's background at full size",
            backbone="none",
            high=EXACT,
            higher_is_better=True,
            decimals=2,
            needs=("truth",),
            source="definition of PSNR at 8 bits; averaged over frames in dB",
            failure_modes=(*_BOTH, "Empty background raises it: small objects score higher."),
        ),
        score=_psnr,
    ),
    Metric(
        card=Card(
            id="ssim",
            version="truth",
            title="SSIM",
            formula="mean_t mean_channels mean_windows SSIM(I_t, G_t); Gaussian window 11x11, sigma 1.5, K 0.01 and"
            " 0.03, L 255",
            preprocess="none; 8-bit RGB on the protocol's background at full size; windows wholly inside the image",
            backbone="none",
            low=-1.0,
            high=1.0,
            higher_is_better=True,
            needs=("truth",),
            source="Wang, Bovik, Sheikh, Simoncelli: Image quality assessment, IEEE TIP 13(4), 2004, equation 13",
            failure_modes=(*_BOTH, "Flat background counts as perfect structure: small objects score higher."),
        ),
        score=_ssim,
    ),
)
