"""A classifier in memory: what `spade_jax.load` gives for a run that classifies."""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from spade_jax.config import ClassifierConfig, ConfigError, Range, from_dict, require
from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.data.classification.encoders import make_encoder
from spade_jax.data.classification.examples import encode
from spade_jax.objectives.classification import logits_of
from spade_jax.runs.open import Run
from spade_jax.training.config import MAX_BATCH


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedClassifier:
    """A classifier with its parameters and its configuration.

    Attributes:
      workdir: the folder.
      step: of the checkpoint that the parameters are of.
      why: the step, and why it is this one, such as "step 120, the best by accuracy".
      model: a Flax NNX module: `model(inputs, segment_ids=...)` gives logits.
      config: the model's configuration.
      data: the settings of the data that it was trained on.
      settings: the run's whole configuration, as nested dicts and lists.
    """

    workdir: Path
    step: int
    why: str
    model: Any
    config: ClassifierConfig
    data: ClassificationDataConfig
    settings: Mapping[str, Any]

    def classify(self, inputs: Iterable[Any], *, batch_size: int = 8) -> list[str]:
        """The name of the likeliest class of each input; a number where classes have no names.

        Arguments and errors are as of `probabilities`.
        """
        best = self.probabilities(inputs, batch_size=batch_size).argmax(axis=1)
        return [self.data.labels[k] if self.data.labels else str(k) for k in best]

    def probabilities(self, inputs: Iterable[Any], *, batch_size: int = 8) -> np.ndarray:
        """The probability of each class for each input: float32 [n, classes].

        The first call compiles.

        Args:
          inputs: texts, pairs of texts, or images in grey, uint8 [side, side], as in training; what
            is longer than in training is cut off.
          batch_size: how many are run at once.

        Raises:
          ConfigError: an input of another kind.
          DataError: one that cannot be encoded.
        """
        Range(1, MAX_BATCH).require("batch_size", batch_size)
        require(not isinstance(inputs, str), "inputs", inputs, "must be a list")
        rows = [self._row(value) for value in inputs]
        examples = encode(self.data, make_encoder(self.data), rows)
        graph, state = nnx.split(self.model)
        kind: Any = self.data.batch
        run = _scorer(graph, kind)
        found = [np.zeros((0, self.config.classes), np.float32)]
        for first in range(0, len(rows), batch_size):
            # The last batch is filled up with its last row.
            numbers = np.minimum(np.arange(first, first + batch_size), len(rows) - 1)
            found.append(np.asarray(run(state, examples.batch(numbers))))
        return np.concatenate(found)[: len(rows)]

    def generate(self, texts: Sequence[str], **how: Any) -> list[str]:
        """Raises ConfigError: a classifier writes nothing."""
        raise self._no_text("generate")

    def tokens(self, texts: Sequence[str]) -> np.ndarray:
        """Raises ConfigError: a classifier writes nothing, and what it reads may be no text."""
        raise self._no_text("tokens")

    def _no_text(self, method: str) -> ConfigError:
        return ConfigError(
            f"{method}: {self.workdir} is a run of a classifier, which writes nothing; must be "
            "`classify` or `probabilities`"
        )

    def _row(self, value: Any) -> tuple[Any, ...]:
        """The texts or the image of one input."""
        count = len(self.data.inputs)
        if self.config.vocab_size is None or self.data.encoding == "intensities":
            image = np.asarray(value)
            right = f"an image in grey, uint8 [{self.data.side}, {self.data.side}]"
            fits = image.dtype == np.uint8 and image.shape == (self.data.side,) * 2
            require(fits, "inputs", f"{image.dtype} {list(image.shape)}", f"must each be {right}")
            return (image,)
        texts = (value,) if isinstance(value, str) else tuple(value)
        fits = len(texts) == count and all(isinstance(text, str) for text in texts)
        require(fits, "inputs", value, f"must each be {'a text' if count == 1 else 'two texts'}")
        return texts


def load_classifier(run: Run, model: Any) -> LoadedClassifier:
    """A run of a classifier.

    Args:
      model: with its parameters.

    Raises:
      ConfigError: settings of its data that this version does not know.
    """
    assert isinstance(run.model, ClassifierConfig)
    return LoadedClassifier(
        workdir=run.workdir,
        step=run.step,
        why=run.why,
        model=model,
        config=run.model,
        data=from_dict(ClassificationDataConfig, run.data, "data"),
        settings=run.settings,
    )


@functools.lru_cache(maxsize=16)
def _scorer(graph: nnx.GraphDef, kind: Any) -> Callable[..., jax.Array]:
    """Args: `kind` is that of batches, see `ClassificationDataConfig.batch`."""

    @jax.jit
    def score(state: Any, arrays: Mapping[str, Any]) -> jax.Array:
        return jax.nn.softmax(logits_of(nnx.merge(graph, state), kind.of(arrays)))

    return score
