"""A talking head that moves by morph targets; eyes turn and blink as nodes.

Targets are fields over one closed head, the lips and the throat, in the same order for all three.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .assembly import Assembly, Motion
from .blob import Blob
from .draw import Draw, linear
from .mesh import (
    Mesh,
    beside,
    sphere,
    torus,
    tube,
)
from .motion import Pose, bump, pulse, track, wave

__all__ = ["face"]

TARGETS = ("smile", "open", "round", "raise", "puff")


def _mouth(width: float, lips: tuple[float, ...]) -> tuple[Mesh, list[np.ndarray]]:
    """Lips as a flattened ring and their morph targets as in TARGETS; about the origin, facing +z."""
    m = torus(1.0, 0.2, 40, 10).turned(pitch_deg=90)
    flat = np.array([width, 0.30 * width, 0.7 * width])
    m = m.scaled(*flat)
    p = m.positions
    x, side = p[:, 0] / width, np.sign(p[:, 1]) * np.clip(np.abs(p[:, 1]) / (0.3 * width), 0, 1)
    zero = np.zeros(len(p))
    bend = -0.22 * width * np.abs(x) ** 2.2  # the mouth follows the round of the head
    m = replace(m, positions=p + np.stack([zero, zero, bend], -1)).painted(lips)
    smile = np.stack([0.22 * p[:, 0], width * (0.52 * x**2 - 0.12), -0.12 * width * x**2], -1)
    opened = np.stack([-0.06 * p[:, 0], width * (0.55 * side * np.sqrt(np.clip(1.2 - x**2, 0, 1)) - 0.2), zero], -1)
    rounded = np.stack(
        [-0.52 * p[:, 0], width * 0.32 * side * np.sqrt(np.clip(1.2 - x**2, 0, 1)), -bend * 0.7 + 0.1 * width], -1
    )
    puff = np.stack([-0.2 * p[:, 0], zero, zero + 0.05 * width], -1)
    return m, [smile, opened, rounded, 0 * smile, puff]


def face(draw: Draw) -> Assembly:
    """Smile, Surprise, Talk, Blink: a head that is all morph targets."""
    a, palette = Assembly(unit=10.0), draw.palette()
    skin = draw.choice("skin", (palette.main, palette.second, (0.93, 0.76, 0.62), (0.62, 0.8, 0.55)))
    wide, tall = draw.uniform("wide", 0.85, 1.1), draw.uniform("tall", 0.95, 1.2)
    blob = Blob(blend=0.25)
    blob.ball("h", skin, (0, 0, 0), (0.82 * wide, 0.95 * tall, 0.8))
    blob.ball("h", skin, (0, -0.42 * tall, 0.14), (0.6 * wide, 0.45, 0.58))
    blob.ball("h", skin, (0, -0.06, 0.84), (0.13, 0.15, 0.14), blend=0.12)
    for x in (1, -1):
        blob.ball("h", skin, (x * 0.84 * wide, 0.02, -0.05), (0.12, 0.2, 0.16), blend=0.08)
        blob.ball("h", skin, (x * 0.4 * wide, -0.3, 0.46), 0.24, blend=0.2)
    hair = draw.choice("hair", ("tuft", "horns", "bowl"))
    if hair == "tuft":
        for k, x in enumerate((-0.25, 0, 0.25)):
            top = np.array([x, 0.86 * tall, 0])
            blob.rod(
                "h", palette.dark, top, beside(top, 0.8 * x, 0.3 - 0.05 * abs(k - 1), -0.06), 0.14, 0.05, blend=0.08
            )
    elif hair == "horns":
        for x in (1, -1):
            blob.rod("h", palette.light, (x * 0.45, 0.72 * tall, 0), (x * 0.72, 1.12 * tall, 0), 0.15, 0.05, blend=0.05)
    else:
        blob.ball("h", palette.dark, (0, 0.32 * tall, -0.12), (0.86 * wide, 0.74 * tall, 0.8), blend=0.03)

    def blush(p: np.ndarray, normals: np.ndarray, colors: np.ndarray) -> np.ndarray:
        d = np.hypot(np.abs(p[:, 0]) - 0.46 * wide, p[:, 1] + 0.24)
        near = (np.clip(1 - d / 0.2, 0, 1) * (p[:, 2] > 0.2))[:, None]
        return colors + 0.5 * near * (linear((0.95, 0.35, 0.4)) - colors)

    head = blob.mesh(cell=0.085, paint=blush)
    p = head.positions
    front = np.clip(p[:, 2] / 0.5, 0, 1)
    cheek = np.exp(-((np.abs(p[:, 0]) - 0.42 * wide) ** 2 + (p[:, 1] + 0.28) ** 2) / 0.05) * front
    wobble = np.exp(-((np.abs(p[:, 0]) - 0.62 * wide) ** 2 + (p[:, 1] + 0.3) ** 2) / 0.10) * np.clip(
        p[:, 2] + 0.4, 0, 1
    )
    jaw = np.clip((-p[:, 1] - 0.32) / 0.5, 0, 1)
    zero = np.zeros(len(p))
    bulge = [
        np.stack([0.10 * cheek * np.sign(p[:, 0]), 0.12 * cheek, 0.07 * cheek], -1),
        np.stack([-0.05 * jaw * p[:, 0], -0.26 * jaw, -0.03 * jaw], -1),
        np.stack([-0.16 * jaw * p[:, 0], -0.14 * jaw, 0.03 * jaw], -1),
        np.stack([zero, 0.10 * np.clip(p[:, 1] - 0.2, 0, 1), zero], -1),
        np.stack([0.14 * wobble * np.sign(p[:, 0]), zero, 0.10 * wobble], -1),
    ]
    flesh, glossy = a.material("Skin", roughness=0.55), a.material("Eye white", (0.96, 0.95, 0.93), roughness=0.15)
    iris, inside = (
        a.material("Iris", palette.accent, roughness=0.2),
        a.material("Mouth", (0.16, 0.03, 0.04), roughness=0.8),
    )
    black = a.material("Pupil", (0.01, 0.01, 0.015), roughness=0.08)
    brow_color = palette.dark if hair != "horns" else palette.light
    a.node("Face")
    a.node("Head", "Face", parts=[(head, flesh, bulge)], weights=[0] * 5)
    lips, lip_targets = _mouth(0.27 * wide, tuple(0.55 * c for c in skin[:1]) + tuple(0.35 * c for c in skin[1:]))
    disc = sphere(1.0, 20).scaled(0.25 * wide, 0.055, 0.05)
    d = disc.positions
    disc_targets = [
        np.stack([0.2 * d[:, 0], 0.135 * (d[:, 0] / 0.25) ** 2 - 0.03, 0 * d[:, 0]], -1),
        np.stack([-0.05 * d[:, 0], 2.8 * d[:, 1] - 0.055, 0 * d[:, 0]], -1),
        np.stack([-0.5 * d[:, 0], 1.6 * d[:, 1], 0 * d[:, 0]], -1),
        0 * d,
        np.stack([-0.2 * d[:, 0], 0 * d[:, 0], 0 * d[:, 0]], -1),
    ]
    a.node("Mouth", "Face", (0, -0.46 * tall, 0.745), parts=[(lips, flesh, lip_targets)], weights=[0] * 5)
    a.node("Throat", "Face", (0, -0.46 * tall, 0.735), parts=[(disc, inside, disc_targets)], weights=[0] * 5)
    for side, x in (("Left", 1), ("Right", -1)):
        a.node(
            side + "Eye", "Face", (x * 0.32 * wide, 0.2, 0.62), scale=(1, 1.12, 1), parts=[(sphere(0.19, 18), glossy)]
        )
        pieces = [
            (sphere(0.105, 16).scaled(1, 1, 0.35).moved(0, 0, 0.165), iris),
            (sphere(0.055, 12).scaled(1, 1, 0.4).moved(0, 0, 0.198), black),
        ]
        a.node(side + "Look", side + "Eye", parts=pieces)
        brow = tube([(-0.17, -0.02, 0), (0, 0.03, 0.04), (0.17, -0.02, 0)], [0.035, 0.045, 0.03], segments=8).painted(
            brow_color
        )
        a.node(side + "Brow", "Face", (x * 0.33 * wide, 0.5, 0.66), turn=(-18, x * 16, 0), parts=[(brow, flesh)])

    def express(
        smile=0.0,
        opened=0.0,
        rounded=0.0,
        raised=0.0,
        puff=0.0,
        lids=1.0,
        look=(0.0, 0.0),
        tilt=(0.0, 0.0, 0.0),
        brow=0.0,
    ) -> Pose:
        w = (smile, opened, rounded, raised, puff)
        pose: Pose = {"Head.w": w, "Mouth.w": w, "Throat.w": w, "Face": tilt}
        pose["Mouth.t"] = (0, -0.05 * opened - 0.03 * rounded, 0.02 * rounded)
        pose["Throat.t"] = pose["Mouth.t"]
        for side, x in (("Left", 1), ("Right", -1)):
            pose[side + "Eye.s"] = (1 + 0.06 * raised, max(lids, 0.08) * (1 + 0.12 * raised), 1)
            pose[side + "Look"] = (look[1], look[0], 0)
            pose[side + "Brow.t"] = (0, 0.16 * raised + 0.05 * smile - 0.05 * (1 - lids), -0.04 * raised)
            pose[side + "Brow"] = (0, 0, x * brow)
        return pose

    def blinks(p: float, *at: float, width: float = 0.05) -> float:
        return 1 - sum(bump(p, t - width, t + width) for t in at)

    def smile(p: float) -> Pose:
        s = track(p, (0, 0), (0.3, 1), (0.72, 1), (1, 0))
        return express(
            smile=s,
            opened=0.28 * bump(p, 0.25, 0.8),
            raised=0.3 * s,
            lids=blinks(p, 0.12, 0.86) - 0.22 * s,
            tilt=(-4 * s, 8 * wave(p), 7 * s),
            look=(6 * wave(p), 0),
            brow=5 * s,
        )

    def surprise(p: float) -> Pose:
        s = track(p, (0, 0), (0.14, 0), (0.24, 1.1), (0.6, 0.95), (0.85, 0.6), (1, 0.6))
        return express(
            rounded=s,
            opened=0.5 * s,
            raised=1.2 * s,
            lids=blinks(p, 0.1, 0.55, width=0.035),
            tilt=(-9 * s, 0, 0),
            brow=-8 * s,
        )

    syllables = [
        (draw.uniform(f"open{k}", 0.3, 1.0), draw.uniform(f"round{k}", 0.0, 0.8), draw.uniform(f"smile{k}", -0.1, 0.5))
        for k in range(14)
    ]

    def talk(p: float) -> Pose:
        k, t = min(int(p * 14), 13), (p * 14) % 1.0 if p < 1 else 1.0
        o, r, s = syllables[k]
        b = np.sin(np.pi * t)
        return express(
            smile=s * b,
            opened=0.8 * o * b,
            rounded=r * b,
            raised=0.35 * pulse(p, 3),
            lids=blinks(p, 0.3, 0.7, width=0.025),
            look=(12 * wave(p, 1, 0.1), 4 * wave(p, 2)),
            tilt=(3 * wave(p, 4), 9 * wave(p), 4 * wave(p, 2)),
        )

    def blink(p: float) -> Pose:
        return express(puff=bump(p, 0.5, 1.0), lids=blinks(p, 0.2, width=0.16), look=(0, 0))

    a.animate("Smile", Motion(pose=smile, duration_s=2.4, keys=40), loops=True)
    a.animate("Surprise", Motion(pose=surprise, duration_s=2.2, keys=45))
    a.animate("Talk", Motion(pose=talk, duration_s=4.2, keys=113), loops=True)
    a.animate("Blink", Motion(pose=blink, duration_s=0.9, keys=19), loops=True)
    return a
