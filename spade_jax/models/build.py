"""A model from its configuration: the class of a configuration is the kind of its model."""

import functools
from collections.abc import Callable
from typing import Any

from flax import nnx

from spade_jax.config import ClassifierConfig, DecoderOnlyConfig, EncoderDecoderConfig
from spade_jax.models.classifier import Classifier
from spade_jax.models.decoder_only import DecoderOnly
from spade_jax.models.encoder_decoder import EncoderDecoder

# The model (configuration, rngs) of each class of configurations.
KINDS: dict[type, Callable[[Any, nnx.Rngs], nnx.Module]] = {
    EncoderDecoderConfig: EncoderDecoder,
    DecoderOnlyConfig: DecoderOnly,
    ClassifierConfig: Classifier,
}


def builder(config: Any) -> Callable[[nnx.Rngs], nnx.Module]:
    """What makes the model of a configuration, with random parameters.

    Raises:
      TypeError: no kind of model is configured by this class.
    """
    kind = KINDS.get(type(config))
    if kind is None:
        known = ", ".join(each.__name__ for each in KINDS)
        raise TypeError(f"model = {type(config).__name__}: must be one of {known}")
    return functools.partial(kind, config)
