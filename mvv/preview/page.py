"""`preview.html` in the folder of an animation: while it runs it reloads itself, at the end it shows what came of it.

    OUT/preview.html  OUT/preview.webp  OUT/assets/style.css

Reads what the run writes (settings, log, record) and changes none of it. Opened from disk it needs no server.
"""

from __future__ import annotations

import functools
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from manifests.publish import write_bytes
from mvv.pages.blocks import POLICY, facts_list, section
from mvv.pages.folder import write_assets
from mvv.pages.markup import Html, element, fill, join
from mvv.pages.wording import duration_text, plural, size_text
from mvv.preview.curves import loss_curve, read_log

__all__ = ["PAGE", "PICTURE", "State", "write_preview"]

PAGE, PICTURE = "preview.html", "preview.webp"
_RECORD, _SETTINGS, _LOG = "animate.json", "settings.json", "log.jsonl"
_RELOAD_S = 5
_VIEW = re.compile(r"a(\d+)e([+-]\d+)")
_SETS = {"eval-3to4d": "Views of 3to4D's protocol", "eval-animate3d": "Views of Animate3D's protocol"}


@dataclass(frozen=True, kw_only=True)
class State:
    """Where a run is.

    Attributes:
        model: file name of the model.
        doing: name of the stage, or what is done.
        done: steps done; 0 of 0 where they are not counted.
        total: steps in all.
        left_s: seconds left of the stage, None where they are not known.
        shown: what the picture shows.
        stopped: why nothing more comes; "" while it runs.
    """

    model: str
    doing: str
    done: int = 0
    total: int = 0
    left_s: float | None = None
    shown: str = ""
    stopped: str = ""


def write_preview(folder: Path, state: State) -> Path:
    """Writes the page as the folder is now.

    Args:
        folder: of the run.
        state: where it is; where the record is there the run is done, and only the model's name counts.

    Returns:
        the page.

    Raises:
        OSError: the disk refuses.
    """
    _style(folder / "assets")
    record = _read(folder / _RECORD)
    settings = record or _read(folder / _SETTINGS)
    head = element(
        "header",
        element("p", state.model, class_="eyebrow"),
        element("h1", settings.get("prompt", "")),
        element("p", _how(settings), class_="lede"),
        class_="top",
    )
    parts = [_result(folder, record)] if record else [_running(folder, state)]
    curves = _curves(folder)
    settled = element("pre", json.dumps(settings.get("config", {}), indent=1))
    parts += [curves] if curves else []
    parts.append(element("section", element("details", element("summary", "Every setting"), settled)))
    alive = not record and not state.stopped
    text = fill(
        "mvv.preview",
        "page.html",
        policy=f"{POLICY}; media-src 'self' file:",
        refresh=element("meta", http_equiv="refresh", content=str(_RELOAD_S)) if alive else "",
        title=f"{state.model}: {settings.get('prompt', '')}",
        body=join([head, element("main", *parts)]),
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
    )
    write_bytes(folder / PAGE, text.encode("utf-8"))
    return folder / PAGE


@functools.cache  # once a process: a page that is being read must not find half a style sheet
def _style(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    write_assets(folder, "mvv.preview", ())


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text("utf-8")) if path.is_file() else {}


def _how(settings: dict[str, Any]) -> str:
    method = settings.get("config", {}).get("method", "")
    return f"{method}, with the prior {settings.get('prior', '')}"


def _running(folder: Path, state: State) -> Html:
    counted = f"{state.done:,} of {state.total:,} steps" if state.total else ""
    left = "" if state.left_s is None else f"about {duration_text(state.left_s)} left of it"
    words = [element("b", "stopped" if state.stopped else state.doing), element("span", counted)]
    words.append(element("span", "" if state.stopped else left))
    parts = [element("p", *words, class_="state")]
    if state.total:
        parts.append(element("progress", value=state.done, max=state.total, aria_label=state.doing))
    if state.stopped:
        parts.append(element("p", state.stopped, class_="note"))
    picture = folder / PICTURE
    if picture.is_file():
        # The address changes with the picture: a reload may otherwise show the one that the browser has kept.
        source = f"{PICTURE}?{picture.stat().st_mtime_ns}"
        caption = element("figcaption", state.shown)
        parts.append(element("figure", element("img", src=source, alt=state.shown), caption, class_="looks"))
    return join(parts)


