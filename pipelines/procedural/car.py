"""A car (saloon, van or truck by draw) whose root moves and whose wheels turn as far as it goes.

The body leans and dips on its springs; nothing is skinned.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Motion
from .draw import Draw
from .mesh import (
    Mesh,
    box,
    join,
    loft,
    sphere,
    torus,
)
from .motion import Pose, bump, ease, wave
from .parts import axle, ring_x
from .texture import noise, ramp

__all__ = ["car"]


def car(draw: Draw) -> Assembly:
    """Drive and Turn (root motion), Idle, and Bounce on its springs."""
    a, palette = Assembly(unit=1.0), draw.palette()
    kind = draw.choice("kind", ("beetle", "van", "truck"))
    length, wide, wheel = (
        draw.uniform("length", 0.95, 1.1),
        draw.uniform("wide", 0.9, 1.05),
        draw.uniform("wheel", 0.30, 0.36),
    )
    paint, trim = (
        a.material("Paint", palette.main, metallic=0.35, roughness=0.25),
        a.material("Trim", palette.second, roughness=0.4),
    )
    glass, rubber = (
        a.material("Glass", (0.14, 0.2, 0.26), metallic=0.2, roughness=0.05),
        a.material("Tyre", (0.05, 0.05, 0.055), roughness=0.9),
    )
    chrome = a.material("Chrome", (0.85, 0.85, 0.87), metallic=1.0, roughness=0.15)
    light, stop = (
        a.material("Headlight", (1, 0.95, 0.8), emissive=(1.0, 0.92, 0.7)),
        a.material("Tail light", (0.8, 0.05, 0.05), emissive=(0.6, 0.02, 0.02)),
    )
    wood = a.material(
        "Load", texture=ramp([(0.55, 0.38, 0.22), (0.72, 0.52, 0.32)], 64, noise(draw, "load", 64)), roughness=0.9
    )
    a.node("Car")
    a.node("Body", "Car", (0, wheel, 0))
    roofs = {
        "beetle": [(0.62, 0.3), (0.38, 0.66), (0.0, 0.76), (-0.45, 0.68), (-0.92, 0.34)],
        "van": [(0.92, 0.32), (0.74, 0.78), (0.6, 0.84), (-1.08, 0.84), (-1.12, 0.32)],
        "truck": [(0.72, 0.32), (0.55, 0.78), (0.4, 0.82), (-0.02, 0.82), (-0.06, 0.32)],
    }
    hull = _car_hull(length, wide)
    top = np.array(roofs[kind]) * [length, 1.0]
    a.node(
        "Hull",
        "Body",
        parts=[
            (hull, paint),
            (join(*(box(0.98 * wide, 0.1, 0.12, 0.04).moved(0, 0.03, z * length) for z in (1.26, -1.26))), chrome),
        ],
    )
    span, middle = (top[:, 1].min(), top[:, 1].max()), top.mean(0)
    shell = _roof(top, 0.98 * wide, 0.80 * wide, span, lower=0.1)
    panes = _roof(middle + (top - middle) * [0.84, 0.74], 1.0 * wide, 0.82 * wide, span)
    screens = _roof(middle + (top - middle) * [1.05, 0.74], 0.84 * wide, 0.66 * wide, span)
    a.node("Roof", "Body", parts=[(shell, trim), (panes, glass), (screens, glass)])
    if kind == "truck":
        walls = [box(1.1 * wide, 0.3, 0.06, 0.015).moved(0, 0.42, z * length) for z in (-0.12, -1.18)]
        walls += [box(0.06, 0.3, 1.1 * length, 0.015).moved(x * 0.52 * wide, 0.42, -0.65 * length) for x in (1, -1)]
        a.node("Bed", "Body", parts=[(join(*walls), trim)])
        a.node("Load", "Bed", (0, 0.55, -0.65 * length), turn=(0, 12, 0), parts=[(box(0.5, 0.42, 0.5, 0.03), wood)])
    for x in (1, -1):
        side = "Left" if x > 0 else "Right"
        a.node(
            side + "Lamp",
            "Body",
            (x * 0.42 * wide, 0.2, 1.2 * length),
            parts=[(sphere(0.11, 16).scaled(1, 1, 0.7), light)],
        )
        a.node(side + "Stop", "Body", (x * 0.45 * wide, 0.2, -1.2 * length), parts=[(box(0.18, 0.1, 0.08, 0.03), stop)])
        for end, z in (("Front", 0.78), ("Rear", -0.78)):
            tyre = torus(0.7 * wheel, 0.3 * wheel, 32, 12).scaled(1, 1.25, 1).turned(roll_deg=90)
            spokes = [box(0.12, 1.15 * wheel, 0.16 * wheel, 0.01).turned(pitch_deg=angle) for angle in (0, 60, 120)]
            hub = join(axle(0.22 * wheel, 0.17, 0.02, 16), *spokes, ring_x(0.58 * wheel, 0.5 * wheel, 0.14))
            a.node(f"{side}{end}Steer", "Car", (x * 0.56 * wide, wheel, z * length))
            a.node(f"{side}{end}Wheel", f"{side}{end}Steer", parts=[(tyre, rubber), (hub, chrome)])
    wheels = [f"{s}{e}Wheel" for s in ("Left", "Right") for e in ("Front", "Rear")]

    def rolling(gone: float, steer: float = 0.0) -> Pose:
        pose: Pose = {w: (np.degrees(gone / wheel), 0, 0) for w in wheels}
        return pose | {"LeftFrontSteer": (0, steer, 0), "RightFrontSteer": (0, steer, 0)}

    far = draw.uniform("far", 4.5, 7.0)

    def drive(p: float) -> Pose:
        go = far * ease(p, 0.02, 0.98)
        squat = -4 * bump(p, 0.05, 0.5) + 5 * bump(p, 0.5, 0.97)
        return rolling(go) | {
            "Car.t": (0, 0, go),
            "Body": (squat, 0, 0.6 * wave(p, 6)),
            "Body.t": (0, 0.02 * wave(p, 9), 0),
        }

    radius = wheel * draw.integer("radius", 7, 9)  # so that a full circle is whole turns of the wheels

    def turn(p: float) -> Pose:
        t = 2 * np.pi * p
        pose = rolling(radius * t, 24)
        place = (radius * (1 - np.cos(t)), 0, radius * np.sin(t))
        return pose | {
            "Car.t": place,
            "Car": (0, np.degrees(t), 0),
            "Body": (0, 0, 4 + wave(p, 7)),
            "Body.t": (0, 0.012 * wave(p, 16), 0),
        }

    def idle(p: float) -> Pose:
        return {
            "Body.t": (0, 0.012 * wave(p, 8), 0),
            "Body": (0.5 * wave(p, 8, 0.2), 0, 0.8 * wave(p, 4)),
            "LeftLamp.s": (1, 1, 1 + 0.3 * bump(p, 0.4, 0.6)),
            "RightLamp.s": (1, 1, 1 + 0.3 * bump(p, 0.4, 0.6)),
            **rolling(0, 26 * wave(p)),
        }

    def bounce(p: float) -> Pose:
        fade = (1 - p) ** 1.5
        up = abs(wave(p, 2)) * fade
        return {
            "Car.t": (0, 0.7 * up, 0),
            "Body.t": (0, -0.10 * bump((p * 4) % 1, 0.6, 1.0) * fade, 0),
            "Body": (7 * wave(p, 4) * fade, 0, 0),
        } | rolling(0)

    a.animate("Drive", Motion(pose=drive, duration_s=round(draw.uniform("drive", 2.2, 3.0), 2), keys=61))
    a.animate("Turn", Motion(pose=turn, duration_s=4.5, keys=109), loops=True)
    a.animate("Idle", Motion(pose=idle, duration_s=2.0, keys=65), loops=True)
    a.animate("Bounce", Motion(pose=bounce, duration_s=1.6, keys=49), loops=True)
    return a


def _rounded_section(wide: float, low: float, high: float, count: int = 24, power: float = 5.0) -> np.ndarray:
    """(count, 2) a rectangle with soft corners in xy."""
    t = np.linspace(0, 2 * np.pi, count, endpoint=False)
    x = np.sign(np.cos(t)) * np.abs(np.cos(t)) ** (2 / power)
    y = np.sign(np.sin(t)) * np.abs(np.sin(t)) ** (2 / power)
    return np.stack([0.5 * wide * x, 0.5 * (low + high) + 0.5 * (high - low) * y], -1)


def _car_hull(length: float, wide: float) -> Mesh:
    z = np.array([-1.28, -1.26, -1.1, -0.6, 0.0, 0.6, 1.08, 1.25, 1.28]) * length
    high = np.array([0.2, 0.26, 0.36, 0.40, 0.40, 0.38, 0.33, 0.22, 0.16])
    low = np.array([0.0, -0.06, -0.14, -0.14, -0.14, -0.14, -0.14, -0.06, 0.0])
    broad = np.array([0.8, 0.95, 1.08, 1.14, 1.16, 1.14, 1.08, 0.95, 0.8]) * wide
    rings = [
        np.column_stack([_rounded_section(b, lo, hi), np.full(24, d)])
        for d, b, lo, hi in zip(z, broad, low, high, strict=True)
    ]
    return loft(np.array(rings), crease_deg=50)


def _roof(side: np.ndarray, base: float, top: float, span: tuple[float, float], lower: float = 0.0) -> Mesh:
    """A cabin from its (z, y) side line, front to back; `base` wide at span's first height, `top` at its second."""
    low, high = span
    floor = side[:, 1].min() - lower
    outline = np.concatenate([side, [[side[-1, 0], floor - 1e-3], [side[0, 0], floor - 1e-3]]])
    center = outline.mean(0)
    layers = []
    for shrink, place in ((0.96, -1.0), (1.0, -0.95), (1.0, 0.95), (0.96, 1.0)):
        zy = center + (outline - center) * shrink
        half = 0.5 * (base + (top - base) * np.clip((zy[:, 1] - low) / (high - low), 0, 1))
        layers.append(np.stack([place * half, zy[:, 1], zy[:, 0]], -1))
    return loft(np.array(layers), crease_deg=35)
