"""README.md of a dataset: what is in it, in MV-Video's own figures, under which licences, and how to read it.

Everything is taken from dataset.json; nothing is counted here. Text that comes from assets or users is escaped.
"""

from __future__ import annotations

from typing import Any

from manifests.errors import CAUSES, REASONS
from manifests.tables import TABLES, columns_markdown
from manifests.text import markdown

__all__ = ["card", "statistics_markdown"]


def card(manifest: dict[str, Any]) -> str:
    """The dataset card as Markdown, with the front matter that the Hugging Face Hub reads.

    Args:
        manifest: what dataset.json says, with its counts.
    """
    name = markdown(manifest["name"])
    sections = [
        _front_matter(manifest),
        f"# {name}\n",
        "Multi-view animation clips: animated 3D assets, seen by several cameras at the same times. Each clip has its"
        " cameras, times, normalisation, motion figures and licence. Frames are RGBA; put a background behind them when"
        " loading.\n",
        "## Figures\n\nThe rows of MV-Video's table. A model is an asset with at least one clip; a multi-view video is"
        " one view of one clip.\n\n" + statistics_markdown(manifest["counts"]),
        _licenses(manifest["counts"]),
        _cameras(manifest["config"]),
        _modalities(manifest["modalities"]),
        _READING.replace("NAME", str(next(iter(manifest["counts"]["splits"]), "train"))),
        _left_out(manifest["counts"]),
        _provenance(manifest),
        "## Columns\n\n" + "\n".join(f"### {table}\n\n{columns_markdown(TABLES[table])}" for table in TABLES),
    ]
    return "\n".join(sections)


def statistics_markdown(counts: dict[str, Any]) -> str:
    """MV-Video's statistics table for these counts."""
    per_model = counts["animations_per_model"]
    rows = [
        ("models", f"{counts['models']:,}"),
        ("animations", f"{counts['animations']:,}"),
        ("mean animations per model", f"{per_model['mean']:.2f}"),
        ("maximum animations per model", f"{per_model['max']:,}"),
        ("clips", f"{counts['clips']:,}"),
        ("multi-view videos", f"{counts['multi_view_videos']:,}"),
        ("images", f"{counts['images']:,}"),
        ("bytes", f"{counts['bytes']:,}"),
    ]
    return _table(("quantity", "value"), rows)


def _front_matter(manifest: dict[str, Any]) -> str:
    lines = ["---", "license: other", "tags:", "- webdataset", "- multi-view", "- animation", "- 3d"]
    if manifest["counts"]["splits"]:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        # Question marks and not a star: shards/train-00000.depth.tar is a parallel series, not more samples.
        for split in manifest["counts"]["splits"]:
            lines += [f"  - split: {split}", f"    path: shards/{split}-?????.tar"]
    return "\n".join([*lines, "---", ""])


def _licenses(counts: dict[str, Any]) -> str:
    rows = [(markdown(name) or "not stated", f"{count:,}") for name, count in counts["licenses"].items()]
    return (
        "## Licences\n\nOf the assets; a clip has its asset's licence, and the line to print in `attribution`.\n\n"
        + _table(("licence", "clips"), rows)
    )


def _cameras(config: dict[str, Any]) -> str:
    rows = [(f"`{_code(key)}`", f"`{_code(value)}`") for key, value in _flat(config) if _about_pictures(key)]
    return (
        "## Cameras and time\n\nWorld z up; `c2w` maps camera to normalised space (x right, y up, looking down -z), `K`"
        " is in pixels with centres at +0.5, image y down. `times_s` are seconds inside the glTF animation. Azimuths go"
        " from +x towards +y. The settings of the build (all of them are in dataset.json):\n\n"
        + _table(("setting", "value"), rows)
    )


def _modalities(modalities: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, how in sorted(modalities.items()):
        files = f"`shards/SPLIT-NNNNN{'.' + _code(how['series']) if how['series'] else ''}.tar`"
        stored = f"{how['suffix']}, {how['dtype']} x {how['channels']}"
        value = "stored" if "scale" not in how else f"stored * {how['scale']!r} + {how.get('offset', 0.0)!r}"
        none = str(how.get("invalid", "-"))
        rows.append(
            (markdown(name), files, markdown(stored), markdown(value), markdown(str(how["unit"])), markdown(none))
        )
    return "## Modalities\n\n" + _table(("name", "files", "stored as", "value", "unit", "no value"), rows)


def _left_out(counts: dict[str, Any]) -> str:
    rejected = counts["rejected"]
    rows = [
        (what, f"`{_code(reason)}`", REASONS.get(reason, ""), f"{count:,}")
        for what in ("assets", "clips")
        for reason, count in rejected[what].items()
    ]
    rows += [("failed", f"`{_code(cause)}`", CAUSES.get(cause, ""), f"{n:,}") for cause, n in counts["failed"].items()]
    if not rows:
        return "## Left out\n\nNothing was left out.\n"
    return "## Left out\n\nEvery one has a row with its detail in the tables.\n\n" + _table(
        ("of", "reason", "meaning", "rows"), rows
    )


def _provenance(manifest: dict[str, Any]) -> str:
    rows = [(markdown(str(tool)), f"`{_code(version)}`") for tool, version in sorted(manifest["tools"].items())]
    rows += [("content fingerprint", f"`{manifest['fingerprint']}`"), ("config", f"`{manifest['config_sha256']}`")]
    return "## Made with\n\n" + _table(("what", "version or SHA-256"), rows)


def _about_pictures(key: str) -> bool:
    words = ("preset", "views", "frames", "fps", "size", "width", "height", "azimuth", "elevation", "fov", "distance")
    words += ("samples", "lights", "camera", "normalization", "max_animations")
    return not key.startswith("limits.") and any(word in key for word in words)


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    pairs: list[tuple[str, Any]] = []
    for key, value in sorted(config.items()):
        name = f"{prefix}.{key}" if prefix else str(key)
        pairs += _flat(value, name) if isinstance(value, dict) else [(name, value)]
    return pairs


def _code(value: Any) -> str:
    """Text for a code span inside a table: there only the back-tick, the pipe and line breaks have a meaning."""
    return " ".join(str(value).split()).replace("`", "'").replace("|", "\\|").replace("<", "‹").replace(">", "›")


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


_READING = """\
## Reading

One clip is one WebDataset sample: `KEY.json`, then `KEY.v00_f000.webp`, `KEY.v00_f001.webp`, ... (view-major).

```python
from manifests.dataset import Dataset, composite
dataset = Dataset.open("DATASET")
for row in dataset.clips():
    sample = dataset.sample(row["clip_id"])              # cameras, times, normalisation
    frames = dataset.frames(row["clip_id"], views=[0])   # (view, frame, height, width, 4) uint8, straight alpha
    images = composite(frames, (0.5, 0.5, 0.5))          # over grey
```

```python
import webdataset
for sample in webdataset.WebDataset("DATASET/shards/NAME-00000.tar", shardshuffle=False).decode("pilrgba"):
    sample["json"], sample["v00_f000.webp"]
```

```python
import datasets
clips = datasets.load_dataset("webdataset", data_files={"NAME": "DATASET/shards/NAME-?????.tar"}, split="NAME")
clips[0]["json"], clips[0]["v00_f000.webp"]
```
"""
