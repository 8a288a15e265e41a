"""A skinned little person, in metres, whose joints have turned rest poses.

The body is a blob in a T pose; legs are planted by two-bone kinematics, arms are given as raise, swing and bend.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Limb, Motion
from .blob import Blob
from .draw import Draw, linear
from .mesh import (
    beside,
    sphere,
)
from .motion import Pose, footfall, pulse, track, wave
from .skin import one_bone

__all__ = ["biped"]


def biped(draw: Draw) -> Assembly:
    """Walk, Wave and Dance of a small person."""
    a, palette = Assembly(unit=1.0), draw.palette()
    tall, wide = draw.uniform("tall", 0.92, 1.1), draw.uniform("wide", 0.9, 1.15)
    big_head = draw.uniform("head", 0.95, 1.3)
    skin = draw.choice(
        "skin", ((0.94, 0.78, 0.66), (0.82, 0.6, 0.45), (0.55, 0.37, 0.27), (0.96, 0.83, 0.72), (0.45, 0.72, 0.62))
    )
    shirt, trousers, shoes, hair = (
        palette.main,
        palette.second,
        palette.dark,
        draw.choice("hair", (palette.dark, palette.accent)),
    )
    hip, knee, ankle, waist, chest, neck = (h * tall for h in (0.88, 0.49, 0.09, 1.02, 1.22, 1.42))
    a.node("Person")
    a.joint("Hips", None, (0, hip + 0.05, 0), turn=(10, 0, 0))
    a.joint("Waist", "Hips", (0, waist, 0), turn=(-6, 0, 0))
    a.joint("Chest", "Waist", (0, chest, 0), turn=(4, 0, 0))
    a.joint("Neck", "Chest", (0, neck, 0), turn=(12, 0, 0))
    a.joint("Head", "Neck", (0, neck + 0.07, 0.01))
    skull = np.array([0, neck + 0.07 + 0.12 * big_head, 0.02])
    blob = Blob(blend=0.07)
    blob.ball("Hips", trousers, (0, hip + 0.04, 0), (0.155 * wide, 0.11, 0.115 * wide))
    blob.ball("Waist", shirt, (0, waist + 0.04, 0), (0.14 * wide, 0.12, 0.1 * wide))
    blob.ball("Chest", shirt, (0, chest + 0.05, 0), (0.17 * wide, 0.155, 0.115 * wide))
    blob.rod("Neck", skin, (0, neck - 0.03, 0), (0, neck + 0.09, 0.01), 0.05, 0.048, blend=0.03)
    blob.ball("Head", skin, skull, (0.115 * big_head, 0.135 * big_head, 0.125 * big_head), blend=0.03)
    blob.ball("Head", skin, beside(skull, 0, -0.03 * big_head, 0.125 * big_head), (0.02, 0.022, 0.03), blend=0.03)
    blob.ball(
        "Head",
        hair,
        beside(skull, 0, 0.055 * big_head, -0.035 * big_head),
        (0.13 * big_head, 0.115 * big_head, 0.125 * big_head),
        blend=0.01,
    )
    if draw.unit("bun") < 0.5:
        blob.ball("Head", hair, beside(skull, 0, 0.16 * big_head, -0.09 * big_head), 0.055 * big_head, blend=0.03)
    joints = ["Hips", "Waist", "Chest", "Neck", "Head"]
    for side, x in (("Left", 1), ("Right", -1)):
        shoulder, elbow, wrist = (np.array([x * d * wide, 1.34 * tall, 0]) for d in (0.17, 0.42, 0.66))
        a.joint(side + "Arm", "Chest", shoulder, turn=(0, 0, -x * 90))
        a.joint(side + "Forearm", side + "Arm", elbow, turn=(0, 20, -x * 90))
        a.joint(side + "Hand", side + "Forearm", wrist, turn=(0, 0, -x * 90))
        blob.rod(side + "Arm", shirt, shoulder, elbow, 0.066 * wide, 0.05, blend=0.05)
        blob.rod(side + "Forearm", skin, elbow, wrist, 0.045, 0.035, blend=0.02)
        blob.ball(side + "Hand", skin, beside(wrist, x * 0.05, 0, 0.01), (0.068, 0.03, 0.046), blend=0.03)
        blob.rod(
            side + "Hand",
            skin,
            beside(wrist, x * 0.03, 0, 0.03),
            beside(wrist, x * 0.06, 0.0, 0.075),
            0.018,
            0.015,
            blend=0.02,
        )
        thigh, low = np.array([x * 0.092 * wide, hip, 0]), np.array([x * 0.1 * wide, ankle, -0.02])
        mid = np.array([x * 0.097 * wide, knee, 0.012])
        a.joint(side + "Thigh", "Hips", thigh, turn=(175, 0, 0))
        a.joint(side + "Shank", side + "Thigh", mid, turn=(185, 0, 0))
        a.joint(side + "Foot", side + "Shank", low, turn=(90, 0, 0))
        blob.rod(side + "Thigh", trousers, thigh, mid, 0.080 * wide, 0.060, blend=0.025)
        blob.rod(side + "Shank", trousers, mid, low, 0.06, 0.046, blend=0.03)
        blob.rod(
            side + "Foot", shoes, beside(low, 0, -0.035, -0.02), beside(low, 0, -0.045, 0.13), 0.052, 0.042, blend=0.03
        )
        joints += [side + part for part in ("Arm", "Forearm", "Hand", "Thigh", "Shank", "Foot")]

    def paint(p: np.ndarray, normals: np.ndarray, colors: np.ndarray) -> np.ndarray:
        band = np.clip((0.045 - np.abs(p[:, 1] - chest - 0.02)) / 0.02, 0, 1) * (np.abs(p[:, 0]) < 0.2 * wide)
        return colors + band[:, None] * (linear(palette.accent) - colors)

    mesh = blob.mesh(cell=0.0275, paint=paint, sharp=0.12)
    cloth, eye = a.material("Cloth and skin", roughness=0.8), a.material("Eye", (0.05, 0.04, 0.05), roughness=0.2)
    parts = [(mesh, cloth, blob.weights(mesh, joints, width=0.45))]
    for x in (1, -1):
        ball = (
            sphere(0.017 * big_head, 10)
            .scaled(1, 1.35, 0.7)
            .moved(x * 0.045 * big_head, *(beside(skull, 0, 0.012, 0.118 * big_head))[1:])
        )
        parts.append((ball, eye, one_bone(ball, joints, "Head")))
    a.skinned("Person body", parts, joints)
    _biped_motions(a, draw)
    return a


def _biped_motions(a: Assembly, draw: Draw) -> None:
    limbs = {s: Limb(s + "Thigh", s + "Shank", s + "Foot", knee_forward=True) for s in ("Left", "Right")}
    rest = {s: a.place(s + "Foot") for s in limbs}

    def arms(pose: Pose, left: tuple, right: tuple) -> None:
        """Each (raise, swing, bend) in degrees: raise from hanging (0) to level (90), swing forwards, elbow bend."""
        for side, x, (lift, swing, bend) in (("Left", 1, left), ("Right", -1, right)):
            pose[side + "Arm"] = (-swing, 0, x * (lift - 84))
            pose[side + "Forearm"] = (0, -x * bend, 0)
            pose[side + "Hand"] = (0, -x * 0.2 * bend, 0)

    def walk(p: float) -> Pose:
        pose: Pose = {
            "Hips.t": (0.018 * wave(p, 1, 0.07), 0.022 * wave(p, 2, 0.22) - 0.035, 0),
            "Hips": (3, 7 * wave(p, 1, 0.0), 3 * wave(p, 1, 0.1)),
            "Waist": (2, -5 * wave(p), -3 * wave(p, 1, 0.1)),
            "Chest": (0, -8 * wave(p), 0),
            "Neck": (-2 + 2 * wave(p, 2), 3 * wave(p), 0),
            "Head": (0, 3 * wave(p), 0),
        }
        for side, phase in (("Left", 0.0), ("Right", 0.5)):
            z, y = footfall(p + phase, 0.52, 0.13, 0.6)
            roll = 38 * (y / 0.13) if z < 0 else -18 * (y / 0.13)
            a.plant(pose, limbs[side], beside(rest[side], 0, y, z), foot_pitch_deg=roll)
        swing = 34 * wave(p, 1, -0.22)
        arms(pose, (6, -swing, 24 - 12 * wave(p, 1, -0.22)), (6, swing, 24 + 12 * wave(p, 1, -0.22)))
        return pose

    def greet(p: float) -> Pose:
        up = track(p, (0, 0), (0.2, 1), (0.8, 1), (1, 0))
        pose: Pose = {
            "Hips.t": (0.02 * up, 0.006 * wave(p, 2) - 0.012, 0),
            "Hips": (0, 0, -2 * up),
            "Waist": (0, -6 * up, 3 * up),
            "Chest": (1.5 * wave(p, 2), -4 * up, 2 * up),
            "Neck": (0, 0, 5 * up),
            "Head": (-4 * up, 5 * up, 8 * up + 2 * wave(p, 4) * up),
        }
        for side in limbs:
            a.plant(pose, limbs[side], rest[side])
        arms(pose, (5, 4 * wave(p), 14), (5, 4, 14))
        fan = wave(p, 4) * up
        pose["RightArm"] = (-8 * up, 0, (84 - 5) - (84 - 5 + 38) * up)
        pose["RightForearm"] = (0, 14, -(48 + 26 * fan) * up)
        pose["RightHand"] = (0, 0, -16 * fan)
        return pose

    beat = 8

    def dance(p: float) -> Pose:
        bounce, sway, turn = pulse(p, beat), wave(p, beat / 2), 22 * wave(p, 1)
        pose: Pose = {
            "Hips.t": (0.075 * sway, -0.085 * bounce - 0.01, 0.02 * wave(p, 1)),
            "Hips": (6 * bounce, turn, -7 * sway),
            "Waist": (4 * bounce, -0.5 * turn, 8 * sway),
            "Chest": (-4 * bounce, 0.7 * turn, 7 * sway),
            "Neck": (8 * bounce - 4, 0, -5 * sway),
            "Head": (7 * bounce - 5, -0.5 * turn, -8 * sway),
        }
        for side, x in (("Left", 1), ("Right", -1)):
            step = max(0.0, -x * sway) ** 2
            a.plant(pose, limbs[side], beside(rest[side], x * 0.04, 0.12 * step, 0.05 * step), foot_pitch_deg=22 * step)
        high = 0.5 + 0.5 * wave(p, 1, 0.25)
        left, right = 60 + 85 * high + 14 * sway, 60 + 85 * (1 - high) - 14 * sway
        arms(pose, (left, 20 * bounce, 55 + 40 * sway), (right, 20 * bounce, 55 - 40 * sway))
        return pose

    a.animate("Walk", Motion(pose=walk, duration_s=round(draw.uniform("pace", 0.95, 1.15), 2), keys=25), loops=True)
    a.animate("Wave", Motion(pose=greet, duration_s=2.5, keys=51), loops=True)
    a.animate("Dance", Motion(pose=dance, duration_s=4.0, keys=97), loops=True)
