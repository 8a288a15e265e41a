"""The list of families, in the order in which `make` deals them out.

Neighbours in the list differ in kind, so that even a handful of assets shows skins, node hierarchies, morph targets and
scale pulses. Adding a family at the end keeps the names of the others, not their place in a batch.
"""

from __future__ import annotations

from collections.abc import Callable

from .assembly import Assembly
from .biped import biped
from .car import car
from .clockwork import clockwork
from .draw import Draw
from .excavator import excavator
from .face import face
from .fish import fish
from .flower import flower
from .jellyfish import jellyfish
from .lantern import lantern
from .octopus import octopus
from .orrery import orrery
from .plant import plant
from .pulses import ball, heart, spinner
from .quadruped import quadruped
from .robotarm import robot_arm
from .snake import snake
from .windmill import windmill
from .winged import bird, hummingbird

__all__ = ["FAMILIES"]

FAMILIES: dict[str, Callable[[Draw], Assembly]] = {
    "quadruped": quadruped,
    "excavator": excavator,
    "face": face,
    "ball": ball,
    "octopus": octopus,
    "bird": bird,
    "windmill": windmill,
    "jellyfish": jellyfish,
    "biped": biped,
    "car": car,
    "flower": flower,
    "lantern": lantern,
    "snake": snake,
    "clockwork": clockwork,
    "heart": heart,
    "fish": fish,
    "robotarm": robot_arm,
    "hummingbird": hummingbird,
    "orrery": orrery,
    "plant": plant,
    "spinner": spinner,
}
