"""The page of one clip: it plays, with its contact sheet, cameras, figures and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mvv.pages.blocks import POLICY, facts_list, figure, swatches, table
from mvv.pages.markup import Html, element, fill, join
from mvv.pages.wording import NOT_STATED, plural
from mvv.report.cards import Cameras, Card, cameras_of, shape_text
from mvv.report.charts import camera_plots

__all__ = ["Sheet", "clip_page"]


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A contact sheet: a row a view, a column a frame."""

    views: Sequence[int]
    frames: Sequence[int]
    width: int
    height: int


def clip_page(dataset_name: str, card: Card, sample: dict[str, Any], sheet: Sheet, *, back: str, steps: Html) -> Html:
    """The page of one clip.

    Args:
        dataset_name: to go back to.
        card: the clip.
        sample: its JSON.
        sheet: its contact sheet.
        back: address of the gallery's page it is on, from the report's folder.
        steps: links to its neighbours.
    """
    cameras, style, row = cameras_of(sample), card.style, card.row
    plan, elevation = camera_plots([], cameras.named, cameras.front_azimuth_deg, cameras.fov_y_deg)
    drawn = [f"{frame} of {row['frames']} at {sample['times_s'][frame]:.2f} s" for frame in card.sprite.frames]
    views = ", ".join(map(str, card.sprite.views))
    body = fill(
        "mvv.report",
        "clip.html",
        back=f"{back}#c-{card.clip_id}",
        dataset=dataset_name,
        steps=steps,
        name=f"{card.name}: {card.animation}",
        lede=row["caption"]
        or f"{shape_text(row)}. Playing: {'views' if len(card.sprite.views) > 1 else 'view'} {views}.",
        clip_id=card.clip_id,
        alt=f"{card.name}, {card.animation}, views {views}",
        still=" still" if style["frames"] == 1 else "",
        times="\n".join(drawn).replace(" ", "\u00a0").replace("\n", " "),
        last=style["frames"] - 1,
        swatches=swatches(),
        facts=_clip_facts(card, sample),
        sheet=_sheet(card.clip_id, sheet),
        plots=join([figure(plan, "From above; the object's front is marked."), figure(elevation, "By elevation.")]),
        cameras=_camera_table(sample, cameras),
        figures=_figures(sample),
        sample=json.dumps(sample, indent=1, ensure_ascii=False),
        **{key: style[key] for key in ("frames", "seconds", "ratio", "width", "height", "across", "down")},
    )
    return fill("mvv.report", "page.html", policy=POLICY, title=f"{card.name}: {card.animation}", root="../", body=body)


def _clip_facts(card: Card, sample: dict[str, Any]) -> Html:
    row, asset, animation, window = card.row, card.asset, sample["animation"], sample["window"]
    name = f"{animation['index']} “{animation['name']}”, {animation['duration_s']:.2f} s"
    span = f"{window['start_s']:.2f} s to {sample['times_s'][-1]:.2f} s"
    if window["loops"] > 1:
        span += f", {window['loops']} loops"
    if window["time_scale"] != 1:
        span += f", time × {window['time_scale']:.3g}"
    rows = [
        ("Clip", element("code", card.clip_id)),
        ("Source", sample["source"]),
        ("Author", asset.get("author") or NOT_STATED),
        ("Licence", sample["license"] or NOT_STATED),
        ("Attribution", sample["attribution"] or NOT_STATED),
        ("Animation", name if animation["index"] >= 0 else "at rest"),
        ("Window", span),
        ("Shape", shape_text(row)),
        ("Place", f"{row['shard']}.tar, position {row['position']}, split {row['split']}"),
        ("Rendered in", f"{row['seconds']:.1f} s, {plural(row['attempts'], 'attempt')}"),
        ("Tags", ", ".join(asset.get("tags", [])) or "none"),
    ]
    return facts_list(rows)


def _sheet(clip_id: str, sheet: Sheet) -> Html:
    across = element("ol", *(element("li", str(frame)) for frame in sheet.frames), class_="across", aria_label="frames")
    down = element("ol", *(element("li", str(view)) for view in sheet.views), class_="down", aria_label="views")
    alt = f"a row a view, a column a frame: {len(sheet.views)} × {len(sheet.frames)} images"
    size = f'width="{sheet.width}" height="{sheet.height}"'
    image = Html(f'<img src="../media/{clip_id}-sheet.webp" {size} alt="{alt}" loading="lazy">')
    style = f"--columns:{len(sheet.frames)};--rows:{len(sheet.views)}"
    return element("div", element("div", across, down, image, class_="sheet", style=style), class_="scroll")


def _camera_table(sample: dict[str, Any], cameras: Cameras) -> Html:
    K = sample["cameras"]["K"]
    rows = [
        (
            str(view),
            f"{azimuth:.2f}°",
            f"{elevation:.2f}°",
            f"{distance:.4f}",
            f"{K[view][0][0]:.2f}, {K[view][1][1]:.2f}",
        )
        for view, (azimuth, elevation, distance) in enumerate(cameras.named)
    ]
    heads = ["View", "#Azimuth", "#Elevation", "#Distance", "#Focal length, pixels (x, y)"]
    moving = (
        element("p", "The cameras move; these are their places at frame 0.", class_="note") if cameras.moving else ""
    )
    return join([moving, table(heads, rows)])


def _figures(sample: dict[str, Any]) -> Html:
    blocks = []
    for title, values in (
        ("Motion, in radii of the clip’s sphere", sample["motion"]),
        ("Quality, from the pixels", sample["quality"]),
        ("Normalisation", sample["normalization"]),
        ("Rendering", _flat(sample["render"])),
    ):
        rows = [(name.replace("_", " "), _value(value)) for name, value in values.items()]
        blocks.append(element("div", element("h3", title), facts_list(rows)))
    return join(blocks)


def _flat(render: dict[str, Any]) -> dict[str, Any]:
    """Nested settings in a line each; the lights by name."""
    flat = {}
    for name, value in render.items():
        if name == "lights":
            lamps = (f"{lamp['name']} {lamp['type'].lower()} {lamp['energy']:g}" for lamp in value["lights"])
            flat["lights"] = f"{value['rig']}: {', '.join(lamps)}"
        elif isinstance(value, dict):
            flat[name] = ", ".join(f"{key} {_value(inner)}" for key, inner in value.items())
        else:
            flat[name] = value
    return flat


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(_value(item) for item in value)
    return str(value)
