"""The parts of a task's data: which files they are, what is left out, and what tells them apart."""

import dataclasses
import json
import os

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from reading_pairs import BYTES

from spade_jax.data.config import DataError
from spade_jax.data.task_config import TaskConfig
from spade_jax.data.text_to_text.examples import load_table, read_pairs
from spade_jax.data.text_to_text.inspection import look_through
from spade_jax.data.text_to_text.registry import TASKS
from spade_jax.data.text_to_text.splits import check_splits, digest_parts, parts

QQP = ("id", "qid1", "qid2", "question1", "question2", "is_duplicate")


def local(**splits) -> TaskConfig:
    return TaskConfig(inputs=("text",), target="label", **splits, **BYTES)


def write(path, *rows) -> str:
    path.write_text("".join(json.dumps({"text": t, "label": label}) + "\n" for t, label in rows))
    return str(path)


def replaced(path, text: str) -> None:
    """Another content of the same length, at the same time."""
    state = os.stat(path)
    assert len(text) == state.st_size
    with open(path, "w") as file:
        file.write(text)
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns))


def pairs(config, split="train"):
    return [pair for part in parts(config, split) for pair in read_pairs(part, config)]


def qqp_rows(path, *between):
    """A table of QQP, with lines between its second row and its third."""
    rows = [[i, 2 * i, 2 * i + 1, f"Why {i}?", f"How {i}?", i % 2] for i in range(4)]
    lines = ["\t".join(map(str, row)) for row in (QQP, *rows)]
    lines[3:3] = between
    path.write_text("".join(line + "\n" for line in lines))
    return str(path)


def test_broken_records_of_qqp_are_left_out_and_told(tmp_path):
    """One record over two lines, as the official file has it; TFDS counts both, and keeps none."""
    broken = ("77\t154\t155\tWas the lake ", "\tWas the lake real?\t0")
    table = qqp_rows(tmp_path / "train.tsv", *broken)
    config = TaskConfig("qqp", train=table, validation=qqp_rows(tmp_path / "dev.tsv"), **BYTES)
    labels = TASKS["qqp"].labels
    assert pairs(config) == [
        (number, f"qqp question1: Why {i}? question2: How {i}?", labels[i % 2])
        for i, number in enumerate("0145")
    ]
    looked = {found.part.split: found for found in look_through(config)}
    assert looked["train"].rows == looked["validation"].rows == 4
    assert looked["train"].broken == [f"{table}, line 4", f"{table}, line 5"]
    assert looked["validation"].broken == []


def test_broken_records_of_other_tasks_are_errors(tmp_path):
    path = tmp_path / "train.tsv"
    path.write_text("sentence1\tsentence2\tlabel\none\n")
    for name in ("rte", "stsb"):
        with pytest.raises(DataError, match="line 2: has 1 columns; must have 3"):
            pairs(TaskConfig(name, train=str(path), **BYTES))
    with pytest.raises(DataError, match="line 4: has 7 columns; must have 6"):
        pairs(TaskConfig("qqp", train=qqp_rows(path, "\t" * 6), **BYTES))


def test_rows_of_several_sets_are_counted_by_their_inputs(tmp_path):
    config = local(
        train=write(tmp_path / "train.jsonl", ("a", 1), ("b", 2), ("c", 3)),
        validation=write(tmp_path / "validation.jsonl", ("a", 2), ("a", 1), ("d", 1), ("A", 1)),
        test=write(tmp_path / "test.jsonl", ("d", 1), ("b", 1), ("e", 1), ("c ", 1)),
    )
    assert [(found.part.split, found.rows, found.repeated) for found in look_through(config)] == [
        ("train", 3, {}),
        ("validation", 4, {"train": 2}),
        ("test", 4, {"train": 1, "validation": 1}),
    ]
    check_splits(config)


@pytest.mark.parametrize("one", ["train", "validation", "test"])
@pytest.mark.parametrize("other", ["train", "validation", "test"])
def test_a_file_is_in_one_split_only(tmp_path, one, other):
    if one == other:
        return
    for name in ("train", "validation", "test", "more"):
        write(tmp_path / f"{name}.jsonl", (name, 1))
    splits = {split: f"{tmp_path}/{split}.jsonl" for split in ("train", "validation", "test")}
    (tmp_path / "link.jsonl").symlink_to(f"{other}.jsonl")
    for names in ("[mvt]*.jsonl", "link.jsonl"):
        config = local(**splits | {one: f"{tmp_path}/{names}"})
        with pytest.raises(
            DataError, match=r"task.\w+ = '.*': .*\.jsonl is in task.\w+ as well; a"
        ):
            check_splits(config)
    check_splits(local(**splits | {one: f"{tmp_path}/more.jsonl"}))


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        ("{}/reviews[12].jsonl", "reviews[12]"),
        ("{}/one,two.jsonl", "one,two"),
        (("{}/one,two.jsonl",), "one,two"),
        ("{}/{{task}}.jsonl", "{task}"),
        ("{}/reviews?.jsonl", "reviews1"),
    ],
)
def test_a_path_that_exists_is_that_file(tmp_path, named, expected):
    for name in ("reviews[12]", "reviews1", "one,two", "{task}", "local_pairs"):
        write(tmp_path / f"{name}.jsonl", (name, 1))
    many = isinstance(named, tuple)
    named = tuple(n.format(tmp_path) for n in named) if many else named.format(tmp_path)
    assert [pair.input for pair in pairs(local(train=named))] == [expected]


