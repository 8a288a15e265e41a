"""A skinned octopus: a blob for a mantle, eight arms of five joints each.

Its joints have turned rest poses; one animation has CUBICSPLINE keys.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .assembly import Assembly, Motion
from .blob import Blob
from .draw import Draw, linear
from .mesh import (
    smooth_curve,
    sphere,
    tube,
)
from .motion import Pose, bump, ease, track, wave
from .skin import chain_weights, one_bone

__all__ = ["octopus"]


def octopus(draw: Draw) -> Assembly:
    """Swim (pulses), Wave, and Curl with CUBICSPLINE keys; eight arms of five joints."""
    a, palette = Assembly(unit=1.0), draw.palette()
    arms, size = 8, draw.uniform("arm", 0.85, 1.15)
    a.joint("Mantle", None, (0, 0, 0), turn=(0, 30, 0))
    a.joint("Top", "Mantle", (0, 0.32, -0.05))
    blob = Blob(blend=0.12)
    lean = draw.uniform("lean", -0.28, -0.12)
    blob.ball("Mantle", palette.main, (0, 0.06, 0), (0.30, 0.22, 0.29))
    blob.ball("Top", palette.main, (0, 0.46, lean), (0.34, 0.40, 0.36))
    for x in (1, -1):
        blob.ball("Mantle", palette.main, (x * 0.19, 0.18, 0.22), 0.12)
    marks = [[draw.uniform(f"spot{k}{n}", -1, 1) for n in range(3)] for k in range(26)]

    def paint(p: np.ndarray, normals: np.ndarray, colors: np.ndarray) -> np.ndarray:
        way = np.array(marks) / np.linalg.norm(marks, axis=1, keepdims=True)
        near = np.max((normals @ way.T), axis=1)
        spot = np.clip((near - 0.965) * 60, 0, 1) * (p[:, 1] > 0.3)
        return colors + spot[:, None] * (linear(palette.accent) - colors)

    mesh = blob.mesh(cell=0.05, paint=paint)
    skin = a.material("Skin", roughness=0.35)
    white, pupil = (
        a.material("Eye", palette.light, roughness=0.2),
        a.material("Pupil", (0.02, 0.02, 0.03), roughness=0.1),
    )
    joints = ["Mantle", "Top"] + [f"Arm{k}{n}" for k in range(arms) for n in "abcde"]
    weights = np.zeros((len(mesh.positions), len(joints)))
    weights[:, :2] = blob.weights(mesh, ["Mantle", "Top"])
    parts = [(mesh, skin, weights)]
    for x in (1, -1):
        ball = sphere(0.085, 14).moved(x * 0.215, 0.2, 0.275)
        slot = sphere(0.05, 10).scaled(1.2, 0.55, 0.6).moved(x * 0.235, 0.205, 0.345)
        parts += [(ball, white, one_bone(ball, joints, "Mantle")), (slot, pupil, one_bone(slot, joints, "Mantle"))]
    for k in range(arms):
        angle = 2 * np.pi * (k + 0.5) / arms
        out = np.array([np.sin(angle), 0, np.cos(angle)])
        knots = np.array([[0.14, 0.02], [0.32, -0.06], [0.58, -0.26], [0.86, -0.34], [1.12, -0.26], [1.3, -0.10]]) * [
            size,
            1,
        ]
        line = smooth_curve(np.stack([out[0] * knots[:, 0], knots[:, 1], out[2] * knots[:, 0]], -1), 21)
        t = np.linspace(0, 1, 21)
        arm = tube(line, 0.125 * (1 - t) ** 0.8 + 0.016, segments=10, crease_deg=80)
        names = [f"Arm{k}{n}" for n in "abcde"]
        for n, name in enumerate(names):
            a.joint(
                name, "Mantle" if n == 0 else names[n - 1], line[(2, 6, 10, 13, 17)[n]], turn=(0, np.degrees(angle), 0)
            )
        along = arm.uvs[:, 1]
        columns = [0] + [joints.index(n) for n in names]
        under = np.clip(-arm.normals[:, 1] * 3 - 0.6, 0, 1)[:, None]
        ring = np.clip(np.sin(along * 60) * 3, 0, 1)[:, None] * under
        tone = linear(palette.main) * (1 - under) + linear(palette.light) * under
        arm = replace(arm, colors=tone + ring * (linear(palette.second) - tone) * 0.6)
        parts.append((arm, skin, chain_weights(along, [0.05, 0.18, 0.34, 0.53, 0.72, 0.9], columns, len(joints))))
    a.skinned("Octopus body", parts, joints)

    def spread(lift: tuple[float, ...], k: int, pose: Pose, side: float = 0.0) -> None:
        """Raise arm k at its five joints by degrees, outwards and up; `side` bends it around the body."""
        angle = np.degrees(2 * np.pi * (k + 0.5) / arms)
        for name, degrees in zip("abcde", lift, strict=True):
            s, c = np.sin(np.radians(angle)), np.cos(np.radians(angle))
            pose[f"Arm{k}{name}"] = (-degrees * c, side, degrees * s)

    def swim(p: float) -> Pose:
        squeeze = track(p, (0, 0), (0.3, 1), (1, 0))
        pose: Pose = {
            "Mantle.t": (0, 0.34 * bump(p, 0.08, 1.0), 0),
            "Top": (-3 * wave(p), 0, 0),
            "Mantle": (4 * wave(p), 0, 0),
            "Top.s": (1 - 0.12 * squeeze, 1 + 0.14 * squeeze, 1 - 0.12 * squeeze),
        }
        for k in range(arms):
            late = track((p - 0.06) % 1.0, (0, 0), (0.3, 1), (1, 0))
            spread((12 - 46 * squeeze, -20 * squeeze, -16 * late, -12 * late, 10 - 26 * late), k, pose)
        return pose

    def waving(p: float) -> Pose:
        pose: Pose = {
            "Mantle.t": (0, 0.04 * wave(p, 2), 0),
            "Top": (5 * wave(p, 2, 0.1), 0, 6 * wave(p)),
            "Mantle": (0, 8 * wave(p), 0),
        }
        for k in range(arms):
            f = k / arms
            spread(tuple(16 * wave(p, 2, f + 0.12 * n) + 4 for n in range(5)), k, pose, side=13 * wave(p, 2, f + 0.3))
        return pose

    def curl(p: float) -> Pose:
        pose: Pose = {"Mantle.t": (0, -0.05 * ease(p), 0), "Top": (8 * wave(p), 0, 0)}
        for k in range(arms):
            up = ease(p, 0.05 * k, 0.05 * k + 0.55)
            spread((34 * up, 40 * up, 52 * up, 60 * up, 62 * up), k, pose)
        return pose

    a.animate("Swim", Motion(pose=swim, duration_s=round(draw.uniform("swim", 1.7, 2.1), 2), keys=25), loops=True)
    a.animate("Wave", Motion(pose=waving, duration_s=4.4, keys=45), loops=True)
    a.animate("Curl", Motion(pose=curl, duration_s=3.0, keys=16, interpolation="CUBICSPLINE"))
    return a
