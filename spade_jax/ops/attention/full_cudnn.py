"""Full attention by cuDNN, through `jax.nn`: where nothing is hidden and there is no bias."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from spade_jax import partition
from spade_jax.ops import dispatch
from spade_jax.ops.attention.pallas_gpu.operations import unfit_gpu
from spade_jax.ops.attention.refusals import other_dtype, other_weights, other_width
from spade_jax.ops.attention.shards import DropoutWords, full_over_shards
from spade_jax.ops.attention.softmax import named

DTYPES = ("bfloat16", "float16")
# Multiples of 8; for the gradient larger ones need Hopper.
LARGEST_HEAD = 128


def attend(*arrays: Any, **settings: Any) -> Array:
    """`full.full_attention`."""
    return full_over_shards(_whole, *arrays, **settings)


def refuses(
    query: Any,
    key: Any,
    value: Any,
    query_segment_ids: Any,
    key_segment_ids: Any,
    bias: Any,
    dropout_key: Any,
    **settings: Any,
) -> str | None:
    """Why cuDNN cannot take these arguments; it knows padding at the end, by lengths, and segments
    may be anything."""
    if (elsewhere := dispatch.runs_elsewhere("gpu")) is not None:
        return elsewhere
    if dispatch.interprets():
        return "runs on a gpu alone, and cannot be interpreted"
    if (unfit := unfit_gpu()) is not None:
        return unfit
    if (other := other_weights(settings) or other_dtype(query, DTYPES)) is not None:
        return other
    if (size := query.shape[-1]) % 8 != 0 or size > LARGEST_HEAD:
        return f"takes heads of a multiple of 8 up to {LARGEST_HEAD}, and these have {size}"
    if (other := other_width(query, value)) is not None:
        return other
    for name, array in (("segments", key_segment_ids), ("bias", bias), ("dropout", dropout_key)):
        if array is not None:
            return f"has no {name}"
    if partition.sharded_axes(("batch", "length", "heads", None), key.shape)[1] is not None:
        return "gives no log-sums with a gradient, by which shards of keys are put together"
    return None


def _whole(
    query_bqhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    query_segment_ids: None,
    key_segment_ids: None,
    bias: None,
    words: DropoutWords | None,
    *,
    causal: bool,
    dropout_rate: float,
    first_key: int,
) -> tuple[Array, None]:
    """What attends on one device, as `full_over_shards` asks for it, to all keys: there are no
    log-sums to put together."""
    queries, keys = query_bqhk.shape[1], key_bjhk.shape[1]
    lengths = None
    if keys % 2 == 1 and not causal:  # A causal query does not see behind the last key.
        lengths = jnp.full(key_bjhk.shape[:1], keys, jnp.int32)
    attended = jax.nn.dot_product_attention(
        *(_even(array) for array in (query_bqhk, key_bjhk, value_bjhk)),
        scale=1.0,
        is_causal=causal,
        key_value_seq_lengths=lengths,
        implementation="cudnn",
    )
    return named(attended[:, :queries]), None


def _even(array: Array) -> Array:
    """[b, l, h, k] with a token more where l is odd: cuDNN has gradients of even lengths only."""
    return jnp.pad(array, ((0, 0), (0, array.shape[1] % 2), (0, 0), (0, 0)))
