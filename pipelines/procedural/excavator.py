"""An excavator: tracks, a cab that turns, and an arm of three nodes that digs.

One animation drives away from where it starts.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Motion
from .draw import Draw
from .mesh import (
    box,
    cylinder,
    join,
    ring,
    smooth_curve,
    tube,
)
from .motion import Pose, bump, ease, track, wave
from .parts import axle, capsule_z, slab

__all__ = ["excavator"]


def excavator(draw: Draw) -> Assembly:
    """Dig (4 s), Survey, Drive (root motion) and a quick Shake of the bucket."""
    a, palette = Assembly(unit=2.5), draw.palette()
    body_color = draw.choice("color", (palette.main, palette.accent, (0.96, 0.72, 0.1)))
    reach, heavy = draw.uniform("reach", 0.9, 1.15), draw.uniform("heavy", 0.9, 1.1)
    paint, steel = (
        a.material("Paint", body_color, roughness=0.35),
        a.material("Steel", (0.35, 0.36, 0.38), metallic=0.9, roughness=0.4),
    )
    rubber, glass = (
        a.material("Rubber", (0.07, 0.07, 0.08), roughness=0.85),
        a.material("Glass", (0.25, 0.4, 0.5), metallic=0.3, roughness=0.08),
    )
    trim = a.material("Trim", palette.dark, roughness=0.5)
    a.node("Excavator")
    a.node("Chassis", "Excavator", (0, 0.27, 0), parts=[(box(0.62, 0.2, 0.75, 0.04), trim)])
    half, radius = 0.52, 0.2
    angle = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    lugs = radius * (1 + 0.09 * (np.arange(72) % 3 == 0))
    belt = np.stack([lugs * np.cos(angle) + half * np.sign(np.cos(angle)), lugs * np.sin(angle)], -1)
    inner = np.stack([0.78 * radius * np.cos(angle) + half * np.sign(np.cos(angle)), 0.78 * radius * np.sin(angle)], -1)
    for side, x in (("Left", 1), ("Right", -1)):
        track_mesh = ring(belt, inner, 0.26).turned(yaw_deg=-90)
        a.node(side + "Track", "Excavator", (x * 0.46 * heavy, 0.22, 0), parts=[(track_mesh, rubber)])
        for k, z in enumerate((-half, -0.17, 0.17, half)):
            wheel = join(
                axle(0.155, 0.2, 0.02, 18),
                *(
                    axle(0.03, 0.24, segments=8).moved(0, 0.09 * np.sin(t), 0.09 * np.cos(t))
                    for t in np.arange(4) * np.pi / 2
                ),
            )
            a.node(f"{side}Wheel{k}", side + "Track", (0, 0, z), parts=[(wheel, steel)])
    a.node("Cab", "Excavator", (0, 0.42, 0))
    house = join(
        box(0.86 * heavy, 0.36, 0.95, 0.06).moved(0, 0.22, -0.14),
        box(0.8 * heavy, 0.22, 0.34, 0.05).moved(0, 0.48, -0.42),
    )
    a.node("House", "Cab", parts=[(house, paint), (axle(0.3, 0.06).turned(roll_deg=90), steel)])
    cabin = join(
        box(0.36, 0.05, 0.5, 0.02).moved(0, 0.56, 0),
        *(box(0.04, 0.54, 0.04, 0.01).moved(sx * 0.15, 0.28, sz * 0.21) for sx in (1, -1) for sz in (1, -1)),
    )
    a.node(
        "Cabin",
        "Cab",
        (0.2 * heavy, 0.38, 0.12),
        parts=[(cabin, paint), (box(0.29, 0.5, 0.41, 0.02).moved(0, 0.29, 0), glass)],
    )
    a.node("Exhaust", "Cab", (-0.24, 0.58, -0.42), parts=[(cylinder(0.035, 0.3, bevel=0.01, segments=12), steel)])
    boom_line = [(0, 0), (0.28 * reach, 0.42), (0.72 * reach, 0.62), (1.15 * reach, 0.5)]
    curve = smooth_curve(boom_line, 16)
    boom = tube(
        np.stack([np.zeros(16), curve[:, 1], curve[:, 0]], -1),
        np.stack([np.full(16, 0.07), np.linspace(0.11, 0.075, 16)], -1),
        segments=8,
        up=(1, 0, 0),
        crease_deg=35,
    )
    pin = lambda r=0.05: axle(r, 0.22, 0.01, 14)  # noqa: E731
    a.node("Boom", "Cab", (-0.14, 0.22, 0.3), parts=[(boom, paint), (pin(0.07), steel)])
    a.node(
        "Stick",
        "Boom",
        (0, 0.5, 1.15 * reach),
        turn=(62, 0, 0),
        parts=[
            (
                slab(
                    [
                        (-0.22, 0.05),
                        (-0.2, 0.11),
                        (0.1, 0.1),
                        (0.78, 0.05),
                        (0.8, 0.0),
                        (0.74, -0.05),
                        (0.1, -0.09),
                        (-0.2, -0.02),
                    ],
                    0.12,
                    0.012,
                ),
                paint,
            ),
            (pin(), steel),
        ],
    )
    bowl = [
        (0.02, 0.06),
        (-0.06, -0.05),
        (-0.04, -0.2),
        (0.06, -0.31),
        (0.2, -0.34),
        (0.34, -0.28),
        (0.3, -0.24),
        (0.18, -0.26),
        (0.09, -0.22),
        (0.05, -0.12),
        (0.06, 0.0),
    ]
    plates = []
    outer, inside = np.array(bowl[:6]), np.array(bowl[:5:-1])
    for (z0, y0), (z1, y1), (u0, v0), (u1, v1) in zip(
        outer, outer[1:], inside[1:] if len(inside) > 6 else inside, inside[1:], strict=False
    ):
        plates.append(slab([(z0, y0), (z1, y1), (u1, v1), (u0, v0)], 0.36))
    sides = [
        slab(
            [(0.02, 0.06), (-0.06, -0.05), (-0.04, -0.2), (0.06, -0.31), (0.2, -0.34), (0.34, -0.28), (0.22, -0.05)],
            0.02,
        ).moved(x, 0, 0)
        for x in (-0.18, 0.18)
    ]
    teeth = [box(0.05, 0.03, 0.1, 0.008).turned(pitch_deg=-30).moved(x, -0.25, 0.36) for x in (-0.13, 0, 0.13)]
    a.node(
        "Bucket", "Stick", (0, 0, 0.76), turn=(-8, 0, 0), parts=[(join(*plates, *sides, *teeth), steel), (pin(), trim)]
    )
    for name, at, tilt, long in (
        ("LeftRam", (0.11, 0.05, 0.16), -52, 0.46),
        ("RightRam", (-0.11, 0.05, 0.16), -52, 0.46),
    ):
        a.node(
            name,
            "Boom",
            at,
            turn=(tilt, 0, 0),
            parts=[(capsule_z(0.032, 0.0, 0.62 * long), steel), (capsule_z(0.02, 0.5 * long, long), glass)],
        )

    def arm(p: float, boom: float, stick: float, bucket: float, slew: float) -> Pose:
        return {"Boom": (boom, 0, 0), "Stick": (stick, 0, 0), "Bucket": (bucket, 0, 0), "Cab": (0, slew, 0)}

    def dig(p: float) -> Pose:
        return arm(
            p,
            track(p, (0, 0), (0.14, 22), (0.36, 26), (0.48, -12), (0.72, -12), (0.86, 0), (1, 0)),
            track(p, (0, 0), (0.14, -34), (0.36, 24), (0.5, 8), (0.72, -22), (0.88, 0), (1, 0)),
            track(p, (0, 0), (0.14, -46), (0.36, 62), (0.62, 62), (0.74, -40), (0.88, 0), (1, 0)),
            track(p, (0, 0), (0.46, 0), (0.62, 58), (0.78, 58), (0.98, 0), (1, 0)),
        )

    def survey(p: float) -> Pose:
        return arm(p, -10 * bump(p, 0.1, 0.9), 14 * wave(p, 2), -20 * wave(p, 2, 0.1), 360 * ease(p))

    def drive(p: float) -> Pose:
        go = 2.2 * ease(p, 0.05, 1.05)
        pose = arm(p, -8 * ease(p, 0, 0.3) + 1.5 * wave(p, 5), 10 * ease(p, 0, 0.3), 30 * ease(p, 0, 0.3), 0)
        pose |= {"Excavator.t": (0, 0.008 * wave(p, 14), go), "Excavator": (0.7 * wave(p, 7), 0, 0)}
        return pose | {f"{s}Wheel{k}": (np.degrees(go / 0.2), 0, 0) for s in ("Left", "Right") for k in range(4)}

    def shake(p: float) -> Pose:
        fade = np.sin(np.pi * p)
        return {
            "Bucket": (-46 * fade + 20 * wave(p, 5) * fade, 0, 0),
            "Boom": (-6 * fade + 1.5 * wave(p, 5, 0.3) * fade, 0, 0),
        }

    a.animate("Dig", Motion(pose=dig, duration_s=4.0, keys=81), loops=True)
    a.animate("Survey", Motion(pose=survey, duration_s=6.0, keys=61), loops=True)
    a.animate("Drive", Motion(pose=drive, duration_s=round(draw.uniform("drive", 2.4, 3.2), 2), keys=58))
    a.animate("Shake", Motion(pose=shake, duration_s=0.75, keys=31), loops=True)
    return a
