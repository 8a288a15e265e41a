"""The command `mvv animate`: joins the room `animate` with its arguments, and tells people how it goes."""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from animate.config import AnimateConfig, preset
from manifests.errors import InputError, MvvError
from manifests.publish import write_bytes
from mvv.pages.wording import duration_text
from mvv.presets import asked_preset, asked_value, with_required
from mvv.preview.page import PICTURE, State, write_preview
from mvv.sample import playing, quiet

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Animate", "fitting_preset"]

_AUTO = "auto"
_PAGE_EVERY_S = 5.0
_LINE_EVERY_S = 30.0
_PLAYED_FPS = 8.0
_SEEN_PX = 256


@dataclass(frozen=True, kw_only=True)
class Animate:
    """Make a 3D model move as a video prior has it: Animate3D or 3to4D; stopped at any point, --resume goes on."""

    model: Positional[Path]
    """A mesh (.glb, .gltf, .obj) or a Gaussian scene (.ply)."""
    prompt: str
    """What happens, with the object's word in it: "a fox runs"."""
    prior: str
    """What knows how things move: the folder of an MV-VDM, I2VGen-XL, Stable Video Diffusion or AnimateDiff pipeline; a
    DynamiCrafter checkpoint; clip:DATASET/CLIP_ID; oracle:FILE.glb[#ANIMATION]. Nothing is fetched."""
    out: Path
    """Folder of the run: animated.glb, animated.usdz, frames/, videos/, animate.json, and preview.html to watch it."""
    pose: str = ""
    """Pose to start from: `bind`, or ANIMATION@SECONDS with an animation's index or name; by default as the prior's
    motion begins where it has one, else `bind`."""
    preset: Literal["auto", "small", "released"] = "auto"
    """`released` has the papers' numbers, `small` is for two CPU cores; auto: `released` where there is an NVIDIA card.
    It fills in what is not given, for the method that is asked for."""
    resume: bool = False
    """Go on with the run in OUT; repeat its other arguments."""
    err_on_background: float = 0.0
    """Of an oracle: how wrong it is outside the object, to try the masked distillation."""
    config: Annotated[AnimateConfig, arg(name="")] = field(default_factory=AnimateConfig)

    @classmethod
    def defaults(cls, arguments: Sequence[str]) -> Animate:
        """The command with the fields of the preset and the method that its arguments name."""
        method = asked_value(arguments, "--method", AnimateConfig().method)
        name = fitting_preset(asked_preset(arguments, _AUTO), asked_value(arguments, "--device", _AUTO))
        return with_required(cls, config=preset(name, method))

    def __call__(self) -> int:
        # Before torch comes in, as for training: threads that spin while they wait take the cores from each other.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from animate.run.job import animate

        name = fitting_preset(self.preset, self.config.device)
        self._agree(name)
        if not self.prior.startswith(("clip:", "oracle:")):
            quiet()
        with _Screen(self.out, self.model.name) as screen:
            how = "no NVIDIA card" if name == "small" else "an NVIDIA card"
            taken = f" ({how}; --preset chooses)" if self.preset == _AUTO else ""
            screen.note(f"{self.model.name}: {self.config.method}, preset {name}{taken}")
            done = animate(
                self.model,
                prompt=self.prompt,
                prior=self.prior,
                out=self.out,
                config=self.config,
                watcher=screen,
                pose=self.pose,
                resume=self.resume,
                err_on_background=self.err_on_background,
            )
        if done.was_finished:
            print(f"{self.out}: finished before, nothing to do ({', '.join(done.files)})")
        else:
            print(f"{self.out}: animated in {duration_text(sum(done.seconds.values()))} ({', '.join(done.files)})")
        print(f"open {write_preview(self.out, State(model=self.model.name, doing='')).resolve().as_uri()}")
        return 0

    def _agree(self, name: str) -> None:
        import torch

        if self.preset == _AUTO and name == "released" and not torch.cuda.is_available():
            raise InputError(
                "--preset auto: found an NVIDIA card that torch does not see, expected CUDA for the preset released;"
                " install torch for CUDA, or give --preset small --device cpu"
            )


