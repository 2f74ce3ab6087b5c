"""SPADE as a language model: a causal stack between an embedding and the logits."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax.config.model import DecoderOnlyConfig
from spade_jax.elements import split_key
from spade_jax.layers.stack import Stack, StackCache
from spade_jax.models.tokens import TokenModel


class DecoderOnly(TokenModel):
    """A causal decoder over one vocabulary, the authors' language model among them."""

    config: DecoderOnlyConfig

    def __init__(self, config: DecoderOnlyConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs, config.adaptive)
        self.decoder = Stack(config, config.decoder, causal=True, cross_attention=False, rngs=rngs)
        self.add_output(rngs)

    def __call__(
        self,
        tokens: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
        targets: jax.Array | None = None,
    ) -> Any:
        """Logits of each token's successor, or what the loss needs of them.

        Args:
          tokens: int [b, l].
          segment_ids: [b, l]; 0 is padding, else the text in a packed row. None: no padding and one
            text a row.
          positions: [b, l], positions within the segments; None is 0, 1, ….
          dropout_key: None drops nothing.
          targets: int [b, l], the successors where they are known.

        Returns:
          float32 [b, l, v]; with targets their `TokenScores`, for which the logits are never all in
          memory.
        """
        key, own_key = split_key(dropout_key, 2) if self.config.adaptive else (dropout_key, None)
        y, _ = self.decoder(
            self._embedded(tokens),
            segment_ids=segment_ids,
            positions=positions,
            dropout_key=key,
        )
        return self.logits(y) if targets is None else self.scores(y, targets, own_key)

    def init_cache(self, rows: int, length: int) -> StackCache:
        """The cache of `rows` texts before their first token: what `extend` begins with.

        Its size grows with the length only where mixers look at all that came before, such as full
        attention; of windows and state spaces it is the same for any.

        Args:
          length: how many tokens will be read and written at most.

        Raises:
          ValueError: a length beyond the table of positions.
        """
        return self.decoder.init_cache(rows, length)

    def extend(
        self,
        tokens: jax.Array,
        cache: StackCache,
        *,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, StackCache]:
        """As a call, of the next tokens, without computing anew what came before.

        Args:
          tokens: int [b, l]: one token, or a piece of a prompt.
          segment_ids: [b, l]; None is 1.
          positions: [b, l], within the segments; None counts all tokens.

        Returns:
          float32 [b, v], the logits of the last token's successor, and the cache with these tokens.
        """
        y, after = self.decoder(
            self._embedded(tokens), segment_ids=segment_ids, positions=positions, cache=cache
        )
        assert after is not None
        return self.logits(y[:, -1:])[:, 0], after

    def _embedded(self, tokens: jax.Array) -> jax.Array:
        x = self.embed(tokens)
        if not self.config.scale_embeddings:
            return x
        return x * jnp.asarray(self.config.d_model**0.5, x.dtype)
