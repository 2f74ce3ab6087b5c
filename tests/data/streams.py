"""Streams of batches: what they hold, and whether two are equal."""

import hashlib
import itertools

import numpy as np

from spade_jax.data.config import DataConfig
from spade_jax.data.vocabulary import load_vocabulary


def take(batches, count: int) -> list[dict[str, np.ndarray]]:
    return list(itertools.islice(batches, count))


def fingerprint(batches) -> str:
    """A digest of every bit of some batches."""
    digest = hashlib.sha256()
    for batch in batches:
        for name in sorted(batch):
            digest.update(name.encode() + batch[name].tobytes())
    return digest.hexdigest()[:16]


def assert_equal(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert one.keys() == other.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name], err_msg=name)


def original(config: DataConfig, batch: dict[str, np.ndarray]) -> list[bytes]:
    """The bytes of each row's segment before it was corrupted."""
    vocabulary = load_vocabulary(config)
    segments = []
    for inputs, targets in zip(batch["encoder_input_tokens"], batch["decoder_target_tokens"]):
        spans: dict[int, list[int]] = {}
        for token in targets[: np.argmax(targets == 1)]:
            if vocabulary.sentinel_index(token) is None:
                spans[next(reversed(spans))].append(token)
            else:
                spans[token] = []
        tokens = []
        for token in inputs[: np.argmax(inputs == 1)]:
            tokens += spans.get(token, [token])
        segments.append(bytes(int(token) - 3 for token in tokens))
    return segments
