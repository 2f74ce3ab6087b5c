"""The precision of the three convolutions, and the memory that they take."""

import jax
import jax.extend
import jax.numpy as jnp
import numpy as np
import pytest
from definition import Parameters, dense_system, segment_patterns, small_parameters

from spade_jax.ops.ssm.convolution import METHODS, convolve
from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout
from spade_jax.ops.ssm.hippo import legs_nplr, s4d


@pytest.mark.parametrize("method", METHODS)
def test_no_product_is_left_to_the_default_precision(method):
    # An accelerator multiplies float32 matrices in bfloat16 unless told otherwise.
    parameters = small_parameters(2)
    system = StateSpace(*parameters[:4])
    segment_ids = segment_patterns(24, 8, ("whole", "anywhere"))

    def loss(system, c, u):
        discrete = discretize(system, "bilinear")
        y = convolve(
            discrete,
            readout(c),
            u,
            method=method,
            chunk_length=8,
            segment_ids=segment_ids,
            bidirectional=True,
            max_kernel_length=10,
        )
        return jnp.sum(y**2)

    u = np.zeros((2, 24, 4), np.float32)
    with jax.enable_x64(True):  # so that a stray float64 would show
        jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(system, parameters.c, u)
    products, dtypes = [], set()
    for equation in equations(jaxpr.jaxpr):
        dtypes |= {str(v.aval.dtype) for v in equation.outvars}
        if equation.primitive.name == "dot_general":
            products.append(equation.params["precision"])
    highest = jax.lax.Precision.HIGHEST
    assert products
    assert set(products) <= {highest, (highest, highest)}
    assert {t for t in dtypes if "float" in t or "complex" in t} <= {"float32", "complex64"}


def equations(jaxpr):
    """All equations, those of loops, branches and calls included."""
    for equation in jaxpr.eqns:
        yield equation
        for inner in jax.extend.core.jaxprs_in_params(equation.params):
            yield from equations(inner)


# One rounding of a pole, 6e-8, adds up over what a system with dt = 1e-3 remembers, some 1000
# tokens of S4 and 2000 of S4D.
@pytest.mark.parametrize(
    ("init", "discretization", "tolerance"),
    [("legs", "bilinear", 2e-5), ("diag-lin", "zoh", 1e-4), ("legs", "zoh", 2e-5)],
)
def test_float32_stays_accurate_over_a_long_run(init, discretization, tolerance):
    n, length, cut, dt = 64, 4096, 1000, np.array([1e-3, 1e-2, 1e-1], np.float32)
    w, p, b, _ = legs_nplr(n)
    if init != "legs":
        w, p, b = s4d(init, n), None, np.ones(n // 2)
    random = np.random.default_rng(6)
    c = random.normal(size=(1, 3, n // 2)) + 1j * random.normal(size=(1, 3, n // 2))
    w, p, b = (None if x is None else x[None].astype(np.complex64) for x in (w, p, b))
    parameters = Parameters(w, p, b, dt, c.astype(np.complex64))
    u = random.normal(size=(1, length, 3)).astype(np.float32)

    @jax.jit
    def compute(parameters, u):
        system = discretize(StateSpace(*parameters[:4]), discretization)
        c = readout(parameters.c)
        results = {method: convolve(system, c, u, method=method) for method in METHODS}
        shortened = convolve(system, c, u, max_kernel_length=cut)
        return results, shortened

    results, shortened = compute(parameters, u)
    with jax.enable_x64(True):
        exact = jax.tree.map(lambda x: x.astype(np.promote_types(x.dtype, np.float64)), parameters)
        a, b, c = map(np.asarray, jax.jit(dense_system, static_argnums=1)(exact, discretization))
    taps, state = np.empty((length, 3)), b
    for tap in taps:
        tap[:] = np.einsum("dn,dn->d", c[0], state).real
        state = np.einsum("dij,dj->di", a, state)

    def error(y, count):
        expected = np.stack(
            [np.convolve(u[0, :, i], taps[:count, i])[:length] for i in range(3)], axis=-1
        )
        # Feature by feature: each has a memory of its own length.
        return np.max(np.abs(y[0, :, 0] - expected).max(axis=0) / np.abs(expected).max(axis=0))

    for method, y in results.items():
        assert y.dtype == np.float32
        assert error(y, length) < tolerance, method
    assert error(shortened, cut) < tolerance


def test_memory_grows_with_the_length_and_not_its_square():
    parameters = small_parameters(2)
    system = StateSpace(*parameters[:4])

    def temporary_bytes(length):
        def loss(system, c, u, segment_ids):
            discrete = discretize(system, "bilinear")
            y = convolve(
                discrete,
                readout(c),
                u,
                chunk_length=8,
                segment_ids=segment_ids,
                bidirectional=True,
            )
            return jnp.sum(y**2)

        u = jax.ShapeDtypeStruct((1, length, 4), np.float32)
        ids = jax.ShapeDtypeStruct((1, length), np.int32)
        lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2))).lower(system, parameters.c, u, ids)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    lengths = np.array([4096, 16384, 32768])
    sizes = np.array([temporary_bytes(length) for length in lengths])
    per_token = np.diff(sizes) / np.diff(lengths)
    np.testing.assert_allclose(per_token[1], per_token[0], rtol=0.05)
    assert sizes[-1] < 8.1 * sizes[0]
    assert sizes[-1] < 4 * 32768**2 / 8  # far from one float for each pair of tokens
