"""From a checkpoint's folder to a run's."""

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from spade_jax.config import EncoderDecoderConfig
from spade_jax.files import check_folder
from spade_jax.interop import names
from spade_jax.interop.hf.config import T5, Choices, differences, model_config, read_config
from spade_jax.interop.hf.vocabulary import check_end, checkpoint_words, compare_ids
from spade_jax.interop.hf.weights import is_tied, read_weights, take
from spade_jax.interop.run_folder import Words, write_run
from spade_jax.models.build import builder


def start(
    checkpoint: Path,
    output: Path,
    choices: Choices,
    *,
    seed: int = 0,
    input_length: int | None = None,
    vocabulary: str | None = None,
) -> list[str]:
    """Makes a run's folder of a T5 in the layout of Hugging Face.

    Args:
      seed: of the parameters that the checkpoint does not have.
      input_length: the most tokens of an input; None is as in its training.
      vocabulary: "bytes" or the path of a SentencePiece model; None is the checkpoint's own.

    Returns:
      What was done, and what differs, a sentence each.

    Raises:
      ConfigError: a checkpoint that has no counterpart here, or choices that do not fit it.
      RunError: what cannot be read, or is not what config.json implies.
    """
    check_folder(output, "--output")
    t5, raw = read_config(checkpoint)
    weights = read_weights(checkpoint)
    model = model_config(t5, choices, tied=is_tied(weights, t5))
    with tempfile.TemporaryDirectory() as folder:
        words = (
            checkpoint_words(checkpoint, Path(folder)) if vocabulary is None else Words(vocabulary)
        )
        check_end(words, t5)
        compared = compare_ids(words, checkpoint) if vocabulary is None else None
        taken, new = take(weights, t5, names.shapes(model))
        params = names.by_group(taken | _fresh(model, new, seed), model)
        length = t5.n_positions if input_length is None else input_length
        write_run(
            output,
            model,
            params,
            vocabulary=words.vocabulary,
            extra_ids=words.extra_ids,
            input_length=length,
            origin={"layout": "Hugging Face", "config": raw},
        )
    return [*_told(t5, model, len(taken), new, output), *differences(t5, choices), *_or(compared)]


def _fresh(model: EncoderDecoderConfig, new: list[str], seed: int) -> dict[str, np.ndarray]:
    """Initial values of some of a model's parameters, by layer; no others are computed."""
    create = builder(model)

    def initial() -> dict[str, Any]:
        params = nnx.to_pure_dict(nnx.state(create(nnx.Rngs(seed)), nnx.Param))
        every = names.by_layer(params, model)
        return {name: every[name] for name in new}

    return {name: np.asarray(array) for name, array in jax.jit(initial)().items()}


def _told(
    t5: T5, model: EncoderDecoderConfig, taken: int, new: list[str], output: Path
) -> list[str]:
    how = "tied to the embedding" if model.tie_embeddings else "from a matrix of their own"
    scaled = ", multiplied by d_model ** -0.5" if model.scale_logits else ""
    lines = [
        f"{output}: a {t5.model_type} of {t5.d_model} features; encoder {model.encoder.layers!r}, "
        f"decoder {model.decoder.layers!r}; logits {how}{scaled}.",
        f"{taken} arrays are the checkpoint's, {len(new)} are new.",
    ]
    if new:
        lines.append("The state space begins without effect, and learns from the first update on.")
    return lines


def _or(line: str | None) -> list[str]:
    return [] if line is None else [line]
