"""A run: select, score object after object, merge. Stopped at any moment, the same command goes on where it was.

Finished objects lie in ``parts/`` under a name made of their content and of the run's settings; the merged tables are
sorted, so neither the order of the work nor a restart leaves a trace in them. `run.json` is written last.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import os
import platform
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from eval import guards
from eval.evalset import EvalSet
from eval.extractor import Compute
from eval.extractors import find
from eval.inputs import safe_name
from eval.items import Item
from eval.metric import Metric
from eval.protocols import Protocol
from eval.runs import METHOD, SCHEMA, content_hash, write_tables
from eval.score import MEDIA_SIZE, Scored, Scorer, set_rows
from eval.selection import Selection, select
from eval.weights import Store
from manifests.errors import InputError
from manifests.publish import write_bytes

__all__ = ["ObjectSet", "RunOptions", "Summary", "load_extractors", "run"]

_FLOW = "flow-dis"
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True, kw_only=True)
class ObjectSet:
    """Which objects a complete row has.

    Attributes:
        name: for people.
        hash: rows are ranked together only where it is the same.
        objects: ids, sorted.
    """

    name: str
    hash: str
    objects: tuple[str, ...]

    @classmethod
    def of(cls, items: Sequence[Item]) -> ObjectSet:
        """The set that an input brings along: its objects, by id, and their prompts."""
        prompts = {item.object_id: item.prompt for item in items}
        content = json.dumps(prompts, sort_keys=True)
        return cls(
            name="the input's own objects",
            hash=hashlib.sha256(content.encode()).hexdigest(),
            objects=tuple(sorted(prompts)),
        )


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a run is asked for; all but ``compute`` decides its values."""

    method: str
    """Name of the row."""
    metrics: str = "all"
    """``all``, ``offline``, or names of cards with commas between."""
    allow_missing: bool = False
    """Go on without metrics whose weights are absent; they are marked as missing."""
    background: tuple[int, int, int] | None = None
    """Behind the object, 0..255; by default the protocol's. Another one is off-protocol."""
    seed: int = 0
    """Of the noisy control."""
    references: str = "none"
    """``stills``, ``first-frame`` or ``none``: where the references came from; recorded."""
    note: str = ""
    """A sentence for the leaderboard."""
    links: dict[str, str] = field(default_factory=dict)
    """Name -> URL for the leaderboard, e.g. paper."""
    compute: Compute = field(default_factory=Compute)
    """Device and batch size; they do not decide a value."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What `run` tells.

    Attributes:
        info: run.json; empty where only a part was computed.
        finished_before: the run was complete already, nothing was computed.
        resumed: objects that an earlier, interrupted run had finished.
    """

    info: dict[str, Any]
    finished_before: bool
    resumed: int

    @property
    def unread(self) -> int:
        """Videos that could not be read."""
        return self.info["unread"] if self.info else 0


