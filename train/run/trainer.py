"""Trains MV-VDM: clips in, a pipeline to sample from out, and a folder that any interruption leaves usable.

One function for a single process, ``accelerate launch`` or ``torchrun``, and a worker of Ray Train. Progress is counted
in clips; what a step does follows from the position alone, so a run that was killed goes on bit for bit (on a CPU; GPU
kernels may add in another order) and a step is the same on any number of ranks, up to rounding.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs
from torch import Tensor, nn

from manifests.errors import InputError
from train.config import TrainConfig, to_dict
from train.data.clips import ClipDataset, loader
from train.data.order import Batches, DataState
from train.run import checkpoint
from train.run.checkpoint import Checkpoint, random_state, set_random_state
from train.run.counts import Counts
from train.run.ema import EMA
from train.run.flops import peak_tflops
from train.run.ledger import Entry, write_ledger
from train.run.monitor import Monitor, append_lines, check_wandb, cut_after
from train.run.networks import choose_trained, open_pipeline, put_to_work
from train.run.objective import quarters
from train.run.optimizer import learning_rate, make_optimizer, named_state, set_named_state
from train.run.ranks import everyones, on_rank_0
from train.run.run_folder import RunFolder
from train.run.shapes import check_shapes
from train.run.step import inputs_of, loss_of, runs_in_bf16
from train.run.step_flops import clip_flops
from train.run.troubles import check_finite, explained
from train.run.validate import Validation

__all__ = ["Progress", "Summary", "train"]

Progress = Callable[[int, int, dict[str, Any]], None]
"""(updates done, updates in all, the newest line of the log), called on rank 0 after each update."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """How a call of `train` ended."""

    out: Path
    """Folder of the run; ``model/`` in it is what to sample from."""
    step: int
    """Updates that the model has seen, over all calls."""
    clips: int
    """Clips that it has seen."""
    was_finished: bool
    """Nothing was left to do."""
    loss: float
    """Of the last line of the log; NaN where nothing was done."""


def train(
    config: TrainConfig,
    *,
    data: str | Path,
    out: Path,
    resume: bool = False,
    accept_changed_data: bool = False,
    progress: Progress | None = None,
) -> Summary:
    """Trains until ``config.save.steps`` updates are done. Every rank calls it alike.

    Args:
        config: what decides the run; the groups and fields of `FREE_ON_RESUME` may differ when it goes on.
        data: dataset, folder or URL.
        out: folder of the run.
        resume: go on with the run that is there; without a checkpoint in it, it starts anew.
        accept_changed_data: go on although the dataset is another one.
        progress: told of each update.

    Raises:
        InputError: an impossible config, another one on resume, a changed dataset, a run without `resume`.
        DatasetError: damaged clips.
        StorageError: the disk is full or refuses; the last checkpoint is usable.
        Failed: a loss that is not finite, or too little memory; the last checkpoint is usable.
    """
    # Ranks wait while rank 0 saves and samples; the default of 10 minutes is too short for a big model.
    how = [
        DistributedDataParallelKwargs(gradient_as_bucket_view=True),
        InitProcessGroupKwargs(timeout=timedelta(hours=2)),
    ]
    # Autocast is ours: accelerate would wrap the network's forward for good, also for sampling and saving.
    # Without cpu=True accelerate takes no notice of other ranks where there is no accelerator.
    alone = not torch.accelerator.is_available()
    accelerator = Accelerator(mixed_precision="no", kwargs_handlers=how, cpu=alone)
    config.micro_batches(accelerator.num_processes)
    check_wandb(config.save.wandb)
    folder = RunFolder(Path(out))
    try:
        with explained(folder.out):
            begun = on_rank_0(accelerator, lambda: folder.begin(to_dict(config), resume=resume), tell=_name)
            saved = checkpoint.load(folder.checkpoints / begun) if isinstance(begun, str) else begun
            whole = on_rank_0(accelerator, lambda: bool(saved) and folder.model_step() == saved.step, tell=bool)
            if whole and saved.step >= config.save.steps:
                clips = saved.state["data"]["position"]
                return Summary(out=folder.out, step=saved.step, clips=clips, was_finished=True, loss=math.nan)
            trainer = _Trainer(config, accelerator, folder, data, saved, accept_changed_data)
            return trainer.run(progress)
    finally:
        folder.release()


class _Trainer:
    """One rank of a run: what it holds, and the steps of its story in the order they happen."""

    def __init__(
        self,
        config: TrainConfig,
        accelerator: Accelerator,
        folder: RunFolder,
        data: str | Path,
        saved: Checkpoint | None,
        accept_changed_data: bool,
    ) -> None:
        self.config, self.accelerator, self.folder = config, accelerator, folder
        self.device, self.main = accelerator.device, accelerator.is_main_process
        self.pipeline = open_pipeline(config, folder.model if saved else None)
        self.trained = choose_trained(self.pipeline, train_all=config.model.train_all)
        self._open_data(data, saved, accept_changed_data)
        check_shapes(config.data, self.pipeline, self.clips.modality)
        self._write_start(saved)
        self._write_facts(saved is not None)
        put_to_work(self.pipeline, config, self.device)
        self.network: nn.Module = accelerator.prepare_model(self.pipeline.unet)
        how, fused = config.optimizer, config.compute.fused_optimizer and self.device.type == "cuda"
        self.optimizer = make_optimizer(self.trained, how, fused=fused)
        self.ema = EMA(self.trained, how.ema_decay) if how.ema_decay else None
        self.step = 0
        if saved is not None:
            self._restore(saved)
        self._start_counting()

    # -- beginning -----------------------------------------------------------------------------------------------------

    def _open_data(self, data: str | Path, saved: Checkpoint | None, accept_changed: bool) -> None:
        config, convention = self.config, self.pipeline.config.camera_convention
        self.clips = ClipDataset(data, config.data, config.objective, camera_convention=convention)
        self.validation = None
        if config.save.validate_every:
            self.validation = Validation(config, data, camera_convention=convention)
        if saved is None:
            self.data = DataState(seed=config.data.order_seed, fingerprint=self.clips.fingerprint)
        else:
            self.data = DataState.from_dict(saved.state["data"])
            if not accept_changed:
                self.data.check(self.clips.fingerprint)
        self.changed_data = saved is None or self.data.fingerprint != self.clips.fingerprint
        self.data.fingerprint = self.clips.fingerprint
        self.data.begin(config.optimizer.batch_size)

    def _write_start(self, saved: Checkpoint | None) -> None:
        """Cuts what a killed run wrote after its checkpoint, and writes the model that others load."""

        def write() -> None:
            done = saved.step if saved else 0
            for path in (self.folder.ledger, self.folder.datasets):
                cut_after(path, done if saved else -1)
            if self.changed_data:
                span = {"step": done, "position": self.data.position, "clips": len(self.clips)}
                append_lines(self.folder.datasets, [span | {"fingerprint": self.clips.fingerprint}])
            if saved is None:
                times_s = self.clips[0]["times_s"]
                self.pipeline.register_to_config(fps=round(1 / float(times_s[1] - times_s[0]), 3))
                self.folder.write_model(self.pipeline)

        on_rank_0(self.accelerator, write)

    def _write_facts(self, goes_on: bool) -> None:
        """run.json: what a reader of the log wants to know of the run; and the cost of a clip, for the log."""

        def work() -> int:
            # Seconds of counting; a run that goes on has the same shapes.
            counts = self.folder.read_json("run.json").get("flop_per_clip") if goes_on else None
            counts = counts or clip_flops(self.pipeline, self.config)
            facts = {
                "versions": _versions(),
                "device": name,
                "ranks": self.accelerator.num_processes,
                "precision": precision,
                "peak_tflops": self.peak,
                "flop_per_clip": counts,
                "parameters": sum(value.numel() for value in self.pipeline.unet.parameters()),
                "trained_parameters": sum(value.numel() for value in self.trained.values()),
                "clips_per_epoch": len(self.clips),
            }
            self.folder.write_json("run.json", facts)
            return sum(counts.values())

        precision = "bf16" if runs_in_bf16(self.config, self.device) else "fp32"
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else self.device.type
        self.peak = self.config.compute.peak_tflops or peak_tflops(name, precision)
        self.flops = on_rank_0(self.accelerator, work, tell=int)

    def _restore(self, saved: Checkpoint) -> None:
        """Weights, moments, average, random state. The random state only counts on as many ranks as before; every draw
        of a step is keyed by its clips anyway."""
        missing = self.trained.keys() ^ saved.weights.keys()
        if missing:
            raise InputError(
                f"{self.folder.checkpoints}: found other weights than {min(missing)}, expected those of the config"
            )
        self.step = saved.step
        with torch.no_grad():
            for name, value in self.trained.items():
                value.copy_(saved.weights[name])
        set_named_state(self.optimizer, self.trained, saved.optimizer)
        if self.ema is not None:
            self.ema.load(saved.ema, saved.state["ema_updates"])
        if len(saved.random) == self.accelerator.num_processes:
            set_random_state(saved.random[self.accelerator.process_index])

    def _start_counting(self) -> None:
        self.entries: list[Entry] = []
        self.last: dict[str, Any] = {}
        self.monitor = None
        if self.main:
            save = self.config.save
            self.monitor = Monitor(self.folder.out, step=self.step, config=to_dict(self.config), wandb=save.wandb)
        self.counts = Counts(self.device)

    # -- a step --------------------------------------------------------------------------------------------------------

    def run(self, progress: Progress | None) -> Summary:
        """All steps that are left, with what is due after each."""
        save, stream = self.config.save, self._stream()
        # A run may have been killed between a checkpoint and what was due after it.
        if self.step and self._decide(lambda: self.folder.model_step() != self.step):
            self._publish()
        if self._validates() and self._decide(lambda: not (self._validation_folder() / "facts.json").exists()):
            self._validate()
        while self.step < save.steps:
            self._update(stream)
            last = self.step == save.steps
            saves = last or self.step % save.checkpoint_every == 0
            # A line ends where a checkpoint does, or a run that goes on would average over another stretch.
            if saves or self.step % save.log_every == 0:
                self._log()
            if saves:
                self._save()
            if self._validates():
                self._validate()
            if progress is not None and self.main:
                progress(self.step, save.steps, self.last)
        if self.monitor:
            self.monitor.close()
        loss = self.last.get("loss", math.nan)
        return Summary(out=self.folder.out, step=self.step, clips=self.data.position, was_finished=False, loss=loss)

    def _stream(self) -> Iterator[dict[str, Any]]:
        config, steps = self.config.optimizer, max(0, self.config.save.steps - self.step)
        batches = Batches(
            start=self.data.position,
            batch_size=config.batch_size,
            micro_batch=config.micro_batch,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            stop=self.data.position + steps * config.batch_size,
        )
        return iter(loader(self.clips, batches, self.config.compute.loader_workers))

    def _update(self, stream: Iterator[dict[str, Any]]) -> None:
        """One update by the global batch; weights are untouched until its gradient is known to be finite."""
        count = self.config.micro_batches(self.accelerator.num_processes)
        skipped: list[str] = []
        for number in range(count):
            batch = self._next(stream)
            skipped += batch["skipped"]
            # Gradients meet once a step, with the last micro-batch.
            together = contextlib.nullcontext() if number == count - 1 else self.accelerator.no_sync(self.network)
            with together:
                self._accumulate(batch, count)
        norm = nn.utils.clip_grad_norm_(self.trained.values(), self.config.optimizer.max_grad_norm).item()
        check_finite(norm, self.step + 1, self.folder.checkpoints)
        how = self.config.optimizer
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(how, self.step)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.step()
        self.step += 1
        self.data.advance(how.batch_size, self._everyones(skipped) if self.config.data.on_damage == "skip" else ())
        self.counts.update(norm)

    def _next(self, stream: Iterator[dict[str, Any]]) -> dict[str, Any]:
        before = time.perf_counter()
        batch = next(stream)
        self.counts.waited(time.perf_counter() - before)
        skipped = list(batch["skipped"])
        for position, clip_id in zip(batch["position"].tolist(), batch["clip_id"], strict=True):
            self.entries.append((self.step + 1, position, clip_id, skipped))
            skipped = []
        return batch

    def _accumulate(self, batch: dict[str, Any], count: int) -> None:
        given = inputs_of(self.pipeline, batch, self.device)
        truth, loss = loss_of(self.network, self.pipeline.scheduler, given, self.config)
        (loss.mean / count).backward()
        self.counts.micro_batch(loss, quarters(truth, loss, self.pipeline.scheduler))

    # -- after a step --------------------------------------------------------------------------------------------------

    def _log(self) -> None:
        batch = self.config.optimizer.batch_size
        facts = self.counts.facts(self.accelerator, batch_size=batch, flops=self.flops, peak=self.peak)
        seen = {"clips": self.data.position, "epoch": self.data.position / len(self.clips)}
        rate = {"lr": self.optimizer.param_groups[0]["lr"], "skipped": len(self.data.skipped)}
        self.last, entries = seen | facts | rate, self._everyones(self.entries)
        if self.monitor:
            self.monitor.log(self.step, self.last)
            write_ledger(self.folder.ledger, entries)
        self.entries = []
        self.counts.reset()

    def _save(self) -> None:
        states = self._everyones([random_state()])

        def write() -> None:
            state = {
                "data": self.data.to_dict(),
                "ema_updates": self.ema.updates if self.ema else 0,
                "config": to_dict(self.config),
                "versions": _versions(),
            }
            content = Checkpoint(
                step=self.step,
                weights=self.trained,
                ema=self.ema.weights if self.ema else {},
                optimizer=named_state(self.optimizer, self.trained),
                random=tuple(states),
                state=state,
            )
            checkpoint.save(self.folder.checkpoints, content, keep=self.config.save.keep_checkpoints)

        before = time.perf_counter()
        on_rank_0(self.accelerator, write)
        self._publish()
        self.counts.aside(time.perf_counter() - before)

    def _publish(self) -> None:
        """The weights to sample from, in ``model/``."""
        weights: dict[str, Tensor] = self.pipeline.unet.state_dict() | (self.ema.weights if self.ema else {})
        on_rank_0(self.accelerator, lambda: self.folder.write_weights(weights, self.step))

    def _validates(self) -> bool:
        every, last = self.config.save.validate_every, self.step == self.config.save.steps
        return bool(every) and self.step > 0 and (last or self.step % every == 0)

    def _validation_folder(self) -> Path:
        return self.folder.validation / f"step-{self.step:08d}"

    def _validate(self) -> None:
        def look() -> None:
            averaged = self.ema.applied() if self.ema else contextlib.nullcontext()
            self.pipeline.unet.eval()
            with averaged:
                facts = self.validation.run(self.pipeline, self._validation_folder(), self.device)
            self.pipeline.unet.train()
            self.monitor.log(self.step, facts)

        before = time.perf_counter()
        on_rank_0(self.accelerator, look)
        self.counts.aside(time.perf_counter() - before)

    # -- between ranks -------------------------------------------------------------------------------------------------

    def _decide(self, question: Callable[[], bool]) -> bool:
        # Asked of storage, so only once: a rank that looks later might see what another has written meanwhile.
        return on_rank_0(self.accelerator, question, tell=bool)

    def _everyones(self, items: list[Any]) -> list[Any]:
        return everyones(self.accelerator, items)


def _name(saved: Checkpoint | None) -> str | None:
    return None if saved is None else f"step-{saved.step:08d}"


def _versions() -> dict[str, str]:
    return {package: version(package) for package in ("mvvideo", "torch", "diffusers", "transformers", "accelerate")}
