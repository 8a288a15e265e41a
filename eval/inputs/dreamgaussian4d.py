"""What DreamGaussian4D leaves: one video an object, whose camera stops eight times.

    vis_data/NAME.mp4             7 fps, 512 px
    vis_data/NAME_refined.mp4     after the mesh stage; the camera circles all the time
    logs/NAME_frames/NNN.ply      Gaussians, not pictures

NAME is the object; the folder given may be ``vis_data`` or any above. NAME.mp4 is eight parts of F + 15 frames (F = 14
by default): F frames of the motion seen from azimuth 45 * k at the elevation of the input image (0 by default, an
option here), then 15 while the camera goes on. The eight fixed parts are imported as views. A video of another length,
and NAME_refined.mp4 where it is alone, is the view ``orbit`` of unknown direction, which no protocol ranks: its camera
moves. PLY files alone are refused.

Source: jiawei-ren/dreamgaussian4d at 0bd2b6b, main_4d.py (train, render eval) and main2_4d.py.
"""

from __future__ import annotations

from pathlib import Path

from eval.decode import peek
from eval.inputs.importer import Importer, InputOptions, Source, items_of
from eval.inputs.tree import Tree
from eval.items import Item
from manifests.errors import InputError

__all__ = ["IMPORTER"]

STOPS = 8
TRAVEL_FRAMES = 15
_SUFFIXES = (".mp4", ".gif")


def _videos(tree: Tree) -> dict[str, Path]:
    """Object -> its video; the unrefined one where there are both, since only that holds its camera still."""
    files: dict[str, Path] = {}
    for path, branch in tree.branches.items():
        name = path.resolve().name if path == tree.root else path.name
        for file in branch.with_suffix(_SUFFIXES) if name == "vis_data" else ():
            if file.stem in files and files[file.stem].parent != path:
                raise InputError(f"{tree.root}: found {file.name} twice, expected one an object; give one vis_data")
            files[file.stem] = min(file, files.get(file.stem, file), key=lambda f: _SUFFIXES.index(f.suffix.lower()))
    found = {}
    for stem, file in files.items():
        name = stem.removesuffix("_refined")
        if name == stem or name not in files:
            found[name] = file
    return found


def _gaussians(tree: Tree) -> list[Path]:
    return [path for path, branch in tree.branches.items() if "_frames" in path.name and branch.with_suffix((".ply",))]


def _sources(path: Path, elevation: float) -> list[Source]:
    try:
        frames = peek(path).frames
    except InputError:  # says so when it is read
        frames = 0
    length, rest = divmod(frames, STOPS)
    motion = length - TRAVEL_FRAMES
    if rest or motion < 2 or path.stem.endswith("_refined"):
        return [Source(name="orbit", direction=None, files=(path,), is_frames=False)]
    return [
        Source(
            name=f"stop_{k}", direction=(360 * k / STOPS, elevation), files=(path,), is_frames=False,
            frames=range(k * length, k * length + motion),
        )
        for k in range(STOPS)
    ]  # fmt: skip


def _read(tree: Tree, options: InputOptions) -> list[Item]:
    videos = _videos(tree)
    if not videos and (gaussians := _gaussians(tree)):
        raise InputError(
            f"{gaussians[0]}: found Gaussians as PLY files, expected videos in vis_data; render each frame from the"
            " protocol's fixed cameras and give the frames as OBJECT/VIEW/*.png (--kind folders)"
        )
    elevation = options.elevation_deg or 0.0
    return items_of(tree, {name: _sources(path, elevation) for name, path in videos.items()}, options)


def _find(tree: Tree) -> str:
    found = [*_videos(tree).values(), *_gaussians(tree)]
    return tree.relative(found[0]) if found else ""


IMPORTER = Importer(
    name="dreamgaussian4d",
    layout="vis_data/NAME.mp4 of DreamGaussian4D",
    uses=frozenset({"fps", "elevation_deg"}),
    find=_find,
    read=_read,
)
"""DreamGaussian4D's evaluation video."""
