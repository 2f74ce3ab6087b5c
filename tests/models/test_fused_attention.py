"""A model by fused attention gives the loss and gradients that it gives by XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from spade_jax.config import AttentionConfig
from spade_jax.models.encoder_decoder import EncoderDecoder
from spade_jax.models.presets import preset
from spade_jax.ops import dispatch


@pytest.mark.slow
def test_a_model_learns_the_same_by_fused_attention():
    """Packed, with dropout, layers scanned and rematerialised."""
    rng = np.random.default_rng(0)
    inputs, targets = (rng.integers(1, 90, (2, length)) for length in (200, 70))
    segments = [
        np.minimum(np.arange(length)[None] // 40, 2) % 3 + np.ones((2, 1), int)
        for length in (200, 70)
    ]

    def loss_and_gradients(implementation):
        attention = AttentionConfig(num_heads=2, head_dim=32, implementation=implementation)
        config = preset("tiny", vocab_size=96, attention=attention, dropout_rate=0.1, remat="dots")
        graph, state = nnx.split(EncoderDecoder(config, nnx.Rngs(0)))

        def loss(state):
            logits = nnx.merge(graph, state)(
                inputs,
                targets,
                encoder_segment_ids=segments[0],
                decoder_segment_ids=segments[1],
                dropout_key=jax.random.key(1),
            )
            return jnp.mean(jax.nn.logsumexp(logits, axis=-1) - logits[..., 3])

        return jax.jit(jax.value_and_grad(loss))(state)

    with dispatch.interpreted():
        fused = loss_and_gradients("pallas_gpu")
    expected = loss_and_gradients("xla")
    for result, reference in zip(jax.tree.leaves(fused), jax.tree.leaves(expected)):
        scale = np.abs(reference).max()
        np.testing.assert_allclose(result / scale, reference / scale, rtol=0, atol=2e-5)
