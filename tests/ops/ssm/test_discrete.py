import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from definition import random_parameters
from golden_data import OUTPUT_TOLERANCE, Golden, output_error
from stored import diagonal, dplr

from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout, step
from spade_jax.ops.ssm.transition import (
    Dense,
    Diagonal,
    DiagonalMinusLowRank,
    complex_state,
    real_state,
)

NPLR = ["s4_kernel_nplr_h4_n16", "s4_kernel_nplr_h6_n32_c2_ssm2"]


def matrix(transition, d, n):
    """The dense [d, n, n] matrix of a transition, column by column."""
    columns = transition.apply(jnp.broadcast_to(jnp.eye(n)[:, None], (n, d, n)))
    return jnp.moveaxis(columns, 0, -1)


def full_state(x):
    """Real states [..., n] as complex ones: [stored half; conjugates]."""
    half = np.asarray(complex_state(x))
    return np.concatenate([half, half.conj()], axis=-1)


def run(system, c, state, u_bdl):
    """Token by token through `step`: the last state, and outputs [b, channels, d, l]."""
    state, y = jax.lax.scan(lambda x, u: step(system, c, x, u), state, jnp.moveaxis(u_bdl, 2, 0))
    return state, jnp.moveaxis(y, 0, -1)


@pytest.mark.parametrize("name", NPLR)
def test_dplr_is_that_of_the_authors(name):
    golden = Golden(name)
    d, n = golden.config["H"], golden.config["d_state"]

    @jax.jit
    def compute(params, u, state):
        system, c = dplr(params)
        discrete = discretize(system, "bilinear")
        zero = jnp.zeros((u.shape[0], d, n))
        return (
            matrix(discrete.a, d, n),
            discrete.b,
            run(discrete, c, zero, u),
            run(discrete, c, state, u)[0],
        )

    a, b, (final, y), following = compute(
        golden.group("param/"), golden["in/u"], real_state(golden["in/state"])
    )
    # From [Re z; Im z] to [z; conj z], so also for the matrix between two states.
    half = np.eye(n // 2)
    to_full = np.block([[half, 1j * half], [half, -1j * half]])
    a_full = to_full @ np.asarray(a) @ np.linalg.inv(to_full)
    assert output_error(a_full, golden["out/dA"]) < OUTPUT_TOLERANCE
    assert output_error(full_state(b), golden["out/dB"]) < OUTPUT_TOLERANCE
    for mode in ("step_dense", "step_linear", "step_dense_before_forward", "conv"):
        assert output_error(y, golden[f"out/{mode}"]) < OUTPUT_TOLERANCE, mode
    assert output_error(full_state(final), golden["out/final_state"]) < OUTPUT_TOLERANCE
    next_state = np.asarray(complex_state(following))
    assert output_error(next_state, golden["out/next_state"]) < OUTPUT_TOLERANCE


@pytest.mark.parametrize("name", ["inv", "legs", "lin"])
@pytest.mark.parametrize("method", ["bilinear", "zoh"])
def test_diagonal_steps_are_those_of_the_authors(name, method):
    golden = Golden(f"s4_kernel_diag_{name}")

    @jax.jit
    def compute(params, u):
        system, c = diagonal(params)
        zero = jnp.zeros((u.shape[0], c.shape[1], c.shape[2]))
        return run(discretize(system, method), c, zero, u)[1]

    y = compute(golden.group("param/"), golden["in/u"])
    expected = [f"out/{kind}_{method}" for kind in ("step", "conv")]
    compared = [key for key in expected if key in golden]  # one file has no steps
    assert compared
    for key in compared:
        assert output_error(y, golden[key]) < OUTPUT_TOLERANCE, key


@pytest.mark.parametrize("structure", ["dplr", "diagonal"])
@pytest.mark.parametrize("method", ["bilinear", "zoh"])
@pytest.mark.usefixtures("x64")
def test_discretisation_is_its_definition(structure, method):
    d, n, copies = 6, 8, 3
    parameters = random_parameters(d, n, copies, 1, structure == "dplr", seed=0)
    system = StateSpace(*parameters[:4])

    @jax.jit
    def compute(system):
        discrete = discretize(system, method)
        return matrix(discrete.a, d, n), discrete.b

    a, b = compute(system)
    assert a.dtype == b.dtype == np.float64
    for feature in range(d):
        copy = feature % copies  # tiled, not repeated
        w, dt = system.w[copy], system.dt[feature]
        # Re and Im of w x, and of P (2 Re P^* x), as matrices over [Re x; Im x].
        continuous = np.block(
            [[np.diag(w.real), -np.diag(w.imag)], [np.diag(w.imag), np.diag(w.real)]]
        )
        if system.p is not None:
            p = np.concatenate([system.p[copy].real, system.p[copy].imag])
            continuous = continuous - 2 * np.outer(p, p)
        held = np.concatenate([system.b[copy].real, system.b[copy].imag])
        eye = np.eye(n)
        if method == "bilinear":
            inverse = np.linalg.inv(eye - dt / 2 * continuous)
            expected_a, expected_b = inverse @ (eye + dt / 2 * continuous), inverse @ held * dt
        else:
            expected_a = scipy.linalg.expm(dt * continuous)
            expected_b = np.linalg.solve(continuous, (expected_a - eye) @ held)
        np.testing.assert_allclose(a[feature], expected_a, atol=1e-12)
        np.testing.assert_allclose(b[feature], expected_b, atol=1e-12)


@pytest.mark.parametrize("structure", ["dplr", "diagonal"])
@pytest.mark.parametrize("method", ["bilinear", "zoh"])
def test_discretisation_stays_in_float32(structure, method):
    parameters = random_parameters(2, 4, 2, 1, structure == "dplr", seed=0, dtype=np.float32)
    with jax.enable_x64(True):  # so that a stray float64 would show
        discrete = jax.eval_shape(lambda s: discretize(s, method), StateSpace(*parameters[:4]))
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(discrete)}
    assert dtypes <= {np.dtype(np.float32), np.dtype(np.complex64)}
    assert np.dtype(np.float32) in dtypes


