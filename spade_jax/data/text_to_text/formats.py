"""How a row of a data set is written as text, in T5's form (Raffel et al. 2020, appendix D).

A row maps the columns of a data set to strings, numbers or lists of strings. Nothing here imports
TensorFlow: rows come from TFDS and from local files alike.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]


class RowError(ValueError):
    """A row that makes no pair: says why; whoever reads rows adds where."""


def text(value: Any) -> str:
    """A cell as text; whole numbers without a decimal point.

    Raises:
      RowError: a list, a mapping or bytes.
    """
    if isinstance(value, list | dict | bytes):
        raise RowError(f"{value!r:.60} is not a text")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def labelled_fields(prefix: str, columns: Sequence[str]) -> Callable[[Row], str]:
    """`cola sentence: …`, `rte sentence1: … sentence2: …`: T5's inputs of several columns."""

    def write(row: Row) -> str:
        fields = (f"{column}: {text(row[column]).strip()}" for column in columns)
        return " ".join((prefix, *fields) if prefix else fields)

    return write


def prefixed(prefix: str, column: str) -> Callable[[Row], str]:
    """The prefix and the text of one column."""
    return lambda row: prefix + text(row[column])


def number(where: str) -> Callable[[Any], str]:
    """A finite number, as it stands."""

    def write(value: Any) -> str:
        word = text(value).strip()
        if not _is_number(word) or not math.isfinite(float(word)):
            raise RowError(f"{where} {word!r:.60} is not a finite number, as correlations need")
        return word

    return write


def label_word(labels: tuple[str, ...], where: str) -> Callable[[Any], str]:
    """A label word itself or, unless labels are numbers, a class number, as a label word."""
    words = {label: label for label in labels}
    numbers = any(map(_is_number, labels))
    if not numbers:
        words |= {str(number): label for number, label in enumerate(labels)}

    def write(value: Any) -> str:
        word = text(value).strip()
        if numbers and word not in words and _is_number(word) and float(word).is_integer():
            word = str(int(float(word)))  # '3.0', as a table of floats has it, is 3
        if word in words:
            return words[word]
        raise RowError(
            f"{where} {word!r} is no label; must be one of {', '.join(map(repr, labels))}"
        )

    return write


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
