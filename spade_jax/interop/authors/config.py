"""The authors' settings as our configuration of a model.

Theirs are a `config.json` of `msrlongt5`, or the arguments of `spade_lm` in a fairseq checkpoint.
"""

from collections.abc import Mapping
from typing import Any

from spade_jax.config import (
    AdaptiveConfig,
    AttentionConfig,
    DecoderOnlyConfig,
    EncoderDecoderConfig,
    ModelConfig,
    StackConfig,
    require,
    require_choice,
)
from spade_jax.interop.authors.pairs import Shape, kind_of
from spade_jax.interop.authors.report import check_shapes, layers_in
from spade_jax.mixers import S4, Full, Window

_MISSING: Any = object()


def model_config(config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> ModelConfig:
    """The model that their settings describe.

    How execution goes is ours: the default, but for `detach`.

    Args:
      config: their settings; those that are not there have their defaults.
      shapes: of the arrays that are to be its weights, by their names.

    Raises:
      ConfigError: a setting that we have no counterpart of, or that contradicts another one.
      RunError: shapes that are not of this model.
    """
    kind = kind_of(shapes)
    if kind == "encoder-decoder":
        model: ModelConfig = encoder_decoder(config)
        counts = {
            ("num_layers", r"encoder\.block\.(\d+)\..*"): model.stacks["encoder"],
            ("num_decoder_layers", r"decoder\.block\.(\d+)\..*"): model.stacks["decoder"],
        }
    else:
        model = language_model(config, shapes)
        counts = {("decoder_layers", r"decoder\.layers\.(\d+)\..*"): model.stacks["decoder"]}
    for (setting, pattern), stack in counts.items():
        expected, found = len(list(stack.layer_specs)), layers_in(shapes, pattern)
        require(
            expected == found, setting, expected, f"must be {found}, the layers that the file holds"
        )
    check_shapes(shapes, kind, model)
    return model


def _get(config: Mapping[str, Any], name: str, kind: type, default: Any = _MISSING) -> Any:
    """A setting, or its default where there is none or None."""
    value = config.get(name)
    if value is None:
        require(default is not _MISSING, name, value, "must be set")
        return default
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    word = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}[kind]
    right = isinstance(value, kind) and (kind is bool or not isinstance(value, bool))
    require(right, name, value, f"must be {word}")
    return value


def _choice(config: Mapping[str, Any], name: str, choices: tuple[str, ...], default: str) -> str:
    value = _get(config, name, str, default)
    require_choice(name, value, choices)
    return value


def _s4(config: Mapping[str, Any], width: int, copies: int, length: int, *, detach: bool) -> S4:
    channels = _get(config, "s4_channels", int, 1)
    require(channels == 1, "s4_channels", channels, "must be 1: their layers take no more")
    copies = _get(config, "s4_n_ssm", int, copies)
    require(
        copies > 0 and width % copies == 0,
        "s4_n_ssm",
        copies,
        f"must divide the width, which is {width}",
    )
    return S4(
        state_size=_get(config, "s4_state_dim", int, 64),
        num_copies=copies,
        dt_min=_get(config, "s4_dt_min", float, 0.001),
        dt_max=_get(config, "s4_dt_max", float, 0.1),
        max_kernel_length=length,
        detach=detach,
    )


def _attention(config: Mapping[str, Any], heads: int) -> AttentionConfig:
    return AttentionConfig(
        num_heads=heads,
        num_buckets=_get(config, "relative_attention_num_buckets", int, 32),
        max_distance=_get(config, "relative_attention_max_distance", int, 128),
        scale_queries=True,
    )


