"""The operations that have several implementations, at given sizes.

Of attention everything is bfloat16 but the bias; of the state space everything is float32, as in
the model.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.accelerator.sizes import Batch, Sizes
from spade_jax.config import EncoderDecoderConfig
from spade_jax.ops.attention.full import FULL_ATTENTION, full_attention
from spade_jax.ops.attention.window import WINDOW_ATTENTION, window_attention
from spade_jax.ops.dispatch import Operation
from spade_jax.ops.ssm import hippo
from spade_jax.ops.ssm.convolution import CHUNKED, convolve
from spade_jax.ops.ssm.discrete import StateSpace, discretize, readout


@dataclasses.dataclass(frozen=True)
class Case:
    """An operation and its arguments.

    Attributes:
      function: takes `arguments`, and `implementation` by name.
      arguments: trees of arrays, by which it is differentiated, by name.
      cotangent: of the result, [b, l, h, k] of attention and [b, l, 1, d] of the state space.
      flops: of the forward pass: two for each multiplication, of pairs that are seen.
    """

    title: str
    operation: Operation
    function: Callable[..., jax.Array]
    arguments: dict[str, Any]
    cotangent: jax.Array
    flops: float

    @property
    def dtype(self) -> str:
        return self.cotangent.dtype.name

    def forward(self, implementation: str | None) -> Callable[..., Any]:
        """(cotangent, *arguments) -> the result."""
        return lambda cotangent, *arguments: self.function(
            *arguments, implementation=implementation
        )

    def gradient(self, implementation: str | None) -> Callable[..., Any]:
        """(cotangent, *arguments) -> the result, and its gradients by each of the arguments."""

        def run(cotangent: jax.Array, *arguments: Any) -> dict[str, Any]:
            result, pull = jax.vjp(self.forward(implementation), cotangent, *arguments)
            _, *gradients = pull(cotangent.astype(result.dtype))
            named = {f"d {name}": each for name, each in zip(self.arguments, gradients)}
            return {"result": result, **named}

        return run


def timed_cases(sizes: Sizes, batch: Batch) -> list[Case]:
    """What an update of this batch consists of."""
    return [
        window_case(sizes.model, batch),
        causal_case(sizes.model, batch),
        cross_case(sizes.model, batch),
        state_space_case(sizes.model, batch),
    ]


def checked_cases(sizes: Sizes) -> list[Case]:
    """All that an implementation may be asked for."""
    model, batch = sizes.model, sizes.checked
    return [
        window_case(model, batch),
        window_case(model, batch, causal=True),
        window_case(model, batch, packed=True),
        window_case(model, batch, dropout=0.1),
        causal_case(model, batch),
        causal_case(model, batch, packed=True),
        cross_case(model, batch),
        cross_case(model, batch, packed=True),
        cross_case(model, batch, dropout=0.1),
        state_space_case(model, batch),
        state_space_case(model, batch, packed=True),
    ]


def window_case(
    model: EncoderDecoderConfig,
    batch: Batch,
    *,
    causal: bool = False,
    packed: bool = False,
    dropout: float = 0.0,
) -> Case:
    window: Any = model.mixers["window"]
    arguments, cotangent = _attention(model, batch.rows, batch.inputs, batch.inputs)
    arguments["bias"] = _bias(model, window.radius)
    segments = _segments(batch.rows, batch.inputs) if packed else None

    def function(*arrays: jax.Array, implementation: str | None) -> jax.Array:
        query, key, value, bias = arrays
        return window_attention(
            query,
            key,
            value,
            bias=bias,
            radius=window.radius,
            causal=causal,
            segment_ids=segments,
            dropout_rate=dropout,
            dropout_key=jax.random.key(0) if dropout else None,
            implementation=implementation,
        )

    words = _words(causal=causal, packed=packed, dropout=dropout)
    title = f"window of {window.radius}{words}, {batch.rows} x {batch.inputs:,}"
    flops = _flops(model, batch.rows * batch.inputs * window.keys(batch.inputs, causal=causal))
    return Case(title, WINDOW_ATTENTION, function, arguments, cotangent, flops)


def causal_case(model: EncoderDecoderConfig, batch: Batch, *, packed: bool = False) -> Case:
    full: Any = model.mixers["full"]
    arguments, cotangent = _attention(model, batch.rows, batch.targets, batch.targets)
    arguments["bias"] = _bias(model, full.relative_reach(model, batch.targets))
    segments = _segments(batch.rows, batch.targets) if packed else None

    def function(*arrays: jax.Array, implementation: str | None) -> jax.Array:
        query, key, value, bias = arrays
        return full_attention(
            query,
            key,
            value,
            bias=bias,
            causal=True,
            query_segment_ids=segments,
            key_segment_ids=segments,
            implementation=implementation,
        )

    title = f"causal{_words(packed=packed)}, {batch.rows} x {batch.targets:,}"
    flops = _flops(model, batch.rows * batch.targets * full.keys(batch.targets, causal=True))
    return Case(title, FULL_ATTENTION, function, arguments, cotangent, flops)


def cross_case(
    model: EncoderDecoderConfig, batch: Batch, *, packed: bool = False, dropout: float = 0.0
) -> Case:
    arguments, cotangent = _attention(model, batch.rows, batch.targets, batch.inputs)

    def function(*arrays: jax.Array, implementation: str | None) -> jax.Array:
        query, key, value = arrays
        return full_attention(
            query,
            key,
            value,
            causal=False,
            query_segment_ids=_segments(batch.rows, batch.targets) if packed else None,
            key_segment_ids=_segments(batch.rows, batch.inputs) if packed else None,
            dropout_rate=dropout,
            dropout_key=jax.random.key(0) if dropout else None,
            implementation=implementation,
        )

    words = _words(packed=packed, dropout=dropout)
    title = f"cross{words}, {batch.rows} x {batch.targets:,} x {batch.inputs:,}"
    flops = _flops(model, batch.rows * batch.targets * batch.inputs)
    return Case(title, FULL_ATTENTION, function, arguments, cotangent, flops)


def state_space_case(model: EncoderDecoderConfig, batch: Batch, *, packed: bool = False) -> Case:
    """Of both directions, as the encoder runs it."""
    s4: Any = model.mixers["s4"]
    d, n = model.d_model, s4.state_size
    rng = np.random.default_rng(0)
    w, p, b, _ = (jnp.asarray(np.tile(x, (d, 1)), jnp.complex64) for x in hippo.legs_nplr(n))
    dt = jnp.exp(jnp.asarray(rng.uniform(np.log(s4.dt_min), np.log(s4.dt_max), d), jnp.float32))
    system = jax.jit(discretize, static_argnums=1)(StateSpace(w, p, b, dt), s4.discretization)
    real, imag = (_normal(rng, (2, d, n // 2), 0.5**0.5, "float32") for _ in range(2))
    arguments = {
        "system": system,
        "C": readout(jax.lax.complex(real, imag)),
        "input": _normal(rng, (batch.rows, batch.inputs, d), 1.0, "float32"),
    }
    segments = _segments(batch.rows, batch.inputs) if packed else None

    def function(system: Any, c: Any, u: Any, *, implementation: str | None) -> jax.Array:
        y = convolve(
            system,
            c,
            u,
            chunk_length=s4.chunk_length,
            segment_ids=segments,
            bidirectional=True,
            implementation=implementation,
        )
        # What stands at padding means nothing.
        return y if segments is None else jnp.where((segments != 0)[..., None, None], y, 0.0)

    title = f"state space{_words(packed=packed)}, {batch.rows} x {batch.inputs:,}"
    cotangent = _normal(rng, (batch.rows, batch.inputs, 1, d), 1.0, "float32")
    flops = batch.rows * batch.inputs * s4.flops(model, batch.inputs, causal=False)
    return Case(title, CHUNKED, function, arguments, cotangent, flops)


def _attention(
    model: EncoderDecoderConfig, rows: int, queries: int, keys: int
) -> tuple[dict[str, Any], jax.Array]:
    """Queries, keys and values; scores of standard deviation 2, so that some pairs matter much."""
    rng = np.random.default_rng(0)
    heads, size = model.attention.num_heads, model.head_dim
    shapes = {"query": queries, "key": keys, "value": keys, "cotangent": queries}
    arrays: dict[str, Any] = {
        name: _normal(
            rng, (rows, n, heads, size), 2 * size**-0.5 if name == "query" else 1.0, model.dtype
        )
        for name, n in shapes.items()
    }
    return arrays, arrays.pop("cotangent")


def _bias(model: EncoderDecoderConfig, reach: int) -> jax.Array:
    shape = (model.attention.num_heads, 2 * reach + 1)
    return _normal(np.random.default_rng(1), shape, 1.0, "float32")


def _normal(
    rng: np.random.Generator, shape: tuple[int, ...], scale: float, dtype: str
) -> jax.Array:
    return jnp.asarray(scale * rng.standard_normal(shape, np.float32), dtype)


def _segments(rows: int, length: int) -> jax.Array:
    """int32 [rows, length]: three segments of lengths that differ from row to row, and padding."""
    position, row = np.arange(length)[None], np.arange(rows)[:, None]
    first, second = length // 4 + 3 * row, length // 2 + 5 * row
    segments = 1 + (position >= first) + (position >= second)
    return jnp.asarray(np.where(position < length - length // 10 - row, segments, 0), jnp.int32)


def _flops(model: EncoderDecoderConfig, pairs: float) -> float:
    """Of the scores and the values of pairs of a query and a key, in all heads."""
    return 2 * 2 * model.attention.num_heads * model.head_dim * pairs


def _words(causal: bool = False, packed: bool = False, dropout: float = 0.0) -> str:
    words = {"causal": causal, "packed": packed, f"dropout {dropout}": dropout > 0}
    return "".join(f", {word}" for word, said in words.items() if said)
