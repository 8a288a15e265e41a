"""The commands `mvv train`, `mvv latents`, `mvv sample`, `mvv model convert`: each joins a room with its arguments."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg

from manifests.errors import InputError
from mvv.latents import LatentsOptions
from mvv.presets import asked_preset, with_required
from mvv.sample import SampleOptions, quiet
from train.config import (
    ComputeConfig,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    SaveConfig,
    TrainConfig,
    preset,
)

__all__ = ["Latents", "Sample", "Train", "TrainArguments", "model_convert"]

_FLAT = arg(name="")


@dataclass(frozen=True, kw_only=True)
class TrainArguments:
    """What decides a run; a preset fills in every field that is not given."""

    preset: Literal["tiny", "base"] = "base"
    """`base` is Animate3D's protocol at full size; `tiny` learns something on two CPU cores in minutes."""
    data: Annotated[DataConfig, _FLAT] = field(default_factory=DataConfig)
    model: Annotated[ModelConfig, _FLAT] = field(default_factory=ModelConfig)
    objective: Annotated[ObjectiveConfig, _FLAT] = field(default_factory=ObjectiveConfig)
    optimizer: Annotated[OptimizerConfig, _FLAT] = field(default_factory=OptimizerConfig)
    compute: Annotated[ComputeConfig, _FLAT] = field(default_factory=ComputeConfig)
    save: Annotated[SaveConfig, _FLAT] = field(default_factory=SaveConfig)

    def config(self) -> TrainConfig:
        """As the trainer takes it."""
        return TrainConfig(**{entry.name: getattr(self, entry.name) for entry in dataclasses.fields(self)})


@dataclass(frozen=True, kw_only=True)
class Train:
    """Train a multi-view video diffusion model on a dataset; stopped at any point, --resume goes on."""

    data: str
    """The dataset: a folder, or a URL that fsspec opens, e.g. s3://bucket/dataset."""
    out: Path
    """Folder of the run; OUT/model is what `mvv sample` takes."""
    resume: bool = False
    """Go on with the run in OUT; without a checkpoint there it starts anew."""
    accept_changed_data: bool = False
    """Go on although the dataset is not the one that the run began with."""
    ray_workers: int = 0
    """Processes of Ray Train, one GPU each where there are GPUs; 0 runs in this process, or as `accelerate launch` or
    `torchrun` started it."""
    ray_address: str = ""
    """Address of a running Ray cluster; empty starts an embedded one."""
    config: Annotated[TrainArguments, _FLAT] = field(default_factory=TrainArguments)

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> Train:
        """The command with the fields of the preset that its arguments name."""
        base = preset(asked_preset(arguments, TrainArguments().preset))
        fields = {entry.name: getattr(base, entry.name) for entry in dataclasses.fields(base)}
        return with_required(cls, config=TrainArguments(**fields))

    def __call__(self) -> int:
        # Before torch comes in: OpenMP's threads spin while they wait, and where something else wants a core (our own
        # loader, say) a step on a CPU takes ten times as long.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        if self.ray_workers < 0:
            raise InputError(f"--ray-workers: found {self.ray_workers}, expected 0 or more")
        config = self.config.config()
        quiet()
        how: dict[str, Any] = {"resume": self.resume, "accept_changed_data": self.accept_changed_data}
        if self.ray_workers:
            from train.run.ray_train import train_on_ray

            summary = train_on_ray(
                config, data=self.data, out=self.out, workers=self.ray_workers, address=self.ray_address, **how
            )
        else:
            from train.run.trainer import train

            with _Bar() as bar:
                summary = train(config, data=self.data, out=self.out, progress=bar, **how)
        if os.environ.get("RANK", "0") != "0":
            return 0
        if summary.was_finished:
            print(f"{self.out}: finished before, nothing to do ({summary.step} steps)")
        else:
            loss = "" if math.isnan(summary.loss) else f", loss {summary.loss:.4f}"
            print(f"{self.out}: {summary.step} steps, {summary.clips} clips{loss}")
        print(f"next: mvv sample --model {self.out / 'model'} --object DATASET/CLIP_ID --prompt TEXT --out samples")
        return 0


