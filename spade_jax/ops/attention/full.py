"""Attention of every query to every key: the decoder's self- and cross-attention."""

from typing import Any

from jax import Array

from spade_jax.ops.attention import full_cudnn, full_xla
from spade_jax.ops.attention.dropout import check_dropout
from spade_jax.ops.attention.pallas_gpu import operations as pallas_gpu
from spade_jax.ops.attention.pallas_tpu import operations as pallas_tpu
from spade_jax.ops.attention.weights import WEIGHTS
from spade_jax.ops.checks import check, check_choice
from spade_jax.ops.dispatch import Operation


def full_attention(
    query_bqhk: Array,
    key_bjhk: Array,
    value_bjhk: Array,
    *,
    causal: bool,
    query_segment_ids: Array | None = None,
    key_segment_ids: Array | None = None,
    bias: Array | None = None,
    chunk_size: int | None = None,
    weights: str = "softmax",
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
    implementation: str | None = None,
) -> Array:
    """Softmax attention of q queries to j keys (arXiv 1706.03762); never an array of q x j.

    Args:
      query_bqhk: [b, q, h, k], already scaled.
      key_bjhk, value_bjhk: [b, j, h, k].
      causal: query i sees keys 0 .. i only; q must equal j.
      query_segment_ids, key_segment_ids: int [b, q] and [b, j]. A key of segment 0 (padding) is
        hidden; with both given, a query sees the keys of its own segment alone.
      bias: float32 [h, 2n + 1] for any n, added to the scores: of keys n places before the query to
        n behind it; keys further away have that of n places (T5's bias is constant from
        `max_distance` on); q must equal j.
      chunk_size: cuts the sequence into pieces of so many tokens, within which queries see keys;
        q and j must be the same multiple of it. None: it is whole.
      weights: "softmax", "laplace" or "relu2" (see `weights`); kernels have the first alone.
      dropout_rate: which share of the probabilities to drop.
      dropout_key: needed where the rate is not zero.
      implementation: a name; None is the platform's best.

    Returns:
      [b, q, h, k] in the dtype of the queries; zero where a query sees no key.

    Raises:
      ValueError: shapes that contradict, unknown weights, segments of queries alone, a dropout rate
        outside [0, 1) or without a key, or an implementation that cannot do this
        (`dispatch.Unsupported`).
    """
    (_, queries, heads, _), keys = query_bqhk.shape, key_bjhk.shape[1]
    check(not causal or queries == keys, "causal", causal, f"{queries} queries, {keys} keys")
    check(
        query_segment_ids is None or key_segment_ids is not None,
        "key_segment_ids",
        None,
        "must be given with query_segment_ids",
    )
    check(
        bias is None
        or (
            queries == keys and bias.ndim == 2 and bias.shape[0] == heads and bias.shape[1] % 2 > 0
        ),
        "bias.shape",
        None if bias is None else bias.shape,
        f"must be [h, 2n + 1] of {heads} heads, and there must be as many queries ({queries}) as "
        f"keys ({keys})",
    )
    check(
        chunk_size is None or (queries == keys and queries % chunk_size == 0),
        "chunk_size",
        chunk_size,
        f"must divide the sequence, of {queries} queries and {keys} keys",
    )
    check_choice("weights", weights, WEIGHTS)
    check_dropout(dropout_rate, dropout_key)
    arguments = (
        query_bqhk,
        key_bjhk,
        value_bjhk,
        query_segment_ids,
        key_segment_ids,
        bias,
        dropout_key if dropout_rate > 0 else None,
    )
    settings: dict[str, Any] = {"causal": causal, "dropout_rate": dropout_rate}
    settings |= {"chunk_size": chunk_size} if chunk_size is not None else {}
    settings |= {"weights": weights} if weights != "softmax" else {}
    return FULL_ATTENTION.choose(implementation, *arguments, **settings)(*arguments, **settings)


FULL_ATTENTION = Operation("full attention")
FULL_ATTENTION.register("xla", full_xla.attend, platforms=("cpu", "gpu", "tpu"))
FULL_ATTENTION.register(
    "pallas_gpu",
    pallas_gpu.attend_to_all,
    platforms=("gpu",),
    refuses=pallas_gpu.refuses,
    best_for=pallas_gpu.best_for,
)
# Faster than our kernels where it takes the arguments (measured on an H100).
FULL_ATTENTION.register("cudnn", full_cudnn.attend, platforms=("gpu",), refuses=full_cudnn.refuses)
FULL_ATTENTION.register(
    "pallas_tpu", pallas_tpu.attend_to_all, platforms=("tpu",), refuses=pallas_tpu.refuses
)
