"""Shows how held-out passages go on, and how the model has them go on."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from rich.console import Console

from spade_jax.data.vocabulary import Vocabulary
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.continuation import Continuation
from spade_jax.objectives.causal_lm_batch import CausalLMBatch
from spade_jax.training.step import Trainer

# Of a passage at most so many tokens are read, and at most as many are written.
_TOKENS = 256


def print_continuations(
    trainer: Trainer,
    params: Any,
    batch: Mapping[str, np.ndarray],
    vocabulary: Vocabulary,
    count: int,
    console: Console,
) -> None:
    """Prints the first `count` passages of a batch: their first halves, and the others in truth and
    as the model writes them."""
    blocks = CausalLMBatch.of(batch)
    half = min(blocks.inputs.shape[1] // 2, _TOKENS)
    write = Continuation(
        trainer.model,
        # Greedily, a small model would say one thing over and over.
        DecodingConfig(max_length=half, temperature=0.8, top_p=0.9),
        end_id=vocabulary.eos_id,
        vocab_size=vocabulary.size,
        mesh=trainer.mesh,
    )
    rows = trainer.mesh.size * -(-count // trainer.mesh.size)
    prompts = blocks.inputs[:count, :half].tolist()
    written = write(params, prompts, jax.random.key(0), rows=rows)
    for number, (prompt, truth, answer) in enumerate(
        zip(prompts, blocks.targets[:, half - 1 : 2 * half - 1], written), start=1
    ):
        console.print(f"\nHeld-out passage {number}")
        for title, tokens in (("begins", prompt), ("truth ", truth), ("model ", answer)):
            console.print(f"  {title}  {_on_one_line(vocabulary, tokens)}", markup=False)
    console.print()


def _on_one_line(vocabulary: Vocabulary, tokens: Iterable[int]) -> str:
    """Texts of which one begins where another ends."""
    texts: list[list[int]] = [[]]
    for token in tokens:
        if token == vocabulary.eos_id:
            texts.append([])
        else:
            texts[-1].append(token)
    lines = (" ".join(vocabulary.decode(text).split()) for text in texts)
    return " | ".join(line for line in lines if line)
