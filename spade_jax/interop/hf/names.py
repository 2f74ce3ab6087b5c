"""What Hugging Face calls the parameters of a T5, and how they lie there."""

import re
from typing import NamedTuple


class Place(NamedTuple):
    """Where one of our parameters lies in a checkpoint.

    Attributes:
      name: of the array.
      transposed: it is [out, in] there, and [in, out] here.
    """

    name: str
    transposed: bool


# By layer, as of `interop.names.by_layer`. What a state space has is new.
_TOP = {
    "embedding": "shared.weight",
    "output": "lm_head.weight",
    "encoder/final_norm/scale": "encoder.final_layer_norm.weight",
    "decoder/final_norm/scale": "decoder.final_layer_norm.weight",
    # A table of all layers lies in the first one.
    "encoder/relative_bias/table": "encoder.block.0.layer.0.{mixer}.relative_attention_bias.weight",
    "decoder/relative_bias/table": "decoder.block.0.layer.0.{mixer}.relative_attention_bias.weight",
}
_LAYER = {
    "mixer_norm/scale": "layer.0.layer_norm.weight",
    "local_mixer/query/kernel": "layer.0.{mixer}.q.weight",
    "local_mixer/key/kernel": "layer.0.{mixer}.k.weight",
    "local_mixer/value/kernel": "layer.0.{mixer}.v.weight",
    "local_mixer/output/kernel": "layer.0.{mixer}.o.weight",
    "local_mixer/bias/table": "layer.0.{mixer}.relative_attention_bias.weight",
    "cross_norm/scale": "layer.1.layer_norm.weight",
    "cross_attention/query/kernel": "layer.1.EncDecAttention.q.weight",
    "cross_attention/key/kernel": "layer.1.EncDecAttention.k.weight",
    "cross_attention/value/kernel": "layer.1.EncDecAttention.v.weight",
    "cross_attention/output/kernel": "layer.1.EncDecAttention.o.weight",
    "feed_forward_norm/scale": "layer.{last}.layer_norm.weight",
    # Of the two of a gated one the first goes through the activation.
    "feed_forward/expand/kernel": "layer.{last}.DenseReluDense.{expand}.weight",
    "feed_forward/gate/kernel": "layer.{last}.DenseReluDense.wi_1.weight",
    "feed_forward/contract/kernel": "layer.{last}.DenseReluDense.wo.weight",
}
# What nothing is computed from. Old checkpoints have a table for cross-attention, which has none.
UNUSED = re.compile(
    r"(encoder|decoder)\.embed_tokens\.weight"
    r"|decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
)
# The embedding's other names, under which it may lie there once more, or alone.
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
OUTPUT = "lm_head.weight"


def place_of(name: str, *, long: bool, gated: bool) -> Place | None:
    """Where a parameter lies; None for one that checkpoints do not have.

    Args:
      name: ours, such as "decoder/layers/2/cross_attention/output/kernel".
      long: in a LongT5.
      gated: whether its feed-forward is gated.
    """
    stack = name.partition("/")[0]
    words = {
        "mixer": "LocalSelfAttention" if long and stack == "encoder" else "SelfAttention",
        "last": 2 if stack == "decoder" else 1,
        "expand": "wi_0" if gated else "wi",
    }
    layer = re.fullmatch(r"(\w+)/layers/(\d+)/(.*)", name)
    if layer is None:
        return Place(_TOP[name].format(**words), False)
    if layer[3] not in _LAYER:
        return None
    inside = _LAYER[layer[3]].format(**words)
    return Place(f"{layer[1]}.block.{layer[2]}.{inside}", name.endswith("kernel"))
