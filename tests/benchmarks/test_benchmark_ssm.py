import re

import jax
import numpy as np
import pytest

from benchmarks import ssm


@pytest.mark.slow
def test_table_has_a_row_for_each_length_pass_and_convolution(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    sizes = ["--width=4", "--state-size=8", "--chunk-length=8", "--repeats=1"]
    ssm.main(["--lengths", "8", "16", "--reference-up-to=8", *sizes])
    printed = capsys.readouterr().out
    # Length, pass, convolution, milliseconds, ratio, MiB, ratio: of chunked to itself, both are 1.
    row = r"│ (\d+) +│ (\S+(?: \w+)?) +│ (\w+(?:, S4)?) +│ +([\d.]+) │ +(\S+)x"
    rows = re.findall(row, printed)
    assert [row[:3] for row in rows] == [
        (length, direction, name)
        for length, with_reference in (("8", True), ("16", False))
        for direction in ("forward", "+ backward")
        for name in ("chunked", "fft", "fft, S4", *["reference"] * with_reference)
    ]
    assert all(ratio == "1.0" for _, _, name, _, ratio in rows if name == "chunked")
    assert all(float(milliseconds) > 0 for *_, milliseconds, _ in rows)
    assert "cores" in printed


@pytest.mark.parametrize("direction", [0, 1])
def test_competitors_compute_the_same(direction):
    """A ratio of times means something only then; S4's own kernel is tested here alone.

    In float64, which leaves nothing to rounding: S4's own gradient is good to 1e-4 in float32.
    """
    options = ssm.parse(["--width=4", "--state-size=16", "--chunk-length=16"])
    _, programs, arguments = ssm.cases(options, 100)[direction]
    with jax.enable_x64(True):
        arguments = jax.tree.map(lambda x: x.astype(np.promote_types(x.dtype, float)), arguments)
        chunked = jax.tree.leaves(jax.jit(programs["chunked"])(*arguments))
        for name in ("fft", "fft, S4", "reference"):
            found = jax.tree.leaves(jax.jit(programs[name])(*arguments))
            for mine, other in zip(chunked, found):
                assert mine.dtype in (np.float64, np.complex128)
                scale = np.abs(mine).max()
                np.testing.assert_allclose(
                    other / scale, mine / scale, rtol=0, atol=1e-9, err_msg=name
                )
