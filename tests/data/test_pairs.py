"""Pairs of texts: training batches and evaluation examples, of TFDS and of tables."""

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
from prepared_rte import CLASSES, prepare_rte

from spade_jax.data.config import DataError
from spade_jax.data.pairs import evaluation_sets, examine, load_table, parts, train_pairs
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.vocabulary import load_vocabulary

BYTES = {"vocabulary": "bytes", "extra_ids": 100}


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """40 sums to train on, sorted by their targets, and 7 to evaluate on."""
    directory = tmp_path_factory.mktemp("tables")
    for name, count in (("train", 40), ("validation", 7)):
        rows = [json.dumps({"question": f"{i} + {i}", "answer": 2 * i}) for i in range(count)]
        (directory / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
    return directory


@pytest.fixture(scope="module")
def config(tables):
    return TaskConfig(
        train=f"{tables}/train.jsonl",
        validation=f"{tables}/validation.jsonl",
        inputs=("question",),
        target="answer",
        prefix="add: ",
        input_length=32,
        target_length=8,
        **BYTES,
    )


@pytest.fixture(scope="module")
def rte(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tfds")
    prepare_rte(directory)
    return TaskConfig("rte", data_dir=str(directory), input_length=80, target_length=20, **BYTES)


def batches(config, batch_size, count, **hosts):
    sizes = [part.examples for part in examine(config)]
    return list(itertools.islice(train_pairs(config, batch_size, sizes, **hosts), count))


def texts(config, batches):
    """The pairs in unpacked batches, as text."""
    vocabulary = load_vocabulary(config)
    return [
        (vocabulary.decode(inputs), vocabulary.decode(targets))
        for batch in batches
        for inputs, targets in zip(batch["encoder_input_tokens"], batch["decoder_target_tokens"])
    ]


def test_an_epoch_has_each_row_once_in_an_order_of_its_own(config):
    epochs = texts(config, batches(config, 8, 10))
    expected = {(f"add: {i} + {i}", str(2 * i)) for i in range(40)}
    assert set(epochs[:40]) == set(epochs[40:]) == expected
    first = [int(target) for _, target in epochs[:40]]
    assert first != sorted(first)
    assert first[:8] != [int(target) for _, target in epochs[40:48]]
    # The whole table is shuffled, however it was sorted: the first batch spans it.
    assert max(first[:8]) - min(first[:8]) > 30


def test_the_seed_decides_the_order(config):
    assert texts(config, batches(config, 8, 5)) == texts(config, batches(config, 8, 5))
    other = dataclasses.replace(config, seed=1)
    assert texts(config, batches(config, 8, 5)) != texts(other, batches(other, 8, 5))


@pytest.mark.parametrize("pack", [False, True])
def test_any_number_of_hosts_has_the_same_batches_and_positions(config, pack):
    config = dataclasses.replace(config, pack=pack)
    whole = train_pairs(config, 8, [40])
    hosts = [train_pairs(config, 4, [40], shard_index=i, num_shards=2) for i in range(2)]

    def check():
        batch, *parts = (next(iterator) for iterator in (whole, *hosts))
        for name, rows in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), rows)

    for _ in range(7):
        check()
    position = whole.get_state()
    next(whole)
    whole.set_state(hosts[1].get_state())
    hosts[0].set_state(position)
    check()


@pytest.mark.parametrize("pack", [False, True])
def test_a_position_goes_on_with_the_batch_that_comes_next(config, pack):
    config = dataclasses.replace(config, pack=pack)
    sizes = [40]
    iterator = train_pairs(config, 4, sizes)
    for _ in range(7):
        next(iterator)
    position = iterator.get_state()
    expected = [next(iterator) for _ in range(8)]
    again = train_pairs(config, 4, sizes)
    again.set_state(position)
    for batch in expected:
        found = next(again)
        for name, array in batch.items():
            np.testing.assert_array_equal(found[name], array)
    with pytest.raises(DataError, match="was saved with batch_size = 4, but this run has 8"):
        train_pairs(config, 8, sizes).set_state(position)


