"""Who is shown what: balanced sheets of questions, and names that say nothing to those who answer.

A sheet is what one rater is asked: some of the objects, each once, with all methods side by side, and two checks (one
object again in another order, one with a broken clip among the real ones). All that is published is named by a keyed
hash of a secret; the secret and what the names stand for are the key, which stays with whoever runs the study.

The four criteria are those of Animate3D's user study (Table 2b). Order: Latin squares, so that each method stands in
each place equally often; objects are dealt so that each is asked equally often over all sheets.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manifests.errors import InputError

__all__ = ["ANSWERS", "BROKEN", "CRITERIA", "KEY", "Criterion", "Plan", "Question", "make_plan", "read_key"]

KEY = "mvvideo.study-key/1"
"""Schema of the key."""
ANSWERS = "mvvideo.study-answers/1"
"""Schema of what a rater sends back."""
BROKEN = ""
"""Stands for the broken clip of a check, where otherwise a method's name does."""
_MOST_METHODS = 6  # more do not fit side by side, nor into anybody's head


@dataclass(frozen=True, kw_only=True)
class Criterion:
    """One thing that raters are asked about each object."""

    id: str
    title: str
    question: str


CRITERIA = (
    Criterion(id="text", title="Text", question="Which one shows best what the text says?"),
    Criterion(id="model", title="3D model", question="Which one stays truest to the 3D model?"),
    Criterion(id="motion", title="Motion", question="Which one moves best: lively, plausible, smooth?"),
    Criterion(id="appearance", title="Appearance", question="Which one looks best?"),
)
"""Alignment with the text, alignment with the 3D model, motion, appearance."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """One object on a sheet.

    Attributes:
        id: secret name; a repeated object has another one.
        clips: secret names of the clips, from left to right.
    """

    id: str
    clips: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A study: who is asked what, and what all the secret names stand for.

    Attributes:
        study: its id.
        secret: key of all names, hexadecimal.
        methods: names, sorted.
        prompts: object -> prompt, of all objects.
        questions: question id -> (object, ``asked``, ``again`` or ``broken``).
        clips: clip id -> (object, method, or `BROKEN`).
        sheets: what each rater is asked, in order.
        about: title, seed, protocol, set, runs: for the key and the result.
    """

    study: str
    secret: str
    methods: tuple[str, ...]
    prompts: Mapping[str, str]
    questions: Mapping[str, tuple[str, str]]
    clips: Mapping[str, tuple[str, str]]
    sheets: tuple[tuple[Question, ...], ...]
    about: Mapping[str, Any]

    def name(self, *words: str) -> str:
        """The secret name of something of this study."""
        return _name(self.secret, *words)

    def clip_id(self, object_id: str, method: str) -> str:
        """The secret name of a method's clip of an object; of the broken one for `BROKEN`."""
        return _name(self.secret, "clip", object_id, method)

    def write_key(self, path: Path) -> None:
        """Writes the key; it must stay off the published site."""
        key = {
            "schema": KEY, "study": self.study, "secret": self.secret, **self.about, "methods": list(self.methods),
            "criteria": [criterion.id for criterion in CRITERIA], "prompts": dict(self.prompts),
            "questions": {id: {"object": o, "kind": kind} for id, (o, kind) in self.questions.items()},
            "clips": {id: {"object": o, "method": method} for id, (o, method) in self.clips.items()},
            "sheets": [[{"question": q.id, "order": list(q.clips)} for q in sheet] for sheet in self.sheets],
        }  # fmt: skip
        path.write_text(json.dumps(key, indent=1) + "\n", encoding="utf-8")


def make_plan(
    methods: Sequence[str], prompts: Mapping[str, str], *, questions_per_rater: int, sheets: int = 48, seed: int = 0,
    secret: str | None = None, about: Mapping[str, Any] | None = None,
) -> Plan:  # fmt: skip
    """Sheets for a study.

    Args:
        methods: names, all different.
        prompts: object -> prompt, of the objects that all methods have.
        questions_per_rater: objects a sheet has; at most as many as there are. The two checks come on top.
        sheets: how many different ones; more raters than that share them.
        seed: of orders and dealing; with the same secret the same plan.
        secret: hexadecimal; drawn where None.
        about: further entries of the key.

    Raises:
        InputError: too few or too many methods, two of one name, no object, or counts below 1.
    """
    methods = tuple(sorted(methods))
    _check(methods, prompts, questions_per_rater, sheets)
    secret = secret or secrets.token_hex(32)
    objects = sorted(prompts)
    count = min(questions_per_rater, len(objects))
    # The secret is in the seed, else whoever knows the names and guesses the seed knows the order.
    rng = np.random.default_rng([seed, int(secret, 16)])
    asked: Counter[str] = Counter()
    made = []
    for _ in range(sheets):
        dealt = _deal(objects, count, asked, rng)
        made.append(_sheet(secret, dealt, methods, rng))
    kinds = ("asked", "again", "broken")
    return Plan(
        study=_name(secret, "study"), secret=secret, methods=methods, prompts=dict(prompts),
        questions={_name(secret, "question", o, kind): (o, kind) for o in objects for kind in kinds},
        clips={_name(secret, "clip", o, method): (o, method) for o in objects for method in (*methods, BROKEN)},
        sheets=tuple(made), about={"seed": seed, **(about or {})},
    )  # fmt: skip


