"""Pictures of clips for people: backgrounds, contact sheets and sprite sheets that play.

Display only: nothing here is ever written into a dataset. Colours follow design 3.3: composited in sRGB-encoded values,
resized with premultiplied alpha (Pillow does that for RGBA by itself).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["BACKGROUNDS", "Sprite", "composite", "contact_sheet", "draw_sheet", "draw_sprite", "evenly", "plan_sprite"]

Read = Callable[[int, Sequence[int]], np.ndarray]
"""(view, frames) -> RGBA uint8 (frame, height, width, 4), straight alpha: one view at a time bounds the memory."""

BACKGROUNDS: dict[str, tuple[int, int, int]] = {"grey": (128, 128, 128), "white": (255, 255, 255), "black": (0, 0, 0)}
"""Plain backgrounds by name; ``checker`` is the other one that `composite` knows."""

_SPRITE_PIXELS = 3_000_000  # a page decodes a screenful of sprites at once, 4 bytes a pixel
_WEBP_SIDE = 16_383


@dataclass(frozen=True, kw_only=True)
class Sprite:
    """Where things are in a sprite sheet: one strip downwards, a step a frame, each step a small grid of views.

    Args:
        views: the views shown, row by row.
        columns: views side by side in a step; the steps are ``len(views) / columns`` views high.
        frames: the frames of the clip, one a step; fewer than the clip has where it is long.
        cell_width: pixels of one view.
        cell_height: pixels of one view.
    """

    views: tuple[int, ...]
    columns: int
    frames: tuple[int, ...]
    cell_width: int
    cell_height: int

    @property
    def rows(self) -> int:
        return -(-len(self.views) // self.columns)


def evenly(count: int, most: int) -> tuple[int, ...]:
    """At most ``most`` of ``range(count)``, at equal distances, the first always among them."""
    return tuple(range(count)) if count <= most else tuple(index * count // most for index in range(most))


def plan_sprite(views: int, frames: int, width: int, height: int, *, most_frames: int = 48) -> Sprite:
    """Choose views, frames and size so that a sprite decodes to 3 million pixels at most and is never enlarged."""
    shown = evenly(views, 4)
    columns = 2 if len(shown) == 4 else len(shown)
    steps = evenly(frames, most_frames)
    rows = -(-len(shown) // columns)
    scale = min(1.0, 192 / width, math.sqrt(_SPRITE_PIXELS / (width * height * len(shown) * len(steps))))
    scale = min(scale, _WEBP_SIDE / (height * rows * len(steps)))
    cell_width, cell_height = max(1, int(width * scale)), max(1, int(height * scale))
    return Sprite(views=shown, columns=columns, frames=steps, cell_width=cell_width, cell_height=cell_height)


def draw_sprite(read: Read, sprite: Sprite) -> Image.Image:
    """The sprite sheet as RGBA; memory is the sheet and the frames of one view."""
    step = sprite.rows * sprite.cell_height
    sheet = Image.new("RGBA", (sprite.columns * sprite.cell_width, step * len(sprite.frames)))
    for place, view in enumerate(sprite.views):
        row, column = divmod(place, sprite.columns)
        for index, pixels in enumerate(read(view, sprite.frames)):
            image = _fit(pixels, sprite.cell_width, sprite.cell_height)
            sheet.paste(image, (column * sprite.cell_width, index * step + row * sprite.cell_height))
    return sheet


def draw_sheet(read: Read, views: Sequence[int], frames: Sequence[int], width: int, height: int) -> Image.Image:
    """A contact sheet as RGBA: a row a view, a column a frame, every cell ``width`` x ``height`` pixels."""
    sheet = Image.new("RGBA", (width * len(frames), height * len(views)))
    for row, view in enumerate(views):
        for column, pixels in enumerate(read(view, frames)):
            sheet.paste(_fit(pixels, width, height), (column * width, row * height))
    return sheet


def composite(image: Image.Image, background: str = "checker") -> Image.Image:
    """An RGBA picture over a background, as RGB.

    Args:
        image: straight alpha.
        background: ``checker`` or a key of `BACKGROUNDS`.
    """
    if background == "checker":
        rows, columns = np.indices((image.height, image.width)) // 8
        tone = np.where((rows + columns) % 2, 204, 236).astype(np.uint8)
        under = Image.fromarray(tone).convert("RGBA")
    else:
        under = Image.new("RGBA", image.size, (*BACKGROUNDS[background], 255))
    return Image.alpha_composite(under, image).convert("RGB")


def contact_sheet(
    read: Read,
    num_views: int,
    num_frames: int,
    width: int,
    height: int,
    *,
    background: str = "checker",
    label: str = "v",
    most: int = 16,
) -> Image.Image:
    """Views x frames with their numbers on the margins, composited, for people to look at.

    Args:
        read: gives the images.
        num_views: of the clip.
        num_frames: of the clip.
        width: of one image, pixels; cells are at most 160 wide.
        height: of one image, pixels.
        background: as in `composite`.
        label: in front of a row's number.
        most: rows and columns at most; a larger clip is thinned evenly.
    """
    views, frames = evenly(num_views, most), evenly(num_frames, most)
    scale = min(1.0, 160 / width)
    cell_width, cell_height = max(1, round(width * scale)), max(1, round(height * scale))
    sheet = composite(draw_sheet(read, views, frames, cell_width, cell_height), background)
    left, top = 34, 20
    page = Image.new("RGB", (left + sheet.width, top + sheet.height), (255, 255, 255))
    page.paste(sheet, (left, top))
    draw = ImageDraw.Draw(page)
    for column, frame in enumerate(frames):
        draw.text((left + (column + 0.5) * cell_width, top / 2), f"f{frame:03d}", fill=(90, 90, 90), anchor="mm")
    for row, view in enumerate(views):
        draw.text((left / 2, top + (row + 0.5) * cell_height), f"{label}{view:02d}", fill=(90, 90, 90), anchor="mm")
    return page


def _fit(pixels: np.ndarray, width: int, height: int) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return image if image.size == (width, height) else image.resize((width, height), Image.Resampling.LANCZOS)
