import jax
import jax.numpy as jnp
import numpy as np
import pytest

from spade_jax.ops.products import product

EQUATION = "bli,io->blo"


def arrays(*dtypes):
    rng = np.random.default_rng(0)
    shapes = ((2, 300, 8), (8, 4), (2, 300, 4))
    return [
        jnp.asarray(rng.normal(size=shape), dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


def differentiated(x, y, cotangent, **kind):
    """The result and both gradients."""
    result, pullback = jax.vjp(lambda x, y: product(EQUATION, x, y, **kind), x, y)
    return result, *pullback(cotangent.astype(result.dtype))


def exact(x, y, cotangent):
    x, y, cotangent = (np.asarray(array, np.float64) for array in (x, y, cotangent))
    return [
        np.einsum(EQUATION, x, y),
        np.einsum("blo,io->bli", cotangent, y),
        np.einsum("bli,blo->io", x, cotangent),
    ]


@pytest.mark.parametrize(
    ("dtypes", "kind", "result", "tolerance"),
    [
        (("float32", "float32"), {}, "float32", 1e-5),
        (("bfloat16", "bfloat16"), {}, "float32", 1e-5),
        (("bfloat16", "bfloat16"), {"dtype": "bfloat16"}, "bfloat16", 2**-8),
        (("float32", "bfloat16"), {}, "float32", 2**-6),
        (("float32", "float32"), {"beside": jnp.zeros(1, jnp.bfloat16)}, "float32", 2**-6),
    ],
)
def test_products_and_their_gradients_are_summed_up_and_rounded_once(
    dtypes, kind, result, tolerance
):
    x, y, cotangent = arrays(*dtypes, "float32")
    # What is rounded on the way in is not counted as an error where nothing else is.
    cotangent = cotangent.astype(jnp.bfloat16) if "bfloat16" in dtypes else cotangent
    found = differentiated(x, y, cotangent, **kind)
    assert [array.dtype for array in found] == [result, *dtypes]
    for array, expected in zip(found, exact(x, y, cotangent), strict=True):
        error = np.abs(np.asarray(array, np.float64) - expected).max() / np.abs(expected).max()
        assert error < max(tolerance, 2**-8 if array.dtype == jnp.bfloat16 else 0)


def test_gradients_are_made_in_the_order_of_their_indices():
    """A transposed gradient is what a CPU copies its operands for."""
    program = str(jax.make_jaxpr(differentiated)(*arrays(*["float32"] * 3)))
    assert program.count("dot_general") == 3
    assert "transpose" not in program
