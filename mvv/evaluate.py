"""The commands `mvv eval ...` and `mvv leaderboard ...`: each joins an input, a protocol and a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from manifests.errors import InputError

__all__ = [
    "EvalRun",
    "EvalVerify",
    "InputArguments",
    "calibrate",
    "cards",
    "compare",
    "evaluation_set",
    "leaderboard_build",
]


@dataclass(frozen=True, kw_only=True)
class InputArguments:
    """Where the videos are and what belongs to them."""

    kind: str = "auto"
    """Layout of INPUT: auto, dataset, folders, tiled, animate3d, 4dfy, animate124, stag4d or dreamgaussian4d."""
    fps: float | None = None
    """Frames a second, where INPUT does not say it (folders of frames)."""
    tiles: tuple[int, int] | None = None
    """Rows and columns of views in a tiled video, in the order of the protocol's cameras."""
    elevation_deg: float | None = None
    """Elevation of views whose names state only an azimuth."""
    prompts: Path | None = None
    """Prompt of each object: .json {id: text}, .csv or .parquet with object_id, prompt, word."""
    references: tuple[str, ...] = ()
    """Objects at rest: datasets of stills (`mvv still`) or OBJECT/VIEW.png; or `first-frame`. A dataset's default is
    first-frame: its clips start from the object at rest."""
    truth: Path | None = None
    """Ground-truth clips: a dataset or folders, matched by object and view."""
    set: Path | None = None
    """The evaluation set, an evalset.parquet; without it, the objects of INPUT are the set."""

    def items(self, path: Path, rules: Any) -> tuple[list[Any], str, Any]:
        """(items, where references came from, the evaluation set or None).

        Raises:
            InputError: something cannot be read or does not fit together.
        """
        import dataclasses

        from eval.evalset import read_evalset
        from eval.inputs import (
            first_frame_references,
            open_input,
            open_references,
            open_truths,
            read_prompts,
        )

        cameras = () if self.tiles is None else rules.cameras
        items = open_input(
            path, kind=self.kind, fps=self.fps, tiles=self.tiles, cameras=cameras, elevation_deg=self.elevation_deg
        )
        evalset = None if self.set is None else read_evalset(self.set)
        prompts = {} if evalset is None else dict(evalset.prompts)
        sha256 = {} if evalset is None else evalset.sha256
        if evalset is not None and self.prompts is not None:
            raise InputError(
                "--prompts: found together with --set, expected one of them; rows on a set are scored with its prompts"
            )
        if self.prompts is not None:
            prompts |= read_prompts(self.prompts)
        if prompts:
            items = [
                dataclasses.replace(item, prompt=prompts[item.object_id][0], word=prompts[item.object_id][1])
                if item.object_id in prompts else item
                for item in items
            ]  # fmt: skip
        wanted = self.references
        if not wanted and (path / "dataset.json").exists():
            wanted = ("first-frame",)
        if wanted == ("first-frame",):
            items, source = first_frame_references(items), "first-frame"
        elif wanted:
            items, source = open_references([Path(entry) for entry in wanted], items, sha256=sha256), "stills"
        else:
            source = "none"
        if self.truth is not None:
            items = open_truths(self.truth, items, sha256=sha256)
        return items, source, evalset


