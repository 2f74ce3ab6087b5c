import re

import numpy as np
import pytest

from benchmarks import adaptive_softmax
from spade_jax.config import ConfigError

SIZES = ["--vocabulary=60", "--cutoffs", "10", "30", "--width=32", "--repeats=1", "--tokens", "12"]


def test_table_has_a_row_for_each_program_and_pass(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    adaptive_softmax.main(SIZES)
    printed = capsys.readouterr().out
    programs = ("adaptive", "all bands", "one matrix")
    assert re.findall(r"│ +12 +│ (\w+) +│ ([a-z ]+?) +│", printed) == [
        (direction, name) for direction in ("forward", "backward") for name in programs
    ]
    assert len(re.findall(r"[\d.]+x", printed)) == 12
    assert "cores" in printed


def test_by_bands_and_by_all_of_them_are_one_function():
    (_, programs, arguments), _ = adaptive_softmax.cases(adaptive_softmax.parse(SIZES), 12)
    found, expected = (float(programs[name](*arguments)) for name in ("adaptive", "all bands"))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_bands_that_cannot_be_are_rejected():
    with pytest.raises(ConfigError, match=r"cutoffs = \(10, 80\): must be below model.vocab_size"):
        adaptive_softmax.cases(
            adaptive_softmax.parse(["--vocabulary=60", "--cutoffs", "10", "80"]), 12
        )
