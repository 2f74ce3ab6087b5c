"""Tasks as text: T5's inputs and targets by value, and what is said of rows that make none."""

import dataclasses
import gzip
import json
import struct

import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.text.glue import Glue

from spade_jax.data.metrics import METRICS, check
from spade_jax.data.sources import SHIPPED_TEXT
from spade_jax.data.text_to_text import (
    GLUE,
    MIXTURES,
    SUMMARIES,
    TASKS,
    RowError,
    TextToText,
    label_word,
    labelled_fields,
    prefixed,
    rounded_score,
    text,
)

A, B = "The cat sat.", "A cat sat down."
BOTH = f"sentence1: {A} sentence2: {B}"
SENTENCES = {"sentence1": A, "sentence2": B}
QUESTIONS = {"question1": "Who sat?", "question2": "What sat?"}
FREE = TextToText("free", ("in",), "out", prefixed("", "in"), text, ("rouge1",))


def pair(task: str, row: dict, **options) -> tuple[str, str]:
    return TASKS[task].pair(row, **options)


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


def test_labels_of_test_sets_are_used_where_they_are_known():
    assert pair("rte", {**SENTENCES, "label": 1}, labelled=False)[1] == "not_entailment"
    with pytest.raises(RowError, match="label '2' is no label"):
        pair("rte", {**SENTENCES, "label": 2}, labelled=False)


def test_minus_one_can_be_a_target_of_its_own():
    signs = ("-1", "0", "1")
    task = dataclasses.replace(FREE, write_target=label_word(signs, "label"), labels=signs)
    assert task.pair({"in": A, "out": -1}, labelled=False) == (A, "-1")
    assert FREE.pair({"in": "2 - 3 =", "out": "-1"}, labelled=False) == ("2 - 3 =", "-1")


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


@pytest.mark.parametrize("task", SUMMARIES, ids=lambda task: task.name)
def test_versions_of_summaries_are_those_of_tfds(task):
    name, version = task.tfds.split(":")
    name, _, config = name.partition("/")
    builder = tfds.builder_cls(name)
    configs = {config.name: str(config.version) for config in builder.BUILDER_CONFIGS}
    assert version == (configs[config] if config else str(builder.VERSION))


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_metrics_exist_and_have_what_they_need(task):
    assert set(task.metrics) <= set(METRICS)
    check(task.metrics, task.labels)


@pytest.mark.parametrize("label", [1, 1.0, "1", " 1 ", "equivalent", " equivalent\t"])
def test_forms_of_a_label(label):
    assert pair("mrpc", {**SENTENCES, "label": label})[1] == "equivalent"


@pytest.mark.parametrize(
    ("label", "shown"),
    [
        (2, "'2'"),
        (-2, "'-2'"),
        (0.5, "'0.5'"),
        ("²", "'²'"),
        ("Equivalent", "'Equivalent'"),
        (True, "'True'"),
        ("1" * 5000, "'1+'"),
    ],
)
def test_an_unknown_label(label, shown):
    message = f"^label {shown} is no label; must be one of 'not_equivalent', 'equivalent'$"
    with pytest.raises(RowError, match=message):
        pair("mrpc", {**SENTENCES, "label": label})


def test_labels_that_are_numbers_have_no_class_numbers():
    """Or a table of stars 1 to 3 and a slip, 0, would give the 0 as a 1."""
    write = label_word(("1", "2", "3"), "column 'stars':")
    assert [write(value) for value in (1, "2", 3.0)] == ["1", "2", "3"]
    with pytest.raises(RowError, match="column 'stars': '0' is no label; must be one of '1', '2'"):
        write(0)
    write = label_word(("-0.5", "0.5"), "label")
    assert write(-0.5) == "-0.5"
    with pytest.raises(RowError, match="label '1' is no label"):
        write(1)


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


def test_a_missing_column_is_named_with_those_of_the_file():
    with pytest.raises(RowError, match=r"^has no column 'sentence', but 'text', 'label'$"):
        pair("cola", {"text": A, "label": 1})
    with pytest.raises(RowError, match=r"^has no column 'sentence2', but 'Quality', '#1 String'$"):
        pair("mrpc", {"Quality": "1", "#1 String": A})
    with pytest.raises(RowError, match=r"^has no column 'label', but 'sentence1', 'sentence2'$"):
        pair("mnli", SENTENCES)
    with pytest.raises(RowError, match=r"^has no column 'sentence', but none at all$"):
        pair("cola", {})


