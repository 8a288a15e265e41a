"""A skinned snake of sixteen joints that follows its own track on the ground, and strikes.

The chain starts at the tail, so that raising the front leaves the rest lying.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .assembly import Assembly, Motion
from .blob import Blob
from .draw import Draw
from .mesh import (
    sphere,
    tube,
)
from .motion import Pose, bump, track, wave
from .skin import chain_weights, one_bone
from .texture import dots, stripes

__all__ = ["snake"]


def snake(draw: Draw) -> Assembly:
    """Slither (root motion), Strike (fractional end) and Sway; a rising front body with a tongue."""
    a, palette = Assembly(unit=1.0), draw.palette()
    count, length, r = 16, 2.2, draw.uniform("girth", 0.09, 0.125)
    pattern = draw.choice("pattern", ("bands", "diamonds"))
    make = {
        "bands": lambda: stripes(palette.main, palette.second, 14, slant=0, share=0.4),
        "diamonds": lambda: dots(palette.main, palette.accent, 4, 26),
    }
    skin = a.material("Skin", texture=make[pattern](), roughness=0.45)
    head_skin, eye = a.material("Head", palette.main, roughness=0.45), a.material("Eye", palette.accent, roughness=0.15)
    tongue_red = a.material("Tongue", (0.75, 0.1, 0.15), roughness=0.4)
    z = np.linspace(0, -length, 90)
    t = -z / length
    radius = r * np.interp(t, [0, 0.06, 0.35, 0.75, 1], [0.62, 0.72, 1.0, 0.75, 0.12])
    body = tube(np.stack([0 * z, r + 0 * z, z], -1), np.stack([radius, 0.9 * radius], -1), segments=14, crease_deg=80)
    stops = np.linspace(0, length * 0.97, count)
    names = [f"Bone{k:02d}" for k in range(count)]
    for k, name in enumerate(reversed(names)):  # from the tail to the head, so that the head rides on the body
        a.joint(name, None if k == 0 else names[count - k], (0, r, -stops[count - 1 - k]))
    a.joint("Head", "Bone00", (0, r, 0.02))
    a.joint("Tongue", "Head", (0, r, 0.30))
    joints = [*names, "Head", "Tongue"]
    along = np.clip(-body.positions[:, 2], 0, length)
    parts = [(body, skin, chain_weights(along, list(stops), list(range(count)), len(joints)))]
    blob = Blob(blend=0.05).ball("Head", palette.main, (0, r, 0.12), (1.15 * r, 0.7 * r, 1.6 * r))
    blob.rod("Head", palette.main, (0, r, 0.0), (0, r, -0.05), 0.75 * r, 0.7 * r)
    blob.ball("Head", palette.main, (0, 0.92 * r, 0.24), (0.72 * r, 0.45 * r, 0.9 * r))
    head = replace(blob.mesh(cell=0.026), colors=None)
    parts.append((head, head_skin, one_bone(head, joints, "Head")))
    for x in (1, -1):
        ball = sphere(0.2 * r, 10).moved(x * 0.72 * r, 1.42 * r, 0.2)
        parts.append((ball, eye, one_bone(ball, joints, "Head")))
        fork = tube(
            [(0, 0.82 * r, 0.26), (0, 0.82 * r, 0.40), (x * 0.04, 0.82 * r, 0.48)], [0.011, 0.01, 0.006], segments=6
        )
        parts.append((fork, tongue_red, one_bone(fork, joints, "Tongue")))
    a.skinned("Snake body", parts, joints)
    bend, wavelength = draw.uniform("bend", 48, 60), 1.25
    root = names[-1]
    track_s = np.linspace(0, 4, 401)  # the whole body follows one curve on the ground, so nothing slips sideways
    heading = np.radians(bend) * np.sin(2 * np.pi * track_s / wavelength)
    sideways, ahead = np.cumsum(np.sin(heading)) * 0.01, np.cumsum(np.cos(heading)) * 0.01

    def crawl(gone: float) -> Pose:
        """The body along its curve, the tail's tip at distance `gone` from its start."""
        turn = {n: bend * np.sin(2 * np.pi * (gone + stops[-1] - stops[k]) / wavelength) for k, n in enumerate(names)}
        pose: Pose = {n: (0, turn[n] - (turn[names[k + 1]] if n != root else 0), 0) for k, n in enumerate(names)}
        x, z = np.interp(gone, track_s, sideways), np.interp(gone, track_s, ahead)
        pose[f"{root}.t"] = (x, 0, z)
        pose["Head"] = (0, -0.8 * turn["Bone00"], 0)
        pose["Tongue.s"] = (1, 1, 0.05 + 0.95 * bump((gone / 0.8) % 1.0, 0.3, 0.6))
        return pose

    def slither(p: float) -> Pose:
        return crawl(2.2 * p)

    def raised(pose: Pose, up: float) -> Pose:
        for k, lift in zip((6, 5, 4, 3, 2, 1, 0), (-14, -22, -24, -14, 6, 28, 26), strict=True):
            pitch, yaw, roll = pose[names[k]]
            pose[names[k]] = (pitch + up * lift, yaw * (1 - up), roll)
        pose["Head"] = (14 * up, pose["Head"][1] * (1 - up), 0)
        return pose

    def strike(p: float) -> Pose:
        hit, up = bump(p, 0.42, 0.66), track(p, (0, 1), (0.34, 1.15), (0.52, 0.15), (0.62, 0.2), (1, 1))
        pose = raised(crawl(0.32), up)
        pose[names[8]] = (0, pose[names[8]][1] * (1 - 0.7 * hit), 0)
        pose[names[7]] = (0, pose[names[7]][1] * (1 - 0.7 * hit), 0)
        x, y, z = pose[f"{root}.t"]
        pose[f"{root}.t"] = (x, y, z + 0.35 * hit - 0.1 * bump(p, 0.0, 0.42))
        pose["Tongue.s"] = (1, 1, 0.05 + 0.95 * bump(p, 0.1, 0.3))
        return pose

    def sway(p: float) -> Pose:
        pose = raised(crawl(0.32), 1 + 0.08 * wave(p, 2))
        for k in range(7):
            pitch, yaw, roll = pose[names[k]]
            pose[names[k]] = (pitch, yaw + 5 * wave(p), roll + 6 * wave(p, 1, 0.05 * k))
        pose["Tongue.s"] = (1, 1, 0.05 + 0.95 * (bump(p, 0.2, 0.3) + bump(p, 0.32, 0.42) + bump(p, 0.7, 0.8)))
        return pose

    a.animate("Slither", Motion(pose=slither, duration_s=round(draw.uniform("slither", 3.2, 3.9), 2), keys=61))
    a.animate("Strike", Motion(pose=strike, duration_s=1.3577, keys=41), loops=True)
    a.animate("Sway", Motion(pose=sway, duration_s=4.6, keys=49), loops=True)
    return a
