"""What a model is, as frozen dataclasses that know no framework, and every check on them.

A configuration is rejected here, by name and value, before anything is compiled or written.
"""

import dataclasses
import difflib
import re
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar

T = TypeVar("T")


class ConfigError(ValueError):
    """A setting that cannot be: the message names it, its value and what would be right."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the closest of `known`, or the whole list if none is close."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def require(condition: bool, setting: str, value: Any, right: str) -> None:
    """Raises ConfigError in the one form of all our messages unless `condition` holds."""
    if not condition:
        raise ConfigError(f"{setting} = {value!r}: {right}")


def require_choice(setting: str, value: Any, choices: Iterable[str]) -> None:
    """Raises ConfigError, with the nearest choice, unless `value` is one of `choices`."""
    choices = tuple(choices)
    if value not in choices:
        raise ConfigError(
            f"{setting} = {value!r}: must be one of {', '.join(choices)}"
            + (nearest(value, choices) if isinstance(value, str) else "")
        )


def require_pattern(setting: str, pattern: str) -> None:
    """Raises ConfigError unless `pattern` is a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ConfigError(
            f"{setting} = {pattern!r}: must be a regular expression ({error})"
        ) from None


def require_literals(config: Any, prefix: str) -> None:
    """Checks every field of a dataclass that is annotated with `Literal` choices."""
    for name, hint in typing.get_type_hints(type(config)).items():
        if typing.get_origin(hint) is Literal:
            require_choice(f"{prefix}.{name}", getattr(config, name), typing.get_args(hint))


