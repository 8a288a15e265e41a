"""CLIP's tokenizer without a download: built from the vocabulary file that open_clip ships.

Gives transformers' own class, so that a pipeline saves and loads it like any other; what its ids mean is CLIP's.
Source of the construction: the byte-pair file lists merges, from which the vocabulary follows (openai/CLIP).
"""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

from transformers import CLIPTokenizer

from manifests.errors import InputError

__all__ = ["clip_tokenizer", "vocabulary_file"]

_VOCABULARY = "bpe_simple_vocab_16e6.txt.gz"
_SIZE = 49408
"""Tokens of CLIP: 256 bytes, the same at the end of a word, the merges, begin and end of text."""
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"


def vocabulary_file() -> Path:
    """The byte-pair file inside the installed open_clip, which is not imported.

    Raises:
        InputError: open_clip is not installed, or its file is gone.
    """
    spec = importlib.util.find_spec("open_clip")
    folders = list(spec.submodule_search_locations or ()) if spec is not None else []
    for path in (Path(folder, _VOCABULARY) for folder in folders):
        if path.is_file():
            return path
    raise InputError(
        f"open_clip: found no {_VOCABULARY}, expected the one of the installed package; pip install open_clip_torch"
    )


def clip_tokenizer(max_length: int = 77) -> CLIPTokenizer:
    """CLIP's byte-pair encoding as transformers has it, padded with the end token as SD-1.5 expects.

    The ids are open_clip's for every text that needs no mending; open_clip also replaces HTML entities, typographic
    quotes and wrongly decoded bytes, which the tokenizer of SD-1.5 and MVDream does not.

    Args:
        max_length: tokens of a text, begin and end included; longer ones are cut. 3 to 77.

    Raises:
        InputError: another length, or no vocabulary file.
    """
    if not 3 <= max_length <= 77:
        raise InputError(f"max_length: found {max_length}, expected 3 to 77; CLIP knows 77 positions")
    merges = _merges(vocabulary_file())
    letters = _byte_letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *("".join(merge) for merge in merges), _BEGIN, _END]
    vocab = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)


def _merges(path: Path) -> list[tuple[str, str]]:
    count = _SIZE - 2 * 256 - 2
    try:
        lines = gzip.decompress(path.read_bytes()).decode().split("\n")[1 : 1 + count]
        merges = [(left, right) for left, right in map(str.split, lines)]
    except (OSError, EOFError, ValueError, gzip.zlib.error) as error:
        raise InputError(f"{path.name}: found {error}, expected CLIP's merges; reinstall open_clip_torch") from error
    if len(merges) != count:
        raise InputError(f"{path.name}: found {len(merges)} merges, expected {count}; reinstall open_clip_torch")
    return merges


def _byte_letters() -> list[str]:
    """A printable letter for each byte, in CLIP's order: printable bytes stand for themselves and come first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + number) for number in range(256 - len(printable))]
