"""Sliding-window attention: time and memory linear in the length."""

from typing import Any

from jax import Array

from spade_jax.ops.attention import window_xla
from spade_jax.ops.attention.dropout import check_dropout
from spade_jax.ops.attention.pallas_gpu import operations as pallas_gpu
from spade_jax.ops.attention.pallas_tpu import operations as pallas_tpu
from spade_jax.ops.attention.weights import WEIGHTS
from spade_jax.ops.checks import check, check_choice
from spade_jax.ops.dispatch import Operation


def window_attention(
    query_blhk: Array,
    key_blhk: Array,
    value_blhk: Array,
    *,
    radius: int,
    causal: bool,
    segment_ids: Array | None = None,
    bias: Array | None = None,
    weights: str = "softmax",
    dropout_rate: float = 0.0,
    dropout_key: Array | None = None,
    implementation: str | None = None,
) -> Array:
    """Softmax attention of each position to those within `radius` of it.

    Position i sees j where |i - j| <= radius (and j <= i if `causal`) and both are of one
    segment. There is never an array of l x l.

    Args:
      query_blhk: [b, l, h, k], already scaled; any length.
      key_blhk, value_blhk: [b, l, h, k].
      radius: how many positions to either side are seen, at least 1.
      causal: see none to the right.
      segment_ids: int [b, l], in any order; 0 is padding, which sees nothing and is never seen.
        None: all of one segment.
      bias: float32 [h, 2 * radius + 1], added to the scores: of keys `radius` places before the
        query to `radius` behind it.
      weights: "softmax", "laplace" or "relu2" (see `weights`); kernels have the first alone.
      dropout_rate: which share of the probabilities to drop.
      dropout_key: needed where the rate is not zero.
      implementation: a name; None is the platform's best.

    Returns:
      [b, l, h, k] in the dtype of the queries; zero at padding.

    Raises:
      ValueError: a radius below 1, a bias of another shape, unknown weights, a dropout rate outside
        [0, 1) or without a key, or an implementation that cannot do this (`dispatch.Unsupported`).
    """
    check(radius >= 1, "radius", radius, "must be at least 1")
    heads = query_blhk.shape[2]
    check(
        bias is None or bias.shape == (heads, 2 * radius + 1),
        "bias.shape",
        None if bias is None else bias.shape,
        f"must be [h, 2 * radius + 1] = {(heads, 2 * radius + 1)} for radius = {radius}",
    )
    check_choice("weights", weights, WEIGHTS)
    check_dropout(dropout_rate, dropout_key)
    arguments = (
        query_blhk,
        key_blhk,
        value_blhk,
        segment_ids,
        bias,
        dropout_key if dropout_rate > 0 else None,
    )
    settings: dict[str, Any] = {"radius": radius, "causal": causal, "dropout_rate": dropout_rate}
    settings |= {"weights": weights} if weights != "softmax" else {}
    return WINDOW_ATTENTION.choose(implementation, *arguments, **settings)(*arguments, **settings)


WINDOW_ATTENTION = Operation("window attention")
WINDOW_ATTENTION.register("xla", window_xla.attend, platforms=("cpu", "gpu", "tpu"))
WINDOW_ATTENTION.register(
    "pallas_gpu",
    pallas_gpu.attend_to_window,
    platforms=("gpu",),
    refuses=pallas_gpu.refuses,
    best_for=pallas_gpu.best_for,
)
WINDOW_ATTENTION.register(
    "pallas_tpu", pallas_tpu.attend_to_window, platforms=("tpu",), refuses=pallas_tpu.refuses_window
)
