"""Attention layers: local and full self-attention, cross-attention, T5's relative bias."""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from spade_jax.config import ModelConfig
from spade_jax.layers.linear import Linear, normal
from spade_jax.layers.stepwise import MixerStep
from spade_jax.ops.cached_attention import AttentionCache, cached_attention, empty_cache
from spade_jax.ops.full_attention import full_attention, visible_keys
from spade_jax.ops.local_attention.buckets import relative_position_buckets
from spade_jax.ops.local_attention.window import window_attention
from spade_jax.ops.softmax_attention import ATTENDED, softmax_attention

AttentionKind = Literal["window", "full"]


class RelativeBias(nnx.Module):
    """A learned bias for each head and bucket of relative positions (T5, arXiv 1910.10683)."""

    def __init__(self, config: ModelConfig, *, causal: bool, rngs: nnx.Rngs):
        attention = config.attention
        self.config, self.causal = attention, causal
        shape = (attention.num_buckets, attention.num_heads)
        self.table = normal(rngs, shape, config.d_model**-0.5, ("buckets", "heads"))

    def __call__(self, kind: AttentionKind, length: int) -> jax.Array:
        """The bias of each relative position that the attention of so many tokens takes, from the
        furthest before the query to the furthest behind it: float32 [h, 2n + 1]."""
        furthest = self.config.radius if kind == "window" else length - 1
        return self._look_up(np.arange(-furthest, furthest + 1))

    def places_back(self, count: int) -> jax.Array:
        """The bias of the keys 0, 1, …, count - 1 places before the query, [h, count]."""
        return self._look_up(-np.arange(count))

    def _look_up(self, relative: np.ndarray) -> jax.Array:
        """The biases of relative positions: int [r] -> [h, r]."""
        buckets = relative_position_buckets(
            relative,
            bidirectional=not self.causal,
            num_buckets=self.config.num_buckets,
            max_distance=self.config.max_distance,
        )
        # One matmul with the buckets as rows of zeros and a one: a scatter-free gradient.
        one_hot = jax.nn.one_hot(buckets, self.config.num_buckets, dtype=jnp.float32)
        return jnp.einsum("rn,nh->hr", one_hot, self.table[...], precision="highest")


