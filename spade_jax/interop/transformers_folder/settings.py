"""A model's configuration as config.json of the folder, and how it writes."""

import dataclasses
from typing import Any

import numpy as np

from spade_jax.config import ConfigError, EncoderDecoderConfig, StackConfig, require
from spade_jax.data.vocabulary import PAD_ID, Vocabulary
from spade_jax.mixers import S4, Full, Window
from spade_jax.ops.attention.buckets import relative_position_buckets

# Of norms, feed-forward blocks, and combinations of two mixers, those that the PyTorch model knows.
NORMS = ("rms", "layer")
FEED_FORWARD = ("gated-gelu", "gelu", "relu")
COMBINATIONS = ("concat", "add", "stack", "residual")
# Of state spaces; the others say how they are computed or how they begin.
_S4 = ("init", "state_size", "num_copies", "discretization", "max_kernel_length", "detach")


def check(config: EncoderDecoderConfig) -> None:
    """Raises ConfigError for what the PyTorch model does not know: a norm, a mixer, its output, a
    combination, or a feed-forward block."""
    for setting, known in (("norm", NORMS), ("feed_forward", FEED_FORWARD)):
        value = getattr(config, setting)
        require(
            value in known,
            f"model.{setting}",
            value,
            f"must be {' or '.join(known)} in a folder for transformers",
        )
    for stack in ("encoder", "decoder"):
        for spec in getattr(config, stack).layer_specs:
            for name in spec.mixers:
                mixer = config.mixers[name]
                require(
                    type(mixer) in (S4, Window, Full),
                    f"model.mixers.{name}.kind",
                    mixer.kind,
                    "must be s4, window or full in a folder for transformers",
                )
                require(
                    not isinstance(mixer, S4) or mixer.output == "plain",
                    f"model.mixers.{name}.output",
                    getattr(mixer, "output", None),
                    "must be plain in a folder for transformers",
                )
            if spec.combine is not None and spec.combine not in COMBINATIONS:
                raise ConfigError(
                    f"model.{stack}.layers: combines mixers by {spec.combine!r}; must be one of "
                    f"{', '.join(COMBINATIONS)} in a folder for transformers"
                )


def model_settings(
    config: EncoderDecoderConfig, vocabulary: Vocabulary, dtype: str
) -> dict[str, Any]:
    """config.json; dtype: of the parameters that are no state space's."""
    attention = config.attention
    return {
        "architectures": ["SpadeForConditionalGeneration"],
        "auto_map": {
            "AutoConfig": "configuration_spade.SpadeConfig",
            "AutoModelForSeq2SeqLM": "modeling_spade.SpadeForConditionalGeneration",
        },
        "model_type": "spade",
        "is_encoder_decoder": True,
        "dtype": dtype,
        "vocab_size": config.vocab_size,
        "tokenizer_size": vocabulary.size if vocabulary.size < config.num_embeddings else None,
        "d_model": config.d_model,
        "d_ff": config.d_ff,
        "num_heads": attention.num_heads,
        "head_dim": config.head_dim,
        "num_buckets": attention.num_buckets,
        "scale_queries": attention.scale_queries,
        "encoder_stack": _stack(config, config.encoder, causal=False),
        "decoder_stack": _stack(config, config.decoder, causal=True),
        "mixers": {
            name: _mixer(mixer) for name, mixer in config.without_unused_mixers().mixers.items()
        },
        "norm": config.norm,
        "norm_epsilon": config.norm_epsilon,
        "norm_placement": config.norm_placement,
        "embedding_norm": config.embedding_norm,
        "final_norm": config.final_norm,
        "final_dropout": config.final_dropout,
        "feed_forward": config.feed_forward,
        "feed_forward_bias": config.feed_forward_bias,
        "add_weight": config.add_weight,
        "tie_word_embeddings": config.tie_embeddings,
        "scale_logits": config.scale_logits,
        "dropout_rate": config.dropout_rate,
        "attention_dropout_rate": config.dropout_in("attention"),
        "feed_forward_dropout_rate": config.dropout_in("feed_forward"),
        "use_cache": True,
        "pad_token_id": PAD_ID,
        "eos_token_id": vocabulary.eos_id,
        "decoder_start_token_id": PAD_ID,
    }


def generation_settings(
    config: EncoderDecoderConfig, vocabulary: Vocabulary, max_length: int
) -> dict[str, Any]:
    """generation_config.json: greedy, of at most so many tokens, and as many as there are positions
    for. It has no length penalty: the library's is another function than ours."""
    most = config.decoder.max_positions
    return {
        "decoder_start_token_id": PAD_ID,
        "pad_token_id": PAD_ID,
        "eos_token_id": vocabulary.eos_id,
        "max_new_tokens": max_length if most is None else min(max_length, most),
    }


def _stack(config: EncoderDecoderConfig, stack: StackConfig, *, causal: bool) -> dict[str, Any]:
    return {
        "layers": [
            {
                "mixers": list(spec.mixers),
                "combine": spec.combine,
                "feed_forward": spec.feed_forward,
            }
            for spec in stack.layer_specs
        ],
        "relative_bias": stack.relative_bias,
        "bucket_starts": bucket_starts(config, causal=causal),
        "max_positions": stack.max_positions,
    }


def _mixer(mixer: Any) -> dict[str, Any]:
    settings = dataclasses.asdict(mixer)
    if isinstance(mixer, S4):
        settings = {name: settings[name] for name in _S4}
    return {**settings, "kind": mixer.kind}


def bucket_starts(config: EncoderDecoderConfig, *, causal: bool) -> list[int]:
    """The distance at which each bucket of relative positions begins, to one side.

    Written down, since a logarithm that is rounded in another way would move a border. A bucket
    that no distance falls into begins where the next one does.
    """
    attention = config.attention
    distances = np.arange(attention.max_distance + 2)
    buckets = relative_position_buckets(
        -distances,
        bidirectional=not causal,
        num_buckets=attention.num_buckets,
        max_distance=attention.max_distance,
    )
    count = attention.num_buckets // (1 if causal else 2)
    return np.searchsorted(buckets, np.arange(count), side="left").tolist()
