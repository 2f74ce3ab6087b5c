"""Settings of self-attention: to a window, to a chunk, or to all of the sequence."""

import dataclasses
from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

from spade_jax.config.mixer import MixerConfig
from spade_jax.config.model import MAX_LENGTH, ModelConfig, StackConfig
from spade_jax.config.schema import ConfigError, Range, require, require_choice


@dataclasses.dataclass(frozen=True)
class SelfAttentionConfig(MixerConfig):
    """What they have in common; heads and biases are those of `model.attention`."""

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


class Asked(NamedTuple):
    """The attention that an implementation is asked for.

    Attributes:
      setting: where the implementation is named.
      implementation: its name; None is the platform's best.
      heads, head_dim, value_dim: of queries and keys, and the width of values.
    """

    setting: str
    implementation: str | None
    heads: int
    head_dim: int
    value_dim: int
    dropout_rate: float


def _of_heads(model: ModelConfig) -> Asked:
    """The attention that `model.attention` describes."""
    attention, size = model.attention, model.head_dim
    named = "model.attention.implementation", attention.implementation
    return Asked(*named, attention.num_heads, size, size, model.dropout_in("attention"))


def require_implementation(
    operation: Any,
    model: ModelConfig,
    segments: int,
    reach: int | None,
    asked: Asked | None = None,
    **settings: Any,
) -> None:
    """Raises ConfigError where an implementation is named that an operation lacks, or that cannot
    take the attention on the platform at hand.

    Args:
      operation: an `ops.dispatch.Operation` on queries, keys and values.
      segments: how many arrays of segments it takes.
      reach: of its bias; None: it is given none.
      asked: None: what `model.attention` describes.
      settings: of the operation.
    """
    asked = asked or _of_heads(model)
    if asked.implementation is None:
        return
    require_choice(asked.setting, asked.implementation, operation.implementations)
    import jax

    from spade_jax.ops.dispatch import Unsupported

    def array(size: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((1, 1024, asked.heads, size), model.dtype)

    query, value = array(asked.head_dim), array(asked.value_dim)
    segment_ids = jax.ShapeDtypeStruct((1, 1024), "int32")
    bias = None if reach is None else jax.ShapeDtypeStruct((asked.heads, 2 * reach + 1), "float32")
    key = jax.eval_shape(lambda: jax.random.key(0)) if asked.dropout_rate > 0 else None
    arguments = (query, query, value, *[segment_ids] * segments, bias, key)
    try:
        operation.choose(
            asked.implementation, *arguments, dropout_rate=asked.dropout_rate, **settings
        )
    except Unsupported as refusal:
        raise ConfigError(f"{asked.setting} = {asked.implementation!r}: {refusal}") from None


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
class Chunk(SelfAttentionConfig, kind="chunk"):
    """Attention within chunks, into which sequences are cut (as in MEGA-chunk, arXiv 2209.10655).

    Attributes:
      size: tokens of a chunk. Chunks begin with each sequence, also in packed rows; the last one
        of a sequence may be shorter.
    """

    size: Annotated[int, Range(2, MAX_LENGTH)] = 128

    def check_implementation(self, model: ModelConfig) -> None:
        from spade_jax.ops.attention.full import FULL_ATTENTION
        from spade_jax.ops.attention.window import WINDOW_ATTENTION

        reach = self.size - 1
        require_implementation(FULL_ATTENTION, model, 2, reach, causal=False)
        # For packed rows.
        require_implementation(WINDOW_ATTENTION, model, 1, reach, radius=reach, causal=False)

    def keys(self, length: int, *, causal: bool) -> float:
        return keys_of_chunks(length, self.size, causal=causal)

    def relative_reach(self, model: ModelConfig, length: int) -> int:
        return self.size - 1

    def check_mesh(
        self, model: ModelConfig, length: int, *, causal: bool, shards: Callable[[str], int]
    ) -> None:
        super().check_mesh(model, length, causal=causal, shards=shards)
        require_whole_chunks("model.mixers.chunk.size", self.size, length, shards("length"))


def keys_of_chunks(length: int, size: int, *, causal: bool) -> float:
    """How many keys a query sees in sequences of this length, on average."""

    def pairs(tokens: int) -> float:
        return tokens * (tokens + 1) / 2 if causal else tokens * tokens

    chunks, rest = divmod(length, size)
    return (chunks * pairs(size) + pairs(rest)) / length


def require_whole_chunks(setting: str, size: int, length: int, pieces: int) -> None:
    """Raises ConfigError where a mesh would cut through chunks."""
    require(
        pieces == 1 or length % (pieces * size) == 0,
        "mesh.sequence",
        pieces,
        f"must cut sequences of {length} tokens into equal shards of whole chunks, of {setting} = "
        f"{size} tokens each",
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
