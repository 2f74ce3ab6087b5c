"""A second objective, and the model for it, as a plug: nothing else knows of them."""

import dataclasses
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from spade_jax.config import ModelConfig
from spade_jax.elements import normal
from spade_jax.layers.stack import Stack
from spade_jax.models.build import KINDS
from spade_jax.models.flops import stack_flops
from spade_jax.objectives.base import Objective
from spade_jax.objectives.batch import Batch, Feature
from spade_jax.objectives.config import LossConfig
from spade_jax.objectives.tokens import TokenSums, token_metrics, token_sums
from spade_jax.ops.token_scores import scores_of_logits


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """A model of text: the decoder's layers of `layers`, without an encoder."""

    layers: ModelConfig

    @property
    def vocab_size(self) -> int:
        return self.layers.vocab_size


class TextModel(nnx.Module):
    """A bare causal stack between an embedding and itself."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs):
        layers = config.layers
        self.embedding = normal(rngs, (layers.vocab_size, layers.d_model), 0.1, ("vocab", "embed"))
        self.stack = Stack(layers, layers.decoder, causal=True, cross_attention=False, rngs=rngs)

    def __call__(self, tokens, segment_ids, dropout_key):
        x = self.embedding[...][tokens]
        y, _ = self.stack(x, segment_ids=segment_ids, dropout_key=dropout_key)
        return y @ self.embedding[...].T


KINDS[TextConfig] = TextModel


@dataclasses.dataclass(frozen=True)
class TextBatch(Batch):
    """Rows of text, int32 [b, l]; 0 is padding."""

    SEQUENCES = ("text",)

    text: Annotated[Any, Feature("text", "text")]

    @property
    def num_tokens(self) -> int:
        return int(np.count_nonzero(self.text))


class NextToken(Objective):
    """The cross entropy of each token, given those before."""

    batch, sums, model = TextBatch, TokenSums, TextConfig

    def __call__(self, model: Any, batch: TextBatch, key: jax.Array | None) -> TokenSums:
        counts = batch.text != 0
        before = jnp.pad(batch.text, ((0, 0), (1, 0)))[:, :-1]
        logits = model(before, counts.astype(jnp.int32), key)
        scores = scores_of_logits(logits, batch.text)
        return token_sums(scores, counts, LossConfig())

    def measure(self, model: Any, batch: TextBatch) -> TokenSums:
        return self(model, batch, None)

    def metrics(self, sums: Any, text_bytes: float) -> dict[str, float]:
        return token_metrics(sums, None)

    def flops(self, config: TextConfig, rows: int, lengths: Any) -> int:
        layers, (length,) = config.layers, lengths
        logits = 2 * length * layers.d_model * layers.vocab_size
        return 3 * rows * (stack_flops(layers, layers.decoder, length, causal=True) + logits)
