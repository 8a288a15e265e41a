"""Videos that show all views of an object side by side.

    OBJECT.mp4            rows x columns tiles, one a view (mp4, mov, webm, mkv, gif, animated webp or png)

Only the user knows what the tiles are, so rows, columns and the camera of every tile, row by row from the top left,
have to be given; the layout is never taken for granted when they are not.
"""

from __future__ import annotations

from eval.decode import VIDEO_SUFFIXES
from eval.inputs.importer import Importer, InputOptions, Source, items_of
from eval.inputs.tree import Tree
from eval.items import Item
from manifests.errors import InputError

__all__ = ["IMPORTER"]


def _read(tree: Tree, options: InputOptions) -> list[Item]:
    if options.tiles is None:
        raise InputError("--tiles: found nothing, expected rows and columns of the tiled videos; e.g. --tiles 1 4")
    rows, columns = options.tiles
    if rows < 1 or columns < 1 or len(options.cameras) != rows * columns:
        raise InputError(
            f"--cameras: found {len(options.cameras)} cameras for {rows} x {columns} tiles, expected one a tile; give"
            " azimuth and elevation of each, row by row"
        )
    files = tree.branches[tree.root].with_suffix(VIDEO_SUFFIXES)
    if twice := {path.stem for path in files if sum(path.stem == other.stem for other in files) > 1}:
        raise InputError(f"{tree.root}: found two files named {min(twice)}, expected one an object; remove one")
    objects = {
        path.stem: [
            Source(name=f"tile{k}", direction=camera, files=(path,), is_frames=False, tiles=options.tiles, tile=k)
            for k, camera in enumerate(options.cameras)
        ]
        for path in files
    }
    return items_of(tree, objects, options)


def _find(tree: Tree) -> str:
    files = tree.branches[tree.root].with_suffix(VIDEO_SUFFIXES)
    return f"{len(files)} video files" if files else ""


IMPORTER = Importer(
    name="tiled",
    layout="OBJECT.mp4 with tiles (only with --tiles and --cameras)",
    uses=frozenset({"fps", "tiles", "cameras"}),
    find=_find,
    read=_read,
)
"""Several views in one video."""