class _Attention(nnx.Module):
    """Projections that both attentions share: heads of `head_dim`, without biases."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        d, attention = config.d_model, config.attention
        self.heads, self.head_dim = attention.num_heads, config.head_dim
        self.dropout_rate = config.dropout_rate
        # T5 leaves scores unscaled and its queries small.
        small = self.head_dim**-0.5
        self.scale = small if attention.scale_queries else 1.0
        width = self.heads * self.head_dim
        query_std = d**-0.5 * (1.0 if attention.scale_queries else small)
        self.query = Linear(("embed", "heads"), d, width, std=query_std, rngs=rngs)
        self.key = Linear(("embed", "heads"), d, width, rngs=rngs)
        self.value = Linear(("embed", "heads"), d, width, rngs=rngs)
        self.output = Linear(("heads", "embed"), width, d, rngs=rngs)

    def _split(self, x: jax.Array) -> jax.Array:
        return x.reshape(*x.shape[:2], self.heads, self.head_dim)

    def _project(self, x: jax.Array, source: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Queries of x [b, l, d], keys and values of the source [b, m, d]: [b, ., h, k] each."""
        return self._queries(x), *self._keys_and_values(source)

    def _queries(self, x: jax.Array) -> jax.Array:
        return self._split(self.query(x) * jnp.asarray(self.scale, x.dtype))

    def _keys_and_values(self, source: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self._split(self.key(source)), self._split(self.value(source))

    def _merge(self, y: jax.Array) -> jax.Array:
        return self.output(y.reshape(*y.shape[:2], -1))


class SelfAttention(_Attention):
    """Attention within a sequence, to a window around each token or to all of it."""

    def __init__(
        self,
        config: ModelConfig,
        *,
        kind: AttentionKind,
        causal: bool,
        own_bias: bool,
        rngs: nnx.Rngs,
    ):
        """own_bias: a table of relative biases of the layer's own."""
        super().__init__(config, rngs=rngs)
        self.kind, self.causal, self.radius = kind, causal, config.attention.radius
        self.bias = RelativeBias(config, causal=causal, rngs=rngs) if own_bias else None

    def __call__(
        self,
        x: jax.Array,
        *,
        segment_ids: jax.Array | None,
        bias: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """[b, l, d] -> [b, l, d].

        Args:
          segment_ids: [b, l]; 0 is padding; None is all one segment.
          bias: float32, as `RelativeBias` makes it, from a table that layers share.
        """
        if self.bias is not None:
            bias = self.bias(self.kind, x.shape[1])
        query, key, value = self._project(x, x)
        if self.kind == "window":
            y = window_attention(
                query,
                key,
                value,
                radius=self.radius,
                causal=self.causal,
                segment_ids=segment_ids,
                bias=bias,
                dropout_rate=0.0 if dropout_key is None else self.dropout_rate,
                dropout_key=dropout_key,
            )
        else:
            y = full_attention(
                query,
                key,
                value,
                causal=self.causal,
                query_segment_ids=segment_ids,
                key_segment_ids=segment_ids,
                bias=bias,
                dropout_rate=0.0 if dropout_key is None else self.dropout_rate,
                dropout_key=dropout_key,
            )
        return self._merge(checkpoint_name(y, ATTENDED))

    def stepwise(
        self, rows: int, length: int, shared: RelativeBias | None, dtype: str
    ) -> tuple[MixerStep, AttentionCache]:
        """The causal layer token by token: see `MixerStep`.

        Args:
          rows: b, how many sequences.
          length: how many tokens there will be at most.
          shared: the table of relative biases, where the layer has none of its own.
          dtype: of the keys and values that are kept.
        """
        slots = min(self.radius + 1, length) if self.kind == "window" else length
        table = shared if self.bias is None else self.bias
        bias = None if table is None else table.places_back(slots)

        def token(
            x: jax.Array, index: jax.Array, segment_ids: jax.Array, cache: AttentionCache
        ) -> tuple[jax.Array, AttentionCache]:
            query, key, value = self._project(x, x)
            y, cache = cached_attention(
                query, key, value, cache, index, segment_ids_b1=segment_ids, bias_hj=bias
            )
            return self._merge(y), cache

        return token, empty_cache(rows, self.heads, slots, self.head_dim, dtype)


class CrossAttention(_Attention):
    """Attention of the decoder to what the encoder made of the input."""

    def __call__(
        self,
        x: jax.Array,
        encoded: jax.Array,
        *,
        segment_ids: jax.Array | None,
        encoded_segment_ids: jax.Array | None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """x [b, t, d], encoded [b, l, d] -> [b, t, d]; each segment sees its own."""
        query, key, value = self._project(x, encoded)
        y = full_attention(
            query,
            key,
            value,
            causal=False,
            query_segment_ids=None if encoded_segment_ids is None else segment_ids,
            key_segment_ids=encoded_segment_ids,
            dropout_rate=0.0 if dropout_key is None else self.dropout_rate,
            dropout_key=dropout_key,
        )
        return self._merge(checkpoint_name(y, ATTENDED))

    def stepwise(
        self, encoded: jax.Array, encoded_segment_ids: jax.Array | None
    ) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """The layer for decoders that go token by token: their keys and values are made once.

        Args:
          encoded: [b, l, d]; encoded_segment_ids: [b, l], or None.

        Returns:
          A function (x [n, 1, d], segment_ids [n, 1]) -> [n, 1, d], where n is a multiple of b:
          n / b decoder rows after each other read the same row of the encoder.
        """
        key, value = (array.swapaxes(1, 2) for array in self._keys_and_values(encoded))

        def token(x: jax.Array, segment_ids: jax.Array) -> jax.Array:
            b = key.shape[0]
            query = self._queries(x)
            query_bqhk = query.reshape(b, -1, *query.shape[2:])
            segment_ids_bq = segment_ids.reshape(b, -1)
            y, _ = softmax_attention(
                query_bqhk.swapaxes(1, 2),
                key,
                value,
                visible=visible_keys(segment_ids_bq, encoded_segment_ids),
                bias=None,
            )
            return self._merge(y.swapaxes(1, 2).reshape(query.shape))

        return token
