"""A classifier: a stack over tokens or numbers, pooled, and a head that scores classes."""

import jax
import jax.numpy as jnp
from flax import nnx

from spade_jax import partition
from spade_jax.config.model import ClassifierConfig
from spade_jax.elements import Linear, dropout, normal, split_key
from spade_jax.layers.stack import Stack
from spade_jax.models.tokens import look_up
from spade_jax.places import place


class Scalars(nnx.Module):
    """x w + b of each number of a sequence, which begins as MEGA's does."""

    def __init__(self, d: int, rngs: nnx.Rngs):
        self.weight = normal(rngs, (d,), 1.0, ("embed",))
        self.bias = normal(rngs, (d,), 0.1, ("embed",), decays=False)

    def __call__(self, x: jax.Array, dtype: str) -> jax.Array:
        """[b, l] -> [b, l, d]."""
        weight, bias = (partition.gathered(p[...], "embed") for p in (self.weight, self.bias))
        return (x[..., None] * weight + bias).astype(dtype)


class Head(nnx.Module):
    """W f + b, or W' GELU(dropout(W f + b)), of features f; float32."""

    def __init__(self, config: ClassifierConfig, rngs: nnx.Rngs):
        width, classes = config.head_width, config.classes
        self.dropout_rate = config.dropout_rate
        out = classes if width is None else width
        self.first = Linear(
            ("embed", "classes" if width is None else "mlp"),
            config.features,
            out,
            bias=True,
            rngs=rngs,
        )
        self.second = (
            None if width is None else Linear(("mlp", "classes"), width, classes, rngs=rngs)
        )

    def __call__(self, features: jax.Array, dropout_key: jax.Array | None) -> jax.Array:
        """[b, f] -> [b, classes]."""
        scores = self.first(features[:, None])
        if self.second is not None:
            hidden = dropout(scores, self.dropout_rate, dropout_key)
            scores = self.second(jax.nn.gelu(hidden, approximate=False))
        return scores[:, 0]


class Classifier(nnx.Module):
    """Scores the classes of sequences, or of pairs of them.

    Dropout draws from the key that a call brings. Parameters are float32; activations are of
    `config.dtype` up to the layers' end; what is pooled, and the head, are float32.
    """

    def __init__(self, config: ClassifierConfig, rngs: nnx.Rngs):
        self.config = config
        d = config.d_model
        self.embedding: nnx.Param | Scalars
        if config.vocab_size is None:
            self.embedding = Scalars(d, rngs)
        else:
            std = d**-0.5 if config.embedding_std is None else config.embedding_std
            self.embedding = normal(rngs, (config.vocab_size, d), std, ("vocab", "embed"))
        self.encoder = Stack(
            config, config.encoder, causal=config.causal, cross_attention=False, rngs=rngs
        )
        self.head = Head(config, rngs)

    def __call__(
        self,
        inputs: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """The logits of classes.

        Args:
          inputs: tokens, int [b, l], or numbers, float [b, l]; of pairs [b, 2, l].
          segment_ids: int, of the shape of inputs: 1 for what is real, which comes first, and 0
            for padding; None: there is none. A row without anything real has some logits, too.
          dropout_key: None drops nothing.

        Returns:
          Float32 [b, classes].
        """
        keys = split_key(dropout_key, 2)
        pooled = self._pooled(inputs, segment_ids, keys[0])
        with place("head"):
            return self.head(self._features(pooled), keys[1])

    def encode(
        self,
        inputs: jax.Array,
        *,
        segment_ids: jax.Array | None = None,
        dropout_key: jax.Array | None = None,
    ) -> jax.Array:
        """Sequences [b, l] -> [b, l, d], what the layers make of them."""
        with place("embedding"):
            if isinstance(self.embedding, Scalars):
                x = self.embedding(inputs, self.config.dtype)
            else:
                x = look_up(self.embedding, inputs, self.config.dtype)
        return self.encoder(x, segment_ids=segment_ids, dropout_key=dropout_key)[0]

    def pool(self, encoded: jax.Array, segment_ids: jax.Array | None = None) -> jax.Array:
        """Float32 [b, d], what stands for sequences [b, l, d]."""
        shape = encoded.shape[:2]
        real = jnp.ones(shape, bool) if segment_ids is None else segment_ids != 0
        count = jnp.maximum(real.sum(axis=1, keepdims=True), 1)
        if self.config.pooling == "mean":
            weights = real / count
        else:
            number = 0 if self.config.pooling == "first" else count - 1
            weights = jnp.arange(shape[1])[None] == number
        # A product, whichever: devices that share a sequence need not look for one place.
        return jnp.einsum(
            "bl,bld->bd",
            jnp.broadcast_to(weights, shape).astype(jnp.float32),
            encoded.astype(jnp.float32),
            precision="highest",
        )

    def _pooled(
        self, inputs: jax.Array, segment_ids: jax.Array | None, dropout_key: jax.Array | None
    ) -> jax.Array:
        """[b, d], or [b, 2, d] of pairs."""

        # One sequence beside the other: no row leaves its device, and all are normalised together.
        def in_rows(array: jax.Array) -> jax.Array:
            rows = array.reshape(-1, array.shape[-1])
            return partition.constrain(rows, "batch", "length")

        own = None if segment_ids is None else in_rows(segment_ids)
        encoded = self.encode(in_rows(inputs), segment_ids=own, dropout_key=dropout_key)
        with place("pooling"):
            pooled = self.pool(encoded, own)
            return pooled.reshape(*inputs.shape[:-1], pooled.shape[-1])

    def _features(self, pooled: jax.Array) -> jax.Array:
        """[b, f] of pooled [b, d], or [b, 2, d] of pairs."""
        if self.config.pair is None:
            return pooled
        a, b = pooled[:, 0], pooled[:, 1]
        parts = [b, a] if self.config.pair == "concat" else [a, b, a * b, a - b]
        return jnp.concatenate(parts, axis=-1)
