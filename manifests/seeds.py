"""Random draws that depend on a key and nothing else.

Every random choice of a dataset (split, order, cameras, lights, render noise) is drawn from SHA-256 of the names that
identify it, never from a library's stream, so any clip can be made again alone and no draw shifts another.
"""

from __future__ import annotations

import hashlib

__all__ = ["digest", "integer", "uniform"]


def digest(*key: object) -> bytes:
    """32 bytes that only the key decides; parts are length-prefixed, so ("ab", "c") differs from ("a", "bc")."""
    sha = hashlib.sha256()
    for part in key:
        text = str(part).encode()
        sha.update(f"{len(text)}:".encode() + text)
    return sha.digest()


def uniform(low: float, high: float, *key: object) -> float:
    """A float in [low, high) with 53 random bits."""
    return low + (high - low) * (int.from_bytes(digest(*key)[:8], "big") >> 11) / 2.0**53


def integer(*key: object) -> int:
    """An int in [0, 2**31), the range of Cycles' seed."""
    return int.from_bytes(digest(*key)[:4], "big") >> 1
