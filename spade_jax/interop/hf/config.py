"""A T5's config.json, and the model of ours that computes the same.

The file itself decides, not what a version of transformers makes of it: version 5 forces
`tie_word_embeddings`.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from spade_jax.config import (
    MAX_LENGTH,
    MAX_VOCABULARY,
    AttentionConfig,
    ConfigError,
    DropoutRate,
    EncoderDecoderConfig,
    Range,
    RunError,
    StackConfig,
    check_fields,
    from_dict,
    require,
    require_choice,
)
from spade_jax.mixers import S4, Full, Window

FILE = "config.json"
# What stands between the two layers of a feed-forward block, by Hugging Face's name for it.
_FEED_FORWARD: Mapping[str, Literal["gated-gelu", "gelu", "relu"]] = {
    "relu": "relu",
    "gelu": "gelu",
    "gated-gelu": "gated-gelu",
    "gated-gelu_new": "gated-gelu",
}
_LAYERS = Range(1, 1024)


@dataclasses.dataclass(frozen=True)
class T5:
    """What is read of a config.json; what need not be there has the default of that family.

    Attributes:
      n_positions: the most tokens of an input in its training.
      local_radius: of LongT5 alone, as is encoder_attention_type.
    """

    model_type: Literal["t5", "mt5", "umt5", "longt5"]
    vocab_size: Annotated[int, Range(1, MAX_VOCABULARY)]
    d_model: Annotated[int, Range(1, 2**17)]
    d_kv: Annotated[int, Range(1, 2**14)]
    d_ff: Annotated[int, Range(1, 2**19)]
    num_layers: Annotated[int, _LAYERS]
    num_heads: Annotated[int, Range(1, 2**12)]
    num_decoder_layers: Annotated[int, _LAYERS] | None = None
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    dropout_rate: DropoutRate = 0.1
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"
    tie_word_embeddings: bool | None = None
    pad_token_id: int | None = None
    eos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    n_positions: int = 512
    encoder_attention_type: str = "local"
    local_radius: Annotated[int, Range(1, MAX_LENGTH)] = 127

    def __post_init__(self) -> None:
        check_fields(self, f"{FILE}: ")
        require_choice(f"{FILE}: feed_forward_proj", self.feed_forward_proj, _FEED_FORWARD)
        require(
            not self.long or self.encoder_attention_type == "local",
            f"{FILE}: encoder_attention_type",
            self.encoder_attention_type,
            'must be "local": summaries of blocks (transient-global) have no counterpart here',
        )
        for name in ("pad_token_id", "decoder_start_token_id"):
            value = getattr(self, name)
            require(value in (None, 0), f"{FILE}: {name}", value, "must be 0, as it is here")

    @property
    def long(self) -> bool:
        """Whether it is a LongT5, whose encoder attends to a window."""
        return self.model_type == "longt5"

    @property
    def feed_forward(self) -> Literal["gated-gelu", "gelu", "relu"]:
        return _FEED_FORWARD[self.feed_forward_proj]

    @property
    def scales_logits(self) -> bool:
        """Whether logits are multiplied by d_model ** -0.5, which one flag says, tied or not."""
        return self.tie_word_embeddings is not False


def read_config(folder: Path) -> tuple[T5, dict[str, Any]]:
    """The config.json of a checkpoint's folder, and all that it says.

    Raises:
      ConfigError: it is of another family, or of a T5 that has no counterpart here.
      RunError: it is not there, or is no JSON.
    """
    path = folder / FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunError(
            f"{path}: is not there; --checkpoint must be a checkpoint's folder"
        ) from None
    except (ValueError, OSError) as error:
        raise RunError(f"{path}: cannot be read as JSON ({error})") from None
    if not isinstance(raw, dict) or "model_type" not in raw:
        raise RunError(f"{path}: says no model_type; must be a checkpoint's configuration")
    families = ("t5", "longt5", "mt5", "umt5")
    require_choice(f"{path}: model_type", raw["model_type"], families)
    names = {field.name for field in dataclasses.fields(T5)}
    known = {name: value for name, value in raw.items() if name in names}
    return from_dict(T5, known, str(path)), raw


@dataclasses.dataclass(frozen=True)
class Choices:
    """What is not in a checkpoint.

    Attributes:
      encoder: of layers that attend to a "window", or to all of the input ("full").
      radius: of the window; None is LongT5's own, and 127 for others.
      state_space: whether a state space joins the bottom layer of the encoder.
      state_size: of it.
    """

    encoder: Literal["window", "full"] = "window"
    radius: Annotated[int, Range(1, MAX_LENGTH)] | None = None
    state_space: bool = True
    state_size: Annotated[int, Range(2, 4096)] = 64

    def __post_init__(self) -> None:
        check_fields(self, "--")


def model_config(t5: T5, choices: Choices, *, tied: bool) -> EncoderDecoderConfig:
    """The model that begins as what a checkpoint is of.

    Args:
      tied: whether its logits come from the embedding.

    Raises:
      ConfigError: choices that do not fit the checkpoint.
    """
    require(
        not t5.long or choices.encoder == "window",
        "--encoder",
        choices.encoder,
        "must be window: LongT5's encoder attends to one",
    )
    require(
        choices.encoder == "window" or choices.radius is None,
        "--radius",
        choices.radius,
        "is of --encoder=window only",
    )
    if not tied and t5.scales_logits:
        raise ConfigError(
            f"{FILE}: tie_word_embeddings = {t5.tie_word_embeddings}: contradicts the weights, "
            "whose lm_head is another matrix than the embedding; must be false"
        )
    local, layers = choices.encoder, t5.num_layers
    encoder = f"{layers}*{local}"
    if choices.state_space:
        encoder = f"s4+{local}:residual" + (f", {layers - 1}*{local}" if layers > 1 else "")
    bias: Literal["per_layer", "shared"] = "per_layer" if t5.model_type == "umt5" else "shared"
    radius = choices.radius or (t5.local_radius if t5.long else 127)
    config = EncoderDecoderConfig(
        vocab_size=t5.vocab_size,
        d_model=t5.d_model,
        d_ff=t5.d_ff,
        encoder=StackConfig(encoder, relative_bias=bias),
        decoder=StackConfig(f"{t5.num_decoder_layers or layers}*full", relative_bias=bias),
        mixers={"s4": _state_space(choices.state_size), "window": Window(radius), "full": Full()},
        attention=AttentionConfig(
            num_heads=t5.num_heads,
            head_dim=t5.d_kv,
            num_buckets=t5.relative_attention_num_buckets,
            max_distance=t5.relative_attention_max_distance,
        ),
        norm_epsilon=t5.layer_norm_epsilon,
        final_dropout=True,
        feed_forward=t5.feed_forward,
        tie_embeddings=tied,
        scale_logits=t5.scales_logits,
        dropout_rate=t5.dropout_rate,
    )
    return config.without_unused_mixers()


def differences(t5: T5, choices: Choices) -> list[str]:
    """Where the model computes something else than the checkpoint's own does, a sentence each."""
    radius = choices.radius or (t5.local_radius if t5.long else 127)
    if t5.long and radius != t5.local_radius:
        return [f"The checkpoint's window has radius {t5.local_radius}; this model's has {radius}."]
    if not t5.long and choices.encoder == "window":
        return [
            f"{t5.model_type}'s encoder attends to all of an input, and this model's to {radius} "
            f"tokens at each side: the two are equal for inputs of at most {radius + 1} tokens; "
            "--encoder=full is equal for all, and takes time that grows with their square."
        ]
    return []


def _state_space(size: int) -> S4:
    """One whose chunks fit the size of its states, as those of presets do."""
    return S4(state_size=size, chunk_length=min(128, 1 << (4 * size).bit_length() - 1))
