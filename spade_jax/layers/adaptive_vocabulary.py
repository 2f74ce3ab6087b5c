"""Adaptive input (arXiv 1809.10853) and softmax (arXiv 1609.04309) over one set of weights.

Token k of band i has the embedding e W_i, with e row k of the band's table E_i [v_i, w_i], and W_i
[w_i, d]. From a state x [d] the first band's tokens have the logits E_0 x, those of another band
E_i (W_i x); see `ops.adaptive` for what becomes of them.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax import partition
from spade_jax.config.adaptive import AdaptiveConfig
from spade_jax.elements import dropout, normal, split_key
from spade_jax.ops.adaptive import Tail, adaptive_log_probabilities, adaptive_scores
from spade_jax.ops.products import product
from spade_jax.ops.token_scores import TokenScores
from spade_jax.places import place


class Band(nnx.Module):
    """E and W of a band.

    They are narrow, and there are few of the first: no axis of theirs but the width is cut on a
    mesh, so that a vocabulary may have any number of tokens.
    """

    def __init__(self, size: int, width: int, d_model: int, rngs: nnx.Rngs):
        self.embedding = normal(rngs, (size, width), width**-0.5, ("band", "embed"))
        std = (2 / (width + d_model)) ** 0.5
        self.projection = normal(rngs, (width, d_model), std, ("band", "embed"))


class AdaptiveVocabulary(nnx.Module):
    """The embedding and the softmax of a model whose vocabulary is in bands."""

    def __init__(self, config: AdaptiveConfig, vocab_size: int, d_model: int, rngs: nnx.Rngs):
        self.dropout_rate = config.dropout_rate
        self.sizes = config.sizes(vocab_size)
        for i, (size, width) in enumerate(zip(self.sizes, config.widths(d_model))):
            setattr(self, f"band_{i}", Band(size, width, d_model, rngs))
        tails = len(config.cutoffs)
        std = (2 / (tails + d_model)) ** 0.5
        self.tails = normal(rngs, (tails, d_model), std, ("band", "embed"))

    @place("embedding")
    def embed(self, tokens: jax.Array, dtype: Any) -> jax.Array:
        """int [b, l] -> [b, l, d] of this dtype."""
        start, rows, projections = 0, [], []
        for size, band in zip(self.sizes, self._bands()):
            inside = (tokens >= start) & (tokens < start + size)
            table = partition.gathered(band.embedding[...], *band.embedding.axes)
            row = jnp.take(table, tokens - start, axis=0, mode="clip")
            rows.append(jnp.where(inside[..., None], row, 0).astype(dtype))
            projections.append(_gathered(band.projection, dtype))
            start += size
        # One matmul of all bands, of which a token's row has one that is not 0.
        return product(
            "blw,wd->bld", jnp.concatenate(rows, axis=-1), jnp.concatenate(projections)
        ).astype(dtype)

    @place("logits and loss")
    def scores(
        self, states: jax.Array, targets: jax.Array, dropout_key: jax.Array | None = None
    ) -> TokenScores:
        """[b, t, d], int [b, t] -> what the cross entropy of these targets needs."""
        return adaptive_scores(*self._parts(states, dropout_key), targets)

    @place("logits and loss")
    def log_probabilities(self, states: jax.Array) -> jax.Array:
        """[b, t, d] -> float32 [b, t, v], of all tokens."""
        return adaptive_log_probabilities(*self._parts(states, None))

    def _bands(self) -> Iterator[Band]:
        for i in range(len(self.sizes)):
            yield getattr(self, f"band_{i}")

    def _parts(
        self, states: jax.Array, dropout_key: jax.Array | None
    ) -> tuple[jax.Array, jax.Array, list[Tail]]:
        """What the operations take: the states, the head's matrix and the tails."""
        dtype, (first, *others) = states.dtype, self._bands()
        key, *keys = split_key(dropout_key, len(self.sizes))
        states = dropout(states, self.dropout_rate, key)
        head = jnp.concatenate([_gathered(first.embedding, dtype), _gathered(self.tails, dtype)])
        tails = []
        for band, key in zip(others, keys):
            narrow = product("btd,wd->btw", states, _gathered(band.projection, dtype))
            narrow = dropout(narrow.astype(dtype), self.dropout_rate, key)
            tails.append(Tail(narrow, _gathered(band.embedding, dtype)))
        return states, head, tails


def _gathered(parameter: nnx.Param, dtype: Any) -> jax.Array:
    return partition.gathered(parameter.astype(dtype), *parameter.axes)
