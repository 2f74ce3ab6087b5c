"""SPADE, the state space augmented transformer (arXiv 2212.08136), as an encoder-decoder.

    h = Norm(x)                                    (pre-norm; post-norm takes h = x)
    concat:    m = W [Norm_g(global(h)); Norm_l(local(h))] + b
    add:       m = w Norm_g(global(h)) + (1 - w) Norm_l(local(h))
    stack:     m = local(global(h))
    residual:  m = local(h) + W Norm_g(global(h))
    x = x + m;  x = x + Cross(Norm(x));  x = x + FeedForward(Norm(x))    (post-norm: after each sum)

The global mixer is a state space (see state_space_spade.py), the local one attention to a window; a
layer of one mixer has m = mixer(h). Time and memory of both are linear in the length.
State spaces, softmax, norms' statistics, logits and loss are float32 whatever the model is.

Shape letters: b batch, l length, d width, h heads, k head size.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import GenerationMixin, PreTrainedModel
from transformers.cache_utils import DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .attention_spade import Attention, RelativeBias, Seen
from .configuration_spade import SpadeConfig
from .state_space_spade import Slot, StateSpace

_LOWEST = torch.finfo(torch.float32).min
# As the installed version calls it.
_CACHE = "cache" if "cache" in Seq2SeqLMOutput.__dataclass_fields__ else "past_key_values"


class Norm(nn.Module):
    """ "rms": x / rms(x) * scale. "layer": (x - mean) / std * scale + bias."""

    def __init__(self, config: SpadeConfig):
        super().__init__()
        self.epsilon = config.norm_epsilon
        self.scale = nn.Parameter(torch.ones(config.d_model))
        self.bias = nn.Parameter(torch.zeros(config.d_model)) if config.norm == "layer" else None

    def forward(self, x: Tensor) -> Tensor:
        y = x.float()
        if self.bias is not None:
            y = y - y.mean(-1, keepdim=True)
        y = y * torch.rsqrt(y.square().mean(-1, keepdim=True) + self.epsilon) * self.scale.float()
        if self.bias is not None:
            y = y + self.bias.float()
        return y.to(x.dtype)


class FeedForward(nn.Module):
    """W2 f(W1 x), or gated W2 (f(W1 x) * W3 x)."""

    def __init__(self, config: SpadeConfig):
        super().__init__()
        d, inner, bias = config.d_model, config.d_ff, config.feed_forward_bias
        self.kind, self.dropout_rate = config.feed_forward, config.feed_forward_dropout_rate
        self.expand = nn.Linear(d, inner, bias=bias)
        self.gate = nn.Linear(d, inner, bias=bias) if self.kind == "gated-gelu" else None
        self.contract = nn.Linear(inner, d, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        y = self.expand(x)
        if self.kind == "relu":
            y = y.relu()
        else:
            y = functional.gelu(y, approximate="none" if self.gate is None else "tanh")
        if self.gate is not None:
            y = y * self.gate(x)
        return self.contract(functional.dropout(y, self.dropout_rate, self.training))


class Layer(nn.Module):
    """One layer; see the formulas above."""

    def __init__(self, config: SpadeConfig, stack: dict[str, Any], spec: dict, causal: bool):
        super().__init__()
        d, combine = config.d_model, spec["combine"]
        self.pre_norm, self.dropout_rate = config.norm_placement == "pre", config.dropout_rate
        self.combine, self.add_weight = combine, config.add_weight

        def mixer(name: str) -> nn.Module:
            settings = config.mixers[name]
            if settings["kind"] == "s4":
                return StateSpace(config, settings, causal)
            attention = Attention(config, settings.get("radius"), causal)
            if stack["relative_bias"] == "per_layer":
                attention.bias = RelativeBias(config, stack, causal)
            return attention

        self.mixer_norm = Norm(config)
        self.local_mixer = mixer(spec["mixers"][-1])
        self.global_mixer: Any = mixer(spec["mixers"][0]) if combine else None
        self.global_norm: Any = Norm(config) if combine in ("concat", "add", "residual") else None
        self.local_norm: Any = Norm(config) if combine in ("concat", "add") else None
        self.aggregate: Any = None
        if combine in ("concat", "residual"):
            whole = combine == "concat"
            self.aggregate = nn.Linear(2 * d if whole else d, d, bias=whole)
        self.cross_norm = Norm(config) if causal else None
        self.cross_attention = Attention(config) if causal else None
        self.feed_forward_norm = Norm(config) if spec["feed_forward"] else None
        self.feed_forward = FeedForward(config) if spec["feed_forward"] else None

    def forward(
        self, x: Tensor, seen: Seen, encoded: Tensor | None, mask: Tensor | None, slots: list[Any]
    ) -> Tensor:
        """[b, l, d] -> [b, l, d]. slots: of the two mixers and cross-attention, or None each."""
        x = self.add(self.mixer_norm, x, lambda h: self.mix(h, seen, slots))
        if self.cross_attention is not None:
            cross = self.cross_attention.cross
            x = self.add(self.cross_norm, x, lambda h: cross(h, encoded, mask, slots[2]))
        if self.feed_forward is not None:
            x = self.add(self.feed_forward_norm, x, self.feed_forward)
        return x

    def add(self, norm: nn.Module, x: Tensor, function: Any) -> Tensor:
        h = function(norm(x) if self.pre_norm else x)
        x = x + functional.dropout(h, self.dropout_rate, self.training)
        return x if self.pre_norm else norm(x)

    def mix(self, h: Tensor, seen: Seen, slots: list[Any]) -> Tensor:
        if self.global_mixer is None:
            return self.local_mixer(h, seen, slots[1])
        of_global = self.global_mixer(h, seen, slots[0])
        if self.combine == "stack":
            return self.local_mixer(of_global, seen, slots[1])
        of_global = self.global_norm(of_global)
        of_local = self.local_mixer(h, seen, slots[1])
        if self.combine == "residual":
            return of_local + self.aggregate(of_global)
        of_local = self.local_norm(of_local)
        if self.combine == "concat":
            return self.aggregate(torch.cat([of_global, of_local], dim=-1))
        return self.add_weight * of_global + (1 - self.add_weight) * of_local


class Stack(nn.Module):
    """The layers of the encoder or the decoder, from embeddings on."""

    main_input_name = "input_ids"  # `generate` asks the encoder.

    def __init__(self, config: SpadeConfig, stack: dict[str, Any], causal: bool):
        super().__init__()
        self.config, positions = config, stack["max_positions"]
        self.position_table = None
        if positions is not None:
            self.position_table = nn.Parameter(torch.randn(positions, config.d_model))
        self.embedding_norm = Norm(config) if config.embedding_norm else None
        self.final_norm = Norm(config) if config.final_norm else None
        kinds = {config.mixers[name]["kind"] for spec in stack["layers"] for name in spec["mixers"]}
        shared = stack["relative_bias"] == "shared" and kinds - {"s4"}
        self.relative_bias = RelativeBias(config, stack, causal) if shared else None
        self.layers = nn.ModuleList(Layer(config, stack, spec, causal) for spec in stack["layers"])

    def forward(
        self,
        x: Tensor,
        mask: Tensor | None,
        encoded: Tensor | None = None,
        encoded_mask: Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
    ) -> Tensor:
        """Embeddings [b, l, d] -> [b, l, d].

        Args:
          mask: [b, l], or [b, start + l] of all tokens so far; 0 is padding. None: no padding.
          encoded, encoded_mask: [b, m, d] and [b, m], of the encoder.
          cache: of the tokens before; with it x is the next ones.
        """
        length = x.shape[1]
        slots: list[Any] = [[None] * 3] * len(self.layers)
        keys, start = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device), 0
        if mask is not None:
            keys = mask[:, -length:].to(x.device).bool()
        if cache is not None:
            counted, slots = self.slots(cache)
            start = counted.get_seq_length()
            keys = counted.extend(keys[:, None, :, None], keys[:, None, :, None])[0][:, 0, :, 0]
        if mask is not None and mask.shape[1] == keys.shape[1]:
            keys = mask.to(x.device).bool()
        if self.position_table is not None:
            most = len(self.position_table)
            if start + length > most:
                raise ValueError(f"{start + length} tokens: the model takes at most {most} there")
            x = x + self.position_table[start : start + length].to(x.dtype)
        if self.embedding_norm is not None:
            x = self.embedding_norm(x)
        x = functional.dropout(x, self.config.dropout_rate, self.training)
        seen = Seen(keys, start, self.relative_bias)
        for layer, own in zip(self.layers, slots):
            x = layer(x, seen, encoded, encoded_mask, own)
        if self.final_norm is not None:
            x = self.final_norm(x)
        final = self.config.final_dropout
        return functional.dropout(x, self.config.dropout_rate if final else 0.0, self.training)

    def slots(self, cache: EncoderDecoderCache) -> tuple[Slot, list[list[Slot]]]:
        """One that counts the tokens, and three for each layer: its mixers', cross-attention's."""
        own, cross = cache.self_attention_cache.layers, cache.cross_attention_cache.layers
        count = len(self.layers)
        if not own or not isinstance(own[0], Slot):
            own[:] = [Slot() for _ in range(1 + 2 * count)]
            cross[:] = [Slot() for _ in range(count)]
            cache.is_updated = dict.fromkeys(range(count), True)
        return own[0], [[own[1 + 2 * i], own[2 + 2 * i], cross[i]] for i in range(count)]


class SpadeEncoder(nn.Module):
    """The encoder with its embedding, as `generate` calls it."""

    main_input_name = "input_ids"

    def __init__(self, embedding: nn.Embedding, stack: Stack):
        super().__init__()
        self.embedding, self.stack = embedding, stack

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        return_dict: bool | None = None,
        **unused: Any,
    ) -> Any:
        """int [b, l] -> [b, l, d]."""
        x = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        y = self.stack(x, attention_mask)
        return (y,) if return_dict is False else BaseModelOutput(last_hidden_state=y)


class SpadeForConditionalGeneration(PreTrainedModel, GenerationMixin):
    """Logits of each output token's successor, for an input. Made for trained weights: those of a
    new model are no good start of a training."""

    config_class = SpadeConfig
    base_model_prefix = ""
    main_input_name = "input_ids"

    def __init__(self, config: SpadeConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = Stack(config, config.encoder_stack, causal=False)
        self.decoder = Stack(config, config.decoder_stack, causal=True)
        self.output = None
        if not config.tie_word_embeddings:
            self.output = nn.Linear(config.d_model, config.vocab_size, bias=False)
        # Only names that are there: older versions of the library want to find each.
        names = {name.rpartition(".")[2] for name, _ in self.named_parameters()}
        kept = {name for name in names if name.startswith("ssm_")}
        self._keep_in_fp32_modules_strict = kept or None
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """Everything has its values from its constructor, or from a file."""

    def get_input_embeddings(self) -> nn.Module:
        return self.embedding

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.embedding = value

    def get_output_embeddings(self) -> nn.Module | None:
        return self.output

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.output = value

    def get_encoder(self, *unused: Any, **ignored: Any) -> nn.Module:
        return SpadeEncoder(self.embedding, self.encoder)

    def get_decoder(self, *unused: Any, **ignored: Any) -> nn.Module:
        return self.decoder

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        cache: Any = None,
        inputs_embeds: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        return_dict: bool | None = None,
        **unused: Any,
    ) -> Any:
        """See the library's T5: the same arguments.

        Args:
          attention_mask: [b, l]; 0 is padding, which must be marked so.
          labels: [b, t]; -100 does not count. Without decoder_input_ids these are the labels, one
            to the right. The loss is the mean of cross-entropies.
        """
        cache = past_key_values if cache is None else cache
        if encoder_outputs is None:
            encoder = self.get_encoder()
            encoder_outputs = encoder(input_ids, attention_mask, inputs_embeds=inputs_embeds)
        encoded = encoder_outputs[0]
        if attention_mask is None:
            attention_mask = torch.ones(encoded.shape[:2], dtype=torch.bool, device=encoded.device)
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if use_cache and cache is None:
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        x = decoder_inputs_embeds
        if x is None:
            x = self.embedding(decoder_input_ids)
        mask = attention_mask.to(encoded.device).bool()
        y = self.decoder(x, decoder_attention_mask, encoded, mask, cache)
        logits, loss = self.logits(y), None
        if labels is not None:
            loss = functional.cross_entropy(logits.flatten(0, 1), labels.to(y.device).flatten())
        elif self.config.tokenizer_size is not None:
            logits[..., self.config.tokenizer_size :] = _LOWEST
        result = Seq2SeqLMOutput(
            loss=loss, logits=logits, encoder_last_hidden_state=encoded, **{_CACHE: cache}
        )
        return result.to_tuple() if return_dict is False else result

    def logits(self, y: Tensor) -> Tensor:
        """[b, t, d] -> float32 [b, t, v]."""
        if self.config.scale_logits:
            y = y * self.config.d_model**-0.5
        matrix = self.embedding if self.output is None else self.output
        return functional.linear(y, matrix.weight).float()

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """The labels, one to the right."""
        start = self.config.decoder_start_token_id
        shifted = functional.pad(labels[:, :-1], (1, 0), value=start)
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id)
