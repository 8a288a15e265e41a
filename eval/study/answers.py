"""The files that raters send back: read, held against the key, and judged by the study's checks.

A file that does not fit is refused with its reason and the rest is used; a rater who failed a check is left out, by id.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from eval.study.design import ANSWERS, BROKEN, CRITERIA, Plan

__all__ = ["Judgement", "Rater", "Read", "Rules", "read_answers"]

_LARGEST = 5_000_000
_IDS = tuple(criterion.id for criterion in CRITERIA)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What a rater has to fulfil to be counted."""

    min_repeat_agreement: float = 0.5
    """Share of the criteria on which the object that is shown again must be judged as before."""
    max_broken_choices: int = 0
    """Criteria on which the broken clip may be called the best."""
    min_seconds: float = 3.0
    """Median time a question; less cannot have been looked at."""


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """One rater, one object, one criterion: the method that was called the best."""

    rater: str
    object_id: str
    criterion: str
    method: str


@dataclass(frozen=True, kw_only=True)
class Rater:
    """How one rater did on the checks; counted where ``reasons`` is empty.

    Attributes:
        id: as the file says.
        seconds: median time a question.
        repeat_agreement: share of the criteria judged alike when the object came again.
        broken_choices: criteria on which the broken clip was called the best.
        reasons: why the rater is left out.
    """

    id: str
    seconds: float
    repeat_agreement: float
    broken_choices: int
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Read:
    """What the files gave.

    Attributes:
        judgements: of the raters who are counted, on the objects asked (checks are not counted).
        raters: all whose file was read, counted or not.
        refused: (file, reason) of files that were not used.
    """

    judgements: tuple[Judgement, ...]
    raters: tuple[Rater, ...]
    refused: tuple[tuple[str, str], ...]


class _Refused(Exception):
    """This file is not used."""


def read_answers(files: Iterable[Path | str], plan: Plan, rules: Rules | None = None) -> Read:
    """Reads answer files; the result does not depend on their order.

    Args:
        files: as raters sent them.
        plan: of the key.
        rules: which raters are counted.
    """
    rules = rules or Rules()
    kept: dict[str, tuple[str, dict[str, Any]]] = {}
    refused: list[tuple[str, str]] = []
    for file in sorted(Path(file) for file in files):
        try:
            answers = _check(_load(file), plan)
            for name, earlier in kept.values():
                if earlier["answers"] == answers["answers"]:
                    raise _Refused(f"found the same answers as in {name}, expected one file a rater; the first is used")
                if earlier["rater"] == answers["rater"]:
                    raise _Refused(f"found the same rater as in {name}, expected one file a rater; the first is used")
            kept[answers["rater"]] = (file.name, answers)
        except _Refused as error:
            refused.append((file.name, str(error)))
    raters, judgements = [], []
    for rater in sorted(kept):
        answers = kept[rater][1]
        raters.append(_examine(answers, plan, rules))
        if not raters[-1].reasons:
            judgements += _judgements(answers, plan)
    return Read(judgements=tuple(judgements), raters=tuple(raters), refused=tuple(refused))


def _load(file: Path) -> Any:
    try:
        if file.stat().st_size > _LARGEST:
            raise _Refused(f"found more than {_LARGEST:,} bytes, expected the file that the study's page saved")
        return json.loads(file.read_bytes())
    except OSError as error:
        raise _Refused(f"found {error.strerror}, expected a file that can be read") from error
    except (ValueError, RecursionError) as error:
        raise _Refused(
            "found no JSON, expected the file that the study's page saved; ask the rater for it again"
        ) from error


