"""Text that is measured: windows over its tokens, of which each is predicted exactly once."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from spade_jax.data._tensorflow import NumpyIterator
from spade_jax.data.config import SourceConfig, Split
from spade_jax.data.sources import DocumentSource, check_sources, name_sources
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.objectives.causal_lm_batch import CausalLMBatch


class Document(NamedTuple):
    """A text that is measured.

    Attributes:
      tokens: its own, with the end.
      words: how many, between white space.
      bytes: of its UTF-8.
      unknown: how many of its tokens stand for what the vocabulary lacks.
    """

    tokens: list[int]
    words: int
    bytes: int
    unknown: int


def read(sources: Sequence[SourceConfig], split: Split, vocabulary: Vocabulary) -> list[Document]:
    """All documents of a split, in their order.

    Raises:
      DataError: there are none, or they cannot be read.
    """
    check_sources(sources, split)
    found = []
    for source in map(DocumentSource, sources):
        texts = source.get_dataset(split, shuffle=False)
        for example in NumpyIterator(texts, name_sources([source])):
            text = example["text"].decode("utf-8", "replace")
            tokens = vocabulary.encode(text)
            unknown = tokens.count(vocabulary.unk_id)
            sizes = len(text.split()), len(example["text"]), unknown
            found.append(Document([*tokens, vocabulary.eos_id], *sizes))
    return found


def windows(tokens: Sequence[int], length: int, min_context: int, start: int) -> CausalLMBatch:
    """Windows over one text, as rows.

    The first one begins with the text and counts all of its targets; each later one begins
    `length` - `min_context` tokens behind the one before, and counts those that are new. So a
    target is counted once, and has at least `min_context` others before it in its window, unless
    the text has fewer. With 0 the windows are blocks that do not overlap.

    Args:
      length: of a window; the last one is filled up.
      min_context: below `length`.
      start: the token before the first one.
    """
    targets = np.asarray(tokens, np.int32)
    inputs = np.concatenate([[start], targets[:-1]]).astype(np.int32)
    stride = length - min_context
    begins = range(0, max(1, len(targets) - min_context), stride)

    def rows(values: np.ndarray) -> np.ndarray:
        each = (values[begin : begin + length] for begin in begins)
        return np.stack([np.pad(window, (0, length - len(window))) for window in each])

    new = np.ones((len(begins), length), np.int32)
    new[1:, :min_context] = 0
    filled = rows(np.ones_like(targets))
    return CausalLMBatch(inputs=rows(inputs), targets=rows(targets), weights=new * filled)


def batches(texts: Iterable[CausalLMBatch], rows: int) -> Iterator[dict[str, np.ndarray]]:
    """Windows of several texts in batches of so many rows; zeros fill up the last one."""
    lines = (line for text in texts for line in zip(text.inputs, text.targets, text.weights))
    while batch := list(itertools.islice(lines, rows)):
        inputs, targets, weights = (
            np.pad(np.stack(part), ((0, rows - len(batch)), (0, 0))) for part in zip(*batch)
        )
        yield CausalLMBatch(inputs=inputs, targets=targets, weights=weights).named()
