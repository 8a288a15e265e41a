"""Families that live on scale, bounce and spin: a heart, a ball and a spinning top.

Squash and stretch keep the volume. The top is the fastest of all: eight turns a second, keys 170 degrees apart.
"""

from __future__ import annotations

import numpy as np

from .assembly import Assembly, Motion
from .blob import Blob
from .draw import Draw
from .mesh import (
    Mesh,
    join,
    lathe,
    smooth_curve,
    sphere,
    tube,
)
from .motion import Pose, bump, ease, saw, wave
from .texture import checker, dots, stripes

__all__ = ["ball", "heart", "spinner"]


def heart(draw: Draw) -> Assembly:
    """Beat, Flutter (0.6 s) and Race (faster and faster, does not close); a glossy body with vessels."""
    a, palette = Assembly(unit=3.0), draw.palette()
    red = draw.choice("color", (palette.accent, palette.main, (0.78, 0.1, 0.16)))
    plump = draw.uniform("plump", 0.9, 1.15)
    blob = Blob(blend=0.34)
    for x in (1, -1):
        blob.rod("b", red, (x * 0.40, 0.34, 0), (0, -0.72, 0), 0.50 * plump, 0.10)
    body = blob.mesh(cell=0.075)
    body = Mesh(body.positions, body.normals, body.uvs, body.triangles)
    a.node("Heart")
    gloss = a.material("Enamel", red, roughness=0.12, metallic=draw.choice("metal", (0.0, 0.85)))
    a.node("Body", "Heart", scale=(1, 1, 0.85), parts=[(body, gloss)])
    pipe = a.material("Vessel", palette.second, roughness=0.3)
    for name, knots, r in (
        ("Aorta", [(0.02, 0.5, 0), (0.02, 0.9, 0), (0.16, 1.08, 0), (0.36, 0.98, 0)], 0.12),
        ("Vein", [(-0.2, 0.6, 0.05), (-0.26, 0.95, 0.05), (-0.42, 1.1, 0.05)], 0.085),
    ):
        line = smooth_curve(knots, 14)
        a.node(name, "Body", parts=[(tube(line, np.linspace(r, 0.85 * r, 14), segments=14, up=(0, 0, 1)), pipe)])

    def beat(p: float, cycles: float = 1.0, size: float = 1.0) -> Pose:
        q = saw(p, cycles)
        s = size * (0.20 * bump(q, 0.02, 0.30) + 0.12 * bump(q, 0.28, 0.58))
        return {
            "Body.s": (1 + 1.1 * s, 1 + 0.8 * s, 1 + 1.4 * s),
            "Heart": (0, 5 * wave(p) * (cycles == 1), 0),
            "Aorta": (0, 0, -14 * s),
            "Vein": (0, 0, 14 * s),
        }

    def race(p: float) -> Pose:
        return beat((p**1.9 * 7.5) % 1.0, 1.0, 0.8 + 0.5 * p) | {"Heart": (0, 25 * wave(p), 0)}

    a.animate("Beat", Motion(pose=beat, duration_s=round(draw.uniform("beat", 0.75, 1.1), 2), keys=25), loops=True)
    a.animate("Flutter", Motion(pose=lambda p: beat(p, 3, 0.5), duration_s=0.6, keys=37), loops=True)
    a.animate("Race", Motion(pose=race, duration_s=4.2, keys=121))
    return a


