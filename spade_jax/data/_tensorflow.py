"""The one door through which TensorFlow comes in, blind to accelerators."""

import atexit
import contextlib
import re
import weakref
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from spade_jax.data.config import DataError

__all__ = ["NumpyIterator", "first_line", "tf"]

# JAX owns the accelerators; TensorFlow would reserve their memory.
tf.config.set_visible_devices([], "GPU")


class NumpyIterator:
    """Iterates over a dataset of dictionaries, as numpy, and lets go of it before Python ends.

    Threads of tf.data may be in the middle of reading a document in Python. When the interpreter
    ends it kills them, and whoever destroys the tf.data iterator after that waits for ever.

    Attributes:
      position: the tf.data iterator, which `tf.train.Checkpoint` saves and restores.
    """

    def __init__(self, dataset: tf.data.Dataset, where: str):
        """Args: `where` is what messages about its reading begin with."""
        self._where = where
        with _in_a_sentence(where):
            self.position = iter(dataset)
        _unfinished.add(self)

    def __iter__(self) -> "NumpyIterator":
        return self

    def __next__(self) -> dict[str, Any]:
        """Raises DataError where the data cannot be read."""
        with _in_a_sentence(self._where):
            return {name: value.numpy() for name, value in next(self.position).items()}


_unfinished: weakref.WeakSet[NumpyIterator] = weakref.WeakSet()


@atexit.register
def _let_go() -> None:
    for iterator in list(_unfinished):
        del iterator.position


@contextlib.contextmanager
def _in_a_sentence(where: str) -> Iterator[None]:
    """What went wrong while reading, as DataError."""
    try:
        yield
    except tf.errors.OpError as error:
        # tf.data turns an error that Python raised within it into text, with a stack trace; the
        # names of all kinds of DataError end so.
        raised = re.search(rf"{DataError.__name__}: (.+)", error.message)
        message = raised.group(1) if raised else f"{where}: {first_line(error)}"
        raise DataError(message) from None


def first_line(error: tf.errors.OpError) -> str:
    """TensorFlow's own words, without what it says about itself."""
    return error.message.split("\n")[0].split("}} ")[-1].split(" [Op:")[0]
