"""HTML that cannot be broken by what assets or methods are called: all text is escaped unless it is `Html` already.

No template language: ``$name`` in a template beside the code that fills it, by `fill`. Data for scripts goes through
`script_json`.
"""

from __future__ import annotations

import functools
import html
import json
from collections.abc import Iterable
from importlib import resources
from string import Template
from typing import Any

from manifests.text import well_formed

__all__ = ["Html", "element", "escape", "fill", "join", "script_json", "template"]


_VOID = {"br", "hr", "img", "input", "meta"}


class Html(str):
    """Text that is HTML already. Only this module and templates make it; plain text never becomes it by a cast."""

    __slots__ = ()


def escape(value: Any) -> Html:
    """Text for an element or a quoted attribute; `Html` stays as it is."""
    return value if isinstance(value, Html) else Html(html.escape(well_formed(str(value)), quote=True))


def join(parts: Iterable[Any], separator: str = "") -> Html:
    """The parts, escaped where they are not `Html`, one after the other."""
    return Html(escape(separator).join(escape(part) for part in parts))


def element(tag: str, /, *children: Any, **attributes: Any) -> Html:
    """One element; an attribute that is None is left out, ``class_`` gives ``class``, ``data_x`` gives ``data-x``.

    ``img``, ``input``, ``meta``, ``br`` and ``hr`` have no children and no end tag.
    """
    pairs = ((name.rstrip("_").replace("_", "-"), value) for name, value in attributes.items() if value is not None)
    inside = "".join(f' {name}="{escape(value)}"' for name, value in pairs)
    if tag in _VOID:
        assert not children, f"<{tag}> has no children"
        return Html(f"<{tag}{inside}>")
    return Html(f"<{tag}{inside}>{join(children)}</{tag}>")


@functools.cache
def template(package: str, name: str) -> Template:
    """A template of a package, e.g. ``page.html`` of ``mvv.report``."""
    return Template((resources.files(package) / name).read_text(encoding="utf-8"))


def fill(package: str, name: str, /, **values: Any) -> Html:
    """A template of a package with its ``$names`` filled; every value is escaped.

    Raises:
        KeyError: a name without a value.
    """
    return Html(template(package, name).substitute({key: escape(value) for key, value in values.items()}))


def script_json(value: Any) -> Html:
    """JSON for inside a script: ASCII, and without the characters that could end its element or open a comment."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return Html(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))