def _check(answers: Any, plan: Plan) -> dict[str, Any]:
    """The answers, where they are of this study and unchanged."""
    if not isinstance(answers, dict) or answers.get("schema") != ANSWERS:
        raise _Refused(f"found no answers of schema {ANSWERS!r}, expected the file that the study's page saved")
    if answers.get("study") != plan.study:
        raise _Refused(
            f"found answers to study {str(answers.get('study'))[:20]!r}, expected {plan.study!r}; give that study's key"
        )
    rater, sheet, given = answers.get("rater"), answers.get("sheet"), answers.get("answers")
    if not isinstance(rater, str) or not 1 <= len(rater) <= 80:
        raise _Refused("found no rater's id, expected a text; the file was edited")
    if type(sheet) is not int or not 0 <= sheet < len(plan.sheets):
        raise _Refused(f"found sheet {str(sheet)[:20]}, expected 0 to {len(plan.sheets) - 1}; the file was edited")
    if not isinstance(given, list):
        raise _Refused("found no list of answers, expected one; the file was edited")
    wanted = {question.id: question.clips for question in plan.sheets[sheet]}
    seen: set[str] = set()
    for answer in given:
        question = _check_answer(answer, wanted, sheet)
        if question in seen:
            raise _Refused(f"found question {question} twice, expected it once; the file was edited")
        seen.add(question)
    return answers


def _check_answer(answer: Any, wanted: Mapping[str, Sequence[str]], sheet: int) -> str:
    """The id of the question that is answered."""
    question = answer.get("question") if isinstance(answer, dict) else None
    if not isinstance(question, str) or question not in wanted:
        raise _Refused(f"found question {str(question)[:20]!r}, which sheet {sheet} does not have; the file was edited")
    seconds, choices = answer.get("seconds"), answer.get("choices")
    if type(seconds) not in (int, float) or not (math.isfinite(seconds) and seconds >= 0):
        raise _Refused(
            f"found {str(seconds)[:20]} seconds for question {question}, expected a number; the file was edited"
        )
    if not isinstance(choices, dict) or set(choices) != set(_IDS):
        raise _Refused(f"found an answer to question {question} without all of {', '.join(_IDS)}; the file was edited")
    for criterion, clip in choices.items():
        if clip not in wanted[question]:
            raise _Refused(
                f"found clip {str(clip)[:20]!r} as the answer to {criterion} of question {question}, which did not show"
                " it; the file was edited"
            )
    return question


def _examine(answers: Mapping[str, Any], plan: Plan, rules: Rules) -> Rater:
    given = {plan.questions[answer["question"]]: answer for answer in answers["answers"]}
    reasons: list[str] = []
    missing = len(plan.sheets[answers["sheet"]]) - len(given)
    if missing:
        reasons.append(f"left {missing} of {len(plan.sheets[answers['sheet']])} questions open")
    alike, broken = [1.0], 0
    for (object_id, kind), answer in given.items():
        methods = {criterion: plan.clips[clip][1] for criterion, clip in answer["choices"].items()}
        if kind == "again" and (object_id, "asked") in given:
            before = given[object_id, "asked"]["choices"]
            alike.append(sum(before[c] == answer["choices"][c] for c in _IDS) / len(_IDS))
        broken += sum(method == BROKEN for method in methods.values())
    seconds = median([answer["seconds"] for answer in given.values()]) if given else 0.0
    if min(alike) < rules.min_repeat_agreement:
        reasons.append(f"judged an object shown again alike on {min(alike):.0%} of the criteria only")
    if broken > rules.max_broken_choices:
        reasons.append(f"called a broken clip the best on {broken} of {len(_IDS)} criteria")
    if given and seconds < rules.min_seconds:
        reasons.append(f"took {seconds:.1f} s a question")
    return Rater(
        id=answers["rater"], seconds=seconds, repeat_agreement=min(alike), broken_choices=broken, reasons=tuple(reasons)
    )


def _judgements(answers: Mapping[str, Any], plan: Plan) -> list[Judgement]:
    return [
        Judgement(rater=answers["rater"], object_id=object_id, criterion=criterion, method=plan.clips[clip][1])
        for answer in answers["answers"]
        for object_id, kind in [plan.questions[answer["question"]]]
        if kind == "asked"
        for criterion, clip in answer["choices"].items()
    ]