@pytest.mark.usefixtures("x64")
def test_transitions_are_their_dense_matrices():
    d, n = 3, 8
    random = np.random.default_rng(1)
    z = 0.99 * np.exp(1j * random.uniform(0, 2 * np.pi, (d, n // 2)))
    column, row = random.normal(size=(2, d, n)) / n
    x, c = random.normal(size=(2, 5, d, n))
    diagonal_matrix = np.stack(
        [
            np.block([[np.diag(r), -np.diag(i)], [np.diag(i), np.diag(r)]])
            for r, i in zip(z.real, z.imag)
        ]
    )
    rank_one = np.stack([np.outer(*pair) for pair in zip(column, row)])

    @jax.jit
    def compute(transition, x, c):
        powers = {k: transition.power(k).apply(x) for k in (1, 2, 13, 200, 301)}
        return transition.apply(x), transition.apply_left(c), powers

    for transition, dense in (
        (Diagonal(z), diagonal_matrix),
        (
            Dense(jnp.swapaxes(rank_one - diagonal_matrix, 1, 2) - np.eye(n)[None]),
            rank_one - diagonal_matrix,
        ),
        (DiagonalMinusLowRank(z - 1, column[:, None], row[:, None]), diagonal_matrix - rank_one),
    ):
        applied, applied_left, powers = compute(jax.tree.map(jnp.asarray, transition), x, c)
        np.testing.assert_allclose(applied, np.einsum("dij,bdj->bdi", dense, x), atol=1e-13)
        np.testing.assert_allclose(applied_left, np.einsum("bdi,dij->bdj", c, dense), atol=1e-13)
        for k, powered in powers.items():
            expected = np.einsum("dij,bdj->bdi", np.linalg.matrix_power(dense, k), x)
            atol = 1e-12 * np.abs(expected).max()
            np.testing.assert_allclose(powered, expected, rtol=0, atol=atol, err_msg=str(k))


def test_readout_is_twice_the_real_part():
    random = np.random.default_rng(2)
    c, x = (random.normal(size=(3, 4)) + 1j * random.normal(size=(3, 4)) for _ in range(2))
    product = np.sum(readout(c) * real_state(x), axis=-1)
    np.testing.assert_allclose(product, 2 * (c * x).real.sum(axis=-1), rtol=1e-5)


def test_another_discretisation_is_refused():
    parameters = random_parameters(2, 4, 1, 1, False, seed=0, dtype=np.float32)
    with pytest.raises(ValueError, match=r"method = 'bilinar'.*'bilinear'"):
        discretize(StateSpace(*parameters[:4]), "bilinar")


@pytest.mark.usefixtures("x64")
def test_the_first_squares_have_few_columns_and_rows():
    d, n = 2, 64
    random = np.random.default_rng(2)
    change = 0.9 * np.exp(1j * random.uniform(0, 2 * np.pi, (d, n // 2))) - 1
    columns, rows = random.normal(size=(2, d, 1, n)) / n
    x = jnp.asarray(random.normal(size=(5, d, n)))
    square = DiagonalMinusLowRank(*map(jnp.asarray, (change, columns, rows)))
    expected = np.swapaxes(np.asarray(square.dense().change), 1, 2) + np.eye(n)
    widths = []
    for _ in range(7):
        square, expected = square.power(2), expected @ expected
        widths.append(None if isinstance(square, Dense) else square.rows.shape[1])
        for found in (square, square.dense()):
            right, left = found.apply(x), found.apply_left(x)
            np.testing.assert_allclose(right, np.einsum("dij,bdj->bdi", expected, x), atol=1e-12)
            np.testing.assert_allclose(left, np.einsum("bdi,dij->bdj", x, expected), atol=1e-12)
    assert widths == [2, 4, 8, 16, None, None, None]
