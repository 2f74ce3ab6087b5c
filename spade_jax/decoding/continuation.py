"""What a language model writes behind a prompt: read in pieces, then token after token.

Neither time nor memory of a token depends on how much was read or written, but where a mixer looks
at all of it, such as full attention. Prompts of unequal lengths are read together as far as the
shortest one goes; from there on rows that have more of their prompt read it where others write.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from spade_jax import partition
from spade_jax.config import require
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.sampling import Writing, begin, write
from spade_jax.models.decoder_only import DecoderOnly

# Tokens of a prompt that are read at once, as long as there are so many.
_PIECES = (512, 32)
# Tokens between two looks at what was written, where nobody waits for each.
_STRIDE = 64


class Continuation:
    """Writes behind prompts; compiled once for each number of rows.

    Args:
      model: makes the model of parameters.
      end_id: the token that ends a text, and that stands before its first one.
      vocab_size: tokens that mean something; the model's others, which round its vocabulary up,
        are never written.
      mesh: of the devices, which rows are shared out over; None is one device.

    Attributes:
      apart: (params) -> the model, each repeated layer with parameters of its own: made once, and
        not for each token.
      empty: (model, rows, length) -> the cache before the first token.
      read: (model, tokens int32 [n, l], cache) -> the cache with these; the one before is used up.
      write: (model, writing, given, key, count=) -> as of `sampling.write`, of which it is the
        compiled one; `writing` is used up.

    Raises:
      ConfigError: beam search, which there is none of here.
    """

    def __init__(
        self,
        model: Callable[[Any], DecoderOnly],
        config: DecodingConfig,
        *,
        end_id: int,
        vocab_size: int,
        mesh: Mesh | None = None,
    ):
        require(
            config.beams == 1, "decoding.beams", config.beams, "must be 1 with a language model"
        )
        self._model, self._config = model, config
        self._end_id, self._vocab_size, self._mesh = end_id, vocab_size, mesh
        everywhere = None if mesh is None else NamedSharding(mesh, PartitionSpec())
        self._place = (
            None if mesh is None else NamedSharding(mesh, partition.partition_spec(("batch",)))
        )
        self.apart = jax.jit(self._layers_apart)
        self.empty = jax.jit(self._empty, static_argnums=(1, 2))
        self.read = jax.jit(self._extended, donate_argnums=2)
        self.write = jax.jit(
            self._written,
            static_argnames=("count",),
            donate_argnums=1,
            out_shardings=(everywhere, None),
        )

    def __call__(
        self,
        params: Any,
        prompts: Sequence[Sequence[int]],
        key: jax.Array | None = None,
        *,
        rows: int | None = None,
    ) -> np.ndarray:
        """All of `stream`: int32 [n, max_length], 0 after the end of each row.

        Args:
          rows: how many are run; the last prompt again and again fills them up. None: n.
        """
        count = len(prompts)
        prompts = [*prompts, *[prompts[-1]] * ((rows or count) - count)]
        tokens = np.zeros((len(prompts), self._config.max_length), np.int32)
        for row, place, piece in self.stream(params, prompts, key, stride=_STRIDE):
            tokens[row, place : place + len(piece)] = piece
        return tokens[:count]

    def stream(
        self,
        params: Any,
        prompts: Sequence[Sequence[int]],
        key: jax.Array | None = None,
        *,
        stride: int = 8,
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """What is written behind each prompt, as it comes.

        Args:
          prompts: tokens of each row, at least one in each: a text begins with `end_id`.
          key: a random key; needed where the temperature is not 0.
          stride: the most tokens at a time.

        Yields:
          (row, place, tokens): those from `place` on of what this row's model writes, its end
          included.
        """
        lengths = [len(prompt) for prompt in prompts]
        most = self._config.max_length
        # The last token of the shortest prompt is where writing begins.
        read = min(lengths) - 1
        steps = max(lengths) - 1 - read + most
        model = self.apart(params)
        cache = self.empty(model, len(prompts), max(lengths) - 1 + most)
        shortest = np.array([prompt[:read] for prompt in prompts], np.int32)
        start, cache = self.read_pieces(model, shortest, cache)
        steps += read - start
        last = np.array([prompt[start] for prompt in prompts], np.int32)
        writing = begin(self._placed(last), cache)
        given = np.zeros((len(prompts), -(-steps // stride) * stride), np.int32)
        for to_read, prompt in zip(given, prompts):
            rest = prompt[start + 1 :]
            to_read[: len(rest)] = rest
        ended = [False] * len(prompts)
        for first in range(0, steps, stride):
            own = given[:, first : first + stride]
            tokens, writing = self.write(model, writing, self._placed(own), key, count=stride)
            for row, line in enumerate(np.asarray(tokens)):
                # Of this row's own tokens, those that this stride has.
                before = lengths[row] - 1 - start
                place = max(first, before)
                piece = line[place - first : max(0, before + most - first)]
                found = np.flatnonzero(piece == self._end_id)
                piece = piece[: found[0] + 1] if len(found) else piece
                if len(piece) and not ended[row]:
                    yield row, place - before, piece
                ended[row] |= bool(len(found))
            if all(ended):
                return

    def read_pieces(self, model: DecoderOnly, tokens: np.ndarray, cache: Any) -> tuple[int, Any]:
        """Reads the first of these tokens, int32 [n, l], as many as make whole pieces.

        Returns:
          How many those are, and the cache with them.
        """
        start, length = 0, tokens.shape[1]
        for size in _PIECES:
            while length - start >= size:
                cache = self.read(model, self._placed(tokens[:, start : start + size]), cache)
                start += size
        return start, cache

    def _layers_apart(self, params: Any) -> DecoderOnly:
        with self._on_mesh():
            model = self._model(params)
            model.decoder.take_apart()
            return model

    def _empty(self, model: DecoderOnly, rows: int, length: int) -> Any:
        with self._on_mesh():
            return model.init_cache(rows, length)

    def _extended(self, model: DecoderOnly, tokens: jax.Array, cache: Any) -> Any:
        with self._on_mesh():
            return model.extend(tokens, cache)[1]

    def _written(
        self,
        model: DecoderOnly,
        writing: Writing,
        given: jax.Array,
        key: jax.Array | None,
        *,
        count: int,
    ) -> tuple[jax.Array, Writing]:
        with self._on_mesh():

            def step(tokens: jax.Array, cache: Any) -> tuple[jax.Array, Any]:
                logits, cache = model.extend(tokens[:, None], cache)
                return logits[:, : self._vocab_size], cache

            return write(
                step,
                writing,
                count,
                end_id=self._end_id,
                config=self._config,
                key=key,
                given=given,
            )

    def _placed(self, array: np.ndarray) -> jax.Array:
        if self._place is None:
            return jnp.asarray(array)
        return jax.device_put(array, self._place)

    def _on_mesh(self) -> contextlib.AbstractContextManager[Any]:
        return contextlib.nullcontext() if self._mesh is None else partition.on_mesh(self._mesh)