def run(
    items: Sequence[Item], rules: Protocol, out: Path, options: RunOptions, *, store: Store | None = None,
    evalset: ObjectSet | EvalSet | None = None, part: tuple[int, int] | None = None, progress: Progress | None = None,
) -> Summary:  # fmt: skip
    """Scores a method and writes its run.

    Args:
        items: one an object, from `eval.inputs`.
        rules: the protocol.
        out: folder of the run; an interrupted run there goes on, a finished one of the same settings is kept.
        options: see there.
        store: the weights; by default the user's.
        evalset: which objects a complete row has; by default those of the input.
        part: (i, n) computes every n-th object from the i-th, for n processes on one folder, and merges nothing; the
            same call without it merges (and computes what is left).
        progress: told (objects done, objects, what is being done).

    Raises:
        InputError: no objects, unknown or impossible metrics, absent weights, or another run in ``out``.
    """
    began = time.perf_counter()
    store = store or Store()
    evalset = evalset or ObjectSet.of(items)
    wanted = set(evalset.objects)
    items = sorted((item for item in items if item.object_id in wanted), key=lambda item: item.object_id)
    if not items:
        raise InputError(
            "INPUT: found none of the set's objects, expected at least one; compare the object ids with the set's"
        )
    chosen = select(options.metrics, rules, items, store, allow_missing=options.allow_missing)
    background = options.background or rules.background
    settings = _settings(rules, chosen, background, options, evalset)
    finished = _open_folder(out, settings, items)
    if finished is not None:
        return Summary(info=finished, finished_before=True, resumed=len(items))

    parts = {item.object_id: _Part(out, item, settings) for item in items}
    mine = items if part is None else items[part[0] :: part[1]]
    todo = [item for item in mine if not parts[item.object_id].done]
    resumed = len(mine) - len(todo)
    seconds: dict[str, float] = defaultdict(float)
    if todo:
        extractors = load_extractors(chosen.metrics, store, options.compute)
        scorer = Scorer(
            rules=rules, background=background, metrics=chosen.metrics, extractors=extractors, seed=options.seed
        )
        for count, item in enumerate(todo):
            if progress:
                progress(resumed + count, len(mine), item.object_id)
            parts[item.object_id].write(scorer.score(item))
    if part is not None:
        return Summary(info={}, finished_before=False, resumed=resumed)
    if progress:
        progress(len(items), len(items), "tables")
    rows: dict[str, list[dict[str, Any]]] = {"videos": [], "frames": [], "guards": [], "inputs": []}
    features: dict[tuple[str, str, str], Any] = {}
    controls: dict[str, str] = {}
    shutil.rmtree(out / "media", ignore_errors=True)
    for item in items:
        scored = parts[item.object_id].read()
        for name, more in scored.rows.items():
            rows[name] += more
        features |= {(item.object_id, *key): value for key, value in scored.features.items()}
        controls |= scored.controls
        for name, spent in scored.seconds.items():
            seconds[name] += spent
        folder = out / "media" / safe_name(item.object_id)
        folder.mkdir(parents=True)
        for view, data in scored.media.items():
            (folder / f"{safe_name(view)}.webp").write_bytes(data)
    rows["videos"] += set_rows(chosen.metrics, features)
    write_tables(out, rows)
    info = _info(items, rules, chosen, options, evalset, settings, rows, seconds, controls)
    info["seconds"] = round(time.perf_counter() - began, 2)
    info["hash"] = content_hash(out)
    _write_json(out / "run.json", info)
    shutil.rmtree(out / "parts")
    return Summary(info=info, finished_before=False, resumed=resumed)


def load_extractors(metrics: Sequence[Metric], store: Store, compute: Compute) -> dict[str, Any]:
    """Every extractor that the metrics and the guards read, loaded once."""
    names = dict.fromkeys([_FLOW, *(name for metric in metrics for name in metric.extractors)])
    classes = {name: find(name) for name in names}
    return {name: cls(*map(store.path, cls.weights), compute=compute) for name, cls in classes.items()}


# -- the folder -------------------------------------------------------------------------------------------------------


def _settings(
    rules: Protocol,
    chosen: Selection,
    background: tuple[int, int, int],
    options: RunOptions,
    evalset: ObjectSet | EvalSet,
) -> dict[str, Any]:
    """What decides the values of a run."""
    return {
        "schema": SCHEMA, "method": options.method, "protocol": rules.hash, "set": evalset.hash,
        "cards": dict(chosen.hashes),
        "background": list(background), "seed": options.seed, "references": options.references,
        "limits": dataclasses.asdict(guards.Limits()), "code": _code_hash(),
    }  # fmt: skip


