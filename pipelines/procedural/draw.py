"""Random draws for the procedural assets, each named and independent of every other.

A value is a pure function of (seed, asset, label): SHA-256 of the three, so adding a draw to a family changes none of
the others, and no library's random stream is part of the files' bytes. Colours come from a short list of palettes that
were chosen by eye, shifted a little per asset.
"""

from __future__ import annotations

import colorsys
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Draw", "Palette", "linear", "srgb"]

PALETTES = (  # main, second, accent, dark, light
    ("e07a5f", "3d405b", "f2cc8f", "2b2d42", "f4f1de"),
    ("2a9d8f", "e9c46a", "e76f51", "264653", "fdf6e3"),
    ("577590", "f9844a", "f9c74f", "2f3e46", "edf2f4"),
    ("6d597a", "e56b6f", "eaac8b", "355070", "f8edeb"),
    ("588157", "dda15e", "bc6c25", "283618", "fefae0"),
    ("118ab2", "ffd166", "ef476f", "073b4c", "f1faee"),
    ("bc4749", "a7c957", "f2e8cf", "386641", "faf3dd"),
    ("8d6a9f", "8cbcb9", "dda448", "3a2e39", "f5efed"),
    ("c8553d", "588b8b", "ffd5c2", "2d3142", "fff4ec"),
    ("457b9d", "a8dadc", "e63946", "1d3557", "f1faee"),
    ("d4a373", "6b705c", "cb997e", "3f3a36", "faedcd"),
    ("ee6c4d", "3d5a80", "98c1d9", "293241", "e0fbfc"),
)


def linear(rgb: Sequence[float] | np.ndarray) -> np.ndarray:
    """Linear values of sRGB-encoded ones, both 0..1; shape kept."""
    rgb = np.asarray(rgb, dtype=np.float64)
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def srgb(code: str) -> tuple[float, float, float]:
    """sRGB-encoded colour (3 values 0..1) of six hex digits."""
    return int(code[0:2], 16) / 255, int(code[2:4], 16) / 255, int(code[4:6], 16) / 255


@dataclass(frozen=True)
class Palette:
    """Five colours that go together; sRGB-encoded, 0..1."""

    main: tuple[float, float, float]
    second: tuple[float, float, float]
    accent: tuple[float, float, float]
    dark: tuple[float, float, float]
    light: tuple[float, float, float]


class Draw:
    """Labelled draws of one asset.

    Args:
        seed: of the whole collection.
        key: of the asset, e.g. ``quadruped-000``.
    """

    def __init__(self, seed: int, key: str) -> None:
        self.seed, self.key = seed, key

    def unit(self, label: str) -> float:
        """A number in [0, 1)."""
        digest = hashlib.sha256(f"mvvideo.procedural/1:{self.seed}:{self.key}:{label}".encode()).digest()
        return int.from_bytes(digest[:7], "big") / 2**56

    def uniform(self, label: str, low: float, high: float) -> float:
        """A number in [low, high)."""
        return low + (high - low) * self.unit(label)

    def integer(self, label: str, low: int, high: int) -> int:
        """A whole number from low to high, both included."""
        return low + int(self.unit(label) * (high - low + 1))

    def choice(self, label: str, options: Sequence):
        """One of the options."""
        return options[self.integer(label, 0, len(options) - 1)]

    def palette(self, label: str = "palette") -> Palette:
        """One of the palettes, its hue and brightness moved by a few per cent."""
        shift, gain = self.uniform(f"{label}.hue", -0.02, 0.02), self.uniform(f"{label}.value", 0.94, 1.06)
        colors = []
        for code in self.choice(label, PALETTES):
            hue, saturation, value = colorsys.rgb_to_hsv(*srgb(code))
            colors.append(colorsys.hsv_to_rgb((hue + shift) % 1.0, saturation, min(value * gain, 1.0)))
        return Palette(*colors)
