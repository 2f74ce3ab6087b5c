import types

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import timing
from benchmarks.timing import Measurement


def test_ratio_is_taken_within_rounds():
    """The machine was half as fast in the second round, for both of them."""
    one, other = Measurement((1.0, 2.0, 1.0), 0), Measurement((3.0, 6.0, 3.3), 0)
    assert other.slowdown(one) == pytest.approx(3.0)
    assert one.median == 1.0


def test_programs_take_turns(monkeypatch):
    """Under a clock whose readings, 0, 1, 4, 9 and so on, tell the order of the runs."""
    ticks = iter(range(100))
    monkeypatch.setattr(timing.time, "perf_counter", lambda: float(next(ticks) ** 2))
    array = np.ones((4, 4), np.float32)
    measured = timing.measure({"a": lambda x: x + 1, "b": lambda x: x @ x}, (array,), repeats=2)
    assert measured["a"].seconds == (1**2 - 0**2, 5**2 - 4**2)
    assert measured["b"].seconds == (3**2 - 2**2, 7**2 - 6**2)


def test_the_second_run_of_a_turn_counts(monkeypatch):
    runs = []
    program = types.SimpleNamespace(compile=lambda: lambda x: runs.append("run"))
    monkeypatch.setattr(timing.jax, "jit", lambda f: types.SimpleNamespace(lower=lambda x: program))
    monkeypatch.setattr(timing, "temporary_bytes", lambda program: 0)
    monkeypatch.setattr(timing.time, "perf_counter", lambda: runs.append("clock") or 0.0)
    timing.measure({"it": None}, (np.ones(1),), repeats=2)
    assert runs == ["run", "clock", "run", "clock"] * 2


def test_memory_is_that_of_the_intermediate_arrays():
    """Of a product of two products, the two have to be kept."""
    array = np.ones((256, 256), np.float32)
    measured = timing.measure({"it": lambda x: (x @ x) @ (x @ x.T)}, (array,), repeats=1)["it"]
    assert measured.temporary_bytes == 2 * array.nbytes
    assert timing.mebibytes(measured) == "0.5"
    assert timing.milliseconds(Measurement((0.5, 1.5), 0)) == "1,000"


def test_what_does_not_fit_is_not_run(monkeypatch):
    monkeypatch.setattr(timing, "device_memory", lambda: 1000)
    array = jnp.ones((256, 256))
    programs = {"big": lambda x: jnp.sin(x @ x) @ x, "small": lambda x: x.sum()}
    measured = timing.measure(programs, (array,), repeats=1)
    assert measured["big"].seconds == ()
    assert measured["big"].slowdown(measured["small"]) is None
    assert timing.milliseconds(measured["big"]) == "too large"
    assert len(measured["small"].seconds) == 1
