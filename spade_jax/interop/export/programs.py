"""A run's model as StableHLO programs: functions of named arrays, which JAX alone can run.

All are functions of flat dicts: parameters by layer, as `model.safetensors` beside them has them,
and the decoder's cache by the names of its arrays. The number of rows is symbolic; inputs have one
of several lengths, each with programs of its own. They are the plain path: no kernel of one
platform.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
from flax import nnx

from spade_jax.config import ModelConfig
from spade_jax.decoding.beam_search import TopK
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.generate import generate
from spade_jax.interop.names import origins, put_together
from spade_jax.layers.stack import StackCache
from spade_jax.models.build import builder
from spade_jax.trees import paths

Arrays = Mapping[str, Any]
FUNCTIONS = ("encode", "start", "step", "greedy", "beam")


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What is fixed in programs.

    Attributes:
      input_length: of inputs, which are filled up to it.
      decoding: of `greedy`, `beam`, and how many tokens `step` can write.
      end_id, vocab_size: of the vocabulary, as of `generate`.
    """

    input_length: int
    decoding: DecodingConfig
    end_id: int
    vocab_size: int


def plain(config: ModelConfig) -> ModelConfig:
    """The same model, run by operations of every platform."""
    mixers = {name: mixer.run_by("xla") for name, mixer in config.mixers.items()}
    attention = dataclasses.replace(config.attention, implementation="xla")
    return dataclasses.replace(config, attention=attention, mixers=mixers, remat="none")


class Programs:
    """The functions of a model, each with the shapes of its arguments."""

    def __init__(
        self,
        config: ModelConfig,
        sizes: Sizes,
        shapes: Mapping[str, Any],
        top_k: TopK = jax.lax.top_k,
    ):
        """shapes: shape and dtype of each parameter, by layer.

        top_k: of beam search.
        """
        self._config, self._sizes, self._top_k = plain(config), sizes, top_k
        self._graph, variables = nnx.split(
            nnx.eval_shape(lambda: builder(self._config)(nnx.Rngs(0)))
        )
        self._names = paths(nnx.to_pure_dict(variables))
        self._params = {n: jax.ShapeDtypeStruct(*shape) for n, shape in shapes.items()}
        (batch,) = jax.export.symbolic_shape("batch")
        self._tokens = jax.ShapeDtypeStruct((batch, sizes.input_length), jnp.int32)
        self._one = jax.ShapeDtypeStruct((batch,), jnp.int32)
        self._structure: Any = None

    def export(self, name: str, platforms: Sequence[str]) -> jax.export.Exported:
        """One of FUNCTIONS."""
        function = getattr(self, name)
        arguments: tuple[Any, ...] = (self._tokens,)
        if name == "step":
            cache = jax.eval_shape(self.start, self._params, self._tokens)
            arguments = (cache, self._one)
        return jax.export.export(jax.jit(function), platforms=platforms)(self._params, *arguments)

    def encode(self, params: Arrays, tokens: jax.Array) -> jax.Array:
        """tokens int32 [b, l], 0 is padding -> float32 [b, l, d]."""
        encoded = self._model(params).encode(tokens, segment_ids=_segments(tokens))
        return encoded.astype(jnp.float32)

    def start(self, params: Arrays, tokens: jax.Array) -> dict[str, jax.Array]:
        """tokens int32 [b, l] -> the decoder's cache before its first token, which is 0."""
        model, segments = self._model(params), _segments(tokens)
        cache = model.init_cache(
            model.encode(tokens, segment_ids=segments),
            length=self._sizes.decoding.max_length,
            encoded_segment_ids=segments,
        )
        leaves, self._structure = jax.tree_util.tree_flatten_with_path(cache)
        self._cache_names = [
            jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in leaves
        ]
        return dict(zip(self._cache_names, (leaf for _, leaf in leaves), strict=True))

    def step(
        self, params: Arrays, cache: Arrays, tokens: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """A cache and the last token of each row, int32 [b] -> logits float32 [b, vocabulary] of
        the next, and the cache with it."""
        whole: StackCache = jax.tree.unflatten(
            self._structure, [cache[name] for name in self._cache_names]
        )
        logits, whole = self._model(params).extend(tokens[:, None], whole)
        after = dict(zip(self._cache_names, jax.tree.leaves(whole), strict=True))
        return logits[:, 0, : self._sizes.vocab_size], after

    def greedy(self, params: Arrays, tokens: jax.Array) -> jax.Array:
        """tokens int32 [b, l] -> int32 [b, max_length], 0 after the end."""
        return self._generate(params, tokens, dataclasses.replace(self._sizes.decoding, beams=1))

    def beam(self, params: Arrays, tokens: jax.Array) -> jax.Array:
        """The same by beam search."""
        return self._generate(params, tokens, self._sizes.decoding)

    def _generate(self, params: Arrays, tokens: jax.Array, how: DecodingConfig) -> jax.Array:
        sizes = self._sizes
        return generate(
            self._model(params),
            tokens,
            how,
            end_id=sizes.end_id,
            vocab_size=sizes.vocab_size,
            top_k=self._top_k,
        )[0]

    def _model(self, params: Arrays) -> Any:
        """Of parameters by layer: those of repeated layers are put together within the program."""
        places = origins(self._names, self._config)

        def get(name: str) -> jax.Array:
            return params[name].astype(self._names[places[name].name].dtype)

        return nnx.merge(self._graph, put_together(get, places, jnp.stack))


def _segments(tokens: jax.Array) -> jax.Array:
    return (tokens != 0).astype(jnp.int32)
