"""The blocks that pages are made of: sections, figures, tables, lists of facts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mvv.pages.markup import Html, element, join

__all__ = ["POLICY", "facts_list", "figure", "section", "swatches", "table"]

POLICY = (
    "default-src 'none'; img-src 'self' file:; style-src 'self' file: 'unsafe-inline'; script-src 'self' file:; "
    "base-uri 'none'; form-action 'none'"
)
"""Nothing from the network, and no script inside a page. ``'self'`` means nothing for pages on disk, hence ``file:``;
inline styles carry the number of frames of each clip."""


def section(title: str, *children: Any) -> Html:
    return element("section", element("h2", title), *children)


def figure(drawing: Html, caption: str) -> Html:
    return element("figure", drawing, element("figcaption", caption))


def facts_list(rows: Sequence[tuple[str, Any]]) -> Html:
    return element("dl", *(join([element("dt", name), element("dd", value)]) for name, value in rows), class_="facts")


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> Html:
    """A table; a head that begins with # has numbers below it."""
    kinds = ["n" if head.startswith("#") else None for head in heads]
    head = element(
        "tr", *(element("th", text.lstrip("#"), class_=kind) for text, kind in zip(heads, kinds, strict=True))
    )
    lines = [
        element("tr", *(element("td", cell, class_=kind) for cell, kind in zip(row, kinds, strict=True)))
        for row in rows
    ]
    return element("div", element("table", element("thead", head), element("tbody", *lines)), class_="scroll")


def swatches() -> Html:
    """Radio buttons of the backgrounds behind clips."""
    return join(
        element(
            "label",
            element(
                "input", type="radio", name="bg", value=name, aria_label=f"{name} background",
                checked="" if name == "grey" else None,
            ),
            data_bg=name,
            title=f"{name} background",
        )
        for name in ("grey", "white", "black", "checker")
    )  # fmt: skip
