"""Window and full attention by fused kernels: what is registered, and what it refuses."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from spade_jax.ops import dispatch
from spade_jax.ops.attention.refusals import other_dtype, other_weights, other_width
from spade_jax.ops.attention.shards import DropoutWords, full_over_shards, window_over_shards

HEAD_SIZES = (16, 32, 64, 128)
DTYPES = ("bfloat16", "float16", "float32")
# Ampere's, the first with matmuls of bfloat16.
COMPUTE_CAPABILITY = 8.0


def attend_to_window(*arrays: Any, **settings: Any) -> Array:
    """`window.window_attention`."""
    return window_over_shards(_window, *arrays, **settings)


def attend_to_all(*arrays: Any, **settings: Any) -> Array:
    """`full.full_attention`."""
    return full_over_shards(_full, *arrays, **settings)


def refuses(query: Any, key: Any, value: Any, *arguments: Any, **settings: Any) -> str | None:
    """Why queries, keys and values of this dtype and head size, [..., k], cannot be taken here."""
    if (elsewhere := dispatch.runs_elsewhere("gpu")) is not None:
        return elsewhere
    from spade_jax.ops.attention.pallas_gpu import backend

    if (missing := backend.missing()) is not None:
        return missing
    if (unfit := unfit_gpu()) is not None:
        return unfit
    if (other := other_weights(settings) or other_dtype(query, DTYPES)) is not None:
        return other
    if (size := query.shape[-1]) not in HEAD_SIZES:
        return f"takes heads of {', '.join(map(str, HEAD_SIZES))}, and these have {size} features"
    return other_width(query, value)


def best_for(query: Any, *arguments: Any, **settings: Any) -> bool:
    """Whether the kernels are faster than XLA: not for float32, which tensor cores would round to
    TF32 and which is multiplied without them."""
    return query.dtype != jnp.float32


def unfit_gpu() -> str | None:
    """Why the GPU that is here cannot run fused attention; None if it can, or there is none."""
    if jax.default_backend() != "gpu":
        return None
    has = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    try:
        if float(has) >= COMPUTE_CAPABILITY:
            return None
    except ValueError:
        pass  # Of another maker.
    return (
        f"needs an NVIDIA GPU of compute capability {COMPUTE_CAPABILITY} or more, and this one's "
        f"is {has!r}"
    )


def _window(
    query_blhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    segment_ids: Array | None,
    key_segment_ids: Array | None,
    bias: Array | None,
    words: DropoutWords | None,
    *,
    radius: int,
    causal: bool,
    dropout_rate: float,
    before: int,
) -> Array:
    """What attends on one device, as `window_over_shards` asks for it."""
    from spade_jax.ops.attention.pallas_gpu.flash import flash_attention
    from spade_jax.ops.attention.pallas_gpu.plan import Plan, window_tiles

    plan = Plan(
        window_tiles(query_blhk),
        behind=radius,
        ahead=0 if causal else radius,
        reach=radius,
        has_bias=bias is not None,
        offset=-before,
        dropout_rate=dropout_rate,
        by_query=segment_ids is not None,
        interpret=dispatch.interprets(),
    )
    segments = _int32(segment_ids), _int32(key_segment_ids)
    return flash_attention(plan, query_blhk, key_bjhk, value_bjhk, bias, segments, words, None)[0]


def _full(
    query_bqhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    query_segment_ids: Array | None,
    key_segment_ids: Array | None,
    bias: Array | None,
    words: DropoutWords | None,
    *,
    causal: bool,
    dropout_rate: float,
    first_key: Array | int,
) -> tuple[Array, Array]:
    """What attends on one device, as `full_over_shards` asks for it."""
    from spade_jax.ops.attention.pallas_gpu.flash import flash_attention
    from spade_jax.ops.attention.pallas_gpu.plan import Plan, full_tiles

    if bias is not None and bias.shape[1] == 1:
        bias = jnp.pad(bias, ((0, 0), (1, 1)), mode="edge")
    reach = 1 if causal else None
    if bias is not None:
        reach = bias.shape[1] // 2
    static = isinstance(first_key, int) or reach is None
    plan = Plan(
        full_tiles(query_bqhk, looks_up=reach is not None),
        ahead=0 if causal else None,
        reach=reach,
        has_bias=bias is not None,
        offset=(first_key if isinstance(first_key, int) else 0) if static else None,
        dropout_rate=dropout_rate,
        by_query=query_segment_ids is not None,
        interpret=dispatch.interprets(),
    )
    attended_bqhk, log_sum_bhq = flash_attention(
        plan,
        query_bqhk,
        key_bjhk,
        value_bjhk,
        bias,
        (_int32(query_segment_ids), _int32(key_segment_ids)),
        words,
        None if static else jnp.asarray(first_key, jnp.int32),
    )
    return attended_bqhk, log_sum_bhq.swapaxes(1, 2)


def _int32(segment_ids: Array | None) -> Array | None:
    return None if segment_ids is None else jnp.asarray(segment_ids, jnp.int32)
