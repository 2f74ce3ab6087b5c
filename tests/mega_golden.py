"""MEGA's golden files as layers of ours: their settings, and our parameters from theirs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from authors import assign
from flax import nnx
from golden_data import Golden

from spade_jax.config import AttentionConfig, EncoderDecoderConfig, StackConfig
from spade_jax.elements import Statistic, train
from spade_jax.layers.block import Block
from spade_jax.mixers import EMA, Mega
from spade_jax.mixers.base import Context

# Theirs by ours: the code swaps the paper's alpha and delta, and calls eta gamma.
AVERAGE = {
    "alpha": "delta",
    "delta": "alpha",
    "beta": "beta",
    "eta": "gamma",
    "omega": "omega",
}
NORMS = {"layernorm": "layer", "rmsnorm": "rms", "scalenorm": "scale", "batchnorm": "batch"}
NORM = {
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "variance": "running_var",
}
# A layer and its parts alone name their widths differently.
_WIDTHS = {"d_model": "embed_dim", "query_dim": "zdim", "value_dim": "hdim", "state_size": "ndim"}
_OF_LAYERS = {
    "d_model": "embedding_dim",
    "query_dim": "z_dim",
    "value_dim": "hidden_dim",
    "state_size": "n_dim",
}


@dataclasses.dataclass
class MegaLayer:
    """A golden file of attention or of a whole layer, and our layer with its parameters."""

    name: str

    def __post_init__(self) -> None:
        self.golden = Golden(self.name)
        self.config = config = self.golden.config
        self.whole = "embedding_dim" in config
        self.causal = bool(config.get("causal"))
        theirs = _OF_LAYERS if self.whole else _WIDTHS
        self.widths = {ours: config[name] for ours, name in theirs.items()}

    def mega(self) -> Mega:
        config, size = self.config, self.config["chunk_size"]
        average = EMA(
            state_size=self.widths["state_size"],
            chunk_length=32,
            max_kernel_length=config.get("truncation"),
        )
        return Mega(
            query_dim=self.widths["query_dim"],
            value_dim=self.widths["value_dim"],
            chunk_size=size if size > 0 else None,
            weights=config["attention_activation"],
            bias=config["rel_pos_bias"],
            max_distance=config["max_positions"] - 1,
            average=average,
        )

    def block(self) -> Block:
        """With their parameters."""
        stack = StackConfig("mega" if self.whole else "mega:no_ff", relative_bias="none")
        config = EncoderDecoderConfig(
            vocab_size=8,
            d_model=self.widths["d_model"],
            d_ff=self.config.get("ffn_hidden_dim", 1),
            encoder=stack,
            decoder=stack,
            mixers={"mega": self.mega()},
            attention=AttentionConfig(num_heads=1),
            norm=NORMS[self.config["norm_type"]],
            norm_epsilon=1e-5,
            norm_placement="pre" if self.config["prenorm"] else "post",
            feed_forward="silu",
            feed_forward_bias=True,
        )
        (spec,) = stack.layer_specs
        rngs = nnx.Rngs(0)
        block = Block(config, stack, spec, causal=self.causal, cross_attention=False, rngs=rngs)
        return assign(block, self.ours("param/"))

    def statistics(self, prefix: str = "after/") -> dict[str, np.ndarray]:
        """What a training call leaves of batch norms, by our names."""
        after, top = self.golden.group(prefix), "mega_layer."
        places = {"mixer_norm": f"{top}norm.norm", "feed_forward_norm": "nffn.norm.norm"}
        return {
            f"{ours}/{part}": after[f"{theirs}.{NORM[part]}"]
            for ours, theirs in places.items()
            for part in ("mean", "variance")
            if f"{theirs}.{NORM[part]}" in after
        }

    def ours(self, prefix: str) -> dict[str, np.ndarray]:
        """Our arrays by name: parameters ("param/") or their gradients ("grad/")."""
        theirs = self.golden.group(prefix)
        top = "mega_layer." if self.whole else ""
        d, z, v = (self.widths[name] for name in ("d_model", "query_dim", "value_dim"))
        found: dict[str, Any] = {}

        def linear(ours: str, name: str, rows: slice = slice(None)) -> None:
            found[f"{ours}/kernel"] = theirs[f"{name}.weight"][rows].T
            found[f"{ours}/bias"] = theirs[f"{name}.bias"][rows]

        def norm(ours: str, name: str) -> None:
            for part, array in NORM.items():
                if f"{name}.{array}" in theirs:
                    found[f"{ours}/{part}"] = theirs[f"{name}.{array}"]
            if f"{name}.scalar" in theirs:
                found[f"{ours}/scale"] = theirs[f"{name}.scalar"][0]

        first = 0
        for name, width in zip(
            ("residual_gate", "shared", "attention_gate", "candidate"), (d, z, v, d)
        ):
            linear(f"local_mixer/{name}", f"{top}mx_proj", slice(first, first + width))
            first += width
        linear("local_mixer/value", f"{top}v_proj")
        linear("local_mixer/output", f"{top}h_proj")
        found["local_mixer/scale"] = theirs[f"{top}gamma"]
        found["local_mixer/shift"] = theirs[f"{top}beta"]
        for name, array in average(self.golden, prefix, f"{top}move.").items():
            found[f"local_mixer/average/{name}"] = array
        if self.config["rel_pos_bias"] == "simple":
            found["local_mixer/bias/table"] = theirs[f"{top}rel_pos_bias.rel_pos_bias"]
        else:
            for name in ("alpha", "beta"):
                found[f"local_mixer/bias/{name}"] = theirs[f"{top}rel_pos_bias.{name}"][0]
        norm("mixer_norm", f"{top}norm.norm")
        if self.whole:
            norm("feed_forward_norm", "nffn.norm.norm")
            linear("feed_forward/expand", "nffn.fc1")
            linear("feed_forward/contract", "nffn.fc2")
        return found


def average(golden: Golden, prefix: str, top: str = "") -> dict[str, np.ndarray]:
    """Our arrays of a moving average by name."""
    found = {ours: golden[f"{prefix}{top}{theirs}"] for ours, theirs in AVERAGE.items()}
    width = found["omega"].shape[0]
    size = golden[f"{prefix}{top}gamma"].shape[-1]
    return {
        name: array if name == "omega" else array.reshape(-1, width, size)
        for name, array in found.items()
    }


def tokens(golden: Golden) -> np.ndarray:
    """Int32 [b, l]: 0 is padding."""
    x = golden["in/x"]
    if "in/padding_mask" not in golden:
        return np.ones(x.shape[:2], np.int32)
    return 1 - golden["in/padding_mask"].astype(np.int32)


def context(segment_ids: Any, start: Any = 0) -> Context:
    return Context(
        jnp.asarray(segment_ids), jnp.arange(segment_ids.shape[1])[None], jnp.int32(start), {}
    )


def loss_and_gradients(
    module: nnx.Module, golden: Golden
) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """y of a training call, the gradients of its product with theirs by every parameter and by "x",
    and the statistics that it leaves."""
    own = context(tokens(golden))
    train(module)
    graph, state = nnx.split(module)

    def loss(state, x):
        module = nnx.merge(graph, state)
        y, _ = module(x, own)
        return jnp.sum(y * golden["in/grad_y"]), (y, nnx.state(module, Statistic))

    run = jax.jit(jax.value_and_grad(loss, (0, 1), has_aux=True))
    (_, (y, statistics)), (gradients, of_x) = run(state, jnp.asarray(golden["in/x"]))
    left = by_name(statistics)
    moved = {name: g for name, g in by_name(gradients).items() if name not in left}
    return y, moved | {"x": of_x}, left


def by_name(state: Any) -> dict[str, Any]:
    return {"/".join(map(str, path)): value[...] for path, value in nnx.to_flat_state(state)}


def in_pieces(module: nnx.Module, x: Any, pieces: tuple[int, ...]) -> Any:
    """What the cache gives for pieces of so many tokens."""

    @nnx.jit
    def run(module, x):
        cache = module.init_cache(*x.shape[:2], "float32")
        parts, start = [], 0
        for size in pieces:
            piece = x[:, start : start + size]
            own = context(jnp.ones(piece.shape[:2], jnp.int32), start)
            y, cache = module(piece, own, cache=cache)
            parts, start = [*parts, y], start + size
        return jnp.concatenate(parts, axis=1)

    return run(module, jnp.asarray(x))
