"""Counts of arithmetic against products counted by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from train.run.flops import count, peak_tflops


class Attention(nn.Module):
    """One head over L tokens of width C."""

    gradient_checkpointing = False

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24, bias=False)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if self.gradient_checkpointing:
            return checkpoint(self.attend, tokens, use_reentrant=False)
        return self.attend(tokens)

    def attend(self, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(tokens)[:, None].chunk(3, -1)
        return nn.functional.scaled_dot_product_attention(q, k, v)[:, 0]


def test_count_is_two_a_product_forward_and_six_with_backward():
    """Oracle: 2 m n k a matrix product; the backward pass has two for each, less what no gradient needs."""
    layer, tokens = nn.Linear(8, 24, bias=False), torch.zeros(5, 8)
    assert count(layer, tokens, backward=False) == 2 * 5 * 8 * 24
    assert count(layer, tokens, backward=True) == 2 * (2 * 5 * 8 * 24)
    assert count(layer, tokens.requires_grad_(), backward=True) == 3 * (2 * 5 * 8 * 24)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_count_includes_attention_but_no_recomputation(checkpointing):
    """Oracle: by hand; q k^T and the product with v are 2 L L C each. Kernels that are fused count as well."""
    module, length = Attention(), 16
    module.gradient_checkpointing = checkpointing
    project, attend = 2 * length * 8 * 24, 2 * 2 * length * length * 8
    assert count(module, torch.zeros(1, length, 8), backward=False) == project + attend
    assert count(module, torch.zeros(1, length, 8), backward=True) == 2 * project + 3 * attend
    assert module.gradient_checkpointing is checkpointing


def test_count_leaves_frozen_weights_out_and_the_module_as_it_was():
    """Oracle: a frozen layer in front needs no backward product."""
    module = nn.Sequential(nn.Linear(8, 8, bias=False).requires_grad_(False), nn.Linear(8, 8, bias=False))
    one = 2 * 4 * 8 * 8
    assert count(module, torch.zeros(4, 8), backward=True) == 3 * one
    assert all(value.device.type == "cpu" and value.grad is None for value in module.parameters())


def test_count_takes_another_call_than_forward():
    """Oracle: the same layer twice."""
    layer = nn.Linear(8, 8, bias=False)
    assert count(layer, torch.zeros(4, 8), backward=False, call=lambda m, x: m(m(x))) == 2 * 2 * 4 * 8 * 8


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989.0),
        ("NVIDIA H100 PCIe", "bf16", 756.0),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312.0),
        ("NVIDIA L40S", "bf16", 362.0),
        ("NVIDIA L4", "bf16", 121.0),
        ("NVIDIA H100 80GB HBM3", "fp32", None),
        ("NVIDIA GeForce 9999", "bf16", None),
        ("cpu", "bf16", None),
    ],
)
def test_peak_is_known_or_none(name, precision, peak):
    """Oracle: the vendors' data sheets; a guess would make a false MFU."""
    assert peak_tflops(name, precision) == peak
