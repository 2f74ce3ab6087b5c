"""Settings of self-attention: to a window, or to all of the sequence."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any

from spade_jax.config.mixer import MixerConfig
from spade_jax.config.model import MAX_LENGTH, ModelConfig, StackConfig
from spade_jax.config.schema import ConfigError, Range, require, require_choice


@dataclasses.dataclass(frozen=True)
class SelfAttentionConfig(MixerConfig):
    """What both have in common; heads and biases are those of `model.attention`."""

    def check_implementation(self, model: ModelConfig) -> None:
        raise NotImplementedError

    def keys(self, length: int, *, causal: bool) -> float:
        """How many keys a query sees in sequences of this length, on average."""
        raise NotImplementedError

    def relative_reach(self, model: ModelConfig, length: int) -> int:
        raise NotImplementedError

    def check_mesh(
        self, model: ModelConfig, length: int, *, causal: bool, shards: Callable[[str], int]
    ) -> None:
        heads, pieces = model.attention.num_heads, shards("heads")
        require(
            heads % pieces == 0,
            "mesh.tensor",
            pieces,
            f"must divide model.attention.num_heads = {heads}",
        )

    def flops(self, model: ModelConfig, length: int, *, causal: bool) -> float:
        """Of the four projections, the scores and the values of keys that are seen: an
        implementation that skips the others gains time by it, and no operations."""
        width = model.attention.num_heads * model.head_dim
        keys = self.keys(length, causal=causal)
        return 4 * 2 * model.d_model * width + 2 * 2 * keys * width

    def build(self, model: ModelConfig, stack: StackConfig, *, causal: bool, rngs: Any) -> Any:
        from spade_jax.mixers.attention.module import SelfAttention

        own_bias = stack.relative_bias == "per_layer"
        return SelfAttention(self, model, causal=causal, own_bias=own_bias, rngs=rngs)


def require_implementation(
    operation: Any,
    model: ModelConfig,
    segments: int,
    reach: int | None,
    **settings: Any,
) -> None:
    """Raises ConfigError where `model.attention.implementation` names what an operation lacks, or
    what cannot take the model's attention on the platform at hand.

    Args:
      operation: an `ops.dispatch.Operation` on queries, keys and values.
      segments: how many arrays of segments it takes.
      reach: of its bias; None: it is given none.
      settings: of the operation.
    """
    if (named := model.attention.implementation) is None:
        return
    require_choice("model.attention.implementation", named, operation.implementations)
    import jax

    from spade_jax.ops.dispatch import Unsupported

    length, heads = 1024, model.attention.num_heads
    array = jax.ShapeDtypeStruct((1, length, heads, model.head_dim), model.dtype)
    segment_ids = jax.ShapeDtypeStruct((1, length), "int32")
    bias = None if reach is None else jax.ShapeDtypeStruct((heads, 2 * reach + 1), "float32")
    dropout_rate = model.dropout_in("attention")
    key = jax.eval_shape(lambda: jax.random.key(0)) if dropout_rate > 0 else None
    arguments = (array, array, array, *[segment_ids] * segments, bias, key)
    try:
        operation.choose(named, *arguments, dropout_rate=dropout_rate, **settings)
    except Unsupported as refusal:
        raise ConfigError(f"model.attention.implementation = {named!r}: {refusal}") from None


@dataclasses.dataclass(frozen=True)
class Window(SelfAttentionConfig, kind="window"):
    """Sliding-window attention.

    Attributes:
      radius: r; a token sees those at most r away (and, if causal, none behind it).
    """

    radius: Annotated[int, Range(1, MAX_LENGTH)] = 127

    def check_implementation(self, model: ModelConfig) -> None:
        from spade_jax.ops.attention.window import WINDOW_ATTENTION

        require_implementation(
            WINDOW_ATTENTION, model, 1, self.radius, radius=self.radius, causal=False
        )

    def keys(self, length: int, *, causal: bool) -> float:
        reach = min(self.radius, length - 1)
        to_one_side = reach - reach * (reach + 1) / (2 * length)
        return 1 + to_one_side * (1 if causal else 2)

    def relative_reach(self, model: ModelConfig, length: int) -> int:
        return self.radius

    def check_mesh(
        self, model: ModelConfig, length: int, *, causal: bool, shards: Callable[[str], int]
    ) -> None:
        super().check_mesh(model, length, causal=causal, shards=shards)
        pieces = shards("length")
        require(
            pieces == 1 or length // pieces > self.radius,
            "mesh.sequence",
            pieces,
            f"must cut sequences of {length} tokens into shards longer than "
            f"model.mixers.window.radius = {self.radius}",
        )


@dataclasses.dataclass(frozen=True)
class Full(SelfAttentionConfig, kind="full"):
    """Attention to all of the sequence (arXiv 1706.03762)."""

    def check_implementation(self, model: ModelConfig) -> None:
        from spade_jax.ops.attention.full import FULL_ATTENTION

        reach = model.attention.max_distance
        require_implementation(FULL_ATTENTION, model, 2, reach, causal=True)

    def keys(self, length: int, *, causal: bool) -> float:
        return (length + 1) / 2 if causal else length

    def relative_reach(self, model: ModelConfig, length: int) -> int:
        # Further keys share T5's last bucket, and so one bias.
        return min(length - 1, model.attention.max_distance)

    def check_mesh(
        self, model: ModelConfig, length: int, *, causal: bool, shards: Callable[[str], int]
    ) -> None:
        super().check_mesh(model, length, causal=causal, shards=shards)
        pieces = shards("length")
        require(
            pieces == 1 or causal,
            "mesh.sequence",
            pieces,
            "must be 1 with full attention in the encoder, which needs the whole sequence; window "
            "attention does not",
        )
