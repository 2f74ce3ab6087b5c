import jax
import numpy as np
import pytest
from golden_data import OUTPUT_TOLERANCE, Golden, output_error
from scipy.linalg import expm

from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout
from spade_jax.ops.ssm.hippo import legs, legs_nplr, s4d
from spade_jax.ops.ssm.kernel import kernel


@pytest.mark.parametrize("name", ["hippo_legs_nplr_N16", "hippo_legs_nplr_N64"])
def test_legs_is_that_of_the_authors(name):
    golden = Golden(name)
    n = golden.config["N"]
    a, b = legs(n)
    w, p, b_nplr, v = legs_nplr(n)
    assert output_error(a, golden["out/A_dense"]) < 1e-7
    assert output_error(b, golden["out/B_dense"]) < 1e-7
    assert output_error(w, golden["out/w"]) < OUTPUT_TOLERANCE
    # Columns of V are free to turn: only what does not turn with them can be compared.
    a_again = 2 * ((v * w) @ v.conj().T).real - np.multiply.outer(*[2 * (v @ p).real] * 2)
    for name, value in {
        "A_reconstructed": a_again,
        "B_reconstructed": 2 * (v @ b_nplr).real,
        "abs_P": abs(p)[None],
        "abs_B": abs(b_nplr),
        "conjB_P": b_nplr.conj() * p,
    }.items():
        assert output_error(value, golden[f"out/{name}"]) < OUTPUT_TOLERANCE, name


@pytest.mark.parametrize("name", ["hippo_legs_nplr_N16", "hippo_legs_nplr_N64"])
def test_impulse_response_is_that_of_the_authors(name):
    golden = Golden(name)
    w, p, b, v = legs_nplr(golden.config["N"])
    w, p, b, c = (x.astype(np.complex64)[None] for x in (w, p, b, golden["in/C_dense"] @ v))

    @jax.jit
    def compute(system, c):
        return kernel(discretize(system, "bilinear"), readout(c), golden.config["L"])[0]

    response = compute(StateSpace(w, p, b, golden["in/dt"][None]), c)
    assert output_error(response, golden["out/impulse_response"]) < OUTPUT_TOLERANCE
    assert output_error(response, golden["out/impulse_response_official"]) < OUTPUT_TOLERANCE


@pytest.mark.parametrize("n", [2, 10, 128])
def test_nplr_is_legs_in_its_eigenbasis(n):
    a, b = legs(n)
    w, p, b_nplr, v = legs_nplr(n)
    np.testing.assert_array_equal(w.real, -0.5)
    assert np.all(np.diff(w.imag) > 0)
    assert np.all(w.imag < 0)
    basis = np.concatenate([v, v.conj()], axis=1)
    np.testing.assert_allclose(basis.conj().T @ basis, np.eye(n), atol=1e-12)
    full_w, full_p = np.concatenate([w, w.conj()]), np.concatenate([p, p.conj()])
    a_nplr = np.diag(full_w) - np.outer(full_p, full_p.conj())
    np.testing.assert_allclose(basis @ a_nplr @ basis.conj().T, a, atol=1e-12 * abs(a).max())
    np.testing.assert_allclose(basis @ np.concatenate([b_nplr, b_nplr.conj()]), b, atol=1e-11)


def test_legs_remembers_the_past_as_legendre_coefficients():
    # Under x' = A x / t + B u / t the state is the Legendre coefficients of the input so far,
    # which for a constant is that constant and zeros: a fixed point, and a stable one.
    a, b = legs(8)
    np.testing.assert_allclose(a @ np.eye(8)[0] + b, 0, atol=1e-12)
    np.testing.assert_allclose(expm(a * 20), 0, atol=1e-5)


@pytest.mark.parametrize("init", ["diag-lin", "diag-inv", "diag-legs"])
def test_s4d_is_that_of_the_authors(init):
    golden = Golden(f"s4_kernel_diag_{init.removeprefix('diag-')}")
    a = s4d(init, golden.config["d_state"])
    for copy in golden["out/A_init"]:
        assert output_error(a, copy) < OUTPUT_TOLERANCE


def test_another_diagonal_is_refused():
    with pytest.raises(ValueError, match=r"init = 'diag-leg'.*'diag-legs'"):
        s4d("diag-leg", 8)
