"""Matmuls in the numbers that the inputs come in, summed up in full precision."""

import functools

import jax
import jax.numpy as jnp

from spade_jax.ops.precision import matmul_precision


def product(
    equation: str, x: jax.Array, y: jax.Array, *, beside: jax.Array | None = None
) -> jax.Array:
    """An einsum of two arrays, in bfloat16 if either is, and summed up in float32 or wider.

    An accelerator multiplies bfloat16 in one pass, where float32 takes it six. Gradients are
    products too, which round the cotangent likewise, and sum up as exactly.

    Args:
      beside: an array by whose dtype it goes as well.
    """
    dtypes = [each.dtype for each in (x, y, beside) if each is not None]
    operand = jnp.bfloat16 if jnp.bfloat16 in dtypes else jnp.result_type(x, y)
    return _product(equation, jnp.dtype(operand), x, y)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(equation: str, operand: jnp.dtype, x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.einsum(
        equation,
        x.astype(operand),
        y.astype(operand),
        precision=matmul_precision(operand),
        preferred_element_type=jnp.promote_types(operand, jnp.float32),
    )


def _product_forward(equation, operand, x, y):
    return _product(equation, operand, x, y), (x, y)


def _product_backward(equation, operand, residuals, cotangent):
    x, y = residuals
    left, right, result = equation.replace("->", ",").split(",")
    d_x = _product(f"{result},{right}->{left}", operand, cotangent, y)
    d_y = _product(f"{left},{result}->{right}", operand, x, cotangent)
    return d_x.astype(x.dtype), d_y.astype(y.dtype)


_product.defvjp(_product_forward, _product_backward)
