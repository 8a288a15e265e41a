"""Clips of all methods side by side: one object and one view at a time, played in step by the site's script.

A page only ever loads the strips of the view that is shown, however many objects and methods there are.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from eval.inputs.names import safe_name
from mvv.leaderboard.entries import Entry, Strip
from mvv.pages.markup import Html, element

__all__ = ["object_page_name", "player", "prompt_of", "thumbnail"]


def object_page_name(key: str, object_id: str) -> str:
    """Address of the page of an object of a table, relative to the site."""
    return f"objects/{key}/{safe_name(object_id)}.html"


def prompt_of(entries: Sequence[Entry], object_id: str) -> str:
    """What the animation should show, as the first run that knows it says; "" where none does."""
    prompts = ((entry.run.info.get("prompts") or {}).get(object_id) for entry in entries)
    return next((str(prompt) for prompt in prompts if prompt), "")


def player(entries: Sequence[Entry], objects: Sequence[str], key: str, *, root: str, choose: bool = False) -> Html:
    """The player, or nothing where no run has a clip of these objects.

    Args:
        entries: runs in the order in which they stand.
        objects: that can be chosen, the first is shown.
        key: of the table.
        root: way from the page to the site, ``""`` or e.g. ``../``.
        choose: with a list of the objects.
    """
    clips = [clip for name in objects if (clip := _object(entries, name, key, root))["views"]]
    if not clips:
        return Html("")
    having = [entry for entry in entries if any(entry.name in clip["clips"] for clip in clips)]
    first = clips[0]
    stages = [_stage(entry, first, root) for entry in having]
    parts = [_tools(clips if choose else [])]
    if choose:
        parts.append(element("p", first["prompt"], class_="prompt", hidden=None if first["prompt"] else ""))
    parts.append(element("div", *stages, class_="stages"))
    if choose:
        parts.append(
            element("p", element("a", f"All about {first['name']}", class_="page", href=first["page"]), class_="hint")
        )
    return element("div", *parts, class_="player", data_clips=json.dumps(clips, separators=(",", ":")))


def thumbnail(entries: Sequence[Entry], object_id: str, *, root: str) -> Html:
    """The first frame of the first run's first strip of an object."""
    strip = next((s for entry in entries for s in entry.strips.get(object_id, {}).values()), None)
    if strip is None:
        return element("div", class_="stage absent")
    image = element("img", class_="strip", src=root + strip.address, alt="", loading="lazy", decoding="async")
    return element("div", image, class_="stage", style=_style(strip))


def _object(entries: Sequence[Entry], object_id: str, key: str, root: str) -> dict[str, Any]:
    """What the script knows of an object: its views with their file names, and which of them each run has."""
    found = {entry.name: strips for entry in entries if (strips := entry.strips.get(object_id))}
    views = dict.fromkeys(view for strips in found.values() for view in strips)
    clips = {}
    for name, strips in found.items():
        shapes = {view: [s.frames, s.fps, round(s.ratio, 5)] for view, s in strips.items()}
        clips[name] = {"folder": next(iter(strips.values())).address.rpartition("/")[0], "views": shapes}
    return {
        "name": object_id,
        "page": root + object_page_name(key, object_id),
        "prompt": prompt_of(entries, object_id),
        "views": {view: f"{safe_name(view)}.webp" for view in views},
        "clips": clips,
    }


def _tools(choices: Sequence[Mapping[str, Any]]) -> Html:
    parts = [element("button", "Pause", type="button", class_="play", aria_pressed="true")]
    parts.append(element("input", type="range", min=0, max=0, value=0, step=1, aria_label="Frame"))
    parts.append(element("output", "frame 1", class_="frame"))
    if choices:
        options = [element("option", clip["name"], value=place) for place, clip in enumerate(choices)]
        parts.append(element("select", *options, class_="object", aria_label="Object"))
    parts.append(element("select", class_="view", aria_label="View"))
    speeds = [element("option", text, value=value) for value, text in (("1", "1×"), ("0.5", "½×"), ("0.25", "¼×"))]
    parts.append(element("select", *speeds, class_="speed", aria_label="Speed"))
    return element("div", *parts, class_="tools")


def _stage(entry: Entry, clip: Mapping[str, Any], root: str) -> Html:
    strip = next(iter((entry.strips.get(clip["name"]) or {}).values()), None)
    image = element("img", class_="strip", alt=f"clip of {entry.method}", decoding="async")
    style = _style(strip) if strip else None
    stage = element("div", image, class_="stage loading", style=style, data_run=entry.name, data_root=root)
    return element("figure", stage, element("figcaption", element("a", entry.method, href=root + entry.page)))


def _style(strip: Strip) -> str:
    return f"--frames:{strip.frames};--ratio:{strip.ratio:.5f}"
