"""The commands `mvv eval study make` and `mvv eval study score`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from tyro.conf import OmitArgPrefixes, Positional

from eval.study import CRITERIA, Rules, StudyResult, write_result
from eval.study import score as score_answers
from manifests.errors import InputError
from mvv.study.build import StudyOptions, build_study

__all__ = ["study_make", "study_score"]

_DEFAULT = StudyOptions()


def study_make(
    runs: Positional[tuple[Path, ...]], /, *, out: Path, references: tuple[str, ...] = (),
    options: Annotated[StudyOptions, OmitArgPrefixes] = _DEFAULT,
) -> int:  # fmt: skip
    """Write a blinded user study as a static site: raters open it, choose, save a file and send it back.

    Args:
        runs: Folders of two to six runs, one a method.
        out: Folder of the site; its key is written beside it and must not be published.
        references: Objects at rest: datasets of stills (`mvv still`) or OBJECT/VIEW.png; not needed where a run's own
            first frames are its references.
        options: How the study is laid out.
    """
    if not runs:
        raise InputError("RUN: found none, expected two to six; make them with `mvv eval run`")
    with Progress(transient=True) as bar:
        task = bar.add_task("objects", total=None)
        made = build_study(
            runs, out, options, references=references,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )  # fmt: skip
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for object_id, why in made.left_out.items():
        console.print(f"left out: {object_id}: {why}")
    plan = made.plan
    console.print(
        f"{len(plan.prompts)} objects, {len(plan.methods)} methods, {len(plan.sheets)} sheets of {len(plan.sheets[0])} "
        "questions (two of them checks)"
    )
    console.print(
        f"open {made.page.resolve().as_uri()} (a person draws a sheet; #sheet=0&rater=NAME in the address sets them)"
    )
    console.print(f"keep {made.key} to yourself, then: mvv eval study score ANSWERS... --key {made.key}")
    return 0


def study_score(
    answers: Positional[tuple[Path, ...]], /, *, key: Path, out: Path | None = None, seed: int = 0,
    rules: Annotated[Rules, OmitArgPrefixes] = Rules(),  # noqa: B008 - frozen
) -> int:  # fmt: skip
    """Score the answers to a study: preference shares with intervals, agreement, who was left out and why.

    Args:
        answers: Files that raters saved, or folders of them.
        key: The SITE.key.json that `mvv eval study make` wrote.
        out: Also write the result as JSON.
        seed: Of the bootstrap.
        rules: Which raters are counted.
    """
    files = [file for path in answers for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    result = score_answers(files, key, rules=rules, seed=seed)
    _print(result)
    if out is not None:
        write_result(result, out)
        print(f"wrote {out}")
    return 3 if result.refused else 0


def _print(result: StudyResult) -> None:
    console = Console(soft_wrap=True, highlight=False, markup=False)
    shares = {(share.criterion, share.method): share for share in result.shares}
    table = Table("", *(criterion.title for criterion in CRITERIA), box=None, pad_edge=False)
    for method in result.methods:
        cells = [shares.get((criterion.id, method)) for criterion in CRITERIA]
        table.add_row(
            method, *("not available" if cell is None else _share(cell.share, cell.low, cell.high) for cell in cells)
        )
    for name, values in (("Fleiss' kappa", result.kappa), ("Krippendorff's alpha", result.alpha)):
        table.add_row(name, *(_number(values[criterion.id]) for criterion in CRITERIA))
    console.print(table)
    counted = f"{result.counted_raters} of {len(result.raters)} raters counted, {result.counted_objects} objects"
    console.print(f"{counted}; share of judgements that call a method the best, 95 % interval over raters and objects")
    if result.not_available:
        console.print(f"intervals and agreement are not available: {result.not_available}")
    _print_left_out(
        [(rater.id, "; ".join(rater.reasons)) for rater in result.raters if rater.reasons], "left out", console
    )
    _print_left_out(result.refused, "refused", console)


def _print_left_out(rows: Sequence[tuple[str, str]], what: str, console: Console) -> None:
    for name, why in rows:
        console.print(f"{what}: {name}: {why}")


def _share(value: float, low: float | None, high: float | None) -> str:
    return f"{value:.1%}" if low is None or high is None else f"{value:.1%} ({low:.1%} to {high:.1%})"


def _number(value: float | None) -> str:
    return "not available" if value is None else f"{value:.2f}"
