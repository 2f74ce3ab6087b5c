"""The authors' names beside ours: one table, which both directions read.

Theirs are names of a PyTorch state dict, ours those of `interop.names.by_layer`.
"""

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

import numpy as np

from spade_jax.config import DecoderOnlyConfig, EncoderDecoderConfig, ModelConfig, RunError, of_kind
from spade_jax.config.pattern import LayerSpec

Kind = Literal["encoder-decoder", "language-model"]
Shape = tuple[int, ...]

# Of their vocabularies.
BOS_ID, PAD_ID, EOS_ID = 0, 1, 2
# Rows of their position table before that of the first token.
EXTRA_POSITIONS = PAD_ID + 1
# Of a language model whose vocabulary is in bands.
_BANDS, _SOFTMAX = "decoder.embed_tokens.embeddings", "decoder.adaptive_softmax"


@dataclasses.dataclass(frozen=True, eq=False)
class Transform:
    """How an array of theirs becomes ours.

    Attributes:
      name: for people; "" where nothing happens.
      there, back: from theirs to ours, and from ours to theirs.
      shape: of theirs, of the shape of ours.
    """

    name: str
    there: Callable[[np.ndarray], np.ndarray]
    back: Callable[[np.ndarray], np.ndarray]
    shape: Callable[[Shape], Shape]


def _same(x):
    return x


SAME = Transform("", _same, _same, _same)
TRANSPOSED = Transform("transposed", np.transpose, np.transpose, lambda shape: shape[::-1])
# Of one channel, or of rank one.
ONE = Transform(
    "its leading axis, of one, dropped",
    lambda x: x[0],
    lambda x: x[None],
    lambda shape: (1, *shape),
)
# The two rows before the first token are none of ours; `convert` keeps them.
POSITIONS = Transform(
    f"from row {EXTRA_POSITIONS} on, that of the first token",
    lambda x: x[EXTRA_POSITIONS:],
    lambda x: np.concatenate([np.zeros_like(x[:EXTRA_POSITIONS]), x]),
    lambda shape: (shape[0] + EXTRA_POSITIONS, *shape[1:]),
)
# C of C~, for which more than one array is needed: see `convert`.
READOUT = Transform("C of its C~", _same, _same, _same)


def exchanged(pad_id: int) -> Transform:
    """Rows of tokens, with padding where we have it: at 0."""

    def exchange(x: np.ndarray) -> np.ndarray:
        x = np.array(x)
        x[[0, pad_id]] = x[[pad_id, 0]]
        return x

    return Transform(f"rows 0 and {pad_id} exchanged", exchange, exchange, _same)


class Pair(NamedTuple):
    """An array of theirs, which becomes one of ours."""

    theirs: str
    ours: str
    how: Transform = SAME


@dataclasses.dataclass(frozen=True)
class Table:
    """What a state dict of theirs holds.

    Attributes:
      pairs: what is a parameter of ours.
      lengths: their L by the name of our C, of each S4.
      tied: names that may be there, and must then equal another one.
      buffers: names that may be there and mean nothing to us.
    """

    pairs: tuple[Pair, ...]
    lengths: dict[str, str]
    tied: dict[str, str]
    buffers: tuple[str, ...] = ()


def kind_of(names: Iterable[str]) -> Kind:
    """What a state dict with these names is of.

    Raises:
      RunError: nothing of the authors'.
    """
    names = set(names)
    encoder_decoder = "shared.weight" in names and "decoder.pos_embed.weight" in names
    if encoder_decoder and any(".s4.s4." in name for name in names):
        return "encoder-decoder"
    if "decoder.layers.0.self_attn.q.weight" in names:
        return "language-model"
    some = ", ".join(sorted(names)[:3]) or "no names at all"
    raise RunError(
        "weights: are no state dict of the authors' encoder-decoder (shared.weight, "
        "encoder.block.0.layer.0.s4.s4.D, decoder.pos_embed.weight) nor of their language model "
        f"(decoder.layers.0.self_attn.q.weight), but hold {some}"
    )


