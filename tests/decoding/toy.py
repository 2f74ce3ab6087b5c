"""A model of few tokens whose every prefix has logits of its own, so that all can be tried."""

import itertools

import jax.numpy as jnp
import numpy as np

from spade_jax.mixers.base import Cache

END = 1


class Toy:
    """Logits are looked up by the whole prefix, which the cache keeps, beside the row's number."""

    def __init__(self, vocab_size, length, batch, seed):
        random = np.random.default_rng(seed)
        self.v, self.length, self.batch = vocab_size, length, batch
        prefixes = sum(vocab_size**i for i in range(length))
        self.table = random.normal(size=(batch, prefixes, vocab_size)).astype(np.float32) * 1.5

    def cache(self, rows_each=1):
        rows = np.repeat(np.arange(self.batch), rows_each)
        rows = {"row": jnp.asarray(rows), "prefix": jnp.zeros(len(rows), jnp.int32)}
        return Cache(rows, shared=jnp.int32(0))

    def step(self, tokens, cache):
        """Prefixes are numbered level by level: the children of p are v p + 1, …, v p + v."""
        rows, count = cache
        prefix = jnp.where(count == 0, 0, rows["prefix"] * self.v + 1 + tokens)
        logits = jnp.asarray(self.table)[rows["row"], prefix]
        return logits, Cache({**rows, "prefix": prefix}, count + 1)

    def log_probability(self, row, tokens):
        prefix, total = 0, 0.0
        for token in tokens:
            logits = self.table[row, prefix].astype(np.float64)
            total += logits[token] - np.log(np.exp(logits).sum())
            prefix = prefix * self.v + 1 + token
        return total

    def all_ended(self):
        """Every sequence that ends within the length."""
        others = [token for token in range(self.v) if token != END]
        for n in range(self.length):
            for body in itertools.product(others, repeat=n):
                yield (*body, END)


def padded(tokens, length):
    return list(tokens) + [0] * (length - len(tokens))
