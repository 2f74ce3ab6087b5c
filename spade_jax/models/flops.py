"""How many floating-point operations a model takes, counted from its matmuls."""

from spade_jax.config import LayerSpec, ModelConfig


def forward_flops(config: ModelConfig, encoder_length: int, decoder_length: int) -> int:
    """Of one sequence pair: two for each multiplication in a matmul, and nothing else.

    Counted as computed, blocks that a mask then hides included. The operators of the state space,
    which cost the same for any length and batch, are not counted.
    """
    d, width = config.d_model, config.attention.num_heads * config.head_dim
    project = 2 * d * width
    feed_forward = 2 * d * config.d_ff * (3 if config.feed_forward == "gated-gelu" else 2)

    def self_attention(spec: LayerSpec, length: int, causal: bool) -> int:
        """Operations per token."""
        block = config.attention.radius + 1
        windowed = spec.local_mixer == "window" and length > block
        keys = block * (2 if causal else 3) if windowed else length
        return 4 * project + 2 * 2 * keys * width

    total = 0
    for spec in config.encoder.specs:
        per_token = self_attention(spec, encoder_length, causal=False) + feed_forward
        if spec.global_mixer is not None:
            per_token += ssm_flops(config, directions=2)
            per_token += 2 * 2 * d * d if spec.combine == "concat" else 0
        total += spec.repeat * encoder_length * per_token
    for spec in config.decoder.specs:
        per_token = self_attention(spec, decoder_length, causal=True) + feed_forward
        per_token += 2 * project + 2 * 2 * encoder_length * width
        total += spec.repeat * (decoder_length * per_token + encoder_length * 2 * project)
    return total + decoder_length * 2 * d * config.vocab_size


def ssm_flops(config: ModelConfig, directions: int) -> int:
    """Of the chunked state space per token: taps, states written, read and carried.

    A diagonal state space carries its state without a matmul.
    """
    n, t = config.ssm.state_size, config.ssm.chunk_length
    carry = 2 * n * n // t if config.ssm.structure == "dplr" else 0
    return directions * config.d_model * (2 * t + 4 * n + carry)


def train_step_flops(
    config: ModelConfig, batch_size: int, encoder_length: int, decoder_length: int
) -> int:
    """Of one update: each matmul and the two of its backward pass; nothing twice for remat."""
    return 3 * batch_size * forward_flops(config, encoder_length, decoder_length)
