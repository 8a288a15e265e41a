"""An orrery: textured planets on brass arms about a glowing sun, each at its own speed.

Node turns only; the longest loop lasts ten seconds.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Motion
from .draw import Draw
from .mesh import (
    cylinder,
    gear_outline,
    join,
    lathe,
    ring,
    sphere,
    tube,
)
from .motion import Pose, bump, ease, pulse, saw, wave
from .parts import ring_x
from .texture import dots, noise, ramp, stripes, wood

__all__ = ["orrery"]


def orrery(draw: Draw) -> Assembly:
    """Orbit (10 s, each at its speed), Conjunction (2.4 s, does not close) and Tour (6.4 s)."""
    a, palette = Assembly(unit=30.0), draw.palette()
    brass = a.material("Brass", (0.9, 0.7, 0.32), metallic=1.0, roughness=0.22)
    sun = a.material("Sun", (1.0, 0.8, 0.3), emissive=(1.0, 0.72, 0.25))
    stand = a.material("Walnut", texture=wood(draw, (0.45, 0.28, 0.18), (0.2, 0.11, 0.07)), roughness=0.5)
    a.node("Orrery")
    a.node(
        "Stand",
        "Orrery",
        parts=[
            (
                lathe(
                    [(0, 0), (0.5, 0), (0.5, 0.05), (0.4, 0.09), (0.16, 0.14), (0.1, 0.3), (0.14, 0.36), (0, 0.38)], 32
                ),
                stand,
            ),
            (cylinder(0.035, 0.62, segments=14).moved(0, 0.3, 0), brass),
        ],
    )
    a.node("Sun", "Orrery", (0, 1.05, 0), parts=[(sphere(0.2, 24), sun)])
    count = draw.integer("planets", 3, 5)
    gear_r = [0.34 - 0.045 * k for k in range(count)]
    speeds = [6, 4, 3, 2, 1][:count]
    for k in range(count):
        distance, size = 0.42 + 0.25 * k, draw.uniform(f"size{k}", 0.075, 0.135)
        color = (palette.main, palette.second, palette.accent, palette.light, palette.dark)[k]
        other = (palette.light, palette.dark, palette.second, palette.main, palette.accent)[k]
        style = draw.choice(f"style{k}", ("bands", "spots", "cloud"))
        image = {
            "bands": lambda c=color, o=other: stripes(c, o, 4),
            "spots": lambda c=color, o=other: dots(c, o, 6, 5),
            "cloud": lambda c=color, o=other, n=k: ramp([c, o, c], 64, noise(draw, f"cloud{n}", 64)),
        }[style]()
        low = 0.42 + 0.05 * k
        toothed = ring(
            gear_outline(15, gear_r[k], 0.02),
            np.stack([0.05 * np.cos(t := np.arange(120) * 2 * np.pi / 120 - np.pi * 0.25 / 7.5), 0.05 * np.sin(t)], -1),
            0.03,
        ).turned(pitch_deg=-90)
        arm = tube(
            [(0, low, 0), (0.6 * distance, low, 0), (distance, low + 0.05, 0), (distance, low + 0.12, 0)],
            np.full(4, 0.014),
            segments=8,
            up=(0, 0, 1),
        )
        rod = cylinder(0.012, 1.05 - low - 0.05, segments=8).moved(distance, low + 0.06, 0)
        a.node(
            f"Arm{k}",
            "Orrery",
            turn=(0, 360 * draw.unit(f"start{k}"), 0),
            parts=[(join(toothed.moved(0, low, 0), arm, rod), brass)],
        )
        a.node(
            f"Planet{k}",
            f"Arm{k}",
            (distance, 1.05, 0),
            turn=(0, 0, draw.uniform(f"axis{k}", -30, 30)),
            parts=[(sphere(size, 18), a.material(f"Planet {k}", texture=image, roughness=0.6))],
        )
        if draw.unit(f"rings{k}") < 0.4 or k == count - 1:
            a.node(f"Rings{k}", f"Planet{k}", turn=(0, 0, 90), parts=[(ring_x(1.8 * size, 1.35 * size, 0.012), brass)])
        else:
            a.node(f"Moon{k}", f"Planet{k}", parts=[(sphere(0.28 * size, 12).moved(1.7 * size, 0, 0), brass)])

    def orbit(p: float, times: float) -> Pose:
        pose: Pose = {f"Arm{k}": (0, 360 * times * s * p, 0) for k, s in enumerate(speeds)}
        pose |= {f"Planet{k}": (0, 360 * times * (3 + 2 * k) * p, 0) for k in range(count)}
        return pose | {"Sun.s": (1 + 0.06 * wave(p, 6 * times),) * 3}

    def conjunction(p: float) -> Pose:
        pose: Pose = {f"Arm{k}": (0, 90 * ease(p, 0.08 * k, 0.6 + 0.08 * k) * (k + 1), 0) for k in range(count)}
        return pose | {"Sun.s": (1 + 0.5 * bump(p, 0.45, 1.0),) * 3}

    def tour(p: float) -> Pose:
        tip = 25 * pulse(p)
        return orbit(saw(p, 1), 1) | {"Orrery": (tip, 360 * p, 0)}

    a.animate(
        "Orbit", Motion(pose=lambda p: orbit(p, 1), duration_s=10.0, keys=8 * max(6, 3 + 2 * count) + 1), loops=True
    )
    a.animate("Conjunction", Motion(pose=conjunction, duration_s=2.4, keys=37))
    a.animate("Tour", Motion(pose=tour, duration_s=6.4, keys=8 * max(6, 3 + 2 * count) + 1), loops=True)
    return a
