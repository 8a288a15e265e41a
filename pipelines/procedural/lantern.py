"""A lantern on a post with an emissive flame and moths about it.

It swings by CUBICSPLINE keys while the flame has many LINEAR ones; one animation has no name.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Motion
from .draw import Draw
from .mesh import (
    box,
    cylinder,
    join,
    lathe,
    sphere,
    torus,
    tube,
)
from .motion import Pose, ease, wave
from .texture import wood

__all__ = ["lantern"]


def lantern(draw: Draw) -> Assembly:
    """Swing (CUBICSPLINE), Flicker, and an unnamed slow turn; iron, glowing panes, a flame of three tongues."""
    a, palette = Assembly(unit=0.02), draw.palette()
    sides = draw.integer("sides", 4, 8)
    glow = draw.choice("glow", ((1.0, 0.62, 0.2), (1.0, 0.5, 0.25), (0.5, 0.8, 1.0)))
    iron, post = (
        a.material("Iron", (0.16, 0.16, 0.18), metallic=0.9, roughness=0.45),
        a.material("Post", texture=wood(draw, (0.5, 0.36, 0.24), (0.25, 0.16, 0.1)), roughness=0.8),
    )
    paper = a.material(
        "Pane", tuple(0.9 * c for c in palette.accent), roughness=0.6, emissive=tuple(0.45 * c for c in palette.accent)
    )
    fire, core = (
        a.material("Flame", glow, emissive=glow),
        a.material("Flame core", (1, 1, 0.9), emissive=(1, 0.95, 0.8)),
    )
    a.node("Lamp post")
    a.node(
        "Post",
        "Lamp post",
        parts=[(join(cylinder(0.32, 0.08, bevel=0.03), cylinder(0.055, 2.5, bevel=0.02, segments=12)), post)],
    )
    bracket = tube(
        [(0, 2.3, 0), (0.3, 2.46, 0), (0.62, 2.46, 0), (0.8, 2.36, 0)],
        [0.035, 0.03, 0.03, 0.02],
        segments=10,
        up=(0, 0, 1),
    )
    a.node(
        "Bracket",
        "Lamp post",
        parts=[(bracket, iron), (torus(0.05, 0.014, 18, 8).turned(pitch_deg=90).moved(0.8, 2.3, 0), iron)],
    )
    a.node("Hanger", "Lamp post", (0.8, 2.28, 0), parts=[(cylinder(0.012, 0.3, segments=8).moved(0, -0.3, 0), iron)])
    a.node("Lantern", "Hanger", (0, -0.3, 0))
    r, high = 0.34, draw.uniform("high", 0.6, 0.85)
    roof = lathe(
        [(0, -0.02), (1.2 * r, -0.02), (1.2 * r, 0.02), (0.55 * r, 0.16), (0.2 * r, 0.22), (0, 0.22)], sides, 20
    )
    base = lathe([(0, -0.06), (1.05 * r, -0.06), (1.05 * r, 0.0), (0, 0.0)], sides, 20)
    a.node(
        "Cage",
        "Lantern",
        (0, -0.24, 0),
        parts=[
            (roof, iron),
            (base.moved(0, -high, 0), iron),
            (
                join(
                    *(
                        cylinder(0.022, high, segments=8).moved(0.95 * r * np.sin(t), -high, 0.95 * r * np.cos(t))
                        for t in 2 * np.pi * np.arange(sides) / sides
                    )
                ),
                iron,
            ),
        ],
    )
    half = np.pi / sides
    panes = [
        box(1.5 * r * np.sin(half), 0.34 * high, 0.012)
        .moved(0, 0, 0.92 * r * np.cos(half))
        .turned(yaw_deg=360 * (k + 0.5) / sides)
        .moved(0, -0.2 * high, 0)
        for k in range(sides)
    ]
    a.node("Panes", "Cage", parts=[(join(*panes), paper)])
    flame = lathe([(0, 0), (0.06, 0.03), (0.085, 0.09), (0.06, 0.18), (0.025, 0.27), (0, 0.33)], 16, 80)
    a.node(
        "Wick",
        "Cage",
        (0, -high, 0),
        parts=[(cylinder(0.09, 0.18, bevel=0.02, segments=18), a.material("Wax", palette.light, roughness=0.5))],
    )
    for k in range(3):
        a.node(
            f"Flame{k}",
            "Wick",
            (0.03 * (k - 1), 0.17, 0.02 * (k % 2)),
            scale=(1 - 0.2 * (k != 1),) * 3,
            parts=[(flame, core if k == 1 else fire)],
        )
    moths = draw.integer("moths", 1, 3)
    for k in range(moths):
        wing = box(0.09, 0.004, 0.06).moved(0.045, 0, 0)
        a.node(f"Orbit{k}", "Lantern", (0, -0.3 - 0.15 * k, 0), turn=(0, 120 * k, 0))
        a.node(
            f"Moth{k}",
            f"Orbit{k}",
            (0.62 + 0.1 * k, 0, 0),
            parts=[(sphere(0.022, 8).scaled(1, 1, 1.8), a.material(f"Moth {k}", palette.second))],
        )
        for s, x in (("L", 1), ("R", -1)):
            a.node(
                f"Moth{k}{s}",
                f"Moth{k}",
                parts=[(wing.scaled(x, 1, 1), a.material(f"Moth wing {k}{s}", palette.light))],
            )

    def flames(p: float, cycles: int) -> Pose:
        pose: Pose = {}
        for k in range(3):
            f = 0.5 * wave(p, cycles + 2 * k, 0.3 * k) + 0.5 * wave(p, 2 * cycles + 1, 0.17 * k)
            pose[f"Flame{k}.s"] = (1 - 0.12 * f, 1 + 0.3 * f, 1 - 0.12 * f)
            pose[f"Flame{k}"] = (10 * wave(p, cycles, 0.2 * k), 0, 9 * wave(p, cycles + 1, 0.3 * k))
        return pose

    def moth(p: float, rounds: int, beats: int) -> Pose:
        pose: Pose = {}
        for k in range(moths):
            pose[f"Orbit{k}"] = (12 * wave(p, rounds), -360 * rounds * p * (1 if k % 2 else -1), 0)
            for s, x in (("L", 1), ("R", -1)):
                pose[f"Moth{k}{s}"] = (0, 0, x * 60 * wave(p, beats, 0.1 * k))
        return pose

    def swing(p: float) -> Pose:
        return {
            "Hanger": (7 * wave(p, 2, 0.1), 0, 17 * wave(p, 2)),
            "Lantern": (3 * wave(p, 2, 0.3), 0, 7 * wave(p, 2, 0.15)),
        }

    a.animate(
        "Swing",
        Motion(pose=swing, duration_s=3.6, keys=17, interpolation="CUBICSPLINE"),
        Motion(pose=lambda p: flames(p, 7) | moth(p, 1, 18), duration_s=3.6, keys=145),
        loops=True,
    )
    a.animate("Flicker", Motion(pose=lambda p: flames(p, 4) | moth(p, 1, 9), duration_s=1.8, keys=73), loops=True)
    a.animate(
        None,
        Motion(pose=lambda p: {"Lantern": (0, 360 * ease(p), 0)}, duration_s=5.2, keys=27),
        Motion(pose=lambda p: moth(p, 2, 26), duration_s=5.2, keys=209),
        loops=True,
    )
    return a
