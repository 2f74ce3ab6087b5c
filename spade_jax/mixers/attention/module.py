"""Self-attention, to a window around each token, to its chunk or to all of the sequence."""

from typing import Any

import jax
from flax import nnx

from spade_jax.config.model import ModelConfig
from spade_jax.mixers.attention.config import Chunk, SelfAttentionConfig, Window
from spade_jax.mixers.attention.heads import Heads
from spade_jax.mixers.attention.relative_bias import RelativeBias
from spade_jax.mixers.base import Cache, Context
from spade_jax.ops.attention.cached import cached_attention, empty_cache
from spade_jax.ops.attention.chunk import chunk_attention
from spade_jax.ops.attention.full import full_attention
from spade_jax.ops.attention.window import window_attention
from spade_jax.places import place


class SelfAttention(Heads):
    """Attention within a sequence; its biases are the stack's unless it has a table of its own."""

    def __init__(
        self,
        config: SelfAttentionConfig,
        model: ModelConfig,
        *,
        causal: bool,
        own_bias: bool,
        rngs: nnx.Rngs,
    ):
        super().__init__(model, rngs=rngs)
        self.config, self.model, self.causal = config, model, causal
        self.radius = config.radius if isinstance(config, Window) else None
        self.chunk_size = config.size if isinstance(config, Chunk) else None
        self.bias = RelativeBias(model, causal=causal, rngs=rngs) if own_bias else None

    def __call__(
        self,
        x: jax.Array,
        context: Context,
        *,
        cache: Cache | None = None,
        dropout_key: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache | None]:
        """See `Mixer`."""
        query, (key, value) = self.queries(x), self.keys_and_values(x)
        if cache is not None:
            segment_ids = context.segment_ids
            assert segment_ids is not None
            reach = self._reach(cache.rows.key_bhjk.shape[2])
            y, rows = cached_attention(
                query,
                key,
                value,
                cache.rows,
                context.start,
                radius=self.radius,
                chunk_size=self.chunk_size,
                segment_ids_bl=segment_ids,
                bias=context.biases.get(reach) if self.bias is None else cache.shared,
                implementation=self.implementation,
            )
            return self.merge(y), Cache(rows, cache.shared)
        reach = self._reach(x.shape[1])
        settings: dict[str, Any] = {
            "causal": self.causal,
            "bias": context.biases.get(reach) if self.bias is None else self.bias(reach),
            "dropout_rate": 0.0 if dropout_key is None else self.dropout_rate,
            "dropout_key": dropout_key,
            "implementation": self.implementation,
        }
        if self.chunk_size is not None:
            y = place("chunk attention")(chunk_attention)(
                query,
                key,
                value,
                size=self.chunk_size,
                segment_ids=context.segment_ids,
                **settings,
            )
        elif self.radius is not None:
            y = place("window attention")(window_attention)(
                query,
                key,
                value,
                radius=self.radius,
                segment_ids=context.segment_ids,
                **settings,
            )
        else:
            y = place("causal attention" if self.causal else "full attention")(full_attention)(
                query,
                key,
                value,
                query_segment_ids=context.segment_ids,
                key_segment_ids=context.segment_ids,
                **settings,
            )
        return self.merge(y), None

    def init_cache(self, rows: int, length: int, dtype: Any) -> Cache:
        """See `Mixer`."""
        slots = length
        if self.radius is not None:
            slots = min(self.radius + 1, length)
        if self.chunk_size is not None:
            slots = min(self.chunk_size, length)
        bias = None if self.bias is None else self.bias(self._reach(slots))
        chunks = self.chunk_size is not None
        return Cache(
            empty_cache(rows, self.heads, slots, self.head_dim, dtype, chunks=chunks), bias
        )

    def _reach(self, length: int) -> int:
        """Of the relative biases in sequences of this length."""
        return self.config.relative_reach(self.model, length)
