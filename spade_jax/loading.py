"""A run in memory: what `spade_jax.load` gives to a notebook, and decoding to itself."""

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from spade_jax.config import (
    ClassifierConfig,
    DecoderOnlyConfig,
    ModelConfig,
    Range,
    from_dict,
    require,
)
from spade_jax.data.vocabulary import Vocabulary, load_vocabulary
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.continuation import Continuation
from spade_jax.decoding.generate import make_generator
from spade_jax.decoding.texts import written
from spade_jax.loaded_classifier import LoadedClassifier, load_classifier
from spade_jax.models.build import builder
from spade_jax.runs.open import Run, open_run
from spade_jax.training.config import MAX_BATCH
from spade_jax.training.step import abstract_model


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedRun:
    """A model with its parameters, its vocabulary and its configuration.

    Attributes:
      workdir: the folder.
      step: of the checkpoint that the parameters are of.
      why: the step, and why it is this one, such as "step 120, the best by score".
      model: a Flax NNX module: `model(encoder_tokens, decoder_tokens)` gives logits, and
        `model(tokens)` of a language model.
      vocabulary: from texts to tokens, and back.
      config: the model's configuration.
      settings: the run's whole configuration, as nested dicts and lists.
      input_length: the most tokens of an input, as trained.
    """

    workdir: Path
    step: int
    why: str
    model: Any
    vocabulary: Vocabulary
    config: ModelConfig
    settings: Mapping[str, Any]
    input_length: int

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Texts as the model reads them, inputs or targets: int32 [b, l], 0 after the end of each.

        White space around a text does not count, `<extra_id_0>` and so on are sentinels, and what
        is beyond `input_length` is cut off. A language model reads texts as they stand, each behind
        the end of another one.

        Raises:
          DataError: a sentinel that the vocabulary lacks.
        """
        return filled(self._read(texts))

    def generate(
        self, texts: Sequence[str], *, batch_size: int = 8, seed: int = 0, **how: Any
    ) -> list[str]:
        """What the model writes for each text, as `python -m spade_jax.decoding` does for lines;
        a language model: behind each.

        The first call compiles; so does one with other options, or longer texts.

        Args:
          batch_size: how many texts are run at once.
          seed: of sampling.
          how: of `DecodingConfig`: max_length, beams, length_penalty, temperature, top_k, top_p.

        Raises:
          ConfigError: an option that cannot be.
          DataError: a sentinel that the vocabulary lacks.
        """
        Range(1, MAX_BATCH).require("batch_size", batch_size)
        config = from_dict(DecodingConfig, how, "decoding")
        inputs = self._read(texts)
        graph, state = nnx.split(self.model)
        ids = (self.vocabulary.eos_id, self.vocabulary.size)
        rows = min(batch_size, len(inputs))
        write: Callable[..., np.ndarray]
        if isinstance(self.config, DecoderOnlyConfig):
            write = functools.partial(_continuation(graph, config, *ids), rows=rows)
        else:
            write = _generator(graph, config, *ids, rows, self.input_length)
        key = jax.random.key(seed) if config.temperature > 0 else None
        outputs = written(
            functools.partial(write, state),
            inputs,
            self.vocabulary,
            batch_size=batch_size,
            key=key,
        )
        return [text for batch in outputs for text in batch]

    def _read(self, texts: Sequence[str]) -> list[list[int]]:
        require(not isinstance(texts, str), "texts", texts, "must be a list of texts")
        if isinstance(self.config, DecoderOnlyConfig):
            return [[self.vocabulary.eos_id, *self.vocabulary.encode(text)] for text in texts]
        tokens = map(self.vocabulary.tokens, texts)
        return [self.vocabulary.ended(sequence, self.input_length) for sequence in tokens]


def filled(rows: Sequence[Sequence[int]]) -> np.ndarray:
    """int32 [b, l] of sequences of tokens, 0 after the end of each."""
    tokens = np.zeros((len(rows), max(map(len, rows), default=0)), np.int32)
    for row, own in zip(tokens, rows):
        row[: len(own)] = own
    return tokens


def load(folder: str | os.PathLike[str]) -> LoadedRun | LoadedClassifier:
    """See `spade_jax.load`."""
    run = open_run(Path(folder), "folder")
    if isinstance(run.model, ClassifierConfig):
        return load_classifier(run, model_of(run))
    return LoadedRun(
        workdir=run.workdir,
        step=run.step,
        why=run.why,
        model=model_of(run),
        vocabulary=vocabulary_of(run),
        config=run.model,
        settings=run.settings,
        input_length=run.input_length,
    )


def model_of(run: Run, mesh: Mesh | None = None) -> Any:
    """The model of a run with its parameters.

    Args:
      mesh: what it is spread over; None leaves it where JAX leaves arrays that nobody has placed.

    Raises:
      ConfigError: parameters that do not divide over the mesh.
      CheckpointError: what the checkpoint holds are not this model's.
    """
    create = builder(run.model)
    if mesh is not None:
        graph, shapes, _ = abstract_model(create, mesh)
        return nnx.merge(graph, run.checkpoints.restore_params(shapes, run.step))
    graph, variables = nnx.split(nnx.eval_shape(lambda: create(nnx.Rngs(0))))
    # Read by way of the host: Orbax would place them, and steps be compiled for that place, then
    # for the one where they leave them.
    places = jax.tree.map(
        lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),
        nnx.to_pure_dict(variables),
    )
    return nnx.merge(
        graph, jax.tree.map(jnp.asarray, run.checkpoints.restore_params(places, run.step))
    )


def vocabulary_of(run: Run) -> Vocabulary:
    """The vocabulary that a run was trained with.

    Raises:
      ConfigError: what now has its name is another one.
      DataError: nothing has.
    """
    vocabulary = load_vocabulary(run)
    require(
        vocabulary.digest == run.vocabulary_digest,
        "data.vocabulary",
        run.vocabulary,
        f"is not what {run.workdir} was trained with",
    )
    return vocabulary


@functools.lru_cache(maxsize=16)
def _continuation(
    graph: nnx.GraphDef, config: DecodingConfig, end_id: int, vocab_size: int
) -> Continuation:
    model = functools.partial(nnx.merge, graph)
    return Continuation(model, config, end_id=end_id, vocab_size=vocab_size)


@functools.lru_cache(maxsize=16)
def _generator(
    graph: nnx.GraphDef,
    config: DecodingConfig,
    end_id: int,
    vocab_size: int,
    batch_size: int,
    input_length: int,
) -> Callable[..., np.ndarray]:
    return make_generator(
        functools.partial(nnx.merge, graph),
        config,
        end_id=end_id,
        vocab_size=vocab_size,
        batch_size=batch_size,
        input_length=input_length,
    )
