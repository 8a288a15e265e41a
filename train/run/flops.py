"""How much arithmetic a clip costs, and how much a device could do.

Counted by torch's FlopCounterMode on tensors without memory, so that a full-size network takes seconds and no
gigabytes; recomputation by gradient checkpointing is left out, as is usual for MFU.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["PEAK_TFLOPS", "count", "peak_tflops"]

PEAK_TFLOPS: dict[str, float] = {
    "H100 PCIe": 756.0,
    "H100 NVL": 835.0,
    "H100": 989.0,
    "H200": 989.0,
    "A100": 312.0,
    "A10": 125.0,
    "L40S": 362.0,
    "L4": 121.0,
    "MI300X": 1307.0,
}
"""Part of a device's name -> dense bf16 peak, TFLOP/s, by its vendor's data sheet; the first match counts."""


def count(module: nn.Module, *args: Any, backward: bool, call: Callable[..., Any] | None = None, **kwargs: Any) -> int:
    """Floating-point operations of one call, a multiplication and an addition being two.

    Args:
        module: stays as it is; only its shapes and ``requires_grad`` are used.
        args: of its forward pass; tensors count by their shapes.
        backward: also the backward pass, to every parameter that requires a gradient.
        call: ``call(module, *args)`` instead of the module's forward pass.
        kwargs: more of them.

    Returns:
        of the whole batch in ``args``. Attention counts as its two products, whatever kernel runs.
    """
    holder = _Call(module, call)
    state = {name: _bare(value) for name, value in [*holder.named_parameters(), *holder.named_buffers()]}
    args, kwargs = tuple(_bare(value) for value in args), {name: _bare(value) for name, value in kwargs.items()}
    switched = [part for part in module.modules() if getattr(part, "gradient_checkpointing", False)]
    for part in switched:
        part.gradient_checkpointing = False
    try:
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(backward):
            result = functional_call(holder, state, args, kwargs)
            if backward:
                _tensor(result).sum().backward()
    finally:
        for part in switched:
            part.gradient_checkpointing = True
    return counter.get_total_flops()


def peak_tflops(device_name: str, precision: str) -> float | None:
    """What a device can do at most, TFLOP/s.

    Args:
        device_name: as torch names it, e.g. ``NVIDIA H100 80GB HBM3``.
        precision: ``bf16``; no other one is in the table.

    Returns:
        None where it is not known, and no MFU can be given.
    """
    if precision != "bf16":
        return None
    words = device_name.replace("-", " ")
    return next((peak for name, peak in PEAK_TFLOPS.items() if set(name.split()) <= set(words.split())), None)


class _Call(nn.Module):
    """`functional_call` only calls forward; this gives it any call."""

    def __init__(self, module: nn.Module, call: Callable[..., Any] | None) -> None:
        super().__init__()
        self.module, self.call = module, call

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.call(self.module, *args, **kwargs) if self.call else self.module(*args, **kwargs)


def _bare(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    kind = torch.float32 if value.is_floating_point() else value.dtype
    return torch.empty(value.shape, dtype=kind, device="meta", requires_grad=value.requires_grad)


def _tensor(result: Any) -> Tensor:
    return result if isinstance(result, Tensor) else result[0]
