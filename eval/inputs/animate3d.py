"""What Animate3D's code leaves when it renders its test set.

    OUTPUTS/.../TAG/save/images/elv_I_azi_J/N.png      I = 0..2, J = 0..3, N = 0..15

TAG (up to an @, where there is one) is the object; the folder given may be any above, or ``images`` itself. I and J are
numbers of cameras and not degrees: elevations 15, 0, 30 with azimuths 0 90 180 270, 30 120 210 300, -45 45 135 225.
(Folders of degrees, as ``elv_15_azi_90``, are kind ``folders``.) The code keeps pictures on 0.5 grey with the mask as
alpha; the grey is taken out again. 8 fps is what its video writer is given.

Source: yanqinJiang/Animate3D at 443da6f, systems/animate3d.py (test_step, on_test_epoch_end) and
configs/visualize_testset_frame_16.yaml.
"""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

from eval.inputs.importer import Importer, InputOptions, Source, items_of
from eval.inputs.threestudio import object_of
from eval.inputs.tree import Branch, Tree
from eval.items import Item
from eval.pictures import PICTURE_SUFFIXES, ordered
from manifests.errors import InputError

__all__ = ["IMPORTER"]

FPS = 8.0
GREY = 127.5
_VIEW = re.compile(r"elv_.+_azi_.+")
_RINGS = ((15.0, (0.0, 90.0, 180.0, 270.0)), (0.0, (30.0, 120.0, 210.0, 300.0)), (30.0, (315.0, 45.0, 135.0, 225.0)))
_NUMBERED = {
    f"elv_{i}_azi_{j}": (azimuth, elevation)
    for i, (elevation, ring) in enumerate(_RINGS)
    for j, azimuth in enumerate(ring)
}


def _groups(tree: Tree) -> dict[Path, list[Branch]]:
    """Folder -> the views in it."""
    groups = defaultdict(list)
    for path, branch in tree.branches.items():
        if path != tree.root and _VIEW.fullmatch(path.name):
            groups[path.parent].append(branch)
    return groups


def _numbered(branches: list[Branch]) -> bool:
    return all(branch.path.name in _NUMBERED for branch in branches)


def _source(branch: Branch) -> Source:
    files = branch.with_suffix(PICTURE_SUFFIXES)
    if branch.path.name not in _NUMBERED or not files:
        found = "no picture" if branch.path.name in _NUMBERED else "a view that the code does not write"
        raise InputError(
            f"{branch.path}: found {found}, expected elv_I_azi_J/N.png with I 0 to 2 and J 0 to 3; for folders named by"
            " degrees or otherwise give --kind folders"
        )
    return Source(
        name=branch.path.name, direction=_NUMBERED[branch.path.name], files=tuple(ordered(files)), is_frames=True,
        fps=FPS, mixed_with=GREY,
    )  # fmt: skip


def _read(tree: Tree, options: InputOptions) -> list[Item]:
    objects: dict[str, list[Source]] = {}
    for folder in _groups(tree):
        object_id = object_of(tree, folder)
        if object_id in objects:
            raise InputError(f"{tree.root}: found {object_id} twice, expected one run an object; give one run's folder")
        objects[object_id] = [
            _source(branch)
            for branch in tree.below(folder)
            if _VIEW.fullmatch(branch.path.name) or branch.with_suffix(PICTURE_SUFFIXES)
        ]
    return items_of(tree, objects, options)


def _find(tree: Tree) -> str:
    found = (branches for branches in _groups(tree).values() if _numbered(branches))
    return next((tree.relative(branches[0].path) for branches in found), "")


IMPORTER = Importer(
    name="animate3d",
    layout="folders elv_I_azi_J of frames, as Animate3D renders its test set",
    uses=frozenset({"fps"}),
    find=_find,
    read=_read,
)
"""Animate3D's test renders."""
