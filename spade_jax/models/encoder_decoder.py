"""SPADE as an encoder-decoder, in the manner of T5."""

from typing import Any

import jax
from flax import nnx

from spade_jax.config.model import EncoderDecoderConfig
from spade_jax.layers.cross_attention import Encoded
from spade_jax.layers.stack import Stack, StackCache
from spade_jax.models.tokens import TokenModel


class EncoderDecoder(TokenModel):
    """A bidirectional encoder and a causal decoder over one vocabulary."""

    def __init__(self, config: EncoderDecoderConfig, rngs: nnx.Rngs):
        super().__init__(config, rngs)
        self.encoder = Stack(config, config.encoder, causal=False, cross_attention=False, rngs=rngs)
        self.decoder = Stack(config, config.decoder, causal=True, cross_attention=True, rngs=rngs)
        self.add_output(rngs)

    def __call__(
        self,
        encoder_tokens: jax.Array,
        decoder_tokens: jax.Array,
        *,
        encoder_segment_ids: jax.Array | None = None,
        encoder_positions: jax.Array | None = None,
        decoder_segment_ids: jax.Array | None = None,
        decoder_positions: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
        targets: jax.Array | None = None,
    ) -> Any:
        """Logits of each decoder token's successor, or what the loss needs of them.

        Args:
          encoder_tokens: int [b, l].
          decoder_tokens: int [b, t], the targets shifted right.
          encoder_segment_ids: [b, l]; 0 is padding, else the example in a packed row. None: no
            padding and one example a row.
          encoder_positions: [b, l], positions within the segments; None is 0, 1, …. Only learned
            positions need them.
          decoder_segment_ids: [b, t], likewise; a decoder segment attends to the encoder's segment
            of the same number.
          decoder_positions: [b, t], likewise.
          dropout_key: None drops nothing.
          targets: int [b, t], the successors where they are known.

        Returns:
          float32 [b, t, v]; with targets their `TokenScores`, for which the logits are never all in
          memory.
        """
        encoder_key, decoder_key = (
            (None, None) if dropout_key is None else jax.random.split(dropout_key)
        )
        encoded = self.encode(
            encoder_tokens,
            segment_ids=encoder_segment_ids,
            positions=encoder_positions,
            dropout_key=encoder_key,
        )
        return self.decode(
            decoder_tokens,
            encoded,
            encoded_segment_ids=encoder_segment_ids,
            segment_ids=decoder_segment_ids,
            positions=decoder_positions,
            dropout_key=decoder_key,
            targets=targets,
        )

    def encode(
        self,
        tokens: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """int [b, l] -> [b, l, d]."""
        x, _ = self.encoder(
            self.embed(tokens),
            segment_ids=segment_ids,
            positions=positions,
            dropout_key=dropout_key,
        )
        return x

    def decode(
        self,
        tokens: jax.Array,
        encoded: jax.Array,
        *,
        encoded_segment_ids: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
        targets: jax.Array | None = None,
    ) -> Any:
        """int [b, t], the encoder's output [b, l, d] -> logits or scores, as a call gives them."""
        y, _ = self.decoder(
            self.embed(tokens),
            segment_ids=segment_ids,
            positions=positions,
            encoded=Encoded(encoded, encoded_segment_ids),
            dropout_key=dropout_key,
        )
        return self.logits(y) if targets is None else self.scores(y, targets)

    def init_cache(
        self,
        encoded: jax.Array,
        *,
        length: int,
        encoded_segment_ids: jax.Array | None = None,
        rows_each: int = 1,
    ) -> StackCache:
        """The decoder's cache before its first token: what `extend` begins with.

        Args:
          encoded: the encoder's output, [b, l, d].
          length: how many tokens will be decoded at most.
          encoded_segment_ids: [b, l], as of `decode`.
          rows_each: how many decoder rows, one after the other, read each row of the encoder.

        Raises:
          ValueError: a length beyond the decoder's table of positions.
        """
        rows = encoded.shape[0] * rows_each
        return self.decoder.init_cache(rows, length, Encoded(encoded, encoded_segment_ids))

    def extend(
        self,
        tokens: jax.Array,
        cache: StackCache,
        *,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, StackCache]:
        """As `decode`, of the next tokens, without computing anew what came before.

        Args:
          tokens: int [n, t], n = b * rows_each: one token, or a piece of a prompt.
          segment_ids: [n, t]; None is 1.
          positions: [n, t], within the segments; None counts all tokens.

        Returns:
          float32 [n, t, v], and the cache with these tokens.
        """
        y, after = self.decoder(
            self.embed(tokens), segment_ids=segment_ids, positions=positions, cache=cache
        )
        assert after is not None
        return self.logits(y), after
