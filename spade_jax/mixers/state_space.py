"""A state space over a sequence, or over the next tokens of one: what S4 and moving averages run.

Float32 inside, but for the matmuls over tokens of a bfloat16 input, see `ops.ssm.convolution`.
"""

from typing import Any

import jax
import jax.numpy as jnp

from spade_jax.mixers.base import Context
from spade_jax.mixers.convolution import ConvolutionConfig
from spade_jax.ops.ssm.cached import CachedSystem, SSMCache, advance
from spade_jax.ops.ssm.convolution import convolve
from spade_jax.ops.ssm.discrete import DiscreteStateSpace


def run(
    config: ConvolutionConfig,
    system: DiscreteStateSpace,
    c: jax.Array,
    skip: jax.Array,
    x: jax.Array,
    context: Context,
    *,
    causal: bool,
    max_kernel_length: Any,
    dtype: Any,
) -> jax.Array:
    """SSM(x) + skip x of a whole sequence: [b, l, d] -> [b, l, d], rounded to `dtype`.

    Args:
      c: readouts, [directions, d, n].
      skip: [d].
      max_kernel_length: as of `convolve`.
    """
    y = convolve(
        system,
        c,
        x if x.dtype == jnp.bfloat16 else x.astype(jnp.float32),
        skip=skip,
        dtype=dtype,
        method=config.convolution,
        chunk_length=config.chunk_length,
        segment_ids=context.segment_ids,
        bidirectional=not causal,
        max_kernel_length=max_kernel_length,
        implementation=config.implementation,
    )
    return y[:, :, 0]


def extend(
    config: ConvolutionConfig,
    system: CachedSystem,
    rows: SSMCache,
    skip: jax.Array,
    x: jax.Array,
    context: Context,
) -> tuple[jax.Array, SSMCache]:
    """The same of the next tokens, and what is kept with them."""
    assert context.segment_ids is not None
    u = x.astype(jnp.float32)
    y, rows = advance(
        system, rows, u, context.segment_ids, context.start, chunk_length=config.chunk_length
    )
    return y[:, :, 0] + skip[None, None] * u, rows