@pytest.mark.parametrize("empty", ["", " \t", None, float("nan"), [], ["", " "]])
def test_empty_columns(empty):
    for labelled in (True, False):
        with pytest.raises(RowError, match=r"^column 'sentence2' is empty$"):
            pair("rte", {"sentence1": A, "sentence2": empty, "label": 0}, labelled=labelled)
    with pytest.raises(RowError, match=r"^column 'label' is empty$"):
        pair("rte", {**SENTENCES, "label": empty})
    assert pair("rte", {**SENTENCES, "label": empty}, labelled=False) == (f"rte {BOTH}", "")


@pytest.mark.parametrize("empty", ["", None])
def test_rows_that_are_published_with_a_gap_count_as_in_t5(empty):
    """Two questions of QQP are empty, 114 articles of CNN/DailyMail, a document of Multi-News."""
    row = {"question1": "Who sat?", "question2": empty, "label": 0}
    assert pair("qqp", row) == ("qqp question1: Who sat? question2: ", "not_duplicate")
    with pytest.raises(RowError, match="column 'question1' is empty"):
        pair("qqp", {"question1": empty, "question2": "Who sat?", "label": 0})
    for name in ("cnn_dailymail", "arxiv", "pubmed", "multi_news"):
        task = TASKS[name]
        assert task.pair({task.columns[0]: empty, task.target: B}) == ("summarize: ", B)


def test_values_as_text():
    values = ["as it is ", 3, 3.0, -0.5, True, 1e300]
    assert [text(value) for value in values[:5]] == ["as it is ", "3", "3", "-0.5", "True"]
    assert float(text(1e300)) == 1e300
    for value in (["a"], {"a": "b"}, b"a"):
        with pytest.raises(RowError, match=r"^.* is not a text$"):
            text(value)
    with pytest.raises(RowError, match=r"^.{60} is not a text$"):
        text(["long"] * 1000)


def test_inputs_of_several_columns_are_headed_by_their_names():
    row = {"question": " Who? ", "year": 1890.0, "context": A}
    write = labelled_fields("answer", ("question", "year", "context"))
    assert write(row) == f"answer question: Who? year: 1890 context: {A}"
    assert labelled_fields("", ("question",))(row) == "question: Who?"


def test_inputs_of_one_column_stand_behind_their_prefix_as_they_are():
    assert prefixed("summarize: ", "in")({"in": " One.\nTwo. "}) == "summarize:  One.\nTwo. "
    assert prefixed("", "in")({"in": 7.0}) == "7"


def test_an_alias_counts_only_where_the_column_itself_is_missing():
    row = {"premise": "p", "hypothesis": "h", **SENTENCES, "label": 2}
    assert pair("mnli", row) == ("mnli hypothesis: h premise: p", "contradiction")


def test_rows_are_left_as_they_are():
    row = {"Quality": "1", "#1 String": A, "#2 String": B}
    before = dict(row)
    pair("mrpc", row)
    assert row == before


@pytest.mark.parametrize(
    ("name", "document", "summary"),
    [
        ("cnn_dailymail", "article", "highlights"),
        ("arxiv", "article", "abstract"),
        ("pubmed", "article", "abstract"),
        ("multi_news", "document", "summary"),
    ],
)
def test_summaries(name, document, summary):
    row = {document: "One.\nTwo.", summary: "Both.\nOf them.", "id": "x"}
    assert pair(name, row) == ("summarize: One.\nTwo.", "Both.\nOf them.")
    with pytest.raises(RowError, match=f"column '{summary}' is empty"):
        pair(name, {**row, summary: ""})
    assert pair(name, {document: "One."}, labelled=False) == ("summarize: One.", "")


def test_splits_of_summaries():
    for task in SUMMARIES:
        validation = "val" if task.name == "media_sum" else "validation"
        assert task.splits == {"train": ("train",), "validation": (validation,), "test": ("test",)}
        assert (task.labels, task.submission, task.prefix) == ((), (), "summarize: ")


