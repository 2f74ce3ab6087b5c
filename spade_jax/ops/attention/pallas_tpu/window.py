"""How arrays come to the kernels of window attention."""

import jax.numpy as jnp
from jax import Array

from spade_jax.ops.attention.pallas_tpu import window_kernels
from spade_jax.ops.attention.pallas_tpu.heads import BLOCK, Heads, alike, filled_up
from spade_jax.ops.attention.pallas_tpu.tiles import HIDDEN
from spade_jax.ops.attention.pallas_tpu.window_specs import Window
from spade_jax.ops.attention.shards import DropoutWords
from spade_jax.ops.attention.softmax import named
from spade_jax.ops.dispatch import interprets

# Queries of a kernel's step, about.
_SPAN = 512


def attend(
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
    rows, length, count, _ = query_blhk.shape
    q, k, v = alike(query_blhk, key_bjhk, value_bjhk)
    heads = Heads(count, q.shape[-1] // count)
    if key_segment_ids is None:
        key_segment_ids = jnp.ones(k.shape[:2], jnp.int32)
    # Keys of neighbours lie around the shard's own; in their place there are queries of zeros.
    after = k.shape[1] - before - length
    q = jnp.pad(q, ((0, 0), (before, after), (0, 0)))
    if words is not None:
        queries = jnp.pad(words.query_bhq, ((0, 0), (0, 0), (before, after)))
        words = DropoutWords(queries, words.key_j)
    reach = -(-radius // BLOCK)
    window = Window(
        heads,
        before=reach,
        behind=0 if causal else reach,
        span=_span(k.shape[1], reach * BLOCK),
        biased=bias is not None,
        dropout_rate=dropout_rate if words is not None else 0.0,
        interpret=interprets(),
    )
    vector = _vector(bias, radius, causal, window)
    attended = window_kernels.attend(
        q, k, v, vector, key_segment_ids.astype(jnp.int32), words, window
    )
    attended = attended[:, before : before + length].reshape(rows, length, *heads)
    return named(attended[..., : value_bjhk.shape[-1]])


def _span(length: int, unit: int) -> int:
    """How long the spans of queries are: whole multiples of a unit."""
    spans = max(1, length // max(_SPAN, unit))
    return -(-length // (spans * unit)) * unit


def _vector(bias: Array | None, radius: int, causal: bool, window: Window) -> Array:
    """What a query adds to the scores of its keys, as `window_kernels.attend` takes it: the bias
    [h, 2 * radius + 1] within the window, HIDDEN beyond it."""
    heads, seen = window.heads, radius + 1 if causal else 2 * radius + 1
    if bias is None:
        bias = jnp.zeros((heads.number, seen), jnp.float32)
    bias = filled_up(bias[:, :seen].astype(jnp.float32), heads.total, axis=0)
    first = window.before * BLOCK - radius
    rest = window.ring - first - seen
    ring = jnp.pad(bias, ((0, 0), (first, rest)), constant_values=HIDDEN)
    return ring.reshape(heads.groups, heads.in_group, window.ring)
