import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definition import dense_system, kernel_by_definition, random_parameters
from golden_data import OUTPUT_TOLERANCE, Golden, as_complex, output_error
from stored import diagonal, dplr

from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout
from spade_jax.ops.ssm.kernel import block_operators, delayed_readout, kernel
from spade_jax.ops.ssm.transition import einsum, real_state

NPLR = ["s4_kernel_nplr_h4_n16", "s4_kernel_nplr_h6_n32_c2_ssm2"]


@pytest.mark.parametrize("name", NPLR)
def test_dplr_kernels_are_those_of_the_authors(name):
    golden = Golden(name)
    lengths = golden.config["Ls"]

    @jax.jit
    def compute(params, state):
        system, c = dplr(params)
        discrete = discretize(system, "bilinear")
        read = block_operators(discrete, c, max(lengths)).read
        response = einsum("lcdn,bdn->bcdl", read, state)
        return {length: kernel(discrete, c, length) for length in lengths}, response

    kernels, response = compute(golden.group("param/"), real_state(golden["in/state"]))
    for length, taps in kernels.items():
        keys = [key for key in golden.arrays if key.startswith("out/kernel_lmax")]
        keys = [key for key in keys if key.endswith(f"_L{length}")]
        assert len(keys) >= 2  # whatever the internal length of the authors' module
        for key in keys:
            assert output_error(taps, golden[key]) < OUTPUT_TOLERANCE, key
        true = golden["out/kernel_true_L100"][..., :length]
        assert output_error(taps, true) < OUTPUT_TOLERANCE
    assert output_error(response, golden["out/k_state"]) < OUTPUT_TOLERANCE


@pytest.mark.parametrize("name", ["s4_module_bidir_h8", "s4_module_bidir_h12_ssm3"])
def test_kernels_of_both_directions_are_those_of_the_authors(name):
    golden = Golden(name)
    expected = golden["out/kernels_true"]

    @jax.jit
    def compute(params):
        system, c = dplr(params)
        return kernel(discretize(system, "bilinear"), c, expected.shape[-1])

    taps = compute(golden.group("param/s4.kernel.kernel."))
    assert output_error(taps, expected) < OUTPUT_TOLERANCE


@pytest.mark.parametrize("name", NPLR)
def test_delayed_readout_gives_the_authors_modified_readout(name):
    # They store C (I - A^L), L being the length that their kernel was made for.
    golden = Golden(name)
    modified = golden.group("after/C_")
    lengths = {key: int(golden[f"after/L_{key}"]) for key in modified}

    @jax.jit
    def compute(params):
        system, c = dplr(params)
        discrete = discretize(system, "bilinear")
        return {length: c - delayed_readout(discrete, c, length) for length in lengths.values()}

    ours = compute(golden.group("param/"))
    for key, length in lengths.items():
        theirs = readout(as_complex(modified[key]))
        assert output_error(ours[length], theirs) < OUTPUT_TOLERANCE, key


@pytest.mark.parametrize("name", ["inv", "legs", "lin"])
@pytest.mark.parametrize("method", ["bilinear", "zoh"])
def test_diagonal_kernels_are_those_of_the_authors(name, method):
    golden = Golden(f"s4_kernel_diag_{name}")

    @jax.jit
    def compute(params):
        system, c = diagonal(params)
        discrete = discretize(system, method)
        return {length: kernel(discrete, c, length) for length in golden.config["Ls"]}

    for length, taps in compute(golden.group("param/")).items():
        expected = golden[f"out/kernel_{method}_L{length}"]
        assert output_error(taps, expected) < OUTPUT_TOLERANCE, length


@pytest.mark.parametrize("structure", ["dplr", "diagonal"])
@pytest.mark.parametrize("method", ["bilinear", "zoh"])
@pytest.mark.usefixtures("x64")
def test_kernel_and_block_operators_are_their_definition(structure, method):
    parameters = random_parameters(4, 6, 2, 3, structure == "dplr", seed=0)
    lengths, t = (1, 16, 50), 7
    random = np.random.default_rng(0)
    u, state = random.normal(size=(4, t)), random.normal(size=(4, 6))

    @jax.jit
    def compute(parameters):
        discrete = discretize(StateSpace(*parameters[:4]), method)
        c = readout(parameters.c)
        kernels = [kernel(discrete, c, length) for length in lengths]
        blocks = block_operators(discrete, c, t)
        written = einsum("tdn,dt->dn", blocks.write, u) + blocks.transition.apply(state)
        return kernels, blocks.taps, einsum("tcdn,dn->cdt", blocks.read, state), written

    kernels, taps, read, written = compute(parameters)
    expected, dense = jax.jit(
        lambda parameters: (
            kernel_by_definition(parameters, method, max(lengths)),
            dense_system(parameters, method),
        )
    )(parameters)
    for length, values in zip(lengths, kernels):
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, expected[..., :length], atol=1e-12)
    np.testing.assert_allclose(jnp.moveaxis(taps, 0, -1), expected[..., :t], atol=1e-12)

    a, b, c = map(np.asarray, dense)
    x = state[:, :3] + 1j * state[:, 3:]
    x = np.concatenate([x, x.conj()], axis=-1)
    undisturbed = x
    for i in range(t):
        undisturbed = np.einsum("dij,dj->di", a, undisturbed)
        row = np.einsum("cdn,dn->cd", c, undisturbed).real
        np.testing.assert_allclose(read[..., i], row, atol=1e-12)
        x = np.einsum("dij,dj->di", a, x) + b * u[:, i, None]
    np.testing.assert_allclose(
        written, np.concatenate([x.real, x.imag], axis=-1)[:, [0, 1, 2, 6, 7, 8]], atol=1e-12
    )
