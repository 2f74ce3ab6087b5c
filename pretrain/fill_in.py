"""Shows held-out passages, their masked spans, and what the model fills in."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from rich.console import Console

from spade_jax.data.masked_text import filled_passage, masked_passage
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.generate import generate
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch
from spade_jax.training import sharding
from spade_jax.training.step import Trainer


def fill_in(
    trainer: Trainer, params: Any, encoder_tokens: np.ndarray, length: int, end_id: int
) -> np.ndarray:
    """The likeliest token at each position, given those before.

    Args:
      encoder_tokens: int32 [b, l]; 0 is padding.

    Returns:
      int32 [b, length], 0 after the end.
    """

    greedy = DecodingConfig(max_length=length)

    def write(params: Any, encoder_tokens: jax.Array) -> jax.Array:
        model = trainer.model(params)
        return generate(
            model, encoder_tokens, greedy, end_id=end_id, vocab_size=model.config.vocab_size
        )[0]

    everywhere = sharding.replicated(trainer.mesh)
    return np.asarray(jax.jit(write, out_shardings=everywhere)(params, encoder_tokens))


def print_passages(
    trainer: Trainer,
    params: Any,
    batch: Mapping[str, np.ndarray],
    vocabulary: Vocabulary,
    count: int,
    console: Console,
) -> None:
    """Prints the first `count` passages of a batch: masked, in truth, and as the model has them."""
    passages = Seq2SeqBatch.of(batch)
    inputs, targets = passages.inputs, passages.targets
    filled = fill_in(trainer, params, inputs[:count], targets.shape[1], vocabulary.eos_id)
    for number, (tokens, target, answer) in enumerate(zip(inputs, targets, filled), start=1):
        console.print(f"\nHeld-out passage {number}")
        for title, text in (
            ("masked", masked_passage(vocabulary, tokens)),
            ("truth ", filled_passage(vocabulary, tokens, target)),
            ("model ", filled_passage(vocabulary, tokens, answer)),
        ):
            console.print(f"  {title}  {' '.join(text.split())}")
    console.print()