def test_packed_rows_hold_whole_examples_side_by_side(config):
    packed = dataclasses.replace(config, pack=True, input_length=64, target_length=32)
    (batch,) = batches(packed, 2, 1)
    vocabulary = load_vocabulary(packed)
    for row in range(2):
        segments = batch["encoder_segment_ids"][row]
        assert segments.max() > 2
        for segment in range(1, segments.max() + 1):
            inside = segments == segment
            written = batch["decoder_segment_ids"][row] == segment
            question = vocabulary.decode(batch["encoder_input_tokens"][row, inside])
            answer = vocabulary.decode(batch["decoder_target_tokens"][row, written])
            number = int(question.removeprefix("add: ").split(" + ")[0])
            assert (question, answer) == (f"add: {number} + {number}", str(2 * number))
            positions = batch["decoder_positions"][row, written]
            np.testing.assert_array_equal(positions, np.arange(written.sum()))
            # Each begins with the start token, not with the end of the one before.
            assert batch["decoder_input_tokens"][row, written][0] == 0


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


def test_fewer_examples_than_a_batch(config):
    with pytest.raises(DataError, match=r"40 training examples, but a batch of 41; must have at"):
        train_pairs(config, 41, [40])


def test_a_tfds_task_under_its_real_name(rte):
    pairs = texts(rte, batches(rte, 6, 5))
    assert set(pairs) == {
        (f"rte sentence1: Premise {i}. sentence2: Hypothesis {i}.", CLASSES[i % 2])
        for i in range(30)
    }
    (held_out,) = evaluation_sets(rte, "validation")
    assert held_out.labelled
    assert {pair.target for pair in held_out.pairs} == set(CLASSES)
    (secret,) = evaluation_sets(rte, "test")
    assert not secret.labelled
    assert sorted(pair.number for pair in secret.pairs) == ["0", "1", "2", "3"]


def test_the_mixture_takes_each_task_by_its_size(tmp_path):
    sizes = {"cola": 64, "sst2": 16}
    tasks = TaskConfig("glue", train=f"{tmp_path}/{{task}}.tsv", **BYTES).tasks
    for task in tasks:
        cells = [str(i) for i in range(len(task.columns))]
        label = task.labels[0] if task.labels else "2.5"
        header = "\t".join([*task.columns, "label"])
        row = "\t".join([*cells, label])
        rows = [row] * sizes.get(task.name, 4)
        (tmp_path / f"{task.name}.tsv").write_text("\n".join([header, *rows]) + "\n")
        for kind in ("_matched", "_mismatched") if task.name == "mnli" else ("",):
            (tmp_path / f"{task.name}.dev{kind}.tsv").write_text(f"{header}\n{row}\n")
    config = TaskConfig(
        "glue", train=f"{tmp_path}/{{task}}.tsv", input_length=64, target_length=20, **BYTES
    )
    assert [part.name for part in parts(config, "train")] == [task.name for task in tasks]
    assert parts(config, "validation") == []
    held_out = dataclasses.replace(config, validation=f"{tmp_path}/{{task}}.dev{{part}}.tsv")
    names = [examples.part.name for examples in evaluation_sets(held_out, "validation")]
    assert len(names) == len(set(names)) == 10
    assert {"mnli_matched", "mnli_mismatched", "rte"} <= set(names)
    found = examine(config)
    assert [part.examples for part in found] == [sizes.get(task.name, 4) for task in tasks]
    inputs = [text for text, _ in texts(config, batches(config, 100, 10))]
    share = np.mean([text.startswith("cola") for text in inputs])
    # 64 of 108 examples are CoLA's; three standard deviations of 1,000 draws.
    assert abs(share - 64 / 108) < 3 * np.sqrt(0.59 * 0.41 / 1000)


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


def test_a_table_that_has_changed_is_read_again_and_is_other_data(config, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "1", "answer": 2}\n' * 4)
    changing = dataclasses.replace(config, train=str(path))
    position = train_pairs(changing, 2, [4]).get_state()
    path.write_text('{"question": "1", "answer": 2}\n' * 5)
    assert examine(changing)[0].examples == 5
    with pytest.raises(DataError, match="was saved with data = "):
        train_pairs(changing, 2, [5]).set_state(position)


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


def test_what_is_evaluated_is_no_part_of_a_position(config):
    position = train_pairs(config, 4, [40]).get_state()
    other = dataclasses.replace(config, validation="elsewhere", test="elsewhere")
    train_pairs(other, 4, [40]).set_state(position)
    with pytest.raises(DataError, match="was saved with data = "):
        train_pairs(dataclasses.replace(config, seed=1), 4, [40]).set_state(position)


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
