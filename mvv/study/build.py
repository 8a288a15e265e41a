"""Writes the site of a study: one page, its script and style, the questions as data, and pictures with secret names.

Nothing in the site says which clip is of which method: names are keyed hashes, pictures are encoded anew, and all files
carry one date. What the names stand for is in the key, beside the site and never in it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from eval.inputs import open_references, parse_view
from eval.items import Item, Video
from eval.protocols import PROTOCOLS
from eval.study import ANSWERS, CRITERIA, Plan, make_plan
from eval.study.design import BROKEN
from manifests.errors import InputError
from manifests.images import composite
from mvv.leaderboard.entries import Entry, entries_of
from mvv.pages.blocks import POLICY
from mvv.pages.folder import make_room, write_assets, write_page
from mvv.pages.markup import fill, script_json
from mvv.pictures import evenly
from mvv.study.pictures import broken, grid, grid_shape, read_strip, save_strip

__all__ = ["Made", "StudyOptions", "build_study", "key_path"]

_VIEWS = 4  # more in one clip are too small to judge
_DATE = 946_684_800  # 2000-01-01, of every file: their own times would tell which were made together


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """How a study is laid out."""

    title: str = "Which animation is better?"
    """Heading of the first page; must not name a method."""
    questions_per_rater: int = 12
    """Objects that one person is shown; two checks come on top."""
    sheets: int = 48
    """Different sheets of questions; more people than that share them."""
    seed: int = 0
    """Of orders and dealing, together with a secret that is drawn anew each time."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """What was written.

    Attributes:
        page: the page to open.
        key: the file that must stay private.
        plan: what is asked.
        left_out: object -> why it is not part of the study.
    """

    page: Path
    key: Path
    plan: Plan
    left_out: Mapping[str, str]


def key_path(out: Path) -> Path:
    """Where the key of a site is written: beside it."""
    return out.with_name(f"{out.name}.key.json")


def build_study(
    runs: Sequence[Path | str], out: Path | str, options: StudyOptions | None = None, *,
    references: Sequence[Path | str] = (), progress: Callable[[int, int], None] | None = None,
) -> Made:  # fmt: skip
    """Writes a study of the objects that all runs have.

    Args:
        runs: folders of runs, one a method, of one set and one protocol.
        out: folder of the site; new, empty, or an earlier study whose key is gone.
        options: see there.
        references: the objects at rest, as `eval.inputs.open_references` takes them; where none are given, a run whose
            references are its own first frames supplies them.
        progress: called with (objects drawn, objects).

    Raises:
        InputError: runs that cannot be compared, an object without prompt, no pictures at rest, a title that names a
            method, or a study whose key is still there.
    """
    out, options = Path(out), options or StudyOptions()
    entries = entries_of(runs)
    _check_runs(entries)
    _check_title(options.title, entries)
    if key_path(out).exists():
        raise InputError(
            f"{key_path(out)}: found the key of a study, expected none; without it answers are lost, choose another "
            "--out, or remove the key first"
        )
    material = _Material(entries, references)
    prompts, left_out = material.prompts()
    plan = make_plan(
        [entry.method for entry in entries], prompts, questions_per_rater=options.questions_per_rater,
        sheets=options.sheets, seed=options.seed, about=_about(entries, options),
    )  # fmt: skip
    make_room(out, kind="study", written_by="mvv eval study make", folders=("assets", "media"))
    write_assets(out / "assets", "mvv.study", ["study.js"])
    clips: dict[str, list[float]] = {}
    for done, object_id in enumerate(prompts):
        clips |= _draw(material, plan, object_id, out / "media")
        if progress:
            progress(done + 1, len(prompts))
    write_page(out / "assets" / "questions.js", f"window.mvvStudy={script_json(_data(plan, clips, options))};\n")
    write_page(out / "index.html", fill("mvv.study", "index.html", policy=POLICY, title=options.title))
    plan.write_key(key_path(out))
    for path in (*out.rglob("*"), out):
        os.utime(path, (_DATE, _DATE))
    return Made(page=out / "index.html", key=key_path(out), plan=plan, left_out=left_out)


def _data(plan: Plan, clips: Mapping[str, Sequence[float]], options: StudyOptions) -> dict[str, Any]:
    """What the page knows: secret names, prompts, and how each clip plays. Sorted by name, which is a random order."""
    shown = {question.id for sheet in plan.sheets for question in sheet}
    return {
        "study": plan.study, "schema": ANSWERS, "title": options.title,
        "criteria": [{"id": c.id, "title": c.title, "question": c.question} for c in CRITERIA],
        "questions": {
            id: {"prompt": plan.prompts[object_id], "picture": plan.name("picture", object_id)}
            for id, (object_id, _) in sorted(plan.questions.items()) if id in shown
        },
        "clips": dict(sorted(clips.items())),
        "sheets": [[[question.id, *question.clips] for question in sheet] for sheet in plan.sheets],
    }  # fmt: skip


def _draw(material: _Material, plan: Plan, object_id: str, media: Path) -> dict[str, list[float]]:
    """Writes the pictures of one object; secret name -> frames, frames a second, width over height, columns, rows."""
    clips = {entry.method: material.clip(entry, object_id) for entry in material.entries}
    rng = np.random.default_rng(int(plan.name("broken", object_id), 16))
    views, fps = clips[plan.methods[int(rng.integers(len(plan.methods)))]]
    clips[BROKEN] = [broken(view, rng) for view in views], fps
    named = {plan.clip_id(object_id, method): clip for method, clip in clips.items()}
    named[plan.name("picture", object_id)] = material.at_rest(object_id), 1.0
    found: dict[str, list[float]] = {}
    for id, (views, fps) in named.items():
        pixels = grid(views)
        save_strip(pixels, media / f"{id}.webp")
        found[id] = [len(pixels), fps, round(pixels.shape[2] / pixels.shape[1], 5), *grid_shape(len(views))]
    return found


class _Material:
    """What the runs have of their shared objects."""

    def __init__(self, entries: Sequence[Entry], references: Sequence[Path | str]) -> None:
        self.entries = entries
        self._rules = PROTOCOLS[entries[0].run.info["protocol"]["name"]]
        self._references = references

    def prompts(self) -> tuple[dict[str, str], dict[str, str]]:
        """(object -> prompt of those in the study, object -> why it is not)."""
        objects = sorted({object_id for entry in self.entries for object_id in entry.views})
        prompts, left_out = {}, {}
        for object_id in objects:
            lacking = [entry.method for entry in self.entries if not entry.strips.get(object_id)]
            if lacking:
                left_out[object_id] = f"no clips of {', '.join(lacking)}"
            elif not self.views(object_id):
                left_out[object_id] = "no view that all runs have"
            else:
                prompts[object_id] = self._prompt(object_id)
        return prompts, left_out

    def clip(self, entry: Entry, object_id: str) -> tuple[list[np.ndarray], float]:
        """(frame, height, width, 3) of each view of a method, and frames a second."""
        strips = [entry.strips[object_id][view] for view in self.views(object_id)]
        return [read_strip(strip) for strip in strips], strips[0].fps

    def at_rest(self, object_id: str) -> list[np.ndarray]:
        """(1, height, width, 3) of each view, the size of the first run's clips."""
        views = self.views(object_id)
        sizes = {view: read_strip(self.entries[0].strips[object_id][view]).shape[1:3] for view in views}
        item = self._items.get(object_id)
        if item is not None:
            background = np.array(self._rules.background) / 255
            return [
                composite(item.references[v](), background, size=sizes[v])[None] for v in views if v in item.references
            ]
        for entry in self.entries:
            if entry.run.info["references"] == "first-frame":  # then its frame 0 is the object at rest
                return [read_strip(entry.strips[object_id][view])[:1] for view in views]
        raise InputError(
            f"{object_id}: found no picture of the object at rest, expected one to hold the clips against; give "
            "--references (stills of `mvv still`, or OBJECT/VIEW.png)"
        )

    @cached_property
    def _items(self) -> dict[str, Item]:
        """Objects with references; none where no references were given."""
        if not self._references:
            return {}
        items = [Item(object_id=o, videos=tuple(_video(o, v) for v in self.views(o))) for o in self.prompts()[0]]
        return {item.object_id: item for item in open_references(self._references, items) if item.references}

    def views(self, object_id: str) -> list[str]:
        """At most four views that all runs have, in the order of the protocol."""
        shared = set.intersection(*(set(entry.strips[object_id]) for entry in self.entries))
        ordered = [view for view in self._rules.views if view in shared] + sorted(shared - set(self._rules.views))
        return [ordered[k] for k in evenly(len(ordered), _VIEWS)]

    def _prompt(self, object_id: str) -> str:
        prompts = {entry.run.info.get("prompts", {}).get(object_id, "") for entry in self.entries} - {""}
        if len(prompts) != 1:
            raise InputError(
                f"{object_id}: found {'different prompts' if prompts else 'no prompt'} in the runs, expected one "
                "to judge the clips by; repeat `mvv eval run` with --prompts"
            )
        return prompts.pop()


