"""What a model is, as frozen dataclasses that know no framework, and every check on them.

A configuration is rejected here, by name and value, before anything is compiled or written.
"""

import dataclasses
import re
import typing
from collections.abc import Iterable
from typing import Annotated, Literal

from spade_jax.config.schema import (
    ConfigError,
    Range,
    check_fields,
    require,
    require_choice,
    shorten,
)

# Of both stacks, the longest sequences, and the most entries of a vocabulary.
MAX_LAYERS = 1024
MAX_LENGTH = 2**20
MAX_VOCABULARY = 2**24


@dataclasses.dataclass(frozen=True)
class SSMConfig:
    """The state space model x' = A x + B u, y = C x + D u that carries global information.

    Attributes:
      structure: "dplr" is S4's A = diag(w) - P P^*; "diagonal" is S4D's A = diag(w).
      init: HiPPO-LegS, as normal plus low rank ("legs") or one of S4D's diagonals.
      state_size: n, the full (real) state size; n / 2 conjugate pairs are stored.
      num_copies: independent (A, B), tiled over features: feature f uses copy f % num_copies.
        None is one per feature.
      discretization: "bilinear" or "zoh" (zero-order hold).
      dt_min, dt_max: range of the log-uniform initial step sizes, in units of one token.
      convolution: how the sequence is run: "chunked", "fft" or the plain "reference" recurrence.
      chunk_length: t, tokens per block of the chunked convolution.
      max_kernel_length: taps after which the kernel is cut off; None never cuts it. The authors
        cut theirs (`l_max`).
      detach: no gradient passes, neither to the SSM's parameters nor to its input, as in the
        authors' encoder-decoder.
    """

    structure: Literal["dplr", "diagonal"] = "dplr"
    init: Literal["legs", "diag-lin", "diag-inv", "diag-legs"] = "legs"
    state_size: Annotated[int, Range(2, 4096)] = 64
    num_copies: Annotated[int, Range(1, 2**17, "for one per feature")] | None = None
    discretization: Literal["bilinear", "zoh"] = "bilinear"
    dt_min: Annotated[float, Range(1e-9, 1000)] = 1e-3
    dt_max: Annotated[float, Range(1e-9, 1000)] = 1e-1
    convolution: Literal["chunked", "fft", "reference"] = "chunked"
    chunk_length: Annotated[int, Range(1, 2**16)] = 64
    max_kernel_length: (
        Annotated[int, Range(1, MAX_LENGTH, "for a kernel that is never cut")] | None
    ) = None
    detach: bool = False

    def __post_init__(self) -> None:
        check_fields(self, "model.ssm.")
        require(
            self.state_size % 2 == 0,
            "model.ssm.state_size",
            self.state_size,
            "must be even, for states are stored as conjugate pairs",
        )
        require(
            (self.init == "legs") == (self.structure == "dplr"),
            "model.ssm.init",
            self.init,
            'must be "legs" for structure "dplr" and one of the "diag-…" for "diagonal"',
        )
        require(
            self.dt_min <= self.dt_max,
            "model.ssm.dt_min",
            self.dt_min,
            f"must be at most dt_max = {self.dt_max}",
        )
        require(
            self.chunk_length & (self.chunk_length - 1) == 0,
            "model.ssm.chunk_length",
            self.chunk_length,
            "must be a power of two",
        )


@dataclasses.dataclass(frozen=True)
class AttentionConfig:
    """Heads, the local window and T5's relative-position buckets.

    Attributes:
      num_heads, head_dim: h and k; head_dim None is d_model / num_heads.
      radius: r; a token sees those at most r away (and, if causal, none behind it).
      num_buckets, max_distance: T5's relative-position buckets.
      scale_queries: multiply queries by head_dim ** -0.5; T5 folds that into its initial values.
    """

    num_heads: Annotated[int, Range(1, 2**12)] = 12
    head_dim: Annotated[int, Range(1, 2**14, "for d_model / num_heads")] | None = None
    radius: Annotated[int, Range(1, MAX_LENGTH)] = 127
    num_buckets: Annotated[int, Range(4, 2**16)] = 32
    max_distance: Annotated[int, Range(1, MAX_LENGTH)] = 128
    scale_queries: bool = False

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


