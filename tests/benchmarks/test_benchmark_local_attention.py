import re

import pytest

from benchmarks import local_attention


def test_table_has_two_rows_for_each_length(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    sizes = ["--heads=2", "--head-dim=4", "--radius=7", "--repeats=1"]
    local_attention.main(["--lengths", "40", "64", *sizes])
    printed = capsys.readouterr().out
    assert re.findall(r"│ +(\d+) +│ (\w+)", printed) == [
        ("40", "forward"),
        ("40", "backward"),
        ("64", "forward"),
        ("64", "backward"),
    ]
    assert len(re.findall(r"[\d.]+x", printed)) == 8
    assert "cores" in printed


@pytest.mark.parametrize("radius", ["0", "-1", "many"])
def test_a_radius_that_cannot_be_is_rejected(capsys, radius):
    with pytest.raises(SystemExit) as stopped:
        local_attention.main([f"--radius={radius}"])
    assert stopped.value.code == 2
    assert f"argument --radius: '{radius}' is not a positive integer" in capsys.readouterr().err
