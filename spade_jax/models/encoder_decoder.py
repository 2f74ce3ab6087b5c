"""SPADE as an encoder-decoder, in the manner of T5."""

from typing import Protocol

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax import partition
from spade_jax.config import ModelConfig
from spade_jax.layers.linear import normal
from spade_jax.layers.stack import Stack
from spade_jax.layers.stepwise import Cache
from spade_jax.ops.precision import matmul_precision


class Step(Protocol):
    """One step of a decoder; see `EncoderDecoder.stepwise`."""

    def __call__(
        self,
        tokens: jax.Array,
        index: jax.Array,
        cache: Cache,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> tuple[jax.Array, Cache]: ...


class EncoderDecoder(nnx.Module):
    """A bidirectional encoder and a causal decoder over one vocabulary.

    There is no random state in the model: dropout draws from the key that a call brings.
    Parameters are float32; activations are of `config.dtype`; logits are float32.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        self.config = config
        v, d = config.vocab_size, config.d_model
        # Where tied logits are not scaled down, the embedding is.
        std = d**-0.5 if config.tie_embeddings and not config.scale_logits else 1.0
        self.embedding = normal(rngs, (v, d), std, ("vocab", "embed"))
        self.encoder = Stack(config, config.encoder, causal=False, cross_attention=False, rngs=rngs)
        self.decoder = Stack(config, config.decoder, causal=True, cross_attention=True, rngs=rngs)
        tied = config.tie_embeddings
        self.output = None if tied else normal(rngs, (v, d), d**-0.5, ("vocab", "embed"))

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
    ) -> jax.Array:
        """Logits of each decoder token's successor.

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

        Returns:
          float32 [b, t, v].
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
        return self.encoder(
            self._embed(tokens),
            segment_ids=segment_ids,
            positions=positions,
            dropout_key=dropout_key,
        )

    def decode(
        self,
        tokens: jax.Array,
        encoded: jax.Array,
        *,
        encoded_segment_ids: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """int [b, t], the encoder's output [b, l, d] -> logits, float32 [b, t, v]."""
        y = self.decoder(
            self._embed(tokens),
            segment_ids=segment_ids,
            positions=positions,
            encoded=encoded,
            encoded_segment_ids=encoded_segment_ids,
            dropout_key=dropout_key,
        )
        return self._logits(y)

    def stepwise(
        self,
        encoded: jax.Array,
        *,
        length: int,
        encoded_segment_ids: jax.Array | None = None,
        rows_each: int = 1,
    ) -> tuple[Step, Cache]:
        """The decoder token by token, with a cache: equal to `decode`, without computing anew.

        Args:
          encoded: the encoder's output, [b, l, d].
          length: how many tokens will be decoded at most.
          encoded_segment_ids: [b, l], as of `decode`.
          rows_each: how many decoder rows, one after the other, read each row of the encoder.

        Returns:
          A function (tokens int [n], index, cache, segment_ids [n], positions [n]) -> (logits
          float32 [n, v], cache), and the first cache, whose arrays are [n, ...], n = b * rows_each.
          index, an int32 scalar, counts the tokens before; segment_ids are 1 unless given, and
          positions within the segments, which only learned positions need, are index.

        Raises:
          ConfigError: a length beyond the decoder's table of positions.
        """
        rows = encoded.shape[0] * rows_each
        step, start = self.decoder.stepwise(
            rows, length, encoded=encoded, encoded_segment_ids=encoded_segment_ids
        )

        def token(
            tokens: jax.Array,
            index: jax.Array,
            cache: Cache,
            segment_ids: jax.Array | None = None,
            positions: jax.Array | None = None,
        ) -> tuple[jax.Array, Cache]:
            if segment_ids is None:
                segment_ids = jnp.ones((rows,), jnp.int32)
            if positions is None:
                positions = jnp.broadcast_to(index, (rows,))
            x = self._embed(tokens[:, None])
            y, cache = step(x, index, segment_ids[:, None], positions[:, None], cache)
            return self._logits(y)[:, 0], cache

        return token, start

    def _logits(self, y: jax.Array) -> jax.Array:
        """The decoder's output [b, t, d] -> float32 [b, t, v]."""
        if self.config.scale_logits:
            y = y * jnp.asarray(self.config.d_model**-0.5, y.dtype)
        matrix = self.embedding if self.output is None else self.output
        logits = jnp.einsum(
            "btd,vd->btv",
            y,
            matrix.astype(y.dtype),
            precision=matmul_precision(y.dtype),
            preferred_element_type=jnp.float32,
        )
        return partition.constrain(logits, "batch", "length", "vocab")

    def _embed(self, tokens: jax.Array) -> jax.Array:
        # Put together where it is used, as other parameters are, and not its rows for each token.
        table = partition.constrain(self.embedding[...], "vocab", None)
        return jnp.take(table, tokens, axis=0, mode="clip").astype(self.config.dtype)
