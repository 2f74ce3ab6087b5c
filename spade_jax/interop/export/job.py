"""What an export is of, and what its copy must compute: samples, and their comparison."""

import argparse
import dataclasses
import functools
import gzip
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from spade_jax.config import (
    MAX_LENGTH,
    DecoderOnlyConfig,
    EncoderDecoderConfig,
    ModelConfig,
    RunError,
    of_kind,
)
from spade_jax.data.input_files import SHIPPED_TEXT
from spade_jax.data.vocabulary import Vocabulary
from spade_jax.decoding.config import DecodingConfig
from spade_jax.decoding.continuation import Continuation
from spade_jax.decoding.generate import generate
from spade_jax.interop.names import by_group
from spade_jax.interop.source import Source
from spade_jax.interop.tensor_files import write_tensors
from spade_jax.loading import filled
from spade_jax.models.build import builder
from spade_jax.runs.open import Run

# Of the lines that are compared.
_LINES, _TOKENS, _TARGETS = 4, 96, 16
# How far logits may lie apart, over the largest: by rounding alone, in other orders of summing up.
TOLERANCE = {"float32": 3e-4, "bfloat16": 0.06}


@dataclasses.dataclass(frozen=True, eq=False)
class Job:
    """What is exported, and how.

    Attributes:
      run: whose best model it is.
      source: its parameters, in the dtype that they are exported in.
      options: of the command line.
    """

    run: Run
    vocabulary: Vocabulary
    source: Source
    options: argparse.Namespace

    @property
    def model(self) -> ModelConfig:
        return self.run.model

    @property
    def config(self) -> EncoderDecoderConfig:
        """Of formats that hold an encoder-decoder.

        Raises:
          ConfigError: the model is another one.
        """
        return of_kind(self.run.model, EncoderDecoderConfig, f"the model of {self.run.workdir}")

    def write_parameters(self, folder: Path, **metadata: str) -> None:
        """By layer, as `write_tensors` writes them."""
        write_tensors(
            folder,
            self.source.shapes,
            self.source.__getitem__,
            max_shard_bytes=self.options.shard_megabytes * 10**6,
            metadata=metadata,
        )


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Lines of real text, and what the model makes of them.

    Attributes:
      asked: what the model, and a copy of it, is asked: "tokens" int32 [b, l], 0 is padding;
        "decoder_tokens" int32 [b, t], the lines again, shifted right, and of a language model the
        tokens; "max_length" of outputs; and the vocabulary's "end_id" and "vocab_size".
      logits: float32 [b, t, size of the vocabulary].
      outputs: int32 [b, max_length], greedily written.
    """

    lines: list[str]
    asked: Mapping[str, Any]
    logits: np.ndarray
    outputs: np.ndarray

    def save(self, path: Path) -> None:
        """What is asked, and the lines as bytes, as an .npz file."""
        np.savez(path, lines=[line.encode() for line in self.lines], **self.asked)


def samples(job: Job) -> Samples:
    """Computed by the model itself, with the parameters as they are exported."""
    if isinstance(job.model, DecoderOnlyConfig):
        return _prompts(job, job.model)
    vocabulary, config = job.vocabulary, job.config
    length = min(job.run.input_length, config.encoder.max_positions or _TOKENS, _TOKENS)
    positions = config.decoder.max_positions or MAX_LENGTH
    lines = _real_lines(_LINES)
    # Of unequal lengths, so that padding is there.
    lengths = [max(2, length * (i + 2) // (_LINES + 1)) for i in range(_LINES)]
    texts = [_beginning(line, most, vocabulary) for line, most in zip(lines, lengths)]
    tokens = filled([vocabulary.ended(vocabulary.tokens(text), length) for text in texts])
    most = min(_TARGETS, positions) - 1
    targets = [vocabulary.tokens(line)[:most] for line in reversed(lines)]
    decoder_tokens = filled([[0, *row] for row in targets])
    return _answered(job, texts, tokens, decoder_tokens, positions)


def _answered(
    job: Job, texts: list[str], tokens: np.ndarray, decoder_tokens: np.ndarray, most: int
) -> Samples:
    """What the model makes of these; most: tokens of an output, whatever the command says."""
    asked = {
        "tokens": tokens,
        "decoder_tokens": decoder_tokens,
        "max_length": min(job.options.max_length, most),
        "end_id": job.vocabulary.eos_id,
        "vocab_size": job.vocabulary.size,
    }
    found = compute(job.model, job.source, asked)
    return Samples(texts, asked, found["logits"], found["outputs"])


def _prompts(job: Job, config: DecoderOnlyConfig) -> Samples:
    """`samples` of a language model: lines that it continues."""
    vocabulary, lines = job.vocabulary, _real_lines(_LINES)
    positions = config.decoder.max_positions or MAX_LENGTH
    length = min(job.run.input_length, positions - _TARGETS, _TOKENS)
    texts = [_beginning(line, length - 8 * i, vocabulary) for i, line in enumerate(lines)]
    tokens = filled([[vocabulary.eos_id, *vocabulary.encode(text)] for text in texts])
    return _answered(job, texts, tokens, tokens, _TARGETS)


def _beginning(line: str, most: int, vocabulary: Vocabulary) -> str:
    """As many words of a line as make fewer than `most` tokens: what is cut elsewhere might be
    other tokens by itself."""
    words = line.split()
    count = 1
    while len(vocabulary.tokens(" ".join(words[: count + 1]))) < most and count < len(words):
        count += 1
    return " ".join(words[:count])


def compute(
    config: ModelConfig, weights: Mapping[str, np.ndarray], asked: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """The "logits" and "outputs", as of `Samples`, by a model with these parameters by layer."""
    graph, _ = nnx.split(nnx.eval_shape(lambda: builder(config)(nnx.Rngs(0))))
    params = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), by_group(weights, config))
    vocab_size = int(asked["vocab_size"])
    how = DecodingConfig(max_length=int(asked["max_length"]))
    end_id = int(asked["end_id"])
    if isinstance(config, DecoderOnlyConfig):
        tokens = np.asarray(asked["tokens"])
        model = functools.partial(nnx.merge, graph)
        logits = jax.jit(lambda params, tokens: model(params)(tokens))(params, tokens)
        write = Continuation(model, how, end_id=end_id, vocab_size=vocab_size)
        outputs = write(params, [row[row != 0].tolist() for row in tokens])
        return {"logits": np.asarray(logits[..., :vocab_size]), "outputs": outputs}

    @jax.jit
    def run(params: Any, tokens: jax.Array, decoder_tokens: jax.Array) -> dict[str, jax.Array]:
        model: Any = nnx.merge(graph, params)
        segments = (tokens != 0).astype(jnp.int32)
        logits = model(tokens, decoder_tokens, encoder_segment_ids=segments)
        outputs, _ = generate(model, tokens, how, end_id=end_id, vocab_size=vocab_size)
        return {"logits": logits[..., :vocab_size], "outputs": outputs}

    return jax.tree.map(np.asarray, run(params, asked["tokens"], asked["decoder_tokens"]))


def compare(job: Job, samples: Samples, logits: np.ndarray, outputs: np.ndarray) -> str:
    """What to say of a copy that computes as the model does.

    Args:
      logits: of the samples' decoder tokens, or as many of the first of them as there are.

    Raises:
      RunError: it does not.
    """
    number = logits.shape[1]
    # The start counts, padding does not.
    counts = np.c_[np.ones(len(logits), bool), samples.asked["decoder_tokens"][:, 1:number] != 0]
    difference = np.abs(logits - samples.logits[:, :number])[counts].max()
    largest = np.abs(samples.logits).max()
    allowed = TOLERANCE[job.model.dtype] * max(1.0, float(largest))
    if not difference <= allowed:
        raise RunError(
            f"{job.options.output}: its logits are up to {difference:.2g} from the run's, of at "
            f"most {largest:.2g}; must be {allowed:.2g} at most, so nothing was exported"
        )
    return (
        f"logits differ by at most {difference:.1e}, of at most {largest:.3g}; "
        + compare_outputs(job, (outputs == samples.outputs).all(axis=1))
    )


def compare_outputs(job: Job, equal: np.ndarray) -> str:
    """What to say of outputs of which so many, bool [b], are the run's.

    Raises:
      RunError: too few.
    """
    if not equal.all() and job.model.dtype == "float32":
        raise RunError(
            f"{job.options.output}: {np.sum(~equal)} of {len(equal)} lines come out otherwise than "
            "the run writes them, so nothing was exported"
        )
    return f"{np.sum(equal)} of {len(equal)} outputs are equal"


def in_a_fresh_process(
    script: str, arguments: Sequence[str], *, of_ours: bool
) -> Mapping[str, np.ndarray]:
    """The arrays that a script gives, run by a Python that has imported nothing.

    Args:
      script: Python that ends with a dict `results` of arrays; `arguments` are in sys.argv[1:].
      of_ours: it imports this library.

    Raises:
      RunError: it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results.npz"
        ending = "" if of_ours else _NOTHING_OF_OURS
        text = f"{script}\nimport sys, numpy\n{ending}numpy.savez(sys.argv[-1], **results)\n"
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "HF_HUB_OFFLINE": "1"}
        done = subprocess.run(
            [sys.executable, "-c", text, *arguments, str(path)],
            capture_output=True,
            text=True,
            env=environment,
        )
        if done.returncode:
            words = done.stderr.strip().splitlines() or ["no reason given"]
            raise RunError(f"{arguments[0]}: what was written cannot be run ({words[-1]})")
        with np.load(path) as arrays:
            return dict(arrays)


def recomputed_by(module: str, folder: Path, given: Path) -> Mapping[str, np.ndarray]:
    """What `module.recomputed(folder, given)` of this library gives in a process of its own."""
    script = f"import sys\nfrom {module} import recomputed\nresults = recomputed(*sys.argv[1:3])"
    return in_a_fresh_process(script, [str(folder), str(given)], of_ours=True)


_NOTHING_OF_OURS = """\
loaded = {name.partition('.')[0] for name in sys.modules} & {'spade_jax', 'flax'}
assert not loaded, f'needs {loaded}'
"""


@functools.cache
def _text() -> list[str]:
    with gzip.open(SHIPPED_TEXT / "sotu.validation.jsonl.gz", "rt", encoding="utf-8") as file:
        return [line for row in file for line in json.loads(row)["text"].splitlines() if line]


def _real_lines(count: int) -> list[str]:
    """Of the text that ships, spread over it."""
    text = [line for line in _text() if len(line) > 200]
    return [text[i * len(text) // count] for i in range(count)]
