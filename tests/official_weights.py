"""The authors' state_dict names as parameters of our modules, for layers and whole models."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from flax.traverse_util import unflatten_dict

from spade_jax.config import AttentionConfig, ModelConfig, StackConfig
from spade_jax.mixers import S4, Window

Weights = dict[str, np.ndarray]


def assign(module: nnx.Module, weights: Mapping[str, np.ndarray]) -> nnx.Module:
    """The module with every parameter replaced; names and shapes must match exactly."""
    graph, state = nnx.split(module)
    shapes = {"/".join(map(str, path)): v.shape for path, v in nnx.to_flat_state(state)}
    assert shapes == {name: array.shape for name, array in weights.items()}
    return nnx.merge(graph, unflatten_dict({tuple(k.split("/")): v for k, v in weights.items()}))


def stacked(layers: list[Weights]) -> Weights:
    """The weights of equal layers with a leading axis."""
    return {name: np.stack([layer[name] for layer in layers]) for name in layers[0]}


def prefixed(prefix: str, weights: Weights) -> Weights:
    return {prefix + name: array for name, array in weights.items()}


def linear(official: Mapping[str, Any], name: str) -> Weights:
    """torch's [out, in] to ours."""
    weights = {"kernel": official[f"{name}.weight"].T}
    if f"{name}.bias" in official:
        weights["bias"] = official[f"{name}.bias"]
    return weights


def norm(official: Mapping[str, Any], name: str) -> Weights:
    return {"scale": official[f"{name}.weight"], "bias": official[f"{name}.bias"]}


def attention(official: Mapping[str, Any], name: str) -> Weights:
    weights: Weights = {}
    for ours in ("query", "key", "value", "output"):
        weights |= prefixed(f"{ours}/", linear(official, f"{name}.{ours[0]}"))
    table = f"{name}.relative_attention_bias.weight"
    if table in official:
        weights["bias/table"] = official[table]
    return weights


def ssm(official: Mapping[str, Any], name: str) -> Weights:
    """name: up to and with the S4 module, which holds D and kernel.kernel.*."""
    kernel = f"{name}.kernel.kernel."
    return {
        "a_log_decay": official[kernel + "inv_w_real"],
        "a_frequency": official[kernel + "w_imag"],
        "a_low_rank": official[kernel + "P"][0],
        "b": official[kernel + "B"][0],
        "c": official[kernel + "C"],
        "d": official[f"{name}.D"][0],
        "log_dt": official[kernel + "log_dt"],
    }


def lm_layer(official: Mapping[str, Any]) -> Weights:
    """A layer of the language model (fairseq names)."""
    weights = {
        **prefixed("local_mixer/", attention(official, "self_attn")),
        **prefixed("mixer_norm/", norm(official, "self_attn_layer_norm")),
        **prefixed("feed_forward/expand/", linear(official, "fc1")),
        **prefixed("feed_forward/contract/", linear(official, "fc2")),
        **prefixed("feed_forward_norm/", norm(official, "final_layer_norm")),
    }
    return weights | _augmentation(official, "", "s4_module.s4")


def _augmentation(official: Mapping[str, Any], prefix: str, s4: str) -> Weights:
    weights: Weights = {}
    if f"{s4}.D" in official:
        weights |= prefixed("global_mixer/", ssm(official, s4))
    if f"{prefix}norm_global.weight" in official:
        weights |= prefixed("global_norm/", norm(official, f"{prefix}norm_global"))
        weights |= prefixed("local_norm/", norm(official, f"{prefix}norm_local"))
    if f"{prefix}aggregate.weight" in official:
        weights |= prefixed("aggregate/", linear(official, f"{prefix}aggregate"))
    return weights


def _feed_forward(official: Mapping[str, Any], layer: str) -> Weights:
    dense = f"{layer}.DenseReluDense"
    weights = prefixed("feed_forward/contract/", linear(official, f"{dense}.wo"))
    if f"{dense}.wi_0.weight" in official:
        weights |= prefixed("feed_forward/expand/", linear(official, f"{dense}.wi_0"))
        weights |= prefixed("feed_forward/gate/", linear(official, f"{dense}.wi_1"))
    else:
        weights |= prefixed("feed_forward/expand/", linear(official, f"{dense}.wi"))
    return weights | prefixed("feed_forward_norm/", norm(official, f"{layer}.layer_norm"))


