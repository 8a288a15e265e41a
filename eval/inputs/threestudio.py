"""What 4D-fy and Animate124 leave: validation videos of threestudio, one a fixed camera.

    OUTPUTS/NAME/TAG@TIME/save/itN-K_video.mp4         N = step, K = view 0, 1, ...; 16 fps

TAG is the object; the folder given may be a run or any above. Of each run the largest N counts; its views stand evenly
around the object from azimuth 0 (four: 0, 90, 180, 270). The elevation is the run's own ``eval_elevation_deg``
(configs/parsed.yaml), else the option, else the method's default: 15 in 4D-fy, 0 in Animate124. The test videos
``itN-test.mp4`` are not read: their camera moves.

The code as read writes RGB alone into these videos; of wider ones, with normals and opacity beside, the leftmost square
is taken. Source: sherwinbahmani/4dfy at 5c6e0cc and HeliosZhao/Animate124 at 422ef12, validation_step and
save_image_grid; data/uncond.py; configs/animate124-stage2-ms.yaml.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import partial
from pathlib import Path

from eval.inputs.importer import Importer, InputOptions, Source, items_of
from eval.inputs.tree import Tree
from eval.items import Item
from manifests.errors import InputError

__all__ = ["ANIMATE124", "FOURDFY", "object_of"]

_VIDEO = re.compile(r"it(\d+)-(\d+)_video\.mp4")
_ELEVATION = re.compile(r"^\s*eval_elevation_deg:\s*(\S+)\s*$", re.MULTILINE)
_MARKS = {"4dfy": ("fourdfy", "4dfy"), "animate124": ("animate124",)}
_DEFAULT_ELEVATION = {"4dfy": 15.0, "animate124": 0.0}
_CONFIG_BYTES = 1 << 20


def object_of(tree: Tree, folder: Path) -> str:
    """The object of a threestudio run: the run's folder above ``save`` and ``images``, without @TIME."""
    while folder.name in ("save", "images") and folder != tree.root:
        folder = folder.parent
    # The folder given may be `save` itself, whose run lies above it.
    place = folder.resolve() if folder == tree.root else folder
    while place.name in ("save", "images"):
        place = place.parent
    return place.name.partition("@")[0] or place.name


def _runs(tree: Tree) -> dict[Path, dict[int, dict[int, Path]]]:
    """Folder with videos -> step -> view -> file."""
    runs: dict[Path, dict[int, dict[int, Path]]] = {}
    for path, branch in tree.branches.items():
        for name in branch.files:
            if match := _VIDEO.fullmatch(name):
                runs.setdefault(path, defaultdict(dict))[int(match[1])][int(match[2])] = path / name
    return runs


def _config(folder: Path) -> str:
    run = folder.parent if folder.name == "save" else folder
    for name in ("parsed.yaml", "raw.yaml"):
        try:
            with open(run / "configs" / name, "rb") as file:
                return file.read(_CONFIG_BYTES).decode("utf-8", "replace")
        except OSError:
            continue
    return ""


def _methods(tree: Tree, folder: Path) -> set[str]:
    """Which of the two made a run, by its config, else by the names of its folders; both where nothing tells."""
    for text in (_config(folder), str(folder.resolve()) if folder == tree.root else tree.relative(folder)):
        if found := {name for name, marks in _MARKS.items() if any(mark in text.lower() for mark in marks)}:
            return found
    return set(_MARKS)


def _elevation(folder: Path, method: str, options: InputOptions) -> float:
    stated = set()
    for text in _ELEVATION.findall(_config(folder)):
        try:
            stated.add(float(text))
        except ValueError:  # a reference to another field
            continue
    if len(stated) == 1 and options.elevation_deg in (None, *stated):
        return stated.pop()
    if stated and (options.elevation_deg is None or len(stated) == 1):
        found = " and ".join(f"{value:g}" for value in sorted(stated))
        asked = "one value" if options.elevation_deg is None else f"the {options.elevation_deg:g} of --elevation-deg"
        raise InputError(
            f"{folder}: found eval_elevation_deg {found} in its config, expected {asked}; give the right one with"
            " --elevation-deg, or leave it out"
        )
    return _DEFAULT_ELEVATION[method] if options.elevation_deg is None else options.elevation_deg


def _sources(folder: Path, steps: dict[int, dict[int, Path]], elevation: float) -> list[Source]:
    views = steps[max(steps)]
    if sorted(views) != list(range(len(views))):
        raise InputError(
            f"{folder}: found views {sorted(views)} of step {max(steps)}, expected 0 to {len(views) - 1}; copy the"
            " missing ones, their number gives the azimuths"
        )
    return [
        Source(
            name=f"view_{k}", direction=(360 * k / len(views), elevation), files=(views[k],), is_frames=False,
            tiles=(1, 0),
        )
        for k in sorted(views)
    ]  # fmt: skip


def _read(tree: Tree, options: InputOptions, *, method: str) -> list[Item]:
    objects: dict[str, list[Source]] = {}
    places: dict[str, Path] = {}
    for folder, steps in _runs(tree).items():
        if method not in _methods(tree, folder):
            continue
        object_id = object_of(tree, folder)
        if object_id in objects:
            both = f"{tree.relative(places[object_id])} and {tree.relative(folder)}"
            raise InputError(
                f"{tree.root}: found {both} for {object_id}, expected one run an object; give the folder of the last"
                " stage, or move the older run away"
            )
        places[object_id] = folder
        objects[object_id] = _sources(folder, steps, _elevation(folder, method, options))
    return items_of(tree, objects, options)


def _find(tree: Tree, *, method: str) -> str:
    folders = [folder for folder in _runs(tree) if method in _methods(tree, folder)]
    return f"validation videos in {tree.relative(folders[0])}" if folders else ""


def _importer(method: str, title: str) -> Importer:
    return Importer(
        name=method,
        layout=f"save/itN-K_video.mp4, validation videos of {title}",
        uses=frozenset({"fps", "elevation_deg"}),
        find=partial(_find, method=method),
        read=partial(_read, method=method),
    )


FOURDFY = _importer("4dfy", "4D-fy")
"""4D-fy."""
ANIMATE124 = _importer("animate124", "Animate124")
"""Animate124; also what 3to4D's code is likely to leave, which builds on it."""
