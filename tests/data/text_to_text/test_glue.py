"""GLUE: T5's inputs and targets by value, of TFDS's rows and of the official files."""

import struct

import pytest
from sentences import BOTH, SENTENCES, A, B, pair
from tensorflow_datasets.text.glue import Glue

from spade_jax.data.text_to_text.formats import RowError
from spade_jax.data.text_to_text.glue import GLUE, rounded_score
from spade_jax.data.text_to_text.registry import MIXTURES, TASKS

QUESTIONS = {"question1": "Who sat?", "question2": "What sat?"}

# A row of TFDS for each class, and what T5 makes of it.
PREPARED = {
    "cola": ({"sentence": A}, f"cola sentence: {A}", ("unacceptable", "acceptable")),
    "sst2": ({"sentence": A}, f"sst2 sentence: {A}", ("negative", "positive")),
    "mrpc": (SENTENCES, f"mrpc {BOTH}", ("not_equivalent", "equivalent")),
    "qqp": (
        QUESTIONS,
        "qqp question1: Who sat? question2: What sat?",
        ("not_duplicate", "duplicate"),
    ),
    "mnli": (
        {"premise": A, "hypothesis": B},
        f"mnli hypothesis: {B} premise: {A}",
        ("entailment", "neutral", "contradiction"),
    ),
    "qnli": (
        {"question": "Who sat?", "sentence": A},
        f"qnli question: Who sat? sentence: {A}",
        ("entailment", "not_entailment"),
    ),
    "rte": (SENTENCES, f"rte {BOTH}", ("entailment", "not_entailment")),
    "wnli": (SENTENCES, f"wnli {BOTH}", ("not_entailment", "entailment")),
}


@pytest.mark.parametrize("name", PREPARED)
def test_a_row_of_tfds(name):
    columns, written, words = PREPARED[name]
    for number, word in enumerate(words):
        assert pair(name, {**columns, "idx": 7, "label": number}) == (written, word)


def test_a_row_of_tfds_of_stsb():
    nearest_float32 = struct.unpack("f", struct.pack("f", 3.75))[0]
    row = {**SENTENCES, "label": nearest_float32, "idx": 7}
    assert pair("stsb", row) == (f"stsb {BOTH}", "3.8")


STSB_COLUMNS = {
    "index": "0",
    "genre": "main-captions",
    "filename": "MSRvid",
    "year": "2012test",
    "old_index": "0001",
    "source1": "none",
    "source2": "none",
}
MNLI_COLUMNS = {
    "index": "0",
    "promptID": "31193",
    "genre": "government",
    "sentence1_parse": "(ROOT A)",
    "sentence2_parse": "(ROOT B)",
    "label1": "contradiction",
}


@pytest.mark.parametrize(
    ("name", "row", "written", "target"),
    [
        (
            "cola",
            {"source": "gj04", "label": "0", "star": "*", "sentence": A},
            f"cola sentence: {A}",
            "unacceptable",
        ),
        ("sst2", {"sentence": f"{A} ", "label": "1"}, f"sst2 sentence: {A}", "positive"),
        (
            "mrpc",
            {"Quality": "1", "#1 ID": "1", "#2 ID": "2", "#1 String": A, "#2 String": B},
            f"mrpc {BOTH}",
            "equivalent",
        ),
        (
            "qqp",
            {"id": "0", "qid1": "1", "qid2": "2", **QUESTIONS, "is_duplicate": "0"},
            "qqp question1: Who sat? question2: What sat?",
            "not_duplicate",
        ),
        ("stsb", {**STSB_COLUMNS, **SENTENCES, "score": "5.000"}, f"stsb {BOTH}", "5.0"),
        (
            "mnli",
            {**MNLI_COLUMNS, **SENTENCES, "gold_label": "neutral"},
            f"mnli hypothesis: {B} premise: {A}",
            "neutral",
        ),
        (
            "qnli",
            {"index": "0", "question": "Who sat?", "sentence": A, "label": "not_entailment"},
            f"qnli question: Who sat? sentence: {A}",
            "not_entailment",
        ),
        ("rte", {"index": "0", **SENTENCES, "label": "entailment"}, f"rte {BOTH}", "entailment"),
        ("wnli", {"index": "0", **SENTENCES, "label": "0"}, f"wnli {BOTH}", "not_entailment"),
    ],
)
def test_a_row_of_the_official_files(name, row, written, target):
    assert pair(name, row) == (written, target)


