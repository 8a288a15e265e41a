"""A clockwork of four gears that mesh: they turn in the ratio of their teeth.

The second hand ticks by STEP keys, the pendulum swings by CUBICSPLINE keys.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Motion
from .draw import Draw
from .mesh import (
    Mesh,
    box,
    cylinder,
    gear_outline,
    join,
    ring,
    torus,
)
from .motion import Pose, track, wave
from .parts import capsule_z

__all__ = ["clockwork"]


def _gear(teeth: int, module: float, depth: float) -> Mesh:
    """A gear in the xy plane about the origin with spokes; pitch radius teeth * module / 2."""
    radius, tooth = teeth * module / 2, 0.9 * module
    outer = gear_outline(teeth, radius, tooth)
    angle = np.arctan2(outer[:, 1], outer[:, 0])
    rim = 0.76 * radius * np.stack([np.cos(angle), np.sin(angle)], -1)
    spokes = [
        box(1.56 * radius, 0.13 * radius, 0.5 * depth).turned(roll_deg=d)
        for d in ((0, 60, 120) if teeth > 14 else (0, 90))
    ]
    hub = (
        cylinder(0.24 * radius, 1.5 * depth, bevel=0.1 * depth, segments=20)
        .moved(0, -0.75 * depth, 0)
        .turned(pitch_deg=90)
    )
    return join(ring(outer, rim, depth), hub, *spokes)


def clockwork(draw: Draw) -> Assembly:
    """Run, Tick (STEP, with a CUBICSPLINE pendulum), Wind: gears that mesh."""
    a, palette = Assembly(unit=0.05), draw.palette()
    brass, copper = (
        a.material("Brass", (0.88, 0.68, 0.28), metallic=1.0, roughness=0.28),
        a.material("Copper", (0.85, 0.48, 0.33), metallic=1.0, roughness=0.3),
    )
    steel, plate = (
        a.material("Steel", (0.62, 0.64, 0.68), metallic=1.0, roughness=0.3),
        a.material("Plate", palette.main, roughness=0.45),
    )
    dial, ink = a.material("Dial", palette.light, roughness=0.5), a.material("Ink", palette.dark, roughness=0.5)
    red = a.material("Second hand", palette.accent, roughness=0.4)
    module = 0.075
    teeth = [draw.integer("big", 22, 26), draw.integer("second", 10, 13), draw.integer("third", 15, 18), 8]
    a.node("Clock")
    a.node(
        "Frame",
        "Clock",
        (0, 0, -0.16),
        parts=[
            (box(2.5, 0.1, 0.08, 0.02).moved(0, 1.1, 0), plate),
            (box(2.5, 0.1, 0.08, 0.02).moved(0, -1.15, 0), plate),
            (join(*(box(0.1, 2.35, 0.08, 0.02).moved(x, 0, 0) for x in (-1.2, 1.2))), plate),
        ],
    )
    spots = [np.array([-0.35, 0.05])]
    angles = [draw.uniform("angle1", -35, -15), draw.uniform("angle2", 55, 75), draw.uniform("angle3", 165, 185)]
    for k in range(3):
        reach = (teeth[k] + teeth[k + 1]) * module / 2
        spots.append(spots[-1] + reach * np.array([np.cos(np.radians(angles[k])), np.sin(np.radians(angles[k]))]))
    ratios, phase = [1.0], 0.0
    for k, (n, spot) in enumerate(zip(teeth, spots, strict=True)):
        if k:  # a gap of this gear faces the tooth of the one before, along the line between their centres
            ratios.append(-ratios[-1] * teeth[k - 1] / n)
            touch = (angles[k - 1] - phase) * teeth[k - 1] / 360
            phase = angles[k - 1] + 180 + 360 / n * (0.5 + touch)
        a.node(
            f"Gear{k}",
            "Clock",
            (*spot, 0),
            turn=(0, 0, phase),
            parts=[(_gear(n, module, 0.13), (brass, copper, steel, brass)[k])],
        )
        a.node(f"Shaft{k}", "Clock", (*spot, 0), parts=[(capsule_z(0.045, -0.16, 0.22), steel)])
    a.node(
        "Dial",
        "Clock",
        (spots[0][0], spots[0][1], 0.2),
        parts=[
            (cylinder(0.52, 0.05, bevel=0.015, segments=40).turned(pitch_deg=90), dial),
            (
                join(
                    *(
                        box(0.03 if k % 3 else 0.05, 0.1, 0.02).moved(0, 0.42, 0.055).turned(roll_deg=30 * k)
                        for k in range(12)
                    )
                ),
                ink,
            ),
            (torus(0.52, 0.04, 40, 10).turned(pitch_deg=90).moved(0, 0, 0.03), brass),
        ],
    )
    for name, long, thick, material, z in (
        ("Hour", 0.26, 0.05, ink, 0.07),
        ("Minute", 0.38, 0.035, ink, 0.09),
        ("Second", 0.42, 0.018, red, 0.11),
    ):
        a.node(
            name,
            "Dial",
            (0, 0, z),
            parts=[
                (
                    join(
                        box(thick, long + 0.08, 0.015, 0.004).moved(0, long / 2 - 0.04, 0),
                        cylinder(1.3 * thick, 0.02).turned(pitch_deg=90),
                    ),
                    material,
                )
            ],
        )
    a.node(
        "Pendulum",
        "Clock",
        (0, -1.05, 0.0),
        parts=[
            (box(0.05, 1.0, 0.03, 0.006).moved(0, -0.5, 0), steel),
            (cylinder(0.26, 0.1, bevel=0.04, segments=32).turned(pitch_deg=90).moved(0, -1.05, -0.05), copper),
        ],
    )

    def run(p: float, turns: float) -> Pose:
        pose: Pose = {f"Gear{k}": (0, 0, -360 * turns * r * p) for k, r in enumerate(ratios)}
        return pose | {
            "Second": (0, 0, -360 * turns * p),
            "Minute": (0, 0, -30 * turns * p),
            "Hour": (0, 0, -2.5 * turns * p),
        }

    def tick(p: float) -> Pose:
        step = np.floor(p * 8 + 1e-9)
        pose: Pose = {f"Gear{k}": (0, 0, -360 / teeth[0] * r * step) for k, r in enumerate(ratios)}
        return pose | {"Second": (0, 0, -30 * step), "Minute": (0, 0, -2.5 * step)}

    def wind(p: float) -> Pose:
        back = track(p, (0, 0), (0.3, -0.25), (0.36, -0.22), (1, 1))
        return {k: tuple(v) for k, v in run(back, 1.0).items()} | {
            "Hour": (0, 0, -360 * back),
            "Clock": (0, 10 * wave(p), 0),
        }

    def swing(p: float) -> Pose:
        return {"Pendulum": (0, 0, 17 * wave(p, 4))}

    beats = Motion(pose=swing, duration_s=4.0, keys=33, interpolation="CUBICSPLINE")
    a.animate("Run", Motion(pose=lambda p: run(p, 1.0), duration_s=4.0, keys=49), beats)
    a.animate("Tick", Motion(pose=tick, duration_s=4.0, keys=9, interpolation="STEP"), beats)
    a.animate("Wind", Motion(pose=wind, duration_s=3.3, keys=54))
    return a