def table(kind: Kind, model: ModelConfig, *, pad_id: int = PAD_ID) -> Table:
    """All that a state dict of this model holds.

    Args:
      pad_id: their id of padding.
    """
    if kind == "encoder-decoder":
        pairs = [*_encoder_decoder(of_kind(model, EncoderDecoderConfig), pad_id)]
        aliases = ("lm_head.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
        tied = dict.fromkeys(aliases, "shared.weight")
        buffers: tuple[str, ...] = ()
    else:
        model = of_kind(model, DecoderOnlyConfig)
        pairs = [*_language_model(model, pad_id)]
        tied = _tied(model)
        buffers = ("decoder.version",)
    lengths = {pair.ours: re.sub(r"C$", "L", pair.theirs) for pair in pairs if pair.how is READOUT}
    return Table(tuple(pairs), lengths, tied, buffers)


def _tied(model: DecoderOnlyConfig) -> dict[str, str]:
    """Names of a language model that are others once more."""
    if model.adaptive is None:
        output, embedding = "decoder.output_projection.weight", "decoder.embed_tokens.weight"
        return {output: embedding} if model.tie_embeddings else {}
    tied = {f"{_SOFTMAX}.head.word_proj.weight": f"{_BANDS}.0.0.weight"}
    for i in range(len(model.adaptive.cutoffs)):
        tied[f"{_SOFTMAX}.tail.{i}.0.weight"] = f"{_BANDS}.{i + 1}.1.weight"
        tied[f"{_SOFTMAX}.tail.{i}.2.weight"] = f"{_BANDS}.{i + 1}.0.weight"
    return tied


def _bands(count: int, pad_id: int) -> Iterator[Pair]:
    """An adaptive vocabulary; padding is of the first band."""
    for i in range(count):
        how = exchanged(pad_id) if i == 0 else SAME
        yield Pair(f"{_BANDS}.{i}.0.weight", f"embedding/band_{i}/embedding", how)
        yield Pair(f"{_BANDS}.{i}.1.weight", f"embedding/band_{i}/projection", TRANSPOSED)
    yield Pair(f"{_SOFTMAX}.head.class_proj.weight", "embedding/tails")


def _encoder_decoder(model: EncoderDecoderConfig, pad_id: int) -> Iterator[Pair]:
    yield Pair("shared.weight", "embedding", exchanged(pad_id))
    yield from _norm("encoder.first_layer_norm", "encoder/embedding_norm")
    for i, spec in enumerate(model.encoder.layer_specs):
        theirs, ours = f"encoder.block.{i}.layer", f"encoder/layers/{i}"
        yield from _attention(f"{theirs}.0.SelfAttention", f"{ours}/local_mixer")
        table_name = f"{theirs}.0.SelfAttention.relative_attention_bias.weight"
        yield Pair(table_name, f"{ours}/local_mixer/bias/table")
        yield from _norm(f"{theirs}.0.layer_norm", f"{ours}/mixer_norm")
        yield from _global(spec, f"{theirs}.0.", f"{theirs}.0.s4.s4", ours)
        yield from _feed_forward(model, f"{theirs}.1", ours)
    yield Pair("decoder.pos_embed.weight", "decoder/position_table", POSITIONS)
    yield from _norm("decoder.first_layer_norm", "decoder/embedding_norm")
    for i, _ in enumerate(model.decoder.layer_specs):
        theirs, ours = f"decoder.block.{i}.layer", f"decoder/layers/{i}"
        yield from _attention(f"{theirs}.0.SelfAttention", f"{ours}/local_mixer")
        yield from _norm(f"{theirs}.0.layer_norm", f"{ours}/mixer_norm")
        yield from _attention(f"{theirs}.1.EncDecAttention", f"{ours}/cross_attention")
        yield from _norm(f"{theirs}.1.layer_norm", f"{ours}/cross_norm")
        yield from _feed_forward(model, f"{theirs}.2", ours)


def _language_model(model: DecoderOnlyConfig, pad_id: int) -> Iterator[Pair]:
    if model.adaptive is not None:
        yield from _bands(1 + len(model.adaptive.cutoffs), pad_id)
    else:
        yield Pair("decoder.embed_tokens.weight", "embedding", exchanged(pad_id))
        if not model.tie_embeddings:
            yield Pair("decoder.output_projection.weight", "output", exchanged(pad_id))
    if model.decoder.relative_bias == "shared":
        # Layer 0 has the table of all layers.
        table_name = "decoder.layers.0.self_attn.relative_attention_bias.weight"
        yield Pair(table_name, "decoder/relative_bias/table")
    if model.final_norm:
        yield from _norm("decoder.layer_norm", "decoder/final_norm")
    for i, spec in enumerate(model.decoder.layer_specs):
        theirs, ours = f"decoder.layers.{i}.", f"decoder/layers/{i}"
        yield from _attention(f"{theirs}self_attn", f"{ours}/local_mixer")
        yield from _norm(f"{theirs}self_attn_layer_norm", f"{ours}/mixer_norm")
        yield from _global(spec, theirs, f"{theirs}s4_module.s4", ours)
        yield from _linear(f"{theirs}fc1", f"{ours}/feed_forward/expand", bias=True)
        yield from _linear(f"{theirs}fc2", f"{ours}/feed_forward/contract", bias=True)
        yield from _norm(f"{theirs}final_layer_norm", f"{ours}/feed_forward_norm")


def _linear(theirs: str, ours: str, *, bias: bool) -> Iterator[Pair]:
    yield Pair(f"{theirs}.weight", f"{ours}/kernel", TRANSPOSED)
    if bias:
        yield Pair(f"{theirs}.bias", f"{ours}/bias")


def _norm(theirs: str, ours: str) -> Iterator[Pair]:
    yield Pair(f"{theirs}.weight", f"{ours}/scale")
    yield Pair(f"{theirs}.bias", f"{ours}/bias")


def _attention(theirs: str, ours: str) -> Iterator[Pair]:
    for name in ("query", "key", "value", "output"):
        yield from _linear(f"{theirs}.{name[0]}", f"{ours}/{name}", bias=False)


def _global(spec: LayerSpec, theirs: str, s4: str, ours: str) -> Iterator[Pair]:
    """What a layer has for its global mixer; s4 is up to and with the module that holds D."""
    if spec.combine is None:
        return
    kernel, mixer = f"{s4}.kernel.kernel.", f"{ours}/global_mixer/"
    yield Pair(f"{s4}.D", f"{mixer}d", ONE)
    yield Pair(f"{kernel}C", f"{mixer}c", READOUT)
    yield Pair(f"{kernel}log_dt", f"{mixer}log_dt")
    yield Pair(f"{kernel}B", f"{mixer}b", ONE)
    yield Pair(f"{kernel}P", f"{mixer}a_low_rank", ONE)
    yield Pair(f"{kernel}inv_w_real", f"{mixer}a_log_decay")
    yield Pair(f"{kernel}w_imag", f"{mixer}a_frequency")
    if spec.combine in ("concat", "add"):
        yield from _norm(f"{theirs}norm_global", f"{ours}/global_norm")
        yield from _norm(f"{theirs}norm_local", f"{ours}/local_norm")
    if spec.combine == "concat":
        yield from _linear(f"{theirs}aggregate", f"{ours}/aggregate", bias=True)


def _feed_forward(model: ModelConfig, theirs: str, ours: str) -> Iterator[Pair]:
    dense, own = f"{theirs}.DenseReluDense", f"{ours}/feed_forward"
    bias = model.feed_forward_bias
    if model.feed_forward == "gated-gelu":
        yield from _linear(f"{dense}.wi_0", f"{own}/expand", bias=bias)
        yield from _linear(f"{dense}.wi_1", f"{own}/gate", bias=bias)
    else:
        yield from _linear(f"{dense}.wi", f"{own}/expand", bias=bias)
    yield from _linear(f"{dense}.wo", f"{own}/contract", bias=bias)
    yield from _norm(f"{theirs}.layer_norm", f"{own}_norm")
