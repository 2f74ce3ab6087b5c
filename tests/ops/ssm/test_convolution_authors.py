"""The three convolutions against the authors' S4 module."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden_data import (
    GRADIENT_TOLERANCE,
    OUTPUT_TOLERANCE,
    SSM_GRADIENT_TOLERANCE,
    Golden,
    gradient_error,
    output_error,
)
from stored import dplr

from spade_jax.ops.ssm.convolution import METHODS, convolve
from spade_jax.ops.ssm.discrete import discretize


def module(params, x, **settings):
    """The authors' S4 module, y_t = (K * u)_t + D u_t, outputs [b, l, channels, d]."""
    kernel = {key.split(".")[-1]: value for key, value in params.items() if "kernel." in key}
    (skip,) = (value for key, value in params.items() if key.split(".")[-1] == "D")
    system, c = dplr(kernel)
    y = convolve(discretize(system, "bilinear"), c, x, chunk_length=8, **settings)
    return y + skip[None, None] * x[:, :, None]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "name",
    [
        "s4_module_lm_h8",
        "s4_module_lm_h12_ssm1",
        "s4_module_bidir_h8",
        "s4_module_bidir_h12_ssm3",
    ],
)
def test_module_is_that_of_the_authors(name, method):
    golden = Golden(name)
    bidirectional = "bidir" in name
    settings = {
        "method": method,
        "bidirectional": bidirectional,
        "max_kernel_length": golden.config["l_max"],  # some sequences are longer
    }

    def valid(length):
        if bidirectional:
            return golden[f"in/valid_L{length}"]
        return 1 - golden[f"in/padding_mask_L{length}"]

    inputs = {n: (golden[f"in/x_L{n}"], valid(n)) for n in golden.config["Ls"]}

    @jax.jit
    def compute(params, inputs):
        return {
            n: (module(params, x, **settings), module(params, x, segment_ids=mask, **settings))
            for n, (x, mask) in inputs.items()
        }

    for n, (y, y_masked) in compute(golden.group("param/"), inputs).items():
        assert output_error(y[:, :, 0], golden[f"out/y_L{n}"]) < OUTPUT_TOLERANCE, n
        error = output_error(y_masked[:, :, 0], golden[f"out/y_masked_L{n}"], where=valid(n))
        assert error < OUTPUT_TOLERANCE, n


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["s4_module_lm_h8", "s4_module_lm_h12_ssm1"])
def test_gradients_are_those_of_the_authors(name, method):
    golden = Golden(name)
    length = golden.config["Ls"][0]
    tokens = 1.0 - golden[f"in/padding_mask_L{length}"][..., None].astype(np.float32)

    def loss(params, x):
        # Their loss takes the outputs at padding in, so that this is no `segment_ids`.
        y = module(params, x * tokens, method=method, max_kernel_length=golden.config["l_max"])
        return jnp.sum(y[:, :, 0] * golden["in/grad_y"])

    params = golden.group("param/")
    del params["s4.kernel.kernel.L"]
    gradients, x_gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))(
        params, golden[f"in/x_L{length}"]
    )
    assert gradient_error(x_gradient, golden["grad/x"]) < GRADIENT_TOLERANCE
    expected = golden.group("gradraw/")
    assert gradients.keys() == expected.keys()
    for key, gradient in gradients.items():
        tolerance = GRADIENT_TOLERANCE if key == "s4.D" else SSM_GRADIENT_TOLERANCE
        assert gradient_error(gradient, expected[key]) < tolerance, key


@pytest.mark.parametrize("name", ["s4_module_channels2", "s4_module_channels2_bidir"])
def test_channels_are_those_of_the_authors(name):
    golden = Golden(name)
    bidirectional = golden.config["bidirectional"]

    @jax.jit
    def compute(params, x):
        settings = {"bidirectional": bidirectional, "max_kernel_length": golden.config["l_max"]}
        return {method: module(params, x, method=method, **settings) for method in METHODS}

    for method, y in compute(golden.group("param/"), golden["in/x"]).items():
        y = y.reshape(*y.shape[:2], -1)  # feature channel * H + h
        assert output_error(y, golden["out/y"]) < OUTPUT_TOLERANCE, method
