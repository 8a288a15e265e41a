"""Curves and small kinematics from which the animations are made.

A motion is a function of the phase p in 0..1 that gives a pose: a dict from "NODE" to (pitch, yaw, roll) in degrees,
from "NODE.t" to a shift, from "NODE.s" to a scale and from "NODE.w" to morph weights; `assembly` samples it into keys.
Quaternions here are xyzw, as glTF stores them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

__all__ = [
    "Pose",
    "aim_leg",
    "bump",
    "ease",
    "footfall",
    "pulse",
    "quat_multiply",
    "quat_xyzw",
    "saw",
    "track",
    "wave",
]

Pose = dict[str, Sequence[float]]


def wave(p: float, cycles: float = 1.0, shift: float = 0.0) -> float:
    """Sine in -1..1; `shift` in cycles."""
    return math.sin(2 * math.pi * (p * cycles - shift))


def pulse(p: float, cycles: float = 1.0, shift: float = 0.0) -> float:
    """Raised cosine in 0..1, 0 at p = 0."""
    return 0.5 - 0.5 * math.cos(2 * math.pi * (p * cycles - shift))


def saw(p: float, cycles: float = 1.0) -> float:
    """Phase inside the current cycle, 0..1; at the very end 1, not 0."""
    x = p * cycles
    return x - math.floor(x) if p < 1 else x - math.ceil(x) + 1


def ease(p: float, start: float = 0.0, end: float = 1.0) -> float:
    """0 before `start`, 1 after `end`, a smooth step between."""
    x = min(max((p - start) / (end - start), 0.0), 1.0)
    return x * x * x * (x * (6 * x - 15) + 10)


def bump(p: float, start: float, end: float) -> float:
    """0 outside start..end, 1 in the middle, smooth."""
    x = min(max((p - start) / (end - start), 0.0), 1.0)
    return math.sin(math.pi * x) ** 2


def track(p: float, *keys: tuple[float, float]) -> float:
    """Value at p of (phase, value) keys, eased between each two."""
    for (p0, v0), (p1, v1) in pairwise(keys):
        if p <= p1:
            return v0 + (v1 - v0) * ease(p, p0, p1)
    return keys[-1][1]


def footfall(p: float, stride: float, lift: float, duty: float) -> tuple[float, float]:
    """(z, y) of a foot relative to its resting place: on the ground for `duty` of a cycle, then swung forwards."""
    p %= 1.0
    if p < duty:
        return stride * (0.5 - p / duty), 0.0
    s = (p - duty) / (1 - duty)
    return stride * (-0.5 + ease(s)), lift * math.sin(math.pi * s) ** 1.3


def aim_leg(
    rest: tuple[np.ndarray, np.ndarray, np.ndarray], hip: np.ndarray, ankle: np.ndarray, *, knee_forward: bool
) -> tuple[float, float]:
    """Pitch changes in degrees of a thigh and a shank so that the ankle reaches its target; in the yz plane.

    Args:
        rest: (3,) positions of hip, knee and ankle at rest.
        hip, ankle: (3,) where they are to be.
        knee_forward: bends towards +z, else towards -z.

    Returns:
        Thigh relative to the body's frame, shank relative to the thigh. Out of reach: the leg is stretched.
    """
    upper, lower = rest[1] - rest[0], rest[2] - rest[1]
    a, b = math.hypot(upper[1], upper[2]), math.hypot(lower[1], lower[2])
    dy, dz = ankle[1] - hip[1], ankle[2] - hip[2]
    reach = min(max(math.hypot(dy, dz), abs(a - b) + 1e-4), (a + b) * 0.9995)
    line = math.atan2(-dz, -dy)
    inner = math.acos(min(max((a * a + reach * reach - b * b) / (2 * a * reach), -1), 1))
    outer = math.acos(min(max((b * b + reach * reach - a * a) / (2 * b * reach), -1), 1))
    sign = -1 if knee_forward else 1
    thigh, shank = line + sign * inner, line - sign * outer
    thigh -= math.atan2(-upper[2], -upper[1])
    shank -= math.atan2(-lower[2], -lower[1])
    wrap = lambda x: (x + math.pi) % (2 * math.pi) - math.pi  # noqa: E731
    return math.degrees(wrap(thigh)), math.degrees(wrap(shank - thigh))


def quat_xyzw(euler_deg: np.ndarray) -> np.ndarray:
    """(..., 4) of (..., 3) pitch, yaw, roll in degrees: roll about z first, then pitch about x, then yaw about y."""
    half = np.radians(np.asarray(euler_deg, dtype=np.float64)) / 2
    s, c, zero = np.sin(half), np.cos(half), np.zeros(half.shape[:-1])
    x = np.stack([s[..., 0], zero, zero, c[..., 0]], -1)
    y = np.stack([zero, s[..., 1], zero, c[..., 1]], -1)
    z = np.stack([zero, zero, s[..., 2], c[..., 2]], -1)
    return quat_multiply(y, quat_multiply(x, z))


def quat_multiply(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(..., 4) xyzw product: the turn b, then the turn a."""
    av, aw, bv, bw = a[..., :3], a[..., 3:], b[..., :3], b[..., 3:]
    vector = aw * bv + bw * av + np.cross(av, bv)
    return np.concatenate([vector, aw * bw - np.sum(av * bv, -1, keepdims=True)], -1)
