"""Our configuration of a model as the authors' settings."""

from collections.abc import Iterator
from typing import Any

from spade_jax.config import (
    AdaptiveConfig,
    ConfigError,
    DecoderOnlyConfig,
    EncoderDecoderConfig,
    MixerConfig,
    ModelConfig,
    StackConfig,
    of_kind,
    require,
    shown,
)
from spade_jax.interop.authors.config import encoder_decoder, language_model
from spade_jax.interop.authors.pairs import BOS_ID, EOS_ID, PAD_ID, Kind
from spade_jax.mixers import S4, Window


def authors_config(model: ModelConfig, kind: Kind) -> dict[str, Any]:
    """Their settings of a model, from which `model_config` makes the same model again.

    Raises:
      ConfigError: the authors' code has no such model.
    """
    if kind == "encoder-decoder":
        config = _their_encoder_decoder(of_kind(model, EncoderDecoderConfig))
        again: ModelConfig = encoder_decoder(config)
    else:
        model = of_kind(model, DecoderOnlyConfig)
        config = _their_language_model(model)
        rows = (model.num_embeddings,)
        shapes = {"decoder.embed_tokens.weight": rows, "decoder.output_projection.weight": rows}
        again = language_model(config, shapes)
    for setting, value, right in _differences(model, again, kind):
        raise ConfigError(
            f"model.{setting} = {shown(value)}: must be {shown(right)} for the authors' {kind}"
        )
    return config


def kernel_length(model: ModelConfig, kind: Kind) -> int:
    """The longest kernel of the S4 of a model that `authors_config` takes."""
    s4, _ = _mixers(model, model.stacks["encoder" if kind == "encoder-decoder" else "decoder"])
    assert s4.max_kernel_length is not None
    return s4.max_kernel_length


def _their_encoder_decoder(model: EncoderDecoderConfig) -> dict[str, Any]:
    s4, window = _mixers(model, model.encoder)
    return {
        "model_type": "msrlongt5",
        "architectures": ["MSRLongT5ForConditionalGeneration"],
        "is_encoder_decoder": True,
        "vocab_size": model.vocab_size,
        "d_model": model.d_model,
        "d_kv": model.head_dim,
        "d_ff": model.d_ff,
        "num_layers": len(list(model.encoder.layer_specs)),
        "num_decoder_layers": len(list(model.decoder.layer_specs)),
        "num_heads": model.attention.num_heads,
        "relative_attention_num_buckets": model.attention.num_buckets,
        "relative_attention_max_distance": model.attention.max_distance,
        "dropout_rate": model.dropout_rate,
        "layer_norm_epsilon": model.norm_epsilon,
        "feed_forward_proj": model.feed_forward,
        "have_bias": False,
        "max_position_embeddings": model.decoder.max_positions,
        "normalize_before": model.norm_placement == "pre",
        "decoder_roberta_lm_head": False,
        "local_radius": window.radius,
        "s4_every_n_layers": _distance(model.encoder),
        "s4_channels": 1,
        "s4_state_dim": s4.state_size,
        "s4_n_ssm": s4.num_copies or model.d_model,
        "s4_dt_min": s4.dt_min,
        "s4_dt_max": s4.dt_max,
        "bos_token_id": BOS_ID,
        "pad_token_id": PAD_ID,
        "eos_token_id": EOS_ID,
        # Our decoders begin with padding, which theirs would not see.
        "decoder_start_token_id": EOS_ID,
        "tie_word_embeddings": True,
    }


def _their_language_model(model: DecoderOnlyConfig) -> dict[str, Any]:
    s4, window = _mixers(model, model.decoder)
    specs = list(model.decoder.layer_specs)
    return {
        "arch": "spade_lm",
        "task": "spade_language_modeling",
        "attention_type": "local",
        "no_token_positional_embeddings": True,
        "decoder_embed_dim": model.d_model,
        "decoder_input_dim": model.d_model,
        "decoder_output_dim": model.d_model,
        "decoder_ffn_embed_dim": model.d_ff,
        "decoder_attention_heads": model.attention.num_heads,
        "decoder_layers": len(specs),
        "decoder_normalize_before": model.norm_placement == "pre",
        "no_decoder_final_norm": not model.final_norm,
        "activation_fn": model.feed_forward,
        "dropout": model.dropout_rate,
        "attention_dropout": model.dropout_in("attention"),
        "activation_dropout": model.dropout_in("feed_forward"),
        "no_scale_embedding": not model.scale_embeddings,
        "share_decoder_input_output_embed": model.tie_embeddings,
        "use_relative_attention": model.decoder.relative_bias == "shared",
        "relative_attention_num_buckets": model.attention.num_buckets,
        "relative_attention_max_distance": model.attention.max_distance,
        "local_radius": window.radius,
        "s4_every_n_layers": _distance(model.decoder),
        "s4_local_combine": specs[0].combine,
        "s4_weight": model.add_weight,
        "s4_channels": 1,
        "s4_state_dim": s4.state_size,
        "s4_n_ssm": s4.num_copies or model.d_model,
        "s4_dt_min": s4.dt_min,
        "s4_dt_max": s4.dt_max,
        "max_target_positions": s4.max_kernel_length,
        "tokens_per_sample": s4.max_kernel_length,
        **_their_adaptive(model.adaptive),
    }


