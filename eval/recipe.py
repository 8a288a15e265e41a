"""The recipe of the public evaluation set: 30 animated objects of Objaverse and 20 of Google Scanned Objects.

Objects are drawn by a keyed hash among those whose licence allows it (`select`, sets/public.json), so that anybody who
has the sources' annotations draws the same. Prompts are then written by people for the objects drawn (`assemble`).
Nothing is downloaded here.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from eval.evalset import Entry, EvalSet
from manifests.errors import DatasetError, InputError
from manifests.seeds import digest
from manifests.tables import iter_rows

__all__ = ["Annotation", "Recipe", "assemble", "read_annotations", "read_recipe", "select"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How the public set is drawn; sets/public.json."""

    version: str
    """Name and version of the set, and the key of the draw."""
    counts: Mapping[str, int]
    """Source -> objects."""
    min_animations: Mapping[str, int]
    """Source -> animations that an object has at least: those of Objaverse bring a true clip."""
    licenses: Mapping[str, str]
    """Licence as the source writes it -> SPDX; others are left out."""
    per_category: int
    """Most objects of one category."""
    excluded: tuple[str, ...]
    """Ids left out: Consistent4D's test objects (which its authors ask trainers to leave out too)."""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """What a source says of an object.

    Attributes:
        uid: unique in its source.
        source: ``objaverse`` or ``gso``.
        name, license, uri: as the source writes them.
        category: the first category, else the first tag in alphabetical order, else "".
        animations: how many the file has.
    """

    uid: str
    source: str
    name: str
    license: str
    uri: str
    category: str
    animations: int


def read_recipe() -> Recipe:
    """The recipe of sets/public.json."""
    content = json.loads(resources.files("eval").joinpath("sets/public.json").read_text("utf-8"))
    return Recipe(**content | {"excluded": tuple(content["excluded"])})


def read_annotations(path: Path | str, source: str) -> list[Annotation]:
    """Objects of one source, from its annotations.

    Args:
        path: JSON, a list of objects or Objaverse's uid -> object, or Parquet. Read are ``uid``, ``name``, ``license``,
            ``uri`` (or ``viewerUrl``), ``animationCount`` (or ``animations``), and for the category ``category``,
            ``categories``, ``tags``, the last two as texts or objects with a ``name``.
        source: ``objaverse`` or ``gso``.

    Raises:
        InputError: not such a file, or an object without a uid or licence.
    """
    path = Path(path)
    try:
        if path.suffix == ".parquet":
            rows: Any = list(iter_rows(path))
        else:
            rows = json.loads(path.read_bytes())
    except (OSError, ValueError, DatasetError) as error:
        raise InputError(f"{path}: found {error}, expected annotations as JSON or Parquet; check the file") from error
    if isinstance(rows, dict):
        rows = [{"uid": uid, **row} for uid, row in rows.items() if isinstance(row, dict)]
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise InputError(f"{path}: found other values, expected a list of objects or uid: object; check the file")
    return [_annotation(path, source, row) for row in rows]


def _annotation(path: Path, source: str, row: Mapping[str, Any]) -> Annotation:
    if not row.get("uid"):
        raise InputError(f"{path}: found an object without uid, expected one; check the file")
    categories, tags = ([_name(entry) for entry in row.get(key) or ()] for key in ("categories", "tags"))
    category = row.get("category") or next(iter([*categories, *sorted(tags)]), "")
    return Annotation(
        uid=row["uid"], source=source, name=row.get("name") or "", license=row.get("license") or "",
        uri=row.get("uri") or row.get("viewerUrl") or "", category=category.casefold(),
        animations=int(row.get("animationCount") or row.get("animations") or 0),
    )  # fmt: skip


def _name(entry: Any) -> str:
    return str(entry.get("name", "")) if isinstance(entry, Mapping) else str(entry)


def select(annotations: Iterable[Annotation], recipe: Recipe | None = None) -> list[Annotation]:
    """The objects of the public set: a pure function of the annotations, whatever their order.

    Objects with a licence of the list, enough animations and no place among the excluded are put in the order of
    SHA-256(version, source, uid); then each is taken whose source and category are not full.

    Returns:
        sorted by source and uid.

    Raises:
        InputError: a source with fewer than asked for.
    """
    recipe = recipe or read_recipe()
    allowed = {
        (entry.source, entry.uid): entry
        for entry in annotations
        if entry.source in recipe.counts
        and entry.license in recipe.licenses
        and entry.uid not in recipe.excluded
        and entry.animations >= recipe.min_animations[entry.source]
    }
    taken: list[Annotation] = []
    sources: Counter[str] = Counter()
    categories: Counter[str] = Counter()
    for key in sorted(allowed, key=lambda key: digest(recipe.version, *key)):
        entry = allowed[key]
        if sources[entry.source] < recipe.counts[entry.source] and categories[entry.category] < recipe.per_category:
            taken.append(entry)
            sources[entry.source] += 1
            categories[entry.category] += 1
    for source, count in recipe.counts.items():
        if sources[source] < count:
            raise InputError(
                f"annotations: found {sources[source]} fit objects of {source}, expected {count}; give all of its"
                " annotations"
            )
    return sorted(taken, key=lambda entry: (entry.source, entry.uid))


def assemble(
    chosen: Iterable[Annotation], sha256: Mapping[str, str], prompts: Mapping[str, tuple[str, str]],
    recipe: Recipe | None = None,
) -> EvalSet:  # fmt: skip
    """The public set from the objects drawn, once they are downloaded and prompts are written for them.

    Args:
        chosen: from `select`.
        sha256: uid -> hash of the file.
        prompts: uid -> (prompt, word).
        recipe: the one they were drawn by.

    Raises:
        InputError: an object without hash or prompt.
    """
    recipe = recipe or read_recipe()
    entries = []
    for found in chosen:
        for what, known in (("hash", sha256), ("prompt", prompts)):
            if found.uid not in known:
                raise InputError(f"evaluation set: found no {what} of {found.uid} ({found.name}), expected one; add it")
        prompt, word = prompts[found.uid]
        entries.append(
            Entry(
                object_id=found.uid, uri=found.uri, sha256=sha256[found.uid], license=recipe.licenses[found.license],
                prompt=prompt, word=word, version=recipe.version,
            )
        )  # fmt: skip
    return EvalSet(tuple(entries))
