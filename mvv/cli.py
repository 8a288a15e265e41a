"""The command line: parses, calls the rooms, prints, and turns errors into one line and an exit code.

Exit codes: 0 done, 1 an error or something found wrong, 2 unusable arguments, 3 done with rows that failed, 130 stopped
by Ctrl-C. Rooms are imported when their command runs, so `mvv --help` needs none of the heavy packages.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from manifests.config import CameraConfig, MotionConfig, PackConfig, RenderConfig, preset
from manifests.errors import InputError, MvvError, refusal
from manifests.gltf.limits import Limits
from mvv import evaluate, weights
from mvv import train as training
from mvv.animate import Animate
from mvv.presets import asked_preset, with_required
from mvv.study import commands as study
from pipelines.build import RunOptions

__all__ = ["main"]

Preset = Literal["mv-video", "demo", "eval-animate3d", "eval-3to4d"]
_FLAT = arg(name="")


@dataclass(frozen=True, kw_only=True)
class ConfigArguments:
    """What decides the content; a preset fills in every field that is not given."""

    preset: Preset = "mv-video"
    """Cameras, frames, sizes and quality to start from."""
    seed: int = 0
    """Seed of cameras, lights, order, splits and render noise."""
    camera: Annotated[CameraConfig, _FLAT] = field(default_factory=CameraConfig)
    motion: Annotated[MotionConfig, _FLAT] = field(default_factory=MotionConfig)
    render: Annotated[RenderConfig, _FLAT] = field(default_factory=RenderConfig)
    pack: Annotated[PackConfig, _FLAT] = field(default_factory=PackConfig)
    limits: Limits = field(default_factory=Limits)

    def config(self) -> Any:
        """The `BuildConfig`."""
        from manifests.config import BuildConfig

        return BuildConfig(**{entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)})


def assets_make(*, out: Path, count: int = 12, seed: int = 0) -> int:
    """Make procedural animated models (CC0): skins, morphs, machines; no download needed.

    Args:
        out: Folder to write the .glb files to.
        count: How many; families take turns.
        seed: The same seed gives the same bytes.
    """
    from pipelines.procedural import make

    paths = make(out, count, seed)
    _print(f"wrote {len(paths)} models to {out}; next: mvv build {out} --out DATASET --preset demo")
    return 0


def assets_scan(paths: Positional[tuple[Path, ...]], /, *, out: Path) -> int:
    """List local .glb and .gltf files in a table, with hash, licence and duplicates.

    Args:
        paths: Files and folders.
        out: The assets.parquet to write.
    """
    from manifests.tables import ASSETS, write_rows
    from pipelines.intake import mark_duplicates, scan

    if not paths:
        raise InputError("PATH: found none, expected at least one file or folder of .glb or .gltf")
    rows = list(scan(paths))
    mark_duplicates(rows)
    write_rows(out, rows, ASSETS)
    refused = sum(row["status"] != "accepted" for row in rows)
    _print(f"wrote {len(rows)} assets to {out}, {refused} of them refused (columns status, reason, detail)")
    return 0


@dataclass(frozen=True, kw_only=True)
class _Configured:
    """A command with the config of a dataset."""

    out: Path
    """Where to write: the folder of the dataset, or for `mvv clips` the clips.parquet."""
    config: Annotated[ConfigArguments, _FLAT] = field(default_factory=ConfigArguments)
    run: Annotated[RunOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=RunOptions)

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> Any:
        """The command with the fields of the preset that its arguments name."""
        base = preset(asked_preset(arguments, ConfigArguments().preset))
        config = ConfigArguments(**{entry.name: getattr(base, entry.name) for entry in dataclasses.fields(base)})
        return with_required(cls, config=config)


@dataclass(frozen=True, kw_only=True)
class Clips(_Configured):
    """Probe every animation, without rendering: its figures, and whether it gives clips, or why not."""

    assets: Positional[Path]
    """A model, a folder of models, or an assets.parquet."""

    def __call__(self) -> int:
        from mvv.tables import print_reasons
        from pipelines.progress import RichProgress
        from pipelines.survey import survey

        with RichProgress() as progress:
            counts = survey(self.assets, self.out, self.config.config(), self.run, progress=progress)
        print_reasons(counts)
        _print(f"wrote {sum(counts.values())} rows to {self.out}")
        return 3 if any(status == "failed" for status, _ in counts) else 0


@dataclass(frozen=True, kw_only=True)
class Build(_Configured):
    """Render a dataset of multi-view animation clips; stopped at any point, the same command goes on."""

    assets: Positional[Path]
    """A model, a folder of models, or an assets.parquet."""

    def __call__(self) -> int:
        return _build(self.assets, self.out, self.config.config(), self.run, "")


@dataclass(frozen=True, kw_only=True)
class Still(_Configured):
    """Render objects at rest: one-frame clips of the same layout; also takes .obj."""

    model: Positional[Path]
    """A model or a folder of models (.glb, .gltf, .obj)."""
    pose: str = "bind"
    """`bind`, or ANIMATION@SECONDS with an animation's index or name."""

    def __call__(self) -> int:
        config = self.config.config()
        one = dataclasses.replace(config, motion=dataclasses.replace(config.motion, frames=1))
        return _build(self.model, self.out, one, self.run, self.pose)


