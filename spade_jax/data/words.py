"""The words that ROUGE compares, of any script; importing it loads no library."""

import functools
import re
import unicodedata
from typing import Any

# A sentence ends at white space behind a mark that ends one, and behind the marks of Chinese and
# Japanese, which no space follows.
_SENTENCE_END = re.compile(r"(?<=[.!?．։؟۔।॥።။។])\s+|(?<=[。｡！？])")


def words(text: str, *, stem: bool = True) -> list[str]:
    """The words of a text, in order.

    Letters, digits and the marks on them make words, all else parts them. Of scripts that put no
    spaces between words (Han, Hiragana, Katakana, Thai, Lao, Khmer, Myanmar, …) each letter with
    its marks is one. Case, Unicode's compatibility forms (NFKC) and invisible characters within
    words make no difference.

    Of ASCII text these are those of the package rouge-score: runs of a to z and 0 to 9.

    Args:
      stem: words of more than three letters, all of them ASCII, lose their English endings by
        Porter's rules.
    """
    text = unicodedata.normalize("NFKC", text).casefold()
    found = _pattern().findall(_invisible().sub("", unicodedata.normalize("NFKC", text)))
    if not stem:
        return found
    return [_stem(word) if len(word) > 3 and word.isascii() else word for word in found]


def has_words(text: str) -> bool:
    return bool(words(text, stem=False))


def sentences(text: str) -> str:
    """The text with a newline at the end of each sentence, as rougeLsum reads them."""
    return _SENTENCE_END.sub("\n", text)


@functools.cache
def _pattern() -> Any:
    import regex

    alone = r"[\p{Han}\p{Hiragana}\p{Katakana}ー\p{Line_Break=SA}\p{Javanese}\p{Balinese}]"
    joined = rf"[[\p{{L}}\p{{N}}]--{alone}]"
    return regex.compile(rf"(?V1){joined}[{joined}\p{{M}}]*|[[\p{{L}}\p{{N}}]&&{alone}]\p{{M}}*")


@functools.cache
def _invisible() -> Any:
    """Joiners, directions, soft hyphens, variants; the space of no width parts words."""
    import regex

    return regex.compile(r"(?V1)[\p{Default_Ignorable_Code_Point}--\u200b]")


@functools.cache
def _stemmer() -> Any:
    from nltk.stem.porter import PorterStemmer

    return PorterStemmer()


@functools.lru_cache(maxsize=1 << 16)
def _stem(word: str) -> str:
    return _stemmer().stem(word)  # Porter's rules, which need no data of nltk.
