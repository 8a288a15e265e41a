"""Small tables for the terminal that more than one command prints."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from manifests.errors import CAUSES, REASONS

__all__ = ["print_reasons"]


def print_reasons(counts: Mapping[tuple[str, str], int], console: Console | None = None) -> None:
    """How many rows have which status and reason, and what the reason means."""
    refused = {key: count for key, count in counts.items() if key[0] != "accepted"}
    if not refused:
        return
    table = Table("status", "reason", "rows", "meaning", box=None, pad_edge=False)
    meanings = {**REASONS, **CAUSES, "asset": "an asset could not be probed; its row says why"}
    for (status, reason), count in sorted(refused.items(), key=lambda entry: (entry[0][0], -entry[1])):
        table.add_row(status, reason, str(count), meanings.get(reason, ""))
    (console or Console()).print(table)
