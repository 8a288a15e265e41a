"""DynamiCrafter (arXiv 2310.12190) in our own graph, with the released checkpoints' names."""

from animate.priors.dynamicrafter.prior import DynamiCrafter

__all__ = ["DynamiCrafter"]