def _result(folder: Path, record: dict[str, Any]) -> Html:
    videos = folder / "videos"
    side = [element("h2", "Files"), _links(folder, record), facts_list(_facts(record))]
    orbit = element("figure", _video(folder, videos / "orbit.mp4", autoplay=""), class_="orbit")
    parts = [element("div", orbit, element("div", *side), class_="first")]
    if (videos / "field.mp4").is_file():
        said = element("figcaption", "The field itself from four sides, before the mesh followed it")
        parts.append(section("The field", element("figure", _video(folder, videos / "field.mp4"), said)))
    for name, title in _SETS.items():
        shown = [_small(folder, path) for path in sorted((videos / name).glob("*.mp4"))]
        if shown:
            note = element("p", "Frame 0 of each view; it opens the video.", class_="lede")
            parts.append(section(title, note, element("div", *shown, class_="views")))
    return join(parts)


def _video(folder: Path, path: Path, **more: str) -> Html:
    source = _address(folder, path)
    return element("video", src=source, controls="", loop="", muted="", playsinline="", preload="metadata", **more)


def _small(folder: Path, path: Path) -> Html:
    """Frame 0 as a link to the video: so many players would be slow, and their controls cover most of a small one."""
    still = next((folder / "frames" / path.parent.name).glob(f"*/{path.stem}/000.png"), None)
    seen = element("img", src=_address(folder, still), alt="", loading="lazy") if still else "play"
    link = element("a", seen, href=_address(folder, path), title="play")
    return element("figure", link, element("figcaption", _view(path.stem)))


def _address(folder: Path, path: Path) -> str:
    return quote(path.relative_to(folder).as_posix())


def _view(name: str) -> str:
    found = _VIEW.fullmatch(name)
    return f"azimuth {int(found[1])}°, elevation {int(found[2])}°" if found else name


def _links(folder: Path, record: dict[str, Any]) -> Html:
    rows = []
    for name in [*record["files"], _RECORD]:
        path = folder / name
        size = size_text(path.stat().st_size) if path.is_file() else plural(sum(1 for _ in path.rglob("*.*")), "file")
        rows.append(element("li", element("a", name, href=name), element("span", size)))
    return element("ul", *rows, class_="links")


def _facts(record: dict[str, Any]) -> list[tuple[str, Any]]:
    stretched = [100 * share for share in record["distortion"]]
    took = ", ".join(f"{name} {duration_text(value)}" for name, value in record["seconds"].items())
    memory = ", ".join(
        f"{value / 1024:.1f} GiB{' of the GPU' if name == 'peak_gpu_mib' else ''}"
        for name, value in record["memory"].items()
    )
    return [
        ("Frames", f"{len(record['times_s'])} at {record['fps']:.3g} a second"),
        ("Pose", record["pose"] or "as it lies"),
        ("Points that move", f"{record['points']:,}"),
        ("Gaussians", f"{record['gaussians']:,}"),
        ("Edges stretched", f"{sum(stretched) / len(stretched):.2g} % in the mean, {max(stretched):.2g} % at most"),
        ("Time", f"{duration_text(sum(record['seconds'].values()))}: {took}"),
        ("Memory at most", memory),
        ("Machine", record["device"]),
        ("Versions", ", ".join(f"{name} {version}" for name, version in record["versions"].items())),
    ]  # fmt: skip


def _curves(folder: Path) -> Html | None:
    figures = []
    for stage, rows in read_log(folder / _LOG).items():
        last = rows[-1]
        terms = " + ".join(
            f"{name} {value:.3g}" for name, value in last.items() if name not in ("stage", "step", "loss")
        )
        caption = f"{stage}: loss {last['loss']:.3g} = {terms}" if terms else f"{stage}: loss {last['loss']:.3g}"
        figures.append(element("figure", loss_curve(stage, rows), element("figcaption", caption)))
    return section("Losses", element("div", *figures, class_="pair")) if figures else None
