"""Metrics of whole evaluation sets: whatever the batch size, and the number of devices."""

import json
from pathlib import Path

import pytest
from rich.console import Console
from scoring import DECODINGS, evaluation_of, make_sets

from finetune.evaluation import baseline, combine, measure
from finetune.results import results_table, write_predictions, write_submission
from spade_jax.data.text_to_text.evaluation_sets import EvaluationSet
from spade_jax.data.text_to_text.examples import Pair
from spade_jax.data.text_to_text.inspection import Examined
from spade_jax.data.text_to_text.registry import TASKS
from spade_jax.data.text_to_text.splits import Part


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    return make_sets(tmp_path_factory.mktemp("sets"))


@pytest.mark.parametrize(("decoding", "sizes"), [("greedy", (1, 7, 64)), ("beam", (7, 64))])
def test_batches_make_no_difference(sets, decoding, sizes):
    found = {size: evaluation_of(sets, size, DECODINGS[decoding]) for size in sizes}
    metrics, predictions = found[sizes[0]]
    assert len(set(predictions)) >= 3
    for size in sizes[1:]:
        assert found[size][1] == predictions
        for name, value in metrics.items():
            assert found[size][0][name] == pytest.approx(value, rel=1e-5), (size, name)


@pytest.mark.slow
def test_eight_devices_find_what_one_finds(on_eight_devices, sets, tmp_path):
    report = on_eight_devices(Path(__file__).with_name("eight_devices_evaluate.py"), str(tmp_path))
    metrics, predictions = evaluation_of(sets, 8, DECODINGS["greedy"])
    assert report["predictions"] == predictions
    assert report["metrics"] == pytest.approx(metrics, rel=1e-5)


def examples_of(name, pairs, split="validation", number=0):
    part = Part(name, TASKS[name.split("_")[0]], split, number, "test")
    references = [target for _, _, target in pairs]
    return EvaluationSet(part, [Pair(*pair) for pair in pairs], [], [], 0, 0, references)


def test_several_sets_are_told_apart_and_each_task_counts_once():
    rte = examples_of("rte", [("0", "a", "entailment"), ("1", "b", "not_entailment")])
    matched = examples_of("mnli_matched", [("0", "a", "neutral")])
    mismatched = examples_of("mnli_mismatched", [("0", "a", "neutral")])
    sets = [rte, matched, mismatched]
    written = [["entailment", "entailment"], ["neutral"], ["entailment"]]
    values = [{"loss": i, **measure(s, w)} for i, (s, w) in enumerate(zip(sets, written), start=1)]
    assert combine(values, sets) == {
        "loss": 2.0,
        "rte/accuracy": 0.5,
        "mnli_matched/accuracy": 1.0,
        "mnli_mismatched/accuracy": 0.0,
        # MNLI's two parts are one task: (1/2 + (1 + 0) / 2) / 2.
        "score": 0.5,
    }
    assert combine(values[:1], sets[:1]) == {"loss": 1, "accuracy": 0.5, "score": 0.5}


def test_baselines():
    rte = examples_of("rte", [("0", "a", "entailment")] * 3)
    training = Examined(rte.part, 9, 9, 0, 0, "not_entailment", 1.0)
    assert baseline(rte, training) == ("most common target", ["not_entailment"] * 3)
    task = TASKS["cnn_dailymail"]
    part = Part(task.name, task, "validation", 0, "test")
    pair = Pair("0", "summarize: One two three four.", "x")
    news = EvaluationSet(part, [pair], [], [], 0, 0, ["x"])
    training = Examined(part, 9, 9, 0, 0, "x", 2.4)
    assert baseline(news, training) == ("beginning of the input", ["One two"])


@pytest.mark.parametrize(
    ("name", "number", "predictions", "file", "rows"),
    [
        ("cola", 0, ["acceptable", "what?", "unacceptable"], "CoLA.tsv", "1 0 0"),
        ("wnli", 0, ["entailment", "not_entailment", "entailment"], "WNLI.tsv", "1 0 1"),
        (
            "rte",
            0,
            ["entailment", "", "not_entailment"],
            "RTE.tsv",
            "entailment " * 2 + "not_entailment",
        ),
        ("mnli_mismatched", 1, ["neutral"] * 3, "MNLI-mm.tsv", "neutral " * 3),
        ("ax", 0, ["neutral", "?", "contradiction"], "AX.tsv", "neutral entailment contradiction"),
        ("stsb", 0, ["3.8", "7", "none"], "STS-B.tsv", "3.800 5.000 0.000"),
        ("stsb", 0, ["nan", "inf", "-1"], "STS-B.tsv", "0.000 0.000 0.000"),
    ],
)
def test_submissions_are_what_the_leaderboard_takes(
    tmp_path, name, number, predictions, file, rows
):
    # The data's own numbers count, not the order in which TFDS keeps it.
    pairs = [(str(i), "text", "") for i in (2, 0, 1)]
    shuffled = [predictions[i] for i in (2, 0, 1)]
    examples = examples_of(name, pairs, "test", number)
    path = write_submission(tmp_path / "submission", examples, shuffled)
    assert path.name == file
    lines = [f"{i}\t{entry}" for i, entry in enumerate(rows.split())]
    assert path.read_text() == "\n".join(["index\tprediction", *lines]) + "\n"
    validation = examples_of(name, pairs, "validation", 0)
    assert write_submission(tmp_path, validation, shuffled) is None


def test_predictions_keep_every_character(tmp_path):
    examples = examples_of("rte", [("0", 'a "b"\nc', "entailment"), ("1", "é\u2028", "")])
    path = tmp_path / "predictions.jsonl"
    write_predictions(path, examples, ["x", "y"])
    lines = path.read_text(encoding="utf-8").split("\n")
    assert [json.loads(line) for line in lines[:-1]] == [
        {"input": 'a "b"\nc', "target": "entailment", "prediction": "x"},
        {"input": "é\u2028", "target": None, "prediction": "y"},
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.jsonl"]


def test_tables_are_times_100():
    results = {
        "splits": {
            "validation": {
                "metrics": {"loss": 1.25, "f1": 0.5},
                "baseline": {"method": "most common target", "metrics": {"f1": 0.123}},
            }
        }
    }
    console = Console(width=100)
    with console.capture() as capture:
        console.print(results_table(results))
    assert "loss   │ 1.250 │" in capture.get()
    assert "f1     │ 50.00 │    12.30 │ most common target" in capture.get()
