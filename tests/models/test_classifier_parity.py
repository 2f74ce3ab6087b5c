"""The classifier's encoder against MEGA's for the Long Range Arena."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_data import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, gradient_error, output_error
from mega_golden import MegaEncoder

from spade_jax.elements import train


def pooled(model, inputs, lengths):
    """What stands for each sequence, float32 [b, d]."""
    real = (np.arange(inputs.shape[1]) < lengths[:, None]).astype(np.int32)
    return model.pool(model.encode(inputs, segment_ids=real), real)


@pytest.mark.parametrize("name", ["mega_encoder_text_chunk", "mega_encoder_image_batchnorm"])
def test_encoder_is_that_of_the_authors(name):
    """In what is pooled and in every gradient; statistics are those of a training call."""
    encoder = MegaEncoder(name)
    golden, model = encoder.golden, encoder.classifier()
    lengths = golden["in/lengths"]
    numbers = "in/pixels" in golden
    inputs = golden["in/pixels"] if numbers else golden["in/tokens"]
    if numbers:
        assert output_error(pooled(model, inputs, lengths), golden["out/y_eval"]) < OUTPUT_TOLERANCE
    train(model)
    graph, params = nnx.split(model)

    @jax.jit
    def run(params, inputs):
        def loss(params, inputs):
            model = nnx.merge(graph, params)
            y = pooled(model, inputs, lengths)
            return jnp.sum(y * golden["in/grad_y"]), (y, nnx.state(model))

        by = (0, 1) if numbers else 0
        return jax.value_and_grad(loss, argnums=by, has_aux=True)(params, inputs)

    (_, (y, after)), gradients = run(params, jnp.asarray(inputs))
    assert output_error(y, golden["out/y"]) < OUTPUT_TOLERANCE
    if numbers:
        gradients, of_pixels = gradients
        assert gradient_error(of_pixels, golden["grad/pixels"]) < GRADIENT_TOLERANCE
    found = {"/".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(gradients)}
    expected = encoder.whole("grad/")
    # Rounding, and not a gradient: a bias before what takes the mean away.
    expected = {own: array for own, array in expected.items() if np.abs(array).max() > 1e-10}
    assert len(expected) > 20
    for own, gradient in expected.items():
        assert gradient_error(found[own], gradient) < GRADIENT_TOLERANCE, own
    if numbers:
        measured = {"/".join(map(str, path)): leaf[...] for path, leaf in nnx.to_flat_state(after)}
        for own, array in encoder.statistics().items():
            assert output_error(measured[own], array) < OUTPUT_TOLERANCE, own
