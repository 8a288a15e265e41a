"""A robot arm on a plinth, with a gripper that opens and closes by STEP keys.

Two of its nodes are written as matrices; one animation is a still pose, one has CUBICSPLINE keys.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Motion
from .draw import Draw
from .mesh import (
    Mesh,
    box,
    cylinder,
    join,
    lathe,
    sphere,
    torus,
    tube,
)
from .motion import Pose, bump, track, wave
from .parts import axle
from .texture import checker, stripes

__all__ = ["robot_arm"]


def robot_arm(draw: Draw) -> Assembly:
    """Pick (STEP gripper), Inspect (6 s, CUBICSPLINE), Nod, and the still pose Home."""
    a, palette = Assembly(unit=0.1), draw.palette()
    shell, joint_color = (
        a.material("Shell", draw.choice("shell", (palette.light, palette.main)), roughness=0.3),
        a.material("Joint", palette.dark, roughness=0.5),
    )
    metal = a.material("Metal", (0.8, 0.8, 0.82), metallic=1.0, roughness=0.25)
    lamp = a.material("Lamp", palette.accent, roughness=0.3, emissive=palette.accent)
    hazard = a.material("Hazard", texture=stripes((0.95, 0.75, 0.1), (0.08, 0.08, 0.08), 2, slant=8), roughness=0.5)
    crate_skin = a.material("Crate", texture=checker(palette.second, palette.accent, 2, 2), roughness=0.7)
    upper, lower = draw.uniform("upper", 0.85, 1.05), draw.uniform("lower", 0.75, 0.95)
    a.node("Cell", as_matrix=True, turn=(0, 0, 0), scale=(1, 1, 1))
    plinth = [(0, 0), (0.48, 0), (0.48, 0.1), (0.38, 0.14), (0.34, 0.3), (0, 0.3)]
    a.node(
        "Plinth",
        "Cell",
        as_matrix=True,
        turn=(0, 22.5, 0),
        parts=[(lathe(plinth, 32), joint_color), (torus(0.46, 0.035, 40, 10).moved(0, 0.12, 0), hazard)],
    )
    a.node(
        "Waist",
        "Cell",
        (0, 0.3, 0),
        parts=[(lathe([(0, 0), (0.3, 0), (0.3, 0.08), (0.24, 0.2), (0.16, 0.24), (0, 0.24)], 28), shell)],
    )
    disc = lambda r, w: axle(r, w, 0.025, 28)  # noqa: E731
    a.node(
        "Shoulder",
        "Waist",
        (0, 0.36, 0),
        parts=[(disc(0.2, 0.4), joint_color), (_limb(upper, 0.15, 0.11), shell), (disc(0.11, 0.44), metal)],
    )
    a.node(
        "Elbow",
        "Shoulder",
        (0, upper, 0),
        turn=(72, 0, 0),
        parts=[(disc(0.15, 0.32), joint_color), (_limb(lower, 0.11, 0.08), shell), (disc(0.08, 0.35), metal)],
    )
    a.node(
        "Wrist",
        "Elbow",
        (0, lower, 0),
        turn=(78, 0, 0),
        parts=[(disc(0.1, 0.24), joint_color), (cylinder(0.075, 0.2, bevel=0.01), metal)],
    )
    palm = join(box(0.3, 0.08, 0.14, 0.02), cylinder(0.1, 0.08, bevel=0.01).moved(0, -0.08, 0))
    a.node("Gripper", "Wrist", (0, 0.26, 0), parts=[(palm, joint_color)])
    for side, x in (("Left", 1), ("Right", -1)):
        finger = join(
            box(0.045, 0.2, 0.1, 0.012).moved(0, 0.12, 0), box(0.05, 0.06, 0.09, 0.01).moved(-x * 0.02, 0.22, 0)
        )
        a.node(side + "Finger", "Gripper", (x * 0.12, 0, 0), parts=[(finger, metal)])
    a.node("Beacon", "Plinth", (0.0, 0.2, 0.36), parts=[(sphere(0.05, 14), lamp)])
    a.node("Crate", "Gripper", (0, 0.26, 0), turn=(0, 0, 0), parts=[(box(0.17, 0.17, 0.17, 0.015), crate_skin)])

    def reach(waist: float, shoulder: float, elbow: float, wrist: float, twist: float) -> Pose:
        return {
            "Waist": (0, waist, 0),
            "Shoulder": (shoulder, 0, 0),
            "Elbow": (elbow, 0, 0),
            "Wrist": (wrist, 0, 0),
            "Gripper": (0, twist, 0),
        }

    def pick(p: float) -> Pose:
        down = bump(p, 0.06, 0.36) + bump(p, 0.52, 0.82)
        waist = track(p, (0, -45), (0.3, -45), (0.55, 60), (0.78, 60), (1, -45))
        return reach(waist, 30 * down, 12 * down, -40 * down, waist)

    def grip(p: float) -> Pose:
        closed, carried = 0.2 <= p < 0.68, 0.2 <= p < 0.68
        slide = 0.0 if closed else 0.05
        return {
            "LeftFinger.t": (slide, 0, 0),
            "RightFinger.t": (-slide, 0, 0),
            "Beacon.s": (1.7 if closed else 1.0,) * 3,
            "Crate.s": (1.0 if carried else 0.35,) * 3,
        }

    def inspect(p: float) -> Pose:
        return reach(
            70 * wave(p), 14 * wave(p, 2, 0.1) + 6, -26 * wave(p, 2, 0.2), 38 * wave(p, 3), 120 * wave(p, 1, 0.25) + 120
        )

    def nod(p: float) -> Pose:
        return reach(0, -6 * bump(p, 0, 1), 10 * bump(p, 0, 1), 34 * wave(p, 2) * bump(p, 0, 1), 0)

    a.animate(
        "Pick",
        Motion(pose=pick, duration_s=4.8, keys=73),
        Motion(pose=grip, duration_s=4.8, keys=26, interpolation="STEP"),
        loops=True,
    )
    a.animate("Inspect", Motion(pose=inspect, duration_s=6.0, keys=25, interpolation="CUBICSPLINE"), loops=True)
    a.animate("Nod", Motion(pose=nod, duration_s=1.25, keys=26), loops=True)
    a.animate("Home", Motion(pose=lambda p: reach(30, -40, 40, 30, 0), duration_s=0.0, keys=1))
    return a


def _limb(length: float, wide: float, narrow: float) -> Mesh:
    """A rounded bar upwards from the origin."""
    t = np.linspace(0, 1, 8)
    bulge = wide + (narrow - wide) * t
    return tube(np.stack([0 * t, length * t, 0 * t], -1), np.stack([0.8 * bulge, bulge], -1), segments=18, up=(0, 0, 1))
