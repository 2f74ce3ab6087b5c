"""S4D's block, with its gated output, against its authors' code."""

import numpy as np
import pytest
from authors import assign
from flax import nnx
from golden_data import GRADIENT_TOLERANCE, OUTPUT_TOLERANCE, Golden, gradient_error, output_error
from mega_golden import loss_and_gradients
from stacks import model

from spade_jax.mixers import S4
from spade_jax.mixers.s4.module import StateSpaceMixer
from spade_jax.ops.ssm.kernel import kernel


def ours(golden, prefix):
    weight, bias = (golden[f"{prefix}output_linear.0.{part}"] for part in ("weight", "bias"))
    (output, gate), (output_bias, gate_bias) = np.split(weight[..., 0], 2), np.split(bias, 2)
    return {
        "a_log_decay": golden[f"{prefix}kernel.log_A_real"],
        "a_frequency": golden[f"{prefix}kernel.A_imag"],
        "c": golden[f"{prefix}kernel.C"][None],
        "d": golden[f"{prefix}D"],
        "log_dt": golden[f"{prefix}kernel.log_dt"],
        "output/kernel": output.T,
        "output/bias": output_bias,
        "gate/kernel": gate.T,
        "gate/bias": gate_bias,
    }


@pytest.mark.parametrize("name", ["s4d_block", "s4d_block_large_dt"])
def test_block_is_that_of_the_authors(name):
    golden = Golden(name)
    config = S4(
        init="diag-lin",
        state_size=golden.config["d_state"],
        discretization="zoh",
        output="glu",
        chunk_length=8,
    )
    width = golden.config["d_model"]
    module = StateSpaceMixer(config, model("s4", d_model=width), causal=True, rngs=nnx.Rngs(0))
    # Theirs is always 1.
    ones = {"b": np.stack([np.ones_like(golden["param/kernel.A_imag"])] * 2, axis=-1) * [1.0, 0.0]}
    module = assign(module, ours(golden, "param/") | ones)
    y, gradients, _ = loss_and_gradients(module, golden)
    assert output_error(y, golden["out/y"]) < OUTPUT_TOLERANCE
    for own, expected in (ours(golden, "grad/") | {"x": golden["grad/x"]}).items():
        assert gradient_error(gradients[own], expected) < GRADIENT_TOLERANCE, own

    long = golden["out/kernel_long"]

    @nnx.jit
    def taps(module):
        return kernel(*module._discrete(), long.shape[-1])[0]

    assert output_error(taps(module), long) < OUTPUT_TOLERANCE
    np.testing.assert_array_equal(long[:, : golden["out/kernel"].shape[-1]], golden["out/kernel"])
