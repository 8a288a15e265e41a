"""How far raters agree beyond chance, on categories without order.

Fleiss' kappa: J. Fleiss, Psychological Bulletin 76 (1971). Krippendorff's alpha: K. Krippendorff, Content Analysis
(2004), chapter 11, nominal data. Chance is what the pooled shares of the categories give; alpha also corrects for a
small number of judgements, so that the two meet as the number grows.
"""

from __future__ import annotations

import numpy as np

__all__ = ["fleiss_kappa", "krippendorff_alpha"]


def fleiss_kappa(counts: np.ndarray) -> float | None:
    """Fleiss' kappa; 1 for full agreement, 0 for chance.

    Args:
        counts: (item, category): how many raters put the item there. Items may have been judged by different numbers of
            raters (each item then counts alike, as its own share of agreeing pairs); those with fewer than two are not
            looked at.

    Returns:
        None where no item has two judgements, or where all judgements are of one category (chance is then certainty).
    """
    counts = _judged_twice(counts)
    if not len(counts):
        return None
    n = counts.sum(1)
    agreeing = (counts * (counts - 1)).sum(1) / (n * (n - 1))
    shares = counts.sum(0) / counts.sum()
    chance = float((shares**2).sum())
    return None if chance >= 1.0 else float((agreeing.mean() - chance) / (1.0 - chance))


def krippendorff_alpha(counts: np.ndarray) -> float | None:
    """Krippendorff's alpha for nominal data; 1 for full agreement, 0 for chance.

    Args:
        counts: (item, category) as in `fleiss_kappa`; here each judgement counts alike.

    Returns:
        None as for `fleiss_kappa`.
    """
    counts = _judged_twice(counts)
    if not len(counts):
        return None
    n = counts.sum(1)
    coincidences = np.einsum("ij,ik->jk", counts / (n - 1)[:, None], counts)
    coincidences -= np.diag((counts / (n - 1)[:, None]).sum(0))
    totals = coincidences.sum(1)
    pairs = totals.sum()
    observed = 1.0 - np.trace(coincidences) / pairs
    expected = 1.0 - float((totals * (totals - 1)).sum()) / (pairs * (pairs - 1))
    return None if expected <= 0.0 else float(1.0 - observed / expected)


def _judged_twice(counts: np.ndarray) -> np.ndarray:
    counts = np.asarray(counts, np.float64)
    return counts[counts.sum(1) >= 2]
