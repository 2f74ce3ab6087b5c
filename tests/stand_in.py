"""A model with the interface of the real ones that compiles in a blink."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from spade_jax.elements import Norm
from spade_jax.models.presets import preset
from spade_jax.objectives.seq2seq_batch import Seq2SeqBatch
from spade_jax.ops.token_scores import scores_of_logits

VOCAB, WIDTH, LAYERS = 16, 8, 2
NORMED = preset("tiny", vocab_size=VOCAB, d_model=VOCAB, norm="batch", norm_epsilon=1e-5)


class StandIn(nnx.Module):
    """Mean of the encoder's embeddings (through an "ssm") plus the decoder's, then two layers."""

    def __init__(self, rngs: nnx.Rngs, dropout_rate: float = 0.0):
        def normal(*shape: int) -> jax.Array:
            return 0.3 * jax.random.normal(rngs.params(), shape)

        self.dropout_rate = dropout_rate
        self.embedding = nnx.Param(normal(VOCAB, WIDTH), axes=("vocab", "embed"))
        self.ssm_a = nnx.Param(normal(WIDTH), axes=("embed",))
        self.layers = nnx.Param(normal(LAYERS, WIDTH, WIDTH), axes=("embed", "embed"))
        self.norm = nnx.Param(jnp.ones(WIDTH), axes=("embed",))

    def __call__(
        self,
        encoder_tokens,
        decoder_tokens,
        *,
        encoder_segment_ids=None,
        decoder_segment_ids=None,
        encoder_positions=None,
        decoder_positions=None,
        dropout_key=None,
        targets=None,
    ):
        x_bld = self.embedding[encoder_tokens] * jnp.exp(self.ssm_a[...])[None, None]
        if encoder_segment_ids is not None:
            x_bld = jnp.where((encoder_segment_ids > 0)[..., None], x_bld, 0.0)
        y_btd = self.embedding[decoder_tokens] + x_bld.sum(axis=1, keepdims=True)
        if dropout_key is not None and self.dropout_rate > 0:
            keep = jax.random.bernoulli(dropout_key, 1 - self.dropout_rate, y_btd.shape)
            y_btd = jnp.where(keep, y_btd / (1 - self.dropout_rate), 0.0)
        for layer in range(LAYERS):
            y_btd = y_btd + jnp.tanh(y_btd @ self.layers[layer])
        logits = (y_btd * self.norm[...][None, None]) @ self.embedding[...].T
        return logits if targets is None else scores_of_logits(logits, targets)


def batch(seed: int, size: int = 8, length: int = 6) -> dict[str, np.ndarray]:
    """Random rows with between one and `length` target tokens."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(1, VOCAB, (size, length), dtype=np.int32)
    targets *= np.arange(length)[None] < rng.integers(1, length + 1, (size, 1))
    inputs = rng.integers(1, VOCAB, (size, 2 * length), dtype=np.int32)
    return Seq2SeqBatch.unpacked(inputs, targets).named()


class Normed(nnx.Module):
    """A stand-in whose logits are normalised over the batch."""

    def __init__(self, rngs: nnx.Rngs):
        self.inner, self.norm = StandIn(rngs), Norm(NORMED)

    def __call__(self, *args, targets=None, **kwargs):
        logits = self.norm(self.inner(*args, **kwargs), kwargs["decoder_segment_ids"])
        return logits if targets is None else scores_of_logits(logits, targets)