def read_key(path: Path | str) -> Plan:
    """The plan that a key stands for.

    Raises:
        InputError: no file, no JSON, or not a key of this version.
    """
    path = Path(path)
    try:
        key = json.loads(path.read_bytes())
    except OSError as error:
        raise InputError(
            f"{path}: found {error.strerror}, expected the key that `mvv eval study make` wrote"
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: found {error}, expected the JSON that `mvv eval study make` wrote") from error
    found = key.get("schema") if isinstance(key, dict) else None
    if found != KEY:
        raise InputError(f"{path}: found schema {found!r}, expected {KEY!r}; give the SITE.key.json beside the site")
    fixed = {"schema", "study", "secret", "methods", "criteria", "prompts", "questions", "clips", "sheets"}
    return Plan(
        study=key["study"], secret=key["secret"], methods=tuple(key["methods"]), prompts=key["prompts"],
        questions={id: (entry["object"], entry["kind"]) for id, entry in key["questions"].items()},
        clips={id: (entry["object"], entry["method"]) for id, entry in key["clips"].items()},
        sheets=tuple(tuple(Question(id=q["question"], clips=tuple(q["order"])) for q in s) for s in key["sheets"]),
        about={name: value for name, value in key.items() if name not in fixed},
    )  # fmt: skip


def _check(methods: Sequence[str], prompts: Mapping[str, str], questions_per_rater: int, sheets: int) -> None:
    doubled = [name for name, count in Counter(methods).items() if count > 1]
    if doubled:
        raise InputError(f"RUN: found two runs of {doubled[0]!r}, expected one a method; give one, or rename the other")
    if not 2 <= len(methods) <= _MOST_METHODS or BROKEN in methods:
        raise InputError(
            f"RUN: found {len(methods)} methods, expected 2 to {_MOST_METHODS} with names; more cannot be compared "
            "side by side, make several studies of them"
        )
    if not prompts:
        raise InputError("RUN: found no object that all runs have, expected at least one; give runs of one set")
    for name, value in (("--questions-per-rater", questions_per_rater), ("--sheets", sheets)):
        if value < 1:
            raise InputError(f"{name}: found {value}, expected at least 1")


def _name(secret: str, *words: str) -> str:
    return hmac.new(bytes.fromhex(secret), json.dumps(words).encode(), hashlib.sha256).hexdigest()[:16]


def _deal(objects: Sequence[str], count: int, asked: Counter[str], rng: np.random.Generator) -> list[str]:
    """The objects asked least so far, drawn among equals, in random order."""
    shuffled = [objects[k] for k in rng.permutation(len(objects))]
    dealt = sorted(shuffled, key=lambda o: asked[o])[:count]
    asked.update(dealt)
    return [dealt[k] for k in rng.permutation(count)]


def _sheet(secret: str, dealt: Sequence[str], methods: Sequence[str], rng: np.random.Generator) -> tuple[Question, ...]:
    """The dealt objects; then one with a broken clip somewhere between, and one of the first half again as the last."""

    def question(o: str, kind: str, shown: Sequence[str], order: Sequence[int]) -> Question:
        clips = tuple(_name(secret, "clip", o, shown[k]) for k in order)
        return Question(id=_name(secret, "question", o, kind), clips=clips)

    places = _places(len(methods), rng)  # of the dealt objects alone, so that the checks do not upset the balance
    sheet = [question(o, "asked", methods, next(places)) for o in dealt]
    displaced = int(rng.integers(len(methods)))
    shown = [BROKEN if k == displaced else method for k, method in enumerate(methods)]
    broken = question(dealt[int(rng.integers(len(dealt)))], "broken", shown, rng.permutation(len(methods)).tolist())
    again = dealt[int(rng.integers((len(dealt) + 1) // 2))]
    sheet.insert(int(rng.integers(1, len(sheet) + 1)), broken)
    sheet.append(question(again, "again", methods, rng.permutation(len(methods)).tolist()))
    return tuple(sheet)


def _places(methods: int, rng: np.random.Generator) -> Iterator[list[int]]:
    """For each question the methods from left to right: Latin squares, one after the other, rows and names shuffled."""
    while True:
        names = rng.permutation(methods)
        for shift in rng.permutation(methods):
            yield [int(names[(place + shift) % methods]) for place in range(methods)]
