"""What a model is, as frozen dataclasses that know no framework, and every check on them.

A configuration is rejected here, by name and value, before anything is compiled or written.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self, TypeVar, cast

from spade_jax.config.adaptive import AdaptiveConfig
from spade_jax.config.mixer import MixerConfig, Mixers
from spade_jax.config.pattern import Group, LayerSpec, parse_pattern
from spade_jax.config.schema import ConfigError, Kinds, Range, check_fields, nearest, require

# Of sequences, and of the entries of a vocabulary.
MAX_LENGTH = 2**20
MAX_VOCABULARY = 2**24
# What matrices over a vocabulary are rounded up to: tiles of matmuls, and even shares of devices.
_ROUNDED = 128


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """What all attention of a model has in common: heads, and T5's relative-position buckets.

    Attributes:
      num_heads, head_dim: h and k; head_dim None is d_model / num_heads.
      num_buckets, max_distance: T5's relative-position buckets.
      scale_queries: multiply queries by head_dim ** -0.5; T5 folds that into its initial values.
      implementation: what computes it, such as "xla"; None is the best on the platform.
    """

    MOVED: ClassVar[Mapping[str, str]] = {"radius": "model.mixers.window.radius"}

    num_heads: Annotated[int, Range(1, 2**12)] = 12
    head_dim: Annotated[int, Range(1, 2**14, "for d_model / num_heads")] | None = None
    num_buckets: Annotated[int, Range(4, 2**16)] = 32
    max_distance: Annotated[int, Range(1, MAX_LENGTH)] = 128
    scale_queries: bool = False
    implementation: str | None = None

    def __post_init__(self) -> None:
        check_fields(self, "model.attention.")
        require(
            self.num_buckets % 2 == 0,
            "model.attention.num_buckets",
            self.num_buckets,
            "must be even: half for each sign, exact and logarithmic ones in both",
        )
        require(
            self.max_distance > self.num_buckets // 2,
            "model.attention.max_distance",
            self.max_distance,
            f"must exceed num_buckets / 2 = {self.num_buckets // 2}, where the logarithmic "
            "buckets begin",
        )


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """One stack of layers, the encoder or the decoder.

    Attributes:
      layers: the layer pattern, bottom first (see `config.pattern`).
      relative_bias: one table of position biases for the whole stack ("shared", T5), one a layer
        ("per_layer"), or "none".
      positions: "learned" adds a table of absolute positions to the embeddings.
      max_positions: entries of that table, the longest sequence the stack takes.
    """

    layers: str
    relative_bias: Literal["shared", "per_layer", "none"] = "shared"
    positions: Literal["none", "learned"] = "none"
    max_positions: Annotated[int, Range(1, MAX_LENGTH)] | None = None

    def __post_init__(self) -> None:
        check_fields(self, "model.encoder or model.decoder, ")
        require(
            (self.positions == "learned") == (self.max_positions is not None),
            "model.encoder or model.decoder, max_positions",
            self.max_positions,
            'must be set for positions "learned", and only then',
        )

    @property
    def groups(self) -> tuple[Group, ...]:
        """The layers as groups that repeat."""
        return parse_pattern(self.layers)

    @property
    def layer_specs(self) -> Iterator[LayerSpec]:
        """The layers one by one, bottom first."""
        for group in self.groups:
            yield from group.layers * group.repeat


DropoutRate = Annotated[float, Range(0, 1, below=True)]
OwnDropoutRate = Annotated[float, Range(0, 1, "for model.dropout_rate", below=True)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(Kinds, family="kind of model", default="encoder_decoder"):
    """What all kinds of models have in common.

    Attributes:
      d_model, d_ff: d and the width inside the feed-forward block.
      mixers: the stacks' mixers by the names that patterns use. A kind of mixer that a pattern
        names and this does not is there with its default settings.
      attention: what is common to all attention.
      norm, norm_epsilon: "rms" has a scale only; "layer" subtracts the mean and has a bias; "scale"
        is "rms" with one number as scale; "batch" normalises each feature over all tokens of a
        microbatch, and by running means of that where nothing is trained.
      norm_placement: before each block ("pre") or after its residual ("post").
      embedding_norm, final_norm: norms on the embeddings and after the last layer of each stack.
      final_dropout: dropout on what the final norms give, too, as in T5.
      feed_forward: "gated-gelu" is gelu_tanh(W0 x) * W1 x; "gelu" is the exact (erf) one;
        "gated-silu" (SwiGLU) is silu(W0 x) * W1 x.
      feed_forward_bias: biases in the feed-forward block.
      add_weight: w of the combination "add", w * first + (1 - w) * second.
      dropout_rate: on embeddings, attention probabilities, block outputs and inside feed-forward,
        and where `final_dropout` says so.
      attention_dropout_rate, feed_forward_dropout_rate: on attention probabilities and inside
        feed-forward instead.
      dtype: of activations and matmuls. Parameters, the SSM, softmax, norm statistics and the
        loss are float32 whatever it says.
      scan_layers: run equal layers as one `lax.scan` over stacked parameters, or one by one; None
        scans, except up to 8 of them on a CPU, 24 on a GPU and 12 on a TPU, where loops are slow.
        Parameters are the same either way.
      remat: what the backward pass computes again: nothing ("none"), all but the outputs of
        matmuls ("dots"), or everything within a layer ("full").
    """

    MOVED: ClassVar[Mapping[str, str]] = {"ssm": "model.mixers.s4"}
    # The fields that are stacks.
    STACKS: ClassVar[tuple[str, ...]] = ()

    d_model: Annotated[int, Range(1, 2**17)]
    d_ff: Annotated[int, Range(1, 2**19)]
    mixers: Mapping[str, MixerConfig] = dataclasses.field(default_factory=Mixers)
    attention: AttentionConfig = AttentionConfig()
    norm: Literal["rms", "layer", "scale", "batch"] = "rms"
    norm_epsilon: Annotated[float, Range(0, 1, above=True)] = 1e-6
    norm_placement: Literal["pre", "post"] = "pre"
    embedding_norm: bool = False
    final_norm: bool = True
    final_dropout: bool = False
    feed_forward: Literal["gated-gelu", "gelu", "gated-silu", "silu", "relu"] = "gated-gelu"
    feed_forward_bias: bool = False
    add_weight: Annotated[float, Range(-1000, 1000)] = 0.5
    dropout_rate: DropoutRate = 0.0
    attention_dropout_rate: OwnDropoutRate | None = None
    feed_forward_dropout_rate: OwnDropoutRate | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan_layers: bool | None = None
    remat: Literal["none", "dots", "full"] = "none"

    def __post_init__(self) -> None:
        check_fields(self, "model.")
        require(
            self.attention.head_dim is not None or self.d_model % self.attention.num_heads == 0,
            "model.attention.num_heads",
            self.attention.num_heads,
            f"must divide d_model = {self.d_model}, or head_dim must be set",
        )
        require(
            self.final_norm or not self.final_dropout,
            "model.final_dropout",
            self.final_dropout,
            "must be False where final_norm is False",
        )
        object.__setattr__(self, "mixers", self._all_mixers())
        for mixer in self.mixers.values():
            mixer.check_model(self)

    @property
    def stacks(self) -> dict[str, StackConfig]:
        """The stacks by the names of their settings."""
        return {name: getattr(self, name) for name in self.STACKS}

    def _all_mixers(self) -> Mixers:
        """Those that are set, and the kinds that patterns name besides."""
        mixers = Mixers(self.mixers)
        for setting, stack in self.stacks.items():
            parse_pattern(stack.layers, f"model.{setting}.layers")
            for name in (name for spec in stack.layer_specs for name in spec.mixers):
                if name not in mixers and name not in MixerConfig.KINDS:
                    known = {*mixers, *MixerConfig.KINDS}
                    raise ConfigError(
                        f"model.{setting}.layers = {stack.layers!r}: there is no mixer "
                        f"{name!r}{nearest(name, known)}"
                    )
                if name not in mixers:
                    mixers[name] = MixerConfig.KINDS[name]()
        return mixers

    def without_unused_mixers(self) -> Self:
        """The same model, less the mixers that no pattern names."""
        specs = (spec for stack in self.stacks.values() for spec in stack.layer_specs)
        used = {name for spec in specs for name in spec.mixers}
        mixers = {name: mixer for name, mixer in self.mixers.items() if name in used}
        return dataclasses.replace(self, mixers=mixers)

    @property
    def head_dim(self) -> int:
        return self.attention.head_dim or self.d_model // self.attention.num_heads

    def dropout_in(self, place: Literal["attention", "feed_forward"]) -> float:
        """The rate in one place."""
        own = getattr(self, f"{place}_dropout_rate")
        return self.dropout_rate if own is None else own

    @property
    def gated_feed_forward(self) -> bool:
        return self.feed_forward.startswith("gated-")

    def require_lengths(self, *lengths: int) -> None:
        """Raises ConfigError where sequences are longer than a table of learned positions.

        Args:
          lengths: of each stack's sequences, in the order of `STACKS`.
        """
        for (name, stack), length in zip(self.stacks.items(), lengths, strict=True):
            require(
                stack.max_positions is None or stack.max_positions >= length,
                f"model.{name}.max_positions",
                stack.max_positions,
                f"must be at least {length}, the length of its sequences in the data",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenModelConfig(ModelConfig):
    """What models that read and write tokens have in common.

    Attributes:
      vocab_size: v; None: that of the data's vocabulary with its sentinels, rounded up to a
        multiple of 128.
      tie_embeddings: the output matrix is the embedding.
      scale_logits: multiply the tied logits by d_model ** -0.5.
    """

    vocab_size: Annotated[int, Range(1, MAX_VOCABULARY, "for that of the data")] | None = None
    tie_embeddings: bool = True
    scale_logits: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            self.tie_embeddings or not self.scale_logits,
            "model.scale_logits",
            self.scale_logits,
            "must be False where tie_embeddings is False",
        )

    @property
    def num_embeddings(self) -> int:
        """v.

        Raises:
          ConfigError: it is still to follow a vocabulary.
        """
        if self.vocab_size is None:
            raise ConfigError("model.vocab_size = None: must be set where no vocabulary is read")
        return self.vocab_size

    def require_tokens(self, vocabulary: int, setting: str) -> None:
        """Raises ConfigError for a vocabulary of more tokens, which `setting` names."""
        right = f"must be at least {vocabulary}, the size of {setting}"
        require(self.num_embeddings >= vocabulary, "model.vocab_size", self.vocab_size, right)

    def following(self, vocabulary: int) -> Self:
        """The model of a vocabulary of so many tokens, where it does not say how many it has."""
        if self.vocab_size is not None:
            return self
        return dataclasses.replace(self, vocab_size=-(-vocabulary // _ROUNDED) * _ROUNDED)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderDecoderConfig(TokenModelConfig, kind="encoder_decoder"):
    """An encoder-decoder: `models.encoder_decoder`.

    Attributes:
      encoder, decoder: the two stacks.
    """

    STACKS: ClassVar[tuple[str, ...]] = ("encoder", "decoder")

    encoder: StackConfig
    decoder: StackConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderOnlyConfig(TokenModelConfig, kind="decoder_only"):
    """A language model: `models.decoder_only`.

    Attributes:
      decoder: its stack, which is causal.
      scale_embeddings: multiply embeddings by d_model ** 0.5.
      adaptive: a vocabulary in bands, for the input and the softmax alike; None: one matrix for
        all tokens.
    """

    STACKS: ClassVar[tuple[str, ...]] = ("decoder",)

    decoder: StackConfig
    scale_logits: bool = False
    scale_embeddings: bool = False
    adaptive: AdaptiveConfig | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adaptive is not None:
            if self.vocab_size is not None:
                self.adaptive.check_model(self.vocab_size, self.d_model)
            require(
                self.tie_embeddings and not self.scale_logits,
                "model.tie_embeddings, scale_logits",
                (self.tie_embeddings, self.scale_logits),
                "must be True and False with model.adaptive",
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierConfig(ModelConfig, kind="classifier"):
    """A classifier of sequences, or of pairs of them: `models.classifier`.

    Attributes:
      encoder: its stack.
      causal: tokens see none behind them.
      classes: how many there are.
      vocab_size: of tokens; None: that of the data's encoding, or, where these are numbers such as
        pixels, none.
      embedding_std: of the initial embedding of tokens; None is d_model ** -0.5.
      pooling: the mean of a sequence's outputs, the first or the last of them stands for it.
      pair: a row is one sequence (None), or two, a and b, each encoded by itself. Their features
        are [b; a] ("concat", as MEGA has them) or [a; b; a * b; a - b] ("nli", as S4 has them).
      head_width: inside a head of two maps with a GELU between; None: one map makes classes of
        features.
    """

    STACKS: ClassVar[tuple[str, ...]] = ("encoder",)

    encoder: StackConfig
    classes: Annotated[int, Range(2, 2**20)]
    vocab_size: Annotated[int, Range(2, MAX_VOCABULARY, "for that of the data")] | None = None
    causal: bool = False
    embedding_std: Annotated[float, Range(0, 1000, above=True)] | None = None
    pooling: Literal["mean", "first", "last"] = "mean"
    pair: Literal["concat", "nli"] | None = None
    head_width: Annotated[int, Range(1, 2**19, "for a single map")] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not (self.causal and self.pooling == "first"),
            "model.pooling",
            self.pooling,
            'must be "mean" or "last" with model.causal, for a first token sees no other',
        )

    def following(self, vocabulary: int) -> Self:
        """The model of an encoding of so many tokens, where it does not say how many it has."""
        return self if self.vocab_size else dataclasses.replace(self, vocab_size=vocabulary)

    @property
    def features(self) -> int:
        """What the head takes in."""
        return self.d_model * {None: 1, "concat": 2, "nli": 4}[self.pair]


M = TypeVar("M", bound=ModelConfig)


def of_kind(model: ModelConfig, kind: type[M], setting: str = "model") -> M:
    """The model's configuration, which must be of this kind.

    Raises:
      ConfigError: it is of another one.
    """
    require(
        isinstance(model, kind),
        f"{setting}.kind",
        model.kind,
        f"must be {kind.kind!r} here" if kind.kind else "must be a model of tokens here",
    )
    return cast(M, model)
