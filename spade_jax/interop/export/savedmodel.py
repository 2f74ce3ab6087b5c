"""The format "savedmodel": TensorFlow's, strings in and strings out, for TensorFlow Serving.

The signature `serving_default` takes `inputs`, a batch of texts, and gives `outputs`, what greedy
decoding writes; `beam` likewise by beam search. Texts become tokens as in `Vocabulary.tokens`, but
that TensorFlow strips white space of ASCII alone. Inputs beyond the longest length are cut off.

With a SentencePiece vocabulary the graph holds its model and an operation of tensorflow_text, which
a program must import, and TensorFlow Serving be built with.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow as tf
from jax.experimental import jax2tf

from spade_jax.data.vocabulary import Vocabulary
from spade_jax.interop.export.job import Job, Samples, compare_outputs, in_a_fresh_process
from spade_jax.interop.export.stablehlo import check as check
from spade_jax.interop.export.stablehlo import lengths, programs_of

# No UTF-8 has this byte.
_BORDER = b"\xff"
_SENTINEL = rb"<extra_id_(0|[1-9][0-9]{0,8})>"


class Texts:
    """A vocabulary as TensorFlow operations."""

    def __init__(self, vocabulary: Vocabulary):
        self._vocabulary = vocabulary
        first = vocabulary.size - vocabulary.extra_ids
        pieces = [vocabulary.piece(token) for token in range(first)]
        sentinels = [
            b"<extra_id_%d>" % (vocabulary.size - 1 - i)
            for i in range(first, first + vocabulary.extra_ids)
        ]
        self._pieces = pieces + sentinels

    def tokens(self, text: Any, length: int) -> Any:
        """A text -> int32 [at most length], the end included."""
        marked = tf.strings.regex_replace(
            tf.strings.strip(text), _SENTINEL, _BORDER + rb"\1" + _BORDER
        )
        # Numbers of sentinels are at odd places.
        parts = tf.strings.split(marked, _BORDER)
        places = tf.range(tf.size(parts))
        ids = tf.map_fn(
            self._part,
            (parts, places % 2 == 1),
            fn_output_signature=tf.RaggedTensorSpec([None], tf.int32, 0),
        )
        end = tf.constant([self._vocabulary.eos_id], tf.int32)
        return tf.concat([ids.flat_values[: length - 1], end], axis=0)

    def text(self, ids: Any) -> Any:
        """Ids [b, t] -> texts [b], up to the first end."""
        ended = tf.math.cumsum(tf.cast(ids == self._vocabulary.eos_id, tf.int32), axis=1) > 0
        pieces = tf.gather(tf.constant(self._pieces), ids)
        text = tf.strings.reduce_join(tf.where(ended, b"", pieces), axis=1)
        return tf.strings.strip(tf.strings.unicode_transcode(text, "UTF-8", "UTF-8"))

    def _part(self, one: tuple[Any, Any]) -> Any:
        part, is_sentinel = one
        return tf.cond(is_sentinel, lambda: self._sentinel(part), lambda: self._plain(part))

    def _plain(self, part: Any) -> Any:
        ids = tf.cast(self._vocabulary.seqio.encode_tf(part), tf.int32)
        return tf.RaggedTensor.from_row_lengths(ids, [tf.size(ids)])[0]

    def _sentinel(self, part: Any) -> Any:
        number = tf.strings.to_number(part, tf.int32)
        there = tf.debugging.assert_less(
            number,
            self._vocabulary.extra_ids,
            f"<extra_id_…>: the vocabulary has {self._vocabulary.extra_ids} sentinels",
        )
        with tf.control_dependencies([] if there is None else [there]):
            return tf.reshape(self._vocabulary.size - 1 - number, [1])


class _Module(tf.Module):
    """Variables, and the functions of them."""

    def __init__(self, job: Job):
        super().__init__()
        self._names = list(job.source.shapes)
        # As a plain tuple: TensorFlow would wrap a dict or a list, and JAX not know its structure.
        self._variables = tuple(
            tf.Variable(job.source[name], trainable=False, name=name) for name in self._names
        )
        self._texts, self._lengths = Texts(job.vocabulary), lengths(job)
        self._calls = {
            name: [
                jax2tf.convert(
                    programs_of(job, length, _top_k).export(name, job.options.platforms).call,
                    polymorphic_shapes=[None, "(b, _)"],
                    with_gradient=False,
                    native_serialization_platforms=job.options.platforms,
                )
                for length in self._lengths
            ]
            for name in ("greedy", "beam")
        }

    def function(self, name: str) -> Any:
        """Texts [b] -> {"outputs": texts [b]}."""

        def run(inputs: Any) -> dict[str, Any]:
            longest = self._lengths[-1]
            rows = tf.map_fn(
                lambda text: self._texts.tokens(text, longest),
                inputs,
                fn_output_signature=tf.RaggedTensorSpec([None], tf.int32, 0),
            )
            params = dict(zip(self._names, self._variables))

            def branch(call: Any, length: int) -> Callable[[], Any]:
                return lambda: call(
                    params, tf.ensure_shape(rows.to_tensor(shape=[None, length]), [None, length])
                )

            # The shortest length that the batch fits.
            index = tf.searchsorted(
                tf.constant(self._lengths, tf.int64),
                [rows.bounding_shape(axis=1, out_type=tf.int64)],
            )[0]
            calls = self._calls[name]
            ids = tf.switch_case(
                index, [branch(call, length) for call, length in zip(calls, self._lengths)]
            )
            return {"outputs": self._texts.text(ids)}

        # AutoGraph would rewrite JAX's own source.
        return tf.function(
            run, autograph=False, input_signature=[tf.TensorSpec([None], tf.string, "inputs")]
        )


def _top_k(x: jax.Array, k: int) -> tuple[jax.Array, jax.Array]:
    """By sorting: TensorFlow does not know the operation that JAX's own becomes."""
    places = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    values, places = jax.lax.sort((-x, places), num_keys=1)
    return -values[..., :k], places[..., :k]


def write(folder: Path, job: Job, say: Callable[[str], None]) -> None:
    """See the module."""
    module = _Module(job)
    greedy, beam = module.function("greedy"), module.function("beam")
    signatures = {"serving_default": greedy, "beam": beam}
    level = logging.getLogger("absl").level
    tf.saved_model.save(module, str(folder), signatures)
    logging.getLogger("absl").setLevel(level)  # It sets its own.
    say(f"programs for inputs of {', '.join(map(str, lengths(job)))} tokens")


_SCRIPT = """\
import sys
import numpy
import tensorflow as tf
try:
    import tensorflow_text
except ImportError:
    pass
model = tf.saved_model.load(sys.argv[1])
lines = numpy.load(sys.argv[2])['lines']
inputs = tf.constant([bytes(line) for line in lines])
outputs = model.signatures['serving_default'](inputs=inputs)['outputs']
beams = model.signatures['beam'](inputs=inputs)['outputs']
assert beams.shape == outputs.shape
results = {'outputs': numpy.array(list(outputs.numpy()), 'S')}
"""


def verify(job: Job, samples: Samples, folder: Path, given: Path) -> str:
    """What to say of the texts that TensorFlow alone gives; see `compare_outputs`."""
    results = in_a_fresh_process(_SCRIPT, [str(folder), str(given)], of_ours=False)
    expected = [job.vocabulary.text(row).encode() for row in samples.outputs]
    return compare_outputs(job, np.array([a == b for a, b in zip(results["outputs"], expected)]))