def verify(dataset: Positional[Path], /, *, decode: bool = False) -> int:
    """Check every tar, member, index and row against its hash; exit 1 with the list of what is wrong.

    Args:
        dataset: Folder of the dataset.
        decode: Also decode every image.
    """
    from manifests.verify import iter_problems

    count = 0
    for problem in iter_problems(dataset, decode=decode):
        count += 1
        _print(f"{problem.file}: found {problem.found}, expected {problem.expected}; {problem.remedy}")
    _print(f"{dataset}: {f'{count} problems' if count else 'every tar, member, index and row is as it should be'}")
    return 1 if count else 0


def inspect(
    dataset: Positional[Path], clip: Positional[str] = "", /, *, out: Path | None = None,
    background: Literal["checker", "grey", "white", "black"] = "checker",
) -> int:  # fmt: skip
    """Show a dataset or a clip as a table, and as a contact sheet (views x frames).

    Args:
        dataset: Folder of the dataset.
        clip: A clip id or the beginning of one.
        out: The PNG to write; by default NAME.png in the current folder.
        background: What is put behind the object.
    """
    from mvv.inspect import inspect as show

    target = out or Path(f"{clip or dataset.resolve().name}.png")
    path = show(dataset, clip or None, out=target, background=background)
    if path is not None:
        _print(f"contact sheet: {path}")
    return 0


def report(dataset: Positional[Path], /, *, out: Path, max_clips: int = 240) -> int:
    """Write a static gallery: playing clips, cameras, motion, licences, failures, timings.

    Args:
        dataset: Folder of the dataset.
        out: Folder of the report; an earlier report there is replaced.
        max_clips: Most clips to show.
    """
    from mvv.report import build_report

    path = build_report(dataset, out, max_clips=max_clips)
    _print(f"open {path.resolve().as_uri()}")
    return 0


def doctor() -> int:
    """Say what this machine can do: engines, devices, codecs, versions, free space."""
    from mvv.doctor import doctor as examine

    return examine()


