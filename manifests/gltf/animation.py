"""Animations: reading the channels, and sampling them at many times at once.

Sampling follows the specification and not any importer: rotations by slerp along the shorter arc, CUBICSPLINE by its
tangents, STEP, the first and last value outside the keys. Facts: glTF 2.0 specification, section 3.11 and appendix C.
"""

from __future__ import annotations

import numpy as np

from manifests.errors import Rejected
from manifests.gltf.accessors import Accessors
from manifests.gltf.fields import Fields, shown
from manifests.gltf.nodes import unit_quaternions
from manifests.gltf.scene import Animation, Channel, Mesh, Node

__all__ = ["locate", "read_animation", "sample", "slerp"]

WIDTHS = {"translation": 3, "rotation": 4, "scale": 3}
INTERPOLATIONS = ("LINEAR", "STEP", "CUBICSPLINE")

STEP_SLACK_S = 2e-6
"""Twice the rounding of a time to microseconds; far below any frame."""


def read_animation(
    index: int, fields: Fields, accessors: Accessors, nodes: tuple[Node, ...], meshes: tuple[Mesh, ...], seen: set[int]
) -> Animation:
    """One animation. Channels without a node, of morph weights without targets, or of a pointer are left out.

    Args:
        index: its place in the file.
        fields: its JSON.
        accessors: of the file.
        nodes: all nodes.
        meshes: all meshes, empty where nothing shows them.
        seen: nodes that can move something visible; they alone decide the active interval.

    Raises:
        Rejected: bad-structure (also for decreasing times) or what `Accessors.read` raises.
    """
    samplers = fields.array("samplers")
    channels: dict[tuple[int, str], Channel] = {}
    times_of: dict[int, np.ndarray] = {}
    for source in fields.objects("channels"):
        target = source.required("target")
        node, path = target.index("node", len(nodes), -1), target.text("path", None)
        if path == "weights":
            mesh = nodes[node].mesh if node >= 0 else -1
            width = len(meshes[mesh].weights) if mesh >= 0 else 0
        else:
            width = WIDTHS.get(path, 0)
        if node < 0 or not width or (node, path) in channels:
            continue
        sampler_index = source.index("sampler", len(samplers))
        sampler = Fields(samplers[sampler_index], f"{fields.where}.samplers[{sampler_index}]")
        channels[node, path] = _channel(sampler, accessors, node, path, width, times_of)
    keyed = [channel.times for channel in channels.values() if channel.node in seen]
    return Animation(
        index=index,
        name=fields.text("name"),
        channels=tuple(channels.values()),
        start_s=min((float(times[0]) for times in keyed), default=0.0),
        end_s=max((float(times[-1]) for times in keyed), default=0.0),
    )


def _channel(
    sampler: Fields, accessors: Accessors, node: int, path: str, width: int, times_of: dict[int, np.ndarray]
) -> Channel:
    interpolation = sampler.text("interpolation", "LINEAR")
    if interpolation not in INTERPOLATIONS:
        raise sampler.wrong("interpolation", ", ".join(INTERPOLATIONS))
    key = sampler.index("input", len(accessors))
    if key not in times_of:  # channels share their times; one array for all makes sampling look them up once
        times = accessors.read(sampler, "input", types=("SCALAR",), role="keyframes:times").astype(np.float64)
        if (np.diff(times) < 0).any():
            at = int(np.flatnonzero(np.diff(times) < 0)[0])
            raise Rejected(
                "bad-structure",
                f"{sampler.at('input')}: found key {at + 1} at {times[at + 1]:.6g} s after {times[at]:.6g} s, expected "
                "rising times",
            )
        times_of[key] = times
    times = times_of[key]
    kind = "SCALAR" if path == "weights" else f"VEC{width}"
    values = accessors.read(sampler, "output", types=(kind,), role="keyframes")
    shape = (len(times), 3, width) if interpolation == "CUBICSPLINE" else (len(times), width)
    if values.size != int(np.prod(shape)):
        raise Rejected(
            "bad-structure",
            f"{sampler.at('output')}: found {values.size} numbers for {shown(path)}, expected {int(np.prod(shape))} "
            f"for {len(times)} keys",
        )
    return Channel(node, path, times, values.reshape(shape), interpolation)


def locate(times: np.ndarray, at_s: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where times fall among keys.

    Args:
        times: (K,) seconds, non-decreasing.
        at_s: (F,) seconds, any order; clamped into the keys.

    Returns:
        left key (F,), right key (F,), and the phase between them in 0..1 (F,).
    """
    clamped = np.clip(at_s, times[0], times[-1])
    left = np.clip(np.searchsorted(times, clamped, side="right") - 1, 0, len(times) - 1)
    right = np.minimum(left + 1, len(times) - 1)
    span = times[right] - times[left]
    phase = np.where(span > 0, (clamped - times[left]) / np.where(span > 0, span, 1), 0.0)
    return left, right, phase


def slerp(start: np.ndarray, end: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Unit quaternions (..., 4) between two unit quaternions along the shorter arc; phase (...,) in 0..1."""
    dot = np.sum(start * end, axis=-1, keepdims=True)
    end = np.where(dot < 0, -end, end)
    # The chord keeps its accuracy where the arc cosine of a dot product near 1 loses half its digits.
    half = np.sqrt(np.square(end - start).sum(axis=-1, keepdims=True)) / 2
    angle = 2 * np.arcsin(np.minimum(half, 1.0))
    sine = np.sin(angle)
    small = sine < 1e-9
    safe = np.where(small, 1.0, sine)
    u = phase[..., None]
    near = np.where(small, 1 - u, np.sin((1 - u) * angle) / safe)
    far = np.where(small, u, np.sin(u * angle) / safe)
    return unit_quaternions(near * start + far * end)


def sample(channel: Channel, at_s: np.ndarray) -> np.ndarray:
    """Values (F, D) of a channel at times (F,) in seconds; rotations are unit quaternions xyzw."""
    # A step asked for at a key's time shows that key, though one of the two was rounded (to float32, to microseconds).
    slack_s = STEP_SLACK_S if channel.interpolation == "STEP" else 0.0
    left, right, phase = locate(channel.times, at_s + slack_s)
    if channel.interpolation == "CUBICSPLINE":
        value = _spline(channel, left, right, phase)
        return unit_quaternions(value) if channel.path == "rotation" else value
    start = channel.values[left].astype(np.float64)
    if channel.path == "rotation":
        start = unit_quaternions(start)
    if channel.interpolation == "STEP":
        return start
    end = channel.values[right].astype(np.float64)
    if channel.path == "rotation":
        return slerp(start, unit_quaternions(end), phase)
    return start + (end - start) * phase[:, None]


def _spline(channel: Channel, left: np.ndarray, right: np.ndarray, phase: np.ndarray) -> np.ndarray:
    """Cubic Hermite; the tangents are per second, hence the factor of the key interval (appendix C.5)."""
    span = (channel.times[right] - channel.times[left])[:, None]
    p0, m0 = channel.values[left, 1].astype(np.float64), span * channel.values[left, 2]
    p1, m1 = channel.values[right, 1].astype(np.float64), span * channel.values[right, 0]
    u = phase[:, None]
    u2, u3 = u * u, u * u * u
    return (2 * u3 - 3 * u2 + 1) * p0 + (u3 - 2 * u2 + u) * m0 + (3 * u2 - 2 * u3) * p1 + (u3 - u2) * m1
