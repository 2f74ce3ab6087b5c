"""Window and full attention by fused kernels: what is registered, and what it refuses."""

from typing import Any

from spade_jax.ops import tpu
from spade_jax.ops.attention.pallas_tpu.heads import SIZES
from spade_jax.ops.attention.refusals import other_dtype, other_weights
from spade_jax.ops.attention.shards import full_over_shards, window_over_shards

DTYPES = ("bfloat16", "float32")
# A block of queries and all keys that it sees are one tile of scores.
MAX_RADIUS = 1024


def attend_to_window(*arrays: Any, **settings: Any) -> Any:
    """`window.window_attention`."""
    from spade_jax.ops.attention.pallas_tpu import window

    return window_over_shards(window.attend, *arrays, **settings)


def attend_to_all(*arrays: Any, **settings: Any) -> Any:
    """`full.full_attention`."""
    from spade_jax.ops.attention.pallas_tpu import full

    return full_over_shards(full.attend, *arrays, **settings)


def refuses_window(*arrays: Any, radius: int, **settings: Any) -> str | None:
    """Why a window of this radius, and arrays of these kinds, cannot be attended with here."""
    if radius > MAX_RADIUS:
        return f"takes a radius of at most {MAX_RADIUS}, and this is {radius}"
    return refuses(*arrays, **settings)


def refuses(query: Any, key: Any, value: Any, *arguments: Any, **settings: Any) -> str | None:
    """Why arrays of these dtypes and head sizes, [..., k], cannot be attended with here."""
    if (elsewhere := tpu.refuses()) is not None:
        return elsewhere
    if (other := other_weights(settings) or other_dtype(query, DTYPES)) is not None:
        return other
    size = max(query.shape[-1], value.shape[-1])
    if size > SIZES[-1]:
        return f"takes heads of at most {SIZES[-1]} features, and these have {size}"
    return None