def test_turns_of_a_dialogue_stand_behind_their_speakers():
    row = {
        "speaker": ["BALDWIN", "Dr. ROE", "BALDWIN"],
        "utt": ["Good evening.", "Hello.", "So?"],
        "summary": "They meet.",
    }
    assert pair("media_sum", row) == (
        "summarize: BALDWIN: Good evening. Dr. ROE: Hello. BALDWIN: So?",
        "They meet.",
    )


@pytest.mark.parametrize(
    ("speakers", "turns"),
    [
        (["A", "B"], ["Good evening."]),
        (["A"], ["Good evening.", "Hello."]),
        ("A", "Good evening."),
        (["A"], "H"),
        ("A", ["H"]),
        (["A", None], ["Good evening.", "Hello."]),
        (["A", "B"], ["Good evening.", 7]),
    ],
)
def test_a_dialogue_that_is_none(speakers, turns):
    message = "^columns 'speaker' and 'utt' must be lists of equally many texts$"
    with pytest.raises(RowError, match=message):
        pair("media_sum", {"speaker": speakers, "utt": turns, "summary": "They meet."})


@pytest.mark.parametrize("column", ["speaker", "utt"])
def test_a_dialogue_without_words(column):
    row = {"speaker": ["A"], "utt": ["Hello."], "summary": "They meet.", column: []}
    with pytest.raises(RowError, match=f"^column '{column}' is empty$"):
        pair("media_sum", row)


def test_passages_of_addresses_that_name_one_year():
    words = "peace " * 26  # Two passages of 13 each.
    address = f"{words}In 1789, and again in 1789, we met. {words * 2}1800 and 1801. {words}1666"
    found = list(TASKS["sotu_year"].expand({"text": address, "year": 1802}))
    assert [row["named"] for row in found] == ["1789"]
    assert found[0]["text"].startswith("1789, and again in 1789, we met.")
    assert pair("sotu_year", found[0]) == (f"year: {found[0]['text']}", "1789")


@pytest.mark.parametrize("text", ["", "In 17890 or 1 789 or x1789.", "In 1666 and in 2001."])
def test_passages_that_name_no_year_are_left_out(text):
    assert list(TASKS["sotu_year"].expand({"text": text})) == []


@pytest.fixture(scope="module")
def shipped() -> list[tuple[dict, list[dict]]]:
    """The addresses of the validation split, each with its passages."""
    with gzip.open(SHIPPED_TEXT / "sotu.validation.jsonl.gz", "rt", encoding="utf-8") as file:
        addresses = [json.loads(line) for line in file]
    return [(address, list(TASKS["sotu_year"].expand(address))) for address in addresses]


def test_passages_are_whole_words_of_the_address_and_short(shipped):
    for address, rows in shipped:
        words = f" {' '.join(address['text'].split())} "
        for row in rows:
            assert len(row["text"]) <= 240
            assert f" {row['text']} " in words
            assert row["named"] in row["text"]


def test_the_shipped_addresses_make_pairs(shipped):
    pairs = [pair("sotu_year", row) for _, rows in shipped for row in rows]
    assert len(pairs) == 504
    written, target = pairs[0]
    assert written.startswith("year: November 10th, 1803, authorized us to borrow $1.75 millions ")
    assert target == "1803"
    assert all(1700 <= int(target) < 2000 for _, target in pairs)


@pytest.mark.parametrize(
    ("gap", "message"),
    [
        ({}, r"^has no column 'text', but 'year'$"),
        ({"text": None}, r"^column 'text' is empty$"),
        ({"text": []}, r"^column 'text' is empty$"),
    ],
)
def test_an_address_without_text_is_left_for_pair_to_reject(gap, message):
    (row,) = TASKS["sotu_year"].expand({"year": 1790, **gap})
    with pytest.raises(RowError, match=message):
        pair("sotu_year", row)


def test_the_diagnostic_set_is_written_as_mnli():
    row = {"index": "3", "sentence1": "P.", "sentence2": "H."}
    assert pair("ax", row, labelled=False) == ("mnli hypothesis: H. premise: P.", "")
    assert "ax" not in MIXTURES["glue"]
