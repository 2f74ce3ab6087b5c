"""SPADE, the State sPace AugmenteD transformEr, in JAX and Flax."""

import os
from typing import TYPE_CHECKING

# So that patterns and configuration files know every kind of mixer.
import spade_jax.mixers  # noqa: F401

if TYPE_CHECKING:
    from spade_jax.loaded_classifier import LoadedClassifier
    from spade_jax.loading import LoadedRun


def load(folder: str | os.PathLike[str]) -> "LoadedRun | LoadedClassifier":
    """The run in a folder: its model with parameters, its vocabulary and its configuration.

        run = spade_jax.load("runs/quickstart")
        run.why  # which checkpoint it is: the best one, if the run knows which, or the newest
        run.generate(["The state of the <extra_id_0> is strong."], beams=4)

    A classifier has `classify` instead of `generate`. See docs/python.md. Everything lies on one
    device.

    Raises:
      ConfigError: the folder is none of a run, or the vocabulary is another one now.
      RunError: its checkpoints cannot be read; the message says what is missing or damaged.
    """
    from spade_jax.programs import quiet_imports

    # Only here, so that configuration files and `--help` need no JAX.
    with quiet_imports():
        from spade_jax import loading

    return loading.load(folder)
