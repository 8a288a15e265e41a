"""A flower in a pot that opens by morph targets and sways by nodes.

Petals go from bud over half open to open, because a straight line from bud to open would shrink them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .assembly import Assembly, Motion
from .draw import Draw, linear
from .mesh import (
    Mesh,
    beside,
    join,
    lathe,
    loft,
    rotation_matrix,
    smooth_curve,
    sphere,
    tube,
)
from .motion import Pose, ease, pulse, track, wave
from .texture import noise, ramp

__all__ = ["flower"]


def _petal(length: float, width: float, closed: float, cup: float) -> np.ndarray:
    """(K, M, 3) rings of a petal at rest along +y, its inside towards +z; closed 1 stands, 0 lies outwards (-z)."""
    s = np.linspace(0, 1, 13)
    half = width * np.sqrt(np.clip(np.sin(np.pi * (0.06 + 0.94 * s) ** 0.85), 0, 1)) * (0.35 + 0.65 * s**0.7)
    half[-1] = 0.02 * width
    angle = np.radians(np.interp(s, [0, 0.3, 1], [70 * closed, 85 * closed + 5, 100 * closed - 12 * (1 - closed)]))
    step = length / 12
    z = -np.concatenate([[0], np.cumsum(np.cos(angle[1:]) * step)])
    y = np.concatenate([[0], np.cumsum(np.sin(angle[1:]) * step)])
    u = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    thick = 0.02 * length * (1 - 0.7 * s)
    rings = []
    for k in range(13):
        up = np.array([0, np.cos(angle[k]), np.sin(angle[k])])
        across = half[k] * np.cos(u)
        lift = thick[k] * np.sin(u) + cup * half[k] * (np.cos(u) ** 2 - 0.4)
        rings.append(np.array([0, y[k], z[k]]) + across[:, None] * np.array([1.0, 0, 0]) + lift[:, None] * up)
    return np.array(rings)


def flower(draw: Draw) -> Assembly:
    """Bloom (5 s), Sway, Breathe with CUBICSPLINE weights and an unnamed quick shiver."""
    a, palette = Assembly(unit=1.0), draw.palette()
    petals, length = draw.integer("petals", 6, 11), draw.uniform("length", 0.45, 0.62)
    width = 0.9 * np.pi * length / petals
    color, tip = draw.choice(
        "color", ((palette.main, palette.light), (palette.accent, palette.main), (palette.light, palette.accent))
    )
    shapes = [[], [], []]
    meshes = []
    for layer, (n, size) in enumerate(((petals, 1.0), (petals, 0.72))):
        for k in range(n):
            turn = rotation_matrix(0, 360 * (k + 0.5 * layer) / n, 0)
            states = []
            for closed, cup in ((0.5, 0.32), (1.0, 0.75), (0.06 + 0.2 * layer, 0.22)):
                rings = beside(_petal(length * size, width * size, closed, cup), 0, 0.02 * layer, -0.08)
                states.append(rings @ turn.T)
            half = loft(states[0], crease_deg=85)
            meshes.append(half)
            for shape, rings in zip(shapes, states, strict=True):
                shape.append(_follow(half, states[0], rings))
    bloom = join(*meshes)
    bud, opened = (np.concatenate(shapes[k]) - np.concatenate(shapes[0]) for k in (1, 2))
    v = bloom.uvs[:, 1:2]
    bloom = replace(bloom, colors=linear(color) + v**1.5 * (linear(tip) - linear(color)))
    stem_line = smooth_curve([(0, -1.1, 0), (0.05, -0.7, 0.02), (-0.03, -0.3, 0), (0, 0.02, 0)], 16)
    green, pollen = (
        a.material("Stem", (0.33, 0.52, 0.24), roughness=0.7),
        a.material("Pollen", palette.second, roughness=0.9),
    )
    leaf_skin = a.material(
        "Leaf", texture=ramp([(0.22, 0.45, 0.2), (0.5, 0.7, 0.3)], 64, noise(draw, "leaf", 64)), roughness=0.6
    )
    a.node("Flower")
    a.node(
        "Pot",
        "Flower",
        (0, -1.1, 0),
        parts=[
            (
                lathe(
                    [
                        (0, -0.34),
                        (0.2, -0.34),
                        (0.29, -0.06),
                        (0.33, -0.06),
                        (0.33, 0.03),
                        (0.27, 0.03),
                        (0.26, -0.03),
                        (0, -0.02),
                    ],
                    28,
                ),
                a.material("Pot", palette.dark, roughness=0.8),
            )
        ],
    )
    a.node(
        "Stem",
        "Flower",
        (0, -1.1, 0),
        parts=[(tube(stem_line, np.full(16, 0.035), segments=10, up=(0, 0, 1)).moved(0, 1.1, 0), green)],
    )
    a.node("Head", "Stem", (0, 1.1, 0))
    a.node("Petals", "Head", parts=[(bloom, a.material("Petal", roughness=0.5), [bud, opened])], weights=[0, 0])
    heart = lathe([(0, -0.05), (0.07, -0.03), (0.11, 0.02), (0.09, 0.065), (0, 0.085)], 20, 80)
    seeds = [
        sphere(0.02, 6).moved(
            0.085 * np.sqrt(k / 30) * np.cos(2.4 * k), 0.075 - 0.04 * k / 30, 0.085 * np.sqrt(k / 30) * np.sin(2.4 * k)
        )
        for k in range(30)
    ]
    a.node("Heart", "Head", parts=[(join(heart, *seeds), pollen)])
    for k, (y, yaw) in enumerate(((0.35, 40), (0.55, 215))):
        leaf = loft(_petal(0.42, 0.11, 0.35, 0.3), crease_deg=85)
        a.node(f"Leaf{k}", "Stem", (0, y, 0), turn=(0, yaw, 0), parts=[(leaf, leaf_skin)])

    def swing(p: float, size: float, cycles: float = 1.0) -> Pose:
        return {
            "Stem": (size * 3 * wave(p, cycles, 0.2), 0, size * 7 * wave(p, cycles)),
            "Head": (size * 4 * wave(p, cycles, 0.35), 0, size * 9 * wave(p, cycles, 0.12)),
            "Leaf0": (size * 8 * wave(p, cycles, 0.2), 0, 0),
            "Leaf1": (size * 8 * wave(p, cycles, 0.4), 0, 0),
        }

    def bloom_pose(p: float) -> Pose:
        o = ease(p, 0.1, 0.95)
        pose = swing(p, 0.5, 2)
        nod = 28 * (1 - ease(p, 0, 0.6))
        return pose | {
            "Petals.w": (track(p, (0, 1), (0.5, 0), (1, 0)), track(p, (0, 0), (0.45, 0), (1, 1))),
            "Petals": (0, 40 * o, 0),
            "Head": (nod, 0, pose["Head"][2]),
            "Heart.s": (0.5 + 0.5 * o,) * 3,
        }

    def breathe(p: float) -> Pose:
        return {"Petals.w": (0.35 * pulse(p), 0.5 + 0.5 * wave(p, 1, 0.25)), "Heart.s": (1 + 0.15 * pulse(p),) * 3}

    def shiver(p: float) -> Pose:
        fade = np.sin(np.pi * p)
        return swing(p, 0.8 * fade, 5) | {"Petals.w": (0.12 * fade * pulse(p, 5), 0.75)}

    opened_still = Motion(pose=lambda p: {"Petals.w": (0, 0.8)}, duration_s=2.5, keys=2)
    a.animate("Bloom", Motion(pose=bloom_pose, duration_s=5.0, keys=61))
    a.animate("Sway", Motion(pose=lambda p: swing(p, 1.0), duration_s=2.5, keys=26), opened_still, loops=True)
    a.animate("Breathe", Motion(pose=breathe, duration_s=3.0, keys=7, interpolation="CUBICSPLINE"), loops=True)
    a.animate(None, Motion(pose=shiver, duration_s=1.1, keys=41), loops=True)
    return a


def _follow(mesh: Mesh, rings: np.ndarray, moved: np.ndarray) -> np.ndarray:
    """Positions of the mesh made of `rings` when these move (equal shapes): found by the nearest ring point."""
    flat, to = rings.reshape(-1, 3), moved.reshape(-1, 3)
    caps = np.stack([rings[0].mean(0), rings[-1].mean(0)])
    source = np.concatenate([flat, caps])
    target = np.concatenate([to, [moved[0].mean(0), moved[-1].mean(0)]])
    nearest = np.argmin(np.linalg.norm(mesh.positions[:, None] - source[None], axis=-1), axis=1)
    return target[nearest]
