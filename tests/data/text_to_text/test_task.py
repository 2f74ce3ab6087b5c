"""A task: which columns it reads, and what is said of rows that make no pair."""

import dataclasses

import pytest
from sentences import BOTH, SENTENCES, A, B, pair

from spade_jax.data.metrics import METRICS, check
from spade_jax.data.text_to_text.formats import RowError, label_word, prefixed, text
from spade_jax.data.text_to_text.registry import TASKS
from spade_jax.data.text_to_text.task import TextToText

QUESTIONS = {"question1": "Who sat?", "question2": "What sat?"}
FREE = TextToText("free", ("in",), "out", prefixed("", "in"), text, ("rouge1",))


def test_labels_of_test_sets_are_used_where_they_are_known():
    assert pair("rte", {**SENTENCES, "label": 1}, labelled=False)[1] == "not_entailment"
    with pytest.raises(RowError, match="label '2' is no label"):
        pair("rte", {**SENTENCES, "label": 2}, labelled=False)


def test_minus_one_can_be_a_target_of_its_own():
    signs = ("-1", "0", "1")
    task = dataclasses.replace(FREE, write_target=label_word(signs, "label"), labels=signs)
    assert task.pair({"in": A, "out": -1}, labelled=False) == (A, "-1")
    assert FREE.pair({"in": "2 - 3 =", "out": "-1"}, labelled=False) == ("2 - 3 =", "-1")


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_metrics_exist_and_have_what_they_need(task):
    assert set(task.metrics) <= set(METRICS)
    check(task.metrics, task.labels)


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


def test_an_alias_counts_only_where_the_column_itself_is_missing():
    row = {"premise": "p", "hypothesis": "h", **SENTENCES, "label": 2}
    assert pair("mnli", row) == ("mnli hypothesis: h premise: p", "contradiction")


def test_rows_are_left_as_they_are():
    row = {"Quality": "1", "#1 String": A, "#2 String": B}
    before = dict(row)
    pair("mrpc", row)
    assert row == before
