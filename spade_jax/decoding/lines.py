"""The lines that decoding reads and writes: alike of files and of the standard input."""

import codecs
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from spade_jax.config import RunError
from spade_jax.data.config import DataError
from spade_jax.data.utf8 import decode_utf8

if TYPE_CHECKING:
    from spade_jax.data.vocabulary import Vocabulary

# Of lines that someone's editor has broken, the longest.
_WRAPPED = 120

_LINE_BREAKS = re.compile(r"\s*[\r\n]\s*")


class Line(NamedTuple):
    """A line without its end, and where it stands, as messages call it."""

    where: str
    text: str


def read_lines(lines: Iterable[bytes], name: str) -> Iterator[Line]:
    """Lines of UTF-8, which end at LF or CR LF; a byte order mark is none of the first.

    Args:
      name: what messages call the file.

    Raises:
      RunError: one that is not UTF-8.
    """
    for number, line in enumerate(lines, start=1):
        where = f"{name}, line {number}"
        try:
            text = decode_utf8(line, where, first=number == 1)
        except DataError as error:
            raise RunError(str(error)) from None
        yield Line(where, text.removesuffix("\n").removesuffix("\r"))


def line_tokens(line: Line, vocabulary: "Vocabulary") -> list[int] | None:
    """The tokens of a line, None of a blank one.

    Raises:
      DataError: a sentinel that the vocabulary lacks.
    """
    if not line.text.strip():
        return None
    try:
        return vocabulary.tokens(line.text)
    except DataError as error:
        raise DataError(f"{line.where}: {error}") from None


class Stream:
    """A text that comes token by token, to be what `Vocabulary.text` and `one_line` make of it."""

    def __init__(self, vocabulary: "Vocabulary"):
        self._vocabulary = vocabulary
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._begun = False
        # White space, which is none of the text unless more comes behind it.
        self._held = ""

    def add(self, tokens: Iterable[int], last: bool = False) -> str:
        """What of the text is certain with these tokens and was not before."""
        pieces = []
        for token in map(int, tokens):
            if token == self._vocabulary.eos_id:
                break
            sentinel = self._vocabulary.sentinel_index(token)
            named = None if sentinel is None else f"<extra_id_{sentinel}>".encode()
            pieces.append(named or self._vocabulary.piece(token))
        text = self._held + self._decoder.decode(b"".join(pieces), last)
        certain = text.rstrip()
        self._held = text[len(certain) :]
        if not self._begun:
            certain = certain.lstrip()
            self._begun = bool(certain)
        return one_line(certain)


def prompt_tokens(line: Line, vocabulary: "Vocabulary") -> list[int] | None:
    """What a language model reads of a line: the end of a text before, and this one as it stands;
    None of a blank one."""
    if not line.text.strip():
        return None
    return [vocabulary.eos_id, *vocabulary.encode(line.text)]


def one_line(text: str) -> str:
    """A text with spaces for its line breaks, so that lines correspond; all else stays."""
    return _LINE_BREAKS.sub(" ", text)


def are_parts_of_one_text(lines: Sequence[str]) -> bool:
    """Whether the lines of a file look like those of one text: blank ones part its paragraphs, or
    most of them are of about one length and go on in the next one. A guess, to warn by."""
    texts = [line.strip() for line in lines]
    inner = "\n".join(texts).strip("\n").split("\n")
    if inner.count("") > 1:
        return True
    longest = max(map(len, texts), default=0)
    pairs = [(one, other) for one, other in itertools.pairwise(texts) if one and other]
    goes_on = [
        other[0].islower() and one[-1] not in ".!?:;" and 2 * len(one) > longest
        for one, other in pairs
    ]
    return longest <= _WRAPPED and len(pairs) > 3 and 2 * sum(goes_on) > len(pairs)
