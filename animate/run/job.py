"""`animate`: a model, a prompt and a prior in; a folder with the animated model out. The same command again goes on.

The folder holds ``settings.json`` from the start, ``target.safetensors``, ``log.jsonl`` and a checkpoint on the way,
and ``animate.json`` at the end, which is written last: where it is, the run is done.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from animate.config import AnimateConfig, to_dict
from animate.priors.known import Known
from animate.priors.open import open_prior
from animate.priors.prior import Prior
from animate.run.opened import Opened, memory_gib, open_subject
from animate.run.outputs import write_outputs
from animate.run.plan import Plan, make_plan
from animate.run.stage import BEFORE, CHECKPOINT, LOG, Stage, run_stages
from animate.run.target import TARGET
from manifests.errors import InputError
from manifests.publish import sha256_file, write_bytes

__all__ = ["RECORD", "SETTINGS", "Summary", "Watcher", "animate"]

RECORD, SETTINGS = "animate.json", "settings.json"
FREE = ("device", "checkpoint_s", "preview_s", "frame_size")
"""Fields that may change when a run goes on."""


class Watcher(Protocol):
    """Who wants to know how it goes."""

    def say(self, text: str) -> None:
        """A line about what comes now."""

    def filming(self, done: int, total: int) -> None:
        """Steps of the prior's sampling."""

    def stage(self, name: str, done: int, total: int, losses: dict[str, float]) -> None:
        """After a step of a stage."""

    def preview(self, stage: str, frames: Tensor) -> None:
        """(F, H, W, 3) uint8: target beside what was found, where there is a target."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What came of a run."""

    out: Path
    was_finished: bool = False
    seconds: dict[str, float] = field(default_factory=dict)
    files: tuple[str, ...] = ()


def animate(
    model: Path,
    *,
    prompt: str,
    prior: str,
    out: Path,
    config: AnimateConfig,
    watcher: Watcher,
    pose: str = "",
    resume: bool = False,
    err_on_background: float = 0.0,
) -> Summary:
    """Animates a model.

    Args:
        model: .glb, .gltf, .obj, or a Gaussian .ply.
        prompt: what happens, for priors that read; never empty.
        prior: as `animate.priors.open.open_prior` reads it.
        out: folder of the run.
        config: method and everything that decides the result.
        watcher: is told.
        pose: `bind` or ANIMATION@SECONDS; "" takes what the prior asks for.
        resume: go on with the run in `out`.
        err_on_background: of an oracle, to try the masked distillation.

    Raises:
        InputError: anything of the user's that does not fit, before work is spent on it.
        StorageError: the disk refuses; what was made stays.
    """
    if not prompt.strip():
        raise InputError("--prompt: found no words, expected what shall happen; e.g. --prompt 'a fox runs'")
    if not model.is_file():
        raise InputError(f"{model}: found no such file, expected a .glb, .gltf, .obj or Gaussian .ply; check the path")
    settings = {
        "model_sha256": sha256_file(model),
        "prompt": prompt,
        "prior": prior,
        "pose": pose,
        "err_on_background": err_on_background,
        "config": to_dict(config),
    }
    if _settle(out, settings, resume):
        record = json.loads((out / RECORD).read_text("utf-8"))
        return Summary(out=out, was_finished=True, seconds=record["seconds"], files=tuple(record["files"]))
    device = _device(config.device)
    began = time.monotonic()
    opened = open_subject(model, prior, pose, config)
    known = open_prior(
        prior,
        config=config.subject,
        center=opened.subject.center,
        scale=opened.subject.scale,
        box=opened.box(),
        err_on_background=err_on_background,
        device=device,
    )
    _agree(known, config)
    _estimate(opened, config, watcher)
    plan = make_plan(opened, known, prompt, config, out, device, watcher.filming)
    seconds = {"preparation": time.monotonic() - began}
    with _threads(1 if _small_steps(device, known, config) else torch.get_num_threads()):
        seconds |= run_stages(
            plan.stages,
            out,
            seed=config.seed,
            checkpoint_s=config.checkpoint_s,
            preview_s=config.preview_s,
            told=watcher.stage,
            show=_shower(watcher),
        )
    began = time.monotonic()
    facts = write_outputs(out, opened, plan, config, watcher.say)
    seconds["export"] = time.monotonic() - began
    record = _record(settings, opened, plan, facts, seconds, device, out)
    write_bytes(out / RECORD, (json.dumps(record, indent=1) + "\n").encode())
    return Summary(out=out, seconds=seconds, files=tuple(facts["files"]))


