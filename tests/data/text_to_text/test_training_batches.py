"""Training batches of pairs of texts, of TFDS and of tables: their order, mixture and positions."""

import dataclasses

import numpy as np
import pytest
from prepared_rte import CLASSES
from reading_pairs import BYTES, batches, texts
from streams import fingerprint

from spade_jax.data.config import DataError
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.evaluation_sets import evaluation_sets
from spade_jax.data.text_to_text.inspection import examine
from spade_jax.data.text_to_text.splits import parts
from spade_jax.data.text_to_text.training_batches import train_pairs
from spade_jax.data.vocabulary import load_vocabulary


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
    first = batches(config, 8, 5)
    assert fingerprint(first) == "6dedd19e75a60d2d"  # As in earlier versions.
    assert texts(config, batches(config, 8, 5)) == texts(config, first)
    other = dataclasses.replace(config, seed=1)
    assert texts(other, batches(other, 8, 5)) != texts(config, first)


@pytest.mark.parametrize("pack", [False, True])
def test_any_number_of_hosts_has_the_same_batches_and_positions(config, pack):
    config = dataclasses.replace(config, pack=pack)

    def host(index):
        return train_pairs(config, 4, [40], shard_index=index, num_shards=2)

    one, two = train_pairs(config, 8, [40]), [host(0), host(1)]

    def assert_equal(batch, hosts):
        parts = [next(host) for host in hosts]
        for name, rows in batch.items():
            np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), rows)

    for _ in range(3):
        assert_equal(next(one), two)
    position = one.get_state()
    expected = [next(one) for _ in range(4)]  # Into the next epoch.
    two[0] = host(0)
    two[0].set_state(position)
    for batch in expected:
        assert_equal(batch, two)
    one.set_state(two[1].get_state())
    assert_equal(next(one), two)
    with pytest.raises(DataError, match="was saved with batch_size = 8, but this run has 16"):
        train_pairs(config, 16, [40]).set_state(position)


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


def test_a_table_that_has_changed_is_read_again_and_is_other_data(config, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"question": "1", "answer": 2}\n' * 4)
    changing = dataclasses.replace(config, train=str(path))
    position = train_pairs(changing, 2, [4]).get_state()
    path.write_text('{"question": "1", "answer": 2}\n' * 5)
    assert examine(changing)[0].examples == 5
    with pytest.raises(DataError, match="was saved with data = "):
        train_pairs(changing, 2, [5]).set_state(position)


def test_what_is_evaluated_is_no_part_of_a_position(config):
    position = train_pairs(config, 4, [40]).get_state()
    other = dataclasses.replace(config, validation="elsewhere", test="elsewhere")
    train_pairs(other, 4, [40]).set_state(position)
    with pytest.raises(DataError, match="was saved with data = "):
        train_pairs(dataclasses.replace(config, seed=1), 4, [40]).set_state(position)