@dataclass(frozen=True, kw_only=True)
class EvalRun:
    """Score a method's videos by a protocol, with controls, guards and every value in tables; repeat it to go on."""

    input: Positional[Path]
    """A dataset, or a method's outputs; see --kind."""
    protocol: str
    """`animate3d` (12 views, 1024 px, grey) or `threetofour` (4 views, 256 px, white)."""
    out: Path
    """Folder of the run."""
    metrics: str = "all"
    """`all`, `offline` (no weights needed), or names of cards with commas between; `mvv eval cards` lists them."""
    allow_missing: bool = False
    """Go on without metrics whose weights are absent; they are marked as missing and the row is not ranked."""
    method: str = ""
    """Name of the row; by default the input's."""
    background: str | None = None
    """R,G,B behind the object, 0 to 255; by default the protocol's. Another one is off-protocol."""
    seed: int = 0
    """Of the noisy control."""
    note: str = ""
    """A sentence for the leaderboard."""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."""
    batch_size: int = 32
    """Images or pairs a forward pass; does not change the scores."""
    part: tuple[int, int] | None = None
    """I N: compute every N-th object from the I-th (0 to N-1) and merge nothing, so that N processes or machines share
    the work; the same command without it merges, to the same tables."""
    files: Annotated[InputArguments, arg(name="")] = field(default_factory=InputArguments)

    def __call__(self) -> int:
        from eval.extractor import Compute
        from eval.protocols import protocol
        from eval.run import RunOptions, run
        from mvv.eval_tables import print_run

        if self.part is not None and not 0 <= self.part[0] < self.part[1]:
            raise InputError(f"--part: found {self.part[0]} {self.part[1]}, expected I N with I from 0 to N - 1")
        rules = protocol(self.protocol)
        items, source, evalset = self.files.items(self.input, rules)
        options = RunOptions(
            method=self.method or self.input.resolve().stem, metrics=self.metrics, allow_missing=self.allow_missing,
            background=_color(self.background), seed=self.seed, references=source, note=self.note,
            compute=Compute(device=_device(self.device), batch_size=self.batch_size),
        )  # fmt: skip
        with _Bar() as bar:
            summary = run(items, rules, self.out, options, evalset=evalset, part=self.part, progress=bar.update)
        if not summary.info:
            print(f"{self.out}: part {self.part[0]} of {self.part[1]} is done; repeat without --part to merge")
            return 0
        if summary.finished_before:
            print(f"{self.out}: finished before, nothing to do")
        print_run(self.out)
        return 3 if summary.unread else 0


@dataclass(frozen=True, kw_only=True)
class EvalVerify:
    """Compute a random part of a submitted run again from its frames; writes verification.json beside it."""

    run: Positional[Path]
    """Folder of the run."""
    input: Positional[Path]
    """What was scored."""
    share: float = 0.1
    """Part of the objects to check."""
    at_least: int = 2
    """Objects to check, however small the share."""
    seed: int | None = None
    """Draws the objects; by default not predictable."""
    device: str = "auto"
    """cpu, cuda, cuda:1 ...; auto takes a GPU where there is one."""
    files: Annotated[InputArguments, arg(name="")] = field(default_factory=InputArguments)

    def __call__(self) -> int:
        from eval.extractor import Compute
        from eval.protocols import protocol
        from eval.runs import Run
        from eval.verify import verify

        run = Run.open(self.run)
        items, _, _ = self.files.items(self.input, protocol(run.info["protocol"]["name"]))
        result = verify(
            run, items, share=self.share, at_least=self.at_least, seed=self.seed,
            compute=Compute(device=_device(self.device)),
        )  # fmt: skip
        for problem in result.problems:
            print(problem)
        verdict = "agrees" if result.passed else f"does not agree: {len(result.problems)} problems"
        print(
            f"{self.run}: {verdict}; {result.values} values of {len(result.checked)} objects, "
            f"worst difference {result.worst:.2g}"
        )
        return 0 if result.passed else 1


def compare(runs: Positional[tuple[Path, ...]], /, *, out: Path | None = None, seed: int = 0) -> int:
    """Compare runs pair by pair on the objects they share: differences, intervals, tests, what the set can show.

    Args:
        runs: Folders of two or more runs.
        out: Also write the comparison, .json or .csv.
        seed: Of bootstrap and permutations.
    """
    from eval.compare import compare as work
    from eval.runs import Run
    from eval.statistics import Resampling
    from mvv.eval_tables import print_comparison

    if len(runs) < 2:
        raise InputError(f"RUN: found {len(runs)}, expected at least two to compare")
    comparison = work([Run.open(folder) for folder in runs], Resampling(seed=seed))
    print_comparison(comparison)
    if out is not None:
        comparison.write(out)
        print(f"wrote {out}")
    return 0


def cards(name: Positional[str] = "", /, *, format: Literal["table", "markdown", "json"] = "table") -> int:
    """List the metrics, or show one metric's card: formula, preprocess, weights, range, what it misses.

    Args:
        name: id@version of a metric, or its id.
        format: How to print.
    """
    from mvv.eval_tables import print_cards

    return print_cards(name, format)


def evaluation_set(*, out: Path, assets: Path | None = None, count: int = 12, annotations: tuple[str, ...] = ()) -> int:
    """Write an evaluation set: the small procedural one with its models, or the draw of the public one.

    Args:
        out: The evalset.parquet to write; with --annotations, a .json of the objects drawn.
        assets: Folder to write the models of the small set to; by default beside --out.
        count: Objects of the small set.
        annotations: SOURCE=FILE of the public sources (objaverse=..., gso=...): draws the public set of 50 from them.
    """
    import json

    from eval.evalset import small_set, write_evalset
    from eval.recipe import read_annotations, select

    if annotations:
        pairs = [entry.partition("=") for entry in annotations]
        chosen = select(row for source, _, path in pairs for row in read_annotations(path, source))
        lines = [
            {"uid": row.uid, "source": row.source, "name": row.name, "uri": row.uri, "license": row.license}
            for row in chosen
        ]
        out.write_text(json.dumps(lines, indent=1) + "\n")
        print(f"wrote {len(lines)} objects to {out}; fetch them and write prompts (docs/evaluation.md, The public set)")
        return 0
    import hashlib

    from pipelines.procedural import make

    folder = assets or out.with_suffix("")
    rows = [
        (path.name.rpartition("-")[0], 0, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in make(folder, count, 0)
    ]
    evalset = small_set(rows)
    write_evalset(out, evalset)
    print(f"wrote {len(evalset.objects)} objects to {out} (set {evalset.hash[:12]}), their models to {folder}")
    return 0


def calibrate(*, out: Path, metrics: str = "offline", device: str = "auto", batch_size: int = 32) -> int:
    """Draw how metrics answer to known motion: pixels a frame, object size, fps; check that curves are monotone.

    Args:
        out: Folder for calibration.svg, .parquet (the points) and .json (the checks as well).
        metrics: `offline`, or names of cards with commas between.
        device: cpu, cuda ...; auto takes a GPU where there is one.
        batch_size: Images or pairs a forward pass.
    """
    from eval.calibration import calibrate as work
    from eval.calibration import monotonic, write_plot
    from eval.extractor import Compute
    from eval.metrics import METRICS
    from eval.run import load_extractors
    from eval.selection import named, weights_of
    from eval.weights import Store

    store = Store()
    chosen = [METRICS[name] for name in named(metrics)]
    weights_of(chosen, store)
    rows = list(work(chosen, load_extractors(chosen, store, Compute(device=_device(device), batch_size=batch_size))))
    checks = monotonic(rows)
    write_plot(out, rows, checks)
    bad = [check for check in checks if not check.holds]
    for check in bad:
        print(f"{check.metric}: not monotone in {check.axis} for {check.kind} (worst step {check.worst:.3g})")
    print(f"wrote {len(rows)} points to {out}; {len(bad)} curves do not go as they must")
    return 1 if bad else 0


def leaderboard_build(runs: Positional[tuple[Path, ...]], /, *, out: Path, title: str = "Leaderboard") -> int:
    """Write the leaderboard's static site: tables with intervals, plots, clips side by side, cards, provenance.

    Args:
        runs: Folders of runs.
        out: Folder of the site; an earlier site there is replaced.
        title: Of the first page.
    """
    from mvv.leaderboard import build_leaderboard

    if not runs:
        raise InputError("RUN: found none, expected at least one; make one with `mvv eval run`")
    path = build_leaderboard(runs, out, title=title)
    print(f"open {path.resolve().as_uri()}")
    return 0


def _color(text: str | None) -> tuple[int, int, int] | None:
    if text is None:
        return None
    try:
        red, green, blue = (int(part) for part in text.split(","))
    except ValueError:
        red = green = blue = -1
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise InputError(f"--background: found {text!r}, expected R,G,B from 0 to 255, e.g. 127,127,127")
    return red, green, blue


def _device(name: str) -> str:
    if name != "auto":
        return name
    try:
        import torch
    except ModuleNotFoundError:
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


class _Bar:
    """A progress bar for `eval.run`: objects done, time left, which object."""

    def __enter__(self) -> _Bar:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("objects"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.description}"), console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("", total=None)
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, done: int, total: int, text: str) -> None:
        from rich.markup import escape

        self._progress.update(self._task, completed=done, total=total, description=escape(text))
