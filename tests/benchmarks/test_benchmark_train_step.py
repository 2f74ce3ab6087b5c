import re

import pytest

from benchmarks import train_step

MINIATURE = [
    "--config.model.d_model=8",
    "--config.model.d_ff=16",
    "--config.model.attention.num_heads=2",
    "--config.model.attention.head_dim=4",
    "--config.model.mixers.window.radius=3",
    "--config.model.encoder.layers=window",
    "--config.model.decoder.layers=full",
    "--config.train.batch_size=2",
    "--config.samples=1",
]


@pytest.mark.slow
@pytest.mark.parametrize(("option", "batch"), [("--repeats=1", 2), ("--tokens=63", 3)])
def test_table_of_an_input_length(option, batch, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    lengths = ["--lengths", "16", "--target-length=8", "--repeats=1"]
    assert train_step.main([*lengths, option, *MINIATURE]) == 0
    printed = capsys.readouterr().out
    row = (
        r"│ +(\d+) x \(16 \+ 8\) │ +([\d.,]+) │ +([\d.,]+) │ +[\d,]+ │ +([\d.]+) │ +\d+% "
        r"│ unknown │"
    )
    [(rows, milliseconds, tokens, gigaflops)] = re.findall(row, printed)
    assert int(rows) == batch
    # Tokens of both sides of the batch, within what rounding to 0.1 ms allows.
    seconds = float(milliseconds.replace(",", "")) / 1e3
    expected = batch * (16 + 8) / seconds
    assert float(tokens.replace(",", "")) == pytest.approx(expected, rel=0.1 / (1e3 * seconds))
    assert float(gigaflops) >= 0
    assert "on 1 x cpu" in printed
    assert "a matmul of 2048 x 2048 reaches" in " ".join(printed.split())


def test_a_wrong_setting_is_rejected_in_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        train_step.main(["--config.model.d_modle=8"])
    assert stopped.value.code == 2
    last_line = capsys.readouterr().err.splitlines()[-1]
    assert "config.model.d_modle: no such setting; did you mean 'd_model'?" in last_line


def test_devices_that_are_not_here(capsys):
    assert train_step.main(["--config.mesh.platform=gpu", *MINIATURE]) == 2
    words = capsys.readouterr().err
    assert words.startswith("not run: mesh.platform = 'gpu': there is no such device here")


def test_fewer_tokens_than_a_sequence(capsys):
    assert train_step.main(["--lengths", "16", "--tokens=15", *MINIATURE]) == 2
    assert capsys.readouterr().err.startswith("not run: train.batch_size = 0: must be")


def test_targets_grow_with_the_inputs():
    data = train_step.parse([])[1].data

    def targets(length):
        return train_step.lengths_of(data, length, None)[1]

    assert targets(data.input_length) == data.decoder_length
    assert targets(16384) > 15 * targets(1024)