_COMMANDS: dict[str, Any] = {
    "assets make": assets_make,
    "assets scan": assets_scan,
    "clips": Clips,
    "build": Build,
    "still": Still,
    "verify": verify,
    "inspect": inspect,
    "report": report,
    "train": training.Train,
    "latents": training.Latents,
    "sample": training.Sample,
    "model convert": training.model_convert,
    "animate": Animate,
    "weights list": weights.weights_list,
    "weights fetch": weights.weights_fetch,
    "weights add": weights.weights_add,
    "weights verify": weights.weights_verify,
    "eval run": evaluate.EvalRun,
    "eval verify": evaluate.EvalVerify,
    "eval compare": evaluate.compare,
    "eval cards": evaluate.cards,
    "eval set": evaluate.evaluation_set,
    "eval calibrate": evaluate.calibrate,
    "eval study make": study.study_make,
    "eval study score": study.study_score,
    "leaderboard build": evaluate.leaderboard_build,
    "doctor": doctor,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit with its code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        sys.exit(_run(given))
    except MvvError as error:
        _print(f"error: {error}", error=True)
        sys.exit(1)
    except KeyboardInterrupt:
        _print("stopped; repeat the same command to go on where it was", error=True)
        sys.exit(130)
    except BrokenPipeError:  # `mvv ... | head`
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        told = refusal(error)
        if told is None:
            raise
        _print(f"error: {told}", error=True)
        sys.exit(1)


def _run(given: list[str]) -> int:
    depth = next((n for n in (3, 2, 1) if " ".join(given[:n]) in _COMMANDS), 1)
    name, rest = " ".join(given[:depth]), given[depth:]
    if not given or given[0] in ("-h", "--help"):
        _print(_overview())
        return 0
    if name == "--version":
        _print(version("mvvideo"))
        return 0
    asked = " ".join(word for word in given if word not in ("-h", "--help"))
    family = [command for command in _COMMANDS if command.startswith(f"{asked} ")]
    if family:
        _print(_listing(family))
        return 0
    if name not in _COMMANDS:
        if any(command.startswith(f"{name} ") for command in _COMMANDS):
            name = " ".join([name, *rest[:1]])
        near = get_close_matches(name, _COMMANDS, 1)
        hint = f"did you mean `mvv {near[0]}`?" if near else "see `mvv --help`"
        raise InputError(f"mvv: found command {name!r}, expected one of {', '.join(_COMMANDS)}; {hint}")
    command, prog = _COMMANDS[name], f"mvv {name}"
    if hasattr(command, "defaults"):
        return tyro.cli(command, args=rest, prog=prog, default=command.defaults(rest))()
    found = tyro.cli(command, args=rest, prog=prog)
    return found() if isinstance(command, type) else found


def _overview() -> str:
    return "\n".join(
        [
            "mvv: animated 3D assets in, multi-view animation clips out, and what others make of them scored",
            "",
            _listing(_COMMANDS),
            "",
            "mvv COMMAND --help tells all options of a command. A first dataset:",
            "",
            "  mvv assets make --out assets --count 12",
            "  mvv build assets --out dataset --preset demo",
            "  mvv verify dataset",
            "  mvv report dataset --out report",
            "",
            "train on it, a small model on a CPU in minutes, and animate an object with it:",
            "",
            "  mvv train --preset tiny --data dataset --out training",
            "  mvv sample --model training --object assets/MODEL.glb --prompt walks --out samples",
            "",
            "make a model move as a video prior has it, here one that knows the answer:",
            "",
            "  mvv animate assets/MODEL.glb --prompt 'a bird flies' --prior oracle:assets/MODEL.glb --out animated",
            "",
            "and its score, with controls, by the metrics that need no weights:",
            "",
            "  mvv eval run dataset --protocol threetofour --metrics offline --out run",
            "  mvv leaderboard build run --out leaderboard",
        ]
    )


def _listing(names: Iterable[str]) -> str:
    return "\n".join(f"  mvv {name:18} {(_COMMANDS[name].__doc__ or '').strip().splitlines()[0]}" for name in names)


def _build(assets: Path, out: Path, config: Any, options: RunOptions, pose: str) -> int:
    from mvv.tables import print_reasons
    from pipelines.build import build as run
    from pipelines.progress import RichProgress

    with RichProgress() as progress:
        summary = run(assets, out, config, options, pose=pose, progress=progress)
    counts = summary.counts
    if summary.finished_before:
        _print(f"{out}: finished before, nothing to do ({counts['clips']} clips, {summary.seconds:.1f} s)")
    else:
        rate = summary.images / summary.seconds if summary.seconds else 0.0
        _print(
            f"{out}: {counts['clips']} clips of {counts['models']} models, {counts['images']} images; this run "
            f"rendered {summary.images} in {summary.seconds:.1f} s ({rate:.1f} images/s)"
        )
    rows = {("rejected", reason): n for part in counts["rejected"].values() for reason, n in part.items()}
    rows |= {("failed", cause): n for cause, n in counts["failed"].items()}
    if counts["assets"].get("failed"):
        rows["failed", "asset"] = counts["assets"]["failed"]
    print_reasons(rows)
    if summary.failed:
        _print(f"{summary.failed} failed; try them again with --retry-failed (the rows say why: clips.parquet)")
    return 3 if summary.failed else 0


def _print(text: str, *, error: bool = False) -> None:
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


if __name__ == "__main__":
    main()
