"""Words of any script: those of the package rouge-score in ASCII, by Unicode's rules elsewhere."""

import random
import re
import unicodedata

import pytest
from nltk.stem.porter import PorterStemmer
from rouge_score.tokenize import tokenize

from spade_jax.data.config import SourceConfig
from spade_jax.data.sources import iterate_documents
from spade_jax.data.words import has_words, sentences, words


@pytest.fixture(scope="module")
def ascii_texts():
    """Paragraphs of the shipped prose, and characters at random."""
    text = next(iterate_documents(SourceConfig(), "validation")).decode()
    paragraphs = [p for p in text.split("\n") if p.isascii()]
    assert len(" ".join(paragraphs)) > 10_000
    rng = random.Random(0)
    return [*paragraphs, *("".join(map(chr, rng.choices(range(128), k=200))) for _ in range(200))]


@pytest.mark.parametrize("stem", [False, True])
def test_words_of_ascii_are_those_of_rouge_score(ascii_texts, stem):
    stemmer = PorterStemmer() if stem else None
    for text in ascii_texts:
        assert words(text, stem=stem) == tokenize(text, stemmer)


def test_sentences_of_ascii_end_at_white_space_behind_three_marks(ascii_texts):
    for text in ascii_texts:
        assert sentences(text) == re.sub(r"(?<=[.!?])\s+", "\n", text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Река поднялась.", "река поднялась"),
        ("ΛΟΓΟΣ, λόγος", "λογοσ λόγοσ"),
        ("Straße STRASSE", "strasse strasse"),
        ("L’été à Nîmes", "l été à nîmes"),
        ("नमस्ते, क्षत्रिय।", "नमस्ते क्षत्रिय"),
        ("தமிழ் மொழி", "தமிழ் மொழி"),
        ("كِتَابٌ جديد؟", "كِتَابٌ جديد"),
        ("می\u200cخواهم", "میخواهم"),
        ("שָׁלוֹם עולם", "שָׁלוֹם עולם"),
        ("한국어 문장", "한국어 문장"),
        ("今天天气。", "今 天 天 气"),
        ("ガーデン、カ゚", "ガ ー デ ン カ゚"),
        ("漢字kana3つ", "漢 字 kana3 つ"),
        ("ดีกิน", "ดี กิ น"),
        ("ភាសា", "ភា សា"),
        ("ພາສາ", "ພ າ ສ າ"),
        ("မြန်မာ", "မြ န် မာ"),
        ("བོད་ཡིག", "བོད ཡིག"),
        ("ኢትዮጵያ፡ቋንቋ", "ኢትዮጵያ ቋንቋ"),
        ("co\u00adoperate", "cooperate"),
        ("葛\U000e0100城", "葛 城"),
        ("a\u200bb_c", "a b c"),
        ("２０２６年 x²", "2026 年 x2"),
        ("… 👍 — «»", ""),
    ],
)
def test_words_of_other_scripts(text, found):
    assert words(text, stem=False) == found.split()
    assert has_words(text) == bool(found)


@pytest.mark.parametrize("text", ["été", "한국어", "カ\u3099", "½ ﬁn ２", "क़िला", "ﷺ"])
def test_normal_forms_make_no_difference(text):
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    assert len({tuple(words(form)) for form in forms}) == 1


def test_only_english_letters_are_stemmed():
    assert words("Running naïvely бежали") == ["run", "naïvely", "бежали"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("今天很好。明天呢？很好！", "今天很好。\n明天呢？\n很好！\n"),
        ("वह आया। वह गया।", "वह आया।\nवह गया।"),
        ("أين؟ هنا.", "أين؟\nهنا."),
        ("بچه۔ گھر۔", "بچه۔\nگھر۔"),
        ("３．８ 3.8", "３．８ 3.8"),
        ("ไปไหน มาไหน", "ไปไหน มาไหน"),
    ],
)
def test_sentences_of_other_scripts(text, lines):
    assert sentences(text) == lines
