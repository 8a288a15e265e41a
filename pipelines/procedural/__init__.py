"""Animated assets that are computed, not downloaded: the embedded default of the data engine and its test bed."""

from .families import FAMILIES
from .make import make

__all__ = ["FAMILIES", "make"]
