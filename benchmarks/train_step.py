"""One update of a pre-training configuration: tokens/s, memory, FLOP/s against a matmul's, MFU.

python -m benchmarks.train_step --help
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.arguments import positive
from pretrain.config import PretrainConfig
from spade_jax.config import ConfigError, TokenModelConfig, of_kind
from spade_jax.config.file import parse_overrides, read_config
from spade_jax.data.config import DataConfig, TrainingData
from spade_jax.programs import take_large_pages


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, PretrainConfig]:
    """The options, and the configuration with what `--config.NAME=VALUE` overrides."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step",
        description=__doc__.partition("\n")[0],
        epilog="Settings are overridden as in pretrain: --config.model.dtype=bfloat16, "
        "--config.train.batch_size=8.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", default="configs/pretrain/quickstart.py", metavar="FILE")
    parser.add_argument(
        "--lengths", type=positive, nargs="+", help="of the input; default: the configuration's"
    )
    parser.add_argument(
        "--target-length", type=positive, help="default: what the denoisers make of the input"
    )
    parser.add_argument(
        "--tokens",
        type=positive,
        help="of a batch's inputs, whatever their length; default: train.batch_size sequences",
    )
    parser.add_argument("--repeats", type=positive, default=5, help="updates to take medians of")
    options, rest = parser.parse_known_args(argv)
    overrides = parse_overrides(rest, parser)
    try:
        return options, read_config(options.config, overrides, PretrainConfig, "pretrain")
    except ConfigError as error:
        parser.error(str(error))


def main(argv: Sequence[str]) -> int:
    """Prints a table with a row for each input length; returns the exit status."""
    options, config = parse(argv)
    # Only here, so that --help needs no JAX.
    import jax.numpy as jnp
    from rich.console import Console
    from rich.table import Table

    from benchmarks import timing
    from pretrain.learning import with_vocabulary
    from pretrain.objectives import objective_of
    from spade_jax.models.build import builder
    from spade_jax.training.sharding import check_batch, make_mesh
    from spade_jax.training.step import make_trainer

    config = with_vocabulary(config)
    model, train = of_kind(config.own_model, TokenModelConfig), config.train
    inputs = options.lengths or [config.data.lengths[0]]
    batch_sizes = {
        length: options.tokens // length if options.tokens else train.batch_size
        for length in inputs
    }
    try:
        mesh = make_mesh(config.mesh)
        for rows in batch_sizes.values():
            check_batch(dataclasses.replace(train, batch_size=rows), mesh)
    except ConfigError as error:
        print(f"not run: {error}", file=sys.stderr)
        return 2

    # Large enough to keep an accelerator busy.
    side = 2048 if mesh.devices.flat[0].platform == "cpu" else 8192
    matrix = jnp.ones((side, side), model.dtype)
    matmul = timing.measure({"matmul": lambda a: a @ a}, (matrix,), options.repeats)["matmul"]
    assert matmul.median is not None
    peak = 2 * side**3 / matmul.median

    table = Table(
        title=f"{options.config}, {model.dtype}, on {mesh.size} x "
        f"{mesh.devices.flat[0].device_kind}; "
        f"a matmul of {side} x {side} reaches {peak / 1e9:,.0f} GFLOP/s",
        caption=timing.machine(),
    )
    headings = ("batch", "ms", "tokens/s", "peak MiB", "GFLOP/s", "/ matmul", "MFU")
    for heading in headings:
        table.add_column(heading, justify="right")
    trainer = make_trainer(builder(model), objective_of(config), config.optimizer, train, mesh)
    for length, rows in batch_sizes.items():
        lengths = lengths_of(config.data, length, options.target_length)
        table.add_row(*measured(trainer, model, rows, lengths, peak, options.repeats))
    Console().print(table)
    return 0


def measured(
    trainer: Any,
    model: TokenModelConfig,
    rows: int,
    lengths: tuple[int, ...],
    peak: float,
    repeats: int,
) -> list[str]:
    """The cells of a row of the table: an update of batches of so many rows.

    Args:
      lengths: of the sequences of a row.
      peak: FLOP/s that a matmul reaches.
    """
    import numpy as np

    from spade_jax.telemetry.goodput import utilisation
    from spade_jax.training.sharding import place

    objective, devices = trainer.objective, trainer.mesh.devices
    rng = np.random.default_rng(0)
    # Tokens of no special meaning, and above 0 whatever else is told of them.
    batch = {
        name: rng.integers(3, model.vocab_size, array.shape, dtype=array.dtype)
        for name, array in objective.batch.types(rows, lengths).items()
    }
    placed = place(batch, trainer.mesh)
    step = trainer.train_step.lower(trainer.state_shapes, placed).compile()
    seconds = np.median(update_times(step, trainer.init(), placed, repeats))
    flops = objective.flops(model, rows, lengths)
    mfu = utilisation(flops / seconds, devices.size, devices.flat[0].device_kind)
    memory = step.memory_analysis()
    used = memory.temp_size_in_bytes + memory.argument_size_in_bytes
    return [
        f"{rows:,} x ({' + '.join(f'{length:,}' for length in lengths)})",
        f"{1e3 * seconds:,.1f}",
        f"{objective.batch.of(batch).num_tokens / seconds:,.0f}",
        f"{used / 2**20:,.0f}",
        f"{flops / seconds / 1e9:,.1f}",
        f"{flops / seconds / peak / devices.size:.0%}",
        "unknown" if mfu is None else f"{mfu:.1%}",
    ]


def lengths_of(data: TrainingData, length: int, target_length: int | None) -> tuple[int, ...]:
    """Of the sequences of a row, where inputs are so long; None: as many targets as are made of
    such an input."""
    if isinstance(data, DataConfig):
        if target_length is not None:
            return length, target_length
        data = dataclasses.replace(data, target_length=None, extra_ids=length)
    return dataclasses.replace(data, input_length=length).lengths  # type: ignore[call-arg]


def update_times(step: Callable[..., Any], state: Any, batch: Any, repeats: int) -> list[float]:
    """Seconds of each update, one after the other; the first is not counted."""
    import jax

    seconds = []
    for _ in range(1 + repeats):
        start = time.perf_counter()
        state, _ = jax.block_until_ready(step(state, batch))
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


if __name__ == "__main__":
    take_large_pages()
    sys.exit(main(sys.argv[1:]))
