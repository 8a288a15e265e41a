"""A moving average of the trained weights, which is what samples are drawn from.

Only what is trained is averaged, in float32, in a few kernels. The warm-up keeps the first random weights from
lasting: update n has decay min(decay, (1 + n) / (10 + n)), as in the TensorFlow and diffusers implementations.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

__all__ = ["EMA"]


class EMA:
    """The average of named parameters.

    Args:
        parameters: name -> parameter that an optimiser changes in place.
        decay: 0 or more and less than 1, after the warm-up.

    Attributes:
        weights: name -> the average, float32, on the parameter's device.
        updates: how often it was updated.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], decay: float) -> None:
        assert 0 <= decay < 1, f"decay is {decay}, expected 0 or more and less than 1"
        self._parameters, self._decay, self.updates = dict(parameters), decay, 0
        self.weights = {name: value.detach().float().clone() for name, value in self._parameters.items()}

    def step(self) -> None:
        """Take in the parameters as they are now; call it once after each update of theirs."""
        self.updates += 1
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        now = [value.detach().float() for value in self._parameters.values()]
        torch._foreach_lerp_(list(self.weights.values()), now, 1 - decay)

    def load(self, weights: Mapping[str, Tensor], updates: int) -> None:
        """Go on from a saved average of the same names and shapes."""
        assert weights.keys() == self.weights.keys(), "the saved average has other names than the trained weights"
        for name, value in weights.items():
            self.weights[name].copy_(value)
        self.updates = updates

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """The average stands in the model's parameters within the block; afterwards they are bit for bit as before."""
        kept = {name: value.detach().clone() for name, value in self._parameters.items()}
        self._put(self.weights)
        try:
            yield
        finally:
            self._put(kept)

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, value in weights.items():
                self._parameters[name].copy_(value)
