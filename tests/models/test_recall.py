"""The decoder learns to read from the encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from spade_jax.config import AttentionConfig, StackConfig
from spade_jax.mixers import Window
from spade_jax.models.encoder_decoder import EncoderDecoder
from spade_jax.models.presets import preset

PAIRS, KEYS, VALUES = 6, np.arange(1, 9), np.arange(16, 24)


def batch(random, size):
    """Rows k1 v1 k2 v2 … for the encoder; for the decoder the same pairs in another order."""
    keys = np.stack([random.permutation(KEYS)[:PAIRS] for _ in range(size)])
    pairs = np.stack([keys, random.choice(VALUES, (size, PAIRS))], axis=-1)
    asked = random.permuted(np.tile(np.arange(PAIRS), (size, 1)), axis=1)
    again = np.take_along_axis(pairs, asked[..., None], axis=1)
    return pairs.reshape(size, -1), again.reshape(size, -1)


def test_values_are_recalled_by_their_keys():
    """Each key is asked for its value, which only the encoder has seen: guessing has 1 in 8."""
    config = preset(
        "tiny",
        vocab_size=32,
        d_model=32,
        d_ff=64,
        mixers={"window": Window(3)},
        attention=AttentionConfig(num_heads=4, head_dim=8),
        encoder=StackConfig("s4+window:concat, window"),
        decoder=StackConfig("full"),
    )
    graph, parameters = nnx.split(EncoderDecoder(config, nnx.Rngs(0)))

    def rates(tree):
        # Relative biases begin near zero and must reach order 1; Adam moves them by a rate a step.
        return jax.tree_util.tree_map_with_path(
            lambda path, _: "biases" if "table" in jax.tree_util.keystr(path) else "others", tree
        )

    optimizer = optax.partition({"biases": optax.adam(3e-2), "others": optax.adam(4e-3)}, rates)

    def loss(parameters, encoder_tokens, decoder_tokens):
        logits = nnx.merge(graph, parameters)(encoder_tokens, decoder_tokens[:, :-1])
        logits, values = logits[:, ::2], decoder_tokens[:, 1::2]
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, values)
        return losses.mean(), (logits.argmax(-1) == values).mean()

    @jax.jit
    def update(parameters, slots, *tokens):
        gradients, accuracy = jax.grad(loss, has_aux=True)(parameters, *tokens)
        updates, slots = optimizer.update(gradients, slots, parameters)
        return optax.apply_updates(parameters, updates), slots, accuracy

    random = np.random.default_rng(0)
    slots = optimizer.init(parameters)
    for _ in range(120):
        tokens = (jnp.asarray(array) for array in batch(random, 32))
        parameters, slots, accuracy = update(parameters, slots, *tokens)
    # Of the batch before its update, and so of pairs that were not trained on.
    assert accuracy > 0.99
