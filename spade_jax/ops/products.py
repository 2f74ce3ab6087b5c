"""Matmuls in the numbers that the inputs come in, summed up in full precision."""

import functools

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from spade_jax.ops.precision import matmul_precision


def product(
    equation: str,
    x: jax.Array,
    y: jax.Array,
    *,
    beside: jax.Array | None = None,
    dtype: DTypeLike | None = None,
) -> jax.Array:
    """An einsum of two arrays, in bfloat16 if either is, and summed up in float32 or wider.

    An accelerator multiplies bfloat16 in one pass, where float32 takes it six. Gradients are
    products too, which round the cotangent likewise, and sum up as exactly. Each has its indices
    in the order of what it is the gradient of: JAX's own rule would have it transposed, and a CPU
    then copies one operand.

    Args:
      beside: an array by whose dtype it goes as well.
      dtype: of the result and of gradients, for which sums are rounded once; None is the one that
        they are summed up in.
    """
    dtypes = [each.dtype for each in (x, y, beside) if each is not None]
    operand = jnp.bfloat16 if jnp.bfloat16 in dtypes else jnp.result_type(x, y)
    result = jnp.promote_types(operand, jnp.float32) if dtype is None else dtype
    return _product(equation, jnp.dtype(operand), jnp.dtype(result), x, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _product(
    equation: str, operand: jnp.dtype, result: jnp.dtype, x: jax.Array, y: jax.Array
) -> jax.Array:
    return jnp.einsum(
        equation,
        x.astype(operand),
        y.astype(operand),
        precision=matmul_precision(operand),
        preferred_element_type=result,
    )


def _product_forward(equation, operand, result, x, y):
    return _product(equation, operand, result, x, y), (x, y)


def _product_backward(equation, operand, result, residuals, cotangent):
    x, y = residuals
    left, right, out = equation.replace("->", ",").split(",")
    d_x = _product(f"{out},{right}->{left}", operand, result, cotangent, y)
    d_y = _product(f"{left},{out}->{right}", operand, result, x, cotangent)
    return d_x.astype(x.dtype), d_y.astype(y.dtype)


_product.defvjp(_product_forward, _product_backward)


def without_lone_row(x: jax.Array) -> jax.Array:
    """[b, l, d] as it is, or [l, d] of a batch of one row: with an axis of length 1 in front, XLA
    takes a CPU ten times as long or more for sums of products, and gradients are such."""
    return x.reshape(x.shape[1:]) if x.shape[0] == 1 else x
