"""Commands whose defaults depend on a preset: the preset is read first, so that `--help` shows what it fills in."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import tyro

__all__ = ["asked_preset", "asked_value", "with_required"]


def asked_preset(arguments: Sequence[str], otherwise: str) -> str:
    """The last value of ``--preset`` in the arguments of a command."""
    return asked_value(arguments, "--preset", otherwise)


def asked_value(arguments: Sequence[str], option: str, otherwise: str) -> str:
    """The last value of an option in the arguments of a command, before they are parsed.

    Args:
        arguments: of the command.
        option: with its dashes.
        otherwise: where it is not given.
    """
    name = otherwise
    for index, word in enumerate(arguments):
        if word == option and index + 1 < len(arguments):
            name = arguments[index + 1]
        elif word.startswith(f"{option}="):
            name = word.partition("=")[2]
    return name


def with_required(command: type, **given: Any) -> Any:
    """A command with these fields, the required ones still to be given by the arguments."""
    required = {
        entry.name: tyro.MISSING
        for entry in dataclasses.fields(command)
        if entry.default is entry.default_factory is dataclasses.MISSING
    }
    return command(**{**required, **given})
