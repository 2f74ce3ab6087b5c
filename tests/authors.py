"""Golden files as checkpoints of the authors', and their weights in our modules."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from flax import nnx
from flax.traverse_util import unflatten_dict
from golden_data import Golden

from spade_jax.config import ModelConfig
from spade_jax.interop import names
from spade_jax.interop.authors import Imported, model_config, our_id, to_ours
from spade_jax.models.build import builder

EMBEDDING = "decoder.embed_tokens.weight"


def assign(module: nnx.Module, weights: Mapping[str, Any]) -> nnx.Module:
    """The module with every parameter replaced; names and shapes must match exactly."""
    graph, state = nnx.split(module)
    shapes = {"/".join(map(str, path)): v.shape for path, v in nnx.to_flat_state(state)}
    assert shapes == {name: array.shape for name, array in weights.items()}
    return nnx.merge(graph, unflatten_dict({tuple(k.split("/")): v for k, v in weights.items()}))


def below(prefix: str, weights: Mapping[str, Any]) -> dict[str, Any]:
    """Those whose names begin so, by the rest."""
    return {n.removeprefix(prefix): a for n, a in weights.items() if n.startswith(prefix)}


def shapes_of(weights: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in weights.items()}


def encoder_decoder(golden: Golden) -> tuple[nnx.Module, ModelConfig, Imported]:
    """Our model of an `msrlongt5` golden file."""
    weights = golden.group("param/")
    config = model_config(golden.config, shapes_of(weights))
    imported = to_ours(weights, config)
    graph = nnx.graphdef(nnx.eval_shape(lambda: builder(config)(nnx.Rngs(0))))
    return nnx.merge(graph, names.by_group(imported.params, config)), config, imported


def our_ids(tokens: np.ndarray) -> np.ndarray:
    """Tokens of theirs as ours, where padding is 0."""
    return np.vectorize(our_id)(tokens)


def arguments(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fairseq arguments of a golden file of the language model, or of one of its layers."""
    adaptive = config.get("adaptive")
    bands = (
        {
            "adaptive_input": True,
            "tie_adaptive_weights": True,
            "tie_adaptive_proj": True,
            **{f"adaptive_{part}_cutoff": adaptive["cutoff"] for part in ("input", "softmax")},
            **{f"adaptive_{part}_factor": adaptive["factor"] for part in ("input", "softmax")},
        }
        if adaptive
        else {}
    )
    return bands | {
        "no_token_positional_embeddings": True,
        "use_relative_attention": True,
        "share_decoder_input_output_embed": True,
        "decoder_embed_dim": config["embed_dim"],
        "decoder_ffn_embed_dim": config["ffn"],
        "decoder_attention_heads": config["heads"],
        "decoder_layers": config.get("layers", 1),
        "decoder_normalize_before": config["normalize_before"],
        "no_scale_embedding": config.get("embed_scale", 1.0) == 1.0,
        "no_decoder_final_norm": not config.get("final_norm", False),
        "activation_fn": config["activation_fn"],
        "relative_attention_num_buckets": config["num_buckets"],
        "relative_attention_max_distance": config["max_distance"],
        "local_radius": config["local_radius"],
        "s4_every_n_layers": config.get("s4_every_n_layers", 1),
        "s4_local_combine": config["s4_local_combine"],
        "s4_weight": config["s4_weight"],
        "s4_state_dim": config["s4_state_dim"],
        "s4_n_ssm": config["s4_n_ssm"],
        "max_target_positions": config["l_max"],
    }


def language_model(golden: Golden) -> tuple[nnx.Module, ModelConfig, Imported]:
    """Our model of a `spade_lm` golden file."""
    weights = golden.group("param/")
    config = model_config(arguments(golden.config), shapes_of(weights))
    imported = to_ours(weights, config)
    graph = nnx.graphdef(nnx.eval_shape(lambda: builder(config)(nnx.Rngs(0))))
    return nnx.merge(graph, names.by_group(imported.params, config)), config, imported