def _their_adaptive(adaptive: AdaptiveConfig | None) -> dict[str, Any]:
    if adaptive is None:
        return {}
    cutoffs = ",".join(map(str, adaptive.cutoffs))
    return {
        "adaptive_input": True,
        "adaptive_input_cutoff": cutoffs,
        "adaptive_input_factor": adaptive.factor,
        "adaptive_softmax_cutoff": cutoffs,
        "adaptive_softmax_factor": adaptive.factor,
        "adaptive_softmax_dropout": adaptive.dropout_rate,
        "tie_adaptive_weights": True,
        "tie_adaptive_proj": True,
    }


def _distance(stack: StackConfig) -> int:
    """From the bottom layer to the next one that has an S4, as they count them."""
    combined = (i for i, spec in enumerate(stack.layer_specs) if spec.combine and i > 0)
    return next(combined, 1000)


def _mixers(model: ModelConfig, stack: StackConfig) -> tuple[S4, Window]:
    """The two of the bottom layer.

    Raises:
      ConfigError: it has others.
    """
    bottom = next(stack.layer_specs)
    mixers = [model.mixers[name] for name in bottom.mixers]
    if len(mixers) == 2 and isinstance(mixers[0], S4) and isinstance(mixers[1], Window):
        length = mixers[0].max_kernel_length
        require(
            length is not None,
            "model.mixers.s4.max_kernel_length",
            length,
            "must be set, as the authors' is: they have no kernels that are never cut",
        )
        return mixers[0], mixers[1]
    raise ConfigError(
        f"layers = {stack.layers!r}: must begin with an s4 and a window, as the authors' do"
    )


def _differences(
    model: ModelConfig, again: ModelConfig, kind: Kind
) -> Iterator[tuple[str, Any, Any]]:
    """Settings in which two models compute something else, and both values; how they compute it,
    and how they are trained, is no difference."""
    of_model, of_again = _facts(model, kind), _facts(again, kind)
    for setting, value in of_model.items():
        if value != of_again[setting]:
            yield setting, value, of_again[setting]
    by_kind = {mixer.kind: mixer for mixer in again.mixers.values()}
    for name, mixer in model.without_unused_mixers().mixers.items():
        if mixer.kind in by_kind:
            right = _mixer_facts(by_kind[mixer.kind], again)
            for setting, value in _mixer_facts(mixer, model).items():
                if value != right[setting]:
                    yield f"mixers.{name}.{setting}", value, right[setting]


def _facts(model: ModelConfig, kind: Kind) -> dict[str, Any]:
    """What a model computes, by setting, less what its mixers do."""
    facts: dict[str, Any] = {
        name: getattr(model, name)
        for name in (
            *("vocab_size", "d_model", "d_ff", "norm", "norm_epsilon", "norm_placement"),
            *("embedding_norm", "final_norm", "feed_forward", "feed_forward_bias"),
            *("tie_embeddings", "scale_logits"),
        )
    }
    for name in ("num_heads", "num_buckets", "max_distance", "scale_queries"):
        facts[f"attention.{name}"] = getattr(model.attention, name)
    facts["attention.head_dim"] = model.head_dim
    if kind == "language-model":
        facts["add_weight"] = model.add_weight
        facts["adaptive"] = of_kind(model, DecoderOnlyConfig).adaptive
        facts["scale_embeddings"] = of_kind(model, DecoderOnlyConfig).scale_embeddings
    for name, stack in model.stacks.items():
        for setting in ("relative_bias", "positions", "max_positions"):
            facts[f"{name}.{setting}"] = getattr(stack, setting)
        facts[f"{name}.layers"] = ", ".join(
            "+".join(model.mixers[mixer].kind for mixer in spec.mixers)
            + (f":{spec.combine}" if spec.combine else "")
            + ("" if spec.feed_forward else ":no_ff")
            for spec in stack.layer_specs
        )
    return facts


def _mixer_facts(mixer: MixerConfig, model: ModelConfig) -> dict[str, Any]:
    if isinstance(mixer, S4):
        return {
            "init": "legs" if mixer.low_rank else mixer.init,
            "state_size": mixer.state_size,
            "num_copies": mixer.num_copies or model.d_model,
            "discretization": mixer.discretization,
            "output": mixer.output,
            "max_kernel_length": mixer.max_kernel_length,
        }
    return {"radius": mixer.radius} if isinstance(mixer, Window) else {}
