"""MEGA's moving average against the authors' code, and by its definition."""

import numpy as np
import pytest
import scipy.special
from authors import assign
from flax import nnx
from golden_data import (
    GRADIENT_TOLERANCE,
    OUTPUT_TOLERANCE,
    Golden,
    gradient_error,
    output_error,
)
from mega_golden import average, context, in_pieces, loss_and_gradients, tokens

from spade_jax.mixers import EMA
from spade_jax.mixers.ema.module import MovingAverage

METHODS = ("chunked", "fft", "reference")
# Each with one way to run it; the ways are held against each other in tests/ops/ssm.
NAMES = {
    "bi_n16": "fft",
    "bi_n2_pad": "chunked",
    "bi_n4_trunc": "chunked",
    "uni_n1": "reference",
    "uni_n16_trunc": "reference",
    "uni_n2": "reference",
}


def moving_average(golden, method="chunked"):
    config = golden.config
    mixer = EMA(
        state_size=config["ndim"],
        max_kernel_length=config.get("truncation"),
        convolution=method,
        chunk_length=4,
    )
    causal = not config["bidirectional"]
    module = MovingAverage(mixer, config["embed_dim"], causal=causal, rngs=nnx.Rngs(0))
    return assign(module, average(golden, "param/"))


@pytest.mark.parametrize(("name", "method"), NAMES.items())
def test_average_is_that_of_the_authors(name, method):
    golden = Golden(f"mega_ema_{name}")
    y, gradients, _ = loss_and_gradients(moving_average(golden, method), golden)
    assert output_error(y, golden["out/y"], tokens(golden)) < OUTPUT_TOLERANCE
    expected = average(golden, "grad/") | {"x": golden["grad/x"]}
    assert gradients.keys() == expected.keys()
    for own, gradient in gradients.items():
        assert gradient_error(gradient, expected[own]) < GRADIENT_TOLERANCE, own


@pytest.mark.parametrize("method", METHODS)
def test_an_impulse_gives_the_kernels_of_both_directions(method):
    """Each cut after as many taps, of which the first is the token itself."""
    golden = Golden("mega_ema_bi_n4_trunc")
    forward, backward = np.split(golden["out/kernel"].T, 2, axis=1)
    taps, length, at = forward.shape[0], 31, 14
    expected = np.zeros((length, forward.shape[1]))
    x = np.zeros((1, *expected.shape), np.float32)
    x[0, at] = 1.0
    expected[at : at + taps] += forward
    expected[at - taps + 1 : at + 1] += backward[::-1]
    expected[at] += golden["param/omega"]
    seen = context(np.ones((1, length), np.int32))
    run = nnx.jit(lambda module, x: module(x, seen)[0])
    y = run(moving_average(golden, method), x)
    np.testing.assert_allclose(y[0], expected / (1 + np.exp(-expected)), atol=2e-6)


def test_pieces_and_state_are_those_of_the_authors():
    golden = Golden("mega_ema_uni_n2")
    module, x = moving_average(golden), golden["in/x"]
    y = in_pieces(module, x, tuple(golden.config["pieces"]))
    assert output_error(y, golden["out/y_pieces"], tokens(golden)) < OUTPUT_TOLERANCE
    assert output_error(y, golden["out/y_step"], tokens(golden)) < OUTPUT_TOLERANCE


def test_steps_forget_what_the_kernel_does():
    """The authors' steps never cut the kernel."""
    golden = Golden("mega_ema_uni_n16_trunc")
    y = in_pieces(moving_average(golden), golden["in/x"], (5, 1, 17))
    assert output_error(y, golden["out/y"]) < OUTPUT_TOLERANCE
    assert output_error(golden["out/y_step"], golden["out/y"]) > 0.001


def test_it_begins_with_short_memories_of_both_signs():
    module = MovingAverage(EMA(), 64, causal=True, rngs=nnx.Rngs(0))
    p, q = (scipy.special.expit(module_part[...]) for module_part in (module.alpha, module.delta))
    decay = 1 - p * q
    assert 0.7 < decay.mean() < 0.8
    assert decay.max() < 0.9
    assert np.all(np.sign(module.beta[...][0, 0]) == np.where(np.arange(16) % 2, -1, 1))