def fitting_preset(name: str, device: str = _AUTO) -> str:
    """What ``--preset auto`` means here; another name is itself.

    Looks for a card without torch, whose import would make every ``--help`` wait.

    Args:
        name: what ``--preset`` says.
        device: what ``--device`` says.
    """
    if name != _AUTO:
        return name
    there = Path("/dev/nvidiactl").exists() or shutil.which("nvidia-smi") is not None
    return "released" if there and not device.startswith("cpu") else "small"


class _Screen:
    """Tells a terminal and the page how a run goes: a live line a stage, elsewhere a line now and then.

    Args:
        out: folder of the run; nothing is written to it before the run has claimed it.
        model: file name of the model.
    """

    def __init__(self, out: Path, model: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._out, self._state = out, State(model=model, doing="preparation")
        self._console = Console(stderr=True, highlight=False)
        columns = (TextColumn("{task.fields[name]:14}"), BarColumn(), MofNCompleteColumn())
        self._bars = Progress(
            *columns, TextColumn("{task.description}"), TextColumn("left"), TimeRemainingColumn(),
            console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task: Any = None
        self._began, self._first = time.monotonic(), 0
        self._said = self._written = time.monotonic()
        self._claimed = False

    def __enter__(self) -> _Screen:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        with contextlib.suppress(OSError):  # the terminal may be gone
            self._bars.stop()
        if kind is None or not self._claimed:
            return
        if issubclass(kind, KeyboardInterrupt):
            reason = "It was interrupted; the same command with --resume goes on."
        else:
            reason = str(error) if isinstance(error, MvvError) else "It ended with an error; see the terminal."
        self._page(stopped=reason)

    def note(self, text: str) -> None:
        """A line above the bars."""
        self._console.print(text, markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """What comes now; the folder is the run's from here on."""
        # A run first tells its size, and then, after its stages, each kind of file that it writes.
        if self._claimed:
            self._state = replace(self._state, doing=f"writing {text}", done=0, total=0, left_s=None)
        self._claimed = True
        self.note(text)
        self._page()

    def filming(self, done: int, total: int) -> None:
        """Steps of the prior's sampling."""
        self._progress("filming", done, total, "")

    def stage(self, name: str, done: int, total: int, losses: dict[str, float]) -> None:
        """After a step of a stage."""
        ordered = ["loss", *(key for key in losses if key != "loss")]
        self._progress(name, done, total, ", ".join(f"{key} {losses[key]:.3g}" for key in ordered if key in losses))

    def preview(self, stage: str, frames: Tensor) -> None:
        """Shows these frames on the page from now on."""
        pixels = frames.numpy()[None]
        beside = pixels.shape[3] == 2 * pixels.shape[2]
        # Small images in whole multiples: the encoder would smear their pixels.
        times = max(1, _SEEN_PX // pixels.shape[2])
        pixels = pixels.repeat(times, 2).repeat(times, 3)
        shown = f"{stage}, step {self._state.done:,}: {'target left, this run right' if beside else 'this run'}"
        with contextlib.suppress(OSError):  # as for the page
            write_bytes(self._out / PICTURE, playing(pixels, _PLAYED_FPS))
            self._state = replace(self._state, shown=shown)
        self._page()

    def _progress(self, name: str, done: int, total: int, text: str) -> None:
        now = time.monotonic()
        if self._task is None or name != self._state.doing:
            self._began, self._first = now, done
            self._task = self._bars.add_task(text, total=total, completed=done, name=name)
        self._bars.update(self._task, completed=done, description=text)
        made = done - self._first
        left_s = (now - self._began) / made * (total - done) if made > 0 else None
        self._state = replace(self._state, doing=name, done=done, total=total, left_s=left_s)
        if not self._console.is_terminal and (now - self._said > _LINE_EVERY_S or done == total):
            self._said = now
            left = "" if left_s is None or done == total else f", about {duration_text(left_s)} left"
            self.note(f"{name}: {done} of {total} steps{text and ', '}{text}{left}")
        if now - self._written > _PAGE_EVERY_S:
            self._page()

    def _page(self, **changed: Any) -> None:
        self._written = time.monotonic()
        # A page that cannot be written is no reason to lose the run: what counts is written and checked elsewhere.
        with contextlib.suppress(OSError):
            write_preview(self._out, replace(self._state, **changed))
