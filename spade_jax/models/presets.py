"""Models of named sizes and flavours."""

import dataclasses
from typing import Any

from spade_jax.config.model import AttentionConfig, EncoderDecoderConfig, StackConfig
from spade_jax.config.schema import Presets, require_choice
from spade_jax.mixers import S4, Full, Window

# d_model, d_ff, layers of each stack, heads, head size, SSM state, radius: the widths of T5 v1.1.
_SIZES = {
    "tiny": (128, 256, 4, 4, 32, 16, 31),
    "small": (512, 1024, 8, 6, 64, 64, 127),
    "base": (768, 2048, 12, 12, 64, 64, 127),
    "large": (1024, 2816, 24, 16, 64, 64, 127),
}


def preset(
    size: str, flavour: str = "t5", *, vocab_size: int | None = None, **changes: Any
) -> EncoderDecoderConfig:
    """A model of a named size ("tiny", "small", "base", "large") and flavour.

    "t5" is T5 v1.1: pre-RMSNorm, gated GELU, relative biases in both stacks, dropout after the
    final norms, an output matrix apart from the embedding. "msr" is the authors' encoder-decoder:
    post-LayerNorm, a norm on the embeddings, a bias table per encoder layer, learned positions in
    the decoder, S4 detached; its head size is d_model / num_heads, and its feed-forward is
    4 d_model wide.

    Args:
      changes: any other fields of `EncoderDecoderConfig`; mixers are added to, or replace, the
        size's own.

    Raises:
      ConfigError: an unknown size or flavour, or changes that contradict.
    """
    require_choice("preset", size, _SIZES)
    require_choice("flavour", flavour, ("t5", "msr"))
    d_model, d_ff, layers, heads, head_dim, state, radius = _SIZES[size]
    encoder = f"s4+window:concat, {layers - 1}*window"
    # The work within chunks grows with their length, that between them with n^2 over it.
    chunk = min(128, 4 * state)
    if flavour == "t5":
        settings: dict[str, Any] = dict(
            vocab_size=vocab_size,
            d_model=d_model,
            d_ff=d_ff,
            encoder=StackConfig(encoder),
            decoder=StackConfig(f"{layers}*full"),
            mixers={
                "s4": S4(state_size=state, chunk_length=chunk),
                "window": Window(radius),
                "full": Full(),
            },
            attention=AttentionConfig(num_heads=heads, head_dim=head_dim),
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
            mixers={
                "s4": S4(
                    state_size=state,
                    chunk_length=chunk,
                    max_kernel_length=16384,
                    detach=True,
                ),
                "window": Window(radius + 1),
                "full": Full(),
            },
            attention=AttentionConfig(num_heads=d_model // head_dim, scale_queries=True),
            norm="layer",
            norm_placement="post",
            embedding_norm=True,
            final_norm=False,
            scale_logits=False,
            dropout_rate=0.1,
        )
    mixers = settings["mixers"] | dict(changes.pop("mixers", {}))
    return EncoderDecoderConfig(**{**settings, **changes, "mixers": mixers})


def _settings(size: str, flavour: str = "t5", **changes: Any) -> dict[str, Any]:
    return dataclasses.asdict(preset(size, flavour, **changes))


MODEL_PRESETS = Presets(
    tuple(_SIZES),
    _settings,
    kept=("vocab_size", "dtype", "remat", "dropout_rate"),
    words="on a command line: an encoder-decoder of this size, and of `model.flavour`, t5 or msr, "
    "instead of the file's, but for its vocabulary, dtype, remat and dropout",
)
