"""A small run with made-up values, written through the same code as a real one. For tests of statistics and pages."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.cards import Card
from eval.protocols import PROTOCOLS
from eval.runs import CONTROLS, METHOD, SCHEMA, content_hash, write_tables

CARDS = (
    Card(
        id="lpips_reference", version="alex", title="LPIPS", formula="mean_t LPIPS(x_t, r)", preprocess="none",
        backbone="AlexNet", weights=("alexnet",), low=0.0, higher_is_better=False, scale=100.0, decimals=1,
        needs=("reference",), source="test", failure_modes=("A frozen copy scores 0.",),
    ),
    Card(
        id="temporal_flickering", version="vbench", title="Flicker", formula="1 - mean |x_t - x_t+1| / 255",
        preprocess="none", backbone="none", low=0.0, high=1.0, higher_is_better=True, min_frames=2, source="test",
        failure_modes=("A frozen copy scores 1.",),
    ),
    Card(
        id="dynamic_degree", version="vbench-0.1.5", title="Dynamic", formula="1 if enough moves", preprocess="none",
        backbone="RAFT", low=0.0, high=1.0, higher_is_better=None, needs=("fps",), source="test",
        failure_modes=("An orbiting camera scores 1.",),
    ),
)  # fmt: skip


def make_run(
    folder: Path, method: str = "ours", *, seed: int = 0, objects: int = 5, better: float = 0.0,
    protocol: str = "threetofour", set_hash: str = "5" * 64, missing_objects: int = 0, failing_guard: bool = False,
    prompt: str = "a fox runs",
) -> Path:  # fmt: skip
    """Writes a run of ``objects`` objects by four views.

    Args:
        folder: where; made.
        method: its name.
        seed: of the values; object effects are the same for every seed, so that runs are paired.
        better: shifts every score of the method by this much in the good direction, in units of the noise.
        missing_objects: how many of the set's objects the run lacks.
        failing_guard: most videos are static.
        prompt: of every object.
    """
    folder.mkdir(parents=True)
    rules, rng, common = PROTOCOLS[protocol], np.random.default_rng(seed), np.random.default_rng(99)
    ids = [f"object-{k:02d}" for k in range(objects)]
    effects = {(o, c.id): common.normal() for o in ids for c in CARDS}
    rows: dict[str, list[dict[str, Any]]] = {"videos": [], "frames": [], "guards": [], "inputs": []}
    for o in ids[: objects - missing_objects]:
        for view in rules.views:
            rows["inputs"].append(
                {"object_id": o, "view": view, "source": f"{o}/{view}.mp4", "sha256": "0" * 64, "frames": 16,
                 "height": 256, "width": 256, "fps": 8.0, "departures": [], "reason": ""}
            )  # fmt: skip
            for variant in (METHOD, *CONTROLS):
                who = {"object_id": o, "view": view, "variant": variant}
                static = variant in ("frozen", "first_frame") or (variant == METHOD and failing_guard)
                rows["guards"].append(
                    who | {"guard": "static", "failed": static, "value": 0.0 if static else 2.0, "limit": 0.1,
                           "detail": "mean flow in pixels a frame"}
                )  # fmt: skip
                for card in CARDS:
                    sign = -1.0 if card.higher_is_better is False else 1.0
                    value = 0.5 + 0.05 * effects[o, card.id] + 0.02 * (rng.normal() + sign * better)
                    if card.id == "dynamic_degree":
                        value = float(rng.uniform() < 0.5) if not static else 0.0
                    rows["videos"].append(
                        who | {"metric": card.name, "value": value, "reason": "", "on_protocol": True, "extra": "{}"}
                    )
                    if card.id == "temporal_flickering":
                        rows["frames"] += [who | {"metric": card.name, "frame": k, "value": value} for k in range(15)]
            strip = np.zeros((16 * 48, 48, 3), np.uint8)
            for k in range(16):
                x = 4 + (k * 2 + seed * 5) % 32
                strip[k * 48 + 16 : k * 48 + 32, x : x + 12] = (200, 80 + 20 * (seed % 8), 60)
            (folder / "media" / o).mkdir(parents=True, exist_ok=True)
            Image.fromarray(strip).save(folder / "media" / o / f"{view}.webp", quality=70)
    write_tables(folder, rows)
    present = ids[: objects - missing_objects]
    info = {
        "schema": SCHEMA, "method": method, "note": "", "links": {},
        "protocol": {"name": rules.name, "version": rules.version, "hash": rules.hash},
        "set": {"name": "tiny", "hash": set_hash, "objects": ids}, "references": "stills",
        "coverage": {"objects": len(present), "of": len(ids), "missing": ids[len(present) :]},
        "cards": {
            c.name: {"hash": c.hash(dict.fromkeys(c.weights, "a" * 64)), "weights": dict.fromkeys(c.weights, "a" * 64),
                     "card": dataclasses.asdict(c)}
            for c in CARDS
        },
        "missing": {"clip_t@b32": "no weights openai-clip-vit-b-32"},
        "prompts": dict.fromkeys(ids, prompt), "media": {"fps": 8.0, "frames": 16, "size": 48},
        "ranked": not (missing_objects or failing_guard), "why_not": (["objects missing"] if missing_objects else [])
        + (["guard static failed on most videos"] if failing_guard else []),
        "versions": {"mvvideo": "0.1.0"}, "machine": {"device": "cpu"}, "created": "2026-11-23", "seconds": 1.0,
        "hash": content_hash(folder),
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(info, indent=1))
    return folder