def _open_folder(out: Path, settings: dict[str, Any], items: Sequence[Item]) -> dict[str, Any] | None:
    """Makes or resumes the folder; run.json where it is finished with these settings and inputs."""
    path = out / "parts" / "settings.json"
    done = out / "run.json"
    contents = _contents(items)
    if done.exists():
        info = json.loads(done.read_bytes())
        if info.get("settings") == settings and info.get("contents") == contents:
            return info
        raise InputError(
            f"{out}: found a finished run of {_differences(info.get('settings', {}), settings) or 'another input'}, "
            "expected a new folder or the same request; choose another --out or remove the folder"
        )
    if path.exists():
        found = json.loads(path.read_bytes())
        if found != settings:
            raise InputError(
                f"{out}: found an unfinished run of {_differences(found, settings)}, expected the same request; repeat "
                "that command, or choose another --out"
            )
    elif out.exists() and any(entry.name != "parts" for entry in out.iterdir()):
        raise InputError(f"{out}: found a folder with other files, expected a new or empty one; choose another --out")
    path.parent.mkdir(parents=True, exist_ok=True)
    _write_json(path, settings)
    return None


def _differences(found: dict[str, Any], asked: dict[str, Any]) -> str:
    names = [name for name in asked if found.get(name) != asked[name]]
    return "" if not names else "other settings (" + ", ".join(names) + ")"


def _contents(items: Sequence[Item]) -> str:
    lines = [f"{item.object_id} {item.content} {item.prompt}" for item in items]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class _Part:
    """One finished object in ``parts/``: a JSON of its rows, its strips, and an npz of set-level features."""

    def __init__(self, out: Path, item: Item, settings: dict[str, Any]) -> None:
        key = json.dumps([settings, item.content, item.object_id, item.prompt, sorted(item.references)], sort_keys=True)
        self._folder = out / "parts" / hashlib.sha256(key.encode()).hexdigest()[:32]

    @property
    def done(self) -> bool:
        return self._folder.is_dir()

    def write(self, scored: Scored) -> None:
        """All or nothing: a folder under another name, renamed."""
        draft = self._folder.with_suffix(f".{os.getpid()}")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        _write_json(
            draft / "rows.json",
            {
                "rows": scored.rows,
                "seconds": dict(scored.seconds),
                "views": list(scored.media),
                "controls": scored.controls,
            },
        )
        for place, data in enumerate(scored.media.values()):
            (draft / f"{place}.webp").write_bytes(data)
        keys, arrays = [], {}
        for (view, variant), by_extractor in scored.features.items():
            for extractor, found in by_extractor.items():
                for name, array in found.items():
                    arrays[str(len(keys))] = array
                    keys.append([view, variant, extractor, name])
        np.savez(draft / "features.npz", **arrays)
        _write_json(draft / "keys.json", keys)
        os.rename(draft, self._folder)

    def read(self) -> Scored:
        found = json.loads((self._folder / "rows.json").read_bytes())
        media = {view: (self._folder / f"{place}.webp").read_bytes() for place, view in enumerate(found["views"])}
        features: dict[tuple[str, str], dict[str, Any]] = {}
        with np.load(self._folder / "features.npz", allow_pickle=False) as arrays:
            for place, (view, variant, extractor, name) in enumerate(
                json.loads((self._folder / "keys.json").read_bytes())
            ):
                features.setdefault((view, variant), {}).setdefault(extractor, {})[name] = arrays[str(place)]
        return Scored(
            rows=found["rows"], media=media, features=features, seconds=found["seconds"], controls=found["controls"]
        )


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    write_bytes(path, text.encode())


# -- run.json ---------------------------------------------------------------------------------------------------------


