"""A run's folder out of parameters that come from elsewhere."""

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from spade_jax.config import MAX_LENGTH, ModelConfig, Range, TokenModelConfig, of_kind, require
from spade_jax.data.config import TrainingData
from spade_jax.data.vocabulary import Vocabulary, load_vocabulary
from spade_jax.files import check_folder, whole_folder
from spade_jax.ops.attention.dropout import NUMBERS_VERSION
from spade_jax.runs.checkpoints import Checkpoints
from spade_jax.training.config import TrainConfig
from spade_jax.training.step import TrainState
from spade_jax.trees import Tree

KEPT, ORIGIN = "kept.safetensors", "origin.json"


@dataclasses.dataclass(frozen=True)
class Words:
    """A vocabulary by its name.

    Attributes:
      vocabulary: "bytes", or the path of a SentencePiece model.
      extra_ids: sentinels at its end.
    """

    vocabulary: str
    extra_ids: int = 100


def check_vocabulary(vocabulary: Vocabulary, model: ModelConfig, name: Path | str) -> None:
    """Raises ConfigError for a vocabulary that has more tokens than the model."""
    model = of_kind(model, TokenModelConfig)
    require(
        vocabulary.size <= model.num_embeddings,
        "vocabulary",
        str(name),
        f"must have at most {model.num_embeddings} tokens, as the model has, and has "
        f"{vocabulary.size} with its sentinels",
    )


def write_run(output: Path, model: ModelConfig, params: Tree, **about: Any) -> None:
    """`fill_run` of a folder that appears as a whole.

    Args:
      output: must be new, or an empty folder.
      about: all the rest of `fill_run`.

    Raises:
      ConfigError: a folder that holds something, or what `fill_run` refuses.
    """
    check_folder(output, "--output")
    with whole_folder(output) as aside:
        fill_run(aside, model, params, **about)


def fill_run(
    folder: Path,
    model: ModelConfig,
    params: Tree,
    *,
    vocabulary: Path | str,
    extra_ids: int,
    input_length: int,
    kept: Mapping[str, np.ndarray] = {},
    origin: Mapping[str, Any] = {},
) -> None:
    """Makes an empty folder one that is opened as that of a run which has done no step.

    Its vocabulary is copied into it, and found there wherever it is moved.

    Args:
      params: nested dicts of arrays, as `nnx.to_pure_dict` gives them.
      vocabulary: "bytes", or the path of a SentencePiece model.
      extra_ids: sentinels at its end.
      input_length: the most tokens of an input.
      kept: arrays that are no parameters, and belong to them all the same: `kept.safetensors`.
      origin: what is known of where they come from, as JSON values: `origin.json`.

    Raises:
      ConfigError: a vocabulary that does not fit the model.
      RunError: it cannot be written.
    """
    Range(3, MAX_LENGTH).require("input_length", input_length)
    words = load_vocabulary(Words(str(vocabulary), extra_ids))
    check_vocabulary(words, model, vocabulary)
    name = str(vocabulary)
    if name != "bytes":
        name = Path(vocabulary).name
        shutil.copyfile(vocabulary, folder / name)
    # What models of this kind learn from.
    kind = next(kind for kind, data in TrainingData.KINDS.items() if model.kind == data.MODEL)
    data = {"vocabulary": name, "extra_ids": extra_ids, "input_length": input_length}
    settings = {
        "train": dataclasses.asdict(TrainConfig(steps=1, batch_size=8)),
        "model": dataclasses.asdict(model),
        "data": {"kind": kind, **data},
    }
    _save(folder, params, settings, words.digest)
    if kept:
        save_file({k: np.asarray(array, order="C") for k, array in kept.items()}, folder / KEPT)
    if origin:
        (folder / ORIGIN).write_text(json.dumps(origin, indent=1, sort_keys=True) + "\n")


def _save(folder: Path, params: Tree, settings: Mapping[str, Any], digest: str) -> None:
    """The checkpoint of step 0, without an optimiser's slots: training begins with new ones."""
    about = {"settings": settings, "vocabulary": digest, "dropout_numbers": NUMBERS_VERSION}
    checkpoints = Checkpoints(folder / "checkpoints", keep=1, alone=True)
    try:
        checkpoints.save(0, TrainState(np.int32(0), params, {}), lambda: b"", about)
        checkpoints.wait()
    finally:
        checkpoints.close()
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n")
