"""The trainer on a Ray cluster: the same function on every worker, started and restarted by Ray Train.

Ray brings processes and a torch process group; data, batches, checkpoints and resume stay ours, so a run may go on from
one kind of start to another. Needs ray; nothing else of the room imports this.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from manifests.errors import Failed, InputError, MvvError
from train.config import TrainConfig, from_dict, to_dict
from train.run.checkpoint import found, step_of
from train.run.monitor import read_lines
from train.run.trainer import Summary, train

__all__ = ["train_on_ray"]


def train_on_ray(
    config: TrainConfig,
    *,
    data: str | Path,
    out: Path,
    workers: int,
    use_gpu: bool | None = None,
    max_failures: int = 0,
    resume: bool = False,
    accept_changed_data: bool = False,
    address: str = "",
) -> Summary:
    """`train.run.trainer.train` on the workers of a cluster.

    Args:
        config: what decides the run; its batch divides by the workers.
        data: dataset that every worker can read, folder or URL.
        out: folder of the run that this process and every worker share.
        workers: processes of the run.
        use_gpu: one GPU each; None is where the cluster has that many.
        max_failures: how often Ray starts the workers again when some die; they go on from the last checkpoint.
        resume: go on with the run that is there.
        accept_changed_data: go on although the dataset is another one.
        address: of the cluster; empty is one of this machine alone, unless Ray is connected already.

    Raises:
        MvvError: as `train`, whichever worker raised it.
        Failed: workers died more often than allowed; the last checkpoint is usable.
    """
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer

    config.micro_batches(workers)
    out = Path(out).resolve()
    if (out / "config.json").exists() and not resume:
        raise InputError(f"{out}: found a run, expected none; go on with --resume or choose another --out")
    before = _last_step(out)
    told = {
        "config": to_dict(config),
        "data": str(data) if "://" in str(data) else str(Path(data).resolve()),
        "out": str(out),
        "accept_changed_data": accept_changed_data,
    }
    if not ray.is_initialized():
        ray.init(address=address or "local", include_dashboard=False, log_to_driver=False)
    if use_gpu is None:
        use_gpu = ray.cluster_resources().get("GPU", 0) >= workers
    trainer = TorchTrainer(
        _work,
        train_loop_config=told,
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=use_gpu),
        run_config=RunConfig(
            name="ray", storage_path=str(out), failure_config=FailureConfig(max_failures=max_failures)
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error, out) from error
    return _summary(out, was_finished=before >= config.save.steps)


def _work(told: dict[str, Any]) -> None:
    # Always to go on: workers that Ray starts again find the run that they themselves began.
    train(
        from_dict(told["config"]),
        data=told["data"],
        out=Path(told["out"]),
        resume=True,
        accept_changed_data=told["accept_changed_data"],
    )


def _cause(error: Exception, out: Path) -> MvvError:
    """The error that a worker raised, where it is one of ours."""
    failures = getattr(error, "worker_failures", {}).values()
    causes = [getattr(failure, "base_exc", getattr(failure, "_base_exc", failure)) for failure in failures]
    ours = [cause for cause in causes if isinstance(cause, MvvError)]
    first = str(causes[0] if causes else error).strip().splitlines()[0]
    told = f"found {first}, expected all workers to finish; go on with --resume, logs are in {out / 'ray'}"
    return ours[0] if ours else Failed("crash", "a worker of Ray Train", told)


def _last_step(out: Path) -> int:
    there = found(out / "checkpoints")
    return step_of(there[-1]) if there else -1


def _summary(out: Path, *, was_finished: bool) -> Summary:
    state = json.loads((found(out / "checkpoints")[-1] / "state.json").read_text("utf-8"))
    losses = [line["loss"] for line in read_lines(out / "log.jsonl") if "loss" in line]
    loss = losses[-1] if losses and not was_finished else math.nan
    clips = state["data"]["position"]
    return Summary(out=out, step=_last_step(out), clips=clips, was_finished=was_finished, loss=loss)
