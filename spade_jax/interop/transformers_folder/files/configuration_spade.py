"""Settings of a SPADE encoder-decoder (arXiv 2212.08136), as config.json holds them."""

from typing import Any

import transformers

# A stack of one layer, so that the class can be made without arguments.
_STACK: dict[str, Any] = {
    "layers": [{"mixers": ["window"], "combine": None, "feed_forward": True}],
    "relative_bias": "none",
    "bucket_starts": [0],
    "max_positions": None,
}


class SpadeConfig(transformers.PretrainedConfig):
    """What the model is.

    Args:
      tokenizer_size: how many ids mean something; the logits of others are the lowest number
        wherever there are no labels, so that they are never written. None: all ids mean something.
      encoder_stack, decoder_stack: each with
        layers: bottom first, with the names of one mixer or of two, how two are combined ("concat",
          "add", "stack" or "residual"), and whether a feed-forward block follows;
        relative_bias: "shared" by all layers, "per_layer" or "none";
        bucket_starts: of relative positions, the distance at which each bucket begins;
        max_positions: entries of a table of absolute positions, or None.
      mixers: settings by name; `kind` is "s4", "window" or "full".
      The others are as in T5.
    """

    model_type = "spade"
    keys_to_ignore_at_inference = ["past_key_values", "cache"]  # noqa: RUF012
    attribute_map = {  # noqa: RUF012
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
    }

    def __init__(
        self,
        vocab_size: int = 384,
        tokenizer_size: int | None = None,
        d_model: int = 64,
        d_ff: int = 128,
        num_heads: int = 4,
        head_dim: int = 16,
        num_buckets: int = 32,
        scale_queries: bool = False,
        encoder_stack: dict[str, Any] | None = None,
        decoder_stack: dict[str, Any] | None = None,
        mixers: dict[str, Any] | None = None,
        norm: str = "rms",
        norm_epsilon: float = 1e-6,
        norm_placement: str = "pre",
        embedding_norm: bool = False,
        final_norm: bool = True,
        final_dropout: bool = False,
        feed_forward: str = "gated-gelu",
        feed_forward_bias: bool = False,
        add_weight: float = 0.5,
        tie_word_embeddings: bool = True,
        scale_logits: bool = True,
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        feed_forward_dropout_rate: float = 0.0,
        use_cache: bool = True,
        pad_token_id: int = 0,
        eos_token_id: int = 1,
        decoder_start_token_id: int = 0,
        **others: Any,
    ):
        self.vocab_size = vocab_size
        self.tokenizer_size = tokenizer_size
        self.d_model = d_model
        self.d_ff = d_ff
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.num_buckets = num_buckets
        self.scale_queries = scale_queries
        self.encoder_stack = dict(encoder_stack or _STACK)
        self.decoder_stack = dict(decoder_stack or _STACK)
        self.mixers = dict(mixers or {"window": {"kind": "window", "radius": 127}})
        self.norm = norm
        self.norm_epsilon = norm_epsilon
        self.norm_placement = norm_placement
        self.embedding_norm = embedding_norm
        self.final_norm = final_norm
        self.final_dropout = final_dropout
        self.feed_forward = feed_forward
        self.feed_forward_bias = feed_forward_bias
        self.add_weight = add_weight
        self.scale_logits = scale_logits
        self.dropout_rate = dropout_rate
        self.attention_dropout_rate = attention_dropout_rate
        self.feed_forward_dropout_rate = feed_forward_dropout_rate
        self.use_cache = use_cache
        others.pop("is_encoder_decoder", None)
        others.pop("num_hidden_layers", None)
        self.num_hidden_layers = len(self.decoder_stack["layers"])
        super().__init__(
            pad_token_id=pad_token_id,
            eos_token_id=eos_token_id,
            decoder_start_token_id=decoder_start_token_id,
            is_encoder_decoder=True,
            tie_word_embeddings=tie_word_embeddings,
            **others,
        )
