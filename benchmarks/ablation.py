"""What the state space is worth: the same model with it, without it, and with it as it began.

Every run of the table is `python -m pretrain` with the configuration's own budget; models differ in
the layers of two mixers alone, of which "without" keeps the local one. Runs that --output holds are
not run again.

python -m benchmarks.ablation --help
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.arguments import positive
from pretrain.config import PretrainConfig
from spade_jax.config import ConfigError, require
from spade_jax.config.file import parse_overrides, read_config
from spade_jax.files import check_output
from spade_jax.programs import make_parser

WITH, WITHOUT, FROZEN = "with", "without", "frozen"
VARIANTS = {
    WITH: "with the state space",
    FROZEN: "the state space frozen as it began",
    WITHOUT: "without it",
}
# The parameters of a layer's first mixer, and not the matrices that put the two together.
_STATE_SPACE = r".*global_mixer/.*"
_TWO_MIXERS = re.compile(r"[\w-]+\+([\w-]+)(?::(?:concat|add|stack|residual))?")


def settings_of(config: PretrainConfig, variant: str, seed: int) -> list[str]:
    """What of the command line makes a run one of the table.

    Raises:
      ConfigError: a model without layers of two mixers.
    """
    stacks = {n: s.layers for n, s in config.own_model.stacks.items() if "+" in s.layers}
    require(
        bool(stacks),
        "model",
        {name: stack.layers for name, stack in config.own_model.stacks.items()},
        "must have a layer of two mixers, such as 's4+window'",
    )
    settings = [f"--config.train.seed={seed}", f"--config.data.seed={seed}", "--config.samples=0"]
    if variant == WITHOUT:
        for name, layers in stacks.items():
            alone = _TWO_MIXERS.sub(r"\1", layers)
            settings.append(f"--config.model.{name}.layers={alone}")
    if variant == FROZEN:
        rates = ((_STATE_SPACE, 0.0), *config.optimizer.learning_rates)
        settings.append(f"--config.optimizer.learning_rates={rates!r}")
    return settings


def main(argv: Sequence[str]) -> int:
    """Returns the exit status: 0, or 2 for a wrong setting."""
    assert __doc__ is not None
    epilog = "Settings are overridden by their names: --config.train.steps=200."
    parser = make_parser("benchmarks.ablation", __doc__, epilog)
    parser.add_argument("--config", required=True, metavar="FILE", help="a pre-training one")
    parser.add_argument("--seeds", type=positive, default=3, help="runs of each model; default: 3")
    parser.add_argument("--output", type=Path, default=Path("ablation.jsonl"), metavar="FILE")
    parser.add_argument(
        "--picture", type=Path, metavar="FILE", help="a .png of the validation loss over steps"
    )
    options, rest = parser.parse_known_args(argv)
    overrides = parse_overrides(rest, parser)
    try:
        config = read_config(options.config, overrides, PretrainConfig, "pretrain")
        runs = {
            (variant, seed): settings_of(config, variant, seed)
            for seed in range(options.seeds)
            for variant in VARIANTS
        }
        for file, name in ((options.output, "--output"), (options.picture, "--picture")):
            if file is not None:
                check_output(file, name)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    lines = options.output.read_text().splitlines() if options.output.is_file() else []
    found = {tuple(run["command"]): run for run in map(json.loads, lines)}
    results: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    for number, ((variant, seed), settings) in enumerate(runs.items(), start=1):
        command = (f"--config={options.config}", *settings, *rest)
        if command not in found:
            print(f"run {number} of {len(runs)}: {VARIANTS[variant]}, seed {seed}", flush=True)
            found[command] = run(command)
            with options.output.open("a") as file:
                file.write(json.dumps(found[command]) + "\n")
        results[variant].append(found[command])
    from rich.console import Console

    Console().print(table(options.config, config, results))
    if options.picture is not None:
        draw(options.config, results, options.picture)
    return 0


def run(command: Sequence[str]) -> dict[str, Any]:
    """A run from its beginning to its end: its command, evaluations by step, and parameters."""
    from spade_jax.runs.workdir import read_evaluations

    with tempfile.TemporaryDirectory() as workdir:
        program = [sys.executable, "-m", "pretrain", *command, f"--workdir={workdir}"]
        done = subprocess.run(program, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")
        evaluations = read_evaluations(Path(workdir) / "metrics.jsonl", up_to=2**31)
        total = re.search(r"total\W+([\d,]+)", done.stdout)
    assert total is not None
    return {
        "command": list(command),
        "evaluations": list(evaluations.values()),
        "parameters": int(total[1].replace(",", "")),
    }


def table(
    title: str, config: PretrainConfig, results: Mapping[str, Sequence[Mapping[str, Any]]]
) -> Any:
    """Means and standard deviations over the seeds of what the last evaluations measured."""
    from rich.table import Table

    measured = results[WITH][0]["evaluations"][-1]
    metrics = [n for n in ("loss", "accuracy", "bits_per_byte") if n in measured]
    seeds = len(results[WITH])
    found = Table(
        title=f"{title}: {config.train.steps} updates of {config.train.batch_size} x "
        f"{' + '.join(map(str, config.data.lengths))}, {seeds} seeds",
        caption="on what is held out, after the last update: mean ± standard deviation",
    )
    for heading in ("model", "parameters", *metrics):
        found.add_column(heading, justify="left" if heading == "model" else "right")
    for variant, words in VARIANTS.items():
        cells = []
        for metric in metrics:
            values = [run["evaluations"][-1][metric] for run in results[variant]]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.fmean(values):.4f} ± {spread:.4f}")
        found.add_row(words, f"{results[variant][0]['parameters']:,}", *cells)
    return found


def draw(title: str, results: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """The loss on what is held out over updates: a line for each run, a colour for each model."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from spade_jax import files

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot(xlabel="updates", ylabel="validation loss (nats)", title=title)
    for variant, colour in zip(VARIANTS, ("#4477aa", "#ccbb44", "#cc6677")):
        for i, one in enumerate(results[variant]):
            points = [(line["step"], line["loss"]) for line in one["evaluations"]]
            label = VARIANTS[variant] if i == 0 else None
            axes.plot(*zip(*points), "o-", color=colour, label=label, markersize=3, linewidth=1)
    axes.grid(alpha=0.3)
    axes.legend()
    with files.atomic_write(path) as partial:
        FigureCanvasAgg(figure).print_png(partial)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
