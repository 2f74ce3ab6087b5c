"""Held-out passages, their masked spans, and what the model fills in."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from spade_jax.data.masked_text import filled_passage, masked_passage
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.generate import generate
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch
from spade_jax.telemetry.samples import Sample
from spade_jax.training import sharding
from spade_jax.training.step import Trainer


def filler(trainer: Trainer, length: int, end_id: int) -> Callable[[Any, np.ndarray], np.ndarray]:
    """What gives the likeliest token at each position, given those before; compiled once.

    Returns:
      (parameters, tokens of the encoder, int32 [b, l], where 0 is padding) -> int32 [b, length], 0
      after the end.
    """
    greedy = DecodingConfig(max_length=length)

    def write(params: Any, encoder_tokens: jax.Array) -> jax.Array:
        model = trainer.model(params)
        return generate(
            model, encoder_tokens, greedy, end_id=end_id, vocab_size=model.config.vocab_size
        )[0]

    compiled = jax.jit(write, out_shardings=sharding.replicated(trainer.mesh))
    return lambda params, encoder_tokens: np.asarray(compiled(params, encoder_tokens))


def passages(
    trainer: Trainer, batch: Mapping[str, np.ndarray], vocabulary: Vocabulary, count: int
) -> Callable[[Any], list[Sample]]:
    """What gives, of parameters, the first `count` passages of a batch: masked, in truth, and as
    the model has them."""
    whole = Seq2SeqBatch.of(batch)
    inputs, targets = whole.inputs[:count], whole.targets[:count]
    write = filler(trainer, targets.shape[1], vocabulary.eos_id)

    def filled(tokens: np.ndarray, answer: np.ndarray) -> str:
        return " ".join(filled_passage(vocabulary, tokens, answer).split())

    def samples(params: Any) -> list[Sample]:
        return [
            Sample(
                " ".join(masked_passage(vocabulary, tokens).split()),
                filled(tokens, target),
                filled(tokens, answer),
            )
            for tokens, target, answer in zip(inputs, targets, write(params, inputs))
        ]

    return samples
