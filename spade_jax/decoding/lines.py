"""The lines that decoding reads and writes: alike of files and of the standard input."""

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from spade_jax.config import RunError
from spade_jax.data.config import DataError
from spade_jax.data.utf8 import decode_utf8

if TYPE_CHECKING:
    from spade_jax.data.vocabulary import Vocabulary

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


def one_line(text: str) -> str:
    """A text with spaces for its line breaks, so that lines correspond; all else stays."""
    return _LINE_BREAKS.sub(" ", text)
