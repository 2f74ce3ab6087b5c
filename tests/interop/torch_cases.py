"""Tiny models of every flavour and combination, what they compute, and their folders."""

import dataclasses
import functools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from spade_jax.config import AttentionConfig, EncoderDecoderConfig, ModelConfig, StackConfig
from spade_jax.data.vocabulary import Vocabulary, load_vocabulary
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.generate import generate
from spade_jax.interop.names import by_layer
from spade_jax.interop.transformers_folder import write
from spade_jax.interop.transformers_folder.tensors import torch_name
from spade_jax.mixers import S4, Full, Window
from spade_jax.models.build import builder

MAX_LENGTH = 12
SEED = 3
# An id that no output has.
NO_END = 271


def vocabulary_of(name: str, extra_ids: int) -> Vocabulary:
    return load_vocabulary(SimpleNamespace(vocabulary=name, extra_ids=extra_ids))


VOCABULARY = vocabulary_of("bytes", 4)
_BASE: dict[str, Any] = {
    # More than the vocabulary has.
    "vocab_size": 272,
    "d_model": 16,
    "d_ff": 24,
    "attention": AttentionConfig(num_heads=2, head_dim=6, num_buckets=8, max_distance=12),
}


def config(encoder: str, decoder: str, *, stacks: Any = ({}, {}), **changes: Any) -> ModelConfig:
    mixers = {
        "s4": S4(state_size=8),
        "zoh": S4(state_size=6, discretization="zoh", max_kernel_length=5),
        "lin": S4(state_size=8, init="diag-lin", discretization="zoh", num_copies=2),
        "inv": S4(state_size=6, init="diag-inv", max_kernel_length=7),
        "frozen": S4(state_size=6, num_copies=4, max_kernel_length=7, detach=True),
        "window": Window(3),
        "wide": Window(40),
        "full": Full(),
    }
    settings = {
        **_BASE,
        "encoder": StackConfig(encoder, **stacks[0]),
        "decoder": StackConfig(decoder, **stacks[1]),
        "mixers": mixers,
    }
    return EncoderDecoderConfig(**(settings | changes))


CASES = {
    "t5": config(
        "s4+window:concat, 2*(window, full)",
        "2*full",
        tie_embeddings=False,
        scale_logits=False,
        final_dropout=True,
        dropout_rate=0.1,
    ),
    "msr": config(
        "frozen+window:concat, 2*wide",
        "full, window",
        stacks=(
            {"relative_bias": "per_layer"},
            {"relative_bias": "none", "positions": "learned", "max_positions": 30},
        ),
        attention=AttentionConfig(num_heads=4, scale_queries=True),
        norm="layer",
        norm_placement="post",
        embedding_norm=True,
        final_norm=False,
        feed_forward="gelu",
        feed_forward_bias=True,
        scale_logits=False,
    ),
    "mixed": config(
        "lin+window:add, s4+full:stack:no_ff, window+zoh, s4+window:residual",
        "zoh+window:stack, lin:no_ff, s4+full:residual, inv",
        stacks=({}, {"relative_bias": "per_layer"}),
        tie_embeddings=False,
        scale_logits=False,
        feed_forward="relu",
        add_weight=0.3,
    ),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """A model with random parameters, and inputs."""

    config: ModelConfig
    model: Any
    tokens: np.ndarray
    decoder_tokens: np.ndarray
    labels: np.ndarray

    @functools.cached_property
    def params(self) -> Any:
        return nnx.to_pure_dict(nnx.state(self.model, nnx.Param))

    def forward(self) -> dict[str, np.ndarray]:
        """Logits, the loss of labels and its gradients by PyTorch's names."""
        graph, params = nnx.split(self.model)

        @jax.jit
        @functools.partial(jax.value_and_grad, has_aux=True)
        def run(params):
            model = nnx.merge(graph, params)
            segments = jnp.asarray(self.tokens != 0).astype(int)
            logits = model(
                jnp.asarray(self.tokens),
                jnp.asarray(self.decoder_tokens),
                encoder_segment_ids=segments,
            )
            chosen = jnp.take_along_axis(
                jax.nn.log_softmax(logits), jnp.abs(self.labels)[..., None], -1
            )[..., 0]
            counts = self.labels != -100
            return -jnp.sum(chosen * counts) / counts.sum(), logits

        (loss, logits), gradients = run(params)
        found = {"loss": np.asarray(loss), "logits": np.asarray(logits)}
        for name, array in by_layer(nnx.to_pure_dict(gradients), self.config).items():
            array = np.asarray(array)
            found[f"gradient {torch_name(name, self.config)}"] = (
                array.T if name.endswith("kernel") else array
            )
        return found

    def written(self, end_id: int = VOCABULARY.eos_id, **how: Any) -> np.ndarray:
        """int32 [b, MAX_LENGTH]."""
        graph, params = nnx.split(self.model)

        @jax.jit
        def run(params, tokens):
            return generate(
                nnx.merge(graph, params),
                tokens,
                DecodingConfig(max_length=MAX_LENGTH, **how),
                end_id=end_id,
                vocab_size=VOCABULARY.size,
            )[0]

        return np.asarray(run(params, jnp.asarray(self.tokens)))

    def write(self, folder: Path, vocabulary: Vocabulary = VOCABULARY, **more: Any) -> None:
        settings = {"card": {}, "dtype": "float32", "max_shard_bytes": 10**9} | more
        write(folder, self.config, by_layer(self.params, self.config), vocabulary, **settings)

    def save(self, path: Path, **arrays: np.ndarray) -> None:
        inputs = {
            "tokens": self.tokens,
            "decoder_tokens": self.decoder_tokens,
            "labels": self.labels,
            "size": VOCABULARY.size,
        }
        np.savez(path, **(inputs | arrays))


def _perturbed(random: np.random.Generator, path: Any, x: jax.Array) -> jax.Array:
    """A parameter somewhere else than where it begins, so that outputs have many tokens."""
    name = jax.tree_util.keystr(path)
    x = x + 0.1 * random.normal(size=x.shape).astype(np.float32)
    if "scale" in name:
        # Tied logits would repeat the last token.
        x = x * random.choice([-1.0, 1.0], size=x.shape).astype(np.float32)
    if name.startswith(("['embedding']", "['output']")):
        x = x.at[VOCABULARY.eos_id].multiply(1.4)  # Some outputs end.
    return x


def case(name: str) -> Case:
    """One row without padding, and others with more and less of it."""
    random = np.random.default_rng(SEED)
    model = builder(CASES[name])(nnx.Rngs(0))
    state = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map_with_path(functools.partial(_perturbed, random), state))
    tokens = random.integers(3, 259, (3, 23)).astype(np.int32)
    tokens[0, 9:], tokens[2, 20:] = 0, 0
    decoder_tokens = random.integers(1, 259, (3, 11)).astype(np.int32)
    decoder_tokens[:, 0] = 0
    labels = random.integers(1, 259, (3, 11)).astype(np.int32)
    labels[0, 6:] = -100
    return Case(CASES[name], model, tokens, decoder_tokens, labels)