def encoder_decoder(official: Mapping[str, Any]) -> Weights:
    """MSRLongT5 with two layers in each stack (namisan/mt-dnn names)."""

    def encoder_layer(i: int) -> Weights:
        first = f"encoder.block.{i}.layer.0."
        return {
            **prefixed("local_mixer/", attention(official, first + "SelfAttention")),
            **prefixed("mixer_norm/", norm(official, first + "layer_norm")),
            **_augmentation(official, first, first + "s4.s4"),
            **_feed_forward(official, f"encoder.block.{i}.layer.1"),
        }

    def decoder_layer(i: int) -> Weights:
        block = f"decoder.block.{i}.layer."
        return {
            **prefixed("local_mixer/", attention(official, block + "0.SelfAttention")),
            **prefixed("mixer_norm/", norm(official, block + "0.layer_norm")),
            **prefixed("cross_attention/", attention(official, block + "1.EncDecAttention")),
            **prefixed("cross_norm/", norm(official, block + "1.layer_norm")),
            **_feed_forward(official, block + "2"),
        }

    decoder = stacked([decoder_layer(0), decoder_layer(1)])
    return {
        "embedding": official["shared.weight"],
        **prefixed("encoder/embedding_norm/", norm(official, "encoder.first_layer_norm")),
        **prefixed("encoder/layers_0/", encoder_layer(0)),
        **prefixed("encoder/layers_1/", encoder_layer(1)),
        # The first token has row 2: rows 0 and 1 serve no token.
        "decoder/position_table": official["decoder.pos_embed.weight"][2:],
        **prefixed("decoder/embedding_norm/", norm(official, "decoder.first_layer_norm")),
        **prefixed("decoder/layers_0/", decoder),
    }


def lm_layer_config(config: Mapping[str, Any]) -> ModelConfig:
    """A model whose layers are those of a `spade_layer` golden file."""
    return ModelConfig(
        vocab_size=1,
        d_model=config["embed_dim"],
        d_ff=config["ffn"],
        encoder=StackConfig("window"),
        decoder=StackConfig("full"),
        attention=AttentionConfig(
            num_heads=config["heads"],
            num_buckets=config["num_buckets"],
            max_distance=config["max_distance"],
            scale_queries=True,
        ),
        mixers={
            "s4": S4(
                state_size=config["s4_state_dim"],
                num_copies=config["s4_n_ssm"],
                max_kernel_length=config["l_max"],
                chunk_length=8,
            ),
            "window": Window(config["local_radius"]),
        },
        norm="layer",
        norm_epsilon=config["layer_norm_eps"],
        norm_placement="pre" if config["normalize_before"] else "post",
        feed_forward=config["activation_fn"],
        feed_forward_bias=True,
        add_weight=config["s4_weight"],
    )


def encoder_decoder_config(config: Mapping[str, Any]) -> ModelConfig:
    """The model of an `msrlongt5` golden file."""
    return ModelConfig(
        vocab_size=config["vocab_size"],
        d_model=config["d_model"],
        d_ff=config["d_ff"],
        encoder=StackConfig("s4+window:concat, window", relative_bias="per_layer"),
        decoder=StackConfig(
            "2*full",
            relative_bias="none",
            positions="learned",
            max_positions=config["max_position_embeddings"],
        ),
        attention=AttentionConfig(
            num_heads=config["num_heads"],
            num_buckets=config["relative_attention_num_buckets"],
            max_distance=config["relative_attention_max_distance"],
            scale_queries=True,
        ),
        mixers={
            "s4": S4(
                state_size=config["s4_state_dim"],
                num_copies=config["s4_n_ssm"],
                max_kernel_length=config["l_max"],
                chunk_length=8,
                detach=True,
            ),
            "window": Window(config["local_radius"]),
        },
        norm="layer",
        norm_epsilon=config["layer_norm_epsilon"],
        norm_placement="pre" if config["normalize_before"] else "post",
        embedding_norm=True,
        final_norm=False,
        feed_forward=config["feed_forward_proj"],
        feed_forward_bias=config["feed_forward_proj"] == "relu",
        scale_logits=False,
    )
