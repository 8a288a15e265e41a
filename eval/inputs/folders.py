"""Folders of frames, or one video file a view: the layout for methods that have none of their own.

    OBJECT/VIEW/*.png     frames in the order of their numbers (png, jpg, webp)
    OBJECT/VIEW.mp4       one video a view (mp4, mov, webm, mkv, gif, animated webp or png)

VIEW states the camera, e.g. ``a090e+15`` (see `eval.inputs.names.parse_view`); one that states none is scored as a view
of unknown direction. Both forms may be mixed. The evaluation folders of the Consistent4D family, OBJECT/eval_VIEW/ with
numbered frames, are read too, as views of unknown direction.
"""

from __future__ import annotations

from eval.decode import VIDEO_SUFFIXES
from eval.inputs.importer import Importer, InputOptions, Source, items_of
from eval.inputs.names import parse_view
from eval.inputs.tree import Branch, Tree
from eval.items import Item
from eval.pictures import PICTURE_SUFFIXES, ordered
from manifests.errors import InputError

__all__ = ["IMPORTER"]


def _direction(tree: Tree, name: str, options: InputOptions) -> tuple[float, float] | None:
    found = parse_view(name)
    if found is None:
        return None
    azimuth, elevation = found
    if elevation is None and options.elevation_deg is None:
        raise InputError(
            f"{tree.root}: found view {name!r}, expected an elevation with the azimuth; rename it, e.g. a090e+15, or"
            " give --elevation-deg for all such views"
        )
    return azimuth, options.elevation_deg if elevation is None else elevation


def _sources(tree: Tree, place: Branch, options: InputOptions) -> list[Source]:
    views = [(branch.path.name, branch.with_suffix(PICTURE_SUFFIXES)) for branch in tree.below(place.path)]
    sources = []
    for name, files in views:
        if not files:
            raise InputError(
                f"{place.path / name}: found no picture, expected the frames of a view; add them or remove the folder"
            )
        sources.append(
            Source(name=name, direction=_direction(tree, name, options), files=tuple(ordered(files)), is_frames=True)
        )
    for path in place.with_suffix(VIDEO_SUFFIXES):
        sources.append(
            Source(name=path.stem, direction=_direction(tree, path.stem, options), files=(path,), is_frames=False)
        )
    return sources


def _read(tree: Tree, options: InputOptions) -> list[Item]:
    return items_of(tree, {p.path.name: _sources(tree, p, options) for p in tree.below(tree.root)}, options)


def _find(tree: Tree) -> str:
    for place in tree.below(tree.root):
        found = [*place.with_suffix(VIDEO_SUFFIXES), *(b.path for b in tree.below(place.path) if _pictures(b))]
        if found:
            return tree.relative(found[0])
    return ""


def _pictures(branch: Branch) -> bool:
    return bool(branch.with_suffix(PICTURE_SUFFIXES))


IMPORTER = Importer(
    name="folders",
    layout="OBJECT/VIEW/*.png frames or OBJECT/VIEW.mp4",
    uses=frozenset({"fps", "elevation_deg"}),
    find=_find,
    read=_read,
)
"""The general layout."""
