"""A potted plant that grows for ten seconds, the slowest of the families.

Stems are a chain of nodes, leaves unfold by scale; nothing is skinned.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Motion
from .draw import Draw
from .mesh import (
    Mesh,
    join,
    lathe,
    loft,
    sphere,
    tube,
)
from .motion import Pose, ease, track, wave
from .texture import noise, ramp, stripes

__all__ = ["plant"]


def _leaf(length: float, width: float) -> Mesh:
    """A thin leaf along +z from the origin, arched; its upper side faces +y."""
    s = np.linspace(0, 1, 12)
    half = width * np.sin(np.pi * (0.04 + 0.96 * s)) ** 0.8 + 0.004
    u = np.linspace(0, 2 * np.pi, 10, endpoint=False)
    rings = [
        np.stack(
            [
                h * np.cos(u),
                0.010 * np.sin(u) + 0.28 * h * np.cos(u) ** 2 + 0.35 * length * t * (1 - 1.25 * t),
                np.full(10, length * t),
            ],
            -1,
        )
        for t, h in zip(s, half, strict=True)
    ]
    return loft(np.array(rings), crease_deg=85)


def plant(draw: Draw) -> Assembly:
    """Grow (10 s), Sway (6 s) and Thirst; a pot with a stem of segments and leaves that unfold by scale."""
    a, palette = Assembly(unit=40.0), draw.palette()
    segments, leaves_per = draw.integer("segments", 6, 8), 2
    step, curl = 0.22, draw.uniform("curl", -7, 7)
    clay = a.material("Clay", texture=stripes(palette.second, palette.dark, 4, share=0.3), roughness=0.85)
    soil = a.material("Soil", (0.23, 0.15, 0.1), roughness=1.0)
    green = a.material("Stem", (0.36, 0.5, 0.22), roughness=0.7)
    leaf_skin = a.material(
        "Leaf",
        texture=ramp([(0.18, 0.4, 0.2), (0.42, 0.65, 0.28), (0.7, 0.8, 0.4)], 64, noise(draw, "leaf", 64)),
        roughness=0.55,
    )
    petal = a.material("Blossom", palette.accent, roughness=0.5)
    a.node("Plant")
    a.node(
        "Pot",
        "Plant",
        parts=[
            (
                lathe(
                    [
                        (0, -0.5),
                        (0.3, -0.5),
                        (0.36, -0.44),
                        (0.45, -0.08),
                        (0.5, -0.08),
                        (0.5, 0.02),
                        (0.42, 0.02),
                        (0.4, -0.05),
                        (0, -0.05),
                    ],
                    32,
                ),
                clay,
            ),
            (lathe([(0, -0.10), (0.4, -0.08), (0.38, -0.03), (0.2, 0.0), (0, 0.01)], 24, 80), soil),
        ],
    )
    above = "Plant"
    for k in range(segments):
        r = 0.045 * (1 - 0.08 * k)
        mesh = tube(np.linspace([0, 0, 0], [0, step, 0], 4), np.linspace(r, 0.93 * r, 4), segments=10, up=(0, 0, 1))
        above = a.node(
            f"Stem{k}", above, (0, 0 if k == 0 else step, 0), turn=(3 * (-1) ** k, 0, curl), parts=[(mesh, green)]
        )
        if k:
            size = 0.62 - 0.05 * k
            for n in range(leaves_per):
                a.node(
                    f"Leaf{k}{n}",
                    above,
                    (0, 0.6 * step, 0),
                    turn=(-18, 137.5 * k + 180 * n, 0),
                    parts=[(_leaf(size, 0.3 * size), leaf_skin)],
                )
    petals = [_leaf(0.26, 0.09).turned(-25, 60 * k, 0) for k in range(6)]
    a.node(
        "Blossom",
        above,
        (0, step, 0),
        parts=[
            (join(*petals), petal),
            (sphere(0.07, 12).scaled(1, 0.7, 1), a.material("Pollen", palette.light, roughness=0.9)),
        ],
    )

    def grow(p: float) -> Pose:
        pose: Pose = {}
        for k in range(segments):
            s = 0.12 + 0.88 * ease(p, 0.09 * k - 0.15, 0.09 * k + 0.35)
            pose[f"Stem{k}.s"] = (s, s, s) if k == 0 else (1, s, 1)
            pose[f"Stem{k}"] = (4 * wave(p, 3, 0.1 * k) * p, 70 * (1 - p) / segments, 3 * wave(p, 2, 0.12 * k))
            for n in range(leaves_per * (k > 0)):
                o = ease(p, 0.08 * k + 0.1, 0.08 * k + 0.5)
                pose[f"Leaf{k}{n}.s"] = (0.06 + 0.94 * o,) * 3
                pose[f"Leaf{k}{n}"] = (-55 * (1 - o) + 4 * wave(p, 4, 0.2 * n), 0, 0)
        pose["Blossom.s"] = (0.05 + 0.95 * ease(p, 0.72, 1.0),) * 3
        return pose

    def sway(p: float) -> Pose:
        pose: Pose = {
            f"Stem{k}": (2.2 * wave(p, 1, 0.25 + 0.05 * k), 0, 3.2 * wave(p, 2, 0.06 * k)) for k in range(segments)
        }
        pose |= {
            f"Leaf{k}{n}": (9 * wave(p, 3, 0.13 * k + 0.4 * n), 0, 5 * wave(p, 2, 0.3 * n))
            for k in range(1, segments)
            for n in range(leaves_per)
        }
        return pose | {"Blossom": (6 * wave(p, 2), 20 * wave(p), 0)}

    def thirst(p: float) -> Pose:
        down = track(p, (0, 0), (0.55, 1), (0.7, 1), (1, 0))
        pose: Pose = {f"Stem{k}": (9 * down * (k > 1), 0, 0) for k in range(segments)}
        pose |= {f"Leaf{k}{n}": (48 * down, 0, 0) for k in range(1, segments) for n in range(leaves_per)}
        return pose | {"Blossom.s": (1 - 0.4 * down,) * 3, "Blossom": (30 * down, 0, 0)}

    a.animate("Grow", Motion(pose=grow, duration_s=10.0, keys=81))
    a.animate("Sway", Motion(pose=sway, duration_s=6.0, keys=61), loops=True)
    a.animate("Thirst", Motion(pose=thirst, duration_s=7.5, keys=46), loops=True)
    return a