def encoder_decoder(config: Mapping[str, Any]) -> EncoderDecoderConfig:
    """Defaults are those of their `MSRLongT5Config`."""
    family = _get(config, "model_type", str, "msrlongt5")
    require(family == "msrlongt5", "model_type", family, 'must be "msrlongt5"')
    roberta = _get(config, "decoder_roberta_lm_head", bool, False)
    require(
        not roberta, "decoder_roberta_lm_head", roberta, "must be false: their own code lacks it"
    )
    width, heads = _get(config, "d_model", int, 512), _get(config, "num_heads", int, 8)
    require(heads > 0, "num_heads", heads, "must be at least 1")
    head_dim = _get(config, "d_kv", int, width // heads)
    require(
        head_dim * heads == width,
        "d_kv",
        head_dim,
        f"must be d_model / num_heads = {width} / {heads}, as their decoder has it",
    )
    activation = _choice(config, "feed_forward_proj", ("relu", "gelu", "gated-gelu"), "relu")
    gated = activation == "gated-gelu"
    have_bias = _get(config, "have_bias", bool, False)
    require(
        not (gated and have_bias),
        "have_bias",
        have_bias,
        f"must be false where feed_forward_proj is {activation}: only their decoder would have any",
    )
    length = _get(config, "max_position_embeddings", int, 512)
    layers = _get(config, "num_layers", int, 6)
    decoder_layers = _get(config, "num_decoder_layers", int, layers)
    every = _get(config, "s4_every_n_layers", int, 1000)
    counts = {"num_layers": layers, "num_decoder_layers": decoder_layers}
    for setting, count in (counts | {"s4_every_n_layers": every}).items():
        require(count > 0, setting, count, "must be at least 1")
    return EncoderDecoderConfig(
        vocab_size=_get(config, "vocab_size", int, 32128),
        d_model=width,
        d_ff=_get(config, "d_ff", int, 2048),
        encoder=StackConfig(every_so_many(layers, every, "concat"), relative_bias="per_layer"),
        decoder=StackConfig(
            f"{decoder_layers}*full",
            relative_bias="none",
            positions="learned",
            max_positions=length,
        ),
        attention=_attention(config, heads),
        mixers={
            "s4": _s4(config, width, 768, length, detach=True),
            "window": Window(_get(config, "local_radius", int, 128)),
            "full": Full(),
        },
        norm="layer",
        norm_epsilon=_get(config, "layer_norm_epsilon", float, 1e-6),
        norm_placement="pre" if _get(config, "normalize_before", bool, False) else "post",
        embedding_norm=True,
        final_norm=False,
        feed_forward=activation,  # type: ignore[arg-type]
        # By which class their feed-forward is, whatever `have_bias` says.
        feed_forward_bias=not gated,
        scale_logits=False,
        dropout_rate=_get(config, "dropout_rate", float, 0.1),
    )


def language_model(config: Mapping[str, Any], shapes: Mapping[str, Shape]) -> DecoderOnlyConfig:
    """Defaults are those of their `SpadeLanguageModelConfig`; what an architecture sets must be
    there."""
    kind = _choice(config, "attention_type", ("local",), "local")
    assert kind == "local"
    positions = not _get(config, "no_token_positional_embeddings", bool, False)
    require(
        not positions,
        "no_token_positional_embeddings",
        not positions,
        "must be true: we have no sinusoidal positions",
    )
    width, heads = (
        _get(config, "decoder_embed_dim", int),
        _get(config, "decoder_attention_heads", int),
    )
    require(
        heads > 0 and width % heads == 0,
        "decoder_attention_heads",
        heads,
        f"must divide decoder_embed_dim = {width}",
    )
    layers, every = (
        _get(config, "decoder_layers", int),
        _get(config, "s4_every_n_layers", int, 1),
    )
    require(layers > 0, "decoder_layers", layers, "must be at least 1")
    require(every > 0, "s4_every_n_layers", every, "must be at least 1")
    combine = _choice(config, "s4_local_combine", ("concat", "add", "stack"), "add")
    length = _get(config, "max_target_positions", int, _get(config, "tokens_per_sample", int, 1024))
    pre_norm = _get(config, "decoder_normalize_before", bool, False)
    final_norm = pre_norm and not _get(config, "no_decoder_final_norm", bool, False)
    relative = _get(config, "use_relative_attention", bool, False)
    tied = _get(config, "share_decoder_input_output_embed", bool, False)
    return DecoderOnlyConfig(
        vocab_size=_vocabulary(shapes),
        d_model=width,
        d_ff=_get(config, "decoder_ffn_embed_dim", int),
        decoder=StackConfig(
            every_so_many(layers, every, combine), relative_bias="shared" if relative else "none"
        ),
        scale_embeddings=not _get(config, "no_scale_embedding", bool, False),
        attention=_attention(config, heads),
        mixers={
            "s4": _s4(config, width, 1, length, detach=False),
            "window": Window(_get(config, "local_radius", int, 127)),
        },
        norm="layer",
        norm_epsilon=1e-5,
        norm_placement="pre" if pre_norm else "post",
        final_norm=final_norm,
        feed_forward=_choice(config, "activation_fn", ("relu", "gelu"), "relu"),  # type: ignore[arg-type]
        feed_forward_bias=True,
        add_weight=_get(config, "s4_weight", float, 0.5),
        tie_embeddings=tied or "decoder.output_projection.weight" not in shapes,
        adaptive=_adaptive(config) if _get(config, "adaptive_input", bool, False) else None,
        scale_logits=False,
        dropout_rate=_get(config, "dropout", float, 0.1),
        attention_dropout_rate=_dropout_rate(config, "attention_dropout"),
        feed_forward_dropout_rate=_dropout_rate(config, "activation_dropout"),
    )


def _dropout_rate(config: Mapping[str, Any], name: str) -> float | None:
    """Of one place; None where it is that of the others."""
    rate = _get(config, name, float, 0.0)
    return None if rate == _get(config, "dropout", float, 0.1) else rate


def _adaptive(config: Mapping[str, Any]) -> AdaptiveConfig:
    """A vocabulary in bands, which input and softmax share."""
    cutoffs = _get(config, "adaptive_input_cutoff", str)
    factor = _get(config, "adaptive_input_factor", float, 4.0)
    for setting, right in (
        ("adaptive_softmax_cutoff", cutoffs),
        ("adaptive_softmax_factor", factor),
        ("tie_adaptive_weights", True),
        ("tie_adaptive_proj", True),
    ):
        value = config.get(setting)
        require(value == right, setting, value, f"must be {right!r}, for both are ours")
    parts = cutoffs.split(",")
    require(
        all(part.strip().isdigit() for part in parts) and factor == int(factor),
        "adaptive_input_cutoff, adaptive_input_factor",
        (cutoffs, factor),
        "must be whole numbers",
    )
    dropout = _get(config, "adaptive_softmax_dropout", float, 0.0)
    return AdaptiveConfig(tuple(map(int, parts)), int(factor), dropout)


def every_so_many(layers: int, every: int, combine: str) -> str:
    """The pattern of layers, of which each `every`-th, from the first on, has an S4."""

    def group(size: int) -> str:
        plain = {1: [], 2: ["window"]}.get(size, [f"{size - 1}*window"])
        return ", ".join([f"s4+window:{combine}", *plain])

    whole, rest = divmod(layers, every)
    parts = [group(every)] if whole == 1 else []
    if whole > 1:
        parts = [f"{whole}*{group(every)}" if every == 1 else f"{whole}*({group(every)})"]
    return ", ".join(parts + ([group(rest)] if rest else []))


def _vocabulary(shapes: Mapping[str, Shape]) -> int:
    """How many tokens an embedding has, in one matrix or in bands."""
    whole = shapes.get("decoder.embed_tokens.weight")
    if whole is not None:
        return whole[0]
    bands = layers_in(shapes, r"decoder\.embed_tokens\.embeddings\.(\d+)\.0\.weight")
    return sum(shapes[f"decoder.embed_tokens.embeddings.{i}.0.weight"][0] for i in range(bands))
