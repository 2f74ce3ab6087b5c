import io

import jax
import jax.numpy as jnp
import pytest
from rich.console import Console

from spade_jax.telemetry import screen

PARAMS = {
    "embedding": jax.ShapeDtypeStruct((384, 8), jnp.float32),
    "encoder": {
        "layers_0": {
            "norm": {"scale": jax.ShapeDtypeStruct((8,), jnp.float32)},
            "ssm": {"b": jax.ShapeDtypeStruct((8, 2), jnp.float32)},
        },
        "layers_1": {"norm": {"scale": jax.ShapeDtypeStruct((8,), jnp.float32)}},
    },
}


def test_overview_counts_by_module():
    trainable = frozenset({"embedding", "encoder/layers_0/norm/scale"})
    table = screen.parameter_overview(PARAMS, trainable)
    rows = list(zip(*(list(column.cells) for column in table.columns)))
    assert rows == [
        ("embedding", "3,072", "12.00 KiB", "yes"),
        ("encoder/layers_0", "24", "96 B", "in part"),
        ("encoder/layers_1", "8", "32 B", "frozen"),
        ("total", "3,104", "12.12 KiB", ""),
    ]


@pytest.fixture
def clock(monkeypatch):
    """A clock that is moved by hand."""
    time = [100.0]
    monkeypatch.setattr(screen.time, "monotonic", lambda: time[0])
    return time


def updates(console, clock):
    """Steps of 2 s each after one that compiles, with a pause of a minute; returns the rates."""
    line = screen.ProgressLine(console, 10, 5000)
    rates = []
    for step in range(11, 16):
        clock[0] += 30 if step == 11 else 2
        rates.append(line.update(step, 600, {"loss": 2.5}))
        if step == 13:
            line.pause()
            clock[0] += 60
    line.close()
    return rates


def test_time_of_compilation_and_pauses_does_not_count(clock):
    rates = updates(Console(file=io.StringIO()), clock)
    assert rates == [None, *[screen.Rate(tokens=300.0, steps=0.5)] * 4]


def test_plain_lines_come_every_few_seconds(clock):
    file = io.StringIO()
    updates(Console(file=file, soft_wrap=True, highlight=False), clock)
    assert file.getvalue().splitlines() == [
        "step 10/5000  compiling",
        "step 11/5000  loss 2.500",
        "step 14/5000  loss 2.500  300 tokens/s  2:46:12 left",
    ]


def test_a_terminal_has_one_line_that_is_renewed(clock):
    file = io.StringIO()
    updates(Console(file=file, force_terminal=True, width=100), clock)
    shown = file.getvalue()
    assert "step 15/5000  loss 2.500  300 tokens/s  2:46:10 left" in shown
    assert "\x1b[2K" in shown  # Erases the line before it is written anew.
