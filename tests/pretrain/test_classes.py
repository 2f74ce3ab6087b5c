"""A classifier from its configuration to its test set, by the programs."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest

import spade_jax
from pretrain.__main__ import main as pretrain
from spade_jax.config import ConfigError, from_dict
from spade_jax.data.classification.config import ClassificationDataConfig
from spade_jax.data.classification.examples import load_data
from spade_jax.decoding.__main__ import main as decode
from spade_jax.runs.workdir import read_evaluations, read_samples

CONFIG = f"--config={Path(__file__).parent / 'miniature_classes.py'}"
WORDS = {"negative": ["bad", "poor"], "positive": ["good", "fine"]}


@pytest.fixture(scope="module")
def reviews(tmp_path_factory):
    """The options of a run on 90 reviews, 6 letters of which are rare."""
    path = tmp_path_factory.mktemp("reviews") / "reviews.csv"
    rng = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for number in range(90):
            label = list(WORDS)[int(rng.random() < 0.6)]
            word = WORDS[label][rng.integers(2)]
            table.writerow([f"review {number} is {word}", label])
    return [
        CONFIG,
        f"--config.data.train={path}",
        "--config.data.encoding=characters",
        "--config.data.min_count=10",
    ]


@pytest.fixture(scope="module")
def workdir(reviews, tmp_path_factory):
    folder = tmp_path_factory.mktemp("classes")
    assert pretrain([*reviews, f"--workdir={folder}"]) == 0
    return folder


@pytest.fixture(scope="module")
def run(workdir):
    return spade_jax.load(workdir)


def test_stopped_and_gone_on_equals_never_stopped(reviews, run, tmp_path, capsys):
    settings = [*reviews, f"--workdir={tmp_path}"]
    assert pretrain([*settings, "--config.train.steps=4"]) == 0
    capsys.readouterr()
    assert pretrain(settings) == 0
    printed = " ".join(capsys.readouterr().out.split())
    other = spade_jax.load(tmp_path)
    assert other.step == run.step
    texts = ["review 3 is good", "bad", "Ω"]
    np.testing.assert_array_equal(other.probabilities(texts), run.probabilities(texts))

    # What is said at the end is so.
    data = load_data(run.data)
    labels = {name: examples.labels for name, examples in data.splits.items()}
    majority = np.bincount(labels["train"]).argmax()
    shares = (np.bincount(labels["train"]) + 1) / (len(labels["train"]) + 2)
    found = re.search(
        r"validation accuracy [\d.]+ \(loss [\d.]+\) on a held-out share of 0\.2 of the training "
        r"examples; the most frequent class of the training data has ([\d.]+), guessing by its "
        r"classes' shares a loss of ([\d.]+)",
        printed,
    )
    assert float(found[1]) == pytest.approx((labels["validation"] == majority).mean(), abs=1e-4)
    guessed = -np.log(shares[labels["validation"]]).mean()
    assert float(found[2]) == pytest.approx(guessed, abs=1e-4)
    for name, own in labels.items():
        classes = zip(run.data.labels, np.bincount(own, minlength=2))
        counted = ", ".join(f"{label} {count}" for label, count in classes)
        assert f"{name}: {len(own)} examples ({counted})." in printed
    assert re.search(r"Held-out example 2 input review \d+ is \w+ class (posi|nega)tive", printed)

    # Of the best parameters, which load gives, and said again where there is no more to train.
    found = re.search(rf"step {run.step}, the best by accuracy.*?test accuracy ([\d.]+)", printed)
    rows = data.splits["test"].batch(np.arange(len(labels["test"])))["inputs"]
    classes = run.classify(map(data.encoder.text, rows))
    right = [name == run.data.labels[label] for name, label in zip(classes, labels["test"])]
    assert float(found[1]) == pytest.approx(np.mean(right), abs=1e-4)
    lines = (tmp_path / "predictions-test.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert [row["prediction"] for row in rows] == classes
    assert [row["target"] for row in rows] == [run.data.labels[i] for i in labels["test"]]
    assert all(row["input"].startswith("review ") for row in rows)
    results = json.loads((tmp_path / "results.json").read_text())["splits"]
    low, high = results["test"]["intervals"]["accuracy"]
    assert results["test"]["metrics"]["accuracy"] == pytest.approx(np.mean(right))
    assert 0 <= low <= np.mean(right) <= high <= 1
    # Rows that fill up the last batch are none.
    told = read_evaluations(tmp_path / "metrics.jsonl", run.step)[run.step]
    for name in ("loss", "accuracy"):
        assert results["validation"]["metrics"][name] == pytest.approx(told[name], rel=1e-5)
    (first, *_) = read_samples(tmp_path)
    assert re.fullmatch(r"probability [01]\.\d\d", first["note"])
    assert "Confusion matrix" in (tmp_path / "report.html").read_text()
    assert pretrain(settings) == 0
    again = " ".join(capsys.readouterr().out.split())
    assert "This run is finished" in again
    assert found[0] in again


def test_a_run_keeps_the_alphabet(run, workdir):
    settings = json.loads((workdir / "config.json").read_text())
    alphabet = settings["data"]["alphabet"]
    assert {*"review is"} <= {*alphabet}
    assert run.data == from_dict(ClassificationDataConfig, settings["data"], "data")
    assert run.settings["train"]["best_metric"] == "accuracy"
    assert run.why.endswith(", the best by accuracy")


def test_inputs_of_a_classifier(run):
    texts = ["review 3 is good", "bad " * 40, "Ω"]
    found = run.probabilities(texts, batch_size=2)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    np.testing.assert_allclose(found[2], run.probabilities(["Ω"])[0], atol=1e-6)
    np.testing.assert_allclose(found[1], run.probabilities(["bad " * 12])[0], atol=1e-6)
    assert run.classify([]) == []
    with pytest.raises(ConfigError, match=r"^inputs = 'bad': must be a list"):
        run.classify("bad")
    with pytest.raises(ConfigError, match=r"^inputs = \('a', 'b'\): must each be a text"):
        run.classify([("a", "b")])
    for method in (run.generate, run.tokens):
        with pytest.raises(ConfigError, match="is a run of a classifier, which writes nothing"):
            method(["bad"])


def test_programs_that_write_text(workdir, tmp_path, capsys):
    lines = tmp_path / "lines.txt"
    lines.write_text("good\n")
    assert decode([f"--checkpoint={workdir}", f"--input={lines}"]) == 2
    assert "model.kind = 'classifier': must be a model of tokens here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["--config.model.classes=3"], "model.classes = 3: must be data.classes = 2"),
        (["--config.model.pair=nli"], "model.pair = 'nli': must be None, for data.inputs names 1"),
        (
            ["--config.data.encoding=bytes", "--config.model.vocab_size=256"],
            "model.vocab_size = 256: must be at least 257, the tokens of data.encoding",
        ),
        (
            [
                "--config.data.encoding=pixels",
                "--config.data.source=image_folder",
                "--config.data.length=64",
                "--config.model.embedding_std=1.0",
            ],
            "model.embedding_std = 1.0: must be None: numbers have no embedding",
        ),
        (["--config.model.vocab_size=9"], "model.vocab_size = 9: must be at least "),
        (
            ["--config.train.best_metric=bits_per_byte"],
            "train.best_metric = 'bits_per_byte': must be one of loss, accuracy",
        ),
        (["--config.data.alphabet=aba"], "data.alphabet = 'aba': must have each character once"),
        (["--config.data.labels=('bad', 'good')"], "line 2: has the label"),
    ],
)
def test_what_cannot_be_is_a_sentence(reviews, tmp_path, settings, message, capsys):
    assert pretrain([*reviews, *settings, f"--workdir={tmp_path / 'new'}"]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_run_begins_with_the_alphabet_of_another(reviews, workdir, tmp_path, capsys):
    settings = [*reviews, f"--config.init_from={workdir}", f"--workdir={tmp_path}"]
    assert pretrain([*settings, "--config.data.alphabet=abc"]) == 2
    assert "data.encoding = 'characters': is another vocabulary" in capsys.readouterr().err
    # What these settings alone would take, nothing occurs often enough for.
    assert pretrain([*settings, "--print_sharding", "--config.data.min_count=1000"]) == 0
