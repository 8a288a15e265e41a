"""Skinned fliers: a bird that flaps and glides, and a hummingbird whose wings beat many times a second.

Wings are thin closed lofts along the span, weighted to three joints a side by their distance from the shoulder. The
bird is written two hundredths of a unit long, the hummingbird in tens.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .assembly import Assembly, Motion
from .blob import Blob
from .draw import Draw, Palette, linear
from .mesh import (
    Mesh,
    loft,
    sphere,
    tube,
)
from .motion import Pose, bump, ease, pulse, track, wave
from .skin import chain_weights, one_bone

__all__ = ["bird", "hummingbird"]


def _wing(side: int, root: np.ndarray, span: float, chord: float, palette: Palette, fingers: int) -> Mesh:
    """A feathered wing from `root` outwards along x; flat, leading edge towards +z."""
    s = np.linspace(0, 1, 4 * fingers + 5)
    width = chord * np.interp(s, [0, 0.25, 0.6, 0.85, 1], [0.85, 1.0, 0.95, 0.6, 0.06])
    sweep = chord * np.interp(s, [0, 0.35, 1], [0.0, 0.18, -0.45])
    notch = 1 - 0.16 * np.abs(np.sin(np.pi * s * fingers)) * (s > 0.1)
    angle = np.linspace(0, 2 * np.pi, 14, endpoint=False)
    rings = []
    for k, t in enumerate(s):
        z = (
            sweep[k]
            + width[k] * (0.45 + 0.55 * np.cos(angle))
            - 0.55 * width[k] * (notch[k] - 1) * (np.cos(angle) < -0.3)
        )
        y = 0.055 * width[k] * np.sin(angle) + 0.10 * chord * np.sin(np.pi * t)
        rings.append(np.stack([np.full(14, root[0] + side * span * t), root[1] + y, root[2] + z - 0.4 * chord], -1))
    mesh = loft(np.array(rings), crease_deg=75)
    out = np.abs(mesh.positions[:, 0] - root[0]) / span
    back = np.clip((root[2] + 0.1 * chord - mesh.positions[:, 2]) / chord, 0, 1)
    tone = linear(palette.main) * (1 - out[:, None] ** 2) + linear(palette.dark) * out[:, None] ** 2
    band = np.clip((back - 0.32) * 6, 0, 1)[:, None] * (1 - 0.6 * out[:, None])
    return replace(mesh, colors=tone + band * (linear(palette.accent) - tone))


def _flier(a: Assembly, draw: Draw, palette: Palette, *, span: float, chord: float, bill: float, plump: float) -> None:
    back, belly = palette.main, palette.light
    a.node("Flier")
    a.joint("Body", None, (0, 0, 0))
    a.joint("Neck", "Body", (0, 0.10, 0.28))
    a.joint("Head", "Neck", (0, 0.18, 0.40))
    a.joint("Tail", "Body", (0, 0.02, -0.36))
    blob = Blob(blend=0.12)
    blob.ball("Body", back, (0, 0, 0), (0.17 * plump, 0.17 * plump, 0.38))
    blob.rod("Neck", back, (0, 0.06, 0.24), (0, 0.17, 0.38), 0.13 * plump, 0.10)
    blob.ball("Head", palette.second, (0, 0.2, 0.43), (0.115, 0.115, 0.13), blend=0.06)
    joints = ["Body", "Neck", "Head", "Tail"]
    fork = draw.uniform("fork", 0.06, 0.22)
    for side, x in (("Left", 1), ("Right", -1)):
        blob.rod("Tail", palette.main, (0, 0.0, -0.3), (x * fork, 0.02, -0.78), 0.06, 0.03, blend=0.1)
        for k, part in enumerate(("Wing", "Mid", "Tip")):
            above = "Body" if k == 0 else side + ("Wing", "Mid")[k - 1]
            joints.append(a.joint(side + part, above, (x * (0.10 + span * (0.0, 0.33, 0.66)[k]), 0.09, 0.10)))

    def paint(p: np.ndarray, normals: np.ndarray, colors: np.ndarray) -> np.ndarray:
        under = np.clip(-normals[:, 1] * 2 + 0.1, 0, 1) * (p[:, 2] < 0.36) * (p[:, 2] > -0.4)
        return colors + under[:, None] * (linear(belly) - colors)

    mesh = blob.mesh(cell=0.042, paint=paint)
    feathers, eye = a.material("Feathers", roughness=0.7), a.material("Eye", (0.02, 0.02, 0.03), roughness=0.1)
    beak = tube(
        [(0, 0.185, 0.5), (0, 0.18, 0.54 + 0.5 * bill), (0, 0.16, 0.55 + bill)],
        np.array([1.0, 0.5, 0.12]) * (0.055 if bill < 0.3 else 0.034),
        segments=10,
    ).painted(palette.accent)
    parts = [(mesh, feathers, _body_weights(blob, mesh, joints))]
    for side, x in (("Left", 1), ("Right", -1)):
        wing = _wing(
            x, np.array([x * 0.06, 0.09, 0.10]), span + 0.04, chord, palette, fingers=draw.integer("fingers", 6, 9)
        )
        along = (np.abs(wing.positions[:, 0]) - 0.10) / span
        columns = [joints.index("Body")] + [joints.index(side + p) for p in ("Wing", "Mid", "Tip")]
        parts.append((wing, feathers, chain_weights(along, [-0.04, 0.14, 0.5, 0.85], columns, len(joints))))
        ball = sphere(0.03, 10).moved(x * 0.088, 0.225, 0.485)
        parts.append((ball, eye, one_bone(ball, joints, "Head")))
    parts.append((beak, feathers, one_bone(beak, joints, "Head")))
    a.skinned("Flier body", parts, joints)


def _body_weights(blob: Blob, mesh: Mesh, joints: list[str]) -> np.ndarray:
    own = ["Body", "Neck", "Head", "Tail"]
    weights = np.zeros((len(mesh.positions), len(joints)))
    weights[:, : len(own)] = blob.weights(mesh, own)
    return weights


def _wings(pose: Pose, root: float, mid: float, tip: float, twist: float = 0.0, swing: float = 0.0) -> Pose:
    """Both wings alike, in degrees: raised at three joints, twisted nose-down, swung forwards."""
    for side, x in (("Left", 1), ("Right", -1)):
        pose[side + "Wing"] = (twist, -x * swing, x * root)
        pose[side + "Mid"] = (0.4 * twist, 0, x * mid)
        pose[side + "Tip"] = (0.6 * twist, 0, x * tip)
    return pose


def bird(draw: Draw) -> Assembly:
    """Flap, Glide, Takeoff (root motion) and Dive."""
    a, palette = Assembly(unit=0.02), draw.palette()
    span = draw.uniform("span", 0.75, 1.1)
    _flier(
        a,
        draw,
        palette,
        span=span,
        chord=draw.uniform("chord", 0.34, 0.46),
        bill=draw.uniform("bill", 0.07, 0.2),
        plump=draw.uniform("plump", 0.85, 1.25),
    )

    def beat(p: float, cycles: float, size: float = 1.0) -> Pose:
        pose = _wings(
            {},
            size * (42 * wave(p, cycles) + 8),
            size * 26 * wave(p, cycles, 0.14),
            size * 32 * wave(p, cycles, 0.24),
            twist=size * 14 * wave(p, cycles, -0.25),
        )
        pose["Body.t"] = (0, -0.09 * size * wave(p, cycles, 0.05), 0)
        pose["Neck"], pose["Head"] = (-5 * size * wave(p, cycles), 0, 0), (3 * size * wave(p, cycles), 0, 0)
        pose["Tail"] = (10 * size * wave(p, cycles, 0.3), 0, 0)
        return pose

    def glide(p: float) -> Pose:
        bank, around = 26 * wave(p), 2 * np.pi * p
        pose = _wings({}, 9 + 3 * wave(p, 3), 5 + 3 * wave(p, 3, 0.1), 8 + 5 * wave(p, 3, 0.2), twist=3 * wave(p, 2))
        pose["Body"] = (4 * wave(p, 2), 16 * np.sin(around), -bank)
        pose["Body.t"] = (0.5 * np.sin(around), 0.08 * wave(p, 2), 0.15 * np.cos(around) - 0.15)
        pose["Neck"], pose["Head"] = (0, 8 * wave(p), 0.4 * bank), (0, 8 * wave(p), 0.4 * bank)
        pose["Tail"] = (4 * wave(p, 3), 0, 0.5 * bank)
        return pose

    rise = draw.uniform("rise", 1.6, 2.4)

    def takeoff(p: float) -> Pose:
        go = ease(p, 0.12, 1.15)
        pose = beat(p, 6, 0.4 + 0.75 * ease(p, 0, 0.2))
        pose["Body.t"] = (0, pose["Body.t"][1] + rise * go, 2.2 * rise * go)
        pose["Body"] = (-32 * bump(p, 0.0, 0.95), 0, 0)
        return pose

    def dive(p: float) -> Pose:
        fold = track(p, (0, 0), (0.3, 1), (0.62, 1), (0.85, 0), (1, 0))
        pose = _wings({}, 10 - 5 * fold, 6 * (1 - fold), 8 * (1 - fold), swing=-48 * fold)
        for side, x in (("Left", 1), ("Right", -1)):
            pose[side + "Mid"] = (0, -x * 20 * fold, 0)
            pose[side + "Tip"] = (0, x * 38 * fold, 0)
        pitch = track(p, (0, 0), (0.3, 52), (0.6, 52), (0.85, -14), (1, 0))
        pose["Body"], pose["Body.t"] = (pitch, 0, 0), (0, -1.5 * ease(p, 0.15, 0.85), 1.6 * p)
        pose["Neck"], pose["Head"], pose["Tail"] = (-0.2 * pitch, 0, 0), (-0.15 * pitch, 0, 0), (-0.2 * pitch, 0, 0)
        return pose

    flap_s = round(draw.uniform("flap", 0.65, 0.9), 3)
    a.animate("Flap", Motion(pose=lambda p: beat(p, 1), duration_s=flap_s, keys=21), loops=True)
    a.animate("Glide", Motion(pose=glide, duration_s=5.0, keys=61), loops=True)
    a.animate("Takeoff", Motion(pose=takeoff, duration_s=2.75, keys=89))
    a.animate("Dive", Motion(pose=dive, duration_s=2.2, keys=34))
    return a


def hummingbird(draw: Draw) -> Assembly:
    """Hover, Sip and an animation without a name; the wings beat 10 to 14 times a second."""
    a, palette = Assembly(unit=10.0), draw.palette()
    _flier(
        a,
        draw,
        palette,
        span=draw.uniform("span", 0.55, 0.7),
        chord=0.26,
        bill=draw.uniform("bill", 0.34, 0.5),
        plump=0.95,
    )
    beats = draw.integer("beats", 10, 14)

    def hum(p: float, cycles: int) -> Pose:
        return _wings(
            {},
            6 + 10 * wave(p, 2 * cycles),
            4 * wave(p, cycles),
            6 * wave(p, cycles, 0.1),
            twist=-30 * wave(p, cycles, 0.25),
            swing=58 * wave(p, cycles),
        )

    def hover(p: float) -> Pose:
        return {
            "Body": (-38 + 3 * wave(p), 4 * wave(p), 0),
            "Body.t": (0.03 * wave(p, 1, 0.25), 0.05 * wave(p, 2), 0),
            "Neck": (14, -4 * wave(p), 0),
            "Head": (24 + 3 * wave(p, 2), 0, 0),
            "Tail": (14 + 14 * pulse(p, 2), 0, 0),
        }

    def sip(p: float) -> Pose:
        near = bump(p, 0.05, 0.5) + bump(p, 0.5, 0.95)
        pose = hover(p)
        pose["Body.t"] = (0, 0.04 * wave(p, 4), 0.42 * near)
        pose["Head"], pose["Body"] = (24 + 12 * near, 0, 0), (-38 + 14 * near, 0, 0)
        return pose

    def dart(p: float) -> Pose:
        x, y = (
            track(p, (0, 0), (0.22, v), (0.36, v), (0.6, w), (0.74, w), (1, 0)) for v, w in ((1.1, -0.9), (0.35, 0.5))
        )
        lean = track(p, (0, 0), (0.12, -40), (0.3, 0), (0.36, 0), (0.5, 44), (0.68, 0), (0.74, 0), (0.88, -36), (1, 0))
        return hover(p) | {"Body.t": (x, y, 0), "Body": (-30, 0, lean)}

    for name, body, duration_s in (("Hover", hover, 1.0), ("Sip", sip, 2.4), (None, dart, 2.0)):
        cycles = max(1, round(beats * duration_s))
        wings = Motion(pose=lambda p, n=cycles: hum(p, n), duration_s=duration_s, keys=8 * cycles + 1)
        a.animate(name, Motion(pose=body, duration_s=duration_s), wings, loops=True)
    return a
