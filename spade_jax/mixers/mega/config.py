"""Settings of MEGA's gated attention."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, Self

from spade_jax.config.mixer import MixerConfig
from spade_jax.config.model import MAX_LENGTH, ModelConfig, StackConfig
from spade_jax.config.schema import Range, require
from spade_jax.mixers.attention.config import (
    Asked,
    keys_of_chunks,
    require_implementation,
    require_whole_chunks,
)
from spade_jax.mixers.ema.config import EMA
from spade_jax.mixers.s4.config import S4

_Rate = Annotated[float, Range(0, 1, "for model.dropout_rate", below=True)] | None


@dataclasses.dataclass(frozen=True)
class Mega(MixerConfig, kind="mega"):
    """Attention with one head over a moving average, gated (MEGA, arXiv 2209.10655).

    It gates the residual, too: alone in a layer it decides how much of the layer's input goes on.
    Heads, biases and implementation of `model.attention` are not its own.

    Attributes:
      query_dim: z, the width of queries and keys.
      value_dim: v, the width of values; None is 2 * d_model.
      chunk_size: tokens of a chunk, within which they attend, as of `Chunk`; None: to all of the
        sequence.
      weights: "softmax", "laplace" or "relu2" (see `ops.attention.weights`).
      bias: "simple" is learned for each relative position, "rotary" is made of two learned vectors.
      max_distance: how far the simple bias tells places apart without chunks; those further away
        have that of the last.
      average: what goes before attention: MEGA's moving average, or a state space.
      attention_dropout_rate: on attention's weights.
      hidden_dropout_rate: on values.
      implementation: what computes attention; None is the best on the platform.
    """

    gates_residual: ClassVar[bool] = True

    query_dim: Annotated[int, Range(1, 2**14)] = 64
    value_dim: Annotated[int, Range(1, 2**19, "for 2 * d_model")] | None = None
    chunk_size: Annotated[int, Range(2, MAX_LENGTH, "for all of the sequence")] | None = 128
    weights: Literal["softmax", "laplace", "relu2"] = "softmax"
    bias: Literal["simple", "rotary", "none"] = "simple"
    max_distance: Annotated[int, Range(1, MAX_LENGTH)] = 2048
    average: EMA | S4 = dataclasses.field(default_factory=EMA)
    attention_dropout_rate: _Rate = None
    hidden_dropout_rate: _Rate = None
    implementation: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            isinstance(self.average, EMA | S4),
            "model.mixers.mega.average",
            self.average,
            "must be a mixer of kind ema or s4",
        )
        require(
            self.bias != "rotary" or self.query_dim % 2 == 0,
            "model.mixers.mega.query_dim",
            self.query_dim,
            'must be even with bias "rotary", which turns pairs',
        )

    def width_of_values(self, model: ModelConfig) -> int:
        """v."""
        return self.value_dim or 2 * model.d_model

    def check_model(self, model: ModelConfig) -> None:
        self.average.check_model(model)

    def check_mesh(
        self, model: ModelConfig, length: int, *, causal: bool, shards: Callable[[str], int]
    ) -> None:
        self.average.check_mesh(model, length, causal=causal, shards=shards)
        pieces = shards("length")
        if self.chunk_size is not None:
            require_whole_chunks("model.mixers.mega.chunk_size", self.chunk_size, length, pieces)
        require(
            pieces == 1 or self.chunk_size is not None,
            "mesh.sequence",
            pieces,
            "must be 1 with model.mixers.mega.chunk_size = None, which needs the whole sequence",
        )

    def check_implementation(self, model: ModelConfig) -> None:
        from spade_jax.ops.attention.full import FULL_ATTENTION
        from spade_jax.ops.attention.window import WINDOW_ATTENTION

        self.average.check_implementation(model)
        asked = Asked(
            "model.mixers.mega.implementation",
            self.implementation,
            heads=1,
            head_dim=self.query_dim,
            value_dim=self.width_of_values(model),
            dropout_rate=self.dropout_rate_of_weights(model),
        )
        settings = {} if self.weights == "softmax" else {"weights": self.weights}
        reach = None if self.bias == "none" else self.reach(1024)
        require_implementation(FULL_ATTENTION, model, 2, reach, asked, causal=False, **settings)
        if self.chunk_size is not None:  # For packed rows.
            radius = self.chunk_size - 1
            require_implementation(
                WINDOW_ATTENTION, model, 1, reach, asked, causal=False, radius=radius, **settings
            )

    def run_by(self, implementation: str) -> Self:
        average = self.average.run_by(implementation)
        return dataclasses.replace(self, implementation=implementation, average=average)

    def dropout_rate_of_weights(self, model: ModelConfig) -> float:
        own = self.attention_dropout_rate
        return model.dropout_in("attention") if own is None else own

    def reach(self, length: int) -> int:
        """Of the biases in sequences of this length: places to either side."""
        if self.chunk_size is not None:
            return self.chunk_size - 1
        return self.max_distance if self.bias == "simple" else max(length - 1, 1)

    def flops(self, model: ModelConfig, length: int, *, causal: bool) -> float:
        """Of the projections, the scores and the values of keys that are seen, and the average."""
        d, z, v = model.d_model, self.query_dim, self.width_of_values(model)
        keys = keys_of_chunks(length, self.chunk_size or length, causal=causal)
        average = self.average.flops(model, length, causal=causal)
        return average + 2 * d * (2 * d + z + 3 * v) + 2 * keys * (z + v)

    def build(self, model: ModelConfig, stack: StackConfig, *, causal: bool, rngs: Any) -> Any:
        from spade_jax.mixers.mega.module import GatedAttention

        return GatedAttention(self, model, stack, causal=causal, rngs=rngs)
