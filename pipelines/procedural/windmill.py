"""A windmill whose sails turn by very few keys, and in one animation only after dead lead time.

Keys are 120 degrees apart in the plainest animation.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Motion
from .draw import Draw
from .mesh import (
    box,
    join,
    lathe,
    sphere,
)
from .motion import Pose, ease, wave
from .parts import capsule_z
from .texture import noise, ramp, wood

__all__ = ["windmill"]


def windmill(draw: Draw) -> Assembly:
    """Turn (few keys), Gust (after 1.5 s of dead lead time, does not close), Yaw (7 s)."""
    a, palette = Assembly(unit=12.0), draw.palette()
    blades, tall = draw.integer("blades", 4, 6), draw.uniform("tall", 0.9, 1.15)
    brick = a.material(
        "Plaster",
        texture=ramp([palette.light, palette.light, palette.second], 64, noise(draw, "wall", 64)),
        roughness=0.9,
    )
    roof, planks = (
        a.material("Roof", palette.main, roughness=0.7),
        a.material("Planks", texture=wood(draw, (0.72, 0.53, 0.34), (0.42, 0.27, 0.15)), roughness=0.8),
    )
    cloth, iron = (
        a.material("Sail", draw.choice("sail", (palette.light, palette.accent)), roughness=0.9),
        a.material("Iron", (0.2, 0.2, 0.22), metallic=0.8, roughness=0.5),
    )
    pane = a.material("Window", (1.0, 0.85, 0.45), emissive=(0.9, 0.65, 0.25))
    tower = lathe(
        [
            (0, 0),
            (0.34, 0),
            (0.34, 0.04),
            (0.30, 0.06),
            (0.2, 0.95 * tall),
            (0.23, 0.96 * tall),
            (0.23, tall),
            (0, tall),
        ],
        12,
        25,
    )
    a.node("Windmill")
    a.node(
        "Tower",
        "Windmill",
        parts=[
            (tower, brick),
            (join(box(0.13, 0.22, 0.06, 0.012).moved(0, 0.15, 0.29)), planks),
            (
                join(
                    *(
                        box(0.07, 0.09, 0.05, 0.01).moved(x, y * tall, z)
                        for x, y, z in (
                            (0, 0.52, 0.245),
                            (0.0, 0.76, 0.22),
                        )
                    )
                ),
                pane,
            ),
        ],
    )
    a.node(
        "Cap",
        "Windmill",
        (0, tall, 0),
        parts=[
            (lathe([(0, 0), (0.24, 0), (0.25, 0.03), (0.2, 0.15), (0.1, 0.24), (0, 0.27)], 20, 50), roof),
            (capsule_z(0.03, -0.36, 0.0).moved(0, 0.1, 0), planks),
        ],
    )
    a.node("Vane", "Cap", (0, 0.1, -0.4), parts=[(box(0.015, 0.16, 0.14, 0.004), cloth)])
    a.node(
        "Rotor",
        "Cap",
        (0, 0.11, 0.2),
        turn=(-6, 0, 0),
        parts=[(join(capsule_z(0.03, -0.02, 0.12), sphere(0.06, 14).moved(0, 0, 0.1)), iron)],
    )
    long = 0.72 * tall
    bars = [box(0.15, 0.012, 0.012).moved(0.055, y, 0) for y in np.linspace(0.18, 0.98, 8) * long]
    for k in range(blades):
        arm = box(0.028, long, 0.025, 0.006).moved(0, long / 2, 0)
        sheet = box(0.125, 0.8 * long, 0.008).moved(0.075, 0.58 * long, -0.012)
        a.node(
            f"Blade{k}",
            "Rotor",
            (0, 0, 0.1),
            turn=(0, 0, 360 * k / blades),
            parts=[(join(arm, *bars), planks), (sheet.turned(yaw_deg=10), cloth)],
        )

    def gust(p: float) -> Pose:
        speed = 3.2 * p**2.2
        return {
            "Rotor": (0, 0, -360 * speed),
            "Cap": (2 * wave(p, 3) * p, 14 * ease(p), 0),
            "Vane": (0, 30 * wave(p, 4) * p, 0),
        }

    def yaw(p: float) -> Pose:
        return {"Cap": (0, 75 * wave(p), 0), "Vane": (0, 20 * wave(p, 1, 0.2), 0)}

    turn_s = round(draw.uniform("turn", 2.2, 3.4), 2)
    a.animate("Turn", Motion(pose=lambda p: {"Rotor": (0, 0, -360 * p)}, duration_s=turn_s, keys=4), loops=True)
    a.animate("Gust", Motion(pose=gust, duration_s=3.4, keys=55, start_s=1.5))
    a.animate(
        "Yaw",
        Motion(pose=yaw, duration_s=7.0, keys=43),
        Motion(pose=lambda p: {"Rotor": (0, 0, -360 * p)}, duration_s=7.0, keys=29),
        loops=True,
    )
    return a
