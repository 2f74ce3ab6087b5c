"""Shows held-out passages, their masked spans, and what the model fills in."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

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


def spans(tokens: np.ndarray, vocabulary: Vocabulary) -> dict[int, str]:
    """The text behind each sentinel of a target, by the sentinel's number."""
    found: dict[int, list[int]] = {}
    current: list[int] = []
    for token in map(int, tokens):
        if token == vocabulary.eos_id:
            break
        sentinel = vocabulary.sentinel_index(token)
        if sentinel is not None:
            current = found.setdefault(sentinel, [])
        else:
            current.append(token)
    return {sentinel: vocabulary.decode(span) for sentinel, span in found.items()}


def print_passages(
    trainer: Trainer,
    params: Any,
    batch: Mapping[str, np.ndarray],
    vocabulary: Vocabulary,
    count: int,
    console: Console,
) -> None:
    """Prints the first `count` passages of a batch, the truth and the model's words."""
    inputs, targets = batch["encoder_input_tokens"], batch["decoder_target_tokens"]
    filled = fill_in(trainer, params, inputs[:count], targets.shape[1])
    for number, (tokens, target, answer) in enumerate(zip(inputs, targets, filled), start=1):
        text = vocabulary.decode(tokens)
        truth, guess = spans(target, vocabulary), spans(answer, vocabulary)
        for sentinel in truth:
            text = text.replace(f"<extra_id_{sentinel}>", f"[{sentinel + 1}]")
        console.print(f"\nPassage {number}: {' '.join(text.split())}")
        for sentinel, span in truth.items():
            console.print(f"  [{sentinel + 1}] is {span!r}, filled in: {guess.get(sentinel)!r}")
    console.print()
