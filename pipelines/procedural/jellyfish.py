"""A jellyfish with all three mechanisms in one file: morph targets, a skin and nodes.

The bell has the targets, the tentacles the skin, and the node above both drifts.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .assembly import Assembly, Motion
from .draw import Draw, linear
from .mesh import (
    lathe,
    smooth_curve,
    tube,
)
from .motion import Pose, bump, ease, pulse, track, wave
from .skin import chain_weights

__all__ = ["jellyfish"]


def jellyfish(draw: Draw) -> Assembly:
    """Pulse, Drift (root motion of a node) and Startle: morph targets, a skin and nodes in one file."""
    a, palette = Assembly(unit=0.5), draw.palette()
    tall = draw.uniform("tall", 0.75, 1.15)
    t = np.linspace(0, np.pi / 2, 15)
    outer = np.stack([np.sin(t), tall * np.cos(t)], -1)[::-1]
    inner = np.stack([0.9 * np.sin(t), tall * 0.72 * np.cos(t) + 0.02], -1)
    profile = np.concatenate([inner, [[0.96, -0.05]], outer])
    profile[[0, -1], 0] = 0.0
    bell = lathe(profile, 32, crease_deg=80)
    p = bell.positions
    reach, angle = np.hypot(p[:, 0], p[:, 2]), np.arctan2(p[:, 0], p[:, 2])
    lobes = draw.integer("lobes", 6, 10)
    edge = reach[:, None] ** 2
    tone = linear(palette.main) + edge * (linear(palette.accent) - linear(palette.main))
    bell = replace(
        bell, colors=tone + (np.cos(angle * lobes) > 0.6)[:, None] * edge**0.5 * (linear(palette.light) - tone) * 0.7
    )
    squeeze = np.stack(
        [-0.42 * p[:, 0] * edge[:, 0], 0.22 * (p[:, 1] + 0.1) - 0.28 * edge[:, 0], -0.42 * p[:, 2] * edge[:, 0]], -1
    )
    flare = np.stack(
        [0.22 * p[:, 0] * edge[:, 0], -0.18 * p[:, 1] + 0.16 * edge[:, 0], 0.22 * p[:, 2] * edge[:, 0]], -1
    )
    ruffle = np.stack([0 * reach, 0.10 * np.cos(lobes * angle) * edge[:, 0] ** 2, 0 * reach], -1)
    jelly = a.material("Jelly", roughness=0.2, emissive=tuple(0.12 * c for c in palette.main))
    a.node("Jellyfish")
    a.node("Bell", "Jellyfish", parts=[(bell, jelly, [squeeze, flare, ruffle])], weights=[0, 0, 0])
    core = lathe(
        smooth_curve([(0.0, -0.42), (0.2, -0.3), (0.12, -0.1), (0.3, 0.15), (0.26, 0.36), (0.0, 0.5)], 24).clip(0),
        20,
        70,
    )
    a.node(
        "Core",
        "Bell",
        scale=(1, tall, 1),
        parts=[
            (core, a.material("Core", palette.accent, roughness=0.3, emissive=tuple(0.3 * c for c in palette.accent)))
        ],
    )
    joints, tentacle, parts = [], a.material("Tentacle", palette.light, roughness=0.3), []
    count = draw.integer("tentacles", 7, 9)
    a.joint("Skirt", "Jellyfish", (0, 0, 0))
    for k in range(count):
        turn = 2 * np.pi * k / count
        x, z = 0.68 * np.sin(turn), 0.68 * np.cos(turn)
        for n in range(5):
            joints.append(a.joint(f"T{k}{n}", "Skirt" if n == 0 else f"T{k}{n - 1}", (x, -0.02 - 0.36 * n, z)))
    for k in range(count):
        turn = 2 * np.pi * k / count
        y = np.linspace(0.05, -1.75, 26)
        line = np.stack([np.full(26, 0.68 * np.sin(turn)), y, np.full(26, 0.68 * np.cos(turn))], -1)
        mesh = tube(line, np.linspace(0.055, 0.014, 26), segments=8, up=(0, 0, 1), crease_deg=80)
        columns = list(range(5 * k, 5 * k + 5))
        parts.append(
            (mesh, tentacle, chain_weights(-mesh.positions[:, 1], [0, 0.36, 0.72, 1.08, 1.44], columns, len(joints)))
        )
    a.skinned("Tentacles", parts, joints)

    def pulsing(p: float, cycles: float, size: float = 1.0) -> Pose:
        c = track((p * cycles) % 1.0, (0, 0), (0.34, 1), (1, 0))
        o = bump((p * cycles) % 1.0, 0.45, 0.95)
        pose: Pose = {
            "Bell.w": (size * c, 0.7 * size * o, 0.5 + 0.5 * wave(p, cycles)),
            "Core.s": (1 - 0.15 * c, 1 + 0.2 * c, 1 - 0.15 * c),
        }
        for k in range(count):
            angle = 2 * np.pi * k / count
            for n in range(5):
                bend = size * (-22 * c if n == 0 else 16 * wave(p, cycles, 0.1 * n + 0.2) * (0.5 + 0.2 * n)) + (
                    6 if n == 1 else 0
                )
                pose[f"T{k}{n}"] = (-bend * np.cos(angle), 0, bend * np.sin(angle))
        pose["Skirt.s"] = (1 - 0.28 * size * c,) * 3
        return pose

    def pulse_pose(p: float) -> Pose:
        return pulsing(p, 1) | {"Jellyfish.t": (0, 0.3 * bump(p, 0.1, 1.0), 0), "Jellyfish": (0, 0, 3 * wave(p))}

    def drift(p: float) -> Pose:
        return pulsing(p, 3) | {
            "Jellyfish.t": (0.5 * wave(p), 2.4 * p - 0.1 * wave(p, 3), 0.9 * p),
            "Jellyfish": (18 * pulse(p), 70 * ease(p), 12 * wave(p)),
        }

    def startle(p: float) -> Pose:
        pose = pulsing(ease(p, 0.15, 0.75), 1, 1.35)
        return pose | {
            "Jellyfish.t": (0, 1.1 * ease(p, 0.2, 0.8), -0.5 * ease(p, 0.2, 0.8)),
            "Jellyfish": (-22 * bump(p, 0.15, 0.95), 0, 0),
        }

    a.animate(
        "Pulse", Motion(pose=pulse_pose, duration_s=round(draw.uniform("pulse", 1.5, 2.0), 2), keys=25), loops=True
    )
    a.animate("Drift", Motion(pose=drift, duration_s=5.5, keys=67))
    a.animate("Startle", Motion(pose=startle, duration_s=2.05, keys=28))
    return a
