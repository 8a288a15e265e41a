"""Small procedural textures, encoded as PNG: checks, stripes, dots, scales, wood, noise.

Colours in and out are sRGB-encoded, 0..1. Noise is a sum of cosines whose directions are drawn by label, so a texture
is periodic in u and v and has no seam. Nothing is read from disk.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from .draw import Draw

__all__ = ["checker", "dots", "noise", "png", "ramp", "scales", "stripes", "wood"]

Color = Sequence[float]


def png(rgb: np.ndarray) -> bytes:
    """PNG bytes of (H, W, 3) values 0..1."""
    out = io.BytesIO()
    Image.fromarray(np.round(np.clip(rgb, 0, 1) * 255).astype(np.uint8)).save(out, "PNG", compress_level=9)
    return out.getvalue()


def _uv(size: int) -> tuple[np.ndarray, np.ndarray]:
    t = (np.arange(size) + 0.5) / size
    return np.meshgrid(t, t)


def _mix(a: Color, b: Color, t: np.ndarray) -> np.ndarray:
    t = np.clip(t, 0, 1)[..., None]
    return (1 - t) * np.asarray(a) + t * np.asarray(b)


def _edge(x: np.ndarray, softness: float) -> np.ndarray:
    return np.clip(0.5 + x / softness, 0, 1)


def noise(draw: Draw, label: str, size: int = 128, octaves: int = 4) -> np.ndarray:
    """(size, size) smooth periodic noise in about 0..1."""
    u, v = _uv(size)
    total = np.zeros((size, size))
    for octave in range(octaves):
        for k in range(4):
            name = f"{label}.{octave}.{k}"
            n, m = draw.integer(name + "n", 0, 2**octave), draw.integer(name + "m", -(2**octave), 2**octave)
            total += np.cos(2 * np.pi * (n * u + m * v + draw.unit(name + "p"))) / 2**octave
    return 0.5 + total / 8


def checker(a: Color, b: Color, columns: int, rows: int, size: int = 128) -> bytes:
    """Checks; columns around, rows along."""
    u, v = _uv(size)
    return png(_mix(a, b, (np.floor(u * columns) + np.floor(v * rows)) % 2))


def stripes(a: Color, b: Color, count: int, *, slant: int = 0, share: float = 0.5, size: int = 128) -> bytes:
    """Bands along v; slant whole turns in u; `share` of the width has colour b."""
    u, v = _uv(size)
    phase = (v * count + u * slant) % 1.0
    return png(_mix(a, b, _edge(share / 2 - np.abs(phase - 0.5), 0.06)))


def dots(a: Color, b: Color, columns: int, rows: int, radius: float = 0.3, size: int = 128) -> bytes:
    """Round dots, every other row shifted by half."""
    u, v = _uv(size)
    row = np.floor(v * rows)
    x, y = (u * columns + 0.5 * (row % 2)) % 1 - 0.5, (v * rows) % 1 - 0.5
    return png(_mix(a, b, _edge(radius - np.hypot(x, y), 0.12)))


def scales(back: Color, belly: Color, edge: Color, columns: int, rows: int, size: int = 256) -> bytes:
    """Fish scales; v along the body, belly colour at u = 3/4 (the underside of a tube)."""
    u, v = _uv(size)
    under = 0.5 + 0.5 * np.cos(2 * np.pi * (u - 0.75))
    base = _mix(back, belly, under**1.5)
    row = np.floor(v * rows)
    x, y = ((u * columns + 0.5 * (row % 2)) % 1 - 0.5) * 2, (v * rows) % 1
    rim = np.abs(np.hypot(x, y * 1.1) - 0.95)
    return png(base + (np.asarray(edge) - base) * (0.55 * _edge(0.12 - rim, 0.15))[..., None])


def wood(draw: Draw, light: Color, dark: Color, size: int = 128) -> bytes:
    """Grain along v."""
    u, v = _uv(size)
    bent = noise(draw, "wood", size, 2)
    rings = 0.5 + 0.5 * np.sin(2 * np.pi * (6 * u + 0.8 * bent))
    fine = 0.5 + 0.5 * np.sin(2 * np.pi * (31 * u + 1.3 * bent + v))
    return png(_mix(light, dark, 0.6 * rings**2 + 0.25 * fine))


def ramp(colors: Sequence[Color], size: int = 64, grain: np.ndarray | None = None) -> bytes:
    """A gradient along v through the colours; `grain` (size, size) in 0..1 is multiplied in softly."""
    t = np.linspace(0, len(colors) - 1, size)
    rgb = np.stack([np.interp(t, np.arange(len(colors)), [c[k] for c in colors]) for k in range(3)], -1)
    image = np.repeat(rgb[:, None], size, axis=1)
    return png(image if grain is None else image * (0.75 + 0.4 * grain)[..., None])
