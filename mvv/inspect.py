"""`mvv inspect`: a dataset or one clip as a table, and a contact sheet of views x frames as PNG.

Reads only; figures come from dataset.json and the clip's own JSON, pictures through `manifests.dataset`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from manifests.dataset import Dataset, find_clip
from manifests.errors import InputError
from manifests.publish import attempt
from mvv.pictures import BACKGROUNDS, contact_sheet, evenly

__all__ = ["clip_sheet", "clip_table", "dataset_sheet", "dataset_table", "inspect"]

_SHEET_CLIPS = 8


def inspect(
    dataset: Path | str,
    clip: str | None = None,
    *,
    out: Path | str | None = None,
    background: str = "checker",
    rows: int = 40,
    console: Console | None = None,
) -> Path | None:
    """Print what is in a dataset or a clip, and write its contact sheet.

    Args:
        dataset: a finished dataset.
        clip: a clip_id, or the beginning of one where only one clip begins like that; None is the whole dataset.
        out: the PNG; None writes none. For a whole dataset the sheet has a row a clip (its first view), 8 clips.
        background: checker, grey, white or black.
        rows: clips listed at most.
        console: to print on; None is standard output.

    Returns:
        the PNG that was written.

    Raises:
        DatasetError: no finished dataset there.
        InputError: no such clip, or more than one; another background.
    """
    if background not in (*BACKGROUNDS, "checker"):
        known = ", ".join(sorted((*BACKGROUNDS, "checker")))
        raise InputError(f"background: found {background!r}, expected one of {known}")
    source, console = Dataset.open(dataset), console or Console()
    clip_id = None if clip is None else find_clip(source, clip)
    for table in dataset_table(source, rows=rows) if clip_id is None else [clip_table(source, clip_id)]:
        console.print(table)
    if out is None:
        return None
    out = Path(out)
    sheet = dataset_sheet(source, background) if clip_id is None else clip_sheet(source, clip_id, background)
    with attempt(out) as trial:
        sheet.save(trial, "PNG")
    console.print(f"contact sheet: {out}", markup=False, soft_wrap=True)
    return out


def dataset_table(dataset: Dataset, *, rows: int = 40) -> list[Table]:
    """The figures of a dataset, and its first clips."""
    manifest, counts = dataset.manifest, dataset.manifest["counts"]
    per_model = counts["animations_per_model"]
    rejected: Counter[str] = Counter()
    for level in counts["rejected"].values():
        rejected.update(level)
    figures = _facts(
        manifest["name"],
        [
            ("models, animations", f"{counts['models']:,}, {counts['animations']:,}"),
            ("animations per model", f"mean {per_model['mean']:.2f}, maximum {per_model['max']}"),
            ("clips", f"{counts['clips']:,} in {counts['shards']:,} shards, {counts['bytes']:,} bytes"),
            ("multi-view videos, images", f"{counts['multi_view_videos']:,}, {counts['images']:,}"),
            ("splits", _counts(counts["splits"])),
            ("licences", _counts(counts["licenses"])),
            ("rejected", _counts(rejected)),
            ("failed", _counts(counts["failed"])),
            ("modalities", ", ".join(manifest["modalities"])),
            ("fingerprint", manifest["fingerprint"]),
        ],
    )
    listed = Table(title="Clips", title_justify="left", title_style="bold")
    for name, kind in (("clip_id", "left"), ("animation", "left"), ("shape", "right"), ("motion", "right"),
                       ("coverage", "right"), ("shard", "left")):  # fmt: skip
        listed.add_column(name, justify=kind, overflow="fold", no_wrap=name in ("shape", "motion"))
    for row in islice(dataset.clips(), rows):
        listed.add_row(
            row["clip_id"],
            _shown(row["animation_name"]) or f"[dim]{row['animation']}[/dim]",
            f"{row['views']}x{row['frames']} {row['width']}x{row['height']}",
            f"{row['motion_mean_displacement']:.3f}",
            f"{row['quality_coverage_mean']:.2f}",
            f"{row['shard']} {row['position']}",
        )
    if counts["clips"] > rows:
        listed.caption = f"the first {rows:,} of {counts['clips']:,}"
    return [figures, listed]


def clip_table(dataset: Dataset, clip_id: str) -> Table:
    """Everything that is recorded about a clip, matrices left out."""
    sample = dataset.sample(clip_id)
    cameras, times = sample["cameras"], sample["times_s"]
    rows: list[tuple[str, str]] = [
        (name, str(sample[name])) for name in ("asset_id", "source", "license", "attribution")
    ]
    rows += [("caption", sample["caption"])]
    rows += [(name, _line(sample[name])) for name in ("animation", "window", "normalization")]
    rows += [
        ("times", f"{len(times)} frames from {times[0]:.3f} s to {times[-1]:.3f} s, {sample['fps']:g} fps"),
        ("size", f"{cameras['width']} x {cameras['height']} pixels, fov_y {cameras['fov_y_deg']:g} degrees"),
        ("front", f"{cameras['front_azimuth_deg']:g} degrees"),
    ]
    for name in ("azimuth_deg", "elevation_deg", "distance"):
        values = np.asarray(cameras[name], float)
        first = values if values.ndim == 1 else values[:, 0]
        moves = "" if values.ndim == 1 else " (at frame 0; the cameras move)"
        rows.append((name, ", ".join(f"{value:.4g}" for value in first) + moves))
    rows += [(name, _line(sample[name])) for name in ("motion", "quality", "render")]
    return _facts(clip_id, rows)


def clip_sheet(dataset: Dataset, clip_id: str, background: str = "checker") -> Image.Image:
    """Contact sheet of a clip: a row a view, a column a frame, at most 16 of each."""
    sample = dataset.sample(clip_id)
    cameras = sample["cameras"]

    def read(view: int, frames: Sequence[int]) -> np.ndarray:
        return dataset.frames(clip_id, [view], frames)[0]

    shape = (len(cameras["c2w"]), len(sample["times_s"]), cameras["width"], cameras["height"])
    return contact_sheet(read, *shape, background=background)


def dataset_sheet(dataset: Dataset, background: str = "checker") -> Image.Image:
    """Contact sheet of a dataset: a row a clip (its first view), a column a frame; 8 clips, 8 frames at most.

    Raises:
        InputError: the dataset has no clip.
    """
    rows = list(islice(dataset.clips(columns=["clip_id", "frames", "width", "height"]), _SHEET_CLIPS))
    if not rows:
        raise InputError(
            f"{dataset.folder}: found no accepted clip, expected one to draw; see `mvv inspect` without --out"
        )
    frames = min(8, rows[0]["frames"])

    def read(clip: int, columns: Sequence[int]) -> np.ndarray:
        wanted = evenly(rows[clip]["frames"], frames)
        return dataset.frames(rows[clip]["clip_id"], [0], [wanted[column] for column in columns])[0]

    return contact_sheet(read, len(rows), frames, rows[0]["width"], rows[0]["height"], background=background, label="")


def _facts(title: str, rows: Sequence[tuple[str, str]]) -> Table:
    table = Table(title=_shown(title), title_justify="left", title_style="bold", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, _shown(value) or "[dim]none[/dim]")
    return table


def _shown(text: str) -> str:
    """For the terminal: no markup of rich's, and no control characters, with which a name could drive the terminal."""
    return escape("".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name or 'not stated'} {count:,}" for name, count in counts.items())


def _line(value: Any) -> str:
    """Nested values in a line, floats with four digits."""
    if isinstance(value, dict):
        return ", ".join(f"{name} {_line(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(_line(inner) for inner in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
