"""CIFAR-10 as its authors publish it: pickles of its Python version, or its binary version."""

import io
import pickle
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from spade_jax.data.classification.images import grey
from spade_jax.data.config import DataError
from spade_jax.data.text_files import read_file

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


def read_cifar10(path: str) -> Iterator[tuple[str, np.ndarray, int]]:
    """The images of a file, each with where it stands, in grey, and its class: uint8 [32, 32].

    Args:
      path: `data_batch_1`, of the Python version, or `data_batch_1.bin`.

    Raises:
      DataError: it cannot be read, or is no such file.
    """
    data = read_file(path)
    read = _binary if path.endswith(".bin") else _pickled
    images, labels = read(data, path)
    for number, (image, label) in enumerate(zip(images, labels)):
        where = f"{path}, image {number}"
        # Published by colour, then by row.
        yield where, grey(image.reshape(3, _SIDE, _SIDE).transpose(1, 2, 0), where), label


def _binary(data: bytes, path: str) -> tuple[np.ndarray, Sequence[int]]:
    """Records of a label and an image: uint8 [n, pixels], and the labels."""
    if not data or len(data) % (1 + _PIXELS):
        raise DataError(
            f"{path}: has {len(data)} bytes; must have {1 + _PIXELS} for each image of CIFAR-10's "
            "binary version"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0].tolist()


def _pickled(data: bytes, path: str) -> tuple[np.ndarray, Sequence[int]]:
    try:
        found = _Unpickler(io.BytesIO(data), encoding="bytes").load()
        images, labels = found[b"data"], found[b"labels"]
        fits = images.shape == (len(labels), _PIXELS) and images.dtype == np.uint8
        whole = all(isinstance(label, int) for label in labels)
    except Exception as error:  # Pickles at fault raise what they like.
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise DataError(
            f"{path}: is no file of CIFAR-10's Python version ({reason:.100}); must be one such as "
            "data_batch_1, or data_batch_1.bin of its binary version"
        ) from None
    if not (fits and whole and len(labels)):
        raise DataError(
            f"{path}: holds {images.dtype} {list(images.shape)} and {len(labels)} labels; must "
            f"hold uint8 [images, {_PIXELS}] and as many whole numbers"
        )
    return images, labels


class _Unpickler(pickle.Unpickler):
    """Reads arrays, numbers, texts, lists and dictionaries; runs nothing that a pickle names."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module.startswith("numpy."):
            return _empty_array
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):  # Of bytes in pickles that Python 3 made.
            return _latin1
        raise pickle.UnpicklingError(f"names {module}.{name}")


def _empty_array(*_: Any) -> np.ndarray:
    """What the state in a pickle then fills."""
    return np.ndarray((0,), np.uint8)


def _latin1(text: str, *_: Any) -> bytes:
    return text.encode("latin-1")
