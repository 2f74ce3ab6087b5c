"""How held-out passages go on, and how the model has them go on."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from spade_jax.data.vocabulary import Vocabulary
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.continuation import Continuation
from spade_jax.objectives.causal_lm_batch import CausalLMBatch
from spade_jax.telemetry.samples import Sample
from spade_jax.training.step import Trainer

# Of a passage at most so many tokens are read, and at most as many are written.
_TOKENS = 256


def continuations(
    trainer: Trainer, batch: Mapping[str, np.ndarray], vocabulary: Vocabulary, count: int
) -> Callable[[Any], list[Sample]]:
    """What gives, of parameters, the first `count` passages of a batch: their first halves, and the
    others in truth and as the model writes them."""
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
    truths = blocks.targets[:count, half - 1 : 2 * half - 1]

    def samples(params: Any) -> list[Sample]:
        written = write(params, prompts, jax.random.key(0), rows=rows)
        return [
            Sample(*(_on_one_line(vocabulary, tokens) for tokens in passage))
            for passage in zip(prompts, truths, written)
        ]

    return samples


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
