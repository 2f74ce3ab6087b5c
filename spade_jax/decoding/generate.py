"""From inputs to outputs: the encoder once, then greedy, sampling or beam search."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spade_jax import partition
from spade_jax.decoding.beam_search import TopK, beam_search
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.sampling import sample
from spade_jax.models.encoder_decoder import EncoderDecoder

# Inputs shorter than this are filled up to it; longer ones to the next power of two.
_SHORTEST_BUCKET = 32


def generate(
    model: EncoderDecoder,
    encoder_tokens: jax.Array,
    config: DecodingConfig,
    *,
    end_id: int,
    vocab_size: int,
    key: jax.Array | None = None,
    top_k: TopK = jax.lax.top_k,
) -> tuple[jax.Array, jax.Array]:
    """Writes an output for each input.

    Args:
      encoder_tokens: int32 [b, l]; 0 is padding.
      end_id: the token that ends an output.
      vocab_size: tokens that mean something; the model's others, which round its vocabulary up,
        are never written.
      key: a random key; needed where the temperature is not 0.
      top_k: as of `beam_search`.

    Returns:
      tokens int32 [b, max_length], 0 after the end, and scores float32 [b]: log-probabilities, of
      beam search over the length penalty.
    """
    model.decoder.take_apart()
    segment_ids = (encoder_tokens != 0).astype(jnp.int32)
    encoded = model.encode(encoder_tokens, segment_ids=segment_ids)
    cache = model.init_cache(
        encoded,
        length=config.max_length,
        encoded_segment_ids=segment_ids,
        rows_each=config.beams,
    )

    def next_logits(tokens: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
        logits, cache = model.extend(tokens[:, None], cache)
        return logits[:, 0, :vocab_size], cache

    if config.beams == 1:
        return sample(
            next_logits,
            cache,
            rows=encoder_tokens.shape[0],
            length=config.max_length,
            end_id=end_id,
            config=config,
            key=key,
        )
    tokens, scores = beam_search(
        next_logits,
        cache,
        batch=encoder_tokens.shape[0],
        beams=config.beams,
        length=config.max_length,
        end_id=end_id,
        vocab_size=vocab_size,
        alpha=config.length_penalty,
        top_k=top_k,
    )
    return tokens[:, 0], scores[:, 0]


def make_generator(
    model: Callable[[Any], EncoderDecoder],
    config: DecodingConfig,
    *,
    end_id: int,
    vocab_size: int,
    batch_size: int,
    input_length: int,
    mesh: Mesh | None = None,
) -> Callable[..., np.ndarray]:
    """A function that writes outputs for inputs of unequal lengths, compiled once a bucket.

    Args:
      model: makes the model of parameters.
      batch_size: rows of every batch; a smaller one is filled up.
      input_length: the most tokens of an input.
      mesh: of the devices, which `batch_size` must divide over; None is one device.

    Returns:
      A function (params, inputs, key=None) -> int32 [len(inputs), max_length], where inputs are at
      most `batch_size` sequences of token ids, their ends included.
    """

    place = None if mesh is None else NamedSharding(mesh, partition.partition_spec(("batch",)))

    # All processes get all outputs.
    everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())

    @functools.partial(jax.jit, out_shardings=everywhere)
    def run(params: Any, encoder_tokens: jax.Array, key: jax.Array | None) -> jax.Array:
        with contextlib.nullcontext() if mesh is None else partition.on_mesh(mesh):
            return generate(
                model(params), encoder_tokens, config, end_id=end_id, vocab_size=vocab_size, key=key
            )[0]

    def write(
        params: Any, inputs: Sequence[Sequence[int]], key: jax.Array | None = None
    ) -> np.ndarray:
        length = bucket_length(max(map(len, inputs)), input_length, mesh)
        tokens = np.zeros((batch_size, length), np.int32)
        for row in range(batch_size):
            # The last input again and again: what fills up the batch ends when that one does.
            sequence = inputs[min(row, len(inputs) - 1)]
            tokens[row, : len(sequence)] = sequence
        placed = jnp.asarray(tokens) if place is None else jax.device_put(tokens, place)
        return np.asarray(run(params, placed, key))[: len(inputs)]

    return write


def bucket_length(length: int, longest: int, mesh: Mesh | None = None) -> int:
    """The length that inputs of this length are filled up to: the next power of two, or `longest`,
    the most that there are; always that on a mesh that cuts sequences, for it fits the cuts."""
    if mesh is not None and partition.shards("length", mesh) > 1:
        return longest
    return min(max(_SHORTEST_BUCKET, 1 << (length - 1).bit_length()), longest)