def _video(object_id: str, view: str) -> Video:
    """A view by its name, for references to be matched with; it has no frames of its own."""
    azimuth, elevation = parse_view(view) or (None, None)
    return Video(
        object_id=object_id, view=view, azimuth_deg=azimuth, elevation_deg=elevation, source=view, has_alpha=False,
        read=lambda: np.zeros((0, 1, 1, 4), np.uint8),
    )  # fmt: skip


def _check_runs(entries: Sequence[Entry]) -> None:
    first = entries[0].run.info
    for entry in entries[1:]:
        for what in ("protocol", "set"):
            if entry.run.info[what]["hash"] != first[what]["hash"]:
                found, wanted = (
                    f"{info[what]['name']} ({info[what]['hash'][:12]})" for info in (entry.run.info, first)
                )
                raise InputError(
                    f"{entry.run.folder}: found the {what} {found}, expected {wanted} as in {entries[0].run.folder}; "
                    f"give runs of one {what}"
                )


def _check_title(title: str, entries: Sequence[Entry]) -> None:
    words = " ".join(re.findall(r"\w+", title.lower()))
    for entry in entries:
        name = " ".join(re.findall(r"\w+", entry.method.lower()))
        if name and f" {name} " in f" {words} ":
            raise InputError(
                f"--title: found the method {entry.method!r} in it, expected nothing that tells; choose another"
            )


def _about(entries: Sequence[Entry], options: StudyOptions) -> dict[str, Any]:
    info = entries[0].run.info
    return {
        "title": options.title, "seed": options.seed, "protocol": info["protocol"],
        "set": {"name": info["set"]["name"], "hash": info["set"]["hash"]},
        "runs": {entry.method: entry.run.info["hash"] for entry in entries},
    }  # fmt: skip