def _info(
    items: Sequence[Item], rules: Protocol, chosen: Selection, options: RunOptions, evalset: ObjectSet | EvalSet,
    settings: dict[str, Any], rows: dict[str, list[dict[str, Any]]], seconds: dict[str, float],
    controls: dict[str, str],
) -> dict[str, Any]:  # fmt: skip
    present = {row["object_id"] for row in rows["inputs"] if not row["reason"]}
    missing = [object_id for object_id in evalset.objects if object_id not in present]
    why = _why_not(rules, chosen, rows, missing)
    lengths = Counter((row["frames"], row["fps"]) for row in rows["inputs"] if not row["reason"])
    (frames, fps), _ = lengths.most_common(1)[0] if lengths else ((0, None), 0)
    cards = {
        metric.card.name: {
            "hash": chosen.hashes[metric.card.name], "card": dataclasses.asdict(metric.card),
            "weights": {name: chosen.weights[name] for name in metric.card.weights},
        }
        for metric in chosen.metrics
    }  # fmt: skip
    return {
        "schema": SCHEMA, "method": options.method, "note": options.note, "links": dict(options.links),
        "protocol": {"name": rules.name, "version": rules.version, "hash": rules.hash},
        "set": {"name": evalset.name, "hash": evalset.hash, "objects": list(evalset.objects)},
        "references": options.references,
        "coverage": {"objects": len(present & set(evalset.objects)), "of": len(evalset.objects), "missing": missing},
        "cards": cards, "missing": dict(chosen.missing), "not_applicable": dict(chosen.not_applicable),
        "prompts": {item.object_id: item.prompt for item in items},
        "media": {"fps": fps or rules.fps, "frames": frames, "size": MEDIA_SIZE},
        "controls": controls, "ranked": not why, "why_not": why, "settings": settings, "contents": _contents(items),
        "seconds_by": {name: round(spent, 3) for name, spent in sorted(seconds.items())},
        "videos": sum(not row["reason"] for row in rows["inputs"]),
        "unread": sum(bool(row["reason"]) for row in rows["inputs"]),
        "versions": _versions(), "created": datetime.date.today().isoformat(),
        "machine": {"device": options.compute.device, "batch_size": options.compute.batch_size,
                    "cpu": platform.machine(),
                    "cores": os.cpu_count(), "system": platform.system()},
    }  # fmt: skip


def _why_not(
    rules: Protocol, chosen: Selection, rows: dict[str, list[dict[str, Any]]], missing: Sequence[str]
) -> list[str]:
    """Why the row cannot be ranked; empty where it can."""
    why = []
    if missing:
        why.append(
            f"{len(missing)} of the set's objects are missing: {', '.join(missing[:5])}"
            f"{' ...' if len(missing) > 5 else ''}"
        )
    unread = [row for row in rows["inputs"] if row["reason"]]
    if unread:
        why.append(f"{len(unread)} videos could not be read, the first: {unread[0]['reason']}")
    expected = set(rules.views)
    views: dict[str, set[str]] = defaultdict(set)
    for row in rows["inputs"]:
        views[row["object_id"]].add(row["view"])
    lacking = [object_id for object_id, found in views.items() if expected - found]
    if lacking:
        why.append(
            f"{len(lacking)} objects lack views of the protocol, e.g. {lacking[0]}: "
            f"{' '.join(sorted(expected - views[lacking[0]]))}"
        )
    off = [row for row in rows["inputs"] if row["departures"]]
    if off:
        why.append(
            f"{len(off)} videos are off-protocol, e.g. {off[0]['object_id']} {off[0]['view']}: "
            f"{off[0]['departures'][0]}"
        )
    computed = {metric.card.name for metric in chosen.metrics}
    absent = [name for name in rules.metrics if name not in computed]
    if absent:
        some = ", ".join(absent[:2]) + (" ..." if len(absent) > 2 else "")
        why.append(f"{len(absent)} of the protocol's {len(rules.metrics)} metrics are missing: {some}")
    holes = [
        row for row in rows["videos"] if row["variant"] == METHOD and row["reason"] and row["metric"] in rules.metrics
    ]
    if holes:
        why.append(f"{len(holes)} values of the protocol's metrics are missing, the first: {holes[0]['reason']}")
    failing = guards.failing(row for row in rows["guards"] if row["variant"] == METHOD)
    why += [f"guard {name} fails on {share:.0%} of the videos" for name, share in failing.items()]
    return why


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in (
        "mvvideo",
        "numpy",
        "pillow",
        "torch",
        "torchvision",
        "open_clip_torch",
        "timm",
        "lpips",
        "opencv-python-headless",
        "av",
    ):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def _code_hash() -> str:
    """SHA-256 of this room's source: a run states which code made it."""
    digest = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
