"""Text for clips that have no caption: the words in the names of the asset and of its animation.

Nothing is invented; a name that is only a number or a hash gives no word. Real captions are in clips.parquet.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

__all__ = ["words_of_names"]

_HASH = re.compile(r"(?=.*\d)[0-9a-f]{8,}")
_INNER_CAPITAL = re.compile(r"(?<=[a-z])(?=[A-Z])")


def words_of_names(name: str, source: str, animation: str) -> str:
    """A short text such as ``fox run``.

    Args:
        name: title of the asset; where it has no word, the file name in ``source`` is taken.
        source: URL or relative path of the asset.
        animation: name of the animation, may be empty.

    Returns:
        lower-case words, each once, blanks between; without numbers and hashes. May be empty.
    """
    stem = PurePosixPath(unquote(urlsplit(source).path)).stem
    words = [*(_words(name) or _words(stem)), *_words(animation)]
    return " ".join(dict.fromkeys(words))


def _words(text: str) -> list[str]:
    parts = re.findall(r"[^\W_]+", _INNER_CAPITAL.sub(" ", text))
    return [word for word in map(str.lower, parts) if not word.isdigit() and not _HASH.fullmatch(word)]