Mixer = Literal["s4", "window", "full"]
Combine = Literal["concat", "add", "stack"]


@dataclasses.dataclass(frozen=True)
class LayerSpec:
    """`repeat` equal layers: a local mixer and, where SPADE augments it, a global one.

    Attributes:
      local_mixer: "window" or "full" attention.
      global_mixer: "s4", or None for a plain transformer layer.
      combine: how the two meet: Linear([global; local]) ("concat"), their weighted sum ("add"),
        or local(global(x)) ("stack"). Of no effect without a global mixer.
      repeat: how many such layers follow one another.
    """

    local_mixer: Literal["window", "full"] = "window"
    global_mixer: Literal["s4"] | None = None
    combine: Combine = "concat"
    repeat: Annotated[int, Range(1, MAX_LAYERS)] = 1

    def __post_init__(self) -> None:
        check_fields(self, "layers ")

    def __str__(self) -> str:
        times = f"{self.repeat}*" if self.repeat > 1 else ""
        if self.global_mixer is None:
            return times + self.local_mixer
        return f"{times}{self.global_mixer}+{self.local_mixer}:{self.combine}"


_LAYER_PATTERN = re.compile(r"(?:([0-9]+)\*)?(?:([\w-]+)\+)?([\w-]+)(?::([\w-]+))?")


def parse_layers(pattern: str, where: str = "layers") -> tuple[LayerSpec, ...]:
    """Reads a layer pattern, bottom layer first: `"s4+window:concat, 11*window"`.

    Each item is `[REPEAT*][GLOBAL+]LOCAL[:COMBINE]`; `format_layers` writes it back.

    Raises:
      ConfigError: an item that is not of that form, or names no known mixer or combination.
    """
    specs = []
    layers = 0
    for item in pattern.replace(" ", "").split(","):
        match = _LAYER_PATTERN.fullmatch(item)
        if match is None:
            raise ConfigError(
                f"{where} = {shorten(repr(pattern))}: {shorten(repr(item))} is not of the form "
                "[REPEAT*][GLOBAL+]LOCAL[:COMBINE], such as 's4+window:concat, 11*window'"
            )
        repeat, global_mixer, local_mixer, combine = match.groups()
        require_choice(where, local_mixer, ("window", "full"))
        if global_mixer is not None:
            require_choice(where, global_mixer, ("s4",))
        require_choice(where, combine or "concat", typing.get_args(Combine))
        # Of more digits than the largest, and more than int() takes, it need not be known exactly.
        times = int(repeat or 1) if len(repeat or "") < 10 else MAX_LAYERS + 1
        require(times > 0, where, pattern, "every repeat must be at least 1")
        layers += times
        require(layers <= MAX_LAYERS, where, pattern, f"must be at most {MAX_LAYERS} layers in all")
        require(
            combine is None or global_mixer is not None,
            where,
            pattern,
            f"{item!r} combines, but has no global mixer",
        )
        specs.append(
            LayerSpec(
                local_mixer=local_mixer,  # type: ignore[arg-type]
                global_mixer=global_mixer,  # type: ignore[arg-type]
                combine=combine or "concat",  # type: ignore[arg-type]
                repeat=times,
            )
        )
    return tuple(specs)