class _Bar:
    """What the trainer tells, as a live line on a terminal, else as a line now and then."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("train"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
        self._bars = Progress(
            *columns, TextColumn("left"), TimeRemainingColumn(), console=self._console,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task: Any = None
        self._said = time.monotonic()

    def __enter__(self) -> _Bar:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def __call__(self, done: int, total: int, line: dict[str, Any]) -> None:
        parts = [f"{name} {line[key]:.4g}{unit}" for name, key, unit in _SHOWN if key in line]
        text = ", ".join(parts)
        if self._task is None:
            self._task = self._bars.add_task(text, total=total, completed=done)
        self._bars.update(self._task, completed=done, description=text)
        if not self._console.is_terminal and (time.monotonic() - self._said > 30 or done == total):
            self._said = time.monotonic()
            self._console.print(f"train: {done} of {total} steps, {text}")


_SHOWN = (("loss", "loss", ""), ("gradient", "grad_norm", ""), ("", "clips_per_s", " clips/s"), ("mfu", "mfu", ""))
"""(name, key of the log, unit)."""


@dataclass(frozen=True, kw_only=True)
class Latents:
    """Encode every frame of a dataset with a VAE, once; stopped at any point, the same command goes on."""

    dataset: Positional[Path]
    """A finished dataset."""
    vae: Path
    """Folder of the VAE, or of a pipeline with one."""
    out: Path | None = None
    """Another folder, which becomes a dataset with the same images (hard links where possible); by default the latents
    are added to DATASET."""
    options: Annotated[LatentsOptions, _FLAT] = field(default_factory=LatentsOptions)

    def __call__(self) -> int:
        from mvv.latents import make_latents
        from pipelines.progress import RichProgress

        with RichProgress() as progress:
            made = make_latents(self.dataset, self.vae, self.out, self.options, progress=progress)
        how = made.modality
        shape = f"{how['channels'] // 2} x {how['height']} x {how['width']} of {how['size']} px images"
        if made.shards:
            rate = made.images / made.seconds if made.seconds else 0.0
            print(f"{made.folder}: latents {shape}; {made.images} images in {made.seconds:.1f} s ({rate:.1f} images/s)")
        else:
            print(f"{made.folder}: finished before, nothing to do (latents {shape})")
        background = " ".join(f"{value:g}" for value in how["background"])
        print(f"train on them with --source latents --size {how['size']} --background {background}")
        return 0


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Animate one object with a trained model: frames, a contact sheet, a playing picture."""

    model: Path
    """Folder of a pipeline, or of the run that trained it."""
    object: str
    """A model (.glb, .gltf, .obj), which is rendered at rest; DATASET/CLIP_ID, whose frame 0 is taken; or a dataset of
    one clip."""
    prompt: str = ""
    """What it should do."""
    out: Path
    """Folder to write OBJECT/VIEW/000.png ..., OBJECT.png, OBJECT.webp and OBJECT.json to; takes many objects."""
    options: Annotated[SampleOptions, _FLAT] = field(default_factory=SampleOptions)

    def __call__(self) -> int:
        from mvv.sample import sample
        from pipelines.progress import RichProgress

        with RichProgress() as progress:
            made = sample(self.model, self.object, self.prompt, self.out, self.options, progress=progress)
        print(f"{made.out}: {made.name}, {made.views} views x {made.frames} frames in {made.seconds:.1f} s")
        return 0


def model_convert(
    source: Positional[Path], /, *, out: Path,
    kind: Literal["auto", "mvdream", "animatediff", "ip-adapter", "animate3d", "adapter", "pipeline"] = "auto",
    to: Literal["pipeline", "animatediff", "ip-adapter", "animate3d", "adapter"] = "pipeline",
    base: Path | None = None, motion: Path | None = None, ip_adapter: Path | None = None,
    image_encoder: Path | None = None, animate3d: Path | None = None, adapter: Path | None = None, seed: int = 0,
) -> int:  # fmt: skip
    """Make a pipeline of public weights that you have (MVDream, AnimateDiff, IP-Adapter, Animate3D), or the reverse.

    Args:
        source: File or folder; nothing is fetched.
        out: Folder to make.
        kind: What SOURCE is; auto sees it from what is in it.
        to: What to make: a pipeline, or from a pipeline a file or folder that other programs read.
        base: Pipeline that a SOURCE other than MVDream is put into.
        motion: AnimateDiff's motion modules, file or folder.
        ip_adapter: IP-Adapter's file.
        image_encoder: Folder of the CLIP image encoder that goes with it; by default image_encoder beside it.
        animate3d: Animate3D's released file.
        adapter: Folder of trained weights alone, as --to adapter writes it; BASE must be what they were trained on.
        seed: Of layers that none of them has.
    """
    from train.convert.convert import convert, export

    given = {"base": base, "motion": motion, "ip_adapter": ip_adapter, "image_encoder": image_encoder}
    given |= {"animate3d": animate3d, "adapter": adapter}
    if to != "pipeline":
        extra = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
        if extra or kind not in ("auto", "pipeline"):
            found = ", ".join(extra) or f"--kind {kind}"
            raise InputError(f"--to {to}: found {found}, expected a pipeline as SOURCE and nothing to put into it")
        print(f"wrote {export(source, kind=to, out=out)}")
        return 0
    made = convert(source, out=out, kind=kind, seed=seed, **given)
    for part, origin in made.parts.items():
        print(f"{part}: {made.parameters[part]:,} parameters, {origin}")
    print(f"wrote {made.out}")
    return 0