def ball(draw: Draw) -> Assembly:
    """Bounce (squash and stretch), Roll (root motion), Hop; a textured ball."""
    a, palette = Assembly(unit=0.35), draw.palette()
    patterns = {
        "checker": lambda: checker(palette.main, palette.light, 12, 6),
        "stripes": lambda: stripes(palette.main, palette.accent, 5, slant=0),
        "dots": lambda: dots(palette.main, palette.light, 10, 7),
        "swirl": lambda: stripes(palette.second, palette.light, 3, slant=4),
    }
    skin = a.material("Rubber", texture=patterns[draw.choice("pattern", tuple(patterns))](), roughness=0.4)
    a.node("Ball")
    a.node("Squash", "Ball", (0, -1, 0))
    a.node("Sphere", "Squash", (0, 1, 0), turn=(0, 0, draw.uniform("lean", 0, 40)), parts=[(sphere(1.0, 36), skin)])
    high = draw.uniform("high", 1.0, 1.3)  # higher, and the ball would be a dot in its clip

    def squashed(flat: float) -> tuple[float, float, float]:
        side = 1 / np.sqrt(1 - flat)
        return side, 1 - flat, side

    def bounce(p: float) -> Pose:
        air = min(max((p - 0.12) / 0.76, 0.0), 1.0)
        y = high * 4 * air * (1 - air)
        flat = 0.42 * (bump(p, -0.12, 0.12) + bump(p, 0.88, 1.12)) - 0.22 * (bump(p, 0.1, 0.34) + bump(p, 0.66, 0.9))
        return {"Ball.t": (0, y, 0), "Squash.s": squashed(flat), "Sphere": (0, 360 * p, 0)}

    far = draw.uniform("far", 4.0, 6.0)

    def roll(p: float) -> Pose:
        go = ease(p, 0.05, 1.1) * far
        return {
            "Ball.t": (0, 0, go),
            "Ball": (0, 0, 0),
            "Sphere": (np.degrees(go), 0, 0),
            "Squash.s": squashed(0.12 * bump(p, 0, 0.15)),
        }

    def hop(p: float) -> Pose:
        n, q = min(int(p * 3), 2), saw(p, 3)
        air = min(max((q - 0.25) / 0.6, 0.0), 1.0)
        size = (1.0, 0.62, 0.34)[n]
        flat = size * (0.4 * bump(q, 0, 0.28) - 0.2 * bump(q, 0.26, 0.5) + 0.3 * bump(q, 0.82, 1.0))
        return {
            "Ball.t": (
                0.8 * size * np.sin(2 * np.pi * (n + ease(air)) / 3),
                1.5 * size * 4 * air * (1 - air),
                1.1 * (n + air),
            ),
            "Squash.s": squashed(flat),
        }

    a.animate("Bounce", Motion(pose=bounce, duration_s=round(draw.uniform("bounce", 0.8, 1.0), 2), keys=33), loops=True)
    a.animate("Roll", Motion(pose=roll, duration_s=2.5, keys=61))
    a.animate("Hop", Motion(pose=hop, duration_s=2.4, keys=73))
    return a


def spinner(draw: Draw) -> Assembly:
    """Spin (0.6 s, keys 170 degrees apart), Wobble, and Fall after dead lead time."""
    a, palette = Assembly(unit=5.0), draw.palette()
    fat = draw.uniform("fat", 0.85, 1.15)
    profile = [
        (0, 0),
        (0.03, 0.02),
        (0.06, 0.12),
        (0.3 * fat, 0.42),
        (0.62 * fat, 0.66),
        (0.66 * fat, 0.74),
        (0.6 * fat, 0.82),
        (0.25, 0.96),
        (0.10, 1.04),
        (0.075, 1.3),
        (0.09, 1.36),
        (0, 1.38),
    ]
    body = lathe(smooth_curve(profile, 40).clip(0), 36, 50)
    paint = draw.choice("paint", ("wedge", "swirl"))
    image = (
        checker(palette.main, palette.light, draw.integer("wedges", 4, 8), 1)
        if paint == "wedge"
        else stripes(palette.main, palette.accent, 5, slant=3)
    )
    a.node("Tilt")
    a.node("Top", "Tilt", parts=[(body, a.material("Lacquer", texture=image, roughness=0.2))])
    knobs = [
        sphere(0.06, 10).moved(0.64 * fat * np.sin(t), 0.74, 0.64 * fat * np.cos(t))
        for t in np.arange(3) * 2 * np.pi / 3
    ]
    a.node("Studs", "Top", parts=[(join(*knobs), a.material("Brass", (0.9, 0.7, 0.3), metallic=1.0, roughness=0.25))])

    def spin(p: float, degrees: float) -> Pose:
        return {"Top": (0, degrees * p, 0)}

    def wobble(p: float) -> Pose:
        lean, around = 9 + 6 * wave(p, 1, 0.25), 2 * np.pi * 4 * p
        return {
            "Tilt": (lean * np.cos(around), 0, lean * np.sin(around)),
            "Tilt.t": (0.1 * np.sin(2 * np.pi * p), 0, 0.1 * np.cos(2 * np.pi * p)),
        }

    def fall(p: float) -> Pose:
        lean, around = 74 * p**2.2, 360 * 5 * p
        c, s = np.cos(np.radians(around)), np.sin(np.radians(around))
        return {"Tilt": (lean * c, 0, lean * s), "Tilt.t": (0.25 * s * p, 0.55 * fat * p**4, 0.25 * c * p)}

    # 170 degrees a key: a reader that takes the long way round, or mixes the components plainly, shows it at once
    a.animate("Spin", Motion(pose=lambda p: spin(p, 170 * 10), duration_s=0.6, keys=11))
    a.animate(
        "Wobble",
        Motion(pose=wobble, duration_s=3.1, keys=50),
        Motion(pose=lambda p: spin(p, 360 * 16), duration_s=3.1, keys=65),
        loops=True,
    )
    late = 1.25
    a.animate(
        "Fall",
        Motion(pose=fall, duration_s=2.6, keys=60, start_s=late),
        Motion(pose=lambda p: spin(1 - (1 - p) ** 2, 2600), duration_s=2.6, keys=40, start_s=late),
    )
    return a
