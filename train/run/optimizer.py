"""AdamW as a config has it, and its state under the names of the weights.

Names instead of torch's numbers let a checkpoint say what it holds, and let one be read where parameters are in another
order. No scheduler object: the learning rate is a function of the step.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from manifests.errors import InputError
from train.config import OptimizerConfig

__all__ = ["learning_rate", "make_optimizer", "named_state", "set_named_state"]

_KINDS = ("exp_avg", "exp_avg_sq", "step")


def make_optimizer(trained: Mapping[str, nn.Parameter], config: OptimizerConfig, *, fused: bool) -> torch.optim.AdamW:
    """AdamW over the trained weights, in the order of their names' mapping."""
    how = {"betas": config.betas, "weight_decay": config.weight_decay, "fused": fused or None}
    return torch.optim.AdamW(list(trained.values()), lr=config.learning_rate, **how)


def learning_rate(config: OptimizerConfig, step: int) -> float:
    """Of update ``step``, counted from 0: rises in equal parts over the warm-up, then stays."""
    return config.learning_rate * min(1.0, (step + 1) / max(1, config.warmup_steps))


def named_state(optimizer: torch.optim.AdamW, trained: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """``NAME.exp_avg``, ``NAME.exp_avg_sq`` and ``NAME.step`` of each weight; empty before the first update."""
    names, state = list(trained), optimizer.state_dict()["state"]
    return {f"{names[number]}.{kind}": state[number][kind] for number in state for kind in _KINDS}


def set_named_state(
    optimizer: torch.optim.AdamW, trained: Mapping[str, nn.Parameter], state: Mapping[str, Tensor]
) -> None:
    """Inverse of `named_state`.

    Raises:
        InputError: the state of other weights.
    """
    expected = {f"{name}.{kind}" for name in trained for kind in _KINDS}
    other = sorted(expected ^ state.keys())
    if other:
        raise InputError(
            f"optimizer.safetensors: found {len(other)} names that differ, such as {other[0]}, expected those of the"
            " trained weights; this checkpoint is of another run"
        )
    numbered = {number: {kind: state[f"{name}.{kind}"] for kind in _KINDS} for number, name in enumerate(trained)}
    optimizer.load_state_dict({"state": numbered, "param_groups": optimizer.state_dict()["param_groups"]})