def test_parts_of_names_with_a_comma(tmp_path):
    for kind in ("matched", "mismatched"):
        row = f"premise\thypothesis\tlabel\n{kind}\tyes\tneutral\n"
        (tmp_path / f"dev, {kind}.tsv").write_text(row)
        (tmp_path / f"dev,_{kind}.tsv").write_text(row)
    for named in (
        f"{tmp_path}/dev,{{part}}.tsv",
        (f"{tmp_path}/dev,{{part}}.tsv",),
        (f"{tmp_path}/dev, matched.tsv", f"{tmp_path}/dev, mismatched.tsv"),
    ):
        config = TaskConfig("mnli", validation=named, **BYTES)
        assert [pair.input for pair in pairs(config, "validation")] == [
            "mnli hypothesis: yes premise: matched",
            "mnli hypothesis: yes premise: mismatched",
        ]


def test_contents_tell_tables_apart_not_lengths_and_times(tmp_path):
    train = write(tmp_path / "train.jsonl", ("a", 1), ("b", 2))
    other = write(tmp_path / "other.jsonl", ("a", 1), ("b", 2))
    config = local(train=f"{train},{other}", validation=other)
    before = digest_parts(config, "train")
    assert list(before) == ["local_pairs"]
    assert list(before["local_pairs"]) == [train, other]
    assert len({*before["local_pairs"].values()}) == 1
    assert digest_parts(config, "test") == {}
    (part,) = parts(config, "train")
    assert [pair.target for pair in load_table(part, config)] == ["1", "2", "1", "2"]
    replaced(train, (tmp_path / "other.jsonl").read_text().replace("2", "3"))
    after = digest_parts(config, "train")
    assert after["local_pairs"][other] == before["local_pairs"][other]
    assert after["local_pairs"][train] != before["local_pairs"][train]
    assert [pair.target for pair in load_table(part, config)] == ["1", "3", "1", "2"]


def test_tfds_is_known_by_its_name_version_and_shards(rte):
    found = {split: digest_parts(rte, split)["rte"] for split in ("train", "validation", "test")}
    assert [list(f) for f in found.values()] == [[f"glue/rte/2.0.0 {split}"] for split in found]
    assert len({*(value for f in found.values() for value in f.values())}) == 3
    assert digest_parts(rte, "test")["rte"] == found["test"]


def test_the_shipped_text_is_the_same_wherever_it_lies():
    config = TaskConfig("sotu_year", **BYTES)
    assert list(digest_parts(config, "train")["sotu_year"]) == ["sotu.train.jsonl.gz"]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_numbers_of_parquet_are_written_as_they_were_meant(tmp_path, kind):
    scores = [3.8, 0.1, 4.0, 2.25]
    texts = [f"{score:g}" for score in scores]
    path = str(tmp_path / "a.parquet")
    numbers = np.array(scores, kind)
    table = pyarrow.table({"text": numbers, "label": numbers})
    pyarrow.parquet.write_table(table, path)
    expected = list(zip(texts, texts))
    free = local(train=path)
    assert [pair[1:] for pair in pairs(free)] == expected
    correlated = dataclasses.replace(free, metrics=("pearson",))
    assert [pair[1:] for pair in pairs(correlated)] == expected
    labelled = dataclasses.replace(free, labels=tuple(texts))
    assert [pair[1:] for pair in pairs(labelled)] == expected


def test_scores_of_stsb_are_rounded_as_by_t5(tmp_path):
    """In float32, as 3.1 is a tie there: 3.1 * 5 is 15.5."""
    scores = np.arange(0, 5.001, 0.05).astype(np.float32)
    texts = [str(i) for i in range(len(scores))]
    path = str(tmp_path / "a.parquet")
    pyarrow.parquet.write_table(
        pyarrow.table({"sentence1": texts, "sentence2": texts, "label": scores}), path
    )
    t5 = [f"{np.round(score * 5) / 5:.1f}" for score in scores]
    assert [pair.target for pair in pairs(TaskConfig("stsb", train=path, **BYTES))] == t5
    assert t5[62] == "3.2"