def _settle(out: Path, settings: dict[str, Any], resume: bool) -> bool:
    """Claims the folder, or finds that the run in it is this one; True where it is finished."""
    path = out / SETTINGS
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: found a file, expected a folder or a new name; use another --out")
    found = _settings(path)
    if found is None and out.is_dir() and any(out.iterdir()):
        raise InputError(
            f"--out {out}: found a folder with other things in it, expected an empty or new one; use another --out"
        )
    # What was refused before it had anything to show left only its settings, and the next command may be another.
    if found is None or not _begun(out):
        write_bytes(path, (json.dumps(settings, indent=1) + "\n").encode())
        return False
    if not resume:
        raise InputError(f"--out {out}: found a run, expected a new folder; give --resume to go on, or another --out")
    changed = [name for name in settings if name != "config" and found.get(name) != settings[name]]
    changed += _changed(found.get("config", {}), settings["config"], "")
    if changed:
        raise InputError(
            f"--out {out}: found a run with other {', '.join(changed[:6])}, expected the same settings to go on;"
            " repeat its command, or use another --out"
        )
    return (out / RECORD).is_file()


def _settings(path: Path) -> dict[str, Any] | None:
    """Those of the run in a folder; None where there is none."""
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: found {error}, expected JSON; use another --out") from error
    if not isinstance(found, dict) or "model_sha256" not in found:
        raise InputError(f"{path}: found other things, expected the settings of a run; use another --out")
    return found


def _begun(out: Path) -> bool:
    made = (out / name for name in (RECORD, TARGET, CHECKPOINT))
    return any(path.is_file() for path in made) or any(out.glob(f"{BEFORE}*"))


def _changed(before: dict[str, Any], now: dict[str, Any], prefix: str) -> list[str]:
    found = []
    for name in now:
        if name in FREE and not prefix:
            continue
        if isinstance(now[name], dict) and isinstance(before.get(name), dict):
            found += _changed(before[name], now[name], f"{prefix}{name}.")
        elif before.get(name) != now[name]:
            found.append(prefix + name)
    return found


def _agree(prior: Prior, config: AnimateConfig) -> None:
    """A prior that knows a motion has its frames a second; one that was trained keeps its own."""
    if prior.fps_free:
        prior.fps = config.recon.fps
    if prior.any_camera:
        return
    if config.method == "threetofour":
        raise InputError(
            f"--prior {prior.name}: found a prior with cameras of its own, expected one for any camera with --method"
            " threetofour; take --method animate3d-mesh, which follows such a clip"
        )
    if config.refine.steps:
        raise InputError(
            f"--prior {prior.name}: found a prior with cameras of its own, expected one for any camera in the"
            " refinement; give --refine.steps 0"
        )


def _estimate(opened: Opened, config: AnimateConfig, watcher: Watcher) -> None:
    points = opened.num_points
    shown = config.subject.surface_points if config.subject.gaussians == "surface" and opened.mesh else points
    need = memory_gib(points, shown, config)
    watcher.say(f"{points} points, {shown} Gaussians, about {need:.1f} GiB")
    there = _memory_there()
    if there and need > there:
        raise InputError(
            f"{opened.model.name}: found {points} points, which need about {need:.0f} GiB, expected at most"
            f" {there:.0f} GiB of memory; give a small --recon.frames-per-step or --recon.chunk, or simplify the model"
        )


def _memory_there() -> float:
    """GiB of this machine, or of the GPU; 0 where it is not known."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_properties(0).total_memory / 2**30
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (ValueError, OSError, AttributeError):
        return 0.0


def _device(text: str) -> torch.device:
    if text == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=text).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device: found {text} ({reason}), expected one that is there; see `mvv doctor`") from error


def _small_steps(device: torch.device, prior: Prior, config: AnimateConfig) -> bool:
    """Whether steps are many small operations: on a CPU, splats alone and no network to ask.

    Waiting for each other costs threads more than they share there: measured with 3000 Gaussians at 64 px on two cores,
    one thread is 2.3 times as fast as two.
    """
    return device.type == "cpu" and config.method != "threetofour" and isinstance(prior, Known)


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shower(watcher: Watcher) -> Callable[[Stage], None]:
    def show(stage: Stage) -> None:
        frames = stage.preview()
        if frames is not None:
            watcher.preview(stage.name, frames)

    return show


def _record(
    settings: dict[str, Any],
    opened: Opened,
    plan: Plan,
    facts: dict[str, Any],
    seconds: dict[str, float],
    device: torch.device,
    out: Path,
) -> dict[str, Any]:
    rows = [json.loads(line) for line in (out / LOG).read_text("utf-8").splitlines()] if (out / LOG).is_file() else []
    last = {row["stage"]: {key: value for key, value in row.items() if key != "stage"} for row in rows}
    unit = 1024 if sys.platform == "darwin" else 1
    memory = {"peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / unit)}
    if device.type == "cuda":
        memory["peak_gpu_mib"] = round(torch.cuda.max_memory_allocated(device) / 2**20)
    return {
        **settings,
        "model": opened.model.name,
        "pose": opened.pose,
        "method": settings["config"]["method"],
        "points": opened.num_points,
        "gaussians": len(plan.body.gaussians),
        "losses": last,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "memory": memory,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "versions": {package: version(package) for package in ("mvvideo", "torch")},
        **facts,
    }
