"""The list of layouts, which of them a folder has, and the one way in: `open_input`."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from eval.inputs import animate3d, dataset, dreamgaussian4d, folders, stag4d, tiled
from eval.inputs.importer import Importer, InputOptions
from eval.inputs.threestudio import ANIMATE124, FOURDFY
from eval.inputs.tree import Tree
from eval.items import Item
from manifests.errors import InputError

__all__ = ["KINDS", "detect", "open_input"]

KINDS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        dataset.IMPORTER, folders.IMPORTER, tiled.IMPORTER, animate3d.IMPORTER, FOURDFY, ANIMATE124, stag4d.IMPORTER,
        dreamgaussian4d.IMPORTER,
    )
}  # fmt: skip
"""Name -> importer; each module's docstring describes its layout on disk."""

_GENERAL = ("folders", "tiled")
"""Layouts that others contain; they count only where no other is found."""


def open_input(
    path: Path | str, *, kind: str = "auto", fps: float | None = None, tiles: tuple[int, int] | None = None,
    cameras: tuple[tuple[float, float], ...] = (), elevation_deg: float | None = None,
) -> list[Item]:  # fmt: skip
    """The objects of an input with their videos; nothing is decoded yet.

    A file that cannot be decoded does not stop this: its video's ``read`` raises, so that the others are scored.

    Args:
        path: a dataset of ours, or a folder of a method's outputs.
        kind: a key of `KINDS`, or ``auto`` (see `detect`).
        fps: frames a second of folders of frames; for files that state their own it has to agree.
        tiles: rows and columns, of kind ``tiled``.
        cameras: azimuth from the front and elevation of every tile.
        elevation_deg: of views that state only an azimuth.

    Returns:
        items sorted by object id.

    Raises:
        InputError: unknown kind, nothing found, several layouts, options that do not belong to the layout, links that
            lead out of the folder, an object without videos.
        DatasetError: a dataset that does not agree with itself.
    """
    options = InputOptions(fps=fps, tiles=tiles, cameras=tuple(cameras), elevation_deg=elevation_deg)
    _check_options(options)
    tree = Tree(path)
    importer = _named(kind) if kind != "auto" else _detected(tree, tiled=bool(tiles))
    for name in ("fps", "tiles", "cameras", "elevation_deg"):
        if getattr(options, name) not in (None, ()) and name not in importer.uses:
            raise InputError(
                f"--{name.replace('_', '-')}: found {getattr(options, name)}, expected nothing for kind"
                f" {importer.name}, which does not use it; leave it out"
            )
    return importer.read(tree, options)


def detect(path: Path | str, *, tiled: bool = False) -> str:
    """The kind of a folder: the one layout that it has.

    Args:
        path: the folder.
        tiled: video files in the folder itself are tiled videos; otherwise they are not taken for anything.

    Raises:
        InputError: none, with what was looked for; or several, with what was found.
    """
    return _detected(Tree(path), tiled=tiled).name


def _detected(tree: Tree, *, tiled: bool) -> Importer:
    found = {name: text for name, importer in KINDS.items() if name not in _GENERAL and (text := importer.find(tree))}
    if not found:
        general = KINDS["tiled" if tiled else "folders"]
        found = {general.name: text} if (text := general.find(tree)) else {}
    if len(found) == 1:
        return KINDS[next(iter(found))]
    if found:
        seen = "; ".join(f"{name}: {text}" for name, text in found.items())
        raise InputError(f"{tree.root}: found several layouts ({seen}), expected one; say which with --kind")
    looked = "; ".join(f"{importer.name}: {importer.layout}" for importer in KINDS.values())
    raise InputError(f"{tree.root}: found none of the layouts, expected one of: {looked}; see --kind")


def _named(kind: str) -> Importer:
    if kind not in KINDS:
        near = get_close_matches(kind, KINDS, 1)
        hint = f"did you mean {near[0]}?" if near else "choose one of them"
        raise InputError(f"--kind: found {kind!r}, expected auto or one of {', '.join(KINDS)}; {hint}")
    return KINDS[kind]


def _check_options(options: InputOptions) -> None:
    if options.fps is not None and not 0 < options.fps <= 1000:
        raise InputError(f"--fps: found {options.fps:g}, expected more than 0 and at most 1000")
    if options.elevation_deg is not None and not -90 <= options.elevation_deg <= 90:
        raise InputError(f"--elevation-deg: found {options.elevation_deg:g}, expected -90 to 90")
    for azimuth, elevation in options.cameras:
        if not (-360 <= azimuth <= 360 and -90 <= elevation <= 90):
            raise InputError(f"--cameras: found {azimuth:g} {elevation:g}, expected azimuth and elevation in degrees")
