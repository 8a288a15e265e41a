"""The tokenizer against open_clip's own, which reads the same file by other code."""

from __future__ import annotations

import random
import sys
import unicodedata

import ftfy
import pytest
from transformers import CLIPTokenizer

from manifests.errors import InputError
from train import tokenizer as module
from train.tokenizer import clip_tokenizer, vocabulary_file

TEXTS = [
    "",
    " ",
    "a fox running",
    "A  Photo, of: 3 dogs!!  they're I'LL don't",
    "tab\tnew\nline\u00a0nbsp \u3000ideographic",
    "Straße ümläut e\u0301 naïve ÀÉÎ",
    "日本語 テスト 한국어 हिन्दी ภาษาไทย العربية עברית",
    "🦊🦊 👩\u200d👩\u200d👧 ½ ① €100.50",
    "x" * 300,
    "1234567 v2.0 a_b-c #tag @name http://example.org/?q=1&r=2",
]


@pytest.fixture(scope="module")
def ours() -> CLIPTokenizer:
    return clip_tokenizer()


@pytest.fixture(scope="module")
def theirs():
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def _same(ours, theirs, text: str) -> bool:
    return ours(text, verbose=False).input_ids == [49406, *theirs.encode(text), 49407]


@pytest.mark.parametrize("text", TEXTS)
def test_ids_are_open_clips(ours, theirs, text):
    """Against open_clip, uncut."""
    assert _same(ours, theirs, text)


def test_ids_are_open_clips_for_random_texts(ours, theirs):
    """Against open_clip: 300 texts of random characters of all scripts, and one of 10,000 characters."""
    rng = random.Random(0)

    def character() -> str:
        while True:
            found = chr(rng.choice([rng.randrange(32, 127), rng.randrange(0xA1, 0x2FFF), rng.randrange(0x1F900)]))
            if unicodedata.category(found)[0] in "LNPSZM" and found not in "<&":
                return found

    texts = [" ".join("".join(character() for _ in range(5)) for _ in range(4)) for _ in range(300)]
    texts.append(" ".join("".join(rng.choices("abcdefghij", k=9)) for _ in range(1000)))
    # open_clip mends texts first, and knows that a capital sigma at the end of a word is another small letter.
    plain = [text for text in texts if ftfy.fix_text(text) == text and text.lower() == "".join(map(str.lower, text))]
    assert len(plain) > 150
    assert [text for text in plain if not _same(ours, theirs, text)] == []


def test_texts_are_cut_and_padded_as_sd_has_them(ours, theirs):
    """Formula: 77 ids, begin first, end last and as padding; the first 75 tokens of a long text are kept."""
    text = "walking fox " * 833 + "end!"
    assert len(text) == 10_000
    ids = ours([text, "a fox"], padding="max_length", truncation=True).input_ids
    assert ids[0] == [49406, *theirs.encode(text)[:75], 49407]
    assert ids[1] == [49406, 320, 3240, *[49407] * 74]
    assert len(ours) == 49408


def test_tokenizer_saves_and_loads(ours, tmp_path):
    """Round trip through transformers' files."""
    clip_tokenizer(max_length=20).save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path, local_files_only=True)
    assert loaded.model_max_length == 20
    for text in TEXTS:
        assert loaded(text, verbose=False).input_ids == ours(text, verbose=False).input_ids


def test_vocabulary_is_found_without_importing_open_clip():
    """A fresh search in sys.path finds the file; the import would take seconds."""
    before = "open_clip" in sys.modules
    assert vocabulary_file().name == "bpe_simple_vocab_16e6.txt.gz"
    assert ("open_clip" in sys.modules) == before


@pytest.mark.parametrize("length", [2, 78])
def test_lengths_that_clip_has_no_positions_for_are_refused(length):
    """The rule: begin, end and a token at least, 77 at most."""
    with pytest.raises(InputError, match=f"found {length}, expected 3 to 77"):
        clip_tokenizer(length)


@pytest.mark.parametrize("content", [b"no gzip", b""])
def test_damaged_vocabulary_is_refused(monkeypatch, tmp_path, content):
    """A file that does not unpack names itself."""
    path = tmp_path / "bpe_simple_vocab_16e6.txt.gz"
    path.write_bytes(content)
    monkeypatch.setattr(module, "vocabulary_file", lambda: path)
    with pytest.raises(InputError, match="bpe_simple_vocab_16e6"):
        clip_tokenizer()
