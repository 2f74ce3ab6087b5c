"""How well a language model predicts a text: `python -m pretrain.perplexity --help`."""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from spade_jax.config import MAX_LENGTH, RunError, from_dict, require
from spade_jax.data.config import SPLITS, SourceConfig, TextBlocksConfig, TrainingData
from spade_jax.parsing import PathOption, whole_number
from spade_jax.programs import exit_status, make_parser, quiet_imports
from spade_jax.training.config import MAX_BATCH

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from spade_jax.config import DecoderOnlyConfig
    from spade_jax.data.windows import Document
    from spade_jax.objectives.causal_lm_batch import CausalLMBatch
    from spade_jax.runs.open import Run

_DESCRIPTION = """\
Measures the perplexity of a language model by one of two protocols, in which each token of the text
counts exactly once:

  blocks   the text is cut into blocks of --length tokens that do not overlap; a token is predicted
           from those before it in its block
  sliding  windows of --length tokens overlap by --min_context, and only what is new in each counts:
           a token has at least so many others before it in its window, unless its text has fewer.
           It costs length / (length - min_context) times as much.

The text is the run's validation text, or --input.
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = make_parser("pretrain.perplexity", _DESCRIPTION)
    parser.add_argument(
        "--checkpoint", required=True, action=PathOption, metavar="DIR", help="a workdir"
    )
    parser.add_argument(
        "--protocol", choices=("blocks", "sliding"), default="blocks", help="default: blocks"
    )
    parser.add_argument(
        "--length",
        action=whole_number(2, MAX_LENGTH),
        help="tokens of a block or window; default: as trained",
    )
    parser.add_argument(
        "--min_context",
        action=whole_number(1, MAX_LENGTH),
        help="of sliding windows; default: half the length",
    )
    parser.add_argument(
        "--input", metavar="FILES", help="paths or globs, separated by commas, instead"
    )
    parser.add_argument(
        "--kind",
        choices=("text", "files", "jsonl", "tfrecord"),
        default="files",
        help="what --input is: a document in each file, on each line, … (docs/data.md)",
    )
    parser.add_argument("--split", choices=SPLITS, default="validation", help="of the run's text")
    parser.add_argument("--batch_size", action=whole_number(1, MAX_BATCH), default=8)
    options = parser.parse_args(argv)
    require(
        options.protocol == "sliding" or options.min_context is None,
        "--min_context",
        options.min_context,
        "must go with --protocol=sliding: blocks do not overlap",
    )
    return options


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, 1 for a run that cannot be read, 2 for a wrong setting."""

    def program() -> int:
        options = parse(argv)
        with quiet_imports():
            # Only here, so that --help and wrong options need no JAX and no TensorFlow.
            from spade_jax.runs.open import open_run

            run = open_run(options.checkpoint, "--checkpoint")
            print(f"{options.checkpoint}: {run.why}", file=sys.stderr)
            measure(run, options)
        return 0

    return exit_status(program, "the workdir")


def measure(run: "Run", options: argparse.Namespace) -> None:
    """Prints the perplexity of a text.

    Raises:
      ConfigError: a run of another model, a context that is no shorter than a window, or more
        tokens than the model has positions.
      DataError: the text cannot be read.
      RunError: the run tells of its data what this version does not know.
    """
    from spade_jax.config import DecoderOnlyConfig, of_kind
    from spade_jax.data import windows
    from spade_jax.loading import vocabulary_of
    from spade_jax.training import sharding
    from spade_jax.training.config import MeshConfig

    config = of_kind(run.model, DecoderOnlyConfig, "the model of --checkpoint")
    length = options.length or run.input_length
    context = 0
    if options.protocol == "sliding":
        context = length // 2 if options.min_context is None else options.min_context
        require(context < length, "--min_context", context, f"must be below the length, {length}")
    config.require_lengths(length)
    mesh = sharding.make_mesh(MeshConfig())
    sharding.require_even_rows(options.batch_size, mesh)
    data = _data(run)
    vocabulary = vocabulary_of(run)
    sources, split = data.sources, options.split
    if options.input is not None:
        sources, split = (SourceConfig(options.kind, train=options.input),), "train"
    documents = windows.read(sources, split, vocabulary)
    texts = [document.tokens for document in documents]
    if data.across_documents:
        texts = [[token for text in texts for token in text]]
    rows = [windows.windows(text, length, context, vocabulary.eos_id) for text in texts]
    nats, tokens = _measured(run, config, rows, length, options.batch_size, mesh)
    joined = "across documents" if data.across_documents else "within documents"
    protocol = f"non-overlapping blocks of {length} tokens"
    if context:
        protocol = f"sliding windows of {length} tokens, each with at least {context} before it"
    print(f"protocol         {protocol}, {joined}")
    _tell(nats, tokens, documents)


def _measured(
    run: "Run",
    config: "DecoderOnlyConfig",
    rows: "Sequence[CausalLMBatch]",
    length: int,
    batch_size: int,
    mesh: "Mesh",
) -> tuple[float, int]:
    """Nats and tokens, over all windows."""
    import jax
    from flax import nnx

    from spade_jax.data import windows
    from spade_jax.loading import model_of
    from spade_jax.objectives.causal_lm import CausalLM
    from spade_jax.telemetry.screen import make_console, progress
    from spade_jax.training import sharding
    from spade_jax.training.step import measuring

    objective = CausalLM()
    objective.check(config, (length,), mesh)
    graph, params = nnx.split(model_of(run, mesh))
    sums = jax.jit(measuring(graph, objective, mesh))
    found = []
    total = -(-sum(len(part.targets) for part in rows) // batch_size)
    with progress(make_console(), "measuring", total) as advance:
        for batch in windows.batches(rows, batch_size):
            found.append(jax.device_get(sums(params, sharding.place(batch, mesh))))
            advance(1)
    return math.fsum(float(part.loss) for part in found), sum(int(part.tokens) for part in found)


def _tell(nats: float, tokens: int, documents: "Sequence[Document]") -> None:
    words, size = sum(d.words for d in documents), sum(d.bytes for d in documents)
    print(f"per token        {_power(nats / tokens)}  ({tokens:,} tokens, each document's end too)")
    print(f"per word         {_power(nats / max(words, 1))}  ({words:,} words between white space)")
    print(f"bits per byte    {nats / math.log(2) / size:.4f}  ({size:,} bytes)")
    if unknown := sum(document.unknown for document in documents):
        print(
            f"{unknown:,} tokens stand for what the vocabulary lacks: per word and per byte the "
            "figures are too low"
        )


def _power(nats: float) -> str:
    """A perplexity, which may be beyond what numbers hold."""
    return f"{math.exp(nats):.3f}" if nats < 700 else f"e^{nats:.1f}"


def _data(run: "Run") -> TextBlocksConfig:
    """The run's own data.

    Raises:
      RunError: it is of another version.
    """
    data = from_dict(TrainingData, run.settings["data"], f"{run.workdir}: data")
    if not isinstance(data, TextBlocksConfig):
        raise RunError(
            f"{run.workdir}: was trained on data of kind {data.kind!r}; must be 'text_blocks'"
        )
    return data


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
