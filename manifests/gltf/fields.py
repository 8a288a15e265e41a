"""Typed access to untrusted JSON: every value is checked for its type and range where it is taken.

The rest of the reader never indexes raw JSON, so a wrong type can only end as ``Rejected("bad-structure")`` with the
path of the field, and never as a KeyError or TypeError. Null counts as absent, as most readers have it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from manifests.errors import Rejected

__all__ = ["Fields", "shown"]


def shown(value: Any) -> str:
    """A short, printable form of a JSON value for a message."""
    if isinstance(value, (dict, list)):
        return f"{'an object' if isinstance(value, dict) else 'an array'} of {len(value)}"
    if type(value) is int and abs(value) > 2**63:
        return f"an integer of {value.bit_length()} bits"
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


class Fields:
    """One JSON object and where it stands in the file, e.g. ``meshes[3].primitives[0]``."""

    __slots__ = ("raw", "where")

    def __init__(self, raw: Any, where: str) -> None:
        if not isinstance(raw, dict):
            raise Rejected("bad-structure", f"{where}: found {shown(raw)}, expected an object")
        self.raw, self.where = raw, where

    def at(self, key: str) -> str:
        """The path of a field for a message."""
        return f"{self.where}.{key}" if self.where else key

    def wrong(self, key: str, expected: str, reason: str = "bad-structure") -> Rejected:
        """The error of a field that is not what it must be."""
        found = shown(self.raw[key]) if key in self.raw else "nothing"
        return Rejected(reason, f"{self.at(key)}: found {found}, expected {expected}")

    def has(self, key: str) -> bool:
        return self.raw.get(key) is not None

    def integer(self, key: str, default: int | None = None, *, low: int = 0, high: int = 2**53) -> int:
        """An integer in low..high; required where `default` is None. 5.0 counts as 5, true does not count as 1."""
        value = self.raw.get(key)
        if value is None and default is not None:
            return default
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise self.wrong(key, f"an integer in {low}..{high}")
        return value

    def index(self, key: str, count: int, default: int | None = None) -> int:
        """An index into a list of `count` entries."""
        value = self.raw.get(key)
        if value is None and default is not None:
            return default
        if type(value) is not int or not 0 <= value < count:
            raise self.wrong(key, f"an index below {count}")
        return value

    def boolean(self, key: str, default: bool = False) -> bool:
        value = self.raw.get(key)
        if value is None:
            return default
        if type(value) is not bool:
            raise self.wrong(key, "true or false")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        value = self.raw.get(key)
        if value is None and default is not None:
            return default
        number = _number(value)
        if number is None:
            raise self.wrong(key, "a number")
        if not math.isfinite(number):
            raise self.wrong(key, "a finite number", "non-finite")
        return number

    def numbers(self, key: str, count: int) -> np.ndarray | None:
        """Exactly `count` finite numbers as float64, None where absent."""
        value = self.raw.get(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count:
            raise self.wrong(key, f"{count} numbers")
        plain = [_number(item) for item in value]
        if None in plain:
            raise self.wrong(key, f"{count} numbers")
        array = np.array(plain, np.float64)
        if not np.isfinite(array).all():
            raise self.wrong(key, f"{count} finite numbers", "non-finite")
        return array

    def text(self, key: str, default: str | None = "") -> str:
        """A string; lone surrogates, which no file or table could store, become question marks."""
        value = self.raw.get(key)
        if value is None and default is not None:
            return default
        if not isinstance(value, str):
            raise self.wrong(key, "a string")
        return value if value.isascii() else value.encode("utf-8", "replace").decode("utf-8")

    def array(self, key: str) -> list:
        """A JSON array, empty where absent; its items are still unchecked."""
        value = self.raw.get(key)
        if value is None:
            return []
        if not isinstance(value, list):
            raise self.wrong(key, "an array")
        return value

    def objects(self, key: str) -> list[Fields]:
        return [Fields(item, f"{self.at(key)}[{i}]") for i, item in enumerate(self.array(key))]

    def object(self, key: str) -> Fields | None:
        value = self.raw.get(key)
        return None if value is None else Fields(value, self.at(key))

    def required(self, key: str) -> Fields:
        return Fields(self.raw.get(key), self.at(key))

    def extension(self, name: str) -> Fields | None:
        if "extensions" not in self.raw:
            return None
        extensions = self.object("extensions")
        return None if extensions is None else extensions.object(name)

    def indices(self, key: str, count: int) -> list[int]:
        """A JSON array of indices into a list of `count` entries, empty where absent."""
        value = self.array(key)
        for item in value:
            if type(item) is not int or not 0 <= item < count:
                raise Rejected("bad-structure", f"{self.at(key)}: found {shown(item)}, expected indices below {count}")
        return value

    def texts(self, key: str) -> list[str]:
        value = self.array(key)
        if not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "strings")
        return value


def _number(value: Any) -> float | None:
    if type(value) is float:
        return value
    if type(value) is not int:
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
