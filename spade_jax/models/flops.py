"""How many floating-point operations a model takes, counted from its matmuls."""

from spade_jax.config.model import (
    ClassifierConfig,
    DecoderOnlyConfig,
    EncoderDecoderConfig,
    ModelConfig,
    StackConfig,
)

# Of d features each, what the matrix of a combination takes in.
_AGGREGATED: dict[str | None, int] = {"concat": 2, "residual": 1}


def forward_flops(config: EncoderDecoderConfig, encoder_length: int, decoder_length: int) -> float:
    """Of one sequence pair: two for each multiplication in a matmul, and nothing else.

    Of attention the pairs that are seen count; mixers count their own.
    """
    d, width = config.d_model, config.attention.num_heads * config.head_dim
    encoder = stack_flops(config, config.encoder, encoder_length, causal=False)
    decoder = stack_flops(config, config.decoder, decoder_length, causal=True)
    # Cross-attention: queries and outputs of the targets, keys and values of the inputs.
    layers = len([*config.decoder.layer_specs])
    per_target = 2 * 2 * d * width + 2 * 2 * encoder_length * width
    cross = layers * (decoder_length * per_target + encoder_length * 2 * 2 * d * width)
    return encoder + decoder + cross + decoder_length * 2 * d * config.num_embeddings


def decoder_only_flops(config: DecoderOnlyConfig, length: int) -> float:
    """As `forward_flops`, of one text.

    An adaptive softmax counts as if each token were of the first band, which most are.
    """
    words = config.num_embeddings
    if config.adaptive is not None:
        words = config.adaptive.cutoffs[0] + len(config.adaptive.cutoffs)
    layers = stack_flops(config, config.decoder, length, causal=True)
    return layers + length * 2 * config.d_model * words


def classifier_flops(config: ClassifierConfig, length: int) -> float:
    """As `forward_flops`, of one row: a sequence, or two of a pair."""
    sequences = 1 if config.pair is None else 2
    layers = stack_flops(config, config.encoder, length, causal=config.causal)
    width = config.head_width
    head = config.features * (width or config.classes) + (width * config.classes if width else 0)
    return sequences * layers + 2 * head


def stack_flops(config: ModelConfig, stack: StackConfig, length: int, *, causal: bool) -> float:
    """Of the layers of one stack, without cross-attention, for one sequence."""
    d = config.d_model
    feed_forward = 2 * d * config.d_ff * (3 if config.gated_feed_forward else 2)
    per_token = 0.0
    for spec in stack.layer_specs:
        for name in spec.mixers:
            per_token += config.mixers[name].flops(config, length, causal=causal)
        per_token += 2 * _AGGREGATED.get(spec.combine, 0) * d * d
        per_token += feed_forward if spec.feed_forward else 0
    return length * per_token


def train_step_flops(
    config: EncoderDecoderConfig, batch_size: int, encoder_length: int, decoder_length: int
) -> float:
    """Of one update: each matmul and the two of its backward pass; nothing twice for remat."""
    return 3 * batch_size * forward_flops(config, encoder_length, decoder_length)