def format_layers(specs: Iterable[LayerSpec]) -> str:
    """The pattern that `parse_layers` reads as `specs`."""
    return ", ".join(map(str, specs))


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """One stack of layers, the encoder or the decoder.

    Attributes:
      layers: the layer pattern, bottom first (see `parse_layers`).
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
        check_fields(self, "model stack ")
        parse_layers(self.layers, "model stack layers")
        require(
            (self.positions == "learned") == (self.max_positions is not None),
            "model stack max_positions",
            self.max_positions,
            'must be set for positions "learned", and only then',
        )

    @property
    def specs(self) -> tuple[LayerSpec, ...]:
        """The layers as runs of equal ones."""
        return parse_layers(self.layers)

    @property
    def num_layers(self) -> int:
        return sum(spec.repeat for spec in self.specs)


DropoutRate = Annotated[float, Range(0, 1, below=True)]


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """An encoder-decoder.

    Attributes:
      vocab_size, d_model, d_ff: v, d and the width inside the feed-forward block.
      encoder, decoder: the two stacks.
      attention, ssm: their mixers.
      norm, norm_epsilon: "rms" has a scale only; "layer" subtracts the mean and has a bias.
      norm_placement: before each block ("pre") or after its residual ("post").
      embedding_norm, final_norm: norms on the embeddings and after the last layer of each stack.
      final_dropout: dropout on what the final norms give, too, as in T5.
      feed_forward: "gated-gelu" is gelu_tanh(W0 x) * W1 x; "gelu" is the exact (erf) one.
      feed_forward_bias: biases in the feed-forward block.
      add_weight: w of the combination "add", w * global + (1 - w) * local.
      tie_embeddings: the output matrix is the embedding.
      scale_logits: multiply the tied logits by d_model ** -0.5.
      dropout_rate: on embeddings, attention probabilities, block outputs and inside feed-forward,
        and where `final_dropout` says so.
      dtype: of activations and matmuls. Parameters, the SSM, softmax, norm statistics and the
        loss are float32 whatever it says.
      scan_layers: run equal layers as one `lax.scan` over stacked parameters. The parameters
        are the same either way.
      remat: what the backward pass computes again: nothing ("none"), all but the outputs of
        matmuls ("dots"), or everything within a layer ("full").
    """

    vocab_size: Annotated[int, Range(1, MAX_VOCABULARY)]
    d_model: Annotated[int, Range(1, 2**17)]
    d_ff: Annotated[int, Range(1, 2**19)]
    encoder: StackConfig
    decoder: StackConfig
    attention: AttentionConfig = AttentionConfig()
    ssm: SSMConfig = SSMConfig()
    norm: Literal["rms", "layer"] = "rms"
    norm_epsilon: Annotated[float, Range(0, 1, above=True)] = 1e-6
    norm_placement: Literal["pre", "post"] = "pre"
    embedding_norm: bool = False
    final_norm: bool = True
    final_dropout: bool = False
    feed_forward: Literal["gated-gelu", "gelu", "relu"] = "gated-gelu"
    feed_forward_bias: bool = False
    add_weight: Annotated[float, Range(-1000, 1000)] = 0.5
    tie_embeddings: bool = True
    scale_logits: bool = True
    dropout_rate: DropoutRate = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan_layers: bool = True
    remat: Literal["none", "dots", "full"] = "none"

    def __post_init__(self) -> None:
        check_fields(self, "model.")
        require(
            self.attention.head_dim is not None or self.d_model % self.attention.num_heads == 0,
            "model.attention.num_heads",
            self.attention.num_heads,
            f"must divide d_model = {self.d_model}, or head_dim must be set",
        )
        copies = self.ssm.num_copies
        require(
            copies is None or self.d_model % copies == 0,
            "model.ssm.num_copies",
            copies,
            f"must divide d_model = {self.d_model}",
        )
        require(
            self.final_norm or not self.final_dropout,
            "model.final_dropout",
            self.final_dropout,
            "must be False where final_norm is False",
        )
        require(
            self.tie_embeddings or not self.scale_logits,
            "model.scale_logits",
            self.scale_logits,
            "must be False where tie_embeddings is False",
        )
        require(
            all(spec.global_mixer is None for spec in self.decoder.specs),
            "model.decoder.layers",
            self.decoder.layers,
            "must name attention alone: the decoder has no global mixer",
        )

    @property
    def head_dim(self) -> int:
        return self.attention.head_dim or self.d_model // self.attention.num_heads

    def require_lengths(self, encoder: int, decoder: int) -> None:
        """Raises ConfigError where sequences are longer than a table of learned positions."""
        for name, stack, length in (
            ("encoder", self.encoder, encoder),
            ("decoder", self.decoder, decoder),
        ):
            require(
                stack.max_positions is None or stack.max_positions >= length,
                f"model.{name}.max_positions",
                stack.max_positions,
                f"must be at least {length}, the length of its sequences in the data",
            )
