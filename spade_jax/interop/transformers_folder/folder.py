"""Writes the folder."""

import importlib.resources
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from spade_jax.config import EncoderDecoderConfig
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.interop.transformers_folder import tensors
from spade_jax.interop.transformers_folder.card import model_card
from spade_jax.interop.transformers_folder.settings import (
    check,
    generation_settings,
    model_settings,
)
from spade_jax.interop.transformers_folder.tokenizer import tokenizer_files

__all__ = ["check", "write"]

SOURCES = (
    "attention_spade.py",
    "configuration_spade.py",
    "modeling_spade.py",
    "state_space_spade.py",
)


def write(
    folder: Path,
    model: EncoderDecoderConfig,
    weights: Mapping[str, Any],
    vocabulary: Vocabulary,
    *,
    card: Mapping[str, Any],
    dtype: Any,
    max_shard_bytes: int,
    max_length: int = 128,
    input_length: int | None = None,
) -> None:
    """Writes everything into a folder that is there.

    Args:
      weights: parameters by the names of their layers; each is asked for once, in their order.
      card: what README.md says; see `model_card`.
      dtype: of the parameters, "float32" or "bfloat16"; state spaces' stay float32.
      max_shard_bytes: of a file of parameters.
      max_length: the most tokens of an output, where `generate` is not told.
      input_length: tokens of an input that the tokenizer cuts to, where it is told to truncate.

    Raises:
      ConfigError: the model or the vocabulary cannot be expressed so.
    """
    check(model)
    dtype = jnp.dtype(dtype)
    tokenizer = tokenizer_files(vocabulary, input_length)
    for name, value in {
        "config.json": model_settings(model, vocabulary, dtype.name),
        "generation_config.json": generation_settings(model, vocabulary, max_length),
        **tokenizer,
    }.items():
        (folder / name).write_text(
            json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    (folder / "README.md").write_text(model_card(card), encoding="utf-8")
    sources = importlib.resources.files("spade_jax.interop.transformers_folder") / "files"
    for name in SOURCES:
        (folder / name).write_bytes((sources / name).read_bytes())
    tensors.write(folder, model, weights, dtype=dtype, max_shard_bytes=max_shard_bytes)
