"""A skinned four-legged animal: a fox, a deer, a bear or a giraffe by draw, in centimetres.

The body is a blob; legs are planted by two-bone kinematics, so feet stay on the ground while they carry weight.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Limb, Motion
from .blob import Blob
from .draw import Draw, linear
from .mesh import Mesh, beside, capsule, join, sphere
from .motion import Pose, bump, ease, footfall, track, wave
from .skin import one_bone

__all__ = ["quadruped"]

# leg height, body length, girth, neck length, neck pitch (deg from the horizontal), head size, snout, tail length
KINDS = {
    "fox": (0.42, 0.62, 0.145, 0.24, 48, 0.13, 0.19, 0.50),
    "deer": (0.66, 0.66, 0.155, 0.40, 58, 0.105, 0.19, 0.14),
    "bear": (0.43, 0.70, 0.22, 0.15, 24, 0.18, 0.12, 0.07),
    "giraffe": (0.78, 0.58, 0.165, 0.85, 68, 0.10, 0.18, 0.40),
}

LEGS = ("LeftFront", "RightFront", "LeftHind", "RightHind")


def quadruped(draw: Draw) -> Assembly:
    """Walk, Run, Look, Jump and the still pose Stand."""
    a, palette = Assembly(unit=100.0), draw.palette()
    kind = draw.choice("kind", tuple(KINDS))
    vary = [draw.uniform(f"shape{k}", 0.9, 1.1) for k in range(8)]
    leg, length, girth, neck, slope_deg, head, snout, tail = (
        v * f if k != 4 else v for k, (v, f) in enumerate(zip(KINDS[kind], vary, strict=True))
    )
    slope = np.radians(slope_deg)
    coat, under, dark = palette.main, palette.light, palette.dark
    hips, chest = np.array([0, leg, -length / 2]), np.array([0, leg + 0.03, length / 2])
    nape = beside(chest, 0, 0.55 * girth, 0.5 * girth)
    skull = nape + neck * np.array([0, np.sin(slope), np.cos(slope)])
    a.node("Animal")
    a.joint("Pelvis", None, hips)
    a.joint("Spine", "Pelvis", (hips + chest) / 2)
    a.joint("Chest", "Spine", chest)
    a.joint("Neck", "Chest", nape)
    a.joint("NeckTop", "Neck", (nape + skull) / 2)
    a.joint("Head", "NeckTop", skull)
    blob = Blob(blend=0.45 * girth)
    blob.ball("Pelvis", coat, beside(hips, 0, 0.02, 0.02), (0.86 * girth, 0.95 * girth, 1.05 * girth))
    blob.ball("Spine", coat, (hips + chest) / 2, (0.9 * girth, 0.93 * girth, 0.42 * length))
    blob.ball("Chest", coat, beside(chest, 0, -0.01, 0), (0.9 * girth, 1.08 * girth, 1.1 * girth))
    thick = 0.048 + 0.24 * (girth - 0.1)
    blob.rod(
        "Neck", coat, beside(chest, 0, 0.2 * girth, 0.2 * girth), (nape + skull) / 2, 0.62 * girth, 0.07 + 0.16 * girth
    )
    blob.rod("NeckTop", coat, (nape + skull) / 2, skull, 0.07 + 0.16 * girth, 0.62 * head)
    blob.ball("Head", coat, beside(skull, 0, 0.1 * head, 0.1 * head), (0.88 * head, 0.86 * head, head), blend=0.05)
    nose = skull + np.array([0, -0.35 * head, 0.75 * head + snout])
    blob.rod("Head", coat, beside(skull, 0, -0.2 * head, 0.5 * head), nose, 0.52 * head, 0.26 * head, blend=0.05)
    blob.ball(
        "Head", dark, beside(nose, 0, 0.08 * head, 0.16 * head), (0.2 * head, 0.15 * head, 0.15 * head), blend=0.015
    )
    for side, x in (("Left", 1), ("Right", -1)):
        _ears(blob, kind, x, skull, head, palette)
        ear = {"fox": 0.4, "deer": 0.1, "bear": 0.3, "giraffe": 0.1}[kind]
        _leg(a, blob, side + "Front", "Chest", x * 0.58 * girth, chest, leg, thick, coat, dark, bend=0.06 + 0.02 * ear)
        _leg(a, blob, side + "Hind", "Pelvis", x * 0.58 * girth, hips, leg, 1.12 * thick, coat, dark, bend=-0.11)
    joints = ["Pelvis", "Spine", "Chest", "Neck", "NeckTop", "Head"]
    joints += [f"{name}{part}" for name in LEGS for part in ("Thigh", "Shank", "Foot")]
    joints += _tail(a, blob, kind, hips, girth, tail, palette)
    spots, low = draw.choice("coat", ("plain", "spots", "stripes")), leg - 0.4 * girth
    spots = {"giraffe": "patches", "bear": "plain"}.get(kind, spots)

    def paint(p: np.ndarray, normals: np.ndarray, colors: np.ndarray) -> np.ndarray:
        is_coat = np.abs(colors - linear(coat)).max(-1) < 0.02
        mark = _coat_mark(spots, p, draw) * is_coat * (p[:, 1] > (0.12 if spots == "patches" else low))
        colors = colors + mark[:, None] * (linear(palette.second) - colors) * 0.8
        pale = np.clip((-normals[:, 1] - 0.25) * 2.2, 0, 1) * (p[:, 1] > low - 0.3 * girth) * is_coat
        return colors + pale[:, None] * (linear(under) - colors) * 0.85

    mesh = blob.mesh(cell=0.030 + 0.012 * (girth - 0.14) / 0.1, paint=paint)
    fur, eye = a.material("Coat", roughness=0.75), a.material("Eye", (0.03, 0.025, 0.03), roughness=0.15)
    parts = [(mesh, fur, blob.weights(mesh, joints))]
    for x in (1, -1):
        ball = sphere(0.15 * head, 12).moved(x * 0.62 * head, *(beside(skull, 0, 0.3 * head, 0.72 * head))[1:])
        parts.append((ball, eye, one_bone(ball, joints, "Head")))
    if kind == "deer":
        antlers = _antlers(skull, head, dark)
        parts.append((antlers, fur, one_bone(antlers, joints, "Head")))
    a.skinned("Animal body", parts, joints)
    _quadruped_motions(a, draw, leg, length)
    return a


def _leg(a, blob, name, parent, x, top, height, thick, coat, dark, bend) -> None:
    hip = np.array([x, top[1] - 0.02, top[2]])
    knee, ankle = np.array([x, 0.47 * height, top[2] + bend]), np.array([x * 1.05, 0.075, top[2]])
    a.joint(name + "Thigh", parent, hip)
    a.joint(name + "Shank", name + "Thigh", knee)
    a.joint(name + "Foot", name + "Shank", ankle)
    blob.rod(name + "Thigh", coat, hip, knee, 1.75 * thick, 0.95 * thick)
    blob.rod(name + "Shank", coat, knee, ankle, 0.9 * thick, 0.62 * thick, blend=0.03)
    blob.rod(
        name + "Foot",
        dark,
        beside(ankle, 0, -0.015, 0),
        beside(ankle, 0, -0.03, 0.055),
        0.7 * thick,
        0.62 * thick,
        0.02,
    )


def _tail(a, blob, kind, hips, girth, tail, palette) -> list[str]:
    start, names = beside(hips, 0, 0.45 * girth, -0.75 * girth), []
    droop = {"fox": -0.25, "deer": 0.5, "bear": 0.0, "giraffe": -0.95}[kind]
    direction = np.array([0, droop, -1.0]) / np.hypot(droop, 1)
    fat = {"fox": (0.05, 0.105, 0.05), "deer": (0.045, 0.05, 0.03), "bear": (0.06, 0.06, 0.06)}
    r = fat.get(kind, (0.03, 0.022, 0.045))
    for k in range(2):
        p, q = start + direction * tail * k / 2, start + direction * tail * (k + 1) / 2
        names.append(a.joint(f"Tail{k + 1}", "Pelvis" if k == 0 else "Tail1", p))
        color = palette.main if k == 0 else palette.light if kind == "fox" else palette.dark
        blob.rod(names[-1], color, p, q, r[k], r[k + 1], blend=0.05)
    return names


def _ears(blob, kind, x, skull, head, palette) -> None:
    base = skull + np.array([x * 0.5 * head, 0.7 * head, -0.1 * head])
    if kind == "bear":
        blob.ball(
            "Head",
            palette.main,
            beside(base, x * 0.15 * head, 0.15 * head, 0),
            (0.4 * head, 0.44 * head, 0.2 * head),
            blend=0.02,
        )
        return
    tip = base + np.array([x * 0.3, 0.95 if kind == "fox" else 0.25, -0.15]) * head
    if kind != "fox":
        tip = base + np.array([x * 0.95, 0.15, -0.25]) * head
    blob.rod("Head", palette.main, base, tip, 0.3 * head, 0.1 * head, blend=0.02)
    if kind == "giraffe":
        horn = skull + np.array([x * 0.3 * head, 0.7 * head, 0])
        blob.rod(
            "Head", palette.dark, horn, beside(horn, 0, 0.85 * head, -0.2 * head), 0.14 * head, 0.19 * head, blend=0.01
        )


def _antlers(skull: np.ndarray, head: float, color: tuple[float, float, float]) -> Mesh:
    """Two antlers of three rods; their own mesh, because they are thinner than the body's grid."""
    rods = []
    for x in (1, -1):
        root, fork, tip, tine = (
            beside(skull, x * a * head, b * head, c * head)
            for a, b, c in ((0.35, 0.7, 0.0), (1.2, 1.9, -0.5), (1.5, 3.3, 0.2), (1.45, 2.7, 0.75))
        )
        rods += [capsule(root, fork, 0.17 * head, 0.13 * head, 10), capsule(fork, tip, 0.13 * head, 0.07 * head, 10)]
        rods.append(capsule(fork, tine, 0.11 * head, 0.06 * head, 10))
    return join(*rods).painted(color)


