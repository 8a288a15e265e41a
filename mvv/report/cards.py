"""What a report knows of one clip: its rows, how its strip was drawn, and its cameras."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from mvv.pages.wording import plural
from mvv.pictures import Sprite
from mvv.report.charts import Camera

__all__ = ["Cameras", "Card", "cameras_of", "shape_text"]


@dataclass(frozen=True, kw_only=True)
class Card:
    """One clip as the gallery shows it.

    Args:
        row: its row of clips.parquet.
        asset: its row of assets.parquet.
        sprite: how its strip was drawn.
    """

    row: dict[str, Any]
    asset: dict[str, Any]
    sprite: Sprite

    @property
    def clip_id(self) -> str:
        return self.row["clip_id"]

    @property
    def name(self) -> str:
        return self.asset.get("name") or self.row["asset_id"]

    @property
    def animation(self) -> str:
        """The file's name of the animation, else its number."""
        index = self.row["animation"]
        name = self.row["animation_name"] or ("at rest" if index < 0 else f"animation {index}")
        return name if self.row["window"] <= 0 else f"{name} (part {self.row['window'] + 1})"

    @property
    def size(self) -> tuple[int, int]:
        """Pixels of the whole strip."""
        sprite = self.sprite
        return sprite.columns * sprite.cell_width, sprite.rows * sprite.cell_height * len(sprite.frames)

    @property
    def style(self) -> dict[str, Any]:
        """What the style sheet needs to play the strip; numbers only."""
        width, height = self.size
        frames = len(self.sprite.frames)
        return {
            "frames": frames,
            "seconds": round(self.row["frames"] / self.row["fps"], 4),
            "ratio": round(width / (height / frames), 5),
            "width": width,
            "height": height,
            "across": self.sprite.columns,
            "down": self.sprite.rows,
        }

    @property
    def record(self) -> dict[str, Any]:
        """What the gallery knows of a clip, on its card or in search.js."""
        row = self.row
        words = (
            self.name,
            self.animation,
            row["license"],
            row["clip_id"],
            self.asset.get("author", ""),
            row["caption"],
        )
        return {
            "id": self.clip_id,
            "name": self.name,
            "animation": self.animation,
            "motion": round(row["motion_mean_displacement"], 6),
            "text": " ".join(words).lower(),
            "figure": f"{row['motion_mean_displacement']:.2f} r · {row['frames'] / row['fps']:.1f} s",
            **self.style,
        }


@dataclass(frozen=True, kw_only=True)
class Cameras:
    """The cameras of a clip at its first frame."""

    named: list[Camera]
    front_azimuth_deg: float
    fov_y_deg: float
    moving: bool


def cameras_of(sample: dict[str, Any]) -> Cameras:
    """Azimuth, elevation and distance of every view of a sample."""
    cameras = sample["cameras"]
    views = list(zip(cameras["azimuth_deg"], cameras["elevation_deg"], cameras["distance"], strict=True))
    moving = bool(views) and isinstance(views[0][0], list)
    named = [tuple(value[0] if moving else value for value in view) for view in views]
    return Cameras(
        named=named,
        front_azimuth_deg=cameras["front_azimuth_deg"],
        fov_y_deg=cameras["fov_y_deg"],
        moving=moving,
    )


def shape_text(row: dict[str, Any]) -> str:
    """Views, frames, rate and size of a clip's row, in words."""
    still = row["frames"] == 1
    time = "one frame" if still else f"{row['frames']} frames at {row['fps']:g} fps"
    return f"{plural(row['views'], 'view')} × {time}, {row['width']}\u00a0×\u00a0{row['height']} pixels"
