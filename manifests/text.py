"""Text that comes from assets, made safe for the places it goes to: JSON, tables, Markdown.

Names in glTF files are arbitrary: lone surrogates, line breaks, pipes, HTML. Nothing here shortens or translates them.
"""

from __future__ import annotations

import re

__all__ = ["markdown", "well_formed"]

_MARKDOWN_SPECIAL = re.compile(r"([\\`*_\[\]#|~$])")
_BREAKS = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]+")


def well_formed(text: str) -> str:
    """The same text as Unicode that UTF-8 can carry: surrogate pairs joined, lone surrogates replaced by U+FFFD."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def markdown(text: str) -> str:
    """Escaped for one Markdown table cell or line: no HTML, no markup, no line break."""
    text = _BREAKS.sub(" ", well_formed(text))
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    # A bare address would turn into a link in most renderers.
    return _MARKDOWN_SPECIAL.sub(r"\\\1", text).replace("://", ":&#8203;//")
