"""The moving average against the same recursion in plain Python."""

from __future__ import annotations

import torch
from torch import nn

from train.run.ema import EMA


def parameters(dtype: torch.dtype = torch.float32) -> dict[str, nn.Parameter]:
    return {"a": nn.Parameter(torch.zeros(3, dtype=dtype)), "b": nn.Parameter(torch.ones(2, 2, dtype=dtype))}


def test_ema_follows_the_recursion_with_its_warm_up():
    """Oracle: w = d w + (1 - d) x, d = min(decay, (1 + n) / (10 + n)), one number at a time in float64."""
    values, expected = parameters(), 0.0
    ema = EMA(values, 0.5)
    for n in range(1, 30):
        with torch.no_grad():
            values["a"].fill_(n)
        ema.step()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
        torch.testing.assert_close(ema.weights["a"], torch.full((3,), expected))
    torch.testing.assert_close(ema.weights["b"], torch.ones(2, 2))
    assert ema.updates == 29


def test_ema_goes_on_bit_for_bit_from_what_was_saved():
    """Oracle: the average that was never saved."""
    values = parameters()
    one, two = EMA(values, 0.99), EMA(values, 0.99)
    for n in range(10):
        with torch.no_grad():
            values["a"].normal_(generator=torch.Generator().manual_seed(n))
        one.step()
        if n == 4:
            two.load({name: value.clone() for name, value in one.weights.items()}, one.updates)
        if n > 4:
            two.step()
    assert all(torch.equal(one.weights[name], two.weights[name]) for name in values)


def test_ema_is_float32_and_a_copy():
    """Oracle: the type, and a change that must not be seen; averages in bf16 would lose updates of less than 0.4 %."""
    values = parameters(torch.bfloat16)
    ema = EMA(values, 0.99)
    with torch.no_grad():
        values["a"].fill_(5)
    assert ema.weights["a"].dtype == torch.float32
    assert (ema.weights["a"] == 0).all()


def test_ema_applied_stands_in_and_gives_back_every_bit():
    """Oracle: the weights before, also when the block fails."""
    layer = nn.Linear(3, 2)
    ema = EMA(dict(layer.named_parameters()), 0.9)
    before = {name: value.detach().clone() for name, value in layer.named_parameters()}
    ema.weights["bias"].fill_(7)
    try:
        with ema.applied():
            assert (layer.bias == 7).all()
            raise KeyError("stop")
    except KeyError:
        pass
    assert all(torch.equal(before[name], value) for name, value in layer.named_parameters())
