"""How long a whole configuration takes on devices that need not be here, and how many of them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pretrain.config import PretrainConfig
from pretrain.objectives import objective_of
from spade_jax.aot.topology import Topology
from spade_jax.config import require
from spade_jax.telemetry.goodput import PEAK_FLOPS
from spade_jax.training.initial import resolve_model

# Of a topology's kind, how JAX names its devices; of GPUs the one that is assumed.
_DEVICES = {
    "v4": "TPU v4",
    "v5e": "TPU v5e",
    "v5p": "TPU v5p",
    "v6e": "TPU v6e",
    "gpu": "NVIDIA H100 80GB HBM3",
}


class Duration(NamedTuple):
    """Of a whole run on one topology.

    Attributes:
      step: seconds of an update.
      days: of all of them.
      device_hours: of all devices.
    """

    topology: Topology
    step: float
    days: float
    device_hours: float


def durations(
    config: PretrainConfig, topologies: Sequence[Topology], share: float
) -> list[Duration]:
    """Of each topology, where an update reaches this share of the devices' peak.

    Raises:
      ConfigError: devices whose peak is not known.
    """
    flops = step_flops(config)
    found = []
    for topology in topologies:
        require(
            topology.kind in _DEVICES,
            "--topology",
            str(topology),
            f"must be of {', '.join(_DEVICES)} with --days, whose peaks are known",
        )
        step = flops / (share * topology.size * PEAK_FLOPS[_DEVICES[topology.kind]])
        seconds = step * config.train.steps
        found.append(Duration(topology, step, seconds / 86400, topology.size * seconds / 3600))
    return found


def step_flops(config: PretrainConfig) -> float:
    """Floating-point operations of an update, as the objective counts them."""
    model = resolve_model(config.own_model, None, config.dropout_rate, config.dtype)
    rows, lengths = config.train.batch_size, config.data.lengths
    return objective_of(config).flops(model, rows, lengths)


def show(title: str, config: PretrainConfig, found: Sequence[Duration], share: float) -> Any:
    """A table, topologies side by side."""
    from rich.table import Table

    rows, lengths, updates = config.train.batch_size, config.data.lengths, config.train.steps
    tokens = rows * sum(lengths)
    flops = step_flops(config)
    table = Table(
        title=f"{title}: {updates:,} updates of {rows} x ({' + '.join(map(str, lengths))}) tokens, "
        f"{_large(updates * tokens)} tokens and {_large(updates * flops)} FLOP in all",
        title_justify="left",
        caption=f"assumes {share:.0%} of the devices' peak (--share; docs/performance.md says how "
        "to estimate it, or measure it: MFU in metrics.jsonl), of GPUs an H100's; evaluation and "
        "saving are not counted",
        caption_justify="left",
    )
    for heading in ("devices", "seconds a step", "tokens/s", "days", "device hours"):
        table.add_column(heading, justify="left" if heading == "devices" else "right")
    for one in found:
        table.add_row(
            f"{one.topology} ({one.topology.size})",
            f"{one.step:.3g}",
            f"{tokens / one.step:,.0f}",
            f"{one.days:.3g}",
            f"{one.device_hours:,.0f}",
        )
    return table


def _large(number: float) -> str:
    """A number as people say large ones."""
    for power, name in ((18, " x 10^18"), (15, " x 10^15"), (12, " trillion"), (9, " billion")):
        if number >= 10**power:
            value = number / 10**power
            return f"{value:,.0f}{name}" if value >= 100 else f"{value:.3g}{name}"
    return f"{number:,.0f}"
