"""What models that read and write tokens have in common: the embedding and the logits."""

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax import partition
from spade_jax.config.adaptive import AdaptiveConfig
from spade_jax.config.model import TokenModelConfig
from spade_jax.elements import normal
from spade_jax.layers.adaptive_vocabulary import AdaptiveVocabulary
from spade_jax.ops.precision import matmul_precision
from spade_jax.ops.token_scores import TokenScores, token_scores
from spade_jax.places import place


def look_up(embedding: nnx.Param, tokens: jax.Array, dtype: str) -> jax.Array:
    """Rows of an embedding [v, d]: int [b, l] -> [b, l, d]."""
    # Put together where it is used, as other parameters are, and not its rows for each token.
    table = partition.gathered(embedding[...], "vocab", "embed")
    return jnp.take(table, tokens, axis=0, mode="clip").astype(dtype)


class TokenModel(nnx.Module):
    """An embedding of tokens, and an output matrix that may be the same.

    There is no random state in such a model: dropout draws from the key that a call brings.
    Parameters are float32; activations are of `config.dtype`; logits are float32.
    """

    def __init__(
        self, config: TokenModelConfig, rngs: nnx.Rngs, adaptive: AdaptiveConfig | None = None
    ):
        """adaptive: of a vocabulary in bands."""
        self.config = config
        self.embedding: nnx.Param | AdaptiveVocabulary
        if adaptive is not None:
            v, d = config.num_embeddings, config.d_model
            self.embedding = AdaptiveVocabulary(adaptive, v, d, rngs)
            return
        # Where tied logits are not scaled down, the embedding is.
        d = config.d_model
        std = d**-0.5 if config.tie_embeddings and not config.scale_logits else 1.0
        self.embedding = normal(rngs, (config.num_embeddings, d), std, ("vocab", "embed"))

    def add_output(self, rngs: nnx.Rngs) -> None:
        """The output matrix, where it is not the embedding: made after the layers."""
        v, d = self.config.num_embeddings, self.config.d_model
        tied = self.config.tie_embeddings
        self.output = None if tied else normal(rngs, (v, d), d**-0.5, ("vocab", "embed"))

    @place("embedding")
    def embed(self, tokens: jax.Array) -> jax.Array:
        """int [b, l] -> [b, l, d]."""
        if isinstance(self.embedding, AdaptiveVocabulary):
            return self.embedding.embed(tokens, self.config.dtype)
        return look_up(self.embedding, tokens, self.config.dtype)

    @place("logits and loss")
    def logits(self, y: jax.Array) -> jax.Array:
        """What the layers give, [b, t, d] -> float32 [b, t, v]; of a vocabulary in bands these are
        log-probabilities."""
        if isinstance(self.embedding, AdaptiveVocabulary):
            return self.embedding.log_probabilities(y)
        logits = jnp.einsum(
            "btd,vd->btv",
            self._scaled(y),
            self._matrix().astype(y.dtype),
            precision=matmul_precision(y.dtype),
            preferred_element_type=jnp.float32,
        )
        return partition.constrain(logits, "batch", "length", "vocab")

    def scores(
        self, y: jax.Array, targets: jax.Array, dropout_key: jax.Array | None = None
    ) -> TokenScores:
        """What the loss needs of the logits of targets [b, t], which are never all in memory."""
        if isinstance(self.embedding, AdaptiveVocabulary):
            return self.embedding.scores(y, targets, dropout_key)
        with place("logits and loss"):
            return token_scores(self._scaled(y), self._matrix(), targets)

    def _scaled(self, y: jax.Array) -> jax.Array:
        if not self.config.scale_logits:
            return y
        return y * jnp.asarray(self.config.d_model**-0.5, y.dtype)

    def _matrix(self) -> jax.Array:
        """[v, d], by which the scaled output becomes logits."""
        matrix = self.embedding if self.output is None else self.output
        assert isinstance(matrix, nnx.Param)
        return matrix[...]