def test_official_test_files_have_no_column_of_labels():
    row = {"index": "0", "#1 ID": "1", "#2 ID": "2", "#1 String": A, "#2 String": B}
    assert pair("mrpc", row, labelled=False) == (f"mrpc {BOTH}", "")
    row = {**MNLI_COLUMNS, **SENTENCES}
    assert pair("mnli", row, labelled=False) == (f"mnli hypothesis: {B} premise: {A}", "")


@pytest.mark.parametrize("name", [task.name for task in GLUE])
@pytest.mark.parametrize("hidden", [-1, -1.0, "-1", "", None])
def test_secret_labels_are_empty_targets(name, hidden):
    row = {column: A for column in TASKS[name].columns}
    assert pair(name, {**row, "label": hidden}, labelled=False)[1] == ""
    with pytest.raises(RowError, match=r"is empty|'-1' is no label|score .* from 0 to 5"):
        pair(name, {**row, "label": hidden})


CONFIGS = {config.name: config for config in Glue.BUILDER_CONFIGS}


@pytest.mark.parametrize("task", GLUE, ids=lambda task: task.name)
def test_classes_and_columns_are_those_of_tfds(task):
    config = CONFIGS[task.name]
    assert task.tfds == f"glue/{config.name}:{config.version}"
    assert task.labels == tuple(config.label_classes or ())
    assert set(task.columns) == set(config.text_features)
    assert task.target == "label"
    if task.name != "cola":  # Its files have no header.
        assert config.label_column in ("label", *task.aliases.get("label", ()))


def test_glue_is_all_of_glue():
    names = "cola sst2 mrpc qqp stsb mnli qnli rte wnli"
    assert list(MIXTURES) == ["glue"]
    assert MIXTURES["glue"] == tuple(TASKS)[:9] == tuple(names.split())
    files = [file for task in GLUE for file in task.submission]
    assert " ".join(files) == (
        "CoLA.tsv SST-2.tsv MRPC.tsv QQP.tsv STS-B.tsv MNLI-m.tsv MNLI-mm.tsv QNLI.tsv RTE.tsv "
        "WNLI.tsv"
    )
    for task in GLUE:
        assert len(task.submission) == len(task.splits["test"])


@pytest.mark.parametrize(
    ("score", "written"),
    [
        ("0", "0.0"),
        ("0.000", "0.0"),
        (0.09, "0.0"),
        (0.11, "0.2"),
        ("2.75", "2.8"),
        ("3.8", "3.8"),
        ("4.91", "5.0"),
        (5, "5.0"),
        ("5.000", "5.0"),
        # Halfway, in fifths, to the even one, as tf.round does it.
        ("0.1", "0.0"),
        ("0.3", "0.4"),
        ("0.5", "0.4"),
        ("0.7", "0.8"),
        ("2.5", "2.4"),
        ("3.5", "3.6"),
        ("4.9", "4.8"),
    ],
)
def test_scores_are_written_to_the_nearest_fifth(score, written):
    assert rounded_score(score) == written


def test_scores_are_rounded_as_t5_does_from_files_and_from_tfds():
    import numpy as np

    for thousandths in range(0, 5001, 25):
        score = np.float32(thousandths / 1000)
        t5 = f"{np.round(score * np.float32(5)) / np.float32(5):.1f}"
        assert rounded_score(f"{thousandths / 1000:.3f}") == t5
        assert rounded_score(score.tolist()) == t5


@pytest.mark.parametrize("score", ["high", "3,8", None, ["3"], "nan", "inf", 1e300, -0.2, 5.2])
def test_a_score_that_is_none(score):
    with pytest.raises(RowError, match=r"^score .* is not a number from 0 to 5$"):
        rounded_score(score)


def test_the_diagnostic_set_is_written_as_mnli():
    row = {"index": "3", "sentence1": "P.", "sentence2": "H."}
    assert pair("ax", row, labelled=False) == ("mnli hypothesis: H. premise: P.", "")
    assert "ax" not in MIXTURES["glue"]
