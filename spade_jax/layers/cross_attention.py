"""Cross-attention: a decoder's to what the encoder made of the input."""

from typing import NamedTuple

import jax

from spade_jax.mixers.attention.heads import Heads
from spade_jax.mixers.base import Cache, Context
from spade_jax.ops.attention.full import full_attention
from spade_jax.ops.attention.softmax import softmax_attention, visible_keys
from spade_jax.places import place


class Encoded(NamedTuple):
    """What the encoder made of the input.

    Attributes:
      states: [b, m, d].
      segment_ids: int [b, m]; None: no padding, and one example a row.
    """

    states: jax.Array
    segment_ids: jax.Array | None


class CrossAttention(Heads):
    """Attention to the encoder's output; each segment sees its own.

    Its cache holds keys and values, which stay the same, and no rows: n / b decoder rows after each
    other read the same row of the encoder.
    """

    def __call__(
        self,
        x: jax.Array,
        context: Context,
        *,
        encoded: Encoded | None = None,
        cache: Cache | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """x [n, t, d] -> [n, t, d].

        Args:
          encoded: with n = b; or else
          cache: of `init_cache`, with n a multiple of b.
        """
        query = self.queries(x)
        if cache is not None:
            return self.merge(self._attend_cached(query, context, cache))
        assert encoded is not None
        key, value = self.keys_and_values(encoded.states)
        y = place("cross attention")(full_attention)(
            query,
            key,
            value,
            causal=False,
            query_segment_ids=None if encoded.segment_ids is None else context.segment_ids,
            key_segment_ids=encoded.segment_ids,
            dropout_rate=0.0 if dropout_key is None else self.dropout_rate,
            dropout_key=dropout_key,
            implementation=self.implementation,
        )
        return self.merge(y)

    def init_cache(self, encoded: Encoded) -> Cache:
        """The keys and values [b, h, m, k], and the segments."""
        key, value = (array.swapaxes(1, 2) for array in self.keys_and_values(encoded.states))
        return Cache(None, (key, value, encoded.segment_ids))

    def _attend_cached(self, query: jax.Array, context: Context, cache: Cache) -> jax.Array:
        """[n, t, h, k] -> [n, t, h, k]: the decoder rows of an input as more of its queries."""
        key, value, encoded_segment_ids = cache.shared
        b = key.shape[0]
        query_bqhk = query.reshape(b, -1, *query.shape[2:])
        segment_ids = context.segment_ids
        y, _ = softmax_attention(
            query_bqhk.swapaxes(1, 2),
            key,
            value,
            visible=visible_keys(
                None if segment_ids is None else segment_ids.reshape(b, -1), encoded_segment_ids
            ),
            bias=None,
        )
        return y.swapaxes(1, 2).reshape(query.shape)
