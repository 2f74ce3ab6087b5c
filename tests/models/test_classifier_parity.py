"""The classifier's encoder against MEGA's for the Long Range Arena."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from golden_data import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, gradient_error, output_error
from mega_encoder import MegaEncoder
from mega_golden import by_name

from spade_jax.elements import Statistic, train


@pytest.mark.parametrize("name", ["mega_encoder_text_chunk", "mega_encoder_image_batchnorm"])
def test_encoder_is_that_of_the_authors(name):
    """In what is pooled, in every gradient, and in what batch norms keep."""
    encoder = MegaEncoder(name)
    golden, model = encoder.golden, encoder.classifier()
    numbers = "in/pixels" in golden
    inputs = golden["in/pixels"] if numbers else golden["in/tokens"]
    real = np.arange(inputs.shape[1]) < golden["in/lengths"][:, None]
    segments = jnp.asarray(real, jnp.int32)

    def pooled(model, inputs):
        return model.pool(model.encode(inputs, segment_ids=segments), segments)

    if numbers:
        assert output_error(pooled(model, inputs), golden["out/y_eval"]) < OUTPUT_TOLERANCE
    train(model)
    graph, state = nnx.split(model)

    def loss(state, inputs):
        model = nnx.merge(graph, state)
        y = pooled(model, inputs)
        return jnp.sum(y * golden["in/grad_y"]), (y, nnx.state(model, Statistic))

    run = jax.jit(jax.value_and_grad(loss, (0, 1) if numbers else 0, has_aux=True))
    (_, (y, statistics)), gradients = run(state, jnp.asarray(inputs))
    assert output_error(y, golden["out/y"]) < OUTPUT_TOLERANCE
    if numbers:
        gradients, of_pixels = gradients
        assert gradient_error(of_pixels, golden["grad/pixels"]) < GRADIENT_TOLERANCE
    found, expected = by_name(gradients), encoder.parameters("grad/")
    kept = encoder.all_statistics() if numbers else {}
    head = {"head/first/kernel", "head/first/bias"}
    assert expected.keys() | kept.keys() | head == found.keys()
    for own, gradient in expected.items():
        if np.abs(gradient).max() < 1e-12:  # What a batch norm takes away again.
            assert np.abs(found[own]).max() < 1e-5, own
        else:
            assert gradient_error(found[own], gradient) < GRADIENT_TOLERANCE, own
    measured = by_name(statistics)
    assert measured.keys() == kept.keys()
    for own, statistic in measured.items():
        assert output_error(statistic, kept[own]) < OUTPUT_TOLERANCE, own
