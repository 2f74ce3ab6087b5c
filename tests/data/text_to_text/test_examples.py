"""Pairs of texts to evaluate on and to look through, of TFDS and of tables."""

import dataclasses
import json
import re

import numpy as np
import pytest
from prepared_rte import CLASSES
from reading_pairs import BYTES, batches

from spade_jax.data.config import DataError
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.evaluation_sets import evaluation_sets
from spade_jax.data.text_to_text.examples import load_table
from spade_jax.data.text_to_text.inspection import examine
from spade_jax.data.text_to_text.splits import parts


def test_what_is_too_long_is_cut_and_counted(config):
    short = dataclasses.replace(config, input_length=12, target_length=2)
    (found,) = examine(short)
    # "add: 10 + 10" and EOS are 13 tokens; of the targets those of one digit just fit.
    assert (found.examples, found.looked_at) == (40, 40)
    assert (found.cut_inputs, found.cut_targets) == (30, 35)
    (batch,) = batches(short, 40, 1)
    assert batch["encoder_input_tokens"].shape == (40, 12)
    ends = np.sum(batch["encoder_input_tokens"] == 1, axis=1)
    np.testing.assert_array_equal(ends, 1)
    (held_out,) = evaluation_sets(dataclasses.replace(config, input_length=10), "validation")
    assert held_out.cut_inputs == 7
    assert {len(ids) for ids in held_out.inputs} == {10}


def test_the_first_10000_examples_speak_for_a_data_set(rte):
    (found,) = examine(rte)
    assert (found.examples, found.looked_at, found.cut_inputs) == (30, 30, 0)
    assert found.commonest in CLASSES


def test_mnli_is_evaluated_on_its_two_parts(tmp_path):
    for name in ("matched", "mismatched"):
        row = f"{name}\tyes\tneutral"
        (tmp_path / f"{name}.tsv").write_text(f"premise\thypothesis\tlabel\n{row}\n")
    config = TaskConfig(
        "mnli", validation=f"{tmp_path}/matched.tsv,{tmp_path}/mismatched.tsv", **BYTES
    )
    matched, mismatched = evaluation_sets(config, "validation")
    assert (matched.part.name, mismatched.part.name) == ("mnli_matched", "mnli_mismatched")
    assert mismatched.pairs[0].input == "mnli hypothesis: yes premise: mismatched"
    with pytest.raises(ValueError, match=r"task.validation = .* must name a table for each of"):
        parts(dataclasses.replace(config, validation=f"{tmp_path}/matched.tsv"), "validation")


def test_passages_of_the_shipped_text_name_one_year():
    config = TaskConfig("sotu_year", input_length=256, target_length=8, **BYTES)
    (part,) = parts(config, "validation")
    pairs = load_table(part, config)
    assert len(pairs) > 300
    for pair in pairs:
        assert pair.input.startswith("year: ")
        assert set(re.findall(r"\b1[789]\d\d\b", pair.input)) == {pair.target}
    assert parts(config, "test") == []


def test_a_header_is_seen_where_there_is_one(tmp_path):
    """CoLA's training file has none; a file with the task's columns has."""
    (tmp_path / "train.tsv").write_text("gj04\t1\t\tA sentence.\n")
    (tmp_path / "test.tsv").write_text("index\tsentence\n7\tAnother.\n")
    header = ("source", "label", "star", "sentence")
    files = {"train": f"{tmp_path}/train.tsv", "test": f"{tmp_path}/test.tsv"}
    config = TaskConfig("cola", header=header, **files, **BYTES)
    (part,) = parts(config, "train")
    assert load_table(part, config)[0][1:] == ("cola sentence: A sentence.", "acceptable")
    (secret,) = evaluation_sets(config, "test")
    assert secret.pairs == [("7", "cola sentence: Another.", "")]


def test_an_index_that_no_submission_could_have(tmp_path):
    (tmp_path / "test.tsv").write_text("index\tsentence\nseven\tAnother.\n")
    config = TaskConfig("cola", test=f"{tmp_path}/test.tsv", **BYTES)
    with pytest.raises(DataError, match=r"test.tsv, line 2: index 'seven' is not a whole number"):
        evaluation_sets(config, "test")


def test_a_limit_takes_examples_from_everywhere(config):
    (some,) = evaluation_sets(config, "validation", limit=3)
    assert [pair.target for pair in some.pairs] == ["0", "4", "8"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ('{"question": "", "answer": 1}', r"train.jsonl, line 2: column 'question' is empty"),
        ('{"question": "1", "answer": " "}', r"train.jsonl, line 2: column 'answer' is empty"),
        ('{"question": "1", "reply": 1}', r"line 2: has no column 'answer', but 'question', 're"),
        ('{"question": "1", "answer": [1]}', r"train.jsonl, line 2: \[1\] is not a text"),
    ],
)
def test_a_row_that_makes_no_pair_is_named(config, tmp_path, row, message):
    (tmp_path / "train.jsonl").write_text('{"question": "1", "answer": 2}\n' + row + "\n")
    wrong = dataclasses.replace(config, train=f"{tmp_path}/train.jsonl")
    with pytest.raises(DataError, match=message):
        examine(wrong)


def test_a_test_set_is_labelled_or_it_is_not(config, tmp_path):
    rows = ['{"question": "1", "answer": 2}', '{"question": "2"}', '{"question": "3"}']
    path = tmp_path / "test.jsonl"
    path.write_text("\n".join(rows) + "\n")
    with pytest.raises(DataError, match=r"task.test \(local_pairs\): 2 of 3 rows have no target;"):
        evaluation_sets(dataclasses.replace(config, test=str(path)), "test")
    path.write_text("\n".join(rows[1:]) + "\n")
    (found,) = evaluation_sets(dataclasses.replace(config, test=str(path)), "test")
    assert not found.labelled


def test_a_data_set_that_is_not_prepared_is_said_at_once(rte):
    with pytest.raises(DataError, match=r"task.name = 'glue/cola:2.0.0': no data set in .*build"):
        parts(dataclasses.replace(rte, name="cola"), "train")


@pytest.mark.parametrize("column", ["question", "answer"])
def test_a_sentinel_that_is_none_is_named_with_its_line(config, tmp_path, column):
    rows = [{"question": "1", "answer": "a"}] * 2
    rows[1] = rows[1] | {column: "the <extra_id_100>"}
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    message = (
        r"rows.jsonl, line 2: <extra_id_100>: no such sentinel; the vocabulary has <extra_id_0"
    )
    for split, read in (("train", examine), ("validation", evaluation_sets)):
        wrong = dataclasses.replace(config, **{"train": "", "validation": "", split: str(path)})
        with pytest.raises(DataError, match=message):
            read(wrong, *[split][: split != "train"])
