"""Ray Train around the trainer, on two workers of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from manifests.errors import InputError
from tests.tiny_dataset import make_tiny_dataset
from tests.train.tiny_training import make_base, make_config, run
from train.run.ledger import check_ledger
from train.run.monitor import read_lines
from train.run.ray_train import train_on_ray


@pytest.fixture
def _cluster(monkeypatch):
    """Ends what `train_on_ray` starts; workers find the modules of this checkout."""
    import ray

    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    yield
    ray.shutdown()


@pytest.mark.slow
@pytest.mark.usefixtures("_cluster")
def test_two_ray_workers_take_the_same_steps_as_one_process(tmp_path):
    """Oracle: one process, step by step and clip by clip; an error of a worker comes out as it is."""
    data = make_tiny_dataset(tmp_path / "data", clips=7, views=4, frames=4, size=16)
    config = make_config(make_base(tmp_path / "base"), save={"steps": 2})
    out, alone = tmp_path / "run", tmp_path / "alone"
    summary = train_on_ray(config, data=data, out=out, workers=2)
    run(config, data, alone)
    assert (summary.step, summary.clips, summary.was_finished) == (2, 8, False)
    losses = [[line["loss"] for line in read_lines(folder / "log.jsonl")] for folder in (out, alone)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)
    assert (out / "ledger.jsonl").read_text() == (alone / "ledger.jsonl").read_text()
    assert check_ledger(out) == []
    with pytest.raises(InputError, match="--resume"):
        train_on_ray(config, data=data, out=out, workers=2)
    other = make_config(tmp_path / "base", data={"order_seed": 9})
    with pytest.raises(InputError, match=r"data\.order_seed 9 \(was 0\)"):
        train_on_ray(other, data=data, out=out, workers=2, resume=True)
    assert train_on_ray(config, data=data, out=out, workers=2, resume=True).was_finished
