"""The values of a run as statistics take them: which rows count, averaged to one value an object.

`eval.ranking` and `eval.compare` both read runs through this, so that a mean is the same figure everywhere.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from eval.protocols import PROTOCOLS
from eval.runs import METHOD, Run
from eval.statistics import ObjectMeans, object_means

__all__ = ["Scores"]

Row = tuple[str, str, float | None]
"""object_id, view, value."""


class Scores:
    """The values of a run, by metric and variant.

    Rows of the method that are off the protocol do not count where it has others on it.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.objects: tuple[str, ...] = tuple(run.info["set"]["objects"])
        self._rows: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
        for row in run.videos:
            self._rows[row["metric"], row["variant"]].append(row)

    def level(self, metric: str) -> str:
        """``video``, ``object`` or ``set``."""
        return self.run.info["cards"][metric]["card"]["level"]

    def off_protocol(self, metric: str) -> bool:
        """The method has values, and none of them is on the protocol."""
        rows = self._rows[metric, METHOD]
        return bool(rows) and not any(row["on_protocol"] for row in rows)

    def rows(self, metric: str, variant: str = METHOD) -> list[Row]:
        """(object_id, view, value) of what counts."""
        rows = self._rows[metric, variant]
        if variant == METHOD and not self.off_protocol(metric):
            rows = [row for row in rows if row["on_protocol"]]
        return [(row["object_id"], row["view"], row["value"]) for row in rows]

    def means(self, metric: str, variant: str = METHOD) -> ObjectMeans:
        """Mean of each object of the set over its views; of a set-level metric the one value, as if of one object."""
        rows = self.rows(metric, variant)
        if self.level(metric) == "set":
            return object_means(rows)
        # A control may have views of its own; the method must have the protocol's, all of them.
        free = variant != METHOD or self.level(metric) == "object" or self.off_protocol(metric)
        return object_means(rows, objects=self.objects, views=None if free else self._views(rows))

    def _views(self, rows: Iterable[Row]) -> set[str]:
        rules = PROTOCOLS.get(self.run.info["protocol"]["name"])
        same = rules is not None and rules.hash == self.run.info["protocol"]["hash"]
        return set(rules.views) if same else {view for _, view, _ in rows}

    def reason(self, metric: str) -> str:
        """Why the method has no value; empty where nothing says it."""
        if metric in self.run.info["missing"]:
            return self.run.info["missing"][metric]
        return next((row["reason"] for row in self._rows[metric, METHOD] if row["reason"]), "")
