import jax
import jax.numpy as jnp
import numpy as np
import pytest
from definition import dense_system, kernel_by_definition, random_parameters
from golden_data import OUTPUT_TOLERANCE, Golden, as_complex, output_error
from stored import diagonal, dplr

from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout
from spade_jax.ops.ssm.kernel import block_operators, delayed_readout, kernel
from spade_jax.ops.ssm.transition import complex_state, einsum, real_state

NPLR = ["s4_kernel_nplr_h4_n16", "s4_kernel_nplr_h6_n32_c2_ssm2"]


def full_state(x):
    """Real states [..., n] as complex ones: [stored half; conjugates]."""
    half = np.asarray(complex_state(x))
    return np.concatenate([half, half.conj()], axis=-1)


@pytest.mark.parametrize("name", NPLR)
def test_dplr_kernels_are_those_of_the_authors(name):
    golden = Golden(name)
    lengths = golden.config["Ls"]

    @jax.jit
    def compute(params, state):
        system, c = dplr(params)
        discrete = discretize(system, "bilinear")
        read = block_operators(discrete, c[None], max(lengths), 1, (1,)).read
        response = einsum("dkn,bdn->dbk", read[:, 0], state)
        response = jnp.moveaxis(response.reshape(*response.shape[:2], len(c), -1), 0, 2)
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
    parameters = random_parameters(4, 6, 2, 4, structure == "dplr", seed=0)
    lengths = (1, 16, 50)
    random = np.random.default_rng(0)
    # Of a block, from what its tokens and the states that enter it from either side are.
    blocks = {t: random.normal(size=(4, t)) for t in (1, 7, 8)}
    states = random.normal(size=(2, 4, 6))

    @jax.jit
    def compute(parameters, states):
        discrete = discretize(StateSpace(*parameters[:4]), method)
        c = readout(parameters.c)
        kernels = [kernel(discrete, c, length) for length in lengths]
        results = {}
        for t, u in blocks.items():
            operators = block_operators(discrete, c.reshape(2, 2, *c.shape[1:]), t, 4, (1, -1))
            y = einsum("dj,djk->dk", u, operators.matrices)
            y = y + einsum("sdn,dskn->dk", states, operators.read)
            left = einsum("dj,dsjn->sdn", u, operators.write)
            left = left + operators.transitions[0].apply(states)
            powers = [a.apply(states) for a in operators.transitions]
            results[t] = y.reshape(4, 2, t), left, powers
        return kernels, results

    kernels, results = compute(parameters, states)
    expected, dense = jax.jit(
        lambda parameters: (
            kernel_by_definition(parameters, method, max(lengths)),
            dense_system(parameters, method),
        )
    )(parameters)
    for length, values in zip(lengths, kernels):
        assert values.dtype == np.float64
        np.testing.assert_allclose(values, expected[..., :length], atol=1e-12)

    a, b, c = map(np.asarray, dense)
    full = full_state(states)
    for t, u in blocks.items():
        y, expected_left = np.zeros((4, 2, t)), []
        for s, order in enumerate((range(t), reversed(range(t)))):
            x = full[s]
            for i in order:
                after = np.einsum("dij,dj->di", a, x) + b * u[:, i, None]
                seen = after if s == 0 else x
                y[:, :, i] += np.einsum("cdn,dn->dc", c[2 * s : 2 * s + 2], seen).real
                x = after
            expected_left.append(x)
        found_y, left, powers = results[t]
        np.testing.assert_allclose(found_y, y, atol=1e-12)
        np.testing.assert_allclose(full_state(left), expected_left, atol=1e-12)
        assert len(powers) == 3
        for k, powered in enumerate(powers):
            x = full
            for _ in range(t * 2**k):
                x = np.einsum("dij,sdj->sdi", a, x)
            np.testing.assert_allclose(full_state(powered), x, atol=1e-12)
