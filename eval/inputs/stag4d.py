"""What STAG4D leaves while it trains: front and back, a frame a picture.

    valid/NAME/STEP_front/NN.jpg  valid/NAME/STEP_back/NN.jpg      (video.mp4 beside them is not read)

NAME is the object; the folder given may be ``valid``, one NAME, or any above. Of each object the largest STEP counts.
Front is azimuth 0 and back 180, both at elevation 0; the other views of a protocol need a rendering of their own, from
the PLY and the deformation. Nothing states the frame rate, so it has to be given (the pace of the driving video).

Source: zeng-yifei/STAG4D at 588bfdd, main.py (save_renderings and its callers).
"""

from __future__ import annotations

import re
from pathlib import Path

from eval.inputs.importer import Importer, InputOptions, Source, items_of
from eval.inputs.tree import Branch, Tree
from eval.items import Item
from eval.pictures import PICTURE_SUFFIXES, ordered
from manifests.errors import InputError

__all__ = ["IMPORTER"]

_VIEW = re.compile(r"(\d+)_(front|back)")
_DIRECTIONS = {"front": (0.0, 0.0), "back": (180.0, 0.0)}


def _groups(tree: Tree) -> dict[Path, dict[int, dict[str, Branch]]]:
    """Folder of an object -> step -> side -> folder of frames."""
    groups: dict[Path, dict[int, dict[str, Branch]]] = {}
    for path, branch in tree.branches.items():
        if path != tree.root and (match := _VIEW.fullmatch(path.name)):
            groups.setdefault(path.parent, {}).setdefault(int(match[1]), {})[match[2]] = branch
    return groups


def _source(side: str, branch: Branch) -> Source:
    files = branch.with_suffix(PICTURE_SUFFIXES)
    if not files:
        raise InputError(f"{branch.path}: found no picture, expected NN.jpg; repeat the training's last validation")
    return Source(name=side, direction=_DIRECTIONS[side], files=tuple(ordered(files)), is_frames=True)


def _read(tree: Tree, options: InputOptions) -> list[Item]:
    objects: dict[str, list[Source]] = {}
    for folder, steps in _groups(tree).items():
        name = folder.resolve().name if folder == tree.root else folder.name
        if name in objects:
            raise InputError(f"{tree.root}: found {name} twice, expected one folder an object; give one of them")
        objects[name] = [_source(side, branch) for side, branch in steps[max(steps)].items()]
    return items_of(tree, objects, options)


def _find(tree: Tree) -> str:
    groups = _groups(tree)
    return f"{tree.relative(next(iter(groups))) or '.'}/STEP_front" if groups else ""


IMPORTER = Importer(
    name="stag4d",
    layout="valid/NAME/STEP_front and STEP_back, as STAG4D validates",
    uses=frozenset({"fps"}),
    find=_find,
    read=_read,
)
"""STAG4D's validation frames."""
