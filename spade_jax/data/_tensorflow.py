"""The one door through which TensorFlow comes in, blind to accelerators."""

import atexit
import weakref
from typing import Any

import tensorflow as tf

__all__ = ["NumpyIterator", "tf"]

# JAX owns the accelerators; TensorFlow would reserve their memory.
tf.config.set_visible_devices([], "GPU")


class NumpyIterator:
    """Iterates over a dataset of dictionaries, as numpy, and lets go of it before Python ends.

    Threads of tf.data may be in the middle of reading a document in Python. When the interpreter
    ends it kills them, and whoever destroys the tf.data iterator after that waits for ever.

    Attributes:
      position: the tf.data iterator, which `tf.train.Checkpoint` saves and restores.
    """

    def __init__(self, dataset: tf.data.Dataset):
        self.position = iter(dataset)
        _unfinished.add(self)

    def __iter__(self) -> "NumpyIterator":
        return self

    def __next__(self) -> dict[str, Any]:
        return {name: value.numpy() for name, value in next(self.position).items()}


_unfinished: weakref.WeakSet[NumpyIterator] = weakref.WeakSet()


@atexit.register
def _let_go() -> None:
    for iterator in list(_unfinished):
        del iterator.position