def from_dict(cls: type[T], values: Mapping[str, Any], where: str = "config") -> T:
    """Builds the dataclass `cls` from nested mappings, such as an `ml_collections.ConfigDict`.

    Raises:
      ConfigError: an unknown name (with the nearest known one), or what the dataclass rejects.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    arguments: dict[str, Any] = {}
    for name, value in values.items():
        if name not in fields:
            raise ConfigError(f"{where}.{name}: no such setting{nearest(name, fields)}")
        arguments[name] = _coerce(hints[name], value, f"{where}.{name}")
    missing = [
        f.name
        for f in fields.values()
        if f.name not in arguments
        and f.default is dataclasses.MISSING
        and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}.{missing[0]}: is not set and has no default")
    return cls(**arguments)


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """`value` as `hint` says; integers pass for floats, lists for tuples, nothing else bends."""
    origin, options = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_dict(hint, value, where)  # type: ignore[arg-type]
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in options:
            return None
        # What is not None is no wrong None: the message is about what it could be.
        for option in (o for o in options if o is not type(None)):
            try:
                return _coerce(option, value, where)
            except ConfigError as error:
                if dataclasses.is_dataclass(option):
                    raise
                last = error
        raise last
    if origin is tuple and isinstance(value, list | tuple):
        items = (
            [options[0]] * len(value) if len(options) == 2 and options[1] is ... else list(options)
        )
        require(len(items) == len(value), where, value, f"must have {len(items)} entries")
        return tuple(
            _coerce(item, v, f"{where}[{i}]") for i, (item, v) in enumerate(zip(items, value))
        )
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    expected = origin or hint
    if expected is Literal or not isinstance(expected, type):
        return value
    if not isinstance(value, expected) or (isinstance(value, bool) and expected is not bool):
        raise ConfigError(
            f"{where} = {value!r}: must be {getattr(expected, '__name__', expected)}, "
            f"not {type(value).__name__}"
        )
    return value


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
    state_size: int = 64
    num_copies: int | None = None
    discretization: Literal["bilinear", "zoh"] = "bilinear"
    dt_min: float = 1e-3
    dt_max: float = 1e-1
    convolution: Literal["chunked", "fft", "reference"] = "chunked"
    chunk_length: int = 64
    max_kernel_length: int | None = None
    detach: bool = False

    def __post_init__(self) -> None:
        require_literals(self, "model.ssm")
        require(
            self.state_size > 0 and self.state_size % 2 == 0,
            "model.ssm.state_size",
            self.state_size,
            "must be positive and even, for states are stored as conjugate pairs",
        )
        require(
            (self.init == "legs") == (self.structure == "dplr"),
            "model.ssm.init",
            self.init,
            'must be "legs" for structure "dplr" and one of the "diag-…" for "diagonal"',
        )
        require(
            0 < self.dt_min <= self.dt_max,
            "model.ssm.dt_min",
            self.dt_min,
            f"must be above 0 and at most dt_max = {self.dt_max}",
        )
        require(
            self.chunk_length > 0 and self.chunk_length & (self.chunk_length - 1) == 0,
            "model.ssm.chunk_length",
            self.chunk_length,
            "must be a power of two",
        )
        require(
            self.max_kernel_length is None or self.max_kernel_length > 0,
            "model.ssm.max_kernel_length",
            self.max_kernel_length,
            "must be positive, or None for a kernel that is never cut",
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

    num_heads: int = 12
    head_dim: int | None = None
    radius: int = 127
    num_buckets: int = 32
    max_distance: int = 128
    scale_queries: bool = False

    def __post_init__(self) -> None:
        for name in ("num_heads", "radius", "num_buckets", "max_distance"):
            value = getattr(self, name)
            require(value > 0, f"model.attention.{name}", value, "must be at least 1")
        require(
            self.head_dim is None or self.head_dim > 0,
            "model.attention.head_dim",
            self.head_dim,
            "must be at least 1, or None for d_model / num_heads",
        )
        require(
            self.num_buckets >= 4 and self.num_buckets % 2 == 0,
            "model.attention.num_buckets",
            self.num_buckets,
            "must be even and at least 4: half for each sign, exact and logarithmic ones in both",
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
    repeat: int = 1

    def __str__(self) -> str:
        times = f"{self.repeat}*" if self.repeat > 1 else ""
        if self.global_mixer is None:
            return times + self.local_mixer
        return f"{times}{self.global_mixer}+{self.local_mixer}:{self.combine}"


_LAYER_PATTERN = re.compile(r"(?:(\d+)\*)?(?:([\w-]+)\+)?([\w-]+)(?::([\w-]+))?")


def parse_layers(pattern: str, where: str = "layers") -> tuple[LayerSpec, ...]:
    """Reads a layer pattern, bottom layer first: `"s4+window:concat, 11*window"`.

    Each item is `[REPEAT*][GLOBAL+]LOCAL[:COMBINE]`; `format_layers` writes it back.

    Raises:
      ConfigError: an item that is not of that form, or names no known mixer or combination.
    """
    specs = []
    for item in pattern.replace(" ", "").split(","):
        match = _LAYER_PATTERN.fullmatch(item)
        if match is None:
            raise ConfigError(
                f"{where} = {pattern!r}: {item!r} is not of the form "
                "[REPEAT*][GLOBAL+]LOCAL[:COMBINE], such as 's4+window:concat, 11*window'"
            )
        repeat, global_mixer, local_mixer, combine = match.groups()
        require_choice(where, local_mixer, ("window", "full"))
        if global_mixer is not None:
            require_choice(where, global_mixer, ("s4",))
        require_choice(where, combine or "concat", typing.get_args(Combine))
        require(int(repeat or 1) > 0, where, pattern, "every repeat must be at least 1")
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
                repeat=int(repeat or 1),
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
    max_positions: int | None = None

    def __post_init__(self) -> None:
        require_literals(self, "model stack")
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

    vocab_size: int
    d_model: int
    d_ff: int
    encoder: StackConfig
    decoder: StackConfig
    attention: AttentionConfig = AttentionConfig()
    ssm: SSMConfig = SSMConfig()
    norm: Literal["rms", "layer"] = "rms"
    norm_epsilon: float = 1e-6
    norm_placement: Literal["pre", "post"] = "pre"
    embedding_norm: bool = False
    final_norm: bool = True
    final_dropout: bool = False
    feed_forward: Literal["gated-gelu", "gelu", "relu"] = "gated-gelu"
    feed_forward_bias: bool = False
    add_weight: float = 0.5
    tie_embeddings: bool = True
    scale_logits: bool = True
    dropout_rate: float = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    scan_layers: bool = True
    remat: Literal["none", "dots", "full"] = "none"

    def __post_init__(self) -> None:
        require_literals(self, "model")
        for name in ("vocab_size", "d_model", "d_ff"):
            value = getattr(self, name)
            require(value > 0, f"model.{name}", value, "must be at least 1")
        require(
            0.0 <= self.dropout_rate < 1.0,
            "model.dropout_rate",
            self.dropout_rate,
            "must be at least 0 and below 1",
        )
        require(
            self.attention.head_dim is not None or self.d_model % self.attention.num_heads == 0,
            "model.attention.num_heads",
            self.attention.num_heads,
            f"must divide d_model = {self.d_model}, or head_dim must be set",
        )
        copies = self.ssm.num_copies
        require(
            copies is None or (copies > 0 and self.d_model % copies == 0),
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


# d_model, d_ff, layers of each stack, heads, head size, SSM state, radius: the widths of T5 v1.1.
_SIZES = {
    "tiny": (128, 256, 4, 4, 32, 16, 31),
    "small": (512, 1024, 8, 6, 64, 64, 127),
    "base": (768, 2048, 12, 12, 64, 64, 127),
    "large": (1024, 2816, 24, 16, 64, 64, 127),
}


def preset(
    size: str, flavour: str = "t5", *, vocab_size: int = 32128, **changes: Any
) -> ModelConfig:
    """A model of a named size ("tiny", "small", "base", "large") and flavour.

    "t5" is T5 v1.1: pre-RMSNorm, gated GELU, relative biases in both stacks, dropout after the
    final norms, an output matrix apart from the embedding. "msr" is the authors' encoder-decoder:
    post-LayerNorm, a norm on the embeddings, a bias table per encoder layer, learned positions in
    the decoder, S4 detached; its head size is d_model / num_heads, and its feed-forward is
    4 d_model wide.

    Args:
      changes: any other fields of `ModelConfig`.

    Raises:
      ConfigError: an unknown size or flavour, or changes that contradict.
    """
    require_choice("preset", size, _SIZES)
    require_choice("flavour", flavour, ("t5", "msr"))
    d_model, d_ff, layers, heads, head_dim, state, radius = _SIZES[size]
    encoder = f"s4+window:concat, {layers - 1}*window"
    if flavour == "t5":
        settings: dict[str, Any] = dict(
            vocab_size=vocab_size,
            d_model=d_model,
            d_ff=d_ff,
            encoder=StackConfig(encoder),
            decoder=StackConfig(f"{layers}*full"),
            attention=AttentionConfig(num_heads=heads, head_dim=head_dim, radius=radius),
            ssm=SSMConfig(state_size=state),
            final_dropout=True,
            tie_embeddings=False,
            scale_logits=False,
        )
    else:
        settings = dict(
            vocab_size=vocab_size,
            d_model=d_model,
            d_ff=4 * d_model,
            encoder=StackConfig(encoder, relative_bias="per_layer"),
            decoder=StackConfig(
                f"{layers}*full", relative_bias="none", positions="learned", max_positions=1024
            ),
            attention=AttentionConfig(
                num_heads=d_model // head_dim, radius=radius + 1, scale_queries=True
            ),
            ssm=SSMConfig(state_size=state, max_kernel_length=16384, detach=True),
            norm="layer",
            norm_placement="post",
            embedding_norm=True,
            final_norm=False,
            scale_logits=False,
            dropout_rate=0.1,
        )
    return ModelConfig(**{**settings, **changes})