def _coat_mark(kind: str, p: np.ndarray, draw: Draw) -> np.ndarray:
    if kind == "plain":
        return np.zeros(len(p))
    if kind == "stripes":
        return (np.sin(40 * p[:, 2] + 3 * np.sin(9 * p[:, 1])) > 0.25) * 1.0
    count = 60 if kind == "patches" else 45
    low, high = p.min(0), p.max(0)
    at = np.array([[draw.uniform(f"mark{k}{axis}", low[axis], high[axis]) for axis in range(3)] for k in range(count)])
    at = p[np.argmin(np.linalg.norm(p[None] - at[:, None], axis=-1), axis=1)]
    d = np.sort(np.linalg.norm(p[:, None] - at[None], axis=-1), axis=1)
    return (d[:, 1] - d[:, 0] > 0.022) * 1.0 if kind == "patches" else np.clip((0.042 - d[:, 0]) * 80, 0, 1)


def _quadruped_motions(a: Assembly, draw: Draw, leg: float, length: float) -> None:
    limbs = {n: Limb(n + "Thigh", n + "Shank", n + "Foot", knee_forward="Front" in n) for n in LEGS}
    rest = {n: a.place(n + "Foot") for n in LEGS}

    def gait(pose: Pose, p: float, phases: dict[str, float], stride: float, lift: float, duty: float) -> Pose:
        for name, limb in limbs.items():
            z, y = footfall(p + phases[name], stride, lift, duty)
            a.plant(pose, limb, beside(rest[name], 0, y, z), foot_pitch_deg=28 * (y / lift) if z < 0.1 * stride else 0)
        return pose

    def walk(p: float) -> Pose:
        pose: Pose = {
            "Pelvis.t": (0.012 * wave(p), 0.012 * wave(p, 2, 0.1) - 0.02, 0),
            "Pelvis": (0, 3 * wave(p), 2 * wave(p, 1, 0.2)),
            "Spine": (0, -3 * wave(p), 0),
            "Chest": (0, -3 * wave(p), -2 * wave(p, 1, 0.2)),
            "Neck": (3 * wave(p, 2, 0.3), 0, 0),
            "NeckTop": (0, 2 * wave(p), 0),
            "Head": (-4 * wave(p, 2, 0.35), 0, 0),
            "Tail1": (4 * wave(p, 2), 10 * wave(p), 0),
            "Tail2": (0, 14 * wave(p, 1, 0.15), 0),
        }
        phases = {"LeftHind": 0.0, "LeftFront": 0.75, "RightHind": 0.5, "RightFront": 0.25}
        return gait(pose, p, phases, 0.5 * leg, 0.16 * leg, 0.64)

    def run(p: float) -> Pose:
        flex = wave(p, 1, 0.1)
        pose: Pose = {
            "Pelvis.t": (0, 0.06 * leg * wave(p, 1, 0.45) + 0.01, 0),
            "Pelvis": (9 * flex, 0, 0),
            "Spine": (-14 * flex, 0, 0),
            "Chest": (-4 * flex, 0, 0),
            "Neck": (14 + 10 * flex, 0, 0),
            "NeckTop": (4 * flex, 0, 0),
            "Head": (-12 - 5 * flex, 0, 0),
            "Tail1": (26 + 12 * wave(p, 1, 0.3), 0, 0),
            "Tail2": (10 * wave(p, 1, 0.5), 0, 0),
        }
        phases = {"LeftHind": 0.0, "RightHind": 0.9, "LeftFront": 0.48, "RightFront": 0.38}
        return gait(pose, p, phases, 0.95 * leg, 0.30 * leg, 0.38)

    def look(p: float) -> Pose:
        turn, nod = 34 * (bump(p, 0.05, 0.45) - bump(p, 0.5, 0.95)), bump(p, 0.3, 0.6)
        pose: Pose = {
            "Pelvis.t": (0.012 * wave(p), 0.006 * wave(p, 3), 0),
            "Spine": (0.8 * wave(p, 3), 0.1 * turn, 0),
            "Chest": (0, 0.1 * turn, 0),
            "Neck": (-6 * nod, 0.35 * turn, 0),
            "NeckTop": (0, 0.35 * turn, 0),
            "Head": (9 * nod, 0.4 * turn, 16 * wave(p) * nod),
            "Tail1": (0, 22 * wave(p, 8), 0),
            "Tail2": (0, 26 * wave(p, 8, 0.15), 0),
        }
        return gait(pose, 0.32, dict.fromkeys(LEGS, 0.0), 0.001, 0.001, 0.64)

    far, high = draw.uniform("leap", 1.3, 1.9) * length, draw.uniform("height", 0.55, 0.85) * leg

    def jump(p: float) -> Pose:
        crouch, air = bump(p, 0.0, 0.36) + 0.6 * bump(p, 0.66, 1.0), ease(p, 0.26, 0.72)
        up, pitch = 4 * air * (1 - air), track(p, (0, 0), (0.3, -17), (0.5, -2), (0.68, 9), (0.88, 0), (1, 0))
        pose: Pose = {
            "Pelvis.t": (0, high * up - 0.24 * leg * crouch - 0.02, far * air),
            "Pelvis": (pitch, 0, 0),
            "Spine": (5 * crouch - 6 * up, 0, 0),
            "Chest": (0, 0, 0),
            "Neck": (-0.4 * pitch - 8 * up, 0, 0),
            "NeckTop": (0, 0, 0),
            "Head": (-0.4 * pitch + 10 * crouch, 0, 0),
            "Tail1": (30 * up, 0, 0),
            "Tail2": (20 * up, 0, 0),
        }
        for name, limb in limbs.items():
            front = 1.0 if "Front" in name else 0.0
            late = ease(p, 0.22, 0.64) if front else ease(p, 0.3, 0.74)
            hop = 4 * late * (1 - late)
            target = beside(
                rest[name],
                0,
                (high + (0.22 if front else 0.12) * leg) * hop,
                far * late + (0.12 if front else -0.14) * leg * hop,
            )
            a.plant(pose, limb, target, foot_pitch_deg=(30 if front else 45) * hop)
        return pose

    def stand(p: float) -> Pose:
        pose: Pose = {"Pelvis.t": (0, -0.02, 0), "Neck": (10, 18, 0), "Head": (-6, 12, 0), "Tail1": (-12, 20, 0)}
        return gait(pose, 0.32, {n: 0.05 * k for k, n in enumerate(LEGS)}, 0.3 * leg, 0.01, 0.64)

    a.animate("Walk", Motion(pose=walk, duration_s=round(draw.uniform("walk", 1.0, 1.35), 2), keys=25), loops=True)
    a.animate("Run", Motion(pose=run, duration_s=0.6, keys=19), loops=True)
    a.animate("Look", Motion(pose=look, duration_s=4.5, keys=73), loops=True)
    a.animate("Jump", Motion(pose=jump, duration_s=round(draw.uniform("jump", 2.0, 2.4), 2), keys=41))
    a.animate("Stand", Motion(pose=stand, duration_s=0.0, keys=1))
