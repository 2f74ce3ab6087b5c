"""Shows held-out passages, their masked spans, and what the model fills in."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from spade_jax.data.passages import filled_passage, masked_passage
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.training.step import Trainer


def fill_in(trainer: Trainer, params: Any, encoder_tokens: np.ndarray, length: int) -> np.ndarray:
    """The likeliest token at each position, given those before; the whole decoder runs each time.

    Args:
      encoder_tokens: int32 [b, l].

    Returns:
      int32 [b, length]; what follows the end of a row has no meaning.
    """

    def write(params: Any, encoder_bl: jax.Array) -> jax.Array:
        def step(position: jax.Array, decoder_bt: jax.Array) -> jax.Array:
            logits_bv = trainer.logits(params, encoder_bl, decoder_bt)[:, position]
            return decoder_bt.at[:, position + 1].set(jnp.argmax(logits_bv, -1).astype(jnp.int32))

        start_bt = jnp.zeros((encoder_bl.shape[0], length + 1), jnp.int32)
        return jax.lax.fori_loop(0, length, step, start_bt)[:, 1:]

    return np.asarray(jax.jit(write)(params, encoder_tokens))


def print_passages(
    trainer: Trainer,
    params: Any,
    batch: Mapping[str, np.ndarray],
    vocabulary: Vocabulary,
    count: int,
    console: Console,
) -> None:
    """Prints the first `count` passages of a batch: masked, in truth, and as the model has them."""
    inputs, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
    filled = fill_in(trainer, params, inputs[:count], targets.shape[1])
    for number, (tokens, target, answer) in enumerate(zip(inputs, targets, filled), start=1):
        console.print(f"\nHeld-out passage {number}")
        for title, text in (
            ("masked", masked_passage(vocabulary, tokens)),
            ("truth ", filled_passage(vocabulary, tokens, target)),
            ("model ", filled_passage(vocabulary, tokens, answer)),
        ):
            console.print(f"  {title}  {' '.join(text.split())}")
    console.print()
