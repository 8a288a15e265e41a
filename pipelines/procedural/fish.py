"""A skinned fish, textured with scales, whose spine is a chain of joints bent by a travelling wave.

Fins are thin plates; the pectoral ones are rigid and paddle.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Motion
from .draw import Draw
from .mesh import (
    Mesh,
    loft,
    smooth_curve,
    sphere,
    tube,
)
from .motion import Pose, bump, ease, wave
from .skin import chain_weights, one_bone
from .texture import scales, stripes

__all__ = ["fish"]


def _fin(points: list[tuple[float, float]], thickness: float) -> Mesh:
    """A thin fin in the yz plane from a closed outline of (z, y) points, star-shaped around its mean."""
    outline = np.array(points, dtype=np.float64)
    center = outline.mean(0)
    layers = []
    for shrink, x in ((0.0, -1.0), (0.75, -0.9), (1.0, 0.0), (0.75, 0.9), (0.0, 1.0)):
        yz = center + (outline - center) * shrink
        layers.append(np.stack([np.full(len(yz), x * thickness / 2), yz[:, 1], yz[:, 0]], -1))
    return loft(np.array(layers), crease_deg=70)


def fish(draw: Draw) -> Assembly:
    """Swim, Dart (root motion), Turn; textured with scales."""
    a, palette = Assembly(unit=25.0), draw.palette()
    high, thin = draw.uniform("high", 0.2, 0.34), draw.uniform("thin", 0.45, 0.62)
    z = np.array([0.52, 0.44, 0.3, 0.1, -0.12, -0.32, -0.5, -0.6])
    r = high * np.array([0.16, 0.5, 0.84, 1.0, 0.86, 0.52, 0.24, 0.2])
    curve = smooth_curve(np.stack([z, r], -1), 30)
    path = np.stack([np.zeros(30), np.zeros(30), curve[:, 0]], -1)
    body = tube(path, np.stack([curve[:, 1] * thin, curve[:, 1]], -1), segments=22, crease_deg=80)
    skin = a.material(
        "Scales", texture=scales(palette.main, palette.light, palette.dark, 14, 18), roughness=0.35, metallic=0.2
    )
    fins = a.material("Fins", texture=stripes(palette.second, palette.accent, 9), roughness=0.5)
    eye_white, pupil = (
        a.material("Eye white", (0.95, 0.95, 0.9), roughness=0.2),
        a.material("Pupil", (0.02, 0.02, 0.02), roughness=0.1),
    )
    tail = draw.uniform("tail", 0.8, 1.2)
    outlines = [
        [
            (-0.56, 0.0),
            (-0.66, 0.1),
            (-0.95, 0.32 * tail),
            (-0.98, 0.26 * tail),
            (-0.85, 0.0),
            (-0.98, -0.26 * tail),
            (-0.95, -0.32 * tail),
            (-0.66, -0.1),
        ],
        [
            (0.22, 0.86 * high),
            (0.1, high + 0.12),
            (-0.12, high + 0.16),
            (-0.3, high + 0.06),
            (-0.26, 0.6 * high),
            (0.0, 0.8 * high),
        ],
        [(-0.1, -0.86 * high), (-0.16, -high - 0.1), (-0.3, -high - 0.07), (-0.34, -0.4 * high)],
    ]
    names, stops = [f"Spine{k}" for k in range(7)], [0.3, 0.12, -0.06, -0.24, -0.42, -0.6, -0.78]
    a.joint("Root", None, (0, 0, 0.3))
    for k, name in enumerate(names):
        a.joint(name, "Root" if k == 0 else names[k - 1], (0, 0, stops[k]))
    joints = ["Root", *names, "LeftFin", "RightFin"]
    for side, x in (("Left", 1), ("Right", -1)):
        a.joint(side + "Fin", "Spine0", (x * high * thin * 0.86, -0.25 * high, 0.2))

    def along(mesh: Mesh) -> np.ndarray:
        at = np.interp(-mesh.positions[:, 2], [-s for s in stops], np.linspace(0, 1, 7))
        return chain_weights(at, list(np.linspace(0, 1, 7)), [joints.index(n) for n in names], len(joints))

    parts = [(body, skin, along(body))]
    for outline in outlines:
        mesh = _fin(outline, 0.03)
        parts.append((mesh, fins, along(mesh)))
    for side, x in (("Left", 1), ("Right", -1)):
        paddle = _fin([(0.0, 0.05), (-0.24, 0.08), (-0.3, -0.02), (-0.2, -0.1), (0.0, -0.06)], 0.022)
        paddle = paddle.turned(yaw_deg=-x * 38).moved(*(a.place(side + "Fin") - [x * 0.015, 0, 0]))
        parts.append((paddle, fins, one_bone(paddle, joints, side + "Fin")))
        at = (x * high * thin * 0.70, 0.22 * high, 0.36)
        ball, dark = (
            sphere(0.2 * high, 14).moved(*at),
            sphere(0.12 * high, 10).moved(at[0] + x * 0.11 * high, at[1], at[2] + 0.04 * high),
        )
        parts += [(ball, eye_white, one_bone(ball, joints, "Spine0")), (dark, pupil, one_bone(dark, joints, "Spine0"))]
    a.skinned("Fish body", parts, joints)

    def undulate(p: float, cycles: float, size: float) -> Pose:
        pose: Pose = {n: (0, size * (3 + 3.4 * k) * wave(p, cycles, 0.13 * k), 0) for k, n in enumerate(names)}
        pose["Spine0"] = (0, -size * 6 * wave(p, cycles, 0.2), 0)
        pose["LeftFin"], pose["RightFin"] = (
            (0, 16 * wave(p, cycles), 24 * wave(p, cycles, 0.1)),
            (0, -16 * wave(p, cycles), -24 * wave(p, cycles, 0.1)),
        )
        return pose

    def dart(p: float) -> Pose:
        go = ease(p, 0.22, 0.9)
        pose = undulate(p, 5, 0.35 + 1.1 * bump(p, 0.1, 0.8))
        return pose | {
            "Root.t": (0, 0.15 * go, 2.6 * go - 0.12 * bump(p, 0, 0.3)),
            "Root": (-8 * bump(p, 0.2, 0.9), 0, 0),
        }

    def turn(p: float) -> Pose:
        heading = 2 * np.pi * p
        pose = undulate(p, 6, 0.8)
        pose = {n: (v[0], v[1] - (0 if "Fin" in n else 8), v[2]) for n, v in pose.items()}
        place = (0.7 * (1 - np.cos(heading)), 0.12 * wave(p), 0.7 * np.sin(heading))
        return pose | {"Root": (0, np.degrees(heading), -14), "Root.t": place}

    a.animate(
        "Swim",
        Motion(pose=lambda p: undulate(p, 1, 1.0), duration_s=round(draw.uniform("swim", 0.8, 1.3), 2), keys=21),
        loops=True,
    )
    a.animate("Dart", Motion(pose=dart, duration_s=2.1, keys=64))
    a.animate("Turn", Motion(pose=turn, duration_s=4.8, keys=97), loops=True)
    return a
