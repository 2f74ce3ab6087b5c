"""The command that makes ListOps, and its files read."""

import re

import numpy as np

from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.data.classification.examples import load_data
from spade_jax.data.lra import listops
from spade_jax.data.lra.listops import main

SMALL = ["--shortest=10", "--longest=40", "--depth=4", "--train=60", "--validation=8", "--test=8"]


def test_files_are_the_same_for_any_number_of_processes_and_are_read(tmp_path, capsys):
    for name, workers in (("one", 1), ("two", 2)):
        assert main([f"--output={tmp_path}/{name}", f"--workers={workers}", *SMALL]) == 0
    said = capsys.readouterr().out
    assert re.search(r"length, mean +│ +2\d │ +1033 │", said)
    assert "76 expressions" in said
    names = ("basic_train.tsv", "basic_val.tsv", "basic_test.tsv")
    files = [(tmp_path / "one" / name).read_text() for name in names]
    assert files == [(tmp_path / "two" / name).read_text() for name in names]
    rows = [line for file in files for line in file.splitlines()[1:]]
    assert len({*rows}) == len(rows) == 76
    train, validation, test = (f"{tmp_path}/one/{name}" for name in names)
    config = ClassificationDataConfig(
        train=train,
        validation=validation,
        test=test,
        encoding="listops",
        inputs=("Source",),
        target="Target",
        classes=10,
        length=40,
    )
    data = load_data(config)
    assert [len(examples) for examples in data.splits.values()] == [60, 8, 8]
    inputs = data.splits["train"].batch(np.arange(60))["inputs"]
    lengths = (inputs > 0).sum(axis=1)
    assert lengths.min() >= 10
    assert inputs.max() == data.encoder.size - 1 == 15
    assert inputs[0, lengths[0] - 1] == 15  # The end of the whole expression.
    assert [examples.cut for examples in data.splits.values()] == [0, 0, 0]


def test_what_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(listops, "_FRUITLESS", 3)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").touch()
    assert main([f"--output={tmp_path}/full"]) == 2
    assert "full': holds something; must be a new or an empty folder" in capsys.readouterr().err
    # 1 + 2 + 1 symbols are the fewest of an operator.
    impossible = ["--shortest=2", "--longest=3", "--depth=2", "--workers=1", "--operators=1"]
    assert main([f"--output={tmp_path}/none", *impossible]) == 2
    assert "error: --shortest = 2: 6,000 attempts gave no new" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
