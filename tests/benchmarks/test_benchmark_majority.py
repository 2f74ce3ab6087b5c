"""The task of the most frequent letter."""

import numpy as np

from benchmarks.majority import LETTERS, SHARE, main, rows


def test_the_class_is_the_letter_that_comes_most_often():
    found = rows(400, 256, seed=1)
    assert {len(text) for text, _ in found} == {256}
    labels = [label for _, label in found]
    assert {label: labels.count(label) for label in LETTERS} == dict.fromkeys(LETTERS, 100)
    counts = np.array([[text.count(letter) for letter in LETTERS] for text, _ in found])
    own = counts[np.arange(400), [LETTERS.index(label) for label in labels]]
    assert abs(own.mean() / 256 - SHARE) < 0.01
    # Not always, for letters are drawn, but nearly.
    assert (own == counts.max(axis=1)).mean() > 0.85


def test_a_folder_appears_once(tmp_path, capsys):
    arguments = [f"--output={tmp_path / 'rows'}", "--length=8", "--train=12", "--validation=4"]
    assert main(arguments) == 0
    lines = (tmp_path / "rows" / "train.tsv").read_text().splitlines()
    assert lines[0] == "text\tlabel"
    assert len(lines) == 13
    assert main(arguments) == 2
    assert capsys.readouterr().err.startswith("error: --output = ")
