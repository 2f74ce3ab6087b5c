"""One of two ways to compute the same, chosen while the program runs."""

from collections.abc import Callable
from typing import Any

import jax

# Takes a tree of arrays, which have gradients, and one of what has none.
Form = Callable[[Any, Any], jax.Array]


def either(condition: jax.Array, one: Form, other: Form, arrays: Any, rest: Any) -> jax.Array:
    """`one(arrays, rest)` where the bool scalar `condition` holds, else `other(arrays, rest)`.

    By a rule of its own for gradients, which computes either's anew from the arrays: JAX's would
    keep what both need, whichever ran.
    """

    @jax.custom_vjp
    def run(condition, arrays, rest):
        return jax.lax.cond(condition, one, other, arrays, rest)

    def forward(*arguments):
        return run(*arguments), arguments

    def backward(residuals, cotangent):
        def pullback(form: Form) -> Callable[..., Any]:
            def pull(arrays, rest, cotangent):
                return jax.vjp(lambda arrays: form(arrays, rest), arrays)[1](cotangent)[0]

            return pull

        condition, arrays, rest = residuals
        forms = pullback(one), pullback(other)
        return None, jax.lax.cond(condition, *forms, arrays, rest, cotangent), None

    run.defvjp(forward, backward)
    return run(condition, arrays, rest)
