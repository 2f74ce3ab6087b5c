"""Texts for texts: what a generator writes for the tokens of some, batch by batch."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import jax
import numpy as np

from spade_jax.data.vocabulary import Vocabulary

T = TypeVar("T")


def written(
    write: Callable[..., np.ndarray],
    inputs: Iterable[list[int] | None],
    vocabulary: Vocabulary,
    *,
    batch_size: int,
    key: jax.Array | None,
    done: int = 0,
) -> Iterator[list[str]]:
    """The outputs of each batch of inputs.

    Args:
      write: (inputs, key) -> tokens, [len(inputs), t]; it is given no None, and at least one input.
      inputs: tokens; None stands for an empty text, whose output is one.
      key: of sampling; each batch draws from one of its own.
      done: how many batches are left out, for they are written already.
    """
    for number, batch in enumerate(_batches(inputs, batch_size)):
        if number < done:
            continue
        tokens = [sequence for sequence in batch if sequence is not None]
        own = None if key is None else jax.random.fold_in(key, number)
        outputs = iter(write(tokens, own) if tokens else ())
        yield ["" if one is None else vocabulary.text(next(outputs)) for one in batch]


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(itertools.islice(iterator, size)):
        yield batch
